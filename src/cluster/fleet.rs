//! The fleet as this replica knows it: verdicts on nodes, counted over replicas, and the newest
//! changes. No I/O and no clock.
//!
//! `record` takes one event of a replica; the counts move by the difference to the event that was
//! known before, never by what the event says about the time before it. So the counts equal a
//! recount after any order of events, with repeats and losses: [`Fleet::recount`] is the same sum
//! made from scratch.
//!
//! A verdict counts while the view has that life of its replica as a member. So the verdicts of a
//! replica that fails or leaves go with the view, and an entry that a dead process left in the
//! store never counts.

mod heads;
mod wishes;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use self::{
    heads::{Claim, SharedHeads},
    wishes::{Report, WishEffect, WishInput, Wishes},
};
use crate::domain::fleet::{
    Change, Epoch, MemberState, NodeEvent, NodeKey, NodeRef, ReplicaName, Revision, VerdictWord, View,
};

/// The newest changes that are kept.
pub const KEPT_EVENTS: usize = 256;

/// For each node, how many replicas hold which verdict. No entry is 0.
pub type Counts = BTreeMap<NodeRef, BTreeMap<VerdictWord, u32>>;

/// A change that was new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recent {
    /// The replica and the node.
    pub key: NodeKey,
    /// The event's place among those of its replica.
    pub revision: Revision,
    /// The change.
    pub change: Change,
}

/// The result of recording an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The event is news.
    New,
    /// A later event of that replica about that node is known, or the same one.
    Stale,
    /// The event is of a life that is no member of the view: it does not count.
    NoMember,
    /// The event is of a kind that this version does not know. The verdict before stays.
    Unknown,
}

/// How replicas see a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How many hold the verdict that was asked for.
    pub count: u32,
    /// How many have a verdict on the node.
    pub of: u32,
}

impl Seen {
    /// Whether all replicas agree: a dead node. If only some do, the path to the node is broken.
    pub fn is_unanimous(&self) -> bool {
        self.count > 0 && self.count == self.of
    }

    /// Whether more than half of the replicas hold the verdict.
    pub fn is_majority(&self) -> bool {
        self.count > self.of / 2
    }
}

/// The newest event of one replica about one node.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    revision: Revision,
    /// The verdict; none of a removed node, which is remembered so that no earlier event counts.
    verdict: Option<VerdictWord>,
    last_error: Option<String>,
    is_listed: bool,
}

/// The verdicts of all replicas.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    known: BTreeMap<NodeKey, Known>,
    counts: Counts,
    /// The lives whose verdicts count.
    members: BTreeMap<ReplicaName, Epoch>,
    recent: VecDeque<Recent>,
    unknown: u64,
}

impl Fleet {
    /// Takes an event of a replica about a node.
    pub fn record(&mut self, key: &NodeKey, event: &NodeEvent) -> Recorded {
        if let Some(known) = self.known.get_mut(key) {
            known.is_listed = true;
            if known.revision >= event.revision {
                return Recorded::Stale;
            }
        }
        let (verdict, last_error) = match &event.change {
            Change::Applied { to, last_error, .. } => (Some(to.clone()), last_error.clone()),
            Change::Removed { .. } => (None, None),
            Change::Other(_) => {
                self.unknown += 1;
                return Recorded::Unknown;
            }
        };
        let fresh = Known { revision: event.revision, verdict, last_error, is_listed: true };
        let after = self.counted(key, &fresh).cloned();
        let before = self.known.get(key).and_then(|known| self.counted(key, known)).cloned();
        self.known.insert(key.clone(), fresh);
        self.count(&key.node, before.as_ref(), after.as_ref());
        if self.members.get(&key.replica) != Some(&event.revision.epoch) {
            return Recorded::NoMember;
        }
        let (key, change) = (key.clone(), event.change.clone());
        self.remember(Recent { key, revision: event.revision, change });
        Recorded::New
    }

