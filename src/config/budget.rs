//! `budget`: the credits that may be spent at a node, or at the nodes of an account, in a time.

use std::{
    collections::BTreeMap,
    fmt,
    num::{NonZeroU32, NonZeroU64},
};

use super::{
    method_pattern::MethodPattern,
    name::NodeName,
    node::Node,
    reader::Reader,
    reading::{Reading, join},
};
use crate::domain::layer::Layer;

/// The most credits of a second, of a burst, and of one call.
const MOST: u64 = 1_000_000_000;

/// The credits that may be spent at a node in a time. A call costs one credit where no pattern says
/// otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Credits that come back in a second, and the credits that may be spent at once.
    pub rate: Option<Rate>,
    /// Credits of one day, which begins at midnight UTC.
    pub per_day: Option<NonZeroU64>,
    /// The credits of calls of methods: the longest pattern counts. Execution nodes only.
    pub costs: Vec<(MethodPattern, u32)>,
}

/// How fast credits may be spent: in any time at most `burst`, and `per_second` for each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Credits that come back in a second.
    pub per_second: NonZeroU32,
    /// Credits that may be spent at once.
    pub burst: NonZeroU32,
}

impl Budget {
    /// The credits that a call of this method costs.
    pub fn cost(&self, method: &str) -> u32 {
        let costs = self.costs.iter().filter(|(pattern, _)| pattern.matches(method));
        costs.max_by_key(|(pattern, _)| pattern.length()).map_or(1, |(_, cost)| *cost)
    }

    /// The budget of a node of `layer`; `None` where the node has none.
    pub(super) fn read_if_set(node: &mut Reader<'_>, layer: Layer) -> Option<Self> {
        let is_set = node.has("budget");
        let mut r = node.section("budget");
        let count = |r: &mut Reader<'_>, key| {
            let count = r.integer(key, 1..=MOST)?;
            u32::try_from(count).ok().and_then(NonZeroU32::new)
        };
        let per_second = count(&mut r, "per_second");
        let burst = count(&mut r, "burst");
        let per_day = r.integer("per_day", 1..=u64::MAX).and_then(NonZeroU64::new);
        let costs = match layer {
            Layer::El => costs(&mut r),
            Layer::Cl => Vec::new(),
        };
        if !is_set {
            return None;
        }
        r.check(
            per_second.is_some() || per_day.is_some(),
            "per_second",
            &["per_day"],
            "is needed, or `per_day`: a budget without either limits nothing",
        );
        r.check(burst.is_none() || per_second.is_some(), "burst", &["per_second"], "has no use without `per_second`");
        let rate = per_second.map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second) });
        for (pattern, cost) in &costs {
            let burst = rate.map(|rate| u64::from(rate.burst.get()));
            for (key, most) in [("burst", burst), ("per_day", per_day.map(NonZeroU64::get))] {
                if most.is_some_and(|most| most < u64::from(*cost)) {
                    r.fail(
                        "costs",
                        format!("has more for `{pattern}` than `{key}`, so that no such call could be sent"),
                    );
                }
            }
        }
        Some(Self { rate, per_day, costs })
    }
}

fn costs(r: &mut Reader<'_>) -> Vec<(MethodPattern, u32)> {
    let mut costs = Vec::new();
    for (name, path, cost) in r.integers("costs", 0..=MOST) {
        match (name.parse::<MethodPattern>(), u32::try_from(cost)) {
            (Ok(pattern), Ok(cost)) => costs.push((pattern, cost)),
            (Err(wrong), _) => r.reading().fail(&path, wrong.to_string()),
            (_, Err(_)) => {}
        }
    }
    costs
}

/// As the file writes a budget.
impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rate, per_day, costs } = self;
        let mut parts = Vec::new();
        if let Some(Rate { per_second, burst }) = rate {
            parts.extend([format!("per_second = {per_second}"), format!("burst = {burst}")]);
        }
        parts.extend(per_day.map(|per_day| format!("per_day = {per_day}")));
        if !costs.is_empty() {
            let costs: Vec<_> = costs.iter().map(|(pattern, cost)| format!("\"{pattern}\" = {cost}")).collect();
            parts.push(format!("costs = {{ {} }}", costs.join(", ")));
        }
        write!(f, "{{ {} }}", parts.join(", "))
    }
}

/// The budgets of accounts: a node of an account gives the budget of all the others.
#[derive(Default)]
pub(super) struct AccountBudgets(BTreeMap<NodeName, (String, Budget)>);

