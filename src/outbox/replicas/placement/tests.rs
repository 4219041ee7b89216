use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::fleet::Member;

const FAILOVER: u64 = 12_000;

fn name(place: usize) -> ReplicaName {
    format!("r{place}").parse().unwrap()
}

fn names(places: &[usize]) -> BTreeSet<ReplicaName> {
    places.iter().map(|place| name(*place)).collect()
}

fn view(members: &[(usize, u64, MemberState)]) -> View {
    let member = |epoch: u64, state: &MemberState| Member {
        epoch: Epoch(epoch),
        state: state.clone(),
        other: Default::default(),
    };
    let members = members.iter().map(|(place, epoch, state)| (name(*place), member(*epoch, state)));
    View { members: members.collect(), ..View::default() }
}

/// A shard that is to be this replica's among these.
fn shard_of(place: usize, among: &[usize]) -> Shard {
    let among = names(among);
    Shard::all().find(|shard| chosen(*shard, &among) == Some(&name(place))).unwrap()
}

/// R19: the shares are about even, and a replica that goes moves its own share and nothing else.
#[test]
fn a_replica_that_goes_moves_its_own_share() {
    let (all, fewer) = (names(&[0, 1, 2]), names(&[0, 2]));
    let mut shares = BTreeMap::<_, usize>::new();
    for shard in Shard::all() {
        let (before, after) = (chosen(shard, &all).unwrap(), chosen(shard, &fewer).unwrap());
        *shares.entry(before.clone()).or_default() += 1;
        assert!(before == after || *before == name(1), "{shard} moved from {before} to {after}");
    }
    assert!(shares.values().all(|share| (12..=32).contains(share)), "{shares:?}");
    assert_eq!(chosen(Shard::numbered(0).unwrap(), &BTreeSet::new()), None);
}

/// The replica `r0` in its life 10, beside `r1` in its life 20.
struct Scene {
    placement: Placement,
    now: Moment,
    view: View,
    candidates: BTreeSet<ReplicaName>,
    life: Option<Epoch>,
    takes: bool,
    leaves: bool,
    shard: Shard,
}

impl Scene {
    fn new() -> Self {
        Self {
            placement: Placement::new(name(0)),
            now: Moment(1_000_000),
            view: view(&[(0, 10, MemberState::Active), (1, 20, MemberState::Active)]),
            candidates: names(&[0, 1]),
            life: Some(Epoch(10)),
            takes: true,
            leaves: false,
            shard: shard_of(0, &[0, 1]),
        }
    }

    /// The shard has no row, and that is so for a while. R22: the bucket may be another, and the
    /// owner of before not know.
    fn waited() -> Self {
        let mut scene = Self::new();
        assert_eq!(scene.look(), None);
        scene.now = scene.now.after(FAILOVER - 1);
        assert_eq!(scene.look(), None);
        scene.now = scene.now.after(1);
        scene
    }

    fn look(&mut self) -> Option<Action> {
        let around = Around {
            life: self.life,
            takes: self.takes,
            leaves: self.leaves,
            view: &self.view,
            candidates: &self.candidates,
            failover: FAILOVER,
        };
        self.placement.lives.extend(self.life);
        self.placement.step(self.now, around, self.shard)
    }

    fn row(&self, place: usize, epoch: u64) -> Owner {
        Owner::new(name(place), Epoch(epoch))
    }

    fn seen(&mut self, revision: u64, row: Owner) {
        self.placement.seen(self.shard, Held { revision: Revision::new(revision), row: Some(row) });
    }

    fn phase(&self) -> Phase {
        self.placement.phase(self.shard)
    }

    /// The replica owns the shard, by the row of revision 5.
    fn active() -> Self {
        let mut scene = Self::new();
        scene.seen(5, scene.row(0, 10));
        assert_eq!(scene.look(), Some(Action::Prepare(scene.shard)));
        assert!(scene.placement.prepared(scene.shard));
        assert_eq!((scene.look(), scene.phase()), (None, Phase::Active));
        scene
    }

    fn claims(&mut self, over: Option<u64>, reason: Option<MoveReason>) -> bool {
        let over = over.map(Revision::new);
        self.look() == Some(Action::Claim { shard: self.shard, over, reason })
    }
}

#[test]
fn a_shard_without_an_owner_is_claimed_and_taken_up() {
    let mut scene = Scene::waited();
    assert!(scene.claims(None, None));
    assert_eq!(scene.look(), None, "one claim at a time");
    scene.seen(5, scene.row(0, 10));
    assert_eq!(scene.look(), Some(Action::Prepare(scene.shard)), "its own row has come back");
    assert!(scene.placement.prepared(scene.shard));
    assert!(!scene.placement.prepared(scene.shard), "that comes once");
}