    /// The verdict of an entry, if the verdict counts.
    fn counted<'a>(&self, key: &NodeKey, known: &'a Known) -> Option<&'a VerdictWord> {
        let is_member = self.members.get(&key.replica) == Some(&known.revision.epoch);
        known.verdict.as_ref().filter(|_| is_member)
    }

    /// There is a new view: verdicts of lives that are members no more leave the counts, and those
    /// of new members enter. Each is a change too. How many verdicts left.
    pub fn view(&mut self, view: &View) -> usize {
        let is_member = |state: &MemberState| matches!(state, MemberState::Active | MemberState::Draining);
        let members = view.members.iter().filter(|(_, member)| is_member(&member.state));
        let members = members.map(|(replica, member)| (replica.clone(), member.epoch)).collect();
        let before = std::mem::replace(&mut self.members, members);
        let mut left = 0;
        for (key, known) in self.known.clone() {
            let Some(verdict) = known.verdict else { continue };
            let was_in = before.get(&key.replica) == Some(&known.revision.epoch);
            let is_in = self.members.get(&key.replica) == Some(&known.revision.epoch);
            let change = match (was_in, is_in) {
                (true, false) => {
                    left += 1;
                    self.count(&key.node, Some(&verdict), None);
                    Change::Removed { from: verdict }
                }
                (false, true) => {
                    self.count(&key.node, None, Some(&verdict));
                    Change::Applied { from: None, to: verdict, last_error: known.last_error }
                }
                _ => continue,
            };
            self.remember(Recent { key, revision: known.revision, change });
        }
        left
    }

    /// Entries of lives that are over: a leader deletes them by compare-and-delete.
    pub fn orphans(&self) -> impl Iterator<Item = &NodeKey> {
        let is_over = |(key, known): &(&NodeKey, &Known)| {
            self.members.get(&key.replica).is_some_and(|epoch| known.revision.epoch < *epoch)
        };
        self.known.iter().filter(is_over).map(|(key, _)| key)
    }

    /// The watch begins anew: entries that do not come again until [`Fleet::listed`] are gone.
    pub fn relist(&mut self) {
        self.known.values_mut().for_each(|known| known.is_listed = false);
    }

    /// All entries of the store have come.
    pub fn listed(&mut self) {
        let gone: Vec<_> =
            self.known.iter().filter(|(_, known)| !known.is_listed).map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| _ = self.forget(key));
    }

    /// The entry of a node was deleted.
    pub fn deleted(&mut self, key: &NodeKey) {
        self.forget(key);
    }

    /// The bucket is another: all is forgotten but the newest changes.
    pub fn recreated(&mut self) {
        (self.known, self.counts, self.members) = (BTreeMap::new(), Counts::new(), BTreeMap::new());
    }

    /// Forgets the verdict of one replica on one node. Whether there was one.
    fn forget(&mut self, key: &NodeKey) -> bool {
        let Some(known) = self.known.remove(key) else { return false };
        let Some(from) = self.counted(key, &known).cloned() else { return false };
        self.count(&key.node, Some(&from), None);
        self.remember(Recent { key: key.clone(), revision: known.revision, change: Change::Removed { from } });
        true
    }

    fn count(&mut self, node: &NodeRef, from: Option<&VerdictWord>, to: Option<&VerdictWord>) {
        let words = self.counts.entry(node.clone()).or_default();
        if let Some(to) = to {
            *words.entry(to.clone()).or_default() += 1;
        }
        if let Some(from) = from
            && let Some(count) = words.get_mut(from)
        {
            *count -= 1;
            if *count == 0 {
                words.remove(from);
            }
        }
        if words.is_empty() {
            self.counts.remove(node);
        }
    }

    fn remember(&mut self, recent: Recent) {
        if self.recent.len() == KEPT_EVENTS {
            self.recent.pop_front();
        }
        self.recent.push_back(recent);
    }

    /// The counts, kept with each event.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The counts, made from scratch.
    pub fn recount(&self) -> Counts {
        let mut counts = Counts::new();
        for (key, known) in &self.known {
            if let Some(verdict) = self.counted(key, known) {
                *counts.entry(key.node.clone()).or_default().entry(verdict.clone()).or_default() += 1;
            }
        }
        counts
    }

    /// '3 of 5 replicas see geth-2 down'.
    pub fn seen(&self, node: &NodeRef, verdict: &VerdictWord) -> Seen {
        let words = self.counts.get(node);
        let count = words.and_then(|words| words.get(verdict)).copied().unwrap_or_default();
        Seen { count, of: words.map_or(0, |words| words.values().sum()) }
    }

    /// Each replica's verdict on a node, with the node's last error as that replica knows it.
    pub fn verdicts(&self, node: &NodeRef) -> impl Iterator<Item = (&ReplicaName, &VerdictWord, Option<&str>)> {
        let of_node = self.known.iter().filter(move |(key, _)| key.node == *node);
        of_node.filter_map(|(key, known)| Some((&key.replica, self.counted(key, known)?, known.last_error.as_deref())))
    }

    /// The nodes on which some replica has a verdict.
    pub fn nodes(&self) -> BTreeSet<&NodeRef> {
        self.counts.keys().collect()
    }

    /// The newest changes, oldest first: [`KEPT_EVENTS`] at most.
    pub fn recent(&self) -> impl ExactSizeIterator<Item = &Recent> {
        self.recent.iter()
    }

    /// How many events were of a kind that this version does not know.
    pub fn unknown_events(&self) -> u64 {
        self.unknown
    }
}

