use proptest::prelude::*;

use super::*;
use crate::domain::node_id::NodeId;

const NEAR: u64 = 5;
const LIMIT: Limit = Limit { blocks: NEAR, time: Duration::from_secs(2) };
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
        self.reports[node] = Some(Report { node: NodeId(node), number, timestamp, heard: now, moved });
        self.judge(now, seconds);
    }

    fn leave(&mut self, seconds: f64, node: usize) {
        self.reports[node] = None;
        self.judge(self.at(seconds), seconds);
    }

    fn judge(&mut self, now: Instant, seconds: f64) {
        let present: Vec<Report> = self.reports.iter().flatten().copied().collect();
        (self.memory, self.last) = judge_heads(&self.memory, &present, LIMIT, now, UNIX + seconds as u64);
    }

    fn standing(&self, node: usize) -> Option<HeadState> {
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
fn a_node_beyond_the_limit_lags_once_the_pace_explains_it() {
    let mut bench = settled(20);
    // Up to the limit the two nodes agree; from there on the expected height has to rise by as much
    // again.
    for n in 21..=35 {
        bench.report(n as f64, 0, 120, UNIX + 20);
        bench.report(n as f64 + 0.01, 1, 100 + n, UNIX + n);
        assert_eq!(bench.standing(1), Some(HeadState::Fit), "{n}");
        if n <= 25 {
            assert_eq!(bench.standing(0), Some(HeadState::Fit), "{n}");
        }
    }
    assert!(matches!(bench.standing(0), Some(HeadState::Lagging(_) | HeadState::Stalled)), "{:?}", bench.standing(0));
}

#[test]
fn a_node_that_falls_back_beyond_the_limit_lags_at_once() {
    let mut bench = settled(20);
    bench.report(21.0, 0, 110, UNIX + 10);
    assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Lagging(10)), Some(HeadState::Fit)));
}

#[test]
fn a_node_that_was_always_behind_lags_from_the_start() {
    let mut bench = Bench::new(2);
    bench.report(0.0, 0, 100, UNIX - 120);
    bench.report(0.1, 1, 110, UNIX);
    bench.report(1.0, 0, 100, UNIX - 120);
    assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Lagging(10)), Some(HeadState::Fit)));
    assert_eq!(bench.last.head, Some(110));
}

#[test]
fn a_liar_at_the_start_evicts_nobody_whose_block_is_fresh() {
    for lead in [6, 20, 1000, 1 << 40] {
        let mut bench = Bench::new(2);
        for n in 0..120u64 {
            bench.report(n as f64, 0, 100 + n, UNIX + n);
            bench.report(n as f64 + 0.4, 1, 100 + n + lead, UNIX + n);
            assert_eq!(bench.standing(0), Some(HeadState::Fit), "{lead} at {n}");
        }
    }
}

#[test]
fn the_first_node_to_recover_from_a_common_halt_is_no_liar() {
    let mut bench = Bench::new(2);
    let block = |seconds: u64| 1000 + seconds / 12;
    for seconds in 0..3000u64 {
        // Both stand still for half an hour; node 0 comes back at once, node 1 five minutes later.
        let seen = |back: u64| if (600..back).contains(&seconds) { block(600) } else { block(seconds) };
        bench.report(seconds as f64, 0, seen(2400), UNIX + seconds);
        bench.report(seconds as f64 + 0.1, 1, seen(2700), UNIX + seconds);
        assert_eq!(bench.standing(0), Some(HeadState::Fit), "{seconds}");
    }
    assert_eq!(bench.standing(1), Some(HeadState::Fit));
}

#[test]
fn nodes_in_step_do_not_lag_between_their_probes() {
    let mut bench = Bench::new(3);
    for round in 0..100u64 {
        for node in 0..3 {
            // Ten blocks a probe, twice the limit.
            let seconds = round as f64 * 5.0 + node as f64 * 0.05;
            bench.report(seconds, node, 1000 + (seconds * 2.0) as u64, UNIX + seconds as u64);
            for other in 0..3.min(if round > 8 { 3 } else { 0 }) {
                assert_eq!(bench.standing(other), Some(HeadState::Fit), "{other} at {seconds}");
            }
        }
    }
}

