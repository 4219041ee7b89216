//! The knowledge of a pool's nodes at one moment.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    config::Tier,
    domain::{
        block::BlockRef,
        chain::Chain,
        node_id::NodeId,
        refusal::Unserved,
        verdict::{Condition, Verdict},
    },
};

/// Switches of one side that are remembered.
const SWITCHES: usize = 32;

/// The pool at one moment; never changed, only replaced.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// In the order of the configuration: primaries, then backups.
    pub nodes: Vec<Facts>,
    /// The pool's head by the head rule.
    pub head: Option<u64>,
    /// The node that calls go to first, by its index.
    pub active: Option<NodeId>,
    /// The node that events are to come from, if that is not the active node: the stream and the
    /// active node then change together.
    pub moving: Option<NodeId>,
    /// The last changes of the active node.
    pub switches: Switches,
    /// The chain that the nodes are held to.
    pub chain: Option<Chain>,
    /// How many blocks (slots) a node may be behind, at this chain's pace.
    pub near: u64,
    /// The usual time between blocks, once it is known.
    pub block_time: Option<Duration>,
    /// Calls wait though nodes serve.
    pub wait: Option<Wait>,
    /// Calls may need the nodes that are probed lazily.
    pub wants_lazy: bool,
    /// A node whose next block is awaited.
    pub chase: Option<Chase>,
    /// When the state task is to look again, though nothing happens.
    pub wake_at: Option<Instant>,
}

/// Calls wait though nodes serve, for one that will be where clients have seen the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// From when on.
    pub since: Instant,
    /// For how long at most.
    pub longest: Duration,
}

/// A node that is to be probed more often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chase {
    /// Which, by its index.
    pub node: NodeId,
    /// How often.
    pub every: Duration,
}

/// A change of the active node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Switch {
    /// From which node, by its name; `None`: none served.
    pub from: Option<Arc<str>>,
    /// To which node; `None`: none serves.
    pub to: Option<Arc<str>>,
    /// Why, in a word of a bounded set.
    pub reason: &'static str,
    /// When.
    pub at: Instant,
}

/// The latest switches, oldest first. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Switches(Arc<[Switch]>);

impl Switches {
    /// The last one.
    pub fn last(&self) -> Option<&Switch> {
        self.0.last()
    }

    /// All that are remembered.
    pub fn iter(&self) -> impl Iterator<Item = &Switch> {
        self.0.iter()
    }

    /// Adds `switch`, and forgets the oldest where there are too many.
    pub(super) fn add(&mut self, switch: Switch) {
        let kept = &self.0[(self.0.len() + 1).saturating_sub(SWITCHES)..];
        self.0 = kept.iter().cloned().chain([switch]).collect();
    }
}

/// The orders that take a node out of use. Each stands by itself: the node is in use when there is
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cordons {
    /// The order of the operator of this proxy.
    pub local: bool,
    /// The operator's wish for all replicas of the cluster.
    pub fleet: bool,
}

impl Cordons {
    /// Whether any order takes the node out.
    pub fn any(self) -> bool {
        self.local || self.fleet
    }
}

/// The knowledge of one node.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Primary or backup.
    pub tier: Tier,
    /// The verdict of the rules.
    pub verdict: Verdict,
    /// Whether the operator cordoned the node, here or at all replicas.
    pub cordoned: bool,
    /// By which orders.
    pub cordons: Cordons,
    /// The latest head.
    pub head: Option<BlockRef>,
    /// The node's last word on its own condition.
    pub condition: Condition,
    /// Blocks (slots) behind the pool's head.
    pub lag: Option<u64>,
    /// The chain that the node says it serves.
    pub chain: Option<Chain>,
    /// How long its last good probe took.
    pub latency: Option<Duration>,
    /// The last trouble, without secrets, and its time.
    pub last_error: Option<(String, Instant)>,
    /// Good probes in a row that the node still needs; 0 while the node is in.
    pub proving: u32,
    /// Whether the highest block that clients were shown is no measure for the node: the node that
    /// showed that block is wrong about the chain.
    pub exempt_from_served: bool,
    /// Whether the node pushes its heads now. The heads of other nodes are known from probes only.
    pub pushing: bool,
}

impl Facts {
    /// The height of the node's head; 0 while none is known.
    pub fn number(&self) -> u64 {
        self.head.as_ref().map_or(0, |head| head.number)
    }

    /// Whether the node's head is at or above `height`.
    pub fn has(&self, height: u64) -> bool {
        self.head.as_ref().is_some_and(|head| head.number >= height)
    }

    /// The node's state, in words for people.
    pub fn state(&self) -> String {
        if self.cordoned { format!("cordoned ({})", self.verdict) } else { self.verdict.to_string() }
    }
}

impl Snapshot {
    /// Whether any node may serve.
    pub fn serves(&self) -> bool {
        self.nodes.iter().any(|node| node.preference(0, 0).is_some())
    }

    /// Why a call that no node answered had none, as far as the nodes tell.
    pub fn unserved(&self) -> Unserved {
        let any = |is: fn(&Facts) -> bool| self.nodes.iter().any(is);
        if self.serves() {
            Unserved::Failed
        } else if any(|node| node.cordoned && node.verdict.answers()) {
            Unserved::Cordoned
        } else if any(|node| !node.cordoned && node.verdict == Verdict::WrongChain) {
            Unserved::OtherChain
        } else {
            Unserved::NoNode
        }
    }

    /// Whether calls may set out at `now`, where none waits for longer than `hold`.
    pub fn admits(&self, hold: Duration, now: Instant) -> bool {
        let waits = self.wait.is_some_and(|wait| now < wait.since + wait.longest.min(hold));
        !waits && self.serves()
    }

    /// Whether calls go to a node that the rules find unusable, because there is none better.
    pub fn is_degraded(&self) -> bool {
        self.active.is_some_and(|active| !self.nodes[active].verdict.is_usable())
    }

    /// Whether calls go to a node that is not a well primary though the pool has primaries.
    pub fn is_failed_over(&self) -> bool {
        let has_primary = self.nodes.iter().any(|node| node.tier == Tier::Primary);
        match self.active {
            Some(active) => self.is_degraded() || (has_primary && self.nodes[active].tier != Tier::Primary),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_switches_are_remembered() {
        let mut switches = Switches::default();
        assert!(switches.last().is_none());
        for number in 0..SWITCHES + 3 {
            let to = Some(Arc::from(number.to_string()));
            switches.add(Switch { from: None, to, reason: "down", at: Instant::now() });
        }
        let names: Vec<_> = switches.iter().filter_map(|switch| switch.to.as_deref()).collect();
        assert_eq!((names.len(), names[0], names[SWITCHES - 1]), (SWITCHES, "3", "34"));
        assert_eq!(switches.last().and_then(|switch| switch.to.as_deref()), Some("34"));
    }
}
