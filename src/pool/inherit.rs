//! Hands a pool's knowledge to the pool that takes its place, as at a reload: a node that stays is
//! known as before.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::Ordering::{Relaxed, Release},
    },
};

use tokio::time::{Instant, timeout};

use super::{
    NOBODY, Pool, SNAPSHOT_TIMEOUT,
    node::Node,
    snapshot::Switch,
    state::{Effect, Input, PoolState},
};
use crate::{
    domain::{
        node_id::{ByNode, NodeId},
        verdict::{Down, Verdict},
    },
    metrics::Metrics,
};

/// The most cordons that wait for their nodes' addresses to come back.
const MAX_AWAY: usize = 256;

impl Pool {
    /// Takes over from an earlier pool of the same side of the same network: the highest block that
    /// clients were shown, the state of the nodes that stay, and the nodes that the operator
    /// cordoned.
    /// A cordon of a node at an address of a DNS name waits for the address to come back: a name
    /// server may leave an address out for a moment.
    pub async fn inherit(&self, earlier: &Self) {
        let place = |node: &Node| {
            let is_same = |other: &Node| other.name == node.name && node.is_same_as(other);
            earlier.nodes.find_node(is_same)
        };
        let from: Vec<Option<NodeId>> = self.nodes.iter().map(place).collect();
        self.inherit_shown(earlier);
        self.inherit_lines(earlier);
        self.tied.inherit(&earlier.tied, |node| from.find_node(|old| *old == Some(node)));
        self.version.store(earlier.version.load(Relaxed), Relaxed);
        let announced = earlier.announced().clone();
        *self.announced() = announced;
        self.nodes.iter().for_each(|node| node.take_over());
        let legacy = earlier.state().legacy(&earlier.nodes, &from);
        {
            let mut state = self.state();
            state.inherit(legacy);
            let known = state.snapshot(&self.nodes, Instant::now()).nodes;
            for index in NodeId::all(self.nodes.len()).filter(|index| from[*index].is_some()) {
                self.mark(index, !known[index].verdict.answers(), &state);
            }
        }
        let (here, away): (Vec<_>, Vec<_>) = {
            let snapshot = earlier.snapshot();
            let nodes = earlier.nodes.iter().zip(&snapshot.nodes).filter(|(_, known)| known.cordons.local);
            let cordoned = nodes.map(|(node, _)| (node.name.clone(), node.settings().address.is_some()));
            let before = earlier.away().clone().into_iter().map(|name| (name, true));
            cordoned.chain(before).partition(|(name, _)| self.nodes.iter().any(|node| node.name == *name))
        };
        let away = away.into_iter().filter(|(_, is_from_dns)| *is_from_dns).map(|(name, _)| name);
        self.away().extend(away.take(MAX_AWAY));
        // The state task looks at its new knowledge, and publishes a snapshot.
        let mut changes = self.subscribe();
        if self.inbox.send(Input::Woken).await.is_ok() {
            let _ = timeout(SNAPSHOT_TIMEOUT, changes.changed()).await;
        }
        for (name, _) in here {
            self.cordon(&name, true).await;
        }
    }

    /// The place here of a node of another pool.
    pub fn place_of(&self, node: &Node) -> Option<NodeId> {
        self.nodes.find_node(|own| own.is_same_as(node))
    }

    /// Takes over the highest block that an earlier pool has shown clients. An event stream of the
    /// earlier pool may go on for a while after this pool has taken over.
    pub fn inherit_shown(&self, earlier: &Self) {
        let height = earlier.served();
        if self.served.fetch_max(height, Release) < height {
            let by = earlier.served_by().and_then(|by| self.place_of(&earlier.nodes[by]));
            self.served_by.store(by.map_or(NOBODY, |by| by.0), Relaxed);
        }
    }

    /// Lets another pool tell of the nodes: this one logs no verdict and counts no switch until it
    /// takes charge. A pool that is to replace another stands by from its start; a replaced pool
    /// stands by until its last call has ended.
    pub fn stand_by(&self) {
        self.is_in_charge.store(false, Relaxed);
    }

    /// Another pool has taken this one's place: this one stands by, and takes the other's word on
    /// the nodes that both have.
    pub fn retire(&self) {
        self.stand_by();
        self.is_retired.store(true, Relaxed);
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Relaxed)
    }

    pub(super) fn away(&self) -> MutexGuard<'_, BTreeSet<Arc<str>>> {
        // The set is whole at every moment, so a panic elsewhere cannot have spoilt the set.
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on calls go to this pool and no longer to `earlier`. The differences between the
    /// two are logged and counted, once: until now, only `earlier` told of its nodes.
    pub fn takes_charge(&self, earlier: &Self, metrics: &Metrics) {
        self.is_in_charge.store(true, Relaxed);
        let (old, new) = (earlier.snapshot(), self.snapshot());
        for (index, known) in new.nodes.by_node() {
            let place = earlier.nodes.find_node(|node| node.name == self.nodes[index].name);
            let from = place.map_or(Verdict::Down(Down::Unknown), |place| old.nodes[place].verdict);
            if from != known.verdict {
                self.perform(Effect::Verdict { node: index, from, to: known.verdict }, metrics);
            }
        }
        let from = old.active.map(|active| earlier.nodes[active].name.clone());
        let to = new.active.map(|active| self.nodes[active].name.clone());
        if from != to {
            let is_gone = from.as_ref().is_some_and(|from| self.nodes.iter().all(|node| node.name != *from));
            let last = new.switches.last().map_or("start", |last| last.reason);
            let reason = if is_gone { "removed" } else { last };
            let switch = Switch { from, to, reason, at: Instant::now() };
            self.perform(Effect::Switched(switch), metrics);
        }
        // The pool may have begun without any node that serves.
        self.changed.send_replace(());
    }

    pub(super) fn is_in_charge(&self) -> bool {
        self.is_in_charge.load(Relaxed)
    }

    /// Tells calls whether a node is out. Calls must see the same as the state, whichever task
    /// changed that last, so the caller holds the state's lock.
    pub(super) fn mark(&self, node: NodeId, is_out: bool, _state: &MutexGuard<'_, PoolState>) {
        self.nodes[node].is_out.store(is_out, Release);
    }

    /// The pool's state. The lock is held for moments only.
    pub(super) fn state(&self) -> MutexGuard<'_, PoolState> {
        // A panic of the state task is reported elsewhere; until then, old knowledge is worth more
        // than none.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
