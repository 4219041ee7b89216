//! What must hold in the world: with each sending, and in the end.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;

use super::{
    super::super::{
        entry::{Flight, Look},
        *,
    },
    World,
};
use crate::outbox::record::{EventKind, StateName};

impl World {
    pub(super) fn check_sending(&mut self, id: &TxId, send: u64) {
        let record = self.desk.record(id).expect("what is sent is on the desk").clone();
        assert!(record.state.is_pending(), "seed {}: {} is sent, and is {:?}", self.seed, id.hash, record.state);
        for other in self.desk.records() {
            let is_earlier = other.sender == record.sender && other.nonce < record.nonce;
            if is_earlier && other.state.is_pending() {
                let slot = (other.sender, other.nonce);
                assert!(self.heard.contains(&slot), "seed {}: {} before {slot:?}", self.seed, id.hash);
            }
        }
        let open = self.open.entry(id.tenant.clone()).or_default();
        // Nor is one whose transaction lost its block since.
        open.retain(|hash, send| {
            let of = self.desk.record(&TxId { hash: *hash, ..id.clone() });
            let is_later = |step: &Transition| step.to == StateName::Reorged && step.at.0 >= self.decided_at[send];
            !of.is_some_and(|record| record.history.iter().any(is_later))
        });
        // A sending that takes the place of another is not waited for.
        open.insert(id.hash, send);
        assert!(open.len() <= 2 * Self::terms().in_flight, "seed {}: too many on their way: {open:?}", self.seed);
    }

    /// Something is ahead for each transaction that waits for a block, and the nodes are asked in
    /// turn for each that some node has.
    pub(super) fn check_that_none_is_stuck(&self) {
        for entry in self.desk.book.iter().filter(|entry| entry.record.state.is_pending()) {
            let Flight { want, under_way, retry, look, is_taken, .. } = &entry.flight;
            let is_sent = want.is_some() || under_way.is_some() || retry.is_some();
            let is_looked_for = *look != Look::No || !entry.is_unwanted();
            assert!(is_sent || is_looked_for, "seed {}: {} is stuck", self.seed, entry.record.id.hash);
            let has_turn = *look != Look::No || self.desk.book.rounds.until(u64::MAX).any(|key| *key == entry.key());
            assert!(has_turn || !is_taken, "seed {}: {} is not asked for", self.seed, entry.record.id.hash);
        }
    }

    pub(super) fn check(&self) {
        let seed = self.seed;
        let left: Vec<&Record> = self.desk.records().collect();
        assert!(self.desk.is_idle(), "seed {seed}: the desk follows for ever: {left:#?}");
        assert!(self.waiting.is_empty(), "seed {seed}: {:?} wait for ever", self.waiting);
        assert_eq!(self.desk.in_flight(), 0, "seed {seed}");
        for id in &self.acknowledged {
            assert!(self.disk.records.contains_key(id), "seed {seed}: {} is lost", id.hash);
        }
        let mined: BTreeMap<B256, BlockId> =
            self.chain.iter().flat_map(|block| block.transactions.iter().map(|tx| (tx.hash, block.id))).collect();
        for (id, record) in &self.disk.records {
            let (hash, tx) = (id.hash, self.txs[&id.hash]);
            let canonical = mined.get(&hash);
            let nonces = self.account(tx.sender, self.chain.len());
            let says = format!("seed {seed}: {hash} in {canonical:?} of nonce {} is {record:#?}", tx.nonce);
            match &record.state {
                State::Final { block } => assert_eq!(canonical, Some(block), "{says}"),
                State::Replaced { by, block, is_final } => {
                    assert!(*is_final && mined.get(by) == Some(block), "{says}");
                }
                State::Refused { .. } => assert!(tx.is_poison || (canonical.is_none() && nonces > tx.nonce), "{says}"),
                State::Cancelled => {
                    let is_untold = self.had_gaps || self.mined_before.contains(&hash);
                    assert!(self.cancelled.contains(&hash) && (canonical.is_none() || is_untold), "{says}");
                }
                State::Expired => assert!(nonces <= tx.nonce || self.had_gaps, "{says}"),
                _ => panic!("{says}"),
            }
            let last_sent = self.sent_at.get(id).copied().unwrap_or(0);
            assert!(last_sent < record.keep_until.unwrap().0 - Self::terms().keep + 1, "{says}: sent when it was over");
            self.check_history(record);
        }
        let told = self.disk.deliveries.iter().map(|delivery| (&delivery.tenant, &delivery.event));
        let told: BTreeSet<_> = told.collect();
        assert_eq!(told.len(), self.disk.deliveries.len(), "seed {seed}: an event has two deliveries");
        let sums: Vec<_> = self.desk.sums().map(|(tenant, sum)| (tenant.clone(), *sum)).collect();
        assert_eq!(sums, self.disk.stored().sums, "seed {seed}: the tally equals a recount");
    }

    pub(super) fn check_history(&self, record: &Record) {
        let id = &record.id;
        let seqs: Vec<u64> = record.history.iter().map(|transition| transition.seq).collect();
        assert!(seqs.len() == 64 || seqs.iter().copied().eq(1..=record.seq), "seed {}: {seqs:?}", self.seed);
        for transition in &record.history {
            let event = record.event(transition.seq);
            let is_wanted = EventKind::of(transition.to).is_some();
            assert_eq!(self.disk.marks.contains(&(id.tenant.clone(), event.clone())), is_wanted);
            let made = self.disk.deliveries.iter().filter(|delivery| delivery.event == event).count();
            assert_eq!(made, usize::from(is_wanted), "seed {}: {transition:?} of {}", self.seed, id.hash);
        }
    }
}
