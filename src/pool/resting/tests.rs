use super::*;

const CALL: Kind = Kind { id: 1, route: 0 };
const LOGS: Kind = Kind { id: 2, route: 0 };
const OTHER: Kind = Kind { id: 3, route: 0 };

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The only scout that there may be.
fn scout(resting: &Rests, kind: Kind, now: Instant) -> Claim {
    assert_eq!(resting.state(kind, false, now), RestState::Due);
    let claim = resting.claim(kind, false, now).unwrap();
    assert_eq!(resting.state(kind, false, now), RestState::Rests(now + SCOUTING));
    assert!(resting.claim(kind, false, now).is_none());
    claim
}

#[test]
fn a_refused_method_rests_and_each_refused_scout_doubles_it() {
    let (resting, mut now) = (Rests::default(), Instant::now());
    let mut pauses = Vec::new();
    for _ in 0..8 {
        resting.refused(CALL, None, now);
        // A refusal of a call that was under way when the rest began does not lengthen the
        // rest.
        resting.refused(CALL, None, now);
        assert_eq!(resting.state(LOGS, false, now), RestState::Free);
        assert!(!resting.is_whole(now));
        let RestState::Rests(until) = resting.state(CALL, false, now) else { panic!("no rest") };
        pauses.push((until - now).as_secs());
        now = until;
        let claim = scout(&resting, CALL, now);
        resting.release(claim);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
}

#[test]
fn a_second_refused_method_has_the_node_rest_without_an_answer() {
    let (resting, now) = (Rests::default(), Instant::now());
    resting.refused(CALL, Some(seconds(5)), now);
    resting.answered(LOGS, None, now);
    resting.refused(LOGS, None, now);
    assert!(!resting.is_whole(now));
    assert_eq!(resting.kinds(now), [CALL, LOGS]);
    resting.refused(CALL, None, now);
    assert!(resting.is_whole(now));
    assert_eq!((resting.until(now), resting.kinds(now)), (Some(now + seconds(5)), vec![]));
    assert_eq!(resting.state(OTHER, false, now), RestState::Rests(now + seconds(5)));
}

#[test]
fn a_rest_lasts_as_asked_and_good_answers_let_more_calls_go() {
    let (resting, mut now) = (Rests::default(), Instant::now());
    resting.refused(CALL, Some(seconds(30)), now);
    assert_eq!(resting.state(CALL, false, now + seconds(29)), RestState::Rests(now + seconds(30)));
    now += seconds(30);
    let mut width = 1;
    while resting.is_any() {
        let mut claims = Vec::new();
        while resting.state(CALL, false, now) == RestState::Due {
            claims.push(resting.claim(CALL, false, now).unwrap());
        }
        assert_eq!(claims.len(), width);
        claims.into_iter().for_each(|claim| resting.release(claim));
        assert!(resting.answered(CALL, None, now));
        width *= 2;
    }
    assert_eq!(width as u32, 2 * WIDEST);
    // The next refusal is a first one.
    resting.refused(CALL, None, now);
    assert_eq!(resting.state(CALL, false, now), RestState::Rests(now + FIRST_PAUSE));
}

#[test]
fn good_probes_end_only_the_rests_that_probes_began() {
    let (resting, now) = (Rests::default(), Instant::now());
    resting.probe_refused(Some(seconds(3)), now);
    assert!(resting.is_whole(now));
    assert_eq!(resting.probes_rest_until(), Some(now + seconds(3)));
    resting.answered(CALL, None, now + seconds(4));
    assert!(resting.is_whole(now));
    resting.probe_answered(now + seconds(4));
    assert!(!resting.is_whole(now));
    resting.refused(CALL, None, now);
    resting.probe_answered(now);
    assert_eq!(resting.kinds(now), [CALL]);
}

#[test]
fn a_failing_method_is_tried_last_until_its_first_good_answer() {
    let (resting, now) = (Rests::default(), Instant::now());
    resting.failed(CALL, now);
    assert_eq!(resting.state(CALL, false, now), RestState::Last);
    assert!(!resting.is_whole(now));
    resting.answered(CALL, None, now + FIRST_PAUSE);
    assert_eq!(resting.state(CALL, false, now + FIRST_PAUSE), RestState::Free);
}

#[test]
fn second_tries_go_one_by_one_and_hold_no_first_try_up() {
    let (resting, now) = (Rests::default(), Instant::now());
    resting.failed_again(now);
    assert_eq!(resting.state(CALL, false, now), RestState::Free);
    assert_eq!(resting.state(CALL, true, now), RestState::Rests(now + FIRST_AGAIN));
    let claim = resting.claim(CALL, true, now + FIRST_AGAIN).unwrap();
    assert!(resting.claim(CALL, true, now + FIRST_AGAIN).is_none());
    resting.release(claim);
    resting.answered(LOGS, None, now + FIRST_AGAIN);
    assert_eq!(resting.state(CALL, true, now), RestState::Free);
}

#[test]
fn a_rest_that_no_call_puts_to_the_test_is_over_in_the_end() {
    let (resting, now) = (Rests::default(), Instant::now());
    resting.refused(CALL, None, now);
    resting.refused(LOGS, None, now);
    assert!(resting.is_whole(now + FIRST_PAUSE));
    assert!(!resting.is_whole(now + FIRST_PAUSE + LAPSE));
    assert_eq!(resting.state(CALL, false, now + FIRST_PAUSE + LAPSE), RestState::Free);
}

#[test]
fn a_refusal_is_forgotten_with_the_rest_that_it_began() {
    for (after, is_whole) in [(FIRST_PAUSE, true), (FIRST_PAUSE + LAPSE, false)] {
        let (resting, now) = (Rests::default(), Instant::now());
        resting.refused(CALL, None, now);
        resting.failed(OTHER, now + after);
        assert_ne!(resting.state(OTHER, false, now + after), RestState::Free);
        resting.refused(LOGS, None, now + after);
        assert_eq!(resting.is_whole(now + after), is_whole, "{after:?} later");
    }
}

#[test]
fn a_scout_that_stays_out_holds_up_no_other() {
    let (resting, now) = (Rests::default(), Instant::now());
    resting.refused(CALL, None, now);
    let then = now + FIRST_PAUSE;
    let _hangs = scout(&resting, CALL, then);
    assert!(resting.claim(CALL, false, then + SCOUTING / 2).is_none());
    let _hangs = scout(&resting, CALL, then + SCOUTING);
    assert!(resting.claim(CALL, false, then + SCOUTING * 3 / 2).is_none());
}

#[test]
fn an_answer_to_a_call_that_was_sent_in_the_rest_ends_the_rest() {
    let (resting, now) = (Rests::default(), Instant::now());
    resting.refused(CALL, Some(seconds(3600)), now);
    let later = now + seconds(5);
    assert!(!resting.answered(CALL, Some(now), later));
    assert!(!resting.answered(CALL, None, later));
    assert!(resting.answered(CALL, Some(now + seconds(4)), later));
    assert_eq!(resting.state(CALL, false, later), RestState::Due);
}

#[test]
fn the_time_given_for_one_method_is_not_that_of_the_node() {
    for (wait, rest) in [(Some(seconds(2)), seconds(2)), (None, MAX_PAUSE)] {
        let (resting, now) = (Rests::default(), Instant::now());
        resting.refused(CALL, Some(seconds(3600)), now);
        resting.refused(LOGS, wait, now);
        assert_eq!(resting.until(now), Some(now + rest));
        assert_eq!(resting.state(OTHER, false, now), RestState::Rests(now + rest));
        assert_eq!(resting.state(CALL, false, now), RestState::Rests(now + seconds(3600)));
    }
}

#[test]
fn rests_of_many_kinds_take_bounded_memory() {
    let (resting, now) = (Rests::default(), Instant::now());
    for route in 0..1000 {
        resting.refused(Kind { id: 1, route }, None, now);
        resting.answered(OTHER, None, now);
    }
    assert_eq!(resting.kinds(now).len(), MOST_RESTS);
}

#[test]
fn methods_that_the_table_does_not_know_are_told_apart() {
    let kind = |name| Kind::of_method(Method::of(name).id, name);
    assert_ne!(kind("zks_getBridgeContracts"), kind("zks_estimateFee"));
    assert_eq!(kind("zks_estimateFee").id(), MethodId(Method::COUNT));
    assert_eq!(kind("eth_call").id(), Method::of("eth_call").id);
}

#[test]
fn a_rest_is_at_least_as_long_as_asked_and_a_little_longer() {
    let (mut ends, now) = (Vec::new(), Instant::now());
    for seed in 0..50 {
        let resting = Rests::jittered(seed);
        resting.refused(CALL, Some(seconds(5)), now);
        // The same refusal again draws no longer rest.
        resting.refused(CALL, Some(seconds(5)), now);
        let RestState::Rests(until) = resting.state(CALL, false, now) else { panic!("no rest") };
        assert!((seconds(5)..=Duration::from_millis(5500)).contains(&(until - now)), "{:?}", until - now);
        ends.push(until);
        resting.refused(CALL, Some(seconds(3600)), now);
        let RestState::Rests(until) = resting.state(CALL, false, now) else { panic!("no rest") };
        assert!((seconds(3600)..=seconds(3601)).contains(&(until - now)), "{:?}", until - now);
    }
    ends.sort_unstable();
    ends.dedup();
    assert!(ends.len() > 40, "{} different ends", ends.len());
}