#[test]
fn a_shard_of_another_is_left_alone() {
    let mut scene = Scene::new();
    scene.shard = shard_of(1, &[0, 1]);
    assert_eq!(scene.look(), None, "it is to be the other's");
    // A replica that is no member beyond doubt, or has not read all rows, takes nothing.
    let mut scene = Scene::new();
    scene.takes = false;
    assert_eq!(scene.look(), None);
    scene.takes = true;
    scene.seen(5, scene.row(1, 20));
    assert_eq!(scene.look(), None, "the owner is there, and gives the shard away by itself");
}

/// R17, R22: an owner that is there has to end its effects first.
#[test]
fn a_shard_that_was_given_away_is_taken_at_once() {
    for reason in [MoveReason::Balancing, MoveReason::Leaving] {
        let mut scene = Scene::new();
        scene.seen(5, Owner { released: Some(reason), ..scene.row(1, 20) });
        assert!(scene.claims(Some(5), Some(reason)));
    }
}

/// R17, R22: the view fails an owner after the end of its lease.
#[test]
fn a_shard_of_an_owner_that_is_gone_is_taken() {
    for (state, reason) in [(MemberState::Failed, MoveReason::Failed), (MemberState::Left, MoveReason::Leaving)] {
        let mut scene = Scene::new();
        scene.seen(5, scene.row(1, 20));
        assert_eq!(scene.look(), None);
        scene.view = view(&[(0, 10, MemberState::Active), (1, 20, state)]);
        assert!(scene.claims(Some(5), Some(reason)));
    }
}

/// R22: a process that another one of its name has followed may act until its lease is over.
#[test]
fn an_owner_of_an_earlier_life_is_waited_for() {
    for members in
        [vec![(0, 10, MemberState::Active), (1, 30, MemberState::Active)], vec![(0, 10, MemberState::Active)]]
    {
        let mut scene = Scene::new();
        scene.seen(5, scene.row(1, 20));
        scene.view = view(&members);
        assert_eq!(scene.look(), None);
        scene.now = scene.now.after(FAILOVER - 1);
        assert_eq!(scene.look(), None);
        scene.now = scene.now.after(1);
        assert!(scene.claims(Some(5), Some(MoveReason::Failed)));
    }
}

/// A process that was failed and has joined anew has ended the effects of its earlier life.
#[test]
fn a_new_life_of_this_process_takes_its_own_shards_at_once() {
    let mut scene = Scene::active();
    scene.life = Some(Epoch(40));
    assert_eq!(scene.look(), Some(Action::Stop(scene.shard)), "the row is of the earlier life");
    assert_eq!(scene.look(), None, "effects of the earlier life may go on");
    scene.placement.stopped(scene.shard);
    scene.view = view(&[(0, 40, MemberState::Active), (1, 20, MemberState::Active)]);
    assert!(scene.claims(Some(5), Some(MoveReason::Failed)));
    // Another process of this name waits.
    let mut scene = Scene::new();
    scene.life = Some(Epoch(40));
    scene.view = view(&[(0, 40, MemberState::Active), (1, 20, MemberState::Active)]);
    scene.seen(5, scene.row(0, 10));
    assert_eq!(scene.look(), None);
}

/// R11, R22: a shard is given away when the last effect has ended.
#[test]
fn a_shard_is_given_away_behind_its_last_effect() {
    for leaves in [false, true] {
        let mut scene = Scene::active();
        scene.leaves = leaves;
        if !leaves {
            scene.candidates = names(&[1]);
        }
        assert_eq!(scene.look(), Some(Action::Stop(scene.shard)));
        assert_eq!(scene.look(), None);
        assert!(!scene.placement.is_empty(scene.life));
        scene.placement.stopped(scene.shard);
        let reason = if leaves { MoveReason::Leaving } else { MoveReason::Balancing };
        let row = Owner { released: Some(reason), ..scene.row(0, 10) };
        let release = Action::Release { shard: scene.shard, over: Revision::new(5), row: row.clone() };
        assert_eq!(scene.look(), Some(release.clone()));
        // The answer is lost: it is written again.
        scene.placement.failed(scene.now, scene.shard);
        assert_eq!(scene.look(), None);
        scene.now = scene.now.after(RETRY);
        assert_eq!(scene.look(), Some(release));
        scene.seen(6, row);
        assert_eq!((scene.look(), scene.phase()), (None, Phase::Elsewhere));
        assert!(scene.placement.is_empty(scene.life));
    }
}

#[test]
fn a_row_that_another_has_written_ends_all_effects() {
    let mut scene = Scene::active();
    scene.seen(6, scene.row(1, 20));
    assert_eq!(scene.look(), Some(Action::Stop(scene.shard)));
    scene.placement.stopped(scene.shard);
    assert_eq!(scene.look(), None, "there is nothing to give away");
    // So does a bucket that is another, and a life that is over.
    for spoil in [|scene: &mut Scene| scene.placement.reset(), |scene: &mut Scene| scene.life = None] {
        let mut scene = Scene::active();
        spoil(&mut scene);
        assert_eq!(scene.look(), Some(Action::Stop(scene.shard)));
    }
}

