//! Takes note of inputs. No state changes here.

use super::{
    super::moment::Moment,
    Hold, Leadership, Pending, Purpose,
    effect::{Effect, Reason, State, Turn},
    input::{Input, ReadError, Watched, WriteError},
};
use crate::domain::fleet::{Lease, LeaseState, StoreRevision, Term};

impl Leadership {
    /// Takes note of an input. `is_late`: the lease has run out, and is not prolonged.
    pub(super) fn absorb(&mut self, turn: &mut Turn, now: Moment, input: Input, is_late: bool) {
        match input {
            Input::Watch(watched) => self.watched(now, watched, is_late),
            Input::Wrote { sequence, outcome } => self.wrote(turn, now, sequence, outcome, is_late),
            Input::Read { sequence, outcome } => {
                if self.pending == Some(Pending::Read { sequence }) {
                    self.pending = None;
                    self.read(now, outcome, is_late);
                }
            }
            Input::Tick => {}
            Input::Drained => self.work.drained(),
            Input::HookDone { hook, is_ok } => {
                self.work.hook_done(hook, is_ok);
                if self.work.has_lead_hook_run() {
                    self.hook_failures = 0;
                }
            }
            Input::Registered(epoch) => {
                if self.epoch != Some(epoch) && self.hold.is_some() {
                    self.lost.get_or_insert(Reason::NewLife);
                }
                self.epoch = Some(epoch);
            }
            Input::Eligible(is_eligible) => self.is_eligible = is_eligible,
            Input::SetAside(is_set_aside) => self.is_set_aside = is_set_aside,
            Input::Replaced { by } => {
                self.replaced_by = Some(by);
                self.lose(Reason::Replaced { by });
            }
            Input::Link { is_ok } => self.link(now, is_ok, false),
            Input::Asked { by } => {
                if self.state == State::Leading && !self.options.preferred && now >= self.deaf_until && by != self.me {
                    self.asked = Some(by);
                }
            }
            Input::Stop => self.is_stopping = true,
            Input::Reload(options) => {
                // Writes that are sent already tell the others the times of before.
                self.length = self.length.min(options.timing.lease);
                let told = self.options.timing.failover.saturating_sub(self.options.timing.lease);
                self.fence_time = self.fence_time.min(options.hook_timeout).min(told);
                self.last_of_length = self.sequence;
                self.options = options;
            }
        }
        self.work.tick(turn, now);
    }

    /// Notes that a lease is lost, if there is one to lose.
    fn lose(&mut self, reason: Reason) {
        if self.hold.is_some() {
            self.lost.get_or_insert(reason);
        }
    }

