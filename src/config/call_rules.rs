//! `[[calls.rules]]`: the patience with calls of some methods, in the place of that with all calls.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use super::{
    calls::{Calls, SendTo, send_to},
    method_pattern::{MethodPattern, decided},
    reader::Reader,
    reading::join,
};

/// The most rules: the first call of each method that is not known looks at all of them.
const MAX_RULES: usize = 100;
/// The method that `send_to` is for.
const SENDS: &str = "eth_sendRawTransaction";

/// A rule for calls of some methods. `None`: another rule holds, or the setting of all calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallRule {
    /// The methods. No other rule has the same pattern.
    pub methods: Vec<MethodPattern>,
    /// In the place of `calls.timeout`.
    pub timeout: Option<Duration>,
    /// In the place of `calls.attempt_timeout`.
    pub attempt_timeout: Option<Duration>,
    /// In the place of `calls.attempts`.
    pub attempts: Option<NonZeroU32>,
    /// In the place of `calls.send_to`.
    pub send_to: Option<SendTo>,
    /// In the place of `calls.blocked` and `calls.allowed`.
    pub blocked: Option<bool>,
}

/// The longest time of a call, its attempts, and the nodes of a signed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// As [`Calls::timeout`].
    pub timeout: Duration,
    /// As [`Calls::attempt_timeout`], and not longer than `timeout`.
    pub attempt_timeout: Duration,
    /// As [`Calls::attempts`].
    pub attempts: NonZeroU32,
    /// As [`Calls::send_to`].
    pub send_to: SendTo,
}

impl Calls {
    /// The patience with calls of `method`: each setting by the longest pattern that gives one.
    pub fn patience(&self, method: &str) -> Patience {
        let timeout = self.ruled(method, |rule| rule.timeout).unwrap_or(self.timeout);
        let attempt_timeout = self.ruled(method, |rule| rule.attempt_timeout).unwrap_or(self.attempt_timeout);
        Patience {
            timeout,
            attempt_timeout: attempt_timeout.min(timeout),
            attempts: self.ruled(method, |rule| rule.attempts).unwrap_or(self.attempts),
            send_to: self.ruled(method, |rule| rule.send_to).unwrap_or(self.send_to),
        }
    }

    fn ruled<T>(&self, method: &str, setting: impl Fn(&CallRule) -> Option<T>) -> Option<T> {
        let weighed = self.rules.iter().filter_map(|rule| Some((rule.weight(method)?, setting(rule)?)));
        weighed.max_by_key(|(weight, _)| *weight).map(|(_, setting)| setting)
    }

    /// Whether the rules refuse `method`, if any has a say.
    pub(super) fn is_ruled_out(&self, method: &str) -> Option<bool> {
        let rules = self.rules.iter().filter_map(|rule| Some((&rule.methods, rule.blocked?)));
        decided(rules.flat_map(|(methods, blocks)| methods.iter().map(move |pattern| (pattern, blocks))), method)
    }
}

impl CallRule {
    fn weight(&self, method: &str) -> Option<usize> {
        self.methods.iter().filter(|pattern| pattern.matches(method)).map(MethodPattern::length).max()
    }

    /// The tables `[[calls.rules]]`.
    pub(super) fn read_all(r: &mut Reader<'_>) -> Vec<Self> {
        let tables = r.tables("rules");
        r.check(tables.len() <= MAX_RULES, "rules", &[], "has more than 100 entries");
        let mut paths: BTreeMap<String, String> = BTreeMap::new();
        let mut all = Vec::new();
        for r in tables {
            let (path, reading) = (r.path().to_owned(), r.reading());
            let rule = Self::read(r);
            for pattern in rule.methods.iter().map(ToString::to_string) {
                match paths.get(&pattern) {
                    Some(first) if *first == path => {}
                    Some(first) => {
                        reading.fail(&join(&path, "methods"), format!("has `{pattern}`, which `{first}` has already"));
                    }
                    None => _ = paths.insert(pattern, path.clone()),
                }
            }
            all.push(rule);
        }
        all
    }

    fn read(mut r: Reader<'_>) -> Self {
        let rule = Self {
            methods: r.list("methods", str::parse).unwrap_or_default(),
            timeout: r.duration_if_set("timeout"),
            attempt_timeout: r.duration_if_set("attempt_timeout"),
            attempts: r.positive_if_set("attempts"),
            send_to: send_to(&mut r),
            blocked: r.boolean_if_set("blocked"),
        };
        let Self { methods, timeout, attempt_timeout, attempts, send_to, blocked } = &rule;
        if methods.is_empty() && r.reading().is_clean(&join(r.path(), "methods")) {
            r.reading().fail(r.path(), "needs `methods`");
        }
        let keys = ["timeout", "attempt_timeout", "attempts", "send_to", "blocked"];
        let is_clean = keys.iter().all(|key| r.reading().is_clean(&join(r.path(), key)));
        let sets_some =
            timeout.or(*attempt_timeout).is_some() || attempts.is_some() || send_to.is_some() || blocked.is_some();
        if is_clean && !sets_some {
            r.reading().fail(r.path(), "sets nothing for its methods");
        }
        r.check(
            attempt_timeout.zip(*timeout).is_none_or(|(attempt, all)| attempt <= all),
            "attempt_timeout",
            &["timeout"],
            "must not be longer than `timeout`",
        );
        r.check(
            send_to.is_none() || methods.is_empty() || rule.weight(SENDS).is_some(),
            "send_to",
            &["methods"],
            "is for `eth_sendRawTransaction` alone, which `methods` lacks",
        );
        rule
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Errors};

