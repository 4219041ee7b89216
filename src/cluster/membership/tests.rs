//! Joining, leaving, failing, recovering.

use super::{silence::FORGOTTEN_AFTER, *};
use crate::domain::fleet::Member;

const TIMING: Timing = Timing { heartbeat: 1000, lease: 3000, margin: 1000, failover: 6000, fall: 3 };

fn name(name: &str) -> ReplicaName {
    name.parse().unwrap()
}

/// A replica and its effects.
struct Bench {
    member: Membership,
    now: u64,
    effects: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        let member = Membership::new(name("me"), 77, TIMING, Moment(0));
        let mut bench = Self { member, now: 0, effects: Vec::new() };
        bench.watch(Watched::Synced);
        bench
    }

    /// An active replica of the epoch 5, beside an active `other` of the epoch 3.
    fn active() -> Self {
        let mut bench = Self::new();
        bench.other(4, 1);
        bench.wrote(Ok(5));
        bench.input(Input::Ready);
        bench.view(6, &[("me", 5, MemberState::Active), ("other", 3, MemberState::Active)]);
        bench.echo(7);
        bench
    }

    fn input(&mut self, input: Input) {
        self.effects.extend(self.member.input(Moment(self.now), input).effects);
    }

    fn watch(&mut self, watched: Watched) {
        self.input(Input::Watch(watched));
    }

    fn at(&mut self, now: u64) {
        self.now = now;
        for _ in 0..3 {
            self.input(Input::Tick);
        }
    }

    fn beat(&self) -> (u64, Option<StoreRevision>, Heartbeat) {
        let beat = |effect: &Effect| match effect {
            Effect::Write { sequence, expected, heartbeat } => Some((*sequence, *expected, (**heartbeat).clone())),
            _ => None,
        };
        self.effects.iter().rev().find_map(beat).expect("a heartbeat")
    }

    fn wrote(&mut self, outcome: Result<u64, WriteError>) {
        let (sequence, ..) = self.beat();
        self.input(Input::Wrote { sequence, outcome: outcome.map(StoreRevision) });
    }

    fn read(&mut self, revision: u64, heartbeat: Heartbeat) {
        let read = |effect: &Effect| match effect {
            Effect::Read { sequence } => Some(*sequence),
            _ => None,
        };
        let sequence = self.effects.iter().rev().find_map(read).expect("a read");
        let outcome = Ok(Some((StoreRevision(revision), Some(heartbeat))));
        self.input(Input::Read { sequence, outcome });
    }

    /// The store takes the newest heartbeat, and the watch tells.
    fn echo(&mut self, revision: u64) {
        let (.., heartbeat) = self.beat();
        self.wrote(Ok(revision));
        let heartbeat = Some(Box::new(heartbeat));
        self.watch(Watched::Heartbeat { replica: name("me"), revision: StoreRevision(revision), heartbeat });
    }

    fn other(&mut self, revision: u64, sequence: u64) {
        let mut heartbeat = Heartbeat::registration(99);
        (heartbeat.epoch, heartbeat.sequence) = (Some(Epoch(3)), sequence);
        let heartbeat = Some(Box::new(heartbeat));
        self.watch(Watched::Heartbeat { replica: name("other"), revision: StoreRevision(revision), heartbeat });
    }

    fn view(&mut self, revision: u64, members: &[(&str, u64, MemberState)]) {
        let mut view = View::default();
        for (replica, epoch, state) in members {
            let member = Member { epoch: Epoch(*epoch), state: state.clone(), other: Default::default() };
            view.members.insert(name(replica), member);
        }
        self.watch(Watched::View { revision: StoreRevision(revision), view: Some(view) });
        let write = |effect: &Effect| match effect {
            Effect::WriteView { sequence, .. } => Some(*sequence),
            _ => None,
        };
        if let Some(sequence) = self.effects.iter().rev().find_map(write) {
            self.input(Input::WroteView { sequence, outcome: Ok(StoreRevision(revision)) });
        }
    }

    fn proposal(&self) -> Option<View> {
        let view = |effect: &Effect| match effect {
            Effect::WriteView { view, .. } => Some(view.clone()),
            _ => None,
        };
        self.effects.iter().rev().find_map(view)
    }
}

