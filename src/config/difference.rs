//! The difference between two settings, which a reload would bring about.
//!
//! Values are told as the file writes them, and secrets never: of those the difference says only
//! that there is another one.

mod cluster;
mod nodes;
mod outbox;
mod sections;
mod values;

use super::{Config, node::Tier};
use crate::domain::layer::Layer;

/// A value that is not shown.
const HIDDEN: &str = "***";
/// Another value that is not shown.
const OTHER: &str = "*** (another)";
/// The value of a key that is not set.
const NOT_SET: &str = "not set";
/// Changes that a summary names.
const NAMED: usize = 20;

/// The changes that a reload would make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Settings with another value, in the order of the documentation.
    pub settings: Vec<Setting>,
    /// Nodes that come, go or change, by network and side.
    pub nodes: Vec<NodeChange>,
    /// Keys, or sections, that a reload cannot change: with any of them the reload is refused.
    pub needing_restart: Vec<&'static str>,
}

/// A setting with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key, with its section.
    pub key: String,
    /// The value that is in use.
    pub from: String,
    /// The value of the file.
    pub to: String,
}

/// A node that comes, goes or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeChange {
    /// The network's name.
    pub network: String,
    /// The node's side.
    pub layer: Layer,
    /// The node's name.
    pub node: String,
    /// The node's tier; of a node that stays, the new tier.
    pub tier: Tier,
    /// The kind of the change.
    pub change: Change,
}

/// A change to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The node is new. Holds its URLs without their secrets.
    Added(Vec<String>),
    /// The node goes.
    Removed,
    /// Settings of the node change.
    Changed(Vec<Setting>),
}

impl Difference {
    /// The difference from `old`, which is in use, to `new`.
    pub fn between(old: &Config, new: &Config) -> Self {
        let mut difference = Self { needing_restart: old.changes_needing_restart(new), ..Self::default() };
        sections::compare(&mut difference.settings, old, new);
        nodes::compare(&mut difference, &old.networks, &new.networks);
        difference
    }

    /// Whether a reload would change nothing.
    pub fn is_empty(&self) -> bool {
        self.settings.is_empty() && self.nodes.is_empty()
    }

    /// The keys and nodes that differ, on one line and without their values.
    pub fn summary(&self) -> String {
        let keys = self.settings.iter().map(|setting| setting.key.clone());
        let nodes = self.nodes.iter().map(|NodeChange { network, layer, node, change, .. }| {
            let change = match change {
                Change::Added(_) => "is new".to_owned(),
                Change::Removed => "is removed".to_owned(),
                Change::Changed(settings) => {
                    let keys: Vec<_> = settings.iter().map(|setting| &*setting.key).collect();
                    format!("changes ({})", keys.join(", "))
                }
            };
            format!("{network}/{}/{node} {change}", layer.as_str())
        });
        let mut named: Vec<String> = keys.chain(nodes).collect();
        let count = named.len();
        if count > NAMED {
            named.truncate(NAMED);
            named.push(format!("and {} more", count - NAMED));
        }
        named.join(", ")
    }

    /// Whether `key` is one that a reload cannot change.
    pub fn needs_restart(&self, key: &str) -> bool {
        let is_inside = |section: &str| key.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
        self.needing_restart.iter().any(|fixed| *fixed == key || is_inside(fixed))
    }
}

