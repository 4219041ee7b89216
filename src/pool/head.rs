//! The head rule: which reported heads count, so that one lying node cannot make an honest node
//! unusable.
//!
//! `near` is the lag limit in blocks, or the blocks that the chain makes in the limit's time if
//! those are more: where blocks come faster than nodes are asked, a number of blocks is no measure.
//! The examples have a chain of 12 s blocks and a limit of 3 blocks.
//!
//! 1. **A head with a timestamp more than 60 s ahead of our clock is ignored**, unless another
//!    node's head that is not ahead lies within 15 s of it, or every head is ahead. A made-up block
//!    far ahead of the chain has a timestamp ahead of the clock; where nodes agree on a timestamp,
//!    the chain's clock or our own is wrong. Example: a head 70 s ahead of our clock is ignored;
//!    beside another node's head that is 60 s ahead, 10 s before the first, it counts.
//! 2. **When the best two heads are near each other, the best one counts.** Two nodes agree, and
//!    one liar alone has no second. Example: heads 103, 101 and 90: 103 counts.
//! 3. **When the best two heads differ, the leader counts up to the expected height.** The
//!    *expected height* starts at the height that was last agreed on, or that the only node
//!    reported, and rises at the chain's own pace: the pace that was seen, or that of the slots. A
//!    node cannot know more blocks than the chain has made. The expected height is the lower node's
//!    height while that node keeps up with the pace, and goes on without the node when the node
//!    falls behind; it never rises faster than the pace, however often a node claims a little more.
//!    Example: two nodes agreed at 100; a minute later they report 112 and 105. The expected height
//!    is 105, and with a block of slack 106 counts.
//! 4. **A node is *implausible* when its head is far beyond its own earlier heads at twice the
//!    chain's pace**, and no other node that was heard since confirms it. The pace is that of the
//!    higher node when two nodes last agreed, or the fastest of any chain while this chain's pace
//!    is unknown. So only a node's own reports can make the node implausible, not another that
//!    follows ever more slowly, and no node's lag is measured by its head then.
//!    Example: a node goes from 100 to 200 in a minute; twice the pace explains 110, the limit and
//!    a block of slack 114.
//! 5. **With three nodes or more, lag is measured against the highest head that two nodes have
//!    reached**, so that one leader alone makes no node lag. With two nodes, lag is measured
//!    against the head that counts. A node that is behind the head that counts by more than the
//!    limit, and has stood still for several block times, is *stalled*. Example: heads 110, 101 and
//!    100: the measure is 101, and no node lags.
//! 6. **While the very first reports contradict each other and no pace is known, a lead counts if
//!    time explains it**: the other node's block is old by the clock, or the blocks' own timestamps
//!    are as far apart. There is no expected height yet. A lead far beyond that is implausible.
//!    Example: at the start a node reports 5,000 and another 100, whose blocks are stamped 12 s
//!    apart and fresh: 12 s explain 12 blocks, so 100 counts, and 5,000 is implausible.
//!
//! So a liar's head never gets further ahead of an honest node that keeps pace than the limit
//! allows, and no trace of the lie stays when the liar leaves: every judgement starts from the
//! reports of the nodes that answer now.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::domain::node_id::{ByNode, NodeId};
use tokio::time::Instant;

/// How far a block's timestamp may lie ahead of our clock, in seconds.
const FUTURE: u64 = 60;
/// The largest difference of two heads' timestamps at which one confirms the other, in seconds.
const SAME_CLOCK: u64 = 15;
/// Blocks a second before the chain's pace has been seen.
const UNLEARNT_PACE: f64 = 1.0;
/// The fastest pace believed of any chain, in blocks a second.
const FASTEST_PACE: f64 = 20.0;
/// The slowest pace reckoned with, in blocks a second.
const SLOWEST_PACE: f64 = 1.0 / 60.0;
/// How many rises of the head the pace is taken from.
const RISES: usize = 32;
/// How many rises must have been seen before the pace counts as learnt.
const LEARNT_AFTER: usize = 4;
/// How long the first reports may contradict each other before the one that came first has a say.
const SETTLING: Duration = Duration::from_secs(5);
/// A lead that is no proof of a lie while the reports settle, in blocks.
const EARLY_LEAD: u64 = 1024;
/// How many blocks a believed leader may be ahead of the chain's pace.
const SLACK: u64 = 1;
/// For how many block times a node may stand still before it is stalled and not just lagging.
const STALL_BLOCKS: f64 = 6.0;
/// No node is stalled sooner than this.
const SHORTEST_STALL: Duration = Duration::from_secs(3);

