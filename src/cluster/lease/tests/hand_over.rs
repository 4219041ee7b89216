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
    // The lease is left to the other for two heartbeats. Then the giver, whose work has ended, may
    // claim, and hears no request for a while.
    bench.at(7999);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.at(8000);
    assert_eq!(bench.lead.state(), State::Candidate);
    let sequence = bench.written();
    bench.store(sequence, 12);
    assert_eq!(bench.lead.state(), State::Leading);
    bench.input(Input::Asked { by: name("other") });
    assert_eq!(bench.lead.state(), State::Leading);
    // A third one does not know whether that work has ended.
    let mut third = Bench::new();
    let to = Some(name("fourth"));
    third.watch(told(11, Lease { state: LeaseState::Yielded, to, ..foreign(3, 2, None) }));
    third.watch(Watched::Synced);
    third.at(5999);
    assert_eq!(third.lead.state(), State::Watching);
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
    assert!(!bench.lead.wants_lead(Moment(bench.now)));
    bench.watch(told(7, foreign(3, 1, None)));
    assert!(bench.lead.wants_lead(Moment(bench.now)));
    bench.input(Input::Eligible(false));
    assert!(!bench.lead.wants_lead(Moment(bench.now)));
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

/// A25: a drained replica does not lead, does not ask, and takes part again when the drain is over.
#[test]
fn a_drained_leader_gives_the_lease_away() {
    let mut bench = Bench::leading();
    bench.input(Input::SetAside(true));
    assert_eq!(bench.last(), (State::Leading, State::Yielding, Reason::Drained));
    end_work(&mut bench);
    let (sequence, _, lease) = bench.newest_write();
    assert_eq!((lease.state, lease.to), (LeaseState::Released, None));
    bench.store(sequence, 11);
    bench.at(60_000);
    assert_eq!(bench.lead.state(), State::Watching);
    bench.input(Input::SetAside(false));
    assert_eq!(bench.lead.state(), State::Candidate);
    let mut bench = Bench::with(Options { preferred: true, ..options() }, None);
    bench.watch(told(7, foreign(3, 1, None)));
    bench.watch(Watched::Synced);
    bench.input(Input::SetAside(true));
    assert!(!bench.lead.wants_lead(Moment(0)));
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

/// A19: a preferred replica whose `on_lead` fails neither claims nor asks for a while, and for
/// longer each time.
#[test]
fn a_preferred_replica_whose_hook_fails_is_humble() {
    let mut bench = Bench::with(Options { preferred: true, ..options() }, None);
    bench.watch(Watched::Synced);
    bench.at(6000);
    let mut revision = 10;
    let mut fail = |bench: &mut Bench, is_ok: bool| {
        revision += 10;
        let sequence = bench.written();
        bench.store(sequence, revision);
        assert_eq!(bench.lead.state(), State::Leading);
        let hook = bench.hook(HookKind::Lead).unwrap();
        bench.input(Input::HookDone { hook, is_ok });
        bench.watch(told(revision + 1, foreign(3, revision, None)));
        end_work(bench);
        bench.read(Some((revision + 1, foreign(3, revision, None))));
        assert_eq!(bench.lead.state(), State::Watching);
        let fenced = bench.now;
        while !bench.lead.wants_lead(Moment(bench.now)) {
            bench.now += 500;
            revision += 1;
            bench.watch(told(revision + 1, foreign(3, revision, None)));
        }
        let humble = bench.now - fenced;
        let yielded = Lease { state: LeaseState::Yielded, to: Some(name("me")), ..foreign(3, revision, None) };
        bench.watch(told(revision + 2, yielded));
        assert_eq!(bench.lead.state(), State::Candidate);
        revision += 2;
        humble
    };
    let times: Vec<_> = [false, false, false, true, false].map(|is_ok| fail(&mut bench, is_ok)).into();
    assert_eq!(times, [12_000, 24_000, 48_000, 0, 12_000]);
}
