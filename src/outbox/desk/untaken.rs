//! Transactions that no node ever took: how many there may be, of a sender and in all.
//!
//! Anybody can sign transactions that nodes refuse. Those of a sender count from the first refusal
//! on, with all that wait behind the refused one. While nodes give no word, none counts: an outage
//! of all nodes shuts nobody out.

use std::collections::BTreeMap;

use alloy_primitives::Address;

use super::{Desk, effect::NotDone, entry::Entry};
use crate::outbox::record::{Record, State};

/// Of one sender at most so many.
const OF_SENDER: usize = 64;
/// In all this part of `outbox.max_pending`.
const DIVISOR: usize = 10;
/// In all so many at least.
const LEAST: usize = 64;

/// A sender's transactions that no node ever took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Of {
    waiting: usize,
    /// Of these, the ones that a node refused.
    refused: usize,
}

impl Of {
    fn counts(self) -> usize {
        if self.refused > 0 { self.waiting } else { 0 }
    }
}

/// The transactions that no node ever took, counted.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    senders: BTreeMap<Address, Of>,
    /// Those of senders of whom a node refused one.
    all: usize,
}

impl Untaken {
    /// Counts a record in, or out.
    pub(super) fn count(&mut self, record: &Record, is_added: bool) {
        if record.state != State::Accepted {
            return;
        }
        let refused = usize::from(!record.refusals.is_empty());
        let of = self.senders.entry(record.sender).or_default();
        let before = of.counts();
        *of = if is_added {
            Of { waiting: of.waiting + 1, refused: of.refused + refused }
        } else {
            Of { waiting: of.waiting.saturating_sub(1), refused: of.refused.saturating_sub(refused) }
        };
        self.all = (self.all + of.counts()).saturating_sub(before);
        if *of == Of::default() {
            self.senders.remove(&record.sender);
        }
    }
}

impl Entry {
    /// Whether each node refused it when it was sent last, and none ever took it.
    pub(super) fn is_unwanted(&self) -> bool {
        self.record.state == State::Accepted && !self.flight.is_taken && self.flight.is_refused
    }
}

impl Desk {
    /// Whether a further transaction of this sender may come, as far as those count that no node
    /// took. A sender of whom nodes refused none may always send one: the nodes' words decide.
    pub(super) fn has_room_for(&self, sender: &Address) -> Result<(), NotDone> {
        let Some(of) = self.book.untaken.senders.get(sender).filter(|of| of.refused > 0) else { return Ok(()) };
        if of.waiting >= OF_SENDER {
            return Err(NotDone::Untaken { of_sender: true, limit: OF_SENDER });
        }
        if self.book.untaken.all < self.most_untaken() { Ok(()) } else { Err(self.too_many_untaken()) }
    }

    /// Whether there are as many transactions that no node took as may be.
    pub(super) fn is_full_of_untaken(&self) -> bool {
        self.book.untaken.all >= self.most_untaken()
    }

    /// Why one that nodes refused is not kept: there are more than may be, with this one.
    pub(super) fn one_too_many(&self) -> Option<NotDone> {
        (self.book.untaken.all > self.most_untaken()).then(|| self.too_many_untaken())
    }

    fn too_many_untaken(&self) -> NotDone {
        NotDone::Untaken { of_sender: false, limit: self.most_untaken() }
    }

    fn most_untaken(&self) -> usize {
        (self.terms.bounds.pending / DIVISOR).max(LEAST)
    }
}
