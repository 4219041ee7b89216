//! The silence of others: members that count as failed, and replicas that are forgotten.

use super::{Effect, Membership, Moment, Turn, peers::Peer};
use crate::domain::fleet::{Epoch, Member, MemberState, ReplicaName};

/// Failover timeouts of silence after which a replica that is in no view is forgotten.
pub(super) const FORGOTTEN_AFTER: u64 = 10;
/// Replicas that are forgotten in one failover timeout at most: each is a request to the store.
const MOST_FORGOTTEN: usize = 16;

impl Membership {
    /// Whether this replica hears itself, and so may find others silent.
    pub(super) fn judges(&self, now: Moment) -> bool {
        self.sure_until().is_some_and(|until| now < until)
    }

    /// Forgets replicas that the view has forgotten and that are silent for long, here and in the
    /// store, which may keep them for ever.
    pub(super) fn forget(&mut self, turn: &mut Turn, now: Moment) {
        let Some((_, view)) = self.view.as_ref().filter(|_| self.judges(now)) else { return };
        self.next_forget = now.after(self.timing.failover);
        let silence = self.timing.failover.saturating_mul(FORGOTTEN_AFTER);
        let is_known = |name: &ReplicaName| *name == self.me || view.members.contains_key(name);
        for (replica, peer) in self.peers.forget(now, silence, MOST_FORGOTTEN, is_known) {
            self.news += 1;
            // A value that cannot be read may be of a newer version, and is left to that.
            if peer.heartbeat.is_some() {
                turn.effects.push(Effect::Forget { replica, revision: peer.revision });
            }
        }
    }

    /// The members that were not heard of for the failover timeout.
    pub(super) fn silent(&self, now: Moment) -> impl Iterator<Item = (&ReplicaName, Epoch)> {
        let judges = self.judges(now);
        self.deadlines().filter(move |(_, _, at)| judges && now >= *at).map(|(name, epoch, _)| (name, epoch))
    }

    /// When each other member is silent for too long.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = (&ReplicaName, Epoch, Moment)> {
        let members = self.view.iter().flat_map(|(_, view)| &view.members);
        members.filter(|(name, _)| **name != self.me).filter_map(|(name, member)| {
            if !is_there(member) {
                return None;
            }
            let synced = self.synced_at?;
            let peer = self.peers.get(name);
            // A later life of the replica speaks for no earlier one.
            let later = peer.and_then(Peer::epoch);
            let is_later = later.is_some_and(|later| later > member.epoch);
            let since = peer.filter(|_| !is_later).map_or(synced, |peer| peer.since.max(synced));
            Some((name, member.epoch, since.after(self.timing.failover)))
        })
    }
}

/// Whether a member of a view is expected to be heard of.
pub(super) fn is_there(member: &Member) -> bool {
    matches!(member.state, MemberState::Active | MemberState::Draining)
}
