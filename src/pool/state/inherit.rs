//! Hands a pool's state over to the pool that takes its place, as at a reload.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Known, PoolState};
use crate::{
    domain::{
        chain::Chain,
        node_id::{ByNode, NodeId},
    },
    pool::{
        feed_watch::FeedLiveness,
        head::{Memory, Report},
        named_heads::NamedHeads,
        node::Node,
        snapshot::Switches,
    },
};

/// The part of a state that another takes over.
pub(in crate::pool) struct Legacy {
    /// The knowledge about each node, if the node was in the other pool.
    known: Vec<Option<Known>>,
    /// The chain as these nodes together showed it; `None` if no node stays.
    shown: Option<Shown>,
    active: Option<NodeId>,
    removed: Option<Arc<str>>,
    switches: Switches,
}

struct Shown {
    memory: Memory,
    named_heads: NamedHeads,
    head: Option<u64>,
    chain: Option<Chain>,
    usual_chain: Option<Chain>,
    unreached_since: Option<Instant>,
    is_out: bool,
    recovering: Option<Instant>,
}

impl PoolState {
    /// The part of the state for another pool: `from` gives, for each node of that pool, its index
    /// in `nodes`, if it has one.
    pub(in crate::pool) fn legacy(&self, nodes: &[Node], from: &[Option<NodeId>]) -> Legacy {
        let active = self.active.and_then(|active| from.find_node(|old| *old == Some(active)));
        let removed = if active.is_none() { self.active.map(|active| nodes[active].name.clone()) } else { None };
        // The new pool listens to the link itself.
        let known = |(new, old): (NodeId, &Option<NodeId>)| {
            let known = self.known[(*old)?].clone();
            let report = known.report.map(|report| Report { node: new, ..report });
            Some(Known { feed: FeedLiveness::default(), report, ..known })
        };
        let shown = from.iter().any(Option::is_some).then(|| Shown {
            memory: self.memory.moved(from),
            named_heads: self.named_heads.moved(from),
            head: self.head,
            chain: self.chain.clone(),
            usual_chain: self.usual_chain.clone(),
            unreached_since: self.unreached_since,
            is_out: self.is_out,
            recovering: self.recovering,
        });
        let switches = self.switches.clone();
        Legacy { known: from.by_node().map(known).collect(), shown, active, removed, switches }
    }

    /// Takes over an earlier state's knowledge.
    pub(in crate::pool) fn inherit(&mut self, legacy: Legacy) {
        for (known, earlier) in self.known.iter_mut().zip(legacy.known) {
            let Some(earlier) = earlier else { continue };
            let mut health = known.health.clone();
            health.inherit(&earlier.health);
            let mut words = known.words.clone();
            words.inherit(&earlier.words);
            *known = Known { health, words, ..earlier };
        }
        (self.active, self.removed, self.switches) = (legacy.active, legacy.removed, legacy.switches);
        let Some(shown) = legacy.shown else { return };
        (self.memory, self.named_heads, self.head) = (shown.memory, shown.named_heads, shown.head);
        // The operator may have named another chain meanwhile.
        let is_wanted = |chain: &Chain| chain.may_be(self.expected_chain);
        (self.chain, self.usual_chain) = (shown.chain.filter(is_wanted), shown.usual_chain.filter(is_wanted));
        (self.unreached_since, self.is_out, self.recovering) = (shown.unreached_since, shown.is_out, shown.recovering);
    }
}
