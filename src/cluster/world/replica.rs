//! A replica of the world: the cores, and the wiring between them that production has as tasks.

use super::{World, store::Store};
use crate::{
    cluster::{
        lease::{self, Effect, HookKind, Leadership, ReadError, WriteError},
        membership::{self, Membership},
        moment::Moment,
    },
    domain::fleet::{self, Heartbeat, Key, Lease, MemberState, ReplicaName, StoreRevision, timing::Timing},
};

const TIMING: Timing = Timing { heartbeat: 1000, lease: 3000, margin: 1000, failover: 6000, fall: 3 };

/// The core that a request came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum From {
    Lead(u64),
    Member(u64),
    View(u64),
}

/// A request to the store.
#[derive(Clone, Debug)]
pub(super) struct Request {
    from: From,
    key: Key,
    /// The write: expected revision and value; none: a read.
    write: Option<(Option<StoreRevision>, Vec<u8>)>,
}

/// The store's answer.
pub(super) enum Answer {
    Wrote(Result<StoreRevision, WriteError>),
    Read(Option<(StoreRevision, Vec<u8>)>),
}

impl Request {
    pub(super) fn perform(&self, store: &mut Store) -> Answer {
        match &self.write {
            Some((expected, value)) => Answer::Wrote(store.write(&self.key, *expected, value.clone())),
            None => Answer::Read(store.get(&self.key).map(|entry| (entry.revision, entry.value.clone()))),
        }
    }
}

/// An end of work that is on its way.
#[derive(Clone, Debug)]
enum Ending {
    Work,
    Hook(u64),
}

pub(super) struct Replica {
    pub(super) name: ReplicaName,
    /// The clock's start and how many milliseconds it counts in a true second.
    offset: u64,
    rate: u64,
    /// Changes with each start; 0 while the replica is down.
    pub(super) process: u64,
    pub(super) starts_at: Option<u64>,
    pub(super) paused_until: u64,
    pub(super) cut_until: u64,
    pub(super) was_cut: bool,
    /// The bucket that the watch follows, and the place in the order of its writes.
    pub(super) followed: Option<(u64, usize)>,
    pub(super) lags_until: u64,
    pub(super) lead: Leadership,
    pub(super) member: Membership,
    is_stopping: bool,
    endings: Vec<(u64, Ending)>,
    last_life: Option<fleet::Epoch>,
}

impl Replica {
    pub(super) fn new(at: usize, rng: &mut fastrand::Rng) -> Self {
        let name: ReplicaName = format!("r{at}.example").parse().unwrap();
        let (offset, rate) = (rng.u64(0..1 << 40), rng.u64(980..1020));
        Self {
            offset,
            rate,
            process: 0,
            starts_at: None,
            paused_until: 0,
            cut_until: 0,
            was_cut: false,
            followed: None,
            lags_until: 0,
            lead: Leadership::new(name.clone(), Self::options(at), None, Moment(0)),
            member: Membership::new(name.clone(), 0, TIMING, Moment(0)),
            is_stopping: false,
            endings: Vec::new(),
            last_life: None,
            name,
        }
    }

    fn options(at: usize) -> lease::Options {
        let preferred = at == 0;
        lease::Options { timing: TIMING, preferred, shared: true, hook_timeout: 2000, yield_timeout: 3000, rise: 2 }
    }

    /// The replica's own clock.
    pub(super) fn clock(&self, now: u64) -> Moment {
        Moment(self.offset + now * self.rate / 1000)
    }

    pub(super) fn runs(&self, now: u64) -> bool {
        self.process != 0 && self.paused_until <= now
    }

    /// The bucket that the watch follows.
    pub(super) fn incarnation(&self) -> Option<u64> {
        self.followed.map(|(incarnation, _)| incarnation)
    }

    /// The bucket for which the replica writes.
    pub(super) fn bucket(&self) -> fleet::Incarnation {
        fleet::Incarnation(self.incarnation().unwrap_or_default())
    }

    pub(super) fn crash(&mut self, starts_at: u64) {
        self.last_life = self.member.epoch();
        (self.process, self.starts_at) = (0, Some(starts_at));
    }
}