/// The events of this replica's own nodes, to be published. Events that the store has not taken
/// yet are merged: the newest one of a node is enough.
#[derive(Clone, Debug, Default)]
pub struct OwnVerdicts {
    epoch: Option<Epoch>,
    sequence: u64,
    verdicts: BTreeMap<NodeRef, (VerdictWord, Option<String>)>,
    unsent: BTreeMap<NodeRef, NodeEvent>,
}

impl OwnVerdicts {
    /// The verdict on a node is this from now on. A repeat is no event.
    pub fn applied(&mut self, node: &NodeRef, to: VerdictWord, last_error: Option<String>) {
        let before = self.verdicts.insert(node.clone(), (to.clone(), last_error.clone()));
        let from = before.map(|(verdict, _)| verdict);
        if from.as_ref() != Some(&to) {
            self.push(node, Change::Applied { from, to, last_error });
        }
    }

    /// The replica has the node no longer, by a reload.
    pub fn removed(&mut self, node: &NodeRef) {
        if let Some((from, _)) = self.verdicts.remove(node) {
            self.push(node, Change::Removed { from });
        }
    }

    /// The replica has this life from now on, or none. In a new life all verdicts are told anew;
    /// without one, none is.
    pub fn life(&mut self, epoch: Option<Epoch>) {
        if self.epoch == epoch {
            return;
        }
        (self.epoch, self.sequence) = (epoch, 0);
        self.unsent.clear();
        for (node, (to, last_error)) in self.verdicts.clone() {
            self.push(&node, Change::Applied { from: None, to, last_error });
        }
    }

    fn push(&mut self, node: &NodeRef, change: Change) {
        let Some(epoch) = self.epoch else { return };
        self.sequence += 1;
        let revision = Revision { epoch, sequence: self.sequence };
        self.unsent.insert(node.clone(), NodeEvent::new(revision, change));
    }

    /// The events that the store does not have, one for each node.
    pub fn unsent(&self) -> impl Iterator<Item = (&NodeRef, &NodeEvent)> {
        self.unsent.iter()
    }

    /// The store has this entry at the own key of a node; none: an entry that cannot be read. One
    /// that is not of this life was written over the own one, and the verdict is told anew.
    pub fn found(&mut self, node: &NodeRef, event: Option<&NodeEvent>) {
        match event {
            Some(event) if Some(event.revision.epoch) == self.epoch => self.sent(node, event.revision),
            _ => {
                if let (Some((to, last_error)), false) =
                    (self.verdicts.get(node).cloned(), self.unsent.contains_key(node))
                {
                    self.push(node, Change::Applied { from: None, to, last_error });
                }
            }
        }
    }

    /// The store has this event.
    pub fn sent(&mut self, node: &NodeRef, revision: Revision) {
        if self.unsent.get(node).is_some_and(|event| event.revision == revision) {
            self.unsent.remove(node);
        }
    }
}
