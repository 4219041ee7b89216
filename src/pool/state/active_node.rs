//! Which node is active, and when calls wait for one that will be better.

use std::time::Duration;

use tokio::time::Instant;

use super::{Effect, PoolState, Served};
use crate::{
    domain::{
        chain::Chain,
        node_id::{ByNode, NodeId},
        verdict::{Down, Verdict},
    },
    pool::{
        late_primary::{self, LateNode},
        node::Node,
        preference::Preference,
        snapshot::{Chase, Switch, Wait},
        validator_node,
    },
};

/// How long the highest served head is kept while no node has reached that height.
const KEEP_SERVED: Duration = Duration::from_secs(60);
/// Between two probes of a node whose next block is awaited, at least and at most.
const CHASE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

impl PoolState {
    /// Chooses the active node, and whether calls wait though nodes serve. `served` is the highest
    /// block that clients were shown. `now` is followed by the wall clock in seconds.
    pub(super) fn choose(
        &mut self,
        nodes: &[Node],
        served: Served,
        (now, unix): (Instant, u64),
        effects: &mut Vec<Effect>,
    ) {
        self.exempt_from_served =
            NodeId::all(nodes.len()).map(|node| self.is_exempt_from_served(node, served)).collect();
        let preferences: Vec<Option<Preference>> = NodeId::all(nodes.len())
            .map(|node| {
                let mut facts = self.known[node].facts(nodes[node].tier, now);
                facts.exempt_from_served = self.exempt_from_served[node];
                facts.preference(nodes[node].traffic.max_height(), served.height)
            })
            .collect();
        let preference = |node: NodeId| preferences[node];
        let best: Option<(Preference, NodeId)> =
            NodeId::all(nodes.len()).filter_map(|node| Some((preference(node)?, node))).min();
        let reached = best.is_none_or(|(preference, _)| preference.below_served == 0);
        self.unreached_since = if reached { None } else { self.unreached_since.or(Some(now)) };
        let beacon = self.chain.as_ref().and_then(|chain| chain.beacon.as_ref());
        let duties = validator_node::duties();
        let fails = |node: NodeId| nodes[node].resting.kinds(now).iter().any(|kind| kind.id() == duties);
        let slots: Vec<Option<u64>> =
            self.known.iter().map(|known| known.block.as_ref().map(|block| block.number)).collect();
        let heads = validator_node::Heads {
            of: &slots,
            present: beacon.and_then(|beacon| beacon.slot_at(unix)),
            slot: Chain::slot(self.chain.as_ref()),
            now,
        };
        let kept = self.validator_node.step(&validator_node::ValidatorFacts {
            ties: self.ties,
            active: self.active,
            preferences: &preferences,
            informed: &|node| nodes[node].traffic.is_informed(),
            fails: &fails,
            time: beacon.and_then(|beacon| validator_node::time(beacon, unix)),
            heads,
        });
        // A node that clients are tied to is not left for a better one.
        let late = if kept.is_none() { best.and_then(|best| self.late(&preferences, best)) } else { None };
        let is_better = |late: &LateNode| best.is_some_and(|(preference, _)| nodes[late.node].tier < preference.tier);
        let block_time = self.memory.block_time();
        let best = kept.or(best.map(|(_, node)| node));
        let awaited = self.home.step(best, late.filter(is_better), block_time, now);
        self.wait = awaited.map(|awaited| Wait { since: awaited.since, longest: awaited.longest });
        self.recover(&preferences, best, nodes, served, now);
        let preferred = best.and_then(preference);
        self.wait = self.wait.or(self.elsewhere.step(preferred, self.near, block_time, now));
        let hurry = if awaited.is_some() { 6 } else { 3 };
        self.chase = late.filter(|late| !self.known[late.node].feed.is_telling()).map(|late| Chase {
            node: late.node,
            every: (block_time.unwrap_or(CHASE.1) / hurry).clamp(CHASE.0, CHASE.1),
        });
        let to = awaited.map(|awaited| awaited.node).or(best);
        if to == self.active && self.removed.is_none() {
            return;
        }
        let removed = self.removed.take();
        let from = std::mem::replace(&mut self.active, to);
        let reason = match from {
            None if removed.is_some() => "removed",
            None if self.switches.last().is_none() => "start",
            None => "recovered",
            Some(from) if self.known[from].cordons.any() => "cordoned",
            Some(from)
                if self.known[from].verdict.is_usable() && preference(from).is_some_and(|r| r.below_served == 0) =>
            {
                let is_home = to.is_some_and(|to| (nodes[to].tier, to) < (nodes[from].tier, from));
                match () {
                    () if is_home => "failback",
                    () if fails(from) => "duties",
                    () if self.validator_node.stands_still(from, heads) => "behind",
                    () => "events",
                }
            }
            Some(from) if self.known[from].verdict.is_usable() => "behind",
            Some(from) => self.known[from].verdict.as_str(),
        };
        let name = |node: NodeId| nodes[node].name.clone();
        let switch = Switch { from: from.map(name).or(removed), to: to.map(name), reason, at: now };
        self.switches.add(switch.clone());
        effects.push(Effect::Switched(switch));
    }

