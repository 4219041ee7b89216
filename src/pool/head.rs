//! The head rule: which reported heads count, so that one lying node cannot make an honest one unusable.
//!
//! The rule, in one place. `near` is the lag limit in blocks.
//!
//! 1. A head whose block is stamped in the future does not count, unless every head is (then it is our clock that is doubtful).
//! 2. When the best two heads are near each other, the best one counts: the two nodes agree.
//! 3. Otherwise the memory decides: a *line* that starts at what was last agreed on, or said by the only node there was, and
//!    rises at the chain's own pace. The leader's head counts as far as the line reaches. The line follows the lower node while
//!    that one keeps up with it, and lets it go when it falls behind; it never rises faster than the pace, however often a node
//!    claims a little more.
//! 4. A node is *implausible* when its head is far beyond its own earlier ones at twice the chain's pace, and no other node that
//!    was heard since bears it out. So only what a node itself says can make it implausible.
//! 5. With three nodes or more, lag is measured against the highest head that two nodes have reached: one leader alone makes
//!    nobody lag. With two, it is measured against what counts. A node that lags beyond the limit, or is left behind by the head that
//!    counts, and has stood still for several block times, is *stalled*.
//! 6. While the very first reports settle there is no line to measure by; then a lead is implausible that the blocks' own
//!    timestamps cannot explain.
//!
//! So a liar's head never gets further ahead of an honest node that keeps pace than the limit allows, and nothing of it stays when
//! it leaves: every judgement starts from the reports of the nodes that answer now.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

/// How far a block's timestamp may lie ahead of our clock, in seconds.
const FUTURE: u64 = 60;
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
/// A lead that needs no explanation while the reports settle, in blocks.
const EARLY_LEAD: u64 = 1024;
/// How many blocks a believed leader may be ahead of the chain's pace.
const SLACK: u64 = 1;
/// For how many block times a node may stand still before it is stalled rather than lagging.
const STALL_BLOCKS: f64 = 6.0;
/// No node is stalled sooner than this.
const SHORTEST_STALL: Duration = Duration::from_secs(3);

/// What a node last said of its head.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Which node: its index in the pool.
    pub node: usize,
    /// Height, or slot.
    pub number: u64,
    /// The block's own timestamp, in seconds since the Unix epoch.
    pub timestamp: u64,
    /// When it was last heard.
    pub heard: Instant,
    /// When the number last changed.
    pub moved: Instant,
}

/// What the rule makes of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Within the limit.
    Fit,
    /// Behind by so many blocks, beyond the limit.
    Lagging(u64),
    /// Behind beyond the limit, and standing still.
    Stalled,
    /// Its head is not believed.
    Implausible,
}

/// What is remembered between judgements.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// When the first report came.
    since: Option<Instant>,
    /// Whether there is somebody to believe: two nodes have agreed, or one was heard again while there was no other.
    settled: bool,
    /// Where the line starts: a height, and when it was credible.
    line: Option<(u64, Instant)>,
    /// For each node, the line of its own: where its head was last at or below it.
    tracks: BTreeMap<usize, (u64, Instant)>,
    /// Since when the nodes that leap do so.
    leaps: BTreeMap<usize, Instant>,
    /// The latest rises of the credible head, oldest first.
    rises: VecDeque<(Instant, u64)>,
}

/// The outcome of a judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The pool's head: the height that counts. `None` while no node reports one.
    pub head: Option<u64>,
    /// For each report given, in order.
    pub standings: Vec<Standing>,
}

impl Memory {
    /// Blocks a second, as seen.
    pub fn pace(&self) -> f64 {
        let (Some(first), Some(last)) = (self.rises.front(), self.rises.back()) else { return UNLEARNT_PACE };
        let seconds = (last.0 - first.0).as_secs_f64();
        if self.rises.len() < LEARNT_AFTER || seconds <= 0.0 {
            return UNLEARNT_PACE;
        }
        ((last.1 - first.1) as f64 / seconds).clamp(SLOWEST_PACE, FASTEST_PACE)
    }

    /// How high a line that starts `from` there is at `now`, if it rises at `factor` times the pace.
    fn risen(&self, from: (u64, Instant), now: Instant, factor: f64) -> u64 {
        let blocks = self.pace() * factor * now.saturating_duration_since(from.1).as_secs_f64();
        from.0.saturating_add(blocks as u64)
    }