    /// Counts answers and failures of the store. `is_own`: of a request that may be repeated.
    fn link(&mut self, now: Moment, is_ok: bool, is_own: bool) {
        if is_ok {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1).min(self.options.rise);
        } else {
            self.failures = self.failures.saturating_add(1).min(self.options.timing.fall);
            self.successes = 0;
            if is_own {
                self.pause(now);
            }
        }
    }

    /// Lets a moment pass before the next request: the watch has to catch up, or the store rests.
    fn pause(&mut self, now: Moment) {
        let name = self.me.as_str().bytes();
        let seed = name.fold(self.sequence, |seed, byte| seed.wrapping_mul(31).wrapping_add(byte.into()));
        self.next_try = now.after(self.options.timing.retry_pause(seed));
    }

    fn watched(&mut self, now: Moment, watched: Watched, is_late: bool) {
        match watched {
            Watched::Lease { revision, lease } => self.saw(now, revision, Some(lease), true, is_late),
            Watched::Malformed { revision } => self.saw(now, revision, None, true, is_late),
            Watched::Gone { revision } => {
                if self.hold.as_ref().is_some_and(|hold| revision > hold.revision) {
                    self.lose(Reason::Deleted);
                }
                self.copy.gone(revision, now);
            }
            Watched::Synced => {
                self.copy.synced(now);
                if self.copy.entry.is_none() {
                    self.lose(Reason::Deleted);
                }
            }
            Watched::Reset => self.copy.reset(),
            Watched::Recreated => {
                self.lose(Reason::Recreated);
                // A lease that the store lost may last yet, whatever the store tells of it.
                self.humble_until = self.humble_until.max(now.after(self.options.timing.failover));
                self.copy = super::LeaseCopy::default();
                (self.epoch, self.previous, self.pending) = (None, None, None);
                self.is_claim_lost = true;
                self.sent.clear();
            }
        }
    }

    /// An entry of the key is known, by the watch or by a read.
    fn saw(&mut self, now: Moment, revision: StoreRevision, lease: Option<Lease>, is_echo: bool, is_late: bool) {
        let own = lease.as_ref().filter(|lease| self.epoch.is_some_and(|epoch| lease.is_of(&self.me, epoch)));
        match own {
            Some(lease) => {
                let (sequence, state) = (lease.stamp.sequence, lease.state.clone());
                let term = lease.term_at(revision);
                let sent = self.sent.iter().find(|(number, _)| *number == sequence).map(|(_, sent)| *sent);
                if let Some(sent) = sent.filter(|_| !is_late) {
                    match state {
                        LeaseState::Held => self.stored(revision, term, (sequence, sent), is_echo),
                        LeaseState::Released | LeaseState::Yielded => self.is_left = self.hold.is_some(),
                        LeaseState::Other(_) => {}
                    }
                }
            }
            None if self.hold.as_ref().is_some_and(|hold| revision > hold.revision) => {
                let term = lease.as_ref().map(|lease| lease.term_at(revision));
                let (by, epoch) = lease.clone().map(|lease| (lease.holder, lease.stamp.epoch)).unzip();
                self.lose(Reason::Taken { by, epoch, term });
            }
            None => {}
        }
        if self.copy.saw(revision, lease, now) {
            self.lost_claims = 0;
        }
    }

    /// A write of this life is in the store.
    fn stored(&mut self, revision: StoreRevision, term: Term, (sequence, sent): (u64, Moment), is_echo: bool) {
        let echoed = is_echo.then_some(sent);
        match &mut self.hold {
            Some(hold) if hold.term == term => {
                hold.revision = hold.revision.max(revision);
                hold.stored = hold.stored.max(sent);
                hold.sequence = hold.sequence.max(sequence);
                if hold.sequence > self.last_of_length {
                    self.length = self.options.timing.lease;
                    self.fence_time = self.options.hook_timeout;
                }
                hold.echoed = hold.echoed.max(echoed);
                // Older writes cannot prolong the lease any more.
                let newest = hold.echoed;
                self.sent.retain(|(_, sent)| newest.is_none_or(|newest| *sent >= newest));
            }
            None if self.state == State::Candidate => {
                self.hold = Some(Hold { term, revision, stored: sent, sequence, echoed, is_doubted: false });
            }
            _ => {}
        }
    }

    fn wrote(
        &mut self,
        turn: &mut Turn,
        now: Moment,
        number: u64,
        outcome: Result<StoreRevision, WriteError>,
        is_late: bool,
    ) {
        let Some(Pending::Write { sequence, purpose, sent }) =
            self.pending.filter(|pending| matches!(pending, Pending::Write { sequence, .. } if *sequence == number))
        else {
            return;
        };
        debug_assert_eq!(sequence, number);
        self.pending = None;
        self.link(now, !matches!(outcome, Err(WriteError::Ambiguous | WriteError::Unavailable)), true);
        match outcome {
            Ok(_) if is_late => {}
            Ok(revision) => match (purpose, self.hold.as_ref().map(|hold| hold.term)) {
                (Purpose::Claim, None) => self.stored(revision, revision.into(), (sequence, sent), false),
                (Purpose::Claim | Purpose::Renew, Some(term)) => self.stored(revision, term, (sequence, sent), false),
                (Purpose::Renew, None) => {}
                (Purpose::Leave, _) => self.is_left = self.hold.is_some(),
            },
            Err(WriteError::Conflict) => {
                turn.effects.push(Effect::CasLost);
                if purpose == Purpose::Claim {
                    self.is_claim_lost = true;
                    self.pause(now);
                }
                if let Some(hold) = &mut self.hold {
                    hold.is_doubted = true;
                    self.wants_read = true;
                }
            }
            Err(WriteError::Ambiguous) => {
                // The watch may have confirmed the write before its answer was lost.
                let is_stored = self.hold.as_ref().is_some_and(|hold| hold.sequence >= sequence);
                self.wants_read |= !is_stored && !self.is_left;
            }
            Err(WriteError::Unavailable) if purpose == Purpose::Claim => {
                self.is_claim_lost = true;
                self.back_off(now);
            }
            Err(WriteError::Unavailable) => {}
        }
    }

    fn read(&mut self, now: Moment, outcome: Result<Option<(StoreRevision, Lease)>, ReadError>, is_late: bool) {
        let (revision, lease) = match outcome {
            Err(ReadError::Unavailable) => return self.link(now, false, true),
            Err(ReadError::Malformed(revision, _)) => (revision, None),
            Ok(Some((revision, lease))) => (revision, Some(lease)),
            Ok(None) => {
                self.link(now, true, true);
                self.lose(Reason::Deleted);
                self.is_claim_lost = true;
                (self.wants_read, self.has_read) = (false, true);
                return;
            }
        };
        self.link(now, true, true);
        // A copy of the store may lag: an entry older than a known one says nothing.
        if self.hold.as_ref().is_some_and(|hold| revision < hold.revision) {
            return self.pause(now);
        }
        self.saw(now, revision, lease, false, is_late);
        (self.wants_read, self.has_read) = (false, true);
        // The claim was not made, or another replica has the lease.
        self.is_claim_lost |= self.hold.is_none();
        if let Some(hold) = &mut self.hold
            && self.lost.is_none()
        {
            hold.is_doubted = false;
        }
    }
}