    /// Whether the highest block served is no measure for `node`: the node that showed that block
    /// names blocks at false heights, or the two contradict each other and more of the others bear
    /// `node` out. If only the two contradict each other, neither is known to be right, and the
    /// node that serves is believed, because clients have seen its chain.
    fn is_exempt_from_served(&self, node: NodeId, served: Served) -> bool {
        let height = self.known[node].block.as_ref().map_or(0, |block| block.number);
        let Some(by) = served.by.filter(|by| *by != node && height < served.height) else { return false };
        let is_borne_out = |from: u64| self.is_borne_out(node, by, from);
        self.named_heads.raises(by, node) || self.named_heads.contradict(by, node).is_some_and(is_borne_out)
    }

    /// Whether more of the other answering nodes confirm the blocks of `node` from the height
    /// `from` on than contradict them; from that height on, `node` and `other` differ. A node that
    /// catches up is probed so often that it has named nearly all heights.
    fn is_borne_out(&self, node: NodeId, other: NodeId, from: u64) -> bool {
        let others =
            || NodeId::all(self.known.len()).filter(|&n| n != node && n != other && self.known[n].verdict.answers());
        let bear_out = others().filter(|&n| self.named_heads.agree(n, node, from)).count();
        bear_out > others().filter(|&n| self.named_heads.contradict(n, node).is_some()).count()
    }

    /// The first usable node before `best`, in the order of tiers and of the configuration, that is
    /// below the highest block that clients were shown, by the lag limit at most.
    fn late(&self, preferences: &[Option<Preference>], best: (Preference, NodeId)) -> Option<LateNode> {
        if best.0.badness != 0 {
            return None;
        }
        let is_late = |node: NodeId, preference: &Preference| {
            preference.badness == 0
                && (preference.tier, node) < (best.0.tier, best.1)
                && (1..=self.near).contains(&preference.below_served)
        };
        let preferences = preferences.by_node().filter_map(|(node, preference)| Some((node, (*preference)?)));
        let (node, preference) = preferences
            .filter(|(node, preference)| is_late(*node, preference))
            .min_by_key(|(node, preference)| (preference.tier, *node))?;
        Some(LateNode { node, below: preference.below_served, moved: self.known[node].report?.moved })
    }

    /// After an outage of all nodes, calls wait for the served head while a node is down that may
    /// have reached that head: one that stood higher than the best node, or one never probed. The
    /// wait is [`late_primary::longest_wait`] if the best node is within the lag limit, else as
    /// long as calls are held (`calls.hold`).
    fn recover(
        &mut self,
        preferences: &[Option<Preference>],
        best: Option<NodeId>,
        nodes: &[Node],
        served: Served,
        now: Instant,
    ) {
        let Some((best, preference)) = best.and_then(|best| Some((best, preferences[best]?))) else {
            (self.is_out, self.recovering) = (true, None);
            return;
        };
        if std::mem::take(&mut self.is_out) {
            self.recovering = Some(now);
        }
        let height = |node: NodeId| {
            let head = self.known[node].block.as_ref().map_or(0, |block| block.number);
            head.max(nodes[node].traffic.max_height())
        };
        // A height beyond all that clients were shown was a lie.
        let highest = served.height.saturating_add(self.near);
        let may_come = |node: NodeId| match self.known[node].verdict {
            _ if node == best || self.known[node].cordons.any() => false,
            Verdict::Down(Down::Unknown) => true,
            Verdict::Down(_) => (height(best) + 1..=highest).contains(&height(node)),
            _ => false,
        };
        if preference.below_served == 0 || !NodeId::all(preferences.len()).any(may_come) {
            self.recovering = None;
        }
        if let Some(since) = self.recovering {
            let is_near = preference.below_served <= self.near;
            let longest = if is_near {
                late_primary::longest_wait(self.memory.block_time().unwrap_or(late_primary::MAX_WAIT))
            } else {
                Duration::MAX
            };
            self.wait = Some(Wait { since, longest });
        }
    }

    /// The height to which the highest served head is to be lowered: no node has reached that head
    /// for long, or the head is no measure for the node that serves.
    pub fn forget_served(&self, now: Instant) -> Option<u64> {
        let long_ago = self.unreached_since.is_some_and(|since| now.saturating_duration_since(since) > KEEP_SERVED);
        if self.active.is_some_and(|active| self.exempt_from_served[active]) {
            return self.active_height();
        }
        if long_ago { self.head } else { None }
    }

    /// The active node, by its index.
    pub fn active(&self) -> Option<NodeId> {
        self.active
    }

    /// The height of the active node, if the rules find the node usable: clients may have been
    /// shown it.
    pub fn active_height(&self) -> Option<u64> {
        let active = &self.known[self.active?];
        active.block.as_ref().filter(|_| active.verdict.is_usable()).map(|block| block.number)
    }
}