/// A lease that is not renewed closes the gate, and moves no shard by itself.
#[test]
fn a_store_that_is_away_moves_no_shard() {
    let mut scene = Scene::active();
    scene.takes = false;
    assert_eq!((scene.look(), scene.phase()), (None, Phase::Active));
}

#[test]
fn a_claim_that_met_a_conflict_is_made_again_later() {
    let mut scene = Scene::waited();
    assert!(scene.claims(None, None));
    scene.placement.failed(scene.now, scene.shard);
    assert_eq!(scene.look(), None);
    scene.now = scene.now.after(RETRY);
    assert!(scene.claims(None, None));
    // A claim that was written and lost its answer comes by the watch, also after that.
    scene.now = scene.now.after(ANSWER);
    scene.seen(5, scene.row(0, 10));
    assert_eq!(scene.look(), Some(Action::Prepare(scene.shard)));
}

#[test]
fn a_row_that_cannot_be_read_is_written_over_after_a_while() {
    let mut scene = Scene::new();
    scene.placement.seen(scene.shard, Held { revision: Revision::new(5), row: None });
    assert_eq!(scene.look(), None);
    scene.now = scene.now.after(FAILOVER);
    assert!(scene.claims(Some(5), Some(MoveReason::Failed)));
    scene.placement.gone(scene.shard, Revision::new(6));
    assert_eq!(
        (scene.placement.owner(scene.shard), scene.phase()),
        (None, Phase::Claiming { over: Some(Revision::new(5)), until: scene.now.after(ANSWER) })
    );
}

/// Something that happens to replicas that share one shard's row.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Look(usize),
    /// The writes of a replica reach the row, or are lost.
    Write(usize, bool),
    /// A replica hears of the row.
    Hear(usize),
    /// All effects of a replica have ended.
    End(usize),
    Leave(usize),
    /// A replica is failed by the view, long after its lease.
    Fail(usize),
    Pass(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let place = 0_usize..3;
    prop_oneof![
        4 => place.clone().prop_map(Happening::Look),
        4 => (place.clone(), prop::bool::weighted(0.8)).prop_map(|(place, arrives)| Happening::Write(place, arrives)),
        4 => place.clone().prop_map(Happening::Hear),
        2 => place.clone().prop_map(Happening::End),
        1 => place.clone().prop_map(Happening::Leave),
        1 => place.prop_map(Happening::Fail),
        2 => (1_u64..6_000).prop_map(Happening::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// R20, R22: whatever happens, at most one replica that was not failed owns a shard.
    #[test]
    fn a_shard_has_one_owner(happenings in prop::collection::vec(happening(), 0..200)) {
        let shard = shard_of(0, &[0, 1, 2]);
        let mut replicas: Vec<_> = (0..3).map(|place| Placement::new(name(place))).collect();
        let mut writes: Vec<Option<(Option<Revision>, Owner)>> = vec![None; 3];
        let (mut row, mut leaving, mut failed) = (None::<Held>, [false; 3], [false; 3]);
        let (mut now, mut revision) = (Moment(0), 1_u64);
        for happening in happenings {
            let mut members = view(&[]);
            let mut candidates = names(&[]);
            for place in 0..3 {
                let state = if failed[place] { MemberState::Failed } else { MemberState::Active };
                members.members.extend(view(&[(place, place as u64 + 10, state)]).members);
                if !failed[place] && !leaving[place] {
                    candidates.insert(name(place));
                }
            }
            match happening {
                Happening::Look(place) => {
                    let life = (!failed[place]).then_some(Epoch(place as u64 + 10));
                    let around = Around {
                        life, takes: !failed[place], leaves: leaving[place], view: &members, candidates: &candidates, failover: FAILOVER,
                    };
                    match replicas[place].step(now, around, shard) {
                        Some(Action::Claim { over, .. }) => {
                            writes[place] = Some((over, Owner::new(name(place), Epoch(place as u64 + 10))));
                        }
                        Some(Action::Release { over, row, .. }) => writes[place] = Some((Some(over), row)),
                        Some(Action::Prepare(_)) => _ = replicas[place].prepared(shard),
                        Some(Action::Stop(_)) | None => {}
                    }
                }
                Happening::Write(place, arrives) => {
                    let Some((over, owner)) = writes[place].take() else { continue };
                    if arrives && row.as_ref().map(|row| row.revision) == over {
                        revision += 1;
                        row = Some(Held { revision: Revision::new(revision), row: Some(owner) });
                    } else {
                        replicas[place].failed(now, shard);
                    }
                }
                Happening::Hear(place) => row.iter().for_each(|row| replicas[place].seen(shard, row.clone())),
                Happening::End(place) => replicas[place].stopped(shard),
                Happening::Leave(place) => leaving[place] = true,
                Happening::Fail(place) => failed[place] = true,
                Happening::Pass(millis) => now = now.after(millis),
            }
            let active = (0..3).filter(|place| {
                !failed[*place] && matches!(replicas[*place].phase(shard), Phase::Active | Phase::Stopping)
            });
            prop_assert!(active.count() <= 1, "{row:?}");
        }
    }
}