/// How far a node may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// So many blocks at least.
    pub blocks: u64,
    /// And as many as the chain makes in this time.
    pub time: Duration,
}

/// A node's last report of its head.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Which node: its index in the pool.
    pub node: NodeId,
    /// Height, or slot.
    pub number: u64,
    /// The block's own timestamp, in seconds since the Unix epoch.
    pub timestamp: u64,
    /// When the node last reported.
    pub heard: Instant,
    /// When the number last changed.
    pub moved: Instant,
}

/// The rule's judgement of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadState {
    /// Within the limit.
    Fit,
    /// Behind by so many blocks, beyond the limit.
    Lagging(u64),
    /// Behind beyond the limit, and standing still.
    Stalled,
    /// The node's head is not believed.
    Implausible,
}

/// The state that is kept between judgements.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// When the first report came.
    since: Option<Instant>,
    /// Whether a height can be believed: two nodes have agreed, or the only node has reported
    /// twice.
    settled: bool,
    /// The expected height rises from here: a height, and when that height was credible.
    baseline: Option<(u64, Instant)>,
    /// For each node, the start of an expected height of its own: its last head that was not above
    /// that height, and when the head got there.
    tracks: BTreeMap<NodeId, (u64, Instant)>,
    /// Since when the nodes that leap do so.
    leaps: BTreeMap<NodeId, Instant>,
    /// The rises of the credible head.
    rises: Rises,
    /// The rises of the higher of two nodes that agree, and of the only node.
    top_rises: Rises,
    /// The pace that the chain's own rules give, if they do: slots come by the clock.
    known_pace: Option<f64>,
    /// Whether the known pace is kept whatever is seen: slots come by the clock, blocks that are
    /// made on demand may pause.
    comes_by_the_clock: bool,
    /// The pace of `top_rises` when two nodes last agreed, or there was only one: a node that rises
    /// too slowly has no part in this.
    agreed_pace: Option<f64>,
}

/// The outcome of a judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The pool's head: the height that counts. `None` while no node reports one.
    pub head: Option<u64>,
    /// For each report given, in order.
    pub standings: Vec<HeadState>,
}

impl Memory {
    /// This memory with other indexes: `from` gives the old index of each node, if it has one.
    pub(super) fn moved(&self, from: &[Option<NodeId>]) -> Self {
        fn moved<T: Copy>(of: &BTreeMap<NodeId, T>, from: &[Option<NodeId>]) -> BTreeMap<NodeId, T> {
            let known = |(new, old): (NodeId, &Option<NodeId>)| Some((new, *of.get(&(*old)?)?));
            from.by_node().filter_map(known).collect()
        }
        let (tracks, leaps) = (moved(&self.tracks, from), moved(&self.leaps, from));
        Self { tracks, leaps, ..self.clone() }
    }

    /// Blocks a second: as seen, but not fewer than come by the clock; `None` before anything is
    /// known.
    fn learnt_pace(&self) -> Option<f64> {
        self.at_least_known(&self.rises)
    }

    fn at_least_known(&self, rises: &Rises) -> Option<f64> {
        match (rises.pace(), self.known_pace) {
            (Some(seen), Some(known)) if self.comes_by_the_clock => Some(seen.max(known)),
            (seen, known) => seen.or(known),
        }
    }

    /// The chain has slots of this length.
    pub fn know_slot(&mut self, slot: Duration, comes_by_the_clock: bool) {
        self.comes_by_the_clock = comes_by_the_clock;
        self.known_pace = Some(slot.as_secs_f64().recip().clamp(SLOWEST_PACE, FASTEST_PACE));
    }

    /// The usual time between blocks, once it is known.
    pub fn block_time(&self) -> Option<Duration> {
        self.learnt_pace().map(|pace| Duration::from_secs_f64(pace.recip()))
    }

    /// The limit in blocks of this chain.
    pub fn near(&self, limit: Limit) -> u64 {
        let made = self.learnt_pace().map_or(0.0, |pace| (pace * limit.time.as_secs_f64()).ceil());
        limit.blocks.max(made as u64)
    }

    /// Blocks a second to reckon with.
    fn pace(&self) -> f64 {
        self.learnt_pace().unwrap_or(UNLEARNT_PACE)
    }

    /// The height at `now` of a chain that was at `from` and rises at the pace.
    fn risen(&self, from: (u64, Instant), now: Instant) -> u64 {
        let blocks = self.pace() * now.saturating_duration_since(from.1).as_secs_f64();
        from.0.saturating_add(blocks as u64)
    }

