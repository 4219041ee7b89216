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

/// A node's traffic at the moment of choice, and its part of the calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Calls that wait on the node.
    pub in_flight: usize,
    /// The highest block that the node showed a client.
    pub told: u64,
    /// The node's part of the calls, for [`Policy::Weighted`]; not zero then.
    pub weight: u32,
    /// Microseconds that the node takes for a call of this kind, for [`Policy::Fastest`]; 0 where
    /// that is not known.
    pub micros: u64,
}

/// The best node for a call, leaving out those in `tried`; `None` when there is none left.
///
/// Nodes are ordered by the badness of the verdict (0 is usable), then by the blocks below
/// `served`, the highest block that clients were shown, then by tier. Of equals `policy` decides,
/// with the help of `draw`, a number drawn from all there are; last comes the order of the
/// configuration. Calls of the class [`Class::NodeLocal`] ignore `policy`.
pub fn best_node(
    snapshot: &Snapshot,
    load: impl Fn(NodeId) -> Load,
    served: u64,
    (policy, draw): (Policy, u64),
    class: Class,
    tried: &[NodeId],
) -> Option<NodeId> {
    let policy = if class == Class::NodeLocal { Policy::First } else { policy };
    let candidates = NodeId::all(snapshot.nodes.len()).filter(|node| !tried.contains(node)).filter_map(|node| {
        let load = load(node);
        Some((snapshot.nodes[node].preference(load.told, served)?, load, node))
    });
    match policy {
        Policy::First => candidates.min_by_key(|(preference, _, node)| (*preference, *node)).map(|(.., node)| node),
        Policy::Spread => {
            let best = candidates.min_by_key(|(preference, load, node)| (*preference, load.in_flight, *node));
            best.map(|(.., node)| node)
        }
        Policy::Weighted | Policy::Fastest => {
            let mut best: Vec<_> = candidates.collect();
            let least = best.iter().map(|(preference, ..)| *preference).min()?;
            best.retain(|(preference, ..)| *preference == least);
            let chosen = if policy == Policy::Weighted { by_weight(&best, draw) } else { faster_of_two(&best, draw) };
            Some(best[chosen].2)
        }
    }
}

/// The place of one of these, by chance, in proportion to the weights.
fn by_weight<T>(nodes: &[(T, Load, NodeId)], draw: u64) -> usize {
    let sum = nodes.iter().map(|(_, load, _)| u64::from(load.weight)).sum();
    let mut left = part(draw, sum);
    let chosen = nodes.iter().position(|(_, load, _)| {
        let is_here = left < u64::from(load.weight);
        left = left.saturating_sub(u64::from(load.weight));
        is_here
    });
    chosen.unwrap_or(0)
}

/// The place of one of two by chance: the node whose answer is likely to come first. A node is
/// slower with each call that waits there, so the fastest of all does not get all calls at once. A
/// node of which nothing is known is asked.
fn faster_of_two<T>(nodes: &[(T, Load, NodeId)], draw: u64) -> usize {
    let count = nodes.len() as u64;
    if count < 2 {
        return 0;
    }
    let one = part(draw, count) as usize;
    let other = part(draw.rotate_left(32), count - 1) as usize;
    let other = if other >= one { other + 1 } else { other };
    let cost = |place: usize| {
        let Load { in_flight, micros, .. } = nodes[place].1;
        (micros.saturating_mul(in_flight as u64 + 1), in_flight, place)
    };
    if cost(other) < cost(one) { other } else { one }
}

