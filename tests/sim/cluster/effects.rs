//! The hooks of all replicas: the effects that only a leader may have, and their rules.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use http::{HeaderMap, StatusCode};
use serde_json::Value;
use steadfast::{
    cluster::Cluster,
    net::{
        BoxFuture,
        post::{Answer, Post, PostError},
    },
};
use tokio::time::sleep;

use super::{Trace, machine::Switch};

/// The hooks of one run.
pub struct Effects {
    state: Mutex<State>,
    trace: Trace,
    /// The time that a hook has.
    limit: Duration,
}

struct State {
    rng: Rng,
    /// Hooks neither fail nor hang.
    is_calm: bool,
    /// The machine that ran a hook of a term, by event and term.
    done: BTreeMap<(String, u64), usize>,
    machines: Vec<Standing>,
    counts: BTreeMap<&'static str, u64>,
}

impl State {
    /// Why a hook must not begin.
    fn wrong(&mut self, (place, life): (usize, u64), event: &str, term: u64) -> Option<String> {
        let own = &self.machines[place];
        if own.life != life {
            return Some("the process is dead".to_owned());
        }
        if let Some(other) = &own.runs {
            return Some(format!("{other:?} runs yet"));
        }
        if let Some(other) = own.leads.filter(|leads| *leads != term) {
            return Some(format!("term {other} was not fenced"));
        }
        if let Some(other) = self.done.insert((event.to_owned(), term), place).filter(|other| *other != place) {
            return Some(format!("r{other} has run it"));
        }
        if event != "lead" {
            return None;
        }
        if self.done.contains_key(&("fence".to_owned(), term)) {
            return Some("it was fenced".to_owned());
        }
        let others = self.machines.iter().enumerate().filter(|(other, _)| *other != place);
        let mut unfenced = others.filter(|(_, of)| !of.is_excused && (of.leads.is_some() || of.runs.is_some()));
        unfenced.next().map(|(other, of)| format!("r{other} is not fenced: {:?}, {:?}", of.leads, of.runs))
    }
}

/// The effects on one machine.
#[derive(Default)]
struct Standing {
    life: u64,
    /// The term whose `on_lead` has begun, until its `on_fence` has ended.
    leads: Option<u64>,
    /// A hook runs.
    runs: Option<(String, u64)>,
    /// The process stood still, or could not fence: the rest of the world goes on without it.
    is_excused: bool,
    /// Promotions in a row that failed.
    failures: u32,
}

impl Effects {
    pub fn new(seed: u64, machines: usize, limit: Duration, trace: Trace) -> Self {
        let machines = (0..machines).map(|_| Standing::default()).collect();
        let rng = Rng::with_seed(seed ^ 0x0400_c5ed);
        let (done, counts) = (BTreeMap::new(), BTreeMap::new());
        Self { state: Mutex::new(State { rng, is_calm: true, done, machines, counts }), trace, limit }
    }

    /// A process begins on a machine: an address that the one before had has fallen with it.
    pub fn begins(&self, place: usize, life: u64) {
        self.state.lock().unwrap().machines[place] = Standing { life, ..Standing::default() };
    }

    /// The process of a machine is dead.
    pub fn dies(&self, place: usize) {
        self.begins(place, 0);
    }

    /// The process of a machine stands still.
    pub fn stands_still(&self, place: usize) {
        let standing = &mut self.state.lock().unwrap().machines[place];
        standing.is_excused |= standing.leads.is_some() || standing.runs.is_some();
    }

    /// Hooks fail and hang now and then, or no more.
    pub fn set_calm(&self, is_calm: bool) {
        self.state.lock().unwrap().is_calm = is_calm;
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().unwrap().counts.clone()
    }

    /// After the end of all processes no address is left anywhere.
    pub fn check_that_all_are_fenced(&self) {
        for (place, machine) in self.state.lock().unwrap().machines.iter().enumerate() {
            if machine.leads.is_some() || machine.runs.is_some() {
                self.trace.fail(&format!("r{place} ended unfenced: {:?} {:?}", machine.leads, machine.runs));
            }
        }
    }

    /// A hook begins. Returns how long it takes, and whether it succeeds.
    fn begin(&self, (place, life): (usize, u64), event: &str, term: u64) -> (Duration, bool) {
        self.trace.note(format!("r{place} begins on_{event} of term {term}"));
        let state = &mut *self.state.lock().unwrap();
        if let Some(wrong) = state.wrong((place, life), event, term) {
            self.trace.fail(&format!("r{place}, on_{event} of term {term}: {wrong}"));
        }
        if event == "lead" {
            state.machines[place].leads = Some(term);
        }
        state.machines[place].runs = Some((event.to_owned(), term));
        *state.counts.entry(if event == "lead" { "lead" } else { "fence" }).or_default() += 1;
        let drawn = if state.is_calm || state.machines[place].failures > 0 { 0 } else { state.rng.u8(..40) };
        let takes = self.limit.mul_f64(0.6 * state.rng.f64());
        match drawn {
            1 => (takes, false),
            2 => (2 * self.limit, true),
            _ => (takes, true),
        }
    }

    fn end(&self, (place, life): (usize, u64), event: &str, outcome: Option<bool>) {
        let state = &mut *self.state.lock().unwrap();
        let standing = &mut state.machines[place];
        if standing.life != life {
            return;
        }
        self.trace.note(format!("r{place} ends on_{event}: {outcome:?}"));
        standing.runs = None;
        match (event, outcome) {
            ("lead", Some(true)) => standing.failures = 0,
            ("lead", Some(false)) => standing.failures += 1,
            ("fence", Some(true)) => (standing.leads, standing.is_excused) = (None, false),
            ("fence", _) => standing.is_excused = true,
            _ => {}
        }
    }
}

/// The end of the hooks of one process.
pub struct Endpoint {
    pub effects: Arc<Effects>,
    pub place: usize,
    pub life: u64,
    pub switch: Switch,
    /// The replica, once it has started.
    pub cluster: Arc<Mutex<Option<Cluster>>>,
}

impl Endpoint {
    /// A leader's effect begins only while the lease lasts.
    fn check_lease(&self, term: u64) {
        let Some(cluster) = self.cluster.lock().unwrap().clone() else { return };
        let lease = cluster.snapshot().lease;
        let is_good = lease.is_some_and(|(of, until)| of.0 == term && self.switch.now() < until);
        if !is_good {
            self.effects.trace.fail(&format!("r{} begins on_lead of term {term} with {lease:?}", self.place));
        }
    }
}

impl Post for Endpoint {
    fn post(&self, _: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let event = body["event"].as_str().unwrap().to_owned();
        let term = body["term"].as_u64().unwrap();
        Box::pin(async move {
            if event == "lead" {
                self.check_lease(term);
            }
            let (takes, is_ok) = self.effects.begin((self.place, self.life), &event, term);
            let mut run = Run { endpoint: self, event, outcome: None };
            sleep(takes).await;
            run.outcome = Some(is_ok);
            let status = if is_ok { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR };
            Ok(Answer { status, retry_after: None })
        })
    }
}

/// A hook that runs. Dropped before its end, it was aborted.
struct Run<'a> {
    endpoint: &'a Endpoint,
    event: String,
    outcome: Option<bool>,
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        let Endpoint { effects, place, life, .. } = self.endpoint;
        effects.end((*place, *life), &self.event, self.outcome);
    }
}
