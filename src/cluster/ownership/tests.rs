//! Moves of shards.

use super::*;
use crate::domain::fleet::{Member, Unknown};

const TIMING: Timing = Timing { heartbeat: 1000, lease: 3000, margin: 1000, failover: 6000, fall: 3 };
const SHARD: ShardKey = ShardKey::Senders(7);

fn name(name: &str) -> ReplicaName {
    name.parse().unwrap()
}

fn view(members: &[(&str, u64, MemberState)]) -> View {
    let mut view = View::default();
    for (replica, epoch, state) in members {
        let member = Member { epoch: Epoch(*epoch), state: state.clone(), other: Unknown::new() };
        view.members.insert(name(replica), member);
    }
    view
}

/// The names of two replicas: the place of [`SHARD`], and the other one.
fn placed() -> (ReplicaName, ReplicaName) {
    let both = view(&[("a", 1, MemberState::Active), ("b", 2, MemberState::Active)]);
    if *place(&SHARD, &both).unwrap() == name("a") { (name("a"), name("b")) } else { (name("b"), name("a")) }
}

/// A replica.
struct Bench {
    shards: Shards,
    now: u64,
    effects: Vec<Effect>,
}

impl Bench {
    fn new(me: &ReplicaName, epoch: u64) -> Self {
        let mut bench = Self { shards: Shards::new(me.clone(), TIMING), now: 0, effects: Vec::new() };
        bench.input(Input::Life(Some(Epoch(epoch))));
        bench.input(Input::Sure(Some(Moment(u64::MAX))));
        bench
    }

    /// Hands an input in. The store takes no write of another shard.
    fn input(&mut self, input: Input) {
        let mut effects = self.shards.input(Moment(self.now), input);
        while let Some(effect) = (!effects.is_empty()).then(|| effects.remove(0)) {
            match effect {
                Effect::Write { shard, sequence, .. } if shard != SHARD => {
                    let outcome = Err(WriteError::Unavailable);
                    effects.extend(self.shards.input(Moment(self.now), Input::Wrote { shard, sequence, outcome }));
                }
                other => self.effects.push(other),
            }
        }
    }

    fn at(&mut self, now: u64) {
        self.now = now;
        self.input(Input::Tick);
    }

    fn told(&mut self, revision: u64, ownership: Ownership) {
        let (shard, revision, ownership) = (SHARD, StoreRevision(revision), Some(ownership));
        self.input(Input::Watch(Watched::Shard { shard, revision, ownership }));
    }

    /// The newest write of [`SHARD`].
    fn write(&self) -> Option<(u64, Option<StoreRevision>, Ownership)> {
        self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Write { shard, sequence, expected, ownership } if *shard == SHARD => {
                Some((*sequence, *expected, ownership.clone()))
            }
            _ => None,
        })
    }

    fn may_begin(&self) -> bool {
        self.shards.may_begin(&SHARD, Moment(self.now)).is_some()
    }
}

fn owned(by: &ReplicaName, epoch: u64, handed_over: bool) -> Ownership {
    let stamp = Revision { epoch: Epoch(epoch), sequence: 1 };
    Ownership { handed_over, ..Ownership::taken(by.clone(), stamp, None, MoveReason::New) }
}

fn both() -> View {
    view(&[("a", 1, MemberState::Active), ("b", 2, MemberState::Active)])
}

fn life(of: &ReplicaName) -> u64 {
    if *of == name("a") { 1 } else { 2 }
}

/// R19: few moves, evenly spread, the same in every version.
#[test]
fn a_replica_that_goes_moves_only_its_own_shards() {
    let three = view(&[
        ("r0", 1, MemberState::Active),
        ("r1", 2, MemberState::Active),
        ("r2", 3, MemberState::Active),
        ("r3", 4, MemberState::Draining),
    ]);
    let two = view(&[("r0", 1, MemberState::Active), ("r1", 2, MemberState::Active)]);
    let mut counts = BTreeMap::new();
    for shard in ShardKey::all_senders() {
        let before = place(&shard, &three).unwrap();
        let after = place(&shard, &two).unwrap();
        assert!(before == after || *before == name("r2"), "{shard}");
        *counts.entry(before.clone()).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| (10..=32).contains(count)), "{counts:?}");
    let first: Vec<_> = (0..8).map(|shard| place(&ShardKey::Senders(shard), &three).unwrap().to_string()).collect();
    assert_eq!(first, FIRST_PLACES, "another order is another format");
}

const FIRST_PLACES: [&str; 8] = ["r1", "r0", "r2", "r1", "r1", "r2", "r0", "r2"];

