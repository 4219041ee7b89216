//! The pools' knowledge of nodes, as gauges.

use prometric::prometheus::{IntGaugeVec, Opts};

use super::{cluster::ClusterFacts, outbox::OutboxFacts};

/// The gauges that are written anew at every scrape.
pub struct NodeGauges {
    /// Whether calls may go to the node: 1 or 0.
    pub node_usable: IntGaugeVec,
    /// Whether the operator has taken the node out: 1 or 0.
    pub node_cordoned: IntGaugeVec,
    /// The node's head.
    pub node_head: IntGaugeVec,
    /// Blocks that the node is behind the pool's head.
    pub node_lag: IntGaugeVec,
    /// 1 for the verdict on the node, 0 for every other.
    pub node_verdict: IntGaugeVec,
    /// Calls at the node now.
    pub node_in_flight: IntGaugeVec,
    /// Connections to the node that are open.
    pub node_connections: IntGaugeVec,
    /// Requests that wait for a connection to the node, because it takes no more.
    pub node_waiting: IntGaugeVec,
    /// Credits that are left of a node's budget.
    pub node_credits_left: IntGaugeVec,
    /// The pool's head.
    pub pool_head: IntGaugeVec,
    /// Whether any node may serve: 1 or 0.
    pub pool_serves: IntGaugeVec,
    /// 1 for the node that calls go to first, 0 for the others.
    pub active_node: IntGaugeVec,
    /// Whether calls go to a backup, or to a node that the rules find unusable: 1 or 0.
    pub failover_active: IntGaugeVec,
    /// The outbox.
    pub outbox: OutboxFacts,
    /// The cluster.
    pub cluster: ClusterFacts,
}

impl NodeGauges {
    pub(super) fn new() -> Self {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(format!("steadfast_{name}"), help), labels).expect("the names are constants")
        };
        Self {
            node_usable: gauge(
                "node_usable",
                "Whether the node is up and not cordoned: 1 or 0. `tier`: `primary`, `backup`.",
                &["network", "node", "layer", "tier"],
            ),
            node_cordoned: gauge(
                "node_cordoned",
                "Whether the operator has taken the node out: 1 or 0.",
                &["network", "node", "layer"],
            ),
            node_head: gauge(
                "node_head",
                "The number of the node's newest block, or slot.",
                &["network", "node", "layer"],
            ),
            node_lag: gauge(
                "node_lag",
                "Blocks, or slots, that the node is behind the side's head.",
                &["network", "node", "layer"],
            ),
            node_verdict: gauge(
                "node_verdict",
                "1 for the verdict on the node, 0 for every other; the words are those of `node.verdict` in STATUS.md.",
                &["network", "node", "layer", "verdict"],
            ),
            node_in_flight: gauge("node_in_flight", "Calls at the node now.", &["network", "node", "layer"]),
            node_connections: gauge(
                "node_connections",
                "Connections to the node that are open.",
                &["network", "node", "layer"],
            ),
            node_waiting: gauge(
                "node_waiting",
                "Requests that wait for a connection to the node, because the node takes no more.",
                &["network", "node", "layer"],
            ),
            node_credits_left: gauge(
                "node_credits_left",
                "Credits that are left of the `budget` of the node or its account. `of`: `burst` (those that could be spent at \
                 once), `day` (those until midnight UTC).",
                &["network", "node", "layer", "of"],
            ),
            pool_head: gauge(
                "pool_head",
                "The side's head by the head rule: the number of a block, or slot.",
                &["network", "layer"],
            ),
            pool_serves: gauge(
                "pool_serves",
                "Whether any node may serve: 1 or 0, and 0 is a total outage.",
                &["network", "layer"],
            ),
            active_node: gauge(
                "active_node",
                "1 for the node that calls go to first, 0 for the others.",
                &["network", "layer", "node"],
            ),
            failover_active: gauge(
                "failover_active",
                "Whether calls go to a backup, or to a node that the rules find unusable: 1 or 0.",
                &["network", "layer"],
            ),
            outbox: OutboxFacts::new(gauge),
            cluster: ClusterFacts::new(gauge),
        }
    }

    pub(super) fn all(&self) -> Vec<&IntGaugeVec> {
        let Self {
            node_usable,
            node_cordoned,
            node_head,
            node_lag,
            node_verdict,
            node_in_flight,
            node_connections,
            node_waiting,
            node_credits_left,
            pool_head,
            pool_serves,
            active_node,
            failover_active,
            outbox,
            cluster,
        } = self;
        let of_nodes = [
            node_usable,
            node_cordoned,
            node_head,
            node_lag,
            node_verdict,
            node_in_flight,
            node_connections,
            node_waiting,
            node_credits_left,
            pool_head,
            pool_serves,
            active_node,
            failover_active,
        ];
        of_nodes.into_iter().chain(outbox.all()).chain(cluster.all()).collect()
    }
}
