//! The rules that hold in every moment, held against the replicas' own state.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::FutureExt;
use steadfast::{
    cluster::{Fleet as Verdicts, Snapshot, store::Prefix, store::Store},
    domain::fleet::{Incarnation, Lease, MemberState, View, decode},
};
use tokio::time::Instant;

use super::{
    Fleet, MACHINES,
    clients::{Called, Door, Outcome, block_number},
    machine::Life,
    script::LATEST,
};

/// The time that news of a height has to the other replicas.
const NEWS: Duration = Duration::from_millis(100);
/// The longest that a call takes where its replica and nodes are well.
const CALL_LIMIT: Duration = Duration::from_secs(6);
/// Between two calls of clients.
const PACE: Duration = Duration::from_millis(50);

/// What was seen so far.
pub struct Knowledge {
    /// The leader of each term: machine and life.
    terms: BTreeMap<u64, (usize, u64)>,
    /// The bucket in which each term began, and the newest term of each bucket that led.
    buckets: BTreeMap<u64, u64>,
    newest: BTreeMap<u64, u64>,
    views: BTreeMap<u64, Arc<View>>,
    /// The number of the view that the store has.
    stored_view: Option<u64>,
    leader: Option<(usize, u64)>,
    /// Since when all agree on this leader.
    pub agreed: Option<(Instant, (usize, u64))>,
    /// Since when each replica takes part, in its own words.
    well_since: [Option<Instant>; MACHINES],
    store_away_until: [Instant; MACHINES],
    nodes_away_until: [Instant; MACHINES],
    /// Heights that clients were shown, and that are no news at the others yet.
    shown: Vec<(Door, Instant, u64)>,
    /// The height that all must know.
    floor: u64,
    pub counts: BTreeMap<&'static str, u64>,
    /// What came of each call.
    pub calls: Vec<String>,
}