/// The number below `count` that `draw` stands for.
fn part(draw: u64, count: u64) -> u64 {
    ((u128::from(draw) * u128::from(count)) >> 64) as u64
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
        while let Some(node) = best_node(&snapshot, load, served, (policy, 0), Class::Read, &tried) {
            tried.push(node);
        }
        tried
    }

    /// As for [`Pool::draw`](crate::pool::Pool::draw).
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

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
        let loads =
            [Load { in_flight: 3, ..Load::default() }, Load { in_flight: 1, ..Load::default() }, Load::default()];
        assert_eq!(order(&nodes, 1, Policy::Spread, &loads), ids([1, 0, 2]));
        assert_eq!(order(&nodes, 1, Policy::First, &loads), ids([0, 1, 2]));
        let snapshot = Snapshot { nodes: nodes.to_vec(), ..Snapshot::default() };
        for policy in [Policy::Spread, Policy::Weighted, Policy::Fastest] {
            let best = best_node(&snapshot, |n| loads[n], 1, (policy, u64::MAX), Class::NodeLocal, &[]);
            assert_eq!(best, Some(NodeId(0)), "{policy:?}");
        }
    }

    /// How often each of these nodes is chosen in so many draws, evenly over all numbers.
    fn shares(nodes: &[Facts], policy: Policy, loads: &[Load], draws: u64) -> Vec<u64> {
        let snapshot = Snapshot { nodes: nodes.to_vec(), ..Snapshot::default() };
        let mut shares = vec![0; nodes.len()];
        for draw in (0..draws).map(|draw| draw.wrapping_mul(GOLDEN)) {
            let node = best_node(&snapshot, |n| loads[n], 1, (policy, draw), Class::Read, &[]);
            shares[node.expect("nodes serve").0] += 1;
        }
        shares
    }

    #[test]
    fn weights_divide_the_calls_among_the_best_nodes() {
        let nodes = [
            facts(Up, Primary, 1, false),
            facts(Up, Primary, 1, false),
            facts(Lagging(9), Primary, 1, false),
            facts(Up, Backup, 1, false),
        ];
        let weigh = |weights: [u32; 4]| weights.map(|weight| Load { weight, ..Load::default() });
        let of_800 = |nodes: &[Facts], weights| shares(nodes, Policy::Weighted, &weigh(weights), 800);
        let near = |shares: Vec<u64>, wanted: [u64; 4]| {
            let is_near = shares.iter().zip(wanted).all(|(share, wanted)| share.abs_diff(wanted) <= 2);
            assert!(is_near, "{shares:?} is not {wanted:?}");
        };
        near(of_800(&nodes, [3, 1, 100, 100]), [600, 200, 0, 0]);
        near(of_800(&nodes, [1, 1, 1, 1]), [400, 400, 0, 0]);
        near(of_800(&nodes, [u32::MAX, u32::MAX, 1, 1]), [400, 400, 0, 0]);
        near(of_800(&nodes[..1], [1, 0, 0, 0]), [800, 0, 0, 0]);
    }

    #[test]
    fn the_faster_of_two_is_asked_until_calls_wait_at_it() {
        let node = || facts(Up, Primary, 1, false);
        let load = |micros, in_flight| Load { micros, in_flight, ..Load::default() };
        let of_900 = |loads: &[Load]| {
            let nodes: Vec<Facts> = loads.iter().map(|_| node()).collect();
            shares(&nodes, Policy::Fastest, loads, 900)
        };
        assert_eq!(of_900(&[load(10_000, 0), load(80_000, 0)]), [900, 0]);
        // Seven calls wait at the fast one: the eighth would come last there.
        assert_eq!(of_900(&[load(10_000, 8), load(80_000, 0)]), [0, 900]);
        // The slowest of three is the slower one in each pair; the fastest is in two of the pairs.
        let shares = of_900(&[load(20_000, 0), load(90_000, 0), load(10_000, 0)]);
        assert!(shares[1] == 0 && shares[0].abs_diff(300) < 20 && shares[2].abs_diff(600) < 20, "{shares:?}");
        // A node of which nothing is known is tried, but not by all at once.
        assert_eq!(of_900(&[load(10_000, 0), load(0, 0)]), [0, 900]);
        let equal = of_900(&[load(0, 5), load(0, 1)]);
        assert_eq!(equal, [0, 900]);
        assert_eq!(of_900(&[load(10_000, 0)]), [900]);
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
            let loads: Vec<Load> = busy.iter().map(|&in_flight| Load { in_flight, ..Load::default() }).collect();
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
