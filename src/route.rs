//! Floor 4, choice: which node a call goes to next, and which nodes are avoided. Pure: every fact
//! that is weighed is handed over.

pub mod avoided;
pub mod reach;

use crate::{
    config::Policy,
    domain::{
        method::Class,
        node_id::{ByNode, NodeId},
    },
    pool::snapshot::Snapshot,
};

/// A node's traffic at the moment of choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that wait on the node.
    pub in_flight: usize,
    /// The highest block that the node showed a client.
    pub told: u64,
}

/// The best node for a call, leaving out those in `tried`; `None` when there is none left.
///
/// Nodes are ordered by the badness of the verdict (0 is usable), then by the blocks below
/// `served`, the highest block that clients were shown, then by tier, then by `policy`, then by the
/// configuration. Calls of the class [`Class::NodeLocal`] ignore `policy`.
pub fn best_node(
    snapshot: &Snapshot,
    load: impl Fn(NodeId) -> Load,
    served: u64,
    policy: Policy,
    class: Class,
    tried: &[NodeId],
) -> Option<NodeId> {
    let spread = policy == Policy::Spread && class != Class::NodeLocal;
    NodeId::all(snapshot.nodes.len())
        .filter(|node| !tried.contains(node))
        .filter_map(|node| {
            let load = load(node);
            let preference = snapshot.nodes[node].preference(load.told, served)?;
            Some((preference, if spread { load.in_flight } else { 0 }, node))
        })
        .min()
        .map(|(.., node)| node)
}

