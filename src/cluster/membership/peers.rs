//! The newest heartbeats of all replicas, as many as are kept.

use std::{collections::BTreeMap, sync::Arc};

use super::super::moment::Moment;
use crate::domain::fleet::{Epoch, Heartbeat, ReplicaName, StoreRevision};

/// The most replicas whose heartbeats are kept, members of the view beside. The bucket may hold
/// those of many more, all dead: the newest are kept.
const MOST_PEERS: usize = 256;

/// The newest heartbeat of a replica.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) revision: StoreRevision,
    pub(super) heartbeat: Option<Arc<Heartbeat>>,
    /// When this replica first saw this revision.
    pub(super) since: Moment,
    /// Told since the watch began.
    is_listed: bool,
}

impl Peer {
    pub(super) fn new(revision: StoreRevision, heartbeat: Option<Arc<Heartbeat>>, since: Moment) -> Self {
        Self { revision, heartbeat, since, is_listed: true }
    }

    /// The life that the heartbeat is of.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        Some(self.heartbeat.as_ref()?.epoch_at(self.revision))
    }
}

/// The newest heartbeats.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(BTreeMap<ReplicaName, Peer>);

impl Peers {
    pub(super) fn get(&self, replica: &ReplicaName) -> Option<&Peer> {
        self.0.get(replica)
    }

    /// Takes a heartbeat that the watch told. `is_kept`: the replica is not left out for want of
    /// room. Whether all replicas have room.
    pub(super) fn heard(&mut self, replica: ReplicaName, fresh: Peer, is_kept: impl Fn(&ReplicaName) -> bool) -> bool {
        if let Some(peer) = self.0.get_mut(&replica) {
            peer.is_listed = true;
            if peer.revision < fresh.revision {
                *peer = fresh;
            }
            return true;
        }
        self.0.insert(replica, fresh);
        if self.0.len() <= MOST_PEERS {
            return true;
        }
        let oldest = self.0.iter().filter(|(name, _)| !is_kept(name)).min_by_key(|(_, peer)| peer.revision);
        let oldest = oldest.map(|(name, _)| name.clone());
        oldest.is_none_or(|name| self.0.remove(&name).is_none())
    }

    /// The key of a replica was deleted at `revision`.
    pub(super) fn gone(&mut self, replica: &ReplicaName, revision: StoreRevision) {
        if self.0.get(replica).is_some_and(|peer| peer.revision < revision) {
            self.0.remove(replica);
        }
    }

    /// The watch begins anew.
    pub(super) fn reset(&mut self) {
        self.0.values_mut().for_each(|peer| peer.is_listed = false);
    }

    /// The watch has listed all entries: any other is gone.
    pub(super) fn synced(&mut self) {
        self.0.retain(|_, peer| peer.is_listed);
    }

    /// Forgets replicas that were silent for so many milliseconds, `most` at most. Returns them.
    pub(super) fn forget(
        &mut self,
        now: Moment,
        silence: u64,
        most: usize,
        is_kept: impl Fn(&ReplicaName) -> bool,
    ) -> Vec<(ReplicaName, Peer)> {
        let is_over = |(name, peer): &(&ReplicaName, &Peer)| now.since(peer.since) >= silence && !is_kept(name);
        let over: Vec<_> = self.0.iter().filter(is_over).take(most).map(|(name, _)| name.clone()).collect();
        over.into_iter().filter_map(|name| self.0.remove_entry(&name)).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ReplicaName, &Peer)> {
        self.0.iter()
    }
}