impl AccountBudgets {
    /// Takes note of the budgets of these nodes, each with its path in the file.
    pub(super) fn note(&mut self, reading: &Reading<'_>, nodes: &[(String, Node)]) {
        for (path, node) in nodes {
            let Some((account, budget)) = node.account.clone().zip(node.budget.clone()) else { continue };
            match self.0.get(&account) {
                Some((first, _)) => reading.fail(
                    &join(path, "budget"),
                    format!("is given by `{first}` already: one node of an account gives the budget of all"),
                ),
                None => _ = self.0.insert(account, (path.clone(), budget)),
            }
        }
    }

    /// Gives each node of an account the account's budget.
    pub(super) fn share<'n>(&self, nodes: impl Iterator<Item = &'n mut Node>) {
        for node in nodes {
            if let Some((_, budget)) = node.account.as_ref().and_then(|account| self.0.get(account)) {
                node.budget = Some(budget.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let file = text.to_owned();
        Config::parse(&file, &|_| None).map_err(|errors| {
            errors.problems.iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
        })
    }

    fn node(lines: &str) -> String {
        format!("[[el.primary]]\nhttp = \"http://a:1\"\n{lines}\n")
    }

    #[test]
    fn the_longest_pattern_gives_the_cost() {
        let costs = r#"{ "debug_*" = 50, "debug_traceCall" = 90, "*" = 2, "net_version" = 0 }"#;
        let config = read(&node(&format!("budget = {{ per_second = 100, costs = {costs} }}"))).unwrap();
        let budget = config.networks[0].el[0].budget.clone().unwrap();
        let cost = |method| budget.cost(method);
        let methods = ["debug_traceCall", "debug_traceBlock", "eth_call", "net_version"];
        assert_eq!(methods.map(cost), [90, 50, 2, 0]);
        assert_eq!(budget.rate.map(|rate| (rate.per_second.get(), rate.burst.get())), Some((100, 100)));
        let shown = budget.to_string();
        assert!(shown.starts_with("{ per_second = 100, burst = 100, costs = { "), "{shown}");
    }

    #[test]
    fn a_budget_that_cannot_hold_is_named() {
        for (budget, problem) in [
            ("{}", "per_second: is needed, or `per_day`: a budget without either limits nothing"),
            ("{ per_day = 9, burst = 3 }", "burst: has no use without `per_second`"),
            ("{ per_second = 0 }", "per_second: must be from 1 to 1000000000"),
            (
                r#"{ per_second = 5, costs = { "debug_*" = 50 } }"#,
                "costs: has more for `debug_*` than `burst`, so that no such call could be sent",
            ),
            (
                r#"{ per_day = 40, costs = { "debug_*" = 50 } }"#,
                "costs: has more for `debug_*` than `per_day`, so that no such call could be sent",
            ),
            (r#"{ per_day = 9, costs = { "a*b" = 1 } }"#, "costs.***: must be a method name"),
            (r#"{ per_day = 9, costs = { eth_call = "1" } }"#, "costs.eth_call: must be a whole number"),
            ("{ per_day = 9, per_hour = 1 }", "per_hour: "),
        ] {
            let problems = read(&node(&format!("budget = {budget}"))).unwrap_err();
            let wanted = format!("el.primary[0].budget.{problem}");
            assert!(problems.iter().any(|found| found.starts_with(&wanted)), "{budget}: {problems:?}");
        }
        let costs = "[[cl.primary]]\nhttp = \"http://c:1\"\nbudget = { per_day = 9, costs = { eth_call = 1 } }\n";
        assert!(read(costs).unwrap_err()[0].contains("costs"));
    }

    #[test]
    fn one_node_of_an_account_gives_the_budget_of_all() {
        let other = "[[cl.backup]]\nhttp = \"http://b:1\"\naccount = \"paid\"\n";
        let first = node("account = \"paid\"\nbudget = { per_day = 9 }");
        let config = read(&(first.clone() + other)).unwrap();
        let [el, cl] = [&config.networks[0].el[0], &config.networks[0].cl[0]];
        assert_eq!(el.budget, cl.budget);
        assert!(cl.budget.is_some());
        let problems = read(&(first + other + "budget = { per_day = 9 }\n")).unwrap_err();
        assert_eq!(
            problems,
            [
                "cl.backup[0].budget: is given by `el.primary[0]` already: one node of an account gives the budget of all"
            ]
        );
    }
}
