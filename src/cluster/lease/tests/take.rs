//! Taking, keeping and losing the lease.

use super::{super::*, bench::*};
use crate::domain::fleet::{Epoch, Lease, LeaseState, Revision, StoreRevision, Term, timing::Timing};

/// A11, A13.
#[test]
fn a_silent_leader_is_followed_after_the_timeout() {
    let mut bench = Bench::new();
    bench.watch(told(7, foreign(3, 1, None)));
    bench.watch(Watched::Synced);
    bench.at(5000);
    bench.watch(told(8, foreign(3, 2, Some(7))));
    bench.at(10_999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(11_000);
    let (sequence, expected, lease) = bench.newest_write();
    assert_eq!((expected, lease.term), (Some(StoreRevision(8)), None));
    // The leader was slow, and not dead: the store refuses.
    bench.wrote(sequence, Err(WriteError::Conflict));
    assert_eq!(bench.last(), (State::Candidate, State::Watching, Reason::Lost));
    assert!(bench.effects.contains(&Effect::CasLost));
}

/// A bucket that is another, or was set back, may tell of a lease that was given away, while one
/// that the bucket has lost lasts yet.
#[test]
fn a_free_lease_of_another_bucket_is_waited_for() {
    let mut bench = Bench::new();
    bench.now = 1000;
    bench.watch(Watched::Recreated);
    bench.input(Input::Registered(ME));
    bench.watch(told(7, Lease { state: LeaseState::Released, ..foreign(3, 1, None) }));
    bench.watch(Watched::Synced);
    bench.at(6999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(7000);
    assert_eq!(bench.lead.state(), State::Candidate);
}

/// A26, A27: two replicas in the middle of a reload have other times.
#[test]
fn a_leader_with_longer_times_is_given_them() {
    let mut bench = Bench::new();
    bench.watch(told(7, Lease { failover: Some(9000), ..foreign(3, 1, None) }));
    bench.watch(Watched::Synced);
    bench.at(8999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(9000);
    assert_eq!(bench.lead.state(), State::Candidate);
    assert_eq!(bench.newest_write().2.failover, Some(6000));
    // A time that no setting may have is not waited for.
    let mut bench = Bench::new();
    bench.watch(told(7, Lease { failover: Some(u64::MAX), ..foreign(3, 1, None) }));
    bench.watch(Watched::Synced);
    bench.at(599_999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(600_000);
    assert_eq!(bench.lead.state(), State::Candidate);
    // Shorter times of the leader change nothing for this replica.
    let mut bench = Bench::new();
    bench.watch(told(7, Lease { failover: Some(2000), ..foreign(3, 1, None) }));
    bench.watch(Watched::Synced);
    bench.at(5999);
    assert_eq!(bench.lead.state(), State::Watching);
}

/// A26, A27: a longer lease counts once the others can know of the longer times.
#[test]
fn a_longer_lease_counts_from_the_first_write_that_tells() {
    let mut bench = Bench::leading();
    bench.at(7000);
    let before = bench.written();
    let with = |lease: u64, failover: u64| Options { timing: Timing { lease, failover, ..TIMING }, ..options() };
    bench.input(Input::Reload(with(9000, 12_000)));
    assert_eq!(bench.lead.lease_end(), Some(Moment(9000)));
    // This write was sent before the reload.
    bench.store(before, 11);
    assert_eq!(bench.lead.lease_end(), Some(Moment(10_000)));
    bench.at(8000);
    assert_eq!(bench.newest_write().2.failover, Some(12_000));
    let after = bench.written();
    assert_eq!(bench.lead.lease_end(), Some(Moment(10_000)));
    bench.store(after, 12);
    assert_eq!(bench.lead.lease_end(), Some(Moment(17_000)));
    // A shorter one counts at once.
    bench.input(Input::Reload(with(2000, 4000)));
    assert_eq!(bench.lead.lease_end(), Some(Moment(10_000)));
}

/// A20, A26: the same with the hook that fences, which ends before the others may begin.
#[test]
fn a_longer_hook_counts_from_the_first_write_that_tells() {
    let fence_ends = |tells: bool| {
        let mut bench = Bench::leading();
        let timing = Timing { failover: 30_000, ..TIMING };
        bench.input(Input::Reload(Options { timing, hook_timeout: 20_000, ..options() }));
        if tells {
            bench.at(7000);
            let sequence = bench.written();
            bench.store(sequence, 11);
        }
        let fenced = bench.now;
        bench.watch(told(12, foreign(9, 1, None)));
        bench.input(Input::Drained);
        while !bench.effects.iter().any(|effect| matches!(effect, Effect::AbortHook { .. })) {
            let next = bench.lead.next_due().expect("the hook has an end").0;
            bench.at(next);
        }
        bench.now - fenced
    };
    assert_eq!(fence_ends(false), 2000);
    assert_eq!(fence_ends(true), 20_000);
}

/// A12.
#[test]
fn the_revision_of_the_winning_write_is_the_term() {
    let mut bench = Bench::leading();
    assert_eq!(bench.lead.may_begin(Moment(6000)), Some(Term(10)));
    bench.at(7000);
    assert_eq!(bench.newest_write().2.term, Some(Term(10)));
    let sequence = bench.written();
    bench.store(sequence, 11);
    assert_eq!(bench.lead.may_begin(Moment(7000)), Some(Term(10)));
}

/// A6: the lease counts from the sending, and not from the answer.
#[test]
fn the_lease_counts_from_the_sending() {
    let mut bench = Bench::leading();
    bench.at(7000);
    let sequence = bench.written();
    bench.at(8500);
    bench.store(sequence, 11);
    assert_eq!(bench.lead.lease_end(), Some(Moment(10_000)));
    assert!(bench.lead.may_begin(Moment(9999)).is_some());
    assert!(bench.lead.may_begin(Moment(10_000)).is_none());
}

/// A6, A7: after a pause the gate is shut before anything else has happened.
#[test]
fn a_gate_is_shut_after_a_pause() {
    let mut bench = Bench::leading();
    assert!(bench.may_begin());
    bench.now = 9000;
    assert!(!bench.may_begin() && !bench.lead.may_finish(Moment(9000)));
    // The answer of a write from before the pause comes too late.
    bench.input(Input::Tick);
    assert_eq!(bench.last(), (State::Leading, State::Fenced, Reason::LeaseExpired));
}

/// A6.
#[test]
fn an_answer_after_the_lease_prolongs_nothing() {
    let mut bench = Bench::leading();
    bench.at(8900);
    let sequence = bench.written();
    bench.now = 9000;
    bench.store(sequence, 11);
    assert_eq!(bench.lead.state(), State::Fenced);
    assert!(!bench.may_begin());
}

/// A4.
#[test]
fn a_conflict_with_a_foreign_epoch_fences_at_once() {
    let mut bench = Bench::leading();
    bench.at(7000);
    let sequence = bench.written();
    bench.wrote(sequence, Err(WriteError::Conflict));
    assert_eq!(bench.lead.state(), State::Leading);
    assert!(!bench.may_begin(), "the gate is shut until the key is read");
    bench.read(Some((12, foreign(9, 1, None))));
    let taken = Reason::Taken { by: Some(name("other")), epoch: Some(Epoch(9)), term: Some(Term(12)) };
    assert_eq!(bench.last(), (State::Leading, State::Fenced, taken.clone()));
    assert_eq!(taken.to_string(), "other (epoch 9) took over with term 12");
}

/// A4.
#[test]
fn a_foreign_lease_on_the_watch_fences_at_once() {
    let mut bench = Bench::leading();
    bench.watch(told(12, foreign(9, 1, None)));
    assert!(matches!(bench.last(), (State::Leading, State::Fenced, Reason::Taken { .. })));
    // Another process of the same name is foreign too.
    let mut bench = Bench::leading();
    let stamp = Revision { epoch: Epoch(11), sequence: 1 };
    bench.watch(told(12, Lease::held(name("me"), stamp, None)));
    assert!(matches!(bench.last(), (State::Leading, State::Fenced, Reason::Taken { .. })));
    let mut bench = Bench::leading();
    bench.input(Input::Replaced { by: Epoch(11) });
    assert_eq!(bench.last().2, Reason::Replaced { by: Epoch(11) });
}

/// A5, A32.
#[test]
fn an_ambiguous_write_is_read_again_and_does_not_fence() {
    let mut bench = Bench::leading();
    bench.at(7000);
    let (sequence, _, lease) = bench.newest_write();
    bench.wrote(sequence, Err(WriteError::Ambiguous));
    assert!(bench.may_begin(), "a lost answer is no foreign leader");
    bench.at(7300);
    bench.read(Some((11, lease.clone())));
    bench.watch(told(11, lease));
    assert_eq!(bench.lead.lease_end(), Some(Moment(10_000)));
    // A write that was not made is repeated.
    bench.at(8000);
    let sequence = bench.written();
    bench.wrote(sequence, Err(WriteError::Ambiguous));
    bench.at(8300);
    let held = bench.lead.leader().map(|(revision, lease)| (revision.0, lease.clone())).unwrap();
    bench.read(Some(held));
    bench.at(9000);
    assert!(bench.written() > sequence);
    assert_eq!(bench.lead.state(), State::Leading);
}

/// A5: the watch has told the write before its answer was lost.
#[test]
fn a_lost_answer_to_a_write_that_was_told_needs_no_read() {
    let mut bench = Bench::leading();
    bench.at(7000);
    let (sequence, _, lease) = bench.newest_write();
    bench.watch(told(11, lease));
    bench.wrote(sequence, Err(WriteError::Ambiguous));
    assert_eq!(bench.reads(), None);
    assert_eq!(bench.lead.lease_end(), Some(Moment(10_000)));
}

/// A9.
#[test]
fn heartbeats_that_do_not_come_back_end_the_lead() {
    let mut bench = Bench::leading();
    for (at, revision) in [(7000, 11), (8000, 12)] {
        bench.at(at);
        let sequence = bench.written();
        bench.wrote(sequence, Ok(revision));
    }
    bench.at(9000);
    assert_eq!(bench.last(), (State::Leading, State::Fenced, Reason::WatchSilent));
    // Nor does a replica lead whose claim did not come back.
    let mut bench = Bench::new();
    bench.watch(Watched::Synced);
    bench.at(6000);
    let sequence = bench.written();
    bench.wrote(sequence, Ok(10));
    assert_eq!(bench.lead.state(), State::Candidate);
}

/// A8: an expired key is not told; a new list without the key tells.
#[test]
fn a_lease_that_a_new_list_lacks_is_gone() {
    let mut bench = Bench::new();
    bench.watch(told(7, foreign(3, 1, None)));
    bench.watch(Watched::Synced);
    bench.at(3000);
    bench.watch(Watched::Reset);
    bench.at(8000);
    assert_eq!(bench.lead.state(), State::Watching, "no claim while the copy is old");
    bench.watch(Watched::Synced);
    bench.at(13_999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(14_000);
    assert_eq!(bench.newest_write().1, None);
}

/// A22.
#[test]
fn a_restarted_leader_resumes_with_a_new_term_at_once() {
    let mut bench = Bench::with(options(), Some(Epoch(3)));
    let stamp = Revision { epoch: Epoch(3), sequence: 9 };
    bench.watch(told(4, Lease::held(name("me"), stamp, Some(Term(2)))));
    bench.watch(Watched::Synced);
    assert_eq!(bench.last().2, Reason::Resumed);
    let sequence = bench.written();
    bench.store(sequence, 6);
    assert_eq!(bench.lead.may_begin(Moment(0)), Some(Term(6)));
    // A life that is not known to be dead is waited for.
    let mut bench = Bench::with(options(), None);
    bench.watch(told(4, Lease::held(name("me"), stamp, Some(Term(2)))));
    bench.watch(Watched::Synced);
    assert_eq!(bench.lead.state(), State::Watching);
}

/// A24.
#[test]
fn a_recreated_bucket_fences_and_starts_over() {
    let mut bench = Bench::leading();
    bench.watch(Watched::Recreated);
    assert_eq!(bench.last(), (State::Leading, State::Fenced, Reason::Recreated));
    bench.input(Input::Drained);
    let hook = bench.hook(HookKind::Fence).unwrap();
    bench.input(Input::HookDone { hook, is_ok: true });
    bench.read(None);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.watch(Watched::Synced);
    bench.at(20_000);
    assert_eq!(bench.lead.state(), State::Watching, "no claim without a registration");
    bench.input(Input::Registered(Epoch(1)));
    assert_eq!(bench.lead.state(), State::Candidate);
}

/// R7, R10.
#[test]
fn a_replica_that_is_not_active_does_not_claim() {
    let mut bench = Bench::new();
    bench.input(Input::Eligible(false));
    bench.watch(Watched::Synced);
    bench.at(20_000);
    assert!(bench.transitions.is_empty());
}

/// C14: a state of a newer version is no free lease.
#[test]
fn a_lease_of_an_unknown_state_is_held() {
    let mut bench = Bench::new();
    let mut lease = foreign(3, 1, None);
    lease.state = LeaseState::Other("resting".into());
    bench.watch(told(7, lease));
    bench.watch(Watched::Synced);
    bench.at(5999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(6000);
    assert_eq!(bench.lead.state(), State::Candidate);
}

/// A32: claims that the store refuses while the key stays as it is are made less and less often.
#[test]
fn claims_that_come_to_nothing_are_made_less_often() {
    let mut bench = Bench::new();
    bench.watch(told(7, foreign(3, 1, None)));
    bench.watch(Watched::Synced);
    let claims_until = |bench: &mut Bench, until: u64| {
        let before = bench.transitions.len();
        while let Some(due) = bench.lead.next_due().filter(|due| due.0 <= until) {
            bench.at(due.0);
            if bench.lead.state() == State::Candidate {
                let sequence = bench.written();
                bench.wrote(sequence, Err(WriteError::Unavailable));
                bench.input(Input::Link { is_ok: true });
            }
        }
        (bench.transitions.len() - before) / 2
    };
    let first = claims_until(&mut bench, 60_000);
    assert!((8..=18).contains(&first), "{first} claims");
    let later = claims_until(&mut bench, 120_000);
    assert!((9..=11).contains(&later), "{later} claims");
    // Another entry is another chance.
    bench.watch(told(8, foreign(3, 2, None)));
    bench.at(bench.now + 6000);
    assert_eq!(bench.lead.state(), State::Candidate);
}