    /// The height that the chain is expected to have at `now`.
    fn expected_height(&self, now: Instant) -> Option<u64> {
        self.baseline.map(|baseline| self.risen(baseline, now))
    }

    /// Since when the node's head is higher than its earlier reports explain. The expected height
    /// stands in for the reports of a new node. The reports of a leaping node move no height, so a
    /// false head that then rises at the chain's pace stays implausible until twice that pace
    /// explains the head.
    fn leaps(&mut self, report: Report, near: u64, now: Instant) -> Option<Instant> {
        let track = self.tracks.get(&report.node).copied().or(self.baseline);
        let leaps = track.is_some_and(|(number, at)| {
            let seconds = now.saturating_duration_since(at).as_secs_f64();
            let pace = self.learnt_pace().map(|pace| self.agreed_pace.map_or(pace, |agreed| agreed.max(pace)));
            let blocks = pace.map_or(FASTEST_PACE, |pace| 2.0 * pace) * seconds;
            report.number > number.saturating_add(SLACK + near).saturating_add(blocks as u64)
        });
        if !leaps {
            self.leaps.remove(&report.node);
            return None;
        }
        Some(*self.leaps.entry(report.node).or_insert(now))
    }

    /// Follows a node's own height: down at once, up no faster than the pace.
    fn track(&mut self, report: Report, now: Instant) {
        let on_track = self.tracks.get(&report.node).is_none_or(|&track| report.number <= self.risen(track, now));
        if on_track {
            self.tracks.insert(report.node, (report.number, report.moved));
        }
    }
}

/// The latest rises of a head, oldest first.
#[derive(Clone, Debug, Default)]
struct Rises(VecDeque<(Instant, u64)>);

impl Rises {
    /// The head was at `number` at this moment.
    fn add(&mut self, number: u64, at: Instant) {
        match self.0.back() {
            // Far below is another chain's beginning; a little below is a node that reports late.
            Some(last) if number.saturating_add(EARLY_LEAD) < last.1 => self.0.clear(),
            Some(last) if number <= last.1 || at <= last.0 => return,
            _ => {}
        }
        if self.0.len() == RISES {
            self.0.pop_front();
        }
        self.0.push_back((at, number));
    }

    /// Blocks a second; `None` before enough rises were seen.
    fn pace(&self) -> Option<f64> {
        let (first, last) = (self.0.front()?, self.0.back()?);
        let seconds = (last.0 - first.0).as_secs_f64();
        let learnt = self.0.len() >= LEARNT_AFTER && seconds > 0.0;
        learnt.then(|| ((last.1 - first.1) as f64 / seconds).clamp(SLOWEST_PACE, FASTEST_PACE))
    }
}

/// Judges `reports`: those of the nodes that answer and serve the right chain. `unix` is the wall
/// clock in seconds. Returns the memory for the next judgement.
pub fn judge_heads(memory: &Memory, reports: &[Report], limit: Limit, now: Instant, unix: u64) -> (Memory, Judgement) {
    let mut memory = memory.clone();
    let near = memory.near(limit);
    let is_early = |report: &Report| report.timestamp > unix.saturating_add(FUTURE);
    let confirms = |other: &Report, stamp: u64| !is_early(other) && stamp - other.timestamp <= SAME_CLOCK;
    let from_the_future =
        |report: &Report| is_early(report) && !reports.iter().any(|other| confirms(other, report.timestamp));
    let clock_is_doubtful = reports.iter().all(from_the_future);
    let mut ranked: Vec<usize> =
        (0..reports.len()).filter(|&n| clock_is_doubtful || !from_the_future(&reports[n])).collect();
    ranked.sort_by_key(|&n| std::cmp::Reverse(reports[n].number));
    let mut standings = vec![HeadState::Implausible; reports.len()];
    let Some(&top) = ranked.first() else {
        return (memory, Judgement { head: None, standings });
    };
    let leader = reports[top];
    let second = ranked.get(1).map(|&n| reports[n]);
    let (head, implausible) = match second {
        Some(second) if leader.number - second.number <= near => memory.agree(leader, second, now),
        Some(second) => {
            let others_heard = ranked[1..].iter().map(|&n| reports[n].heard).max().unwrap_or(now);
            memory.arbitrate(leader, second, others_heard, (limit.blocks, near), now, unix)
        }
        None => memory.trust(leader, near, now),
    };

    let measure = match second {
        Some(second) if ranked.len() > 2 => second.number,
        _ => head,
    };
    let stall = Duration::from_secs_f64(STALL_BLOCKS / memory.pace()).max(SHORTEST_STALL);
    for &n in &ranked {
        let report = reports[n];
        // Reports are of different age: since its report, the node may have gone on at the pace.
        let number = memory.risen((report.number, report.heard), now);
        let stands_still = now.saturating_duration_since(report.moved) > stall;
        standings[n] = if n == top && implausible {
            HeadState::Implausible
        } else if stands_still && head.saturating_sub(number) > near {
            HeadState::Stalled
        } else if measure.saturating_sub(number) > near {
            HeadState::Lagging(measure - report.number)
        } else {
            HeadState::Fit
        };
    }
    (memory, Judgement { head: Some(head), standings })
}