#[test]
fn a_huge_head_is_implausible_late_and_at_the_start() {
    let mut bench = settled(20);
    bench.report(21.0, 1, 1 << 40, UNIX);
    bench.report(21.1, 0, 121, UNIX);
    assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Fit), Some(HeadState::Implausible)));
    let mut bench = Bench::new(2);
    bench.report(0.0, 1, u64::MAX, UNIX);
    bench.report(0.1, 0, 100, UNIX);
    assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Fit), Some(HeadState::Implausible)));
}

#[test]
fn a_known_liar_makes_no_node_lag_when_the_chain_stands_still() {
    let mut bench = settled(20);
    for n in 21..=60 {
        // No block comes for forty seconds; one node is up to date all the while.
        bench.report(n as f64, 0, 620, UNIX + 20);
        bench.report(n as f64 + 0.01, 1, 120, UNIX + 20);
        assert_eq!(bench.standing(1), Some(HeadState::Fit), "{n}");
    }
    assert_eq!(bench.standing(0), Some(HeadState::Implausible));
    assert_eq!(bench.last.head, Some(120));
}

#[test]
fn a_lie_that_moves_with_the_chain_stays_a_lie() {
    let mut bench = settled(20);
    bench.report(21.0, 1, 1_000_121, UNIX + 21);
    for n in 21..200 {
        bench.report(n as f64 + 0.1, 0, 100 + n, UNIX + n);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Fit), Some(HeadState::Implausible)), "{n}");
        bench.report(n as f64 + 0.2, 1, 1_000_100 + n, UNIX + n);
        assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Fit), Some(HeadState::Implausible)), "{n}");
    }
}

#[test]
fn a_lie_right_after_the_start_evicts_nobody_who_was_there() {
    for lead in [20, 1000, 1 << 40] {
        let mut agreed = Bench::new(2);
        agreed.report(0.0, 0, 100, UNIX);
        agreed.report(0.01, 1, 100, UNIX);
        agreed.report(1.0, 1, 100 + lead, UNIX);
        agreed.report(1.01, 0, 101, UNIX + 1);
        let mut alone = Bench::new(2);
        alone.report(0.0, 0, 100, UNIX);
        alone.report(1.0, 0, 100, UNIX);
        alone.report(2.0, 1, 100 + lead, UNIX);
        alone.report(2.1, 0, 101, UNIX + 1);
        for bench in [agreed, alone] {
            assert_eq!(bench.standing(0), Some(HeadState::Fit), "{lead}");
            // A few blocks too many do not count either, but are no proof of a lie while the pace
            // is not known.
            assert_eq!(bench.standing(1) == Some(HeadState::Implausible), lead > 20, "{lead}");
        }
    }
}

#[test]
fn a_head_stamped_in_the_future_does_not_count() {
    let mut bench = settled(20);
    bench.report(21.0, 1, 121, UNIX + 21 + FUTURE + 1);
    assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Fit), Some(HeadState::Implausible)));
    bench.report(21.0, 0, 121, UNIX + 1_000);
    assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Fit), Some(HeadState::Fit)));
}

#[test]
fn a_node_that_stands_still_is_stalled_though_only_one_leads() {
    let mut bench = Bench::new(3);
    for n in 0..40u64 {
        for node in 0..3 {
            let number = if node < 2 { n.min(20) } else { n };
            bench.report(n as f64 + node as f64 / 10.0, node, 100 + number, UNIX + number);
        }
    }
    assert_eq!(bench.standing(0), Some(HeadState::Stalled));
    assert_eq!(bench.standing(2), Some(HeadState::Fit));
}

#[test]
fn a_survivor_keeps_its_standing_when_a_stale_node_returns() {
    let mut bench = settled(20);
    bench.leave(20.5, 0);
    for n in 21..120 {
        bench.report(n as f64, 1, 100 + n, UNIX + n);
        assert_eq!(bench.standing(1), Some(HeadState::Fit), "{n}");
    }
    for n in 120..140 {
        bench.report(n as f64, 0, n, UNIX + n - 100);
        bench.report(n as f64 + 0.1, 1, 100 + n, UNIX + n);
        assert_eq!(bench.standing(1), Some(HeadState::Fit), "{n}");
        assert!(matches!(bench.standing(0), Some(HeadState::Lagging(_))), "{n} {:?}", bench.standing(0));
    }
}

