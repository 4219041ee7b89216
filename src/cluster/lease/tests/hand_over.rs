//! Giving the lease away.

use super::{super::*, bench::*};
use crate::domain::fleet::{Lease, LeaseState};

/// Ends work and hook of a leader that yields.
fn end_work(bench: &mut Bench) {
    bench.input(Input::Drained);
    let hook = bench.hook(HookKind::Fence).unwrap();
    bench.input(Input::HookDone { hook, is_ok: true });
}

/// A14.
#[test]
fn a_leader_that_is_asked_finishes_and_yields() {
    let mut bench = Bench::leading();
    bench.input(Input::Asked { by: name("other") });
    assert_eq!(bench.lead.state(), State::Yielding);
    assert!(!bench.may_begin() && bench.lead.may_finish(Moment(bench.now)));
    end_work(&mut bench);
    let (sequence, _, lease) = bench.newest_write();
    assert_eq!((lease.state.clone(), lease.to.clone()), (LeaseState::Yielded, Some(name("other"))));
    bench.store(sequence, 11);
    assert_eq!(bench.last(), (State::Yielding, State::Watching, Reason::Left));
    // The lease is left to the other, for the failover timeout.
    bench.at(11_999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(12_000);
    assert_eq!(bench.lead.state(), State::Candidate);
    // The other takes the lease at once.
    let mut other = Bench::new();
    let to = Some(name("me"));
    other.watch(told(11, Lease { state: LeaseState::Yielded, to, ..foreign(3, 2, None) }));
    other.watch(Watched::Synced);
    assert_eq!(other.lead.state(), State::Candidate);
}

/// A14: bounded in time.
#[test]
fn a_leader_that_cannot_finish_goes_on() {
    let mut bench = Bench::leading();
    bench.input(Input::Asked { by: name("other") });
    for (at, revision) in [(7000, 11), (8000, 12), (9000, 13)] {
        bench.at(at);
        let sequence = bench.written();
        bench.store(sequence, revision);
    }
    bench.at(10_000);
    assert_eq!(bench.last(), (State::Yielding, State::Leading, Reason::YieldTimeout));
    assert!(bench.may_begin());
    bench.input(Input::Asked { by: name("other") });
    assert_eq!(bench.lead.state(), State::Leading, "no request is heard for a while");
}

/// A14.
#[test]
fn a_preferred_replica_asks_while_another_leads() {
    let mut bench = Bench::with(Options { preferred: true, ..options() }, None);
    bench.watch(Watched::Synced);
    assert!(!bench.lead.wants_lead());
    bench.watch(told(7, foreign(3, 1, None)));
    assert!(bench.lead.wants_lead());
    bench.input(Input::Eligible(false));
    assert!(!bench.lead.wants_lead());
}

/// A29.
#[test]
fn a_stop_releases_the_lease() {
    let mut bench = Bench::leading();
    bench.input(Input::Stop);
    assert_eq!(bench.last(), (State::Leading, State::Yielding, Reason::Stopping));
    end_work(&mut bench);
    let (sequence, _, lease) = bench.newest_write();
    assert_eq!(lease.state, LeaseState::Released);
    assert!(!bench.lead.is_done());
    bench.store(sequence, 11);
    assert!(bench.lead.is_done() && bench.effects.contains(&Effect::Left));
    // Another replica takes a released lease without a wait.
    let mut other = Bench::new();
    other.watch(told(11, Lease { state: LeaseState::Released, ..foreign(3, 2, None) }));
    other.watch(Watched::Synced);
    assert_eq!(other.lead.state(), State::Candidate);
}

/// A5, A29.
#[test]
fn a_release_with_a_lost_answer_is_read_again() {
    let mut bench = Bench::leading();
    bench.input(Input::Stop);
    end_work(&mut bench);
    let (sequence, _, lease) = bench.newest_write();
    bench.wrote(sequence, Err(WriteError::Ambiguous));
    assert!(!bench.lead.is_done());
    bench.at(6300);
    bench.read(Some((11, lease)));
    assert!(bench.lead.is_done());
}

/// A29.
#[test]
fn a_stop_that_takes_too_long_is_fenced() {
    let mut bench = Bench::leading();
    bench.input(Input::Stop);
    for (at, revision) in [(7000, 11), (8000, 12), (9000, 13)] {
        bench.at(at);
        let sequence = bench.written();
        bench.store(sequence, revision);
    }
    bench.at(10_000);
    assert_eq!(bench.last(), (State::Yielding, State::Fenced, Reason::YieldTimeout));
}
