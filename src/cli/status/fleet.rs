//! `steadfast status --fleet`: the replicas of the cluster, as the proxy that is asked knows them.

mod wish;

use std::collections::BTreeMap;

use serde::Deserialize;

use self::wish::Wish;
use crate::cli::table::table;

#[derive(Deserialize)]
pub(super) struct Fleet {
    name: String,
    replica: String,
    role: String,
    leading: bool,
    replaced_by: Option<u64>,
    store: Store,
    leader: Option<Leader>,
    view: Option<View>,
    replicas: Vec<Replica>,
    nodes: Vec<Node>,
    /// Absent in older versions.
    #[serde(default)]
    wishes: Vec<Wish>,
    /// Absent in older versions.
    #[serde(default)]
    wishes_left_out: usize,
}

#[derive(Deserialize)]
struct Node {
    network: String,
    layer: String,
    node: String,
    verdicts: BTreeMap<String, usize>,
    of: usize,
    replicas: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    replica: String,
    verdict: String,
    last_error: Option<String>,
    /// Absent in older versions.
    #[serde(default)]
    cordoned: bool,
}

#[derive(Deserialize)]
struct Store {
    copy_age_ms: u64,
    fault: Option<String>,
}

#[derive(Deserialize)]
struct Leader {
    replica: String,
    term: u64,
    lease: String,
}

#[derive(Deserialize)]
struct View {
    number: u64,
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    replica: String,
    state: String,
}

#[derive(Deserialize)]
struct Replica {
    replica: String,
    state: String,
    role: String,
    /// Absent in older versions.
    #[serde(default)]
    drained: bool,
    epoch: Option<u64>,
    /// Absent in older versions, and null without an outbox.
    #[serde(default)]
    shards: Option<u32>,
    heard_ms_ago: u64,
    version: String,
    heads: Vec<Head>,
    serving: Vec<Serving>,
}

#[derive(Deserialize)]
struct Head {
    network: String,
    layer: String,
    served: u64,
}

#[derive(Deserialize)]
struct Serving {
    network: String,
    layer: String,
    node: String,
}

/// The fleet as a table.
pub(super) fn render(fleet: Option<&Fleet>) -> String {
    let Some(fleet) = fleet else {
        return "this proxy is in no cluster: its settings have no [cluster]\n".to_owned();
    };
    let part = if fleet.leading { "which leads".to_owned() } else { format!("which is {}", fleet.role) };
    let mut text = format!("cluster {}: asked {}, {part}\n", fleet.name, fleet.replica);
    match &fleet.leader {
        Some(Leader { replica, term, lease }) => {
            text += &format!("lease: {lease} by {replica}, term {term}\n");
        }
        None => text += "lease: none is known\n",
    }
    if let Some(fault) = &fleet.store.fault {
        text += &format!("the store fails: {fault}\n");
    }
    text += &format!("the store last told something {} ms ago\n", fleet.store.copy_age_ms);
    if let Some(by) = fleet.replaced_by {
        text += &format!("another process of this name has registered (epoch {by}): this one takes part no more\n");
    }
    let Some(view) = &fleet.view else { return text + "no view is known yet\n" };
    let head = ["REPLICA", "STATE", "ROLE", "EPOCH", "HEARD", "VERSION", "SHARDS", "SERVED", "NODES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for replica in &fleet.replicas {
        let heads = replica.heads.iter().map(|head| format!("{} {} {}", head.network, head.layer, head.served));
        let nodes = replica.serving.iter().map(|of| format!("{} {} {}", of.network, of.layer, of.node));
        rows.push(vec![
            replica.replica.clone(),
            if replica.drained { format!("{}, drained", replica.state) } else { replica.state.clone() },
            // The last heartbeat of a replica that is gone says nothing about its part now.
            if matches!(&*replica.state, "active" | "draining") { replica.role.clone() } else { "-".to_owned() },
            replica.epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string()),
            format!("{} ms ago", replica.heard_ms_ago),
            replica.version.clone(),
            replica.shards.map_or_else(|| "-".to_owned(), |shards| shards.to_string()),
            heads.collect::<Vec<_>>().join(", "),
            nodes.collect::<Vec<_>>().join(", "),
        ]);
    }
    // Of a replica that is gone, the store may have no heartbeat any more.
    let is_heard = |name: &str| fleet.replicas.iter().any(|replica| replica.replica == name);
    for member in view.members.iter().filter(|member| !is_heard(&member.replica)) {
        let mut row = vec![member.replica.clone(), member.state.clone()];
        row.resize(head.len(), "-".to_owned());
        rows.push(row);
    }
    text += &format!("view {}\n\n{}", view.number, table(&rows));
    fleet.nodes.iter().for_each(|node| text += &doubts(node));
    fleet.wishes.iter().for_each(|wish| text += &wish.words());
    if fleet.wishes_left_out > 0 {
        text += &format!("{} wishes more are not even kept: there are too many\n", fleet.wishes_left_out);
    }
    fleet.nodes.iter().for_each(|node| text += &own_cordons(node));
    text
}