/// The three cases: two nodes agree, two nodes differ, there is only one. Each tells the head that
/// counts and whether the leader's own is implausible.
impl Memory {
    fn agree(&mut self, leader: Report, second: Report, now: Instant) -> (u64, bool) {
        self.since.get_or_insert(now);
        self.settled = true;
        self.rises.add(second.number, second.moved);
        self.top_rises.add(leader.number, leader.moved);
        self.agreed_pace = self.at_least_known(&self.top_rises);
        self.baseline = Some((second.number, now));
        self.tracks.insert(leader.node, (leader.number, leader.moved));
        self.tracks.insert(second.node, (second.number, second.moved));
        self.leaps.remove(&leader.node);
        self.leaps.remove(&second.node);
        (leader.number, false)
    }

    fn arbitrate(
        &mut self,
        leader: Report,
        second: Report,
        others_heard: Instant,
        (blocks, near): (u64, u64),
        now: Instant,
        unix: u64,
    ) -> (u64, bool) {
        let lead = leader.number - second.number;
        let age = unix.saturating_sub(second.timestamp);
        let unknown = !self.settled && self.learnt_pace().is_none() && age <= FUTURE;
        if unknown || self.is_settling(now) {
            let newer = leader.timestamp.min(unix).saturating_sub(second.timestamp);
            // An old block may have been left behind by any number of blocks; a fresh one only by
            // as many as the timestamps explain.
            let explained = if age > FUTURE { age.saturating_mul(FASTEST_PACE as u64) } else { newer };
            let credible = if lead > explained.saturating_add(near) { second } else { leader };
            self.baseline = Some((credible.number, now));
            self.rises.add(credible.number, credible.moved);
            self.tracks.insert(credible.node, (credible.number, credible.moved));
            return (credible.number, lead > explained.saturating_add(near.max(EARLY_LEAD)));
        }
        let implausible = self.leaps(leader, near, now).is_some_and(|since| others_heard > since);
        let expected = self.expected_height(now).unwrap_or(second.number);
        // The second node's height at this moment, since fast chains go on between reports. The
        // limit in blocks is used here, not the one in time: with the latter, a node that rises too
        // slowly would keep up.
        let number = self.risen((second.number, second.heard), now);
        let keeps_up = number.saturating_add(blocks) >= expected.min(leader.number);
        if keeps_up && self.baseline.is_none_or(|(number, _)| number < second.number) {
            self.rises.add(second.number, second.moved);
            self.baseline = Some((second.number, second.moved));
        } else if leader.number < expected {
            self.baseline = Some((leader.number, now));
        }
        let reach = self.expected_height(now).unwrap_or(second.number).saturating_add(SLACK);
        if !self.leaps.contains_key(&leader.node) {
            self.track(leader, now);
            if !keeps_up {
                // The node goes on alone, so the pace is its own.
                self.rises.add(leader.number, leader.moved);
            }
        }
        self.track(second, now);
        if implausible {
            // No node lags behind a head that is not believed, not even at the chain's pace: the
            // chain may stand still.
            return (second.number, true);
        }
        (leader.number.min(reach).max(second.number), false)
    }

    fn trust(&mut self, only: Report, near: u64, now: Instant) -> (u64, bool) {
        let first = *self.since.get_or_insert(now);
        let settling = self.is_settling(now);
        self.settled |= only.heard > first;
        if !settling && self.leaps(only, near, now).is_some() {
            return (self.expected_height(now).unwrap_or(only.number).min(only.number), true);
        }
        self.rises.add(only.number, only.moved);
        self.top_rises.add(only.number, only.moved);
        self.agreed_pace = self.at_least_known(&self.top_rises);
        if settling || self.expected_height(now).is_none_or(|expected| only.number <= expected) {
            self.baseline = Some((only.number, now));
        }
        self.track(only, now);
        (only.number, false)
    }

    fn is_settling(&mut self, now: Instant) -> bool {
        !self.settled && now - *self.since.get_or_insert(now) <= SETTLING
    }
}

#[cfg(test)]
mod tests;
