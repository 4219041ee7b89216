//! The earnings of a client: its messages that reached the network, not the answers to its
//! requests.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use alloy_primitives::B256;
use serde::Serialize;
use tokio::sync::watch;

use super::{
    super::gossip::{Kind, Taken},
    Shared,
};

/// The duties of a validator client that succeeded and failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Earned {
    /// Slots that were judged.
    pub slots: u64,
    /// Votes for heads.
    pub votes: Tally,
    /// Sync messages for heads.
    pub sync_messages: Tally,
    /// Aggregates of attestations.
    pub aggregates: Tally,
    /// Contributions: aggregates of sync messages.
    pub contributions: Tally,
    /// Blocks.
    pub proposals: Proposals,
    /// Attestations and sync messages for a head that the client's own event stream had left
    /// already.
    pub passed: u64,
    /// Messages that were signed and that no node took.
    pub lost: u64,
    /// Times that a head outdated the duties that were known.
    pub refreshed: u64,
    /// Streams of events that ended.
    pub streams_lost: u64,
}

/// How often a duty of one kind was done, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// In time, for the slot's block, or the block before if the slot is empty.
    pub right: u64,
    /// For the slot's block, when two thirds of the slot were over (aggregates: the whole slot).
    pub late: u64,
    /// For another block than the slot's, or than the block before if the slot is empty.
    pub wrong: u64,
    /// Not at all.
    pub missed: u64,
}

/// Blocks of a client's validators, by their fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Proposals {
    /// In the chain, in time, with the client's fee recipient.
    pub paid: u64,
    /// In the chain, with another fee recipient.
    pub unpaid: u64,
    /// In the chain, but when a third of the slot was over: the slot's attesters did not wait so
    /// long.
    pub late: u64,
    /// Published, but not in the chain, which went on from another block.
    pub orphaned: u64,
    /// Not published, or taken by no node: the slot is empty.
    pub missed: u64,
}

impl std::ops::AddAssign for Proposals {
    fn add_assign(&mut self, other: Self) {
        self.paid += other.paid;
        self.unpaid += other.unpaid;
        self.late += other.late;
        self.orphaned += other.orphaned;
        self.missed += other.missed;
    }
}

impl Tally {
    /// The number of duties that were late, wrong or missed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.late + self.wrong + self.missed
    }

    /// All.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.right + self.failed()
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.late += other.late;
        self.wrong += other.wrong;
        self.missed += other.missed;
    }
}

impl std::ops::AddAssign<&Self> for Earned {
    fn add_assign(&mut self, other: &Self) {
        let Self { slots, votes, sync_messages, aggregates, contributions, proposals, .. } = other;
        let Self { passed, lost, refreshed, streams_lost, .. } = other;
        self.slots += slots;
        self.votes += *votes;
        self.sync_messages += *sync_messages;
        self.aggregates += *aggregates;
        self.contributions += *contributions;
        self.proposals += *proposals;
        self.passed += passed;
        self.lost += lost;
        self.refreshed += refreshed;
        self.streams_lost += streams_lost;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, late, wrong, missed } = self;
        write!(f, "{right} right, {late} late, {wrong} wrong, {missed} missed")
    }
}

impl fmt::Display for Earned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { votes, sync_messages, aggregates, contributions, proposals, passed, lost, .. } = self;
        let Proposals { paid, unpaid, late, orphaned, missed } = proposals;
        write!(
            f,
            "votes: {votes}; sync messages: {sync_messages}; aggregates: {aggregates}; contributions: {contributions}; "
        )?;
        write!(f, "proposals: {paid} paid, {unpaid} without fee recipient, {late} late, {orphaned} orphaned, ")?;
        write!(f, "{missed} missed; ")?;
        write!(f, "{passed} for a head that had been passed; {lost} signed messages lost")
    }
}

/// The messages that were signed for each slot: kind, validator, and the block that each names.
type Signed = BTreeMap<u64, Vec<(Kind, u64, B256)>>;

/// Signed messages of slots that are not judged yet, and the sum of the judged ones.
pub(super) struct Ledger {
    signed: Mutex<Signed>,
    earned: watch::Sender<Earned>,
}

impl Ledger {
    pub(super) fn new(earned: watch::Sender<Earned>) -> Self {
        Self { signed: Mutex::default(), earned }
    }

    pub(super) fn signed(&self, slot: u64, kind: Kind, validator: u64, root: B256) {
        self.lock().entry(slot).or_default().push((kind, validator, root));
    }

    /// Counts a vote, if the event stream had already gone on from the vote's block.
    pub(super) fn passed(&self, has_passed: bool) {
        if has_passed {
            self.earned.send_modify(|earned| earned.passed += 1);
        }
    }

    pub(super) fn refreshed(&self) {
        self.earned.send_modify(|earned| earned.refreshed += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Signed> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Counts the messages that the network has for a slot that is over.
    pub(super) fn judge(&self, slot: u64) {
        let taken = self.chain.taken(slot);
        let signed = self.ledger.lock().remove(&slot).unwrap_or_default();
        let of = |kind: Kind, validator: u64| taken.iter().find(|one| one.kind == kind && one.validator == validator);
        let block = self.chain.as_of(slot);
        let (start, length) = (self.times.start_of(slot), self.times.slot);
        let count = |tally: &mut Tally, kind: Kind, validator: u64| {
            let is_in_time = |one: &Taken| match kind {
                Kind::Aggregate | Kind::Contribution => one.at < start + length,
                _ => one.at < start + length * 2 / 3,
            };
            *match of(kind, validator) {
                None => &mut tally.missed,
                Some(one) if one.root != block.root => &mut tally.wrong,
                Some(one) if is_in_time(one) => &mut tally.right,
                Some(_) => &mut tally.late,
            } += 1;
        };
        self.ledger.earned.send_modify(|earned| {
            earned.slots += 1;
            for voter in self.voters(slot) {
                count(&mut earned.votes, Kind::Attestation, voter);
                count(&mut earned.aggregates, Kind::Aggregate, voter);
            }
            for &member in &self.client.validators {
                count(&mut earned.sync_messages, Kind::SyncMessage, member);
                count(&mut earned.contributions, Kind::Contribution, member);
            }
            let proposer = super::super::cl::proposer(slot);
            if self.client.validators.contains(&proposer) {
                let is_in_time = of(Kind::Block, proposer).is_some_and(|block| block.at < start + length / 3);
                let Proposals { paid, unpaid, late, orphaned, missed } = &mut earned.proposals;
                match block.paid.filter(|_| block.slot == slot) {
                    Some(recipient) if recipient != self.client.fee_recipient => *unpaid += 1,
                    Some(_) => *if is_in_time { paid } else { late } += 1,
                    // The slot's block comes from an arranged turn, not from a client.
                    None if block.slot == slot => {}
                    None => *if self.chain.was_proposed(slot) { orphaned } else { missed } += 1,
                }
            }
            let is_lost = |(kind, validator, root): &&(Kind, u64, B256)| {
                !taken.iter().any(|one| (one.kind, one.validator, one.root) == (*kind, *validator, *root))
            };
            earned.lost += u64::try_from(signed.iter().filter(is_lost).count()).unwrap_or(u64::MAX);
            earned.streams_lost = self.heads.borrow().losses;
        });
    }
}
