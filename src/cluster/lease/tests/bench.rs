//! A store of one key and one replica, for tables.

use super::super::*;
use crate::domain::fleet::{Epoch, Lease, ReplicaName, Revision, StoreRevision, Term, timing::Timing};

pub(super) const TIMING: Timing = Timing { heartbeat: 1000, lease: 3000, margin: 1000, failover: 6000, fall: 3 };
pub(super) const ME: Epoch = Epoch(5);

pub(super) fn options() -> Options {
    let (hook_timeout, yield_timeout) = (2000, 4000);
    Options { timing: TIMING, preferred: false, shared: true, hook_timeout, yield_timeout, rise: 2 }
}

pub(super) fn name(name: &str) -> ReplicaName {
    name.parse().unwrap()
}

/// A replica, its clock, and the effects that nothing has answered.
pub(super) struct Bench {
    pub(super) lead: Leadership,
    pub(super) now: u64,
    pub(super) effects: Vec<Effect>,
    pub(super) transitions: Vec<(State, State, Reason)>,
}

impl Bench {
    /// A registered and active replica that has read a bucket without a lease.
    pub(super) fn new() -> Self {
        Self::with(options(), None)
    }

    pub(super) fn with(options: Options, previous: Option<Epoch>) -> Self {
        let lead = Leadership::new(name("me"), options, previous, Moment(0));
        let mut bench = Self { lead, now: 0, effects: Vec::new(), transitions: Vec::new() };
        bench.input(Input::Registered(ME));
        bench.input(Input::Eligible(true));
        bench
    }

    /// The same, leading with term 10; the lease counts from the moment 6000.
    pub(super) fn leading() -> Self {
        let mut bench = Self::promoted();
        let hook = bench.hook(HookKind::Lead).expect("a hook");
        bench.input(Input::HookDone { hook, is_ok: true });
        bench
    }

    /// The same, while the hook of the promotion runs.
    pub(super) fn promoted() -> Self {
        let mut bench = Self::new();
        bench.watch(Watched::Synced);
        bench.at(6000);
        let sequence = bench.written();
        bench.store(sequence, 10);
        assert_eq!(bench.lead.state(), State::Leading);
        bench
    }

    pub(super) fn input(&mut self, input: Input) {
        let turn = self.lead.input(Moment(self.now), input);
        self.transitions.extend(turn.transition.map(|Transition { from, to, reason }| (from, to, reason)));
        self.effects.extend(turn.effects);
    }

    pub(super) fn watch(&mut self, watched: Watched) {
        self.input(Input::Watch(watched));
    }

    /// Time passes, with every tick that is due.
    pub(super) fn at(&mut self, now: u64) {
        while let Some(due) = self.lead.next_due().filter(|due| due.0 <= now) {
            self.now = self.now.max(due.0);
            self.input(Input::Tick);
            let next = self.lead.next_due();
            assert!(next.is_none_or(|next| next.0 > self.now), "a tick leaves a due behind");
        }
        self.now = now;
    }

    /// The number of the newest write, which is to be answered.
    pub(super) fn written(&self) -> u64 {
        self.newest_write().0
    }

    pub(super) fn newest_write(&self) -> (u64, Option<StoreRevision>, Lease) {
        let write = |effect: &Effect| match effect {
            Effect::Write { sequence, expected, lease } => Some((*sequence, *expected, lease.clone())),
            _ => None,
        };
        self.effects.iter().rev().find_map(write).expect("a write")
    }

    /// The number of the newest read.
    pub(super) fn reads(&self) -> Option<u64> {
        let read = |effect: &Effect| match effect {
            Effect::Read { sequence } => Some(*sequence),
            _ => None,
        };
        self.effects.iter().rev().find_map(read)
    }

    /// The number of the newest hook of that kind.
    pub(super) fn hook(&self, wanted: HookKind) -> Option<u64> {
        let run = |effect: &Effect| match effect {
            Effect::RunHook { hook, kind, .. } if *kind == wanted => Some(*hook),
            _ => None,
        };
        self.effects.iter().rev().find_map(run)
    }

    pub(super) fn wrote(&mut self, sequence: u64, outcome: Result<u64, WriteError>) {
        self.input(Input::Wrote { sequence, outcome: outcome.map(StoreRevision) });
    }

    /// The store takes the newest write: the answer comes, and the watch tells.
    pub(super) fn store(&mut self, sequence: u64, revision: u64) {
        let (_, _, lease) = self.newest_write();
        self.wrote(sequence, Ok(revision));
        self.watch(Watched::Lease { revision: StoreRevision(revision), lease });
    }

    pub(super) fn read(&mut self, entry: Option<(u64, Lease)>) {
        let sequence = self.reads().expect("a read");
        let outcome = Ok(entry.map(|(revision, lease)| (StoreRevision(revision), lease)));
        self.input(Input::Read { sequence, outcome });
    }

    pub(super) fn may_begin(&self) -> bool {
        self.lead.may_begin(Moment(self.now)).is_some()
    }

    pub(super) fn last(&self) -> (State, State, Reason) {
        self.transitions.last().cloned().expect("a transition")
    }
}

/// A lease of another replica.
pub(super) fn foreign(epoch: u64, sequence: u64, term: Option<u64>) -> Lease {
    let stamp = Revision { epoch: Epoch(epoch), sequence };
    Lease::held(name("other"), stamp, term.map(Term))
}

pub(super) fn told(revision: u64, lease: Lease) -> Watched {
    Watched::Lease { revision: StoreRevision(revision), lease }
}