    fn parse(calls: &str) -> Result<Calls, Errors> {
        let text = format!("[calls]\n{calls}\n[[el.primary]]\nhttp = \"http://127.0.0.1:18545\"\n");
        Config::parse(&text, &|_| None).map(|config| config.calls)
    }

    const RULES: &str = r#"
        timeout = "5s"
        [[calls.rules]]
        methods = ["trace_*", "debug_trace*"]
        timeout = "5m"
        attempt_timeout = "2m"
        [[calls.rules]]
        methods = ["trace_filter"]
        attempts = 1
        timeout = "10m"
        [[calls.rules]]
        methods = ["eth_gasPrice", "eth_send*"]
        timeout = "2s"
        send_to = "tier"
    "#;

    #[test]
    fn the_longest_pattern_gives_each_setting() {
        let calls = parse(RULES).unwrap();
        for (method, timeout, attempt_timeout, attempts, send_to) in [
            ("eth_call", 5, 5, 3, SendTo::All),
            ("trace_block", 300, 120, 3, SendTo::All),
            ("debug_traceCall", 300, 120, 3, SendTo::All),
            ("trace_filter", 600, 120, 1, SendTo::All),
            ("trace_filterX", 300, 120, 3, SendTo::All),
            ("eth_gasPrice", 2, 2, 3, SendTo::Tier),
            ("eth_sendRawTransaction", 2, 2, 3, SendTo::Tier),
        ] {
            let patience = Patience {
                timeout: Duration::from_secs(timeout),
                attempt_timeout: Duration::from_secs(attempt_timeout),
                attempts: NonZeroU32::new(attempts).unwrap(),
                send_to,
            };
            assert_eq!(calls.patience(method), patience, "{method}");
        }
    }

    #[test]
    fn a_rule_decides_before_the_lists_whether_a_method_is_refused() {
        let calls = parse(
            r#"
            allowed = ["admin_peers"]
            [[calls.rules]]
            methods = ["debug_*", "admin_peers"]
            blocked = true
            [[calls.rules]]
            methods = ["debug_traceCall", "miner_*"]
            blocked = false
            [[calls.rules]]
            methods = ["*"]
            attempts = 1
            "#,
        )
        .unwrap();
        for method in ["debug_traceBlock", "DEBUG_traceCall", "debug_traceCallMany", "admin_peers", "admin_x"] {
            assert!(calls.blocks(method), "{method}");
        }
        for method in ["debug_traceCall", "miner_start", "eth_call"] {
            assert!(!calls.blocks(method), "{method}");
        }
    }

    #[test]
    fn wrong_rules_of_calls_are_told_with_their_keys() {
        let rule = "[[calls.rules]]\nmethods = [\"trace_*\"]";
        for (calls, path, words) in [
            ("[[calls.rules]]\ntimeout = \"1s\"".to_owned(), "calls.rules[0]", "needs `methods`"),
            (rule.to_owned(), "calls.rules[0]", "sets nothing"),
            (format!("{rule}\ntimeout = \"0s\""), "calls.rules[0].timeout", "zero"),
            (
                format!("{rule}\ntimeout = \"2s\"\nattempt_timeout = \"3s\""),
                "calls.rules[0].attempt_timeout",
                "longer than `timeout`",
            ),
            (format!("{rule}\nattempts = 0"), "calls.rules[0].attempts", "from 1"),
            (format!("{rule}\nsend_to = \"first\""), "calls.rules[0].send_to", "`eth_sendRawTransaction` alone"),
            (format!("{rule}\nsend_to = \"one\""), "calls.rules[0].send_to", "must be \"all\" or \"tier\""),
            (format!("{rule}\nblocked = \"yes\""), "calls.rules[0].blocked", "must be true or false"),
            (format!("{rule}\nattempts = 1\n{rule}\nattempts = 2"), "calls.rules[1].methods", "`calls.rules[0]` has"),
            (format!("{rule}\ntimeuot = \"1s\""), "calls.rules[0].timeuot", "did you mean `timeout`?"),
            ("[[calls.rules]]\nmethods = [\"a*b\"]\nattempts = 1".to_owned(), "calls.rules[0].methods", "method name"),
            (
                (0..101).map(|n| format!("[[calls.rules]]\nmethods = [\"a_{n}\"]\nattempts = 1\n")).collect(),
                "calls.rules",
                "more than 100",
            ),
        ] {
            let errors = parse(&calls).expect_err(&calls);
            let found =
                errors.problems.iter().any(|problem| problem.path.starts_with(path) && problem.message.contains(words));
            assert!(found, "{calls}: {errors:?}");
        }
    }
}