/// R17, R20, R22: taken from a failed owner, after a wait.
#[test]
fn a_shard_of_a_failed_owner_is_taken_and_waited_for() {
    let (me, other) = placed();
    let mut bench = Bench::new(&me, life(&me));
    bench.told(3, owned(&other, life(&other), false));
    bench.input(Input::View(both()));
    bench.input(Input::Watch(Watched::Synced));
    assert_eq!(bench.write(), None, "a living owner hands over by itself");
    let states = [(me.as_str(), life(&me), MemberState::Active), (other.as_str(), life(&other), MemberState::Failed)];
    bench.input(Input::View(view(&states)));
    let (sequence, expected, ownership) = bench.write().unwrap();
    assert_eq!((expected, ownership.reason.clone()), (Some(StoreRevision(3)), MoveReason::Failed));
    assert_eq!((ownership.from.as_ref(), ownership.handed_over), (Some(&other), false));
    bench.input(Input::Wrote { shard: SHARD, sequence, outcome: Ok(StoreRevision(8)) });
    bench.told(8, ownership);
    bench.at(5999);
    assert!(!bench.may_begin(), "the lease of the owner before may last");
    bench.at(6000);
    assert_eq!(bench.shards.may_begin(&SHARD, Moment(6000)), Some(StoreRevision(8)));
}

/// R11, R17, R22: handed over by a living owner, at once.
#[test]
fn a_living_owner_finishes_and_hands_over() {
    let (other, me) = placed();
    let mut bench = Bench::new(&me, life(&me));
    bench.told(3, owned(&me, life(&me), true));
    let alone = view(&[(me.as_str(), life(&me), MemberState::Active)]);
    bench.input(Input::View(alone));
    bench.input(Input::Watch(Watched::Synced));
    assert!(bench.may_begin());
    bench.input(Input::View(both()));
    assert!(!bench.may_begin() && bench.effects.contains(&Effect::Stop { shard: SHARD }));
    assert_eq!(bench.write(), None, "effects are under way");
    bench.input(Input::Drained(SHARD));
    let (_, expected, ownership) = bench.write().unwrap();
    assert_eq!(expected, Some(StoreRevision(3)));
    assert_eq!((ownership.reason.clone(), ownership.handed_over), (MoveReason::Balancing, true));
    assert!(ownership.is_of(&other, Epoch(life(&other))));
    // The new owner begins at once.
    let mut new = Bench::new(&other, life(&other));
    new.input(Input::View(both()));
    new.told(9, ownership);
    assert!(new.may_begin());
    assert!(new.effects.contains(&Effect::Begin { shard: SHARD, token: StoreRevision(9) }));
}

/// R22, A5: a hand-over without an answer is not taken back without a new write.
#[test]
fn an_owner_that_keeps_a_shard_writes_first() {
    let (other, me) = placed();
    let mut bench = Bench::new(&me, life(&me));
    bench.told(3, owned(&me, life(&me), true));
    let alone = view(&[(me.as_str(), life(&me), MemberState::Active)]);
    bench.input(Input::View(alone.clone()));
    bench.input(Input::Watch(Watched::Synced));
    bench.input(Input::View(both()));
    bench.input(Input::Drained(SHARD));
    let (sequence, ..) = bench.write().unwrap();
    bench.input(Input::Wrote { shard: SHARD, sequence, outcome: Err(WriteError::Ambiguous) });
    bench.input(Input::View(alone));
    bench.at(1000);
    let Some(Effect::Read { sequence, .. }) = bench.effects.last().cloned() else { panic!("{:?}", bench.effects) };
    let entry = Some((StoreRevision(3), Some(owned(&me, life(&me), true))));
    bench.input(Input::Read { shard: SHARD, sequence, outcome: Ok(entry) });
    bench.at(2000);
    assert!(!bench.may_begin(), "the hand-over to {other} may still land");
    let (_, expected, ownership) = bench.write().unwrap();
    assert_eq!((expected, ownership.owner.clone()), (Some(StoreRevision(3)), me));
    bench.told(10, ownership);
    bench.at(2001);
    assert_eq!(bench.shards.may_begin(&SHARD, Moment(2001)), Some(StoreRevision(10)));
}

/// A6, R22: a member that is not sure begins nothing.
#[test]
fn an_owner_past_its_lease_begins_nothing() {
    let (me, _) = placed();
    let mut bench = Bench::new(&me, life(&me));
    bench.told(3, owned(&me, life(&me), true));
    bench.input(Input::View(both()));
    bench.input(Input::Sure(Some(Moment(3000))));
    bench.now = 2999;
    assert!(bench.may_begin());
    bench.now = 3000;
    assert!(!bench.may_begin());
    bench.input(Input::Life(None));
    assert!(bench.effects.contains(&Effect::Stop { shard: SHARD }));
}

/// A24, R22: a shard without an owner may have one in another bucket.
#[test]
fn a_new_shard_is_waited_for() {
    let (me, _) = placed();
    let mut bench = Bench::new(&me, life(&me));
    bench.input(Input::View(both()));
    let effects = bench.shards.input(Moment(0), Input::Watch(Watched::Synced));
    assert_eq!(effects.len(), 16, "no more than 16 writes at once");
    let taken = owned(&me, life(&me), false);
    bench.told(3, taken);
    bench.at(5999);
    assert!(!bench.may_begin());
    bench.at(6000);
    assert!(bench.may_begin());
}
