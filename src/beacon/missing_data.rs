//! Data that one node has and another has not.
//!
//! Rule: where a node lacks the data of a request, all other nodes are asked before the client is
//! told that the data is not there; and nodes that probably lack the data are asked last. Reason:
//! one node has pruned data that another keeps, or does not offer the route. Example: node A
//! answers 404 for the blobs of an old slot, and node B has them. The client gets them from B, and
//! the next request for blobs of that age or older goes to B first.

use std::cmp::Reverse;

use super::{Request, RequestRun, Requests, answer::Answer, attempt::OLD, blobs::Blobs};
use crate::{
    config::Policy,
    domain::{
        beacon_route::Class,
        chain::USUAL_EPOCH,
        node_id::NodeId,
        subject::{Kept, Subject},
    },
};

impl Requests {
    /// The kind of data that a request asks for, and the slot that its path names, if there is one.
    fn subject(&self, request: &Request) -> Option<(Kept, u64)> {
        let snapshot = self.pool.snapshot();
        let beacon = snapshot.chain.as_ref().and_then(|chain| chain.beacon.as_ref());
        let epoch = beacon.map_or(USUAL_EPOCH, |beacon| beacon.epoch());
        let subject = Subject::of(request.target.path(), epoch)?;
        Some((subject.kept, subject.slot?))
    }

    /// The nodes that probably lack the data of a request.
    pub(super) fn lacking(&self, request: &Request) -> Vec<NodeId> {
        let Some((kept, slot)) = self.subject(request).filter(|_| request.route.class == Class::Read) else {
            return Vec::new();
        };
        NodeId::all(self.pool.nodes.len()).filter(|&node| self.pool.nodes[node].bounds.is_beyond(kept, slot)).collect()
    }

    /// Whether the request may go to any healthy node: requests are spread, and all these nodes
    /// have the same answer.
    pub(super) fn is_settled(&self, request: &Request) -> bool {
        if self.settings.policy == Policy::First || request.route.class != Class::Read {
            return false;
        }
        let head = self.pool.snapshot().head.unwrap_or(0);
        request.route.group == "config"
            || self.subject(request).is_some_and(|(_, slot)| slot.saturating_add(OLD) <= head)
    }
}

impl RequestRun<'_> {
    /// The blobs of an answer that may be fewer than another node has.
    pub(super) fn doubtful(&self, node: NodeId, answer: &Answer) -> Option<Blobs> {
        let (pool, snapshot) = (&self.requests.pool, self.requests.pool.snapshot());
        let may = |other: NodeId| other != node && !self.tries.tried.contains(&other);
        let any = NodeId::all(pool.nodes.len()).any(|other| may(other) && snapshot.nodes[other].verdict.answers());
        // Another node's earlier answer may have more of them.
        if any || !self.lacking.is_empty() { Blobs::of(self.request, answer) } else { None }
    }

    /// `node` does not have all of the data, by this answer.
    pub(super) fn lacks(&mut self, node: NodeId, answer: Answer) {
        self.lacking.push(node);
        // Most of the data is better than a 404, and a 404 is better than an error.
        let worth = |answer: &Answer| match answer.status {
            200..=299 => (0, Reverse(answer.length())),
            status => (status / 100, Reverse(None)),
        };
        if self.is_best_foreign || self.best.as_ref().is_none_or(|best| worth(&answer) < worth(best)) {
            (self.best, self.is_best_foreign) = (Some(answer), false);
        }
    }

    /// `node` had the data, and others did not: notes for each node from which slot on the node has
    /// data.
    pub(super) fn learn(&mut self, node: NodeId, answer: &Answer) {
        let Some((kept, slot)) = self.requests.subject(self.request).filter(|_| answer.status == 200) else { return };
        let nodes = &self.requests.pool.nodes;
        nodes[node].bounds.has(kept, slot);
        let lacking = self.lacking.drain(..);
        // A node may lack new data for a moment only.
        let head = self.requests.pool.snapshot().head.unwrap_or(0);
        if slot.saturating_add(OLD) <= head {
            lacking.for_each(|other| nodes[other].bounds.lacks(kept, slot));
        }
    }
}