/// A line for a node that replicas have cordoned by themselves.
fn own_cordons(Node { network, layer, node, replicas, .. }: &Node) -> String {
    let at: Vec<_> = replicas.iter().filter(|of| of.cordoned).map(|of| &*of.replica).collect();
    match &at[..] {
        [] => String::new(),
        at => format!("{network} {layer} {node} is cordoned by the operator of {} alone\n", at.join(", ")),
    }
}

/// A line for each verdict but `up` that some replica holds on a node, with the last error.
fn doubts(node: &Node) -> String {
    let mut text = String::new();
    for (word, count) in node.verdicts.iter().filter(|(word, _)| *word != "up") {
        let who = node.replicas.iter().filter(|of| of.verdict == *word);
        let errors = who.map(|of| match &of.last_error {
            Some(error) => format!("{}: {error}", of.replica),
            None => of.replica.clone(),
        });
        let Node { network, layer, node, of, .. } = node;
        let errors = errors.collect::<Vec<_>>().join("; ");
        text += &format!("{count} of {of} replicas see {network} {layer} {node} {word} ({errors})\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_is_a_table_with_its_leader() {
        let told = serde_json::json!({
            "name": "eu", "replica": "r1", "role": "watching", "leading": false, "replaced_by": null,
            "store": { "copy_age_ms": 12, "fault": null },
            "leader": { "replica": "r2", "term": 9, "lease": "held" },
            "view": { "number": 7, "members": [
                { "replica": "r1", "state": "active" }, { "replica": "r3", "state": "failed" },
            ] },
            "replicas": [{
                "replica": "r1", "state": "active", "role": "watching", "drained": true, "epoch": 5, "heard_ms_ago": 40, "version": "1",
                "shards": 21,
                "heads": [{ "network": "default", "layer": "el", "served": 77 }],
                "serving": [{ "network": "default", "layer": "el", "node": "geth-1" }],
            }],
            "nodes": [{
                "network": "default", "layer": "el", "node": "geth-2", "verdicts": { "down": 1, "up": 2 }, "of": 3,
                "replicas": [
                    { "replica": "r1", "verdict": "down", "last_error": "refused", "cordoned": true },
                    { "replica": "r2", "verdict": "up", "last_error": null },
                ],
            }],
            "wishes": [{
                "subject": "default el geth-2", "state": "drained", "obeyed": "drained", "by": "r1", "revision": 4,
                "unreadable": null, "ignored": false, "replicas": [{ "replica": "r1", "met": true, "last_error": null }],
            }],
        });
        let text = render(Some(&serde_json::from_value(told).unwrap()));
        assert!(text.starts_with("cluster eu: asked r1, which is watching\nlease: held by r2, term 9\n"), "{text}");
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        assert!(row("r1").contains("active, drained"), "{text}");
        assert!(row("r1").contains("1        21"), "{text}");
        assert!(row("r1").contains("default el 77") && row("r1").ends_with("default el geth-1"), "{text}");
        assert!(row("r3").contains("failed"), "{text}");
        assert!(text.contains("1 of 3 replicas see default el geth-2 down (r1: refused)\n"), "{text}");
        let wish = "wish of r1: default el geth-2 drained, revision 4: applied by 1 of 1\n";
        let own = "default el geth-2 is cordoned by the operator of r1 alone\n";
        assert!(text.ends_with(&format!("{wish}{own}")), "{text}");
        assert!(render(None).contains("in no cluster"));
    }
}
