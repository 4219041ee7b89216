//! The election of the leader: one replica's part as a plain value. No I/O and no clock.
//!
//! Each [`Input`] comes with its moment and makes at most one [`Transition`]: first the input's
//! news are noted, then one state change is decided, then the effects of the new state are made.
//!
//! # Why there are never two leaders
//!
//! - The key `leader` is only written by compare-and-set, against the revision that the writer saw.
//! - A leader's lease is counted from the moment at which the newest heartbeat was **sent** that
//!   the store has taken and that came back on the leader's own watch. An answer that comes after
//!   the lease has run out does not prolong the lease.
//! - A follower claims `failover_timeout` after the follower **saw** the leader's newest heartbeat.
//!   The lease tells the leader's own `failover_timeout`, and the longer one counts: in the middle
//!   of a reload, or by mistake, replicas may have other times. The rule of
//!   [`timing`](crate::domain::fleet::timing) makes that later than the end of the lease.
//! - Each effect asks [`Leadership::may_begin`] first, also after a pause of the whole process, and
//!   carries the term.
//! - A claim without that wait follows only where the holder said that the work has ended, or where
//!   the holder is an earlier process of this replica that is known to be dead.
//!
//! # An ambiguous write
//!
//! A write without an answer may be made at any later moment. So the key is read again, and the
//! entry's [`Revision`](crate::domain::fleet::Revision) says whose write stands there. A conflict
//! closes the gate until the key was read: only a foreign life there means a fence.

mod absorb;
mod act;
mod claim;
mod copy;
mod effect;
mod input;
mod term_work;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use self::{copy::LeaseCopy, term_work::TermWork};
pub use self::{
    effect::{Effect, HookKind, Reason, State, Transition, Turn},
    input::{Input, Options, ReadError, Watched, WriteError},
};
use super::moment::Moment;
use crate::domain::fleet::{Epoch, Lease, LeaseState, ReplicaName, Role, StoreRevision, Term};

/// The writes whose sending is remembered, for the watch to confirm.
const REMEMBERED_WRITES: usize = 8;
/// How often the time is doubled for which a replica whose hook failed lets others lead.
const MOST_DOUBLINGS: u32 = 5;

/// A request to the store that has no answer yet. There is one at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Pending {
    Write { sequence: u64, purpose: Purpose, sent: Moment },
    Read { sequence: u64 },
}

/// The reason for a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    Claim,
    Renew,
    Leave,
}

/// A lease that the store has given to this life of this replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Hold {
    term: Term,
    /// The newest own write that is known to be stored.
    revision: StoreRevision,
    /// The sending of the newest write that is known to be stored, and the write's number.
    stored: Moment,
    sequence: u64,
    /// The sending of the newest write that came back on the watch.
    echoed: Option<Moment>,
    /// A write met a conflict, and the key was not read since.
    is_doubted: bool,
}

/// The part of a replica in the election.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Leadership {
    me: ReplicaName,
    options: Options,
    epoch: Option<Epoch>,
    /// The life of an earlier process of this replica that is known to be dead.
    previous: Option<Epoch>,
    is_eligible: bool,
    is_set_aside: bool,
    is_stopping: bool,
    replaced_by: Option<Epoch>,
    state: State,
    /// Since when.
    since: Moment,
    copy: LeaseCopy,
    /// Numbers writes, reads and hooks.
    sequence: u64,
    pending: Option<Pending>,
    /// Sendings of the newest writes, by number.
    sent: VecDeque<(u64, Moment)>,
    hold: Option<Hold>,
    /// How long the lease lasts from the sending of a write, in milliseconds. After a reload with
    /// longer times, those count from the first write that tells them to the others.
    length: u64,
    /// How long the hook that fences may run, in milliseconds: in the same way.
    fence_time: u64,
    /// The last write before that reload.
    last_of_length: u64,
    /// Why the lease is lost, until the state follows.
    lost: Option<Reason>,
    /// The claim came to nothing.
    is_claim_lost: bool,
    /// The lease was given away, and the store knows.
    is_left: bool,
    /// The key is to be read.
    wants_read: bool,
    /// Since the fence, the store has said who leads.
    has_read: bool,
    /// The preferred replica that asked for the lease.
    asked: Option<ReplicaName>,
    /// Requests for the lease are not heard before.
    deaf_until: Moment,
    /// The lease is neither claimed nor asked for before.
    humble_until: Moment,
    /// Claims in a row that the store did not take, while the key has stayed as it is.
    lost_claims: u32,
    /// Promotions in a row whose hook failed.
    hook_failures: u32,
    work: TermWork,
    failures: u32,
    successes: u32,
    next_try: Moment,
    next_beat: Moment,
}