#[test]
fn a_fast_chain_goes_on_with_the_node_that_follows_it() {
    let mut bench = Bench::new(2);
    for n in 0..120u64 {
        let seconds = n as f64 / 10.0;
        bench.report(seconds, 0, 100, UNIX);
        bench.report(seconds + 0.01, 1, 100 + n * 2 / 3, UNIX + n / 10);
        assert_eq!(bench.standing(1), Some(HeadState::Fit), "{n}");
    }
    assert_eq!(bench.standing(0), Some(HeadState::Stalled));
}

#[test]
fn a_burst_of_blocks_is_no_lie_before_others_are_asked() {
    let mut bench = settled(20);
    bench.report(21.0, 0, 500, UNIX + 21);
    assert_eq!(bench.standing(0), Some(HeadState::Fit));
    bench.report(21.1, 1, 500, UNIX + 21);
    assert_eq!((bench.standing(0), bench.standing(1)), (Some(HeadState::Fit), Some(HeadState::Fit)));
}

#[test]
fn nodes_of_a_fast_chain_are_fit_though_its_stamps_run_ahead() {
    for (block, late) in [(0.1, 0.0), (0.1, 0.4), (0.25, 0.4), (0.1, 0.9)] {
        let mut bench = Bench::new(2);
        for second in 0..120 {
            for (node, behind, phase) in [(0, 0.0, 0.0), (1, late, 0.6)] {
                let seconds = second as f64 + phase;
                let number = 1_000 + ((seconds - behind).max(0.0) / block) as u64;
                // Each block is stamped a second after the one before.
                bench.report(seconds, node, number, UNIX + number - 1_000);
                for other in 0..2 {
                    let standing = bench.standing(other);
                    let is_known = second >= 6;
                    assert!(!is_known || standing == Some(HeadState::Fit), "{other} at {seconds}: {standing:?}");
                }
            }
        }
    }
}

#[test]
fn the_limit_is_a_time_where_blocks_come_faster_than_that() {
    for (block, near) in [(0.1, 20), (0.25, 8), (1.0, NEAR), (12.0, NEAR)] {
        let mut bench = Bench::new(1);
        for n in 0..40u64 {
            bench.report(n as f64 * block, 0, 100 + n, UNIX + n);
        }
        let found = bench.memory.near(LIMIT);
        assert!(found.abs_diff(near) <= 1, "{block}: {found}");
    }
    assert_eq!(Memory::default().near(LIMIT), NEAR);
}

/// The liar's next report: a number of its own, the truth and something, or nothing (the liar is
/// gone).
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
        block in prop_oneof![0.06f64..0.3, 0.3f64..13.0],
        lags in proptest::collection::vec(0.0f64..1.0, 4),
        lies in proptest::collection::vec(lies(), 10..120),
        creep in any::<bool>(),
    ) {
        let liar = liar_at.min(honest);
        let mut bench = Bench::new(honest + 1);
        let is_honest = |node: usize| node != liar;
        // An honest node is at the tip; a single node has no other to lag behind. Within the limit
        // in blocks, or within a second where blocks come faster.
        let most = NEAR.max((1.0 / block) as u64);
        let lag = |node: usize| {
            let is_first = node == (0..=honest).find(|&n| is_honest(n)).unwrap();
            if is_first { 0 } else { (lags[node] * (most + 1) as f64) as u64 }
        };
        let tip = |seconds: f64| 1_000 + (seconds / block) as u64;
        let mut seconds = 0.0;
        let round = |bench: &mut Bench, seconds: f64| {
            for node in (0..=honest).filter(|&n| is_honest(n)) {
                let number = tip(seconds) - lag(node);
                bench.report(seconds + node as f64 * 0.001, node, number, UNIX + (number.saturating_sub(990) as f64 * block / 2.0) as u64 % (seconds as u64 + 1));
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
                prop_assert_eq!(bench.standing(node), Some(HeadState::Fit), "node {} at {}", node, seconds);
            }
            seconds += 1.0;
        }
        bench.leave(seconds, liar);
        round(&mut bench, seconds);
        prop_assert!(bench.last.head.unwrap() <= tip(seconds), "{:?} at {}", bench.last, tip(seconds));
        for node in (0..=honest).filter(|&n| is_honest(n)) {
            prop_assert_eq!(bench.standing(node), Some(HeadState::Fit));
        }
    }
}