    /// How high the pool's line is at `now`.
    fn line(&self, now: Instant) -> Option<u64> {
        self.line.map(|line| self.risen(line, now, 1.0))
    }

    /// Since when the node has been where it cannot have come from what it said before; a newcomer is measured by the pool's line.
    /// What it says while it leaps moves nothing, so a lie that keeps pace with the chain stays one.
    fn leaps(&mut self, report: Report, near: u64, now: Instant) -> Option<Instant> {
        let track = self.tracks.get(&report.node).copied().or(self.line);
        let leaps = track.is_some_and(|track| report.number > self.risen(track, now, 2.0).saturating_add(SLACK + near));
        if !leaps {
            self.leaps.remove(&report.node);
            return None;
        }
        Some(*self.leaps.entry(report.node).or_insert(now))
    }

    /// Follows a node's own line: down at once, up no faster than the pace.
    fn track(&mut self, report: Report, now: Instant) {
        let on_track = self.tracks.get(&report.node).is_none_or(|&track| report.number <= self.risen(track, now, 1.0));
        if on_track {
            self.tracks.insert(report.node, (report.number, now));
        }
    }

    fn rise(&mut self, number: u64, at: Instant) {
        match self.rises.back() {
            // Far below is another chain's beginning; a little below is a node that reports late.
            Some(last) if number.saturating_add(EARLY_LEAD) < last.1 => self.rises.clear(),
            Some(last) if number <= last.1 || at <= last.0 => return,
            _ => {}
        }
        if self.rises.len() == RISES {
            self.rises.pop_front();
        }
        self.rises.push_back((at, number));
    }
}