/// The nodes to ask for the block at `number`, in this order: the active node, then nodes whose
/// head is at or above the block, the best first. `told` gives the highest block that a node
/// showed a client.
pub fn sources(snapshot: &Snapshot, told: impl Fn(NodeId) -> u64, served: u64, number: u64) -> Vec<NodeId> {
    let mut sources: Vec<_> = snapshot
        .nodes
        .by_node()
        .filter_map(|(node, facts)| {
            let is_active = snapshot.active == Some(node);
            (is_active || facts.has(number)).then_some(())?;
            Some((!is_active, facts.preference(told(node), served)?, node))
        })
        .collect();
    sources.sort_unstable();
    sources.into_iter().map(|(.., node)| node).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::Tier,
        domain::{
            block::BlockRef,
            verdict::{Condition, Down, Verdict},
        },
        pool::snapshot::{Cordons, Facts},
    };

    pub(super) fn facts(verdict: Verdict, tier: Tier, number: u64, cordoned: bool) -> Facts {
        let head = Some(BlockRef { number, hash: String::new(), parent: String::new(), timestamp: 0 });
        Facts {
            tier,
            verdict,
            cordoned,
            cordons: Cordons { local: cordoned, fleet: false },
            head,
            condition: Condition::default(),
            lag: None,
            chain: None,
            latency: None,
            last_error: None,
            proving: 0,
            exempt_from_served: false,
            pushing: false,
        }
    }

    fn order(nodes: &[Facts], served: u64, policy: Policy, loads: &[Load]) -> Vec<NodeId> {
        let snapshot = Snapshot { nodes: nodes.to_vec(), ..Snapshot::default() };
        let load = |node: NodeId| loads.get(node.0).copied().unwrap_or_default();
        let mut tried = Vec::new();
        while let Some(node) = best_node(&snapshot, load, served, policy, Class::Read, &tried) {
            tried.push(node);
        }
        tried
    }

    fn ids<const N: usize>(order: [usize; N]) -> [NodeId; N] {
        order.map(NodeId)
    }

    use Tier::{Backup, Primary};
    use Verdict::{Lagging, Stalled, Syncing, Up, WrongChain};

    #[test]
    fn usable_before_unusable_primary_before_backup() {
        let nodes = [
            facts(Syncing, Primary, 100, false),
            facts(Up, Backup, 100, false),
            facts(Lagging(9), Primary, 91, false),
            facts(Up, Primary, 100, false),
            facts(WrongChain, Primary, 100, false),
            facts(Verdict::Down(Down::Silent), Primary, 100, false),
            facts(Up, Primary, 100, true),
            facts(Verdict::Down(Down::Proving), Backup, 100, false),
        ];
        assert_eq!(order(&nodes, 100, Policy::First, &[]), ids([3, 1, 7, 2, 0]));
    }

    #[test]
    fn the_chain_does_not_go_back_while_a_node_has_what_was_served() {
        let nodes = [facts(Up, Primary, 99, false), facts(Up, Primary, 98, false), facts(Up, Backup, 100, false)];
        assert_eq!(order(&nodes, 100, Policy::First, &[]), ids([2, 0, 1]));
        assert_eq!(order(&nodes, 98, Policy::First, &[]), ids([0, 1, 2]));
        // The node is better off than its last probe knew.
        let told = Load { told: 100, ..Load::default() };
        assert_eq!(order(&nodes, 100, Policy::First, &[told]), ids([0, 2, 1]));
        // A usable node that is behind is better than an unusable one that is not.
        let nodes = [facts(Up, Primary, 99, false), facts(Stalled, Primary, 100, false)];
        assert_eq!(order(&nodes, 100, Policy::First, &[]), ids([0, 1]));
    }

    #[test]
    fn spread_takes_the_least_busy_but_not_for_node_local_calls() {
        let nodes = [facts(Up, Primary, 1, false), facts(Up, Primary, 1, false), facts(Up, Backup, 1, false)];
        let loads = [Load { in_flight: 3, told: 0 }, Load { in_flight: 1, told: 0 }, Load::default()];
        assert_eq!(order(&nodes, 1, Policy::Spread, &loads), ids([1, 0, 2]));
        assert_eq!(order(&nodes, 1, Policy::First, &loads), ids([0, 1, 2]));
        let snapshot = Snapshot { nodes: nodes.to_vec(), ..Snapshot::default() };
        assert_eq!(best_node(&snapshot, |n| loads[n], 1, Policy::Spread, Class::NodeLocal, &[]), Some(NodeId(0)));
    }

    #[test]
    fn a_block_is_asked_of_the_active_node_and_those_that_have_it() {
        let mut nodes = vec![
            facts(Up, Backup, 100, false),
            facts(Up, Primary, 98, false),
            facts(Up, Primary, 99, false),
            facts(Lagging(9), Primary, 100, false),
            facts(Up, Primary, 100, true),
        ];
        let order = |nodes: &[Facts], active| {
            let snapshot = Snapshot { nodes: nodes.to_vec(), active, ..Snapshot::default() };
            sources(&snapshot, |_| 0, 99, 99)
        };
        assert_eq!(order(&nodes, Some(NodeId(1))), ids([1, 2, 0, 3]));
        assert_eq!(order(&nodes, None), ids([2, 0, 3]));
        nodes[1].verdict = Verdict::Down(Down::Silent);
        assert_eq!(order(&nodes, Some(NodeId(1))), ids([2, 0, 3]));
    }

    fn any_facts() -> impl Strategy<Value = Facts> {
        let verdict = prop_oneof![
            4 => Just(Up),
            1 => (6u64..50).prop_map(Lagging),
            1 => Just(Stalled),
            1 => Just(Syncing),
            1 => Just(Verdict::Suspect),
            1 => Just(WrongChain),
            1 => Just(Verdict::Down(Down::Silent)),
        ];
        (verdict, any::<bool>(), 90u64..110, proptest::bool::weighted(0.1)).prop_map(
            |(verdict, primary, head, cordoned)| facts(verdict, if primary { Primary } else { Backup }, head, cordoned),
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_plan_names_each_serving_node_once_better_ones_first(
            nodes in proptest::collection::vec(any_facts(), 0..8),
            served in 90u64..110,
            spread in any::<bool>(),
            busy in proptest::collection::vec(0usize..5, 8),
        ) {
            let policy = if spread { Policy::Spread } else { Policy::First };
            let loads: Vec<Load> = busy.iter().map(|&in_flight| Load { in_flight, told: 0 }).collect();
            let plan = order(&nodes, served, policy, &loads);
            let mut named = plan.clone();
            named.sort_unstable();
            let may: Vec<NodeId> = NodeId::all(nodes.len()).filter(|&n| !nodes[n].cordoned && nodes[n].verdict.answers()).collect();
            prop_assert_eq!(named, may);
            for pair in plan.windows(2) {
                let (a, b) = (&nodes[pair[0]], &nodes[pair[1]]);
                prop_assert!(a.verdict.badness() <= b.verdict.badness());
                let number = |facts: &Facts| facts.head.as_ref().unwrap().number;
                if a.verdict.is_usable() && b.verdict.is_usable() {
                    prop_assert!(number(a) >= served || number(b) < served);
                    if number(a) >= served && number(b) >= served {
                        prop_assert!(a.tier <= b.tier);
                        if a.tier == b.tier {
                            let busy = loads[pair[0]].in_flight.cmp(&loads[pair[1]].in_flight);
                            let in_order = if spread { busy.is_le() } else { pair[0] < pair[1] };
                            prop_assert!(in_order);
                        }
                    }
                }
            }
        }
    }
}