impl World {
    /// A replica's process starts.
    pub(super) fn start(&mut self, at: usize) {
        self.processes += 1;
        let (processes, now) = (self.processes, self.now);
        let replica = &mut self.replicas[at];
        let clock = replica.clock(now);
        let name = replica.name.clone();
        (replica.process, replica.starts_at) = (processes, None);
        replica.lead = Leadership::new(name.clone(), Replica::options(at), replica.last_life, clock);
        replica.member = Membership::new(name.clone(), processes, TIMING, clock);
        (replica.followed, replica.was_cut, replica.is_stopping) = (None, false, false);
        replica.paused_until = 0;
        replica.endings.clear();
        self.trace.push(format!("{now} {at} starts"));
        self.member(at, membership::Input::Ready);
    }

    /// SIGTERM: hand all over, then end.
    pub(super) fn stop(&mut self, at: usize) {
        self.replicas[at].is_stopping = true;
        self.lead(at, lease::Input::Stop);
        self.member(at, membership::Input::Drain);
    }

    /// Time passes for a replica.
    pub(super) fn tick(&mut self, at: usize) {
        let now = self.now;
        let replica = &mut self.replicas[at];
        let clock = replica.clock(now);
        let (ended, rest) = std::mem::take(&mut replica.endings).into_iter().partition(|(end, _)| *end <= now);
        replica.endings = rest;
        let ended: Vec<(u64, Ending)> = ended;
        for (_, ending) in ended {
            match ending {
                Ending::Work => self.lead(at, lease::Input::Drained),
                Ending::Hook(hook) => self.lead(at, lease::Input::HookDone { hook, is_ok: true }),
            }
        }
        // A tick makes one transition; another may be due at once, and no more than a few.
        for ticks in 0.. {
            if self.replicas[at].lead.next_due().is_none_or(|due| due > clock) {
                break;
            }
            assert!(ticks < 4, "seed {}: ticks leave a due behind", self.seed);
            self.lead(at, lease::Input::Tick);
        }
        if self.replicas[at].member.next_due(clock).is_some_and(|due| due <= clock) {
            self.member(at, membership::Input::Tick);
        }
        let asks: Vec<_> = self.replicas[at].member.heartbeats().collect();
        let asks = asks.into_iter().find(|(_, heartbeat, _)| heartbeat.wants_lead).map(|(name, ..)| name.clone());
        if let Some(by) = asks {
            self.lead(at, lease::Input::Asked { by });
        }
        let replica = &self.replicas[at];
        if replica.is_stopping && replica.member.state() == Some(&MemberState::Draining) {
            self.member(at, membership::Input::Emptied);
        }
        let replica = &mut self.replicas[at];
        let has_left = replica.member.state().is_none_or(|state| *state == MemberState::Left);
        if replica.is_stopping && has_left && replica.lead.is_done() {
            self.trace.push(format!("{now} {at} has left"));
            let delay = self.rng.u64(100..5000);
            self.replicas[at].crash(now + delay);
            self.note("left");
        }
    }

    pub(super) fn lead(&mut self, at: usize, input: lease::Input) {
        let clock = self.replicas[at].clock(self.now);
        let turn = self.replicas[at].lead.input(clock, input);
        if let Some(lease::Transition { from, to, reason }) = turn.transition {
            self.trace.push(format!("{} {at} {from:?} {to:?} {reason}", self.now));
            self.note(reason.as_str());
        }
        for effect in turn.effects {
            let replica = &mut self.replicas[at];
            match effect {
                Effect::Write { sequence, expected, lease } => {
                    let write = Some((expected, fleet::encode(&lease, replica.bucket())));
                    self.send(at, Request { from: From::Lead(sequence), key: Key::Leader, write });
                }
                Effect::Read { sequence } => {
                    self.send(at, Request { from: From::Lead(sequence), key: Key::Leader, write: None });
                }
                Effect::StopWork { abort } => {
                    let takes = if abort { 1 } else { self.rng.u64(1..700) };
                    replica.endings.push((self.now + takes, Ending::Work));
                }
                Effect::RunHook { hook, kind, .. } => {
                    let takes = if kind == HookKind::Lead { self.rng.u64(1..300) } else { self.rng.u64(1..100) };
                    replica.endings.push((self.now + takes, Ending::Hook(hook)));
                }
                Effect::AbortHook { hook } => {
                    replica.endings.retain(|(_, ending)| !matches!(ending, Ending::Hook(other) if *other == hook));
                }
                Effect::Exit => {
                    let delay = self.rng.u64(100..3000);
                    replica.crash(self.now + delay);
                    return;
                }
                Effect::CasLost => self.note("cas lost"),
                Effect::BeginWork { .. } => replica.endings.retain(|(_, ending)| !matches!(ending, Ending::Work)),
                Effect::Left => {}
            }
        }
    }