impl Leadership {
    /// The part of a replica that has not registered yet. `previous` is the life of an earlier
    /// process of this replica that is dead for sure: its epoch lay in a file whose lock a living
    /// process holds.
    pub fn new(me: ReplicaName, options: Options, previous: Option<Epoch>, now: Moment) -> Self {
        Self {
            me,
            epoch: None,
            previous,
            is_eligible: false,
            is_set_aside: false,
            is_stopping: false,
            replaced_by: None,
            state: State::Watching,
            since: now,
            copy: LeaseCopy::default(),
            sequence: 0,
            pending: None,
            sent: VecDeque::new(),
            hold: None,
            length: options.timing.lease,
            fence_time: options.hook_timeout,
            last_of_length: 0,
            lost: None,
            is_claim_lost: false,
            is_left: false,
            wants_read: false,
            has_read: false,
            asked: None,
            deaf_until: now,
            humble_until: now,
            lost_claims: 0,
            hook_failures: 0,
            work: TermWork::default(),
            failures: 0,
            successes: 0,
            next_try: now,
            next_beat: now,
            options,
        }
    }

    /// Takes an input of the moment `now`.
    pub fn input(&mut self, now: Moment, input: Input) -> Turn {
        let mut turn = Turn::default();
        // A lease that has run out is not prolonged by news that come too late.
        let expired = self.expiry(now);
        self.absorb(&mut turn, now, input, expired.is_some());
        self.decide(&mut turn, now, expired);
        self.act(&mut turn, now);
        turn
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// The state as the heartbeat tells.
    pub fn role(&self) -> Role {
        self.state.role()
    }

    /// The term, while this replica leads and the lease lasts.
    pub fn term(&self, now: Moment) -> Option<Term> {
        self.may_finish(now).then(|| self.hold.as_ref().map(|hold| hold.term)).flatten()
    }

    /// Whether an effect that only a leader may begin can begin now. To be asked before each
    /// effect, with a fresh moment.
    pub fn may_begin(&self, now: Moment) -> Option<Term> {
        let hold = self.hold.as_ref().filter(|hold| self.state == State::Leading && !hold.is_doubted)?;
        self.expiry(now).is_none().then_some(hold.term)
    }

    /// Whether an effect that has begun may go on.
    pub fn may_finish(&self, now: Moment) -> bool {
        matches!(self.state, State::Leading | State::Yielding) && self.expiry(now).is_none()
    }

    /// Until when the lease lasts, while this replica leads.
    pub fn lease_end(&self) -> Option<Moment> {
        let hold = self.hold.as_ref()?;
        Some(hold.stored.min(hold.echoed?).after(self.length))
    }

    /// The newest lease of the watch, with its revision, for status.
    pub fn leader(&self) -> Option<(StoreRevision, &Lease)> {
        let seen = self.copy.entry.as_ref()?;
        Some((seen.revision, seen.lease.as_ref()?))
    }

    /// Whether this replica asks for the lease: the heartbeat carries the answer.
    pub fn wants_lead(&self, now: Moment) -> bool {
        let is_other = |lease: &Lease| lease.state == LeaseState::Held && lease.holder != self.me;
        self.options.preferred
            && now >= self.humble_until
            && self.can_lead()
            && self.state == State::Watching
            && self.leader().is_some_and(|(_, lease)| is_other(lease))
    }

    /// Whether a process that is stopping may end.
    pub fn is_done(&self) -> bool {
        self.is_stopping && self.state == State::Watching && self.pending.is_none() && self.work.is_idle()
    }

    /// Whether nothing but the lease keeps this replica from leading.
    fn can_lead(&self) -> bool {
        self.is_eligible
            && !self.is_set_aside
            && !self.is_stopping
            && self.replaced_by.is_none()
            && self.epoch.is_some()
    }

    /// Why the lease has run out, if the replica leads and the lease has.
    fn expiry(&self, now: Moment) -> Option<Reason> {
        if !matches!(self.state, State::Leading | State::Yielding) {
            return None;
        }
        let hold = self.hold.as_ref().expect("a leader has a lease");
        let lease = self.length;
        if now >= hold.stored.after(lease) {
            return Some(Reason::LeaseExpired);
        }
        let is_silent = hold.echoed.is_none_or(|echoed| now >= echoed.after(lease));
        is_silent.then_some(Reason::WatchSilent)
    }

    /// Changes the state at most once.
    fn decide(&mut self, turn: &mut Turn, now: Moment, expired: Option<Reason>) {
        let held_for = now.since(self.since);
        let timing = self.options.timing;
        match self.state {
            State::Watching => {
                self.lost = None;
                if self.failures >= timing.fall {
                    self.go(turn, now, State::Failed, Reason::StoreFailed);
                } else if let Some(reason) = self.claim_reason(now) {
                    self.go(turn, now, State::Candidate, reason);
                }
            }
            State::Candidate => {
                let is_fresh = self.lease_end().is_some_and(|end| now < end);
                if self.lost.is_some() || self.is_claim_lost || !self.can_lead() || held_for >= timing.failover {
                    self.go(turn, now, State::Watching, Reason::Lost);
                } else if is_fresh && self.pending.is_none() {
                    self.go(turn, now, State::Leading, Reason::Won);
                }
            }
            State::Leading => {
                if let Some(reason) = self.lost.take().or(expired) {
                    self.go(turn, now, State::Fenced, reason);
                } else if self.work.has_lead_hook_failed() {
                    self.go(turn, now, State::Fenced, Reason::HookFailed);
                } else if self.is_stopping {
                    self.go(turn, now, State::Yielding, Reason::Stopping);
                } else if !self.is_eligible {
                    self.go(turn, now, State::Yielding, Reason::Ineligible);
                } else if self.is_set_aside {
                    self.go(turn, now, State::Yielding, Reason::Drained);
                } else if let Some(by) = self.asked.clone() {
                    self.go(turn, now, State::Yielding, Reason::Asked { by });
                }
            }
            State::Yielding => {
                let is_late = held_for >= self.options.yield_timeout && !self.work.has_begun_fence_hook();
                if let Some(reason) = self.lost.take().or(expired) {
                    self.go(turn, now, State::Fenced, reason);
                } else if self.work.has_fence_hook_failed() {
                    self.go(turn, now, State::Fenced, Reason::HookFailed);
                } else if self.is_left {
                    self.go(turn, now, State::Watching, Reason::Left);
                } else if is_late {
                    let to = if self.asked.is_some() && self.can_lead() { State::Leading } else { State::Fenced };
                    self.go(turn, now, to, Reason::YieldTimeout);
                }
            }
            State::Fenced => {
                let is_over = self.work.is_over();
                if self.work.has_failed() {
                    self.go(turn, now, State::Failed, Reason::FenceFailed);
                } else if is_over && self.has_read {
                    self.go(turn, now, State::Watching, Reason::FenceDone);
                } else if is_over && self.failures >= timing.fall {
                    self.go(turn, now, State::Failed, Reason::StoreFailed);
                }
            }
            State::Failed => {
                if self.work.is_over() && self.has_read && self.successes >= self.options.rise {
                    self.go(turn, now, State::Watching, Reason::Recovered);
                }
            }
        }
    }

    /// Changes the state, with the effects of leaving and entering.
    fn go(&mut self, turn: &mut Turn, now: Moment, to: State, reason: Reason) {
        debug_assert!(turn.transition.is_none(), "one input makes one transition at most");
        debug_assert!(self.state.can_become(to), "{:?} cannot become {to:?}", self.state);
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        match to {
            State::Candidate => {
                (self.hold, self.lost, self.next_beat) = (None, None, now);
                (self.is_claim_lost, self.wants_read) = (false, false);
                (self.length, self.last_of_length) = (self.options.timing.lease, self.sequence);
                self.fence_time = self.options.hook_timeout;
            }
            State::Leading if from == State::Yielding => {
                self.asked = None;
                self.deaf_until = now.after(self.options.timing.failover);
                self.begin_work(turn, now);
            }
            State::Leading => {
                debug_assert!(self.work.is_idle(), "work of an earlier term goes on");
                self.asked = None;
                self.begin_work(turn, now);
            }
            State::Yielding => self.work.stop(turn, now, None),
            State::Fenced => {
                let term = self.hold.take().map(|hold| hold.term).unwrap_or_default();
                if reason == Reason::HookFailed {
                    self.hook_failures = (self.hook_failures + 1).min(MOST_DOUBLINGS);
                    let humble = self.options.timing.failover.saturating_mul(1 << self.hook_failures);
                    self.humble_until = now.after(humble);
                }
                let margin = self.options.timing.margin;
                let run = (self.number(), term, self.fence_time);
                self.work.fence(turn, now, margin, run);
                (self.wants_read, self.has_read, self.asked) = (true, false, None);
                // An answer from before the fence says nothing about the time after.
                self.pending = self.pending.filter(|pending| matches!(pending, Pending::Write { .. }));
                self.next_try = now;
            }
            State::Watching => {
                if from == State::Yielding {
                    self.work = TermWork::default();
                    // The replica that asked has its chance now, and none again at once.
                    self.deaf_until = now.after(self.options.timing.failover);
                    turn.effects.push(Effect::Left);
                }
                if from != State::Candidate {
                    self.work.rest();
                }
                (self.hold, self.asked, self.is_left) = (None, None, false);
                (self.wants_read, self.has_read, self.is_claim_lost) = (false, false, false);
                // Writes of this term confirm nothing any more, however late they land.
                self.sent.clear();
            }
            State::Failed => {
                (self.successes, self.has_read, self.next_beat) = (0, false, now);
                if reason == Reason::FenceFailed {
                    turn.effects.push(Effect::Exit);
                }
            }
        }
        turn.transition = Some(Transition { from, to, reason });
    }

    fn begin_work(&mut self, turn: &mut Turn, now: Moment) {
        let term = self.hold.as_ref().map(|hold| hold.term).unwrap_or_default();
        let run = (self.number(), term, self.options.hook_timeout);
        self.work.begin(turn, now, run);
    }

    /// A number for a write, a read or a hook.
    fn number(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}
