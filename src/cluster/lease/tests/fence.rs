//! Fencing: work, hooks, escalation, recovery.

use proptest::prelude::*;

use super::{super::*, bench::*};
use crate::domain::fleet::{Epoch, StoreRevision};

fn fenced() -> Bench {
    let mut bench = Bench::leading();
    bench.watch(told(12, foreign(9, 1, None)));
    bench
}

/// A17.
#[test]
fn a_fence_ends_after_work_hook_and_read() {
    let mut bench = fenced();
    bench.input(Input::Drained);
    let hook = bench.hook(HookKind::Fence).unwrap();
    bench.input(Input::HookDone { hook, is_ok: true });
    assert_eq!(bench.lead.state(), State::Fenced, "the store has not said who leads");
    bench.read(Some((12, foreign(9, 1, None))));
    assert_eq!(bench.last(), (State::Fenced, State::Watching, Reason::FenceDone));
}

/// A19.
#[test]
fn work_that_does_not_end_is_aborted_and_then_exits() {
    let mut bench = fenced();
    assert!(bench.effects.contains(&Effect::StopWork { abort: false }));
    bench.at(6499);
    assert!(!bench.effects.contains(&Effect::StopWork { abort: true }));
    bench.at(6500);
    assert!(bench.effects.contains(&Effect::StopWork { abort: true }));
    bench.at(7000);
    assert_eq!(bench.last(), (State::Fenced, State::Failed, Reason::FenceFailed));
    assert!(bench.effects.contains(&Effect::Exit));
    // All of it is over before another replica may begin.
    assert!(bench.now - 6000 <= TIMING.failover - TIMING.lease);
}

/// A19.
#[test]
fn a_hook_that_fails_to_fence_escalates() {
    let mut bench = fenced();
    bench.input(Input::Drained);
    let hook = bench.hook(HookKind::Fence).unwrap();
    bench.input(Input::HookDone { hook, is_ok: false });
    assert_eq!(bench.last(), (State::Fenced, State::Failed, Reason::FenceFailed));
    let mut bench = fenced();
    bench.input(Input::Drained);
    bench.at(8000);
    let hook = bench.hook(HookKind::Fence).unwrap();
    assert!(bench.effects.contains(&Effect::AbortHook { hook }), "a hook that hangs is aborted");
    assert!(bench.effects.contains(&Effect::Exit));
}

/// A20: a fence within a second of the promotion aborts the hook of the promotion.
#[test]
fn an_opposing_hook_is_aborted() {
    let mut bench = Bench::promoted();
    let lead = bench.hook(HookKind::Lead).unwrap();
    bench.at(6300);
    bench.watch(told(12, foreign(9, 1, None)));
    let abort = bench.effects.iter().position(|effect| *effect == Effect::AbortHook { hook: lead });
    let is_fence = |effect: &Effect| matches!(effect, Effect::RunHook { kind: HookKind::Fence, .. });
    let fence = bench.effects.iter().position(is_fence);
    assert!(abort.unwrap() < fence.unwrap());
    // The late answer of the aborted hook comes to nothing.
    bench.input(Input::HookDone { hook: lead, is_ok: false });
    bench.input(Input::Drained);
    bench.input(Input::HookDone { hook: bench.hook(HookKind::Fence).unwrap(), is_ok: true });
    bench.read(Some((12, foreign(9, 1, None))));
    assert_eq!(bench.lead.state(), State::Watching);
}