    pub(super) fn member(&mut self, at: usize, input: membership::Input) {
        let clock = self.replicas[at].clock(self.now);
        let turn = self.replicas[at].member.input(clock, input);
        if let Some(membership::Transition { from, to }) = turn.transition {
            self.trace.push(format!("{} {at} {from:?} {to}", self.now));
        }
        for effect in turn.effects {
            match effect {
                membership::Effect::Write { sequence, expected, mut heartbeat } => {
                    let replica = &self.replicas[at];
                    heartbeat.role = replica.lead.role();
                    heartbeat.term = replica.lead.term(clock);
                    heartbeat.wants_lead = replica.lead.wants_lead(clock);
                    let write = Some((expected, fleet::encode(&*heartbeat, replica.bucket())));
                    let key = Key::Replica(replica.name.clone());
                    self.send(at, Request { from: From::Member(sequence), key, write });
                }
                membership::Effect::Read { sequence } => {
                    let key = Key::Replica(self.replicas[at].name.clone());
                    self.send(at, Request { from: From::Member(sequence), key, write: None });
                }
                membership::Effect::WriteView { sequence, expected, view } => {
                    let write = Some((expected, fleet::encode(&view, self.replicas[at].bucket())));
                    self.send(at, Request { from: From::View(sequence), key: Key::View, write });
                }
                membership::Effect::Registered(epoch) => self.lead(at, lease::Input::Registered(epoch)),
                membership::Effect::Eligible(is_eligible) => self.lead(at, lease::Input::Eligible(is_eligible)),
                membership::Effect::Replaced { by } => self.lead(at, lease::Input::Replaced { by }),
                membership::Effect::Link { is_ok } => self.lead(at, lease::Input::Link { is_ok }),
                membership::Effect::View { .. } | membership::Effect::Unheard => {}
                membership::Effect::Forget { replica, .. } => panic!("seed {}: {replica} is forgotten", self.seed),
                membership::Effect::Violation { number } => panic!("seed {}: two views {number}", self.seed),
                membership::Effect::CasLost => self.note("cas lost"),
            }
        }
    }

    /// Hands a replica an answer; none: the answer is lost.
    pub(super) fn hand(&mut self, at: usize, request: Request, answer: Option<Answer>) {
        let is_read = request.write.is_none();
        let bucket = self.replicas[at].bucket();
        let wrote = match &answer {
            Some(Answer::Wrote(outcome)) => *outcome,
            _ => Err(WriteError::Ambiguous),
        };
        let read = match answer {
            Some(Answer::Read(entry)) => Some(entry),
            _ => None,
        };
        match request.from {
            From::Lead(sequence) if is_read => {
                let outcome = match read {
                    None => Err(ReadError::Unavailable),
                    Some(None) => Ok(None),
                    Some(Some((revision, value))) => match fleet::decode::<Lease>("leader", &value, bucket) {
                        Ok(lease) => Ok(Some((revision, lease))),
                        Err(malformed) => Err(ReadError::Malformed(revision, malformed)),
                    },
                };
                self.lead(at, lease::Input::Read { sequence, outcome });
            }
            From::Lead(sequence) => self.lead(at, lease::Input::Wrote { sequence, outcome: wrote }),
            From::Member(sequence) if is_read => {
                let outcome = read.ok_or(()).map(|entry| {
                    entry.map(|(revision, value)| (revision, fleet::decode::<Heartbeat>("", &value, bucket).ok()))
                });
                self.member(at, membership::Input::Read { sequence, outcome });
            }
            From::Member(sequence) => self.member(at, membership::Input::Wrote { sequence, outcome: wrote }),
            From::View(sequence) => self.member(at, membership::Input::WroteView { sequence, outcome: wrote }),
        }
    }
}
