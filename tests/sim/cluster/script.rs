//! What goes wrong, drawn from the seed, and when it is over.

use std::time::Duration;

use steadfast::{
    cluster::store::memory::{Chances, Fault},
    devnet,
    domain::fleet::Role,
};
use tokio::time::Instant;

use super::{Fleet, MACHINES, NODES, RELIST, TROUBLE};

/// The end of a trouble.
#[derive(Clone, Copy, Debug)]
pub enum Undo {
    /// A process goes on.
    Thaw(usize),
    /// A replica reaches the store.
    HealStore(usize),
    /// The way to the store is a good one.
    CalmStore(usize),
    /// A machine reaches all nodes.
    HealNodes(usize),
    /// A node is well.
    MendNode(usize),
    /// A process starts.
    Start(usize),
}

/// The faults of nodes that come and go.
const SWITCHED: [&str; 2] = ["down", "freeze"];
/// The longest time that a process stands still, or is cut off.
const LONGEST: u64 = 15_000;
/// The longest time that a write is under way.
pub const LATEST: Duration = Duration::from_secs(10);
/// How long a process runs at least until it stands still again between two steps.
const AWAKE: Duration = Duration::from_secs(1);
/// How long a node may stand still so that all replicas believe the other node: `max_lag_blocks`
/// blocks, less one by which nodes differ anyway. From then on the head rule doubts the height of
/// either, and a replica takes over no height of others that its own rule doubts.
const BELIEVED: Duration = Duration::from_secs(8);
/// How long a node that was away may be left aside.
const NODES_REST: Duration = Duration::from_secs(15);

impl Fleet {
    /// Things go wrong for a while.
    pub(super) async fn trouble(&mut self) {
        self.effects.set_calm(false);
        let end = Instant::now() + TROUBLE;
        while Instant::now() < end {
            let next = Instant::now() + Duration::from_millis(self.rng.u64(100..4_000));
            while Instant::now() < next {
                self.step().await;
                self.freeze_in_between();
            }
            self.disturb().await;
        }
    }

    /// A machine: most times that of the leader.
    fn victim(&mut self) -> usize {
        let drawn = self.rng.usize(..MACHINES);
        self.leader().filter(|_| self.rng.bool()).map_or(drawn, |(place, _)| place)
    }

    async fn disturb(&mut self) {
        let (place, drawn) = (self.victim(), self.rng.u8(..30));
        let name = format!("r{place}");
        let lasts = Duration::from_millis(self.rng.u64(200..LONGEST));
        let is_running = self.machines[place].running().is_some();
        match drawn {
            0..=3 if is_running => {
                self.happens("kill", &name, Duration::ZERO);
                self.kill(place).await;
                self.start_later(place);
            }
            4..=5 if is_running && !self.machines[place].switch.is_frozen() => {
                self.happens("stop", &name, Duration::ZERO);
                self.stop(place);
            }
            6..=11 if self.machines[place].life.is_some() && !self.machines[place].switch.is_frozen() => {
                self.happens("freeze", &name, lasts);
                self.freeze(place, lasts);
            }
            12..=14 => {
                self.happens("cut from store", &name, lasts);
                self.store.cut(&name);
                self.knowledge.store_is_away(place, lasts);
                self.undo_after(lasts, Undo::HealStore(place));
            }
            15 => {
                self.happens("refused by store", &name, lasts);
                self.store.refuse(&name);
                self.knowledge.store_is_away(place, lasts);
                self.undo_after(lasts, Undo::HealStore(place));
            }
            16..=19 => {
                let count = self.rng.u8(1..5);
                self.happens("lost answers", &name, Duration::ZERO);
                for _ in 0..count {
                    let fault = self.write_fault();
                    self.store.inject(&name, fault);
                }
                self.knowledge.store_is_away(place, RELIST);
            }
            20..=21 => {
                self.happens("bad way to store", &name, lasts);
                let chances = Chances {
                    applied_ambiguous: 0.1,
                    lost_ambiguous: 0.1,
                    late_ambiguous: 0.1,
                    unavailable: 0.1,
                    lost_message: 0.1,
                    late: LATEST,
                    delay: Duration::from_millis(self.rng.u64(10..1_000)),
                };
                self.store.set_chances(&name, chances);
                self.knowledge.store_is_away(place, lasts);
                self.undo_after(lasts, Undo::CalmStore(place));
            }
            22 => {
                self.happens("lost messages", &name, Duration::ZERO);
                self.store.lose_messages(&name, self.rng.u32(1..8));
                self.knowledge.store_is_away(place, RELIST);
            }
            23 => {
                self.happens("bucket made anew", "", Duration::ZERO);
                self.store.recreate();
                self.knowledge.bucket_is_new(RELIST + self.times.failover);
            }
            24..=26 => {
                let cut = self.rng.usize(1..=NODES);
                self.happens("cut from nodes", &name, lasts);
                let first = self.rng.usize(..NODES);
                for at in 0..cut {
                    let port = self.devnet.el((first + at) % NODES).addr().port();
                    self.machines[place].switch.cut(port);
                }
                self.knowledge.nodes_are_away(Some(place), lasts + NODES_REST);
                self.undo_after(lasts, Undo::HealNodes(place));
            }
            27..=29 => {
                let node = self.rng.usize(..NODES);
                let name = self.devnet.el(node).name().to_owned();
                if drawn == 27 {
                    self.happens("node down", &name, lasts);
                    self.devnet.el(node).set_fault(devnet::Fault::Down);
                    self.knowledge.nodes_are_away(None, lasts + NODES_REST);
                } else {
                    // Behind, and further each block, but never back.
                    self.happens("node stands still", &name, lasts);
                    if lasts >= BELIEVED {
                        self.knowledge.nodes_are_away(None, lasts + NODES_REST);
                    }
                    self.devnet.el(node).set_fault(devnet::Fault::Freeze);
                }
                self.undo_after(lasts, Undo::MendNode(node));
            }
            _ => {}
        }
    }

