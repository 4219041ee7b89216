//! A random world of several replicas over one store: crashes, restarts, pauses, partitions, lost
//! and late answers, a bucket that is recreated, clocks that differ and drift. Each replica runs
//! the cores of production, and the store holds the payloads as bytes.
//!
//! After each step the gates of all replicas are asked: one leader at most, whatever the
//! epoch. At the end all is calm, and all replicas must agree.

mod checks;
mod replica;
mod store;
mod watch;

use std::collections::BTreeMap;

use self::{
    replica::{Replica, Request},
    store::Store,
};

/// Runs of the test; each is another seed.
const SEEDS: u64 = 60;
const REPLICAS: usize = 3;
/// Steps of a run before it calms down.
const TROUBLES: usize = 1200;
/// Milliseconds of calm at the end.
const CALM: u64 = 60_000;

/// A request on its way to the store.
struct UnderWay {
    /// When the store gets the request; none: never.
    arrives: Option<u64>,
    /// When the replica gets an answer, and whether the answer is lost by then.
    answered: u64,
    is_lost: bool,
    replica: usize,
    process: u64,
    request: Request,
    answer: Option<replica::Answer>,
}

struct World {
    rng: fastrand::Rng,
    seed: u64,
    /// True time, in milliseconds.
    now: u64,
    store: Store,
    replicas: Vec<Replica>,
    under_way: Vec<UnderWay>,
    processes: u64,
    is_calm: bool,
    /// The newest term of an effect, in each incarnation.
    terms: BTreeMap<u64, u64>,
    trace: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let store = Store::new(1);
        let replicas = (0..REPLICAS).map(|at| Replica::new(at, &mut rng)).collect();
        Self {
            rng,
            seed,
            now: 1_000_000,
            store,
            replicas,
            under_way: Vec::new(),
            processes: 0,
            is_calm: false,
            terms: BTreeMap::new(),
            trace: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        !self.is_calm && self.rng.u32(..1000) < per_mille
    }

    fn note(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn step(&mut self) {
        self.now += self.rng.u64(5..120);
        self.trouble();
        self.arrive();
        for at in 0..self.replicas.len() {
            if !self.replicas[at].runs(self.now) {
                continue;
            }
            self.answer(at);
            self.watch(at);
            self.tick(at);
            self.check_gates();
        }
        self.check_gates();
    }

    /// Troubles begin and end.
    fn trouble(&mut self) {
        for at in 0..self.replicas.len() {
            match self.replicas[at].starts_at {
                Some(start) if start <= self.now => self.start(at),
                Some(_) => continue,
                None => {}
            }
            if self.chance(4) {
                self.trace.push(format!("{} {at} crashes", self.now));
                let delay = self.rng.u64(100..9000);
                self.replicas[at].crash(self.now + delay);
                self.note("crash");
            } else if self.chance(6) {
                self.trace.push(format!("{} {at} pauses", self.now));
                self.replicas[at].paused_until = self.now + self.rng.u64(500..12_000);
                self.note("pause");
            } else if self.chance(6) {
                self.trace.push(format!("{} {at} is cut off", self.now));
                self.replicas[at].cut_until = self.now + self.rng.u64(500..15_000);
                self.note("cut");
            } else if self.chance(3) {
                self.trace.push(format!("{} {at} is asked to stop", self.now));
                self.stop(at);
                self.note("stop");
            }
        }
        if self.chance(1) {
            self.trace.push(format!("{} the bucket is recreated", self.now));
            self.store = Store::new(self.store.incarnation + 1);
            self.note("recreate");
        }
    }

    /// Requests come to the store.
    fn arrive(&mut self) {
        let now = self.now;
        self.under_way.sort_by_key(|request| request.arrives);
        for at in 0..self.under_way.len() {
            let under_way = &mut self.under_way[at];
            if under_way.arrives.is_some_and(|arrives| arrives <= now) {
                under_way.arrives = None;
                under_way.answer = Some(under_way.request.perform(&mut self.store));
            }
        }
        // A request that is answered and will never come to the store is over.
        let alive: Vec<_> = self.replicas.iter().map(|replica| replica.process).collect();
        self.under_way.retain(|under_way| under_way.arrives.is_some() || alive[under_way.replica] == under_way.process);
    }

    /// Sends a request of a replica.
    fn send(&mut self, at: usize, request: Request) {
        let is_cut = self.replicas[at].cut_until > self.now;
        let quick = self.now + self.rng.u64(1..40);
        let (mut arrives, mut answered, mut is_lost) = (Some(quick), quick + self.rng.u64(1..40), false);
        if is_cut {
            is_lost = true;
            answered = self.now + 900;
            // Sent when the connection is there again, or never.
            let heals = self.replicas[at].cut_until + self.rng.u64(0..200);
            arrives = self.rng.bool().then_some(heals);
        } else if self.chance(30) {
            (answered, is_lost) = (self.now + 900, true);
            self.note("lost answer");
        } else if self.chance(20) {
            (arrives, answered, is_lost) = (Some(self.now + self.rng.u64(900..9000)), self.now + 900, true);
            self.note("late request");
        } else if self.chance(30) {
            let slow = self.now + self.rng.u64(100..3500);
            (arrives, answered) = (Some(slow), slow + self.rng.u64(1..2500));
        }
        let process = self.replicas[at].process;
        let under_way = UnderWay { arrives, answered, is_lost, replica: at, process, request, answer: None };
        self.under_way.push(under_way);
    }

    /// Hands a replica the answers that have come.
    fn answer(&mut self, at: usize) {
        let process = self.replicas[at].process;
        let mut ready = Vec::new();
        let now = self.now;
        for under_way in &mut self.under_way {
            let is_his = under_way.replica == at && under_way.process == process;
            if is_his && under_way.answered <= now && (under_way.answer.is_some() || under_way.is_lost) {
                let answer = under_way.answer.take().filter(|_| !under_way.is_lost);
                ready.push((under_way.answered, under_way.request.clone(), answer));
                // Answered; the request itself may still be on its way.
                under_way.answered = u64::MAX;
            }
        }
        self.under_way.retain(|under_way| under_way.answered != u64::MAX || under_way.arrives.is_some());
        ready.sort_by_key(|(answered, ..)| *answered);
        for (_, request, answer) in ready {
            self.hand(at, request, answer);
        }
    }

    fn run(mut self) -> Vec<String> {
        for at in 0..self.replicas.len() {
            self.replicas[at].starts_at = Some(self.now + self.rng.u64(0..3000));
        }
        for _ in 0..TROUBLES {
            self.step();
        }
        self.is_calm = true;
        for replica in &mut self.replicas {
            replica.paused_until = replica.paused_until.min(self.now);
            replica.cut_until = replica.cut_until.min(self.now);
        }
        self.trace.push(format!("{} calm", self.now));
        let end = self.now + CALM;
        while self.now < end {
            self.step();
        }
        self.check_agreement();
        self.trace.push(format!("{:?}", self.counts));
        self.trace
    }
}

fn seeds() -> u64 {
    std::env::var("WORLD_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

/// A6, A7, A13, A24, A28, A40, R1, R4, R5, R13, R28.
#[test]
fn a_random_world_has_one_leader_and_ends_in_agreement() {
    for seed in 0..seeds() {
        World::new(seed).run();
    }
}

/// R25.
#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..3 {
        let (one, other) = (World::new(seed).run(), World::new(seed).run());
        assert!(one.len() > 50, "the world stands still");
        assert_eq!(one, other);
    }
}