/// Heights that rise fast bring no more heartbeats than the gap allows, however many there are.
#[test]
fn news_bring_a_heartbeat_sooner_within_the_gap() {
    let mut bench = Bench::active();
    bench.at(100);
    bench.input(Input::Beat);
    let first = bench.beat().0;
    bench.echo(8);
    bench.at(110);
    for _ in 0..3 {
        bench.input(Input::Beat);
    }
    assert_eq!((bench.beat().0, bench.member.next_due(Moment(110))), (first, Some(Moment(100 + BEAT_GAP))));
    bench.at(100 + BEAT_GAP);
    assert!(bench.beat().0 > first);
}

/// The bucket may hold heartbeats of many replicas that are dead: the newest are kept, and those of
/// members whatever their age.
#[test]
fn heartbeats_are_kept_of_so_many_replicas() {
    let mut bench = Bench::active();
    let mut tell = |revision: u64| {
        let heartbeat = Some(Box::new(Heartbeat::registration(revision)));
        let (replica, revision) = (name(&format!("pod-{revision}")), StoreRevision(revision));
        bench.watch(Watched::Heartbeat { replica, revision, heartbeat });
    };
    (1000..1300).for_each(&mut tell);
    tell(500);
    let kept: Vec<_> = bench.member.heartbeats().map(|(name, ..)| name.to_string()).collect();
    assert_eq!(kept.len(), 256);
    let has = |name: &str| kept.iter().any(|kept| kept == name);
    assert_eq!(["me", "other", "pod-1299", "pod-1045", "pod-500"].map(has), [true, true, true, false, false]);
    assert_eq!(bench.effects.iter().filter(|effect| **effect == Effect::Unheard).count(), 300 + 1 + 2 - 256);
}

/// A replica that the view has forgotten, or never had, goes after a long silence, here and in the
/// store. A member stays.
#[test]
fn a_replica_in_no_view_is_forgotten() {
    let mut bench = Bench::active();
    let heartbeat = Some(Box::new(Heartbeat::registration(1)));
    bench.watch(Watched::Heartbeat { replica: name("pod-1"), revision: StoreRevision(8), heartbeat });
    bench.watch(Watched::Heartbeat { replica: name("strange"), revision: StoreRevision(9), heartbeat: None });
    let forgotten = |bench: &Bench| {
        let name = |effect: &Effect| match effect {
            Effect::Forget { replica, revision } => Some((replica.to_string(), revision.0)),
            _ => None,
        };
        bench.effects.iter().filter_map(name).collect::<Vec<_>>()
    };
    let end = FORGOTTEN_AFTER * TIMING.failover;
    for now in (1000..end).step_by(1000) {
        bench.at(now);
        bench.echo(100 + now);
        assert_eq!((forgotten(&bench), bench.member.peers.iter().count()), (vec![], 4), "at {now}");
    }
    let news = bench.member.news();
    bench.at(end + TIMING.failover);
    bench.echo(100 + end);
    bench.at(end + TIMING.failover);
    assert_eq!(forgotten(&bench), [("pod-1".to_owned(), 8)]);
    assert!(bench.member.news() > news);
    assert_eq!(bench.member.peers.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>(), ["me", "other"]);
}