/// A37.
#[test]
fn a_promotion_whose_hook_fails_is_fenced_and_rests() {
    let mut bench = Bench::promoted();
    let hook = bench.hook(HookKind::Lead).unwrap();
    bench.input(Input::HookDone { hook, is_ok: false });
    assert_eq!(bench.last(), (State::Leading, State::Fenced, Reason::HookFailed));
    let hook = bench.hook(HookKind::Fence).unwrap();
    bench.input(Input::HookDone { hook, is_ok: true });
    bench.input(Input::Drained);
    let own = bench.newest_write().2;
    bench.read(Some((10, own)));
    bench.at(17_999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(18_000);
    assert_eq!(bench.lead.state(), State::Candidate);
}

/// A15, A16.
#[test]
fn a_replica_fails_with_the_store_and_recovers_to_watching() {
    let mut bench = Bench::new();
    bench.watch(told(7, foreign(3, 1, None)));
    bench.watch(Watched::Synced);
    for _ in 0..2 {
        bench.input(Input::Link { is_ok: false });
    }
    assert_eq!(bench.lead.state(), State::Watching);
    bench.input(Input::Link { is_ok: false });
    assert_eq!(bench.last(), (State::Watching, State::Failed, Reason::StoreFailed));
    bench.read(Some((7, foreign(3, 1, None))));
    assert_eq!(bench.lead.state(), State::Failed);
    bench.at(1000);
    bench.read(Some((7, foreign(3, 1, None))));
    assert_eq!(bench.last(), (State::Failed, State::Watching, Reason::Recovered));
}

/// A18, A25.
#[test]
fn every_pair_of_states_is_legal_or_not() {
    let legal = State::ALL.iter().flat_map(|from| State::ALL.map(|to| (*from, to)));
    let legal: Vec<_> = legal.filter(|(from, to)| from.can_become(*to)).collect();
    use State::*;
    let expected = [
        (Watching, Candidate),
        (Watching, Failed),
        (Candidate, Watching),
        (Candidate, Leading),
        (Leading, Yielding),
        (Leading, Fenced),
        (Yielding, Watching),
        (Yielding, Leading),
        (Yielding, Fenced),
        (Fenced, Watching),
        (Fenced, Failed),
        (Failed, Watching),
    ];
    assert_eq!(legal, expected);
    for state in State::ALL {
        assert_eq!(format!("{state:?}").to_lowercase(), state.role().as_str());
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let entry = (1_u64..20, any::<bool>(), 1_u64..12);
    let lease = |(revision, is_own, sequence): (u64, bool, u64)| {
        let mut lease = foreign(5, sequence, None);
        if is_own {
            lease.holder = name("me");
        }
        (StoreRevision(revision), lease)
    };
    let outcome = prop_oneof![
        (1_u64..20).prop_map(|revision| Ok(StoreRevision(revision))),
        Just(Err(WriteError::Conflict)),
        Just(Err(WriteError::Ambiguous)),
        Just(Err(WriteError::Unavailable)),
    ];
    prop_oneof![
        entry
            .clone()
            .prop_map(lease)
            .prop_map(|(revision, lease)| { Input::Watch(Watched::Lease { revision, lease }) }),
        Just(Input::Watch(Watched::Synced)),
        Just(Input::Watch(Watched::Reset)),
        Just(Input::Watch(Watched::Recreated)),
        (1_u64..20).prop_map(|revision| Input::Watch(Watched::Gone { revision: StoreRevision(revision) })),
        (1_u64..12, outcome).prop_map(|(sequence, outcome)| Input::Wrote { sequence, outcome }),
        (1_u64..12, proptest::option::of(entry.prop_map(lease)))
            .prop_map(|(sequence, entry)| Input::Read { sequence, outcome: Ok(entry) }),
        Just(Input::Tick),
        Just(Input::Tick),
        Just(Input::Drained),
        (1_u64..12, any::<bool>()).prop_map(|(hook, is_ok)| Input::HookDone { hook, is_ok }),
        Just(Input::Registered(Epoch(5))),
        any::<bool>().prop_map(Input::Eligible),
        any::<bool>().prop_map(|is_ok| Input::Link { is_ok }),
        Just(Input::Asked { by: name("other") }),
    ]
}

proptest! {
    /// A18, R23: whatever comes, one input makes one legal step at most, and the gate is open in
    /// one state only.
    #[test]
    fn one_input_makes_one_legal_transition(inputs in proptest::collection::vec((any_input(), 0_u64..2500), 1..60)) {
        let mut lead = Leadership::new(name("me"), options(), None, Moment(0));
        let mut now = 0;
        for (input, pause) in inputs {
            now += pause;
            let before = lead.state();
            let turn = lead.input(Moment(now), input);
            match turn.transition {
                Some(Transition { from, to, .. }) => {
                    prop_assert_eq!((before, lead.state()), (from, to));
                    prop_assert!(from.can_become(to));
                }
                None => prop_assert_eq!(before, lead.state()),
            }
            prop_assert!(lead.may_begin(Moment(now)).is_none() || lead.state() == State::Leading);
            prop_assert!(lead.lease_end().is_none_or(|end| end.0 <= now + TIMING.lease));
        }
    }
}