/// Judges `reports`: those of the nodes that answer and serve the right chain. `unix` is the wall clock in seconds. Returns the
/// memory for the next judgement.
pub fn judge(memory: &Memory, reports: &[Report], near: u64, now: Instant, unix: u64) -> (Memory, Judgement) {
    let mut memory = memory.clone();
    let from_the_future = |report: &Report| report.timestamp > unix.saturating_add(FUTURE);
    let clock_is_doubtful = reports.iter().all(from_the_future);
    let mut ranked: Vec<usize> =
        (0..reports.len()).filter(|&n| clock_is_doubtful || !from_the_future(&reports[n])).collect();
    ranked.sort_by_key(|&n| std::cmp::Reverse(reports[n].number));
    let mut standings = vec![Standing::Implausible; reports.len()];
    let Some(&top) = ranked.first() else {
        return (memory, Judgement { head: None, standings });
    };
    let leader = reports[top];
    let second = ranked.get(1).map(|&n| reports[n]);
    let (head, implausible) = match second {
        Some(second) if leader.number - second.number <= near => memory.agree(leader, second, now),
        Some(second) => {
            let others_heard = ranked[1..].iter().map(|&n| reports[n].heard).max().unwrap_or(now);
            memory.arbitrate(leader, second, others_heard, near, now)
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
        let stands_still = now.saturating_duration_since(report.moved) > stall;
        standings[n] = if n == top && implausible {
            Standing::Implausible
        } else if stands_still && head.saturating_sub(report.number) > near {
            Standing::Stalled
        } else if measure.saturating_sub(report.number) > near {
            Standing::Lagging(measure - report.number)
        } else {
            Standing::Fit
        };
    }
    (memory, Judgement { head: Some(head), standings })
}

/// The three cases: two nodes agree, two nodes differ, there is only one. Each tells the head that counts and whether the leader's
/// own is implausible.
impl Memory {
    fn agree(&mut self, leader: Report, second: Report, now: Instant) -> (u64, bool) {
        self.since.get_or_insert(now);
        self.settled = true;
        self.rise(second.number, second.moved);
        self.line = Some((second.number, now));
        self.tracks.insert(leader.node, (leader.number, now));
        self.tracks.insert(second.node, (second.number, now));
        self.leaps.remove(&leader.node);
        self.leaps.remove(&second.node);
        (leader.number, false)
    }

    fn arbitrate(
        &mut self,
        leader: Report,
        second: Report,
        others_heard: Instant,
        near: u64,
        now: Instant,
    ) -> (u64, bool) {
        let lead = leader.number - second.number;
        if self.is_settling(now) {
            let seconds = leader.timestamp.saturating_sub(second.timestamp);
            let explained = seconds.saturating_mul(FASTEST_PACE as u64).saturating_add(near.max(EARLY_LEAD));
            let credible = if lead > explained { second } else { leader };
            self.line = Some((credible.number, now));
            self.tracks.insert(credible.node, (credible.number, now));
            return (credible.number, lead > explained);
        }
        let implausible = self.leaps(leader, near, now).is_some_and(|since| others_heard > since);
        let line = self.line(now).unwrap_or(second.number);
        let keeps_up = second.number.saturating_add(near) >= line.min(leader.number);
        if keeps_up && self.line.is_none_or(|(number, _)| number < second.number) {
            self.rise(second.number, second.moved);
            self.line = Some((second.number, second.moved));
        } else if leader.number < line {
            self.line = Some((leader.number, now));
        }
        let reach = self.line(now).unwrap_or(second.number).saturating_add(SLACK);
        if !self.leaps.contains_key(&leader.node) {
            self.track(leader, now);
        }
        self.track(second, now);
        (leader.number.min(reach).max(second.number), implausible)
    }

    fn trust(&mut self, only: Report, near: u64, now: Instant) -> (u64, bool) {
        let first = *self.since.get_or_insert(now);
        let settling = self.is_settling(now);
        self.settled |= only.heard > first;
        if !settling && self.leaps(only, near, now).is_some() {
            return (self.line(now).unwrap_or(only.number).min(only.number), true);
        }
        self.rise(only.number, only.moved);
        if settling || self.line(now).is_none_or(|line| only.number <= line) {
            self.line = Some((only.number, now));
        }
        self.track(only, now);
        (only.number, false)
    }

    fn is_settling(&mut self, now: Instant) -> bool {
        !self.settled && now - *self.since.get_or_insert(now) <= SETTLING
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEAR: u64 = 5;
    const UNIX: u64 = 1_800_000_000;

    /// A pool on a bench: nodes report at chosen times, and every report is judged.
    struct Bench {
        start: Instant,
        memory: Memory,
        reports: Vec<Option<Report>>,
        last: Judgement,
    }

    impl Bench {
        fn new(nodes: usize) -> Self {
            let last = Judgement { head: None, standings: vec![] };
            Self { start: Instant::now(), memory: Memory::default(), reports: vec![None; nodes], last }
        }

        fn at(&self, seconds: f64) -> Instant {
            self.start + Duration::from_secs_f64(seconds)
        }

        fn report(&mut self, seconds: f64, node: usize, number: u64, timestamp: u64) {
            let now = self.at(seconds);
            let moved = self.reports[node].filter(|r| r.number == number).map_or(now, |r| r.moved);
            self.reports[node] = Some(Report { node, number, timestamp, heard: now, moved });
            self.judge(now, seconds);
        }

        fn leave(&mut self, seconds: f64, node: usize) {
            self.reports[node] = None;
            self.judge(self.at(seconds), seconds);
        }

        fn judge(&mut self, now: Instant, seconds: f64) {
            let present: Vec<Report> = self.reports.iter().flatten().copied().collect();
            (self.memory, self.last) = judge(&self.memory, &present, NEAR, now, UNIX + seconds as u64);
        }

        fn standing(&self, node: usize) -> Option<Standing> {
            self.reports[node]?;
            let place = self.reports[..node].iter().flatten().count();
            Some(self.last.standings[place])
        }
    }

    /// Two nodes that agree for `seconds`, a block each second.
    fn settled(seconds: u64) -> Bench {
        let mut bench = Bench::new(2);
        for n in 0..=seconds {
            bench.report(n as f64, 0, 100 + n, UNIX + n);
            bench.report(n as f64 + 0.01, 1, 100 + n, UNIX + n);
        }
        bench
    }

    #[test]
    fn a_node_beyond_the_limit_lags_once_the_chains_pace_can_have_left_it_behind() {
        let mut bench = settled(20);
        // Up to the limit the two nodes agree; from there on the line has to rise by as much again.
        for n in 21..=35 {
            bench.report(n as f64, 0, 120, UNIX + 20);
            bench.report(n as f64 + 0.01, 1, 100 + n, UNIX + n);
            assert_eq!(bench.standing(1), Some(Standing::Fit), "{n}");
            if n <= 25 {
                assert_eq!(bench.standing(0), Some(Standing::Fit), "{n}");
            }
        }
        assert!(matches!(bench.standing(0), Some(Standing::Lagging(_) | Standing::Stalled)), "{:?}", bench.standing(0));
    }

    #[test]
    fn a_node_that_falls_back_beyond_the_limit_lags_at_once() {
        let mut bench = settled(20);
        bench.report(21.0, 0, 110, UNIX + 10);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(Standing::Lagging(10)), Some(Standing::Fit)));
    }

    #[test]
    fn a_node_that_was_always_behind_lags_from_the_start() {
        let mut bench = Bench::new(2);
        bench.report(0.0, 0, 100, UNIX);
        bench.report(0.1, 1, 110, UNIX);
        bench.report(1.0, 0, 100, UNIX);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(Standing::Lagging(10)), Some(Standing::Fit)));
        assert_eq!(bench.last.head, Some(110));
    }

    #[test]
    fn a_huge_head_is_implausible_whether_it_comes_late_or_at_the_start() {
        let mut bench = settled(20);
        bench.report(21.0, 1, 1 << 40, UNIX);
        bench.report(21.1, 0, 121, UNIX);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(Standing::Fit), Some(Standing::Implausible)));
        let mut bench = Bench::new(2);
        bench.report(0.0, 1, u64::MAX, UNIX);
        bench.report(0.1, 0, 100, UNIX);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(Standing::Fit), Some(Standing::Implausible)));
    }

    #[test]
    fn a_lie_that_moves_with_the_chain_stays_a_lie() {
        let mut bench = settled(20);
        bench.report(21.0, 1, 1_000_121, UNIX + 21);
        for n in 21..200 {
            bench.report(n as f64 + 0.1, 0, 100 + n, UNIX + n);
            assert_eq!(
                (bench.standing(0), bench.standing(1)),
                (Some(Standing::Fit), Some(Standing::Implausible)),
                "{n}"
            );
            bench.report(n as f64 + 0.2, 1, 1_000_100 + n, UNIX + n);
            assert_eq!(
                (bench.standing(0), bench.standing(1)),
                (Some(Standing::Fit), Some(Standing::Implausible)),
                "{n}"
            );
        }
    }

    #[test]
    fn a_lie_right_after_the_start_evicts_nobody_who_was_there() {
        for lead in [20, 1000, 1 << 40] {
            let mut bench = Bench::new(2);
            bench.report(0.0, 0, 100, UNIX);
            bench.report(0.01, 1, 100, UNIX);
            bench.report(1.0, 1, 100 + lead, UNIX);
            bench.report(1.01, 0, 101, UNIX + 1);
            assert_eq!(
                (bench.standing(0), bench.standing(1)),
                (Some(Standing::Fit), Some(Standing::Implausible)),
                "{lead}"
            );
            let mut bench = Bench::new(2);
            bench.report(0.0, 0, 100, UNIX);
            bench.report(1.0, 0, 100, UNIX);
            bench.report(2.0, 1, 100 + lead, UNIX);
            bench.report(2.1, 0, 101, UNIX + 1);
            assert_eq!(
                (bench.standing(0), bench.standing(1)),
                (Some(Standing::Fit), Some(Standing::Implausible)),
                "{lead}"
            );
        }
    }

    #[test]
    fn a_head_stamped_in_the_future_does_not_count() {
        let mut bench = settled(20);
        bench.report(21.0, 1, 121, UNIX + 21 + FUTURE + 1);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(Standing::Fit), Some(Standing::Implausible)));
        bench.report(21.0, 0, 121, UNIX + 1_000);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(Standing::Fit), Some(Standing::Fit)));
    }

    #[test]
    fn a_node_that_stands_still_among_many_is_stalled_though_only_one_leads() {
        let mut bench = Bench::new(3);
        for n in 0..40u64 {
            for node in 0..3 {
                let number = if node < 2 { n.min(20) } else { n };
                bench.report(n as f64 + node as f64 / 10.0, node, 100 + number, UNIX + number);
            }
        }
        assert_eq!(bench.standing(0), Some(Standing::Stalled));
        assert_eq!(bench.standing(2), Some(Standing::Fit));
    }

    #[test]
    fn a_survivor_keeps_its_standing_when_a_stale_node_returns() {
        let mut bench = settled(20);
        bench.leave(20.5, 0);
        for n in 21..120 {
            bench.report(n as f64, 1, 100 + n, UNIX + n);
            assert_eq!(bench.standing(1), Some(Standing::Fit), "{n}");
        }
        for n in 120..140 {
            bench.report(n as f64, 0, n, UNIX + n - 100);
            bench.report(n as f64 + 0.1, 1, 100 + n, UNIX + n);
            assert_eq!(bench.standing(1), Some(Standing::Fit), "{n}");
            assert!(matches!(bench.standing(0), Some(Standing::Lagging(_))), "{n} {:?}", bench.standing(0));
        }
    }

    #[test]
    fn a_burst_of_blocks_is_no_lie_while_the_others_have_not_been_asked_since() {
        let mut bench = settled(20);
        bench.report(21.0, 0, 500, UNIX + 21);
        assert_eq!(bench.standing(0), Some(Standing::Fit));
        bench.report(21.1, 1, 500, UNIX + 21);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(Standing::Fit), Some(Standing::Fit)));
    }

    /// What the liar says next: a number of its own, the truth and something, or nothing (it is gone).
    fn lies() -> impl Strategy<Value = Option<(bool, i64, u64)>> {
        let claim = (
            any::<bool>(),
            prop_oneof![-200i64..200, -20i64..20, any::<i64>()],
            prop_oneof![Just(UNIX), UNIX - 100..UNIX + 200],
        );
        proptest::option::weighted(0.9, claim)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_lying_node_cannot_evict_an_honest_one(
            honest in 1usize..4,
            liar_at in 0usize..4,
            block in 0.3f64..13.0,
            lags in proptest::collection::vec(0u64..=NEAR, 4),
            lies in proptest::collection::vec(lies(), 10..120),
            creep in any::<bool>(),
        ) {
            let liar = liar_at.min(honest);
            let mut bench = Bench::new(honest + 1);
            let is_honest = |node: usize| node != liar;
            // One honest node is at the tip; with a single one there is nobody to lag behind.
            let lag = |node: usize| if node == (0..=honest).find(|&n| is_honest(n)).unwrap() { 0 } else { lags[node] };
            let tip = |seconds: f64| 1_000 + (seconds / block) as u64;
            let mut seconds = 0.0;
            let round = |bench: &mut Bench, seconds: f64| {
                for node in (0..=honest).filter(|&n| is_honest(n)) {
                    let number = tip(seconds) - lag(node);
                    bench.report(seconds + node as f64 * 0.001, node, number, UNIX + ((number - 990) as f64 * block / 2.0) as u64 % (seconds as u64 + 1));
                }
            };
            // The honest nodes were there first, for as long as it takes to learn the pace.
            while seconds < 8.0 * block + 6.0 {
                round(&mut bench, seconds);
                seconds += 1.0;
            }
            let mut crept = tip(seconds);
            for lie in &lies {
                round(&mut bench, seconds);
                match lie {
                    None => bench.leave(seconds + 0.4, liar),
                    Some((absolute, number, stamp)) => {
                        crept += 1;
                        let claim = match (creep, absolute) {
                            (true, _) => crept,
                            (_, true) => number.unsigned_abs(),
                            (_, false) => tip(seconds).saturating_add_signed(*number),
                        };
                        bench.report(seconds + 0.5, liar, claim, *stamp);
                    }
                }
                for node in (0..=honest).filter(|&n| is_honest(n)) {
                    prop_assert_eq!(bench.standing(node), Some(Standing::Fit), "node {} at {}", node, seconds);
                }
                seconds += 1.0;
            }
            bench.leave(seconds, liar);
            round(&mut bench, seconds);
            prop_assert!(bench.last.head.unwrap() <= tip(seconds), "{:?} at {}", bench.last, tip(seconds));
            for node in (0..=honest).filter(|&n| is_honest(n)) {
                prop_assert_eq!(bench.standing(node), Some(Standing::Fit));
            }
        }
    }
}