/// R9: every pair.
#[test]
fn every_pair_of_standings_is_legal_or_not() {
    use MemberState::*;
    let legal = [
        (Joining, Active),
        (Joining, Left),
        (Joining, Failed),
        (Active, Draining),
        (Active, Failed),
        (Draining, Left),
        (Draining, Failed),
        (Failed, Left),
        (Left, Joining),
    ];
    let me = name("me");
    for from in MemberState::KNOWN {
        for to in MemberState::KNOWN {
            let is_legal = legal.contains(&(from.clone(), to.clone()));
            assert_eq!(can_become(from, to), is_legal, "{from} to {to}");
            let mut view = View::default();
            let member = Member { epoch: Epoch(5), state: from.clone(), other: Default::default() };
            view.members.insert(me.clone(), member);
            assert_eq!(with(&view, &me, Epoch(5), to.clone()).is_ok(), is_legal, "{from} to {to}");
            let old = with(&view, &me, Epoch(4), to.clone());
            assert_eq!(old, Err(Illegal::OldLife { replica: me.clone(), epoch: Epoch(4) }));
        }
    }
    assert!(!can_become(&Other("resting".into()), &Active));
}

/// R10, C5: join.
#[test]
fn a_replica_joins_in_two_steps() {
    let mut bench = Bench::new();
    let (_, expected, registration) = bench.beat();
    assert_eq!((expected, registration.sequence, registration.state), (None, 0, MemberState::Joining));
    bench.wrote(Ok(5));
    assert_eq!(bench.member.epoch(), Some(Epoch(5)));
    assert!(bench.effects.contains(&Effect::Registered(Epoch(5))));
    assert_eq!(bench.proposal(), None, "the copies are not read yet");
    bench.input(Input::Ready);
    assert_eq!(bench.proposal().unwrap().members[&name("me")].state, MemberState::Active);
    assert_eq!(bench.member.state(), Some(&MemberState::Joining), "the view has not come back");
    bench.view(6, &[("me", 5, MemberState::Active)]);
    assert_eq!(bench.member.state(), Some(&MemberState::Active));
    assert!(bench.effects.contains(&Effect::Eligible(true)));
}

/// A5, C5: the epoch is the revision of the registration that the store has.
#[test]
fn a_registration_with_a_lost_answer_is_read_again() {
    let mut bench = Bench::new();
    let (.., registration) = bench.beat();
    bench.wrote(Err(WriteError::Ambiguous));
    bench.at(300);
    bench.read(5, registration);
    assert_eq!(bench.member.epoch(), Some(Epoch(5)));
}

/// R7, A25: heartbeat.
#[test]
fn heartbeats_tell_the_true_state() {
    let mut bench = Bench::active();
    bench.at(1000);
    assert_eq!(bench.beat().2.state, MemberState::Active);
    bench.echo(8);
    bench.input(Input::Drain);
    assert_eq!(bench.proposal().unwrap().members[&name("me")].state, MemberState::Draining);
    bench.view(9, &[("me", 5, MemberState::Draining), ("other", 3, MemberState::Active)]);
    assert!(bench.effects.contains(&Effect::Eligible(false)));
    bench.at(2000);
    assert_eq!(bench.beat().2.state, MemberState::Draining);
}

/// R11: leave.
#[test]
fn a_draining_replica_leaves_once_its_shards_are_gone() {
    let mut bench = Bench::active();
    bench.at(500);
    bench.input(Input::Drain);
    bench.view(9, &[("me", 5, MemberState::Draining), ("other", 3, MemberState::Active)]);
    bench.at(1000);
    assert_eq!(bench.proposal().unwrap().members[&name("me")].state, MemberState::Draining);
    assert_eq!(bench.member.state(), Some(&MemberState::Draining));
    bench.input(Input::Emptied);
    bench.at(2000);
    assert_eq!(bench.proposal().unwrap().members[&name("me")].state, MemberState::Left);
    bench.view(10, &[("me", 5, MemberState::Left), ("other", 3, MemberState::Active)]);
    assert_eq!(bench.member.state(), Some(&MemberState::Left));
    bench.effects.clear();
    bench.at(9000);
    assert!(bench.effects.is_empty(), "a replica that has left says no more");
}

/// R6, R21: fail.
#[test]
fn a_silent_replica_is_failed_after_the_timeout() {
    let mut bench = Bench::active();
    for (at, revision) in [(1000, 8), (2000, 9), (3000, 10), (4000, 11), (5000, 12)] {
        bench.at(at);
        bench.echo(revision);
    }
    bench.at(5999);
    assert!(bench.proposal().is_none_or(|view| view.members[&name("me")].state == MemberState::Active));
    bench.at(6001);
    let view = bench.proposal().unwrap();
    assert_eq!(view.members[&name("other")].state, MemberState::Failed);
    assert_eq!(view.members[&name("me")].state, MemberState::Active, "never oneself");
}

