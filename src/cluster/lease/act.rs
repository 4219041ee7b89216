//! The requests that a state makes, and when time alone makes more.

use super::{
    super::moment::Moment,
    Leadership, Pending, Purpose, REMEMBERED_WRITES,
    effect::{Effect, HookKind, State, Turn},
};
use crate::domain::fleet::{Lease, LeaseState, ReplicaName, Revision, StoreRevision, Term};

impl Leadership {
    /// Makes the requests that the state wants now.
    pub(super) fn act(&mut self, turn: &mut Turn, now: Moment) {
        if self.state == State::Yielding && self.work.is_drained() && !self.work.has_begun_fence_hook() {
            let term = self.hold.as_ref().map(|hold| hold.term).unwrap_or_default();
            let run = (self.number(), term, self.fence_time);
            self.work.run(turn, now, HookKind::Fence, run);
        }
        if self.pending.is_some() || now < self.next_try {
            return;
        }
        match self.state {
            State::Watching => {}
            State::Candidate if self.wants_read => self.read_key(turn),
            State::Candidate => match self.hold.as_ref().map(|hold| (hold.revision, hold.term)) {
                Some((revision, term)) if now >= self.next_beat => {
                    self.write_key(turn, now, Purpose::Renew, Some(revision), Some(term));
                }
                Some(_) => {}
                None => {
                    let expected = self.copy.entry.as_ref().map(|seen| seen.revision);
                    self.write_key(turn, now, Purpose::Claim, expected, None);
                }
            },
            State::Leading | State::Yielding if self.wants_read => self.read_key(turn),
            State::Leading | State::Yielding => {
                let Some((revision, term)) = self.hold.as_ref().map(|hold| (hold.revision, hold.term)) else { return };
                if self.state == State::Yielding && self.work.has_fence_hook_run() {
                    self.write_key(turn, now, Purpose::Leave, Some(revision), Some(term));
                } else if now >= self.next_beat {
                    self.write_key(turn, now, Purpose::Renew, Some(revision), Some(term));
                }
            }
            State::Fenced => {
                if self.wants_read {
                    self.read_key(turn);
                }
            }
            State::Failed => {
                if now >= self.next_beat {
                    self.next_beat = now.after(self.options.timing.heartbeat);
                    self.read_key(turn);
                }
            }
        }
    }

    fn read_key(&mut self, turn: &mut Turn) {
        let sequence = self.number();
        self.pending = Some(Pending::Read { sequence });
        turn.effects.push(Effect::Read { sequence });
    }

    fn write_key(
        &mut self,
        turn: &mut Turn,
        now: Moment,
        purpose: Purpose,
        expected: Option<StoreRevision>,
        term: Option<Term>,
    ) {
        let Some(epoch) = self.epoch else { return };
        let sequence = self.number();
        let mut lease = Lease::held(self.me.clone(), Revision { epoch, sequence }, term);
        lease.failover = Some(self.options.timing.failover);
        // Fields of a newer version stay, whoever of this cluster wrote them.
        if let Some(before) = self.copy.entry.as_ref().and_then(|seen| seen.lease.as_ref()) {
            lease.carry(before);
        }
        if purpose == Purpose::Leave {
            lease.to = self.asked.clone().filter(|_| !self.is_stopping);
            lease.state = if lease.to.is_some() { LeaseState::Yielded } else { LeaseState::Released };
        }
        self.sent.push_back((sequence, now));
        if self.sent.len() > REMEMBERED_WRITES {
            self.sent.pop_front();
        }
        self.next_beat = now.after(self.options.timing.heartbeat);
        self.pending = Some(Pending::Write { sequence, purpose, sent: now });
        turn.effects.push(Effect::Write { sequence, expected, lease });
    }

    /// When time alone changes something next; [`Input::Tick`](super::Input::Tick) is wanted then.
    pub fn next_due(&self) -> Option<Moment> {
        let timing = self.options.timing;
        let request = |at: Moment| self.pending.is_none().then(|| at.max(self.next_try));
        let of_state = match self.state {
            State::Watching => [self.claim_at().map(|(at, _)| at).filter(|_| self.pending.is_none()), None],
            State::Candidate => {
                let at = if self.wants_read || self.hold.is_none() { self.next_try } else { self.next_beat };
                [Some(self.since.after(timing.failover)), request(at)]
            }
            State::Leading | State::Yielding => {
                let leaves = self.state == State::Yielding && self.work.has_fence_hook_run();
                let at = if self.wants_read || leaves { self.next_try } else { self.next_beat };
                [self.lease_end(), request(at)]
            }
            State::Fenced => [request(self.next_try).filter(|_| self.wants_read), None],
            State::Failed => [request(self.next_beat), None],
        };
        let late = self.since.after(self.options.yield_timeout);
        let is_yielding = self.state == State::Yielding && !self.work.has_begun_fence_hook();
        let late = is_yielding.then_some(late);
        of_state.into_iter().flatten().chain(late).chain(self.work.next_due()).min()
    }

    /// The replica that a lease of this version names as asked for, for status.
    pub fn asked_by(&self) -> Option<&ReplicaName> {
        self.asked.as_ref()
    }
}
