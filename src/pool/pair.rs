//! Pairs: an execution and a consensus node that work together, as the operator says.
//!
//! The rule, in one place. Something is wrong with a pair when
//!
//! 1. its consensus node says that its execution node is offline, or else
//! 2. the heads of the two are further apart in time than the lag limit of slots: a consensus block
//!    and its execution block bear the same time, that of their slot.
//!
//! Only answering nodes count: both for the second point, the consensus node for the first. The
//! result is shown on both nodes and judges neither: an execution node that its consensus node
//! cannot reach may well answer us, so its own probes decide, and the consensus node's report about
//! itself is part of its verdict anyway.

use super::{Pool, snapshot::Facts, state::near};
use crate::domain::{layer::Layer, node_id::ByNode};

/// The fault of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairFault {
    /// The consensus node says that its execution node is offline.
    ElOffline,
    /// The heads are further apart than the lag limit.
    HeadsDisagree,
}

impl PairFault {
    /// The word for status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ElOffline => "el_offline",
            Self::HeadsDisagree => "heads_disagree",
        }
    }
}

/// The fault of the pair `name` of a network's two pools, if both have a node of that pair.
pub fn fault(name: &str, execution: &Pool, consensus: &Pool) -> Option<PairFault> {
    let of = |pool: &Pool| {
        let node = pool.nodes.find_node(|node| node.pair.as_deref() == Some(name))?;
        Some(pool.snapshot().nodes[node].clone())
    };
    judge(&of(execution)?, &of(consensus)?, near(Layer::Cl, &consensus.settings))
}

fn judge(execution: &Facts, consensus: &Facts, near: u64) -> Option<PairFault> {
    if !consensus.verdict.answers() {
        return None;
    }
    if consensus.condition.el_offline {
        return Some(PairFault::ElOffline);
    }
    let slot_millis = consensus.chain.as_ref()?.beacon.as_ref()?.slot_millis?;
    let limit = near.saturating_mul(slot_millis) / 1000;
    let (ours, theirs) = (execution.head.as_ref()?, consensus.head.as_ref()?);
    let apart = ours.timestamp.abs_diff(theirs.timestamp) > limit;
    (execution.verdict.answers() && apart).then_some(PairFault::HeadsDisagree)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        config::Tier,
        domain::{
            block::BlockRef,
            chain::{Beacon, Chain},
            verdict::{Condition, Down, Verdict},
        },
    };

    fn facts(verdict: Verdict, timestamp: u64) -> Facts {
        let beacon = Beacon {
            genesis_validators_root: String::new(),
            genesis_time: 0,
            slot_millis: Some(12_000),
            slots_per_epoch: Some(32),
        };
        Facts {
            tier: Tier::Primary,
            verdict,
            cordoned: false,
            cordons: Default::default(),
            head: Some(BlockRef { number: 1, hash: String::new(), parent: String::new(), timestamp }),
            condition: Condition::default(),
            lag: None,
            chain: Some(Chain { id: Some(1), beacon: Some(Arc::new(beacon)) }),
            latency: None,
            last_error: None,
            proving: 0,
            exempt_from_served: false,
            pushing: false,
        }
    }

    #[test]
    fn a_pair_is_at_fault_when_its_halves_are_apart() {
        let down = Verdict::Down(Down::Silent);
        for (execution, consensus, fault) in [
            (facts(Verdict::Up, 1000), facts(Verdict::Up, 1000), None),
            (facts(Verdict::Up, 1036), facts(Verdict::Up, 1000), None),
            (facts(Verdict::Up, 1037), facts(Verdict::Up, 1000), Some(PairFault::HeadsDisagree)),
            (facts(Verdict::Up, 963), facts(Verdict::Lagging(9), 1000), Some(PairFault::HeadsDisagree)),
            // Reports from before an outage do not count.
            (facts(down, 500), facts(Verdict::Up, 1000), None),
            (facts(Verdict::Up, 500), facts(down, 1000), None),
        ] {
            assert_eq!(judge(&execution, &consensus, 3), fault);
        }
        let lost = |verdict| {
            let mut facts = facts(verdict, 500);
            facts.condition.el_offline = true;
            facts
        };
        assert_eq!(judge(&facts(down, 1000), &lost(Verdict::ElOffline), 3), Some(PairFault::ElOffline));
        assert_eq!(judge(&facts(Verdict::Up, 1000), &lost(Verdict::Syncing), 3), Some(PairFault::ElOffline));
        assert_eq!(judge(&facts(Verdict::Up, 1000), &lost(down), 3), None);
    }
}
