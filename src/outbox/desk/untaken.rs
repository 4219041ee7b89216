//! Transactions that no node ever took: how many there may be, of a sender, of a tenant and in all.
//!
//! Anybody can sign transactions that nodes refuse. Those of a sender count from the first refusal
//! on, with all that wait behind the refused one. While nodes give no word, none counts: an outage
//! of all nodes shuts nobody out.
//!
//! Anybody can also hand in old transactions of any sender, and sign new ones for a nonce that the
//! signer has used. Those have bounds of their own, in which the sender does not count.
//!
//! Those that other replicas see through count here as well: else a client that calls each replica
//! in turn would have as many bounds.
//!
//! A tenant may have the part of these that its bound of pending transactions is of all pending
//! ones. So a tenant with a bound of its own shuts no other tenant out.

use std::collections::BTreeMap;

use alloy_primitives::Address;

use super::{Desk, effect::NotDone, entry::Entry, word::is_of_used_nonce};
use crate::outbox::record::{Record, Refusal, State, TenantName};

/// Of one sender at most so many.
const OF_SENDER: usize = 64;
/// In all this part of `outbox.max_pending`.
const DIVISOR: usize = 10;
/// In all so many at least.
const LEAST: usize = 64;
/// Of one tenant so many at least.
const LEAST_OF_TENANT: usize = 16;

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

/// Why no node has a transaction, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    /// No node gave a word.
    NoWord,
    /// A node refused it.
    Refused,
    /// A node said that its nonce is used. That is no refusal of the sender's.
    NonceUsed,
}

impl Lack {
    /// `None`: a node took it, or its life is over.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        let Record { state, refusals, .. } = &entry.record;
        let why = if entry.flight.is_nonce_used {
            Self::NonceUsed
        } else if refusals.is_empty() {
            Self::NoWord
        } else {
            Self::Refused
        };
        (*state == State::Accepted).then_some(why)
    }
}

/// Transactions, by tenant and in all.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    tenants: BTreeMap<TenantName, usize>,
    all: usize,
}

impl Counts {
    /// Of the tenant's, so many count no more, and so many count now.
    fn change(&mut self, tenant: &TenantName, before: usize, after: usize) {
        if before == after {
            return;
        }
        self.all = (self.all + after).saturating_sub(before);
        let of_tenant = self.tenants.entry(tenant.clone()).or_default();
        *of_tenant = (*of_tenant + after).saturating_sub(before);
        if *of_tenant == 0 {
            self.tenants.remove(tenant);
        }
    }

    fn of(&self, tenant: &TenantName) -> usize {
        self.tenants.get(tenant).copied().unwrap_or(0)
    }
}

/// The transactions that no node ever took, counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct Untaken {
    senders: BTreeMap<(Address, TenantName), Of>,
    /// Those of senders of whom a node refused one.
    refused: Counts,
    /// Those whose nonce is used, by a node's word.
    used: Counts,
}

impl Untaken {
    /// Counts a transaction of this sender in, or out.
    pub(super) fn count(&mut self, (sender, tenant): (Address, &TenantName), why: Lack, is_added: bool) {
        if why == Lack::NonceUsed {
            return self.used.change(tenant, usize::from(!is_added), usize::from(is_added));
        }
        let refused = usize::from(why == Lack::Refused);
        let of = self.senders.entry((sender, tenant.clone())).or_default();
        let before = of.counts();
        *of = if is_added {
            Of { waiting: of.waiting + 1, refused: of.refused + refused }
        } else {
            Of { waiting: of.waiting.saturating_sub(1), refused: of.refused.saturating_sub(refused) }
        };
        let after = of.counts();
        if *of == Of::default() {
            self.senders.remove(&(sender, tenant.clone()));
        }
        self.refused.change(tenant, before, after);
    }

    /// Counts a transaction in, or out, that another replica sees through.
    pub(in crate::outbox) fn count_foreign(&mut self, record: &Record, is_added: bool) {
        let is_old = |refusal: &Refusal| is_of_used_nonce(&refusal.message.to_ascii_lowercase());
        let why = match &record.refusals[..] {
            [] => Lack::NoWord,
            refusals if refusals.iter().any(is_old) => Lack::NonceUsed,
            _ => Lack::Refused,
        };
        if record.state == State::Accepted {
            self.count((record.sender, &record.id.tenant), why, is_added);
        }
    }

    fn counts(&self, is_nonce_used: bool) -> &Counts {
        if is_nonce_used { &self.used } else { &self.refused }
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
    pub(super) fn has_room_for(&self, tenant: &TenantName, sender: &Address) -> Result<(), NotDone> {
        let of = self.book.untaken.senders.get(&(*sender, tenant.clone()));
        let Some(of) = of.filter(|of| of.refused > 0) else { return Ok(()) };
        if of.waiting >= OF_SENDER {
            return Err(NotDone::Untaken { of_sender: true, limit: OF_SENDER });
        }
        if self.is_full(tenant, false) { Err(self.too_many_untaken(tenant)) } else { Ok(()) }
    }

    /// Whether there are as many transactions that no node took as may be, of the tenant or in all.
    pub(super) fn is_full_of_untaken(&self, tenant: &TenantName) -> bool {
        self.is_full(tenant, false) || self.is_full(tenant, true)
    }

    fn is_full(&self, tenant: &TenantName, is_nonce_used: bool) -> bool {
        let counts = self.book.untaken.counts(is_nonce_used);
        counts.all >= self.most_untaken() || counts.of(tenant) >= self.most_untaken_of(tenant)
    }

    /// Why a transaction of the tenant's that nodes refused, for a used nonce or otherwise, is not
    /// kept: with this one there are more than may be.
    pub(super) fn one_too_many(&self, tenant: &TenantName, is_nonce_used: bool) -> Option<NotDone> {
        let counts = self.book.untaken.counts(is_nonce_used);
        let is_too_many = counts.all > self.most_untaken() || counts.of(tenant) > self.most_untaken_of(tenant);
        is_too_many.then(|| self.too_many_untaken(tenant))
    }

    fn too_many_untaken(&self, tenant: &TenantName) -> NotDone {
        NotDone::Untaken { of_sender: false, limit: self.most_untaken_of(tenant) }
    }

    fn most_untaken(&self) -> usize {
        (self.terms.bounds.pending / DIVISOR).max(LEAST)
    }

    fn most_untaken_of(&self, tenant: &TenantName) -> usize {
        let (most, all) = (self.most_untaken(), self.terms.bounds.pending.max(1));
        let (_, of_tenant) = self.terms.pending_of(tenant);
        most.saturating_mul(of_tenant).div_ceil(all).max(LEAST_OF_TENANT).min(most)
    }
}
