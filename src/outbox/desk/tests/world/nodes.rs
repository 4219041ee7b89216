//! The nodes of the world, and their chain.

use std::{collections::BTreeSet, sync::Arc};

use alloy_primitives::{Address, B256};

use super::{
    super::{super::*, bench::*},
    CALM, FINAL_BEHIND, SENDERS, Tx, World,
};

/// A node: whether it answers, whether it takes new transactions, and those that it holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) is_dead: bool,
    pub(super) refuses: bool,
    pub(super) pool: BTreeSet<B256>,
}

impl World {
    /// What node `at` says of a transaction.
    pub(super) fn word(&mut self, at: usize, hash: B256) -> Word {
        let tx = self.txs[&hash];
        let used = self.account(tx.sender, self.chain.len());
        if self.nodes[at].is_dead {
            return Word::Lost;
        }
        let is_lost = self.chance(8);
        let is_cheap = self.chance(50);
        let rivals: Vec<B256> = self.nodes[at].pool.iter().copied().collect();
        let rivals = rivals
            .into_iter()
            .filter(|other| *other != hash && self.txs[other].sender == tx.sender && self.txs[other].nonce == tx.nonce);
        let rivals: Vec<B256> = rivals.collect();
        let node = &mut self.nodes[at];
        let word = if tx.is_poison {
            Word::RefusedForGood(words("intrinsic gas too low"))
        } else if tx.nonce < used {
            Word::NonceUsed(words("nonce too low"))
        } else if node.pool.contains(&hash) {
            Word::Taken
        } else if node.refuses || (!rivals.is_empty() && is_cheap) {
            Word::RefusedNow(words("underpriced"))
        } else {
            for rival in rivals {
                node.pool.remove(&rival);
            }
            node.pool.insert(hash);
            Word::Taken
        };
        if is_lost {
            return Word::Lost;
        }
        if matches!(word, Word::Taken | Word::NonceUsed(_)) {
            self.heard.insert((tx.sender, tx.nonce));
        }
        word
    }

    pub(super) fn find(&mut self, id: &TxId, hash: B256) -> (Found, Option<u64>) {
        let node: Arc<str> = "n".into();
        let Some(record) = self.desk.record(id) else { return (Found::Unsure, None) };
        let final_nonces = self.account(record.sender, self.finalized + 1);
        let slot = (record.sender, record.nonce);
        if self.nodes.iter().all(|node| node.is_dead) || self.chance(10) {
            return (Found::Unsure, None);
        }
        let holds = |block: &&NewBlock| block.transactions.iter().any(|tx| tx.hash == hash);
        let canonical = self.chain.iter().find(holds).map(|block| block.id);
        let orphan = self.orphans.get(&hash).copied();
        let orphan = orphan.filter(|block| block.number > self.finalized as u64);
        // A node that is still on another branch says so of blocks that are not final.
        if let (Some(block), None, true) = (orphan, canonical, self.chance(20)) {
            return (Found::InBlock { node, block }, None);
        }
        if let Some(block) = canonical {
            return (Found::InBlock { node, block }, Some(final_nonces));
        }
        let alive = self.nodes.iter().enumerate().filter(|(_, node)| !node.is_dead);
        let lacks = alive.filter(|(_, node)| !node.pool.contains(&hash)).map(|(at, _)| format!("n{at}").into());
        let missing: Vec<Arc<str>> = lacks.collect();
        if !missing.is_empty() && self.chance(10) {
            let at = self.rng.usize(..missing.len());
            return (Found::Missing { at: vec![missing[at].clone()] }, None);
        }
        if missing.len() < self.nodes.iter().filter(|node| !node.is_dead).count() {
            self.heard.insert(slot);
            return (Found::Waiting { node, missing }, None);
        }
        if self.chance(10) {
            return (Found::Disputed, Some(final_nonces));
        }
        (Found::Unknown, Some(final_nonces))
    }

    /// Nonces that a sender has used in the first `blocks` blocks.
    pub(super) fn account(&self, sender: Address, blocks: usize) -> u64 {
        let txs = self.chain.iter().take(blocks).flat_map(|block| &block.transactions);
        txs.filter(|tx| tx.sender == sender).map(|tx| tx.nonce + 1).max().unwrap_or(0)
    }

    /// A block comes, with some of what waits, or with somebody else's transaction instead.
    pub(super) fn mine(&mut self) {
        let mut transactions = Vec::new();
        for from in 1..=SENDERS {
            let from = sender(from);
            let mut next = self.account(from, self.chain.len());
            while self.chance(60) {
                let of_slot = |hash: &&B256| {
                    let tx = &self.txs[*hash];
                    tx.sender == from && tx.nonce == next
                };
                let alive = self.nodes.iter().filter(|node| !node.is_dead);
                let waiting: Vec<B256> = alive.flat_map(|node| &node.pool).filter(of_slot).copied().collect();
                let is_foreign =
                    self.now < CALM && next < self.nonces.get(&from).copied().unwrap_or(0) && self.chance(4);
                let hash = if is_foreign {
                    let hash = self.name();
                    self.txs.insert(hash, Tx { sender: from, nonce: next, is_poison: false });
                    hash
                } else if waiting.is_empty() {
                    break;
                } else {
                    waiting[self.rng.usize(..waiting.len())]
                };
                transactions.push(InBlock { hash, sender: from, nonce: next });
                next += 1;
            }
        }
        let id = BlockId { number: self.chain.len() as u64, hash: self.name() };
        for node in &mut self.nodes {
            let used = |hash: &B256| {
                let tx = &self.txs[hash];
                transactions.iter().any(|mined: &InBlock| mined.sender == tx.sender && mined.nonce >= tx.nonce)
            };
            node.pool.retain(|hash| !used(hash));
        }
        self.chain.push(NewBlock { id, transactions });
        self.finalized = self.finalized.max(self.chain.len().saturating_sub(FINAL_BEHIND));
    }

    pub(super) fn reorganise(&mut self) {
        let most = self.chain.len() - 1 - self.finalized;
        let back = if most == 0 { return } else { self.rng.usize(1..=most) };
        let gone = self.chain.split_off(self.chain.len() - back);
        for block in &gone {
            for tx in &block.transactions {
                self.orphans.insert(tx.hash, block.id);
                let returns = self.chance(50);
                for node in &mut self.nodes {
                    if returns && !node.is_dead {
                        node.pool.insert(tx.hash);
                    }
                }
            }
        }
        for _ in 0..back + usize::from(self.chance(70)) {
            self.mine();
        }
    }
}