    fn freeze(&mut self, place: usize, lasts: Duration) {
        if let Some(life) = &mut self.machines[place].life {
            life.was_frozen = true;
        }
        self.machines[place].switch.freeze();
        // Timers of the rest of the proxy go on, and find the nodes silent.
        self.knowledge.nodes_are_away(Some(place), lasts + NODES_REST);
        self.effects.stands_still(place);
        self.undo_after(lasts, Undo::Thaw(place));
    }

    /// A process stands still between two steps of the election, which are over in a moment.
    fn freeze_in_between(&mut self) {
        for place in 0..MACHINES {
            let Some(life) = &self.machines[place].life else { continue };
            let is_between = matches!(life.cluster.snapshot().role, Role::Candidate | Role::Yielding);
            if is_between && self.machines[place].switch.is_awake_for(AWAKE) && self.rng.u8(..8) == 0 {
                // Others take over before or after the process wakes.
                let lasts = self.times.failover.mul_f64(2.0 * self.rng.f64());
                self.happens("freeze in between", &format!("r{place}"), lasts);
                self.freeze(place, lasts);
            }
        }
    }

    fn write_fault(&mut self) -> Fault {
        let mut millis = |most: u64| Duration::from_millis(self.rng.u64(..most));
        let (one, other, late) = (millis(3_000), millis(3_000), millis(LATEST.as_millis() as u64));
        match self.rng.u8(..5) {
            0 => Fault::AppliedAmbiguous,
            1 => Fault::LostAmbiguous,
            2 => Fault::LateAmbiguous(late),
            3 => Fault::Unavailable,
            _ => Fault::Delay(one, other),
        }
    }

    fn happens(&mut self, what: &'static str, whom: &str, lasts: Duration) {
        self.trace.note(format!("{what} {whom} {lasts:?}"));
        self.knowledge.count(what);
    }

    fn undo_after(&mut self, lasts: Duration, undo: Undo) {
        self.count += 1;
        self.undo.insert((Instant::now() + lasts, self.count), undo);
    }

    /// A process starts again after a while.
    pub(super) fn start_later(&mut self, place: usize) {
        let longest = if self.calm_since.is_some() { 1_000 } else { LONGEST };
        let after = Duration::from_millis(self.rng.u64(50..longest));
        self.undo_after(after, Undo::Start(place));
    }

    pub(super) fn undo_what_is_due(&mut self) {
        while let Some(due) = self.undo.first_entry().filter(|due| due.key().0 <= Instant::now()) {
            let undo = due.remove();
            self.undo(undo);
        }
    }

    fn undo(&mut self, undo: Undo) {
        self.trace.note(format!("{undo:?}"));
        match undo {
            Undo::Thaw(place) => {
                self.machines[place].switch.thaw();
                // The gate is asked before any task of the process has run.
                self.check();
            }
            Undo::HealStore(place) => self.store.heal(&format!("r{place}")),
            Undo::CalmStore(place) => self.store.set_chances(&format!("r{place}"), self.usual_chances()),
            Undo::HealNodes(place) => self.machines[place].switch.heal(),
            Undo::MendNode(node) => SWITCHED.iter().for_each(|fault| self.devnet.el(node).clear_fault(fault)),
            Undo::Start(place) => {
                if self.machines[place].life.is_none() && !self.machines[place].is_starting {
                    self.launch(place);
                }
            }
        }
    }

    /// Ends all troubles at once.
    pub(super) async fn calm_down(&mut self) {
        self.trace.note("calm".to_owned());
        self.calm_since = Some(Instant::now());
        self.effects.set_calm(true);
        self.undo.clear();
        for place in 0..MACHINES {
            let ends = [Undo::Thaw(place), Undo::HealStore(place), Undo::CalmStore(place), Undo::HealNodes(place)];
            ends.into_iter().for_each(|end| self.undo(end));
            self.undo(Undo::Start(place));
            self.store.spare(&format!("r{place}"));
        }
        (0..NODES).for_each(|node| self.undo(Undo::MendNode(node)));
        self.knowledge.agreed = None;
    }

    /// The longest time from the end of all troubles until all agree on one leader for long: the
    /// last late write arrives; a new bucket is seen; a replica whose hook failed lets others lead;
    /// a lease is waited for; a preferred replica is heard again; and the hooks run.
    pub(super) fn recovery(&self) -> Duration {
        let waits = 4 * self.times.failover + self.times.lease + 8 * self.times.heartbeat;
        LATEST + RELIST + waits + 3 * self.times.hook + self.settling()
    }
}