/// Adds `key` to `changes` if `old` and `new` differ. Values that are told alike differ in a part
/// that is not shown.
fn compare<T: PartialEq>(changes: &mut Vec<Setting>, key: String, old: &T, new: &T, told: impl Fn(&T) -> String) {
    if old != new {
        let (from, mut to) = (told(old), told(new));
        if from == to {
            to = if from == HIDDEN { OTHER.to_owned() } else { format!("{to} (other in a part that is not shown)") };
        }
        changes.push(Setting { key, from, to });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, &|_| None).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn between(old: &str, new: &str) -> Difference {
        Difference::between(&config(old), &config(new))
    }

    #[test]
    fn a_summary_names_keys_and_nodes_on_one_line() {
        let second = NODE.replace("\"a\"", "\"b\"").replace("10.0.0.1", "10.0.0.2");
        let both = format!("{NODE}{second}");
        let moved = NODE.replace("8545", "8546");
        assert_eq!(
            between(NODE, &format!("max_connections = 7\n{both}")).summary(),
            "max_connections, default/el/b is new"
        );
        assert_eq!(between(&both, NODE).summary(), "default/el/b is removed");
        assert_eq!(between(NODE, &moved).summary(), "default/el/a changes (http)");
        assert_eq!(between(NODE, NODE).summary(), "");
        let many: String = (0..30)
            .map(|count| {
                NODE.replace("\"a\"", &format!("\"n{count}\"")).replace("10.0.0.1", &format!("10.0.1.{count}"))
            })
            .collect();
        let summary = between(NODE, &many).summary();
        assert_eq!((summary.matches(", ").count(), summary.ends_with(", and 11 more")), (NAMED, true), "{summary}");
    }

    const NODE: &str = "[[el.primary]]\nname = \"a\"\nhttp = \"http://10.0.0.1:8545\"\n";

    #[test]
    fn a_setting_is_told_with_both_values_as_the_file_writes_them() {
        let cases = [
            ("calls.timeout = \"15s\"", "calls.timeout", "30s", "15s"),
            ("health.interval = \"1500ms\"", "health.interval", "1s", "1500ms"),
            ("calls.max_body = \"12MiB\"", "calls.max_body", "10MiB", "12MiB"),
            ("max_client_memory = \"1000B\"", "max_client_memory", "not set", "1000B"),
            ("calls.policy = \"spread\"", "calls.policy", "first", "spread"),
            ("chain.trust_bloom = \"never\"", "chain.trust_bloom", "auto", "never"),
            ("log.format = \"json\"", "log.format", "text", "json"),
            ("calls.allowed = [\"admin_peers\"]", "calls.allowed", "[]", "[admin_peers]"),
            (
                "calls.rules = [{ methods = [\"trace_*\"], timeout = \"2m\", blocked = false }]",
                "calls.rules",
                "[]",
                "[[trace_*]: timeout 120s, blocked false]",
            ),
            ("cors.origins = [\"*\"]", "cors.origins", "[]", "[*]"),
            ("hosts = [\"rpc.example\"]", "hosts", "[]", "[rpc.example]"),
            ("shared_addresses = [\"10.0.0.0/8\", \"::1\"]", "shared_addresses", "[]", "[10.0.0.0/8, ::1/128]"),
            ("beacon.blocked = [\"/eth/v9/x*\"]", "beacon.blocked", "", "[/eth/v9/x*]"),
            ("chain_id = 5", "chain_id", "not set", "5"),
        ];
        for (line, key, from, to) in cases {
            let difference = between(NODE, &format!("{line}\n{NODE}"));
            let [setting] = &*difference.settings else { panic!("{line}: {difference:?}") };
            assert_eq!((&*setting.key, &*setting.to), (key, to), "{line}");
            assert!(from.is_empty() || setting.from == from, "{line}: {setting:?}");
            assert!(difference.nodes.is_empty() && !difference.is_empty(), "{line}");
        }
        assert!(between(NODE, NODE).is_empty());
    }

    #[test]
    fn a_fixed_key_is_marked_and_a_free_one_beside_it_is_not() {
        let difference = between(NODE, &format!("log.filter = \"debug\"\nlog.access = 1\nchain.window = 99\n{NODE}"));
        assert_eq!(difference.needing_restart, ["chain", "log.filter"]);
        for (key, fixed) in [("log.filter", true), ("chain.window", true), ("log.access", false), ("chain_id", false)] {
            assert_eq!(difference.needs_restart(key), fixed, "{key}");
        }
    }

    #[test]
    fn nodes_come_go_change_and_trade_places() {
        let node =
            |name: &str, more: &str| format!("[[el.primary]]\nname = \"{name}\"\nhttp = \"http://{name}\"\n{more}");
        let old = [node("a", ""), node("b", ""), node("c", "")].concat();
        let new = [node("c", ""), node("a", "max_connections = 4\n"), node("d", "ws = \"ws://d/k3y\"\n")].concat();
        let difference = between(&old, &new);
        let seen: Vec<_> = difference.nodes.iter().map(|node| (&*node.node, &node.change)).collect();
        let setting = |key: &str, from: &str, to: &str| Setting { key: key.into(), from: from.into(), to: to.into() };
        assert_eq!(
            seen,
            [
                ("a", &Change::Changed(vec![setting("max_connections", "not set", "4")])),
                ("d", &Change::Added(vec!["http://d".into(), "ws://d/***".into()])),
                ("b", &Change::Removed),
            ]
        );
        assert_eq!(difference.settings, [setting("el.primary (order)", "a, c", "c, a")]);
    }

    #[test]
    fn a_node_that_comes_is_shown_as_the_file_has_it() {
        let ipc = "[[el.primary]]\nname = \"i\"\nipc = \"/run/geth.ipc\"\n";
        let dns = "[[el.primary]]\nname = \"d\"\nhttp = \"dns+http://d\"\nws = \"dns+ws://d:8546\"\n";
        let difference = between(NODE, &[NODE, ipc, dns].concat());
        let seen: Vec<_> = difference.nodes.iter().map(|node| &node.change).collect();
        let added = |addresses: &[&str]| Change::Added(addresses.iter().map(ToString::to_string).collect());
        assert_eq!(seen, [&added(&["ipc:/run/geth.ipc"]), &added(&["dns+http://d", "dns+ws://d:8546"])]);
    }

    #[test]
    fn a_network_that_comes_brings_all_its_nodes() {
        let base = "[networks.base]\nchain_id = 8453\n[[networks.base.cl.backup]]\nname = \"x\"\nhttp = \"http://x\"\n";
        let difference = between(NODE, &format!("{NODE}{base}"));
        let [node] = &*difference.nodes else { panic!("{difference:?}") };
        assert_eq!((&*node.network, node.layer, node.tier), ("base", Layer::Cl, Tier::Backup));
        assert_eq!(difference.settings[0].key, "networks.base.chain_id");
        let gone = between(&format!("{NODE}{base}"), NODE);
        assert_eq!(gone.nodes[0].change, Change::Removed);
    }

    #[test]
    fn no_secret_is_told() {
        let node = |user: &str, key: &str, token: &str| {
            format!(
                "[[el.primary]]\nname = \"a\"\nhttp = \"http://{user}:pa55@h/v2/{key}\"\nws = \"ws://h/{key}\"\n\
                 headers = {{ x-token = \"{token}\", x-{key} = \"1\" }}\n"
            )
        };
        let difference = between(&node("us3r", "k3y", "t0ken"), &node("n3w", "y4k", "m0re"));
        let told = format!("{difference:?}");
        for secret in ["us3r", "n3w", "pa55", "t0ken", "m0re"] {
            assert!(!told.contains(secret), "{secret}: {told}");
        }
        let Change::Changed(settings) = &difference.nodes[0].change else { panic!("{told}") };
        let keys: Vec<_> = settings.iter().map(|setting| (&*setting.key, &*setting.from, &*setting.to)).collect();
        let hidden = " (other in a part that is not shown)";
        assert_eq!(keys[0].0, "http");
        assert!(keys[0].2.ends_with(hidden), "{keys:?}");
        assert!(keys.contains(&("headers.x-token", "***", "*** (another)")), "{keys:?}");
        assert!(keys.contains(&("headers.x-k3y", "***", "not set")), "{keys:?}");
        assert!(keys.contains(&("headers.x-y4k", "not set", "***")), "{keys:?}");
    }
}