/// R6, A7: a replica that does not hear itself judges nobody.
#[test]
fn a_replica_that_was_paused_judges_no_other() {
    let mut bench = Bench::active();
    bench.effects.clear();
    bench.at(60_000);
    assert_eq!(bench.proposal(), None);
}

/// R8: recover.
#[test]
fn a_failed_replica_comes_back_with_a_new_epoch() {
    let mut bench = Bench::active();
    bench.view(9, &[("me", 5, MemberState::Failed), ("other", 3, MemberState::Active)]);
    assert!(bench.effects.contains(&Effect::Eligible(false)));
    assert_eq!(bench.member.epoch(), None);
    bench.at(1000);
    assert_eq!(bench.member.state(), Some(&MemberState::Left));
    let (_, expected, registration) = bench.beat();
    assert_eq!((expected, registration.epoch), (Some(StoreRevision(7)), None));
    bench.wrote(Ok(12));
    assert_eq!(bench.member.epoch(), Some(Epoch(12)));
    assert_eq!(bench.member.state(), Some(&MemberState::Joining));
}

/// A4: replaced by a later process of the name.
#[test]
fn a_later_process_of_the_name_ends_this_one() {
    let mut bench = Bench::active();
    bench.at(1000);
    bench.wrote(Err(WriteError::Conflict));
    bench.at(1300);
    bench.read(20, Heartbeat::registration(78));
    assert!(bench.effects.contains(&Effect::Replaced { by: Epoch(20) }));
    assert_eq!(bench.member.state(), Some(&MemberState::Failed));
    bench.effects.clear();
    bench.at(90_000);
    assert!(bench.effects.is_empty(), "two processes do not fight for a name");
}

/// R12.
#[test]
fn one_number_with_two_views_is_a_violation() {
    let mut bench = Bench::active();
    bench.view(6, &[("me", 5, MemberState::Active)]);
    assert!(bench.effects.contains(&Effect::Violation { number: ViewNumber(6) }));
}

/// R13: sync.
#[test]
fn the_newest_view_wins_after_a_partition() {
    let mut bench = Bench::active();
    bench.watch(Watched::Reset);
    bench.view(9, &[("me", 5, MemberState::Active)]);
    bench.view(8, &[("me", 5, MemberState::Failed)]);
    bench.watch(Watched::Synced);
    let (number, view) = bench.member.view().unwrap();
    assert_eq!((number, view.active().count()), (ViewNumber(9), 1));
    let change = MemberChange { replica: name("other"), epoch: Epoch(3), from: Some(MemberState::Active), to: None };
    assert!(bench.effects.contains(&Effect::View { number: ViewNumber(9), changes: vec![change] }));
}

/// A24.
#[test]
fn a_recreated_bucket_means_a_new_registration() {
    let mut bench = Bench::active();
    bench.watch(Watched::Recreated);
    assert!(bench.effects.contains(&Effect::Eligible(false)));
    bench.at(1);
    bench.watch(Watched::Synced);
    let (_, expected, registration) = bench.beat();
    assert_eq!((expected, registration.sequence), (None, 0));
}

/// R12: a view forgets the oldest of those that have gone.
#[test]
fn a_view_remembers_64_replicas_that_have_gone() {
    let mut view = View::default();
    for number in 1..=100_u64 {
        let replica = name(&format!("r{number}"));
        view = with(&view, &replica, Epoch(number), MemberState::Active).unwrap();
        view = with(&view, &replica, Epoch(number), MemberState::Failed).unwrap();
    }
    assert_eq!(view.members.len(), 64);
    assert!(view.members.contains_key(&name("r100")) && !view.members.contains_key(&name("r36")));
}