impl Knowledge {
    pub fn new(start: Instant) -> Self {
        Self {
            terms: BTreeMap::new(),
            buckets: BTreeMap::new(),
            newest: BTreeMap::new(),
            views: BTreeMap::new(),
            stored_view: None,
            leader: None,
            agreed: None,
            well_since: [None; MACHINES],
            store_away_until: [start; MACHINES],
            nodes_away_until: [start; MACHINES],
            shown: Vec::new(),
            floor: 0,
            counts: BTreeMap::new(),
            calls: Vec::new(),
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub fn store_is_away(&mut self, place: usize, lasts: Duration) {
        let until = &mut self.store_away_until[place];
        *until = (*until).max(Instant::now() + lasts);
    }

    /// The nodes that a machine needs are away, or those that all need.
    pub fn nodes_are_away(&mut self, place: Option<usize>, lasts: Duration) {
        for at in (0..MACHINES).filter(|at| place.is_none_or(|place| place == *at)) {
            self.nodes_away_until[at] = self.nodes_away_until[at].max(Instant::now() + lasts);
        }
    }

    /// The bucket was made anew, and is seen by all after this time.
    pub fn bucket_is_new(&mut self, seen: Duration) {
        (0..MACHINES).for_each(|place| self.store_is_away(place, seen));
        // A replica that is gone told its heights to the old one.
        self.floor = 0;
        self.shown.clear();
    }
}

impl Fleet {
    /// Holds all rules against the state of this moment.
    pub(super) fn check(&mut self) {
        self.look_at_the_store();
        let mut leaders = Vec::new();
        for place in 0..MACHINES {
            let Some(life) = &self.machines[place].life else {
                self.knowledge.well_since[place] = None;
                continue;
            };
            let (switch, snapshot) = (&self.machines[place].switch, life.cluster.snapshot());
            let is_frozen = switch.is_frozen();
            let now = switch.now();
            let lease = snapshot.lease.filter(|(_, until)| now < *until).map(|(term, _)| term);
            if !is_frozen && life.cluster.leads() != lease {
                self.trace.fail(&format!(
                    "r{place} says {:?}, its lease is {:?}",
                    life.cluster.leads(),
                    snapshot.lease
                ));
            }
            if life.app.is_some() && life.cluster.heights().has_changed().is_err() {
                self.trace.fail(&format!("the task of the cluster at r{place} has failed"));
            }
            if let Some(term) = lease {
                leaders.push((place, life.number, term.0));
            }
            if let Some(wrong) = wrong_counts(&snapshot) {
                self.trace.fail(&format!("r{place} counts {wrong}"));
            }
            let is_well = !is_frozen
                && life.app.is_some()
                && snapshot.state == Some(MemberState::Active)
                && snapshot.fault.is_none()
                && Instant::now() >= self.knowledge.store_away_until[place];
            let since = &mut self.knowledge.well_since[place];
            *since = if is_well { since.or_else(|| Some(Instant::now())) } else { None };
            self.look_at_the_view(place, &snapshot);
        }
        self.look_at_leaders(&leaders);
        let leader = self.leader().filter(|_| self.agrees());
        let before = self.knowledge.agreed.filter(|(_, of)| Some(*of) == leader);
        self.knowledge.agreed = before.or_else(|| Some((Instant::now(), leader?)));
        self.spread_heights();
    }

    /// Which bucket gave which term, and which view it has.
    fn look_at_the_store(&mut self) {
        let Some(Ok(listing)) = self.observer.list(&Prefix::ALL).now_or_never() else {
            return self.trace.fail("the observer does not see the store");
        };
        let bucket = listing.incarnation.created().as_nanos();
        let view = listing.entries.iter().find(|entry| entry.key.as_str() == "view");
        self.knowledge.stored_view = view.map(|entry| entry.revision.get());
        let Some(entry) = listing.entries.iter().find(|entry| entry.key.as_str() == "leader") else { return };
        if let Ok(lease) = decode::<Lease>("leader", &entry.value, Incarnation(bucket)) {
            let term = lease.term_at(steadfast::domain::fleet::StoreRevision(entry.revision.get()));
            self.knowledge.buckets.insert(term.0, bucket);
        }
    }

    /// One leader at most, one life of one replica for each term, and terms that only grow in one
    /// bucket.
    fn look_at_leaders(&mut self, leaders: &[(usize, u64, u64)]) {
        if leaders.len() > 1 {
            self.trace.fail(&format!("two leaders: (machine, life, term) {leaders:?}"));
        }
        let leader = leaders.first().map(|(place, _, term)| (*place, *term));
        if leader != self.knowledge.leader {
            self.trace.note(format!("the leader, and its term: {leader:?}"));
            self.knowledge.leader = leader;
            if leader.is_some() {
                self.knowledge.count("leader");
            }
        }
        let Some(&(place, life, term)) = leaders.first() else { return };
        let knowledge = &mut self.knowledge;
        let holder = *knowledge.terms.entry(term).or_insert((place, life));
        if holder != (place, life) {
            self.trace.fail(&format!("term {term} had {holder:?}, and has r{place} in its life {life}"));
        }
        if let Some(bucket) = knowledge.buckets.get(&term) {
            let newest = knowledge.newest.entry(*bucket).or_default();
            if term < *newest {
                self.trace.fail(&format!("term {term} after {newest} in one bucket"));
            }
            *newest = term;
        }
    }

    /// Views of one number have the same members.
    fn look_at_the_view(&mut self, place: usize, snapshot: &Snapshot) {
        let Some((number, view)) = &snapshot.view else { return };
        let (trace, count) = (&self.trace, &mut self.knowledge.counts);
        let known = self.knowledge.views.entry(number.0).or_insert_with(|| {
            let members = view.members.iter().map(|(name, member)| format!("{name} {}", member.state));
            trace.note(format!("view {number}: {}", members.collect::<Vec<_>>().join(", ")));
            *count.entry("view").or_default() += 1;
            view.clone()
        });
        if !Arc::ptr_eq(known, view) && known != view {
            self.trace.fail(&format!("r{place} has another view {number}: {view:?}, {known:?}"));
        }
    }

    /// Heights become news that binds all, once they had the time for that.
    fn spread_heights(&mut self) {
        self.knowledge.shown.append(&mut self.heard.lock().unwrap().heads);
        let shown = std::mem::take(&mut self.knowledge.shown);
        for (door, at, height) in shown {
            let is_told = self.is_running(door) && self.is_ready(door.place, at);
            if is_told && at.elapsed() < NEWS {
                self.knowledge.shown.push((door, at, height));
            } else if is_told {
                self.knowledge.floor = self.knowledge.floor.max(height);
            }
        }
        for (door, at, why) in std::mem::take(&mut self.heard.lock().unwrap().lost) {
            let life = self.machines[door.place].running();
            let is_to_blame = life.is_some_and(|life| life.number == door.life && !life.was_frozen);
            if is_to_blame && self.knowledge.nodes_away_until[door.place] < at {
                self.trace.fail(&format!("r{} ended a subscription: {why}", door.place));
            }
        }
    }

    fn is_running(&self, door: Door) -> bool {
        self.machines[door.place].running().is_some_and(|life| life.number == door.life)
    }

    /// Whether the replica has taken part for so long at that moment, and ever since, that it
    /// has heard all that the others told, and they have heard the replica.
    fn is_ready(&self, place: usize, at: Instant) -> bool {
        let since = self.knowledge.well_since[place];
        since.is_some_and(|since| since + 3 * self.times.heartbeat <= at)
    }

    /// Whether the machine's nodes are good ones since that moment.
    fn has_nodes(&self, place: usize, at: Instant) -> bool {
        self.knowledge.nodes_away_until[place] <= at && !self.machines[place].switch.is_cut()
    }

    /// A client asks one of the replicas.
    pub(super) fn ask(&mut self) {
        let now = Instant::now();
        if now < self.next_call {
            return;
        }
        self.next_call = now + PACE;
        let doors: Vec<Door> = self.doors.lock().unwrap().iter().flatten().copied().collect();
        if doors.is_empty() {
            return;
        }
        let door = doors[self.rng.usize(..doors.len())];
        let is_bound = self.is_ready(door.place, now) && self.has_nodes(door.place, now);
        let floor = is_bound.then_some(self.knowledge.floor);
        self.count += 1;
        let (net, id) = (self.net.clone(), self.count);
        self.calls.spawn(async move {
            let outcome = block_number(net, door, id).await;
            Called { door, asked: now, answered: Instant::now(), floor, outcome }
        });
    }

    pub(super) fn judge(&mut self, called: Called) {
        let Called { door, asked, answered, floor, outcome } = called;
        let place = door.place;
        self.knowledge.calls.push(format!("{:?} r{place} {:?} {outcome:?}", asked - self.start, answered - asked));
        let is_running = self.is_running(door);
        let is_well = is_running && self.is_ready(place, asked) && self.has_nodes(place, asked);
        if is_well && answered - asked > CALL_LIMIT {
            self.trace.fail(&format!("a call at r{place} took {:?}: {outcome:?}", answered - asked));
        }
        match outcome {
            Outcome::Height(height) => {
                self.knowledge.count("height");
                if let Some(floor) = floor.filter(|_| is_well) {
                    self.knowledge.count("bound height");
                    if height < floor {
                        let asked = asked.elapsed();
                        self.trace.fail(&format!(
                            "r{place} shows {height} after {floor}, asked {asked:?} ago: {}",
                            self.told()
                        ));
                    }
                }
                self.knowledge.shown.push((door, answered, height));
            }
            Outcome::Error(why) => {
                self.knowledge.count("error");
                if is_well {
                    self.trace.fail(&format!("r{place} refuses a call: {why}"));
                }
            }
            Outcome::Broken(why) => {
                self.knowledge.count("broken call");
                let life = self.machines[place].running().filter(|life| life.number == door.life);
                if life.is_some_and(|life| !life.was_frozen) {
                    self.trace.fail(&format!("r{place} answers a call not once: {why}"));
                }
            }
        }
    }

    /// The machine that leads, and its term.
    pub(super) fn leader(&self) -> Option<(usize, u64)> {
        self.knowledge.leader
    }

    /// Whether all replicas run, are members of the one view that the store has, and one leads.
    pub(super) fn agrees(&self) -> bool {
        let lives: Vec<&Life> = self.machines.iter().filter_map(|machine| machine.running()).collect();
        let snapshots: Vec<_> = lives.iter().map(|life| life.cluster.snapshot()).collect();
        let first = snapshots.first().and_then(|snapshot| snapshot.view.clone());
        let is_member = |snapshot: &Snapshot| {
            let (number, view) = first.as_ref()?;
            let own = snapshot.view.as_ref().filter(|(own, _)| own == number).map(|(_, own)| own)?;
            let state = view.state_of(&snapshot.replica, snapshot.epoch?)?;
            (own == view && state == MemberState::Active).then_some(())
        };
        let is_full = first.as_ref().is_some_and(|(number, view)| {
            view.members.len() == MACHINES && Some(number.0) == self.knowledge.stored_view
        });
        snapshots.len() == MACHINES
            && is_full
            && snapshots.iter().all(|snapshot| is_member(snapshot).is_some())
            && self.leader().is_some_and(|(leader, _)| self.preferred.is_none_or(|preferred| leader == preferred))
    }

    /// Whether they agree for so long, since all is calm, that no lease, hook or late write from
    /// before can change anything any more.
    pub(super) fn is_settled(&self) -> bool {
        self.calm_since.is_some_and(|since| since.elapsed() > LATEST)
            && self.knowledge.agreed.is_some_and(|(since, _)| since.elapsed() > self.settling())
    }

    pub(super) fn settling(&self) -> Duration {
        self.times.lease + self.times.hook + self.times.heartbeat
    }

    /// Whether the subscriber knows the newest head.
    pub(super) fn is_told_all(&self) -> bool {
        self.heard.lock().unwrap().newest == Some(self.devnet.chain().head().number)
    }

    /// The replicas in words.
    pub(super) fn told(&self) -> String {
        let of = |(place, machine): (usize, &super::Machine)| match &machine.life {
            None => format!("r{place} is down"),
            Some(life) => {
                let snapshot = life.cluster.snapshot();
                format!(
                    "r{place} {:?} {:?} epoch {:?} view {:?} lease {:?} fault {:?}\n{}",
                    snapshot.state,
                    snapshot.role,
                    snapshot.epoch,
                    snapshot.view,
                    snapshot.lease,
                    snapshot.fault,
                    heard(&snapshot)
                )
            }
        };
        self.machines.iter().enumerate().map(of).collect::<Vec<_>>().join("\n")
    }
}

/// The heartbeats that a replica knows, in words.
fn heard(snapshot: &Snapshot) -> String {
    let of = |peer: &steadfast::cluster::Peer| {
        let beat = &peer.heartbeat;
        let verdicts = beat.verdicts.iter().map(|of| format!("{} {}", of.node.node, of.verdict.as_str()));
        let (heads, serving) = (&beat.heads, &beat.serving);
        let verdicts = verdicts.collect::<Vec<_>>().join(", ");
        format!("  {} seen {:?}: {heads:?} {serving:?} {verdicts}\n", peer.name, peer.seen)
    };
    snapshot.peers.iter().map(of).collect()
}

/// The verdicts of all replicas equal a recount of their changes. Told, if not.
fn wrong_counts(snapshot: &Snapshot) -> Option<String> {
    let fleet: &Verdicts = &snapshot.fleet;
    let mut recount = BTreeMap::new();
    let mut is_whole = true;
    for change in fleet.changes() {
        let key = (change.node.clone(), change.replica.clone());
        let before = match &change.to {
            Some(to) => recount.insert(key, to.clone()),
            None => recount.remove(&key),
        };
        // With the oldest changes gone, a recount begins in the middle.
        is_whole &= before == change.from;
    }
    let counted = fleet.verdicts().iter().flat_map(|(node, seen)| {
        seen.iter().map(|(replica, seen)| ((node.clone(), replica.clone()), seen.verdict.clone()))
    });
    let counted: BTreeMap<_, _> = counted.collect();
    let is_right = fleet.changes().count() >= KEPT_CHANGES || (is_whole && counted == recount);
    (!is_right).then(|| format!("{counted:?}, and its changes come to {recount:?}"))
}

/// The changes that a replica keeps.
const KEPT_CHANGES: usize = 256;