#[test]
fn where_slots_come_by_the_clock_a_liar_leads_no_faster() {
    let mut bench = Bench::new(2);
    bench.memory.know_slot(Duration::from_secs(12), true);
    for second in 0..60 {
        let slot = 100 + second / 12;
        bench.report(second as f64, 0, slot, UNIX);
        bench.report(second as f64 + 0.1, 1, if second < 8 { slot } else { slot + 50 }, UNIX);
        bench.report(second as f64 + 0.2, 0, slot, UNIX);
        assert_eq!(bench.standing(0), Some(HeadState::Fit), "{second}");
        let liar = if second < 8 { HeadState::Fit } else { HeadState::Implausible };
        assert_eq!(bench.standing(1), Some(liar), "{second}");
    }
}

#[test]
fn blocks_may_be_slower_than_the_chain_allows_and_slots_may_not() {
    for (comes_by_the_clock, seconds) in [(false, 60), (true, 12)] {
        let mut bench = Bench::new(1);
        bench.memory.know_slot(Duration::from_secs(12), comes_by_the_clock);
        assert_eq!(bench.memory.block_time().map(|time| time.as_secs()), Some(12), "before anything is seen");
        for n in 0..20 {
            bench.report(60.0 * n as f64, 0, 100 + n, UNIX + 60 * n);
        }
        assert_eq!(bench.memory.block_time().map(|time| time.as_secs_f64().round() as u64), Some(seconds));
    }
}

#[test]
fn a_node_that_rises_slowly_makes_nobody_implausible() {
    for (block, slow) in [(0.06, 1.0), (0.1, 1.0), (0.1, 0.3), (0.25, 1.0), (1.0, 2.0), (1.0, 4.0), (1.0, 8.0)] {
        let mut bench = Bench::new(2);
        let tip = |seconds: f64| 10_000 + (seconds / block) as u64;
        let found = (0..300u64).find(|&n| {
            let seconds = n as f64;
            bench.report(seconds, 0, tip(seconds), UNIX + n);
            let crept = tip(seconds.min(30.0)) + ((seconds - 30.0).max(0.0) / slow) as u64;
            bench.report(seconds + 0.5, 1, crept, UNIX + n.min(30));
            n > 12 && bench.standing(0) != Some(HeadState::Fit)
        });
        assert_eq!(found, None, "{block} {slow}: {:?}, pace {}", bench.standing(0), bench.memory.pace());
    }
}

/// A node makes the chain's blocks, and then another comes that makes a block a second.
#[test]
fn a_node_that_follows_too_slowly_makes_no_other_implausible() {
    for block in [0.2188531655097738, 0.11783225819864797] {
        for silent in 0..3 {
            let mut bench = Bench::new(2);
            let tip = |second: u64| 1_000 + (second as f64 / block) as u64;
            let begun = (8.0 * block + 7.0) as u64 + silent;
            for second in 0..begun + 30 {
                bench.report(second as f64 + 0.001, 1, tip(second), UNIX + second);
                assert_eq!(bench.standing(1), Some(HeadState::Fit), "{block}, {second}");
                if second >= begun {
                    bench.report(second as f64 + 0.5, 0, tip(begun - silent) + second - begun + silent, UNIX);
                    assert_eq!(bench.standing(1), Some(HeadState::Fit), "{block}, {second}");
                    let mut without =
                        Bench { memory: bench.memory.clone(), reports: bench.reports.clone(), ..Bench::new(2) };
                    without.start = bench.start;
                    without.leave(second as f64 + 1.0, 0);
                    without.report(second as f64 + 1.001, 1, tip(second + 1), UNIX + second);
                    assert_eq!(without.standing(1), Some(HeadState::Fit), "{block}, {second}");
                }
            }
        }
    }
}
