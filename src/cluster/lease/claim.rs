//! When a replica may claim the lease.

use super::{
    super::moment::Moment,
    Leadership,
    effect::{Reason, State},
};
use crate::domain::fleet::{Lease, LeaseState};

/// How often the pause is doubled between claims that come to nothing.
pub(super) const MOST_LOST: u32 = 8;
/// How long a lease is left to a replica that asked and takes nothing, in heartbeats of the giver.
const LEFT_FOR: u64 = 2;

impl Leadership {
    /// Whether this life has left the lease to another replica.
    fn has_left(&self, lease: &Lease) -> bool {
        let is_own = self.epoch.is_some_and(|epoch| lease.is_of(&self.me, epoch));
        is_own && lease.state == LeaseState::Yielded
    }

    /// Why the lease may be claimed now, if so.
    pub(super) fn claim_reason(&self, now: Moment) -> Option<Reason> {
        let (at, reason) = self.claim_at()?;
        (now >= at && self.pending.is_none()).then_some(reason)
    }

    /// From when on the lease may be claimed, if nothing changes, and why.
    pub(super) fn claim_at(&self) -> Option<(Moment, Reason)> {
        if !self.can_lead() || !self.copy.is_synced || self.state != State::Watching || !self.work.is_idle() {
            return None;
        }
        let failover = self.options.timing.failover;
        let (at, reason) = match &self.copy.entry {
            None if self.options.shared => (self.copy.absent_since?.after(failover), Reason::LeaseFree),
            None => (self.copy.absent_since?, Reason::LeaseFree),
            Some(seen) => match &seen.lease {
                Some(lease) => {
                    let is_mine = lease.holder == self.me && lease.state == LeaseState::Held;
                    let is_this_life = is_mine && self.epoch == Some(lease.stamp.epoch);
                    let is_dead_life = is_mine && self.previous == Some(lease.stamp.epoch);
                    let is_free = match lease.state {
                        LeaseState::Released => true,
                        LeaseState::Yielded => lease.to.as_ref() == Some(&self.me),
                        LeaseState::Held | LeaseState::Other(_) => false,
                    };
                    match (is_this_life, is_dead_life, is_free) {
                        (false, true, _) => (seen.since, Reason::Resumed),
                        (true, _, _) | (_, _, true) => (seen.since, Reason::LeaseFree),
                        // This replica's own work has ended, and the one that asked does not come.
                        _ if self.has_left(lease) => (
                            seen.since.after(self.options.timing.heartbeat.saturating_mul(LEFT_FOR)),
                            Reason::LeaseFree,
                        ),
                        // The holder may have longer times, so that its lease lasts longer.
                        _ => (seen.since.after(self.options.timing.wait_for(lease.failover)), Reason::LeaseFree),
                    }
                }
                None => (seen.since.after(failover), Reason::LeaseFree),
            },
        };
        Some((at.max(self.humble_until).max(self.next_try), reason))
    }

    /// Lets more and more time pass before the next claim, where the store takes none and the key
    /// stays as it is: the store is not asked all the time.
    pub(super) fn back_off(&mut self, now: Moment) {
        let timing = self.options.timing;
        if self.lost_claims > 0 {
            let pause = timing.retry_pause(self.sequence) << self.lost_claims;
            self.humble_until = self.humble_until.max(now.after(pause.min(timing.failover)));
        }
        self.lost_claims = (self.lost_claims + 1).min(MOST_LOST);
    }
}
