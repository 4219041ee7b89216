//! What differs between nodes: one has pruned what another keeps, or does not offer it. All are
//! asked before the client hears that it is not there, and those that are thought to lack it come
//! last.

use std::cmp::Reverse;

use super::{Course, Request, Rest, answer::Answer, attempt::OLD, blobs::Blobs};
use crate::{
    config::Policy,
    domain::{
        beacon_route::Class,
        chain::USUAL_EPOCH,
        subject::{Kept, Subject},
    },
};

impl Rest {
    /// What a request asks for, if it is of a slot that its path names.
    fn subject(&self, request: &Request) -> Option<(Kept, u64)> {
        let snapshot = self.pool.snapshot();
        let beacon = snapshot.chain.as_ref().and_then(|chain| chain.beacon.as_ref());
        let epoch = beacon.map_or(USUAL_EPOCH, |beacon| beacon.epoch());
        let subject = Subject::of(request.target.path(), epoch)?;
        Some((subject.kept, subject.slot?))
    }

    /// The nodes that are thought to lack what is asked for.
    pub(super) fn lacking(&self, request: &Request) -> Vec<usize> {
        let Some((kept, slot)) = self.subject(request).filter(|_| request.route.class == Class::Read) else {
            return Vec::new();
        };
        (0..self.pool.nodes.len()).filter(|&node| self.pool.nodes[node].bounds.is_beyond(kept, slot)).collect()
    }

    /// Whether requests are spread, and all nodes that are well say the same to this one: it may go
    /// to any.
    pub(super) fn is_settled(&self, request: &Request) -> bool {
        if self.settings.policy != Policy::Spread || request.route.class != Class::Read {
            return false;
        }
        let head = self.pool.snapshot().head.unwrap_or(0);
        request.route.group == "config"
            || self.subject(request).is_some_and(|(_, slot)| slot.saturating_add(OLD) <= head)
    }
}

impl Course<'_> {
    /// The blobs of an answer that may be fewer than another node has.
    pub(super) fn doubtful(&self, node: usize, answer: &Answer) -> Option<Blobs> {
        let (pool, snapshot) = (&self.rest.pool, self.rest.pool.snapshot());
        let may = |other: usize| other != node && !self.tries.tried.contains(&other);
        let any = (0..pool.nodes.len()).any(|other| may(other) && snapshot.nodes[other].verdict.answers());
        // What another said before may be as good.
        if any || !self.lacking.is_empty() { Blobs::of(self.request, answer) } else { None }
    }

    /// The node does not have it, and said so with this.
    pub(super) fn lacks(&mut self, node: usize, answer: Answer) {
        self.lacking.push(node);
        // The most of it is better than a word that it is not there, and that is better than an
        // error.
        let worth = |answer: &Answer| match answer.status {
            200..=299 => (0, Reverse(answer.length())),
            status => (status / 100, Reverse(None)),
        };
        if self.best.as_ref().is_none_or(|best| worth(&answer) < worth(best)) {
            self.best = Some(answer);
        }
    }

    /// `node` had it, and others did not: where each has its bound is learnt.
    pub(super) fn learn(&mut self, node: usize, answer: &Answer) {
        let Some((kept, slot)) = self.rest.subject(self.request).filter(|_| answer.status == 200) else { return };
        let nodes = &self.rest.pool.nodes;
        nodes[node].bounds.has(kept, slot);
        let lacking = self.lacking.drain(..);
        // A node may not have what is new yet, which it has a moment later.
        let head = self.rest.pool.snapshot().head.unwrap_or(0);
        if slot.saturating_add(OLD) <= head {
            lacking.for_each(|other| nodes[other].bounds.lacks(kept, slot));
        }
    }
}
