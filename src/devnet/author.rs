//! Fills blocks: pretend ERC-20 traffic of three contracts, the same for the same seed.

use std::sync::Arc;

use alloy_primitives::{Address, B256, keccak256};
use fastrand::Rng;

use crate::domain::signed_transaction::{Limits, SignedTransaction};

use super::{
    hash,
    transaction::{Log, Mined, Transaction},
};

/// How many accounts the pretend traffic moves tokens between.
pub(super) const ACCOUNTS: usize = 16;

/// How many transactions of each of these accounts are in the chain up to a block.
pub(super) type Sent = [u64; ACCOUNTS];

/// A transaction that a caller has a node sign and send.
pub(super) struct Unlocked {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) value: u64,
    pub(super) input: Vec<u8>,
}

/// Writes the contents of blocks.
pub(super) struct Author {
    seed: u64,
    chain_id: u64,
    contracts: [Address; 3],
    accounts: Vec<Address>,
    transfer: B256,
    approval: B256,
}

impl Author {
    pub(super) fn new(seed: u64, chain_id: u64) -> Self {
        let account = |purpose: &str, n: u64| Address::from_word(hash::derived(purpose, &n.to_be_bytes()));
        Self {
            seed,
            chain_id,
            contracts: [0, 1, 2].map(|n| account("contract", n)),
            accounts: (0..ACCOUNTS as u64).map(|n| account("account", n)).collect(),
            transfer: keccak256(b"Transfer(address,address,uint256)"),
            approval: keccak256(b"Approval(address,address,uint256)"),
        }
    }

    pub(super) fn contracts(&self) -> &[Address] {
        &self.contracts
    }

    /// Sets a block apart from every other block of every branch.
    pub(super) fn salt(&self, number: u64, branch: u64) -> B256 {
        hash::derived("block", &[self.seed, self.chain_id, number, branch].map(u64::to_be_bytes).concat())
    }

    /// The block's contents: its filler, then the transactions that were `waiting`. All are counted
    /// in `sent`.
    pub(super) fn fill(&self, salt: B256, waiting: Vec<Arc<Transaction>>, sent: &mut Sent) -> Vec<Mined> {
        let mut rng = Rng::with_seed(hash::seed(&salt));
        let filler: Vec<_> = (0..rng.u64(2..=4)).map(|i| Arc::new(self.draw(&mut rng, salt, i, sent))).collect();
        for transaction in &waiting {
            if let Some(count) = self.index(transaction.from).and_then(|index| sent.get_mut(index)) {
                *count += 1;
            }
        }
        let (mut first_log, mut cumulative_gas) = (0, 0);
        let mined = filler.into_iter().chain(waiting).map(|transaction| {
            let logs = self.logs(&transaction);
            let gas = 21_000 + 15_000 * u64::try_from(logs.len()).unwrap_or(0);
            cumulative_gas += gas;
            first_log += logs.len();
            Mined { first_log: first_log - logs.len(), transaction, logs, gas, cumulative_gas }
        });
        mined.collect()
    }

    /// A transaction that a client submitted as `raw` bytes. Bytes that are no signed transaction
    /// are the first and only one of a sender that is made up.
    pub(super) fn raw(&self, raw: Vec<u8>) -> Transaction {
        let limits = Limits { chain_id: Some(self.chain_id), bytes: usize::MAX, blob_bytes: usize::MAX };
        let signed = SignedTransaction::decode(&raw, &limits).ok();
        let hash = signed.as_ref().map_or_else(|| keccak256(&raw), |signed| signed.hash);
        let mut rng = Rng::with_seed(hash::seed(&hash));
        Transaction {
            hash,
            from: signed
                .as_ref()
                .map_or_else(|| Address::from_word(hash::derived("sender", &hash.0)), |signed| signed.sender),
            to: self.contract(&mut rng),
            nonce: signed.map_or(0, |signed| signed.nonce),
            value: 0,
            input: raw,
            submitted: true,
            chain_id: self.chain_id,
        }
    }

    /// A transaction made by an unlocked account, the `count`th of all: each is new, however equal
    /// the calls.
    pub(super) fn unlocked(&self, count: u64, nonce: u64, call: Unlocked) -> Transaction {
        let Unlocked { from, to, value, input } = call;
        let unique = [self.seed, count].map(u64::to_be_bytes).concat();
        let hash = hash::derived("unlocked", &[&unique[..], &from[..], &to[..], &input].concat());
        Transaction { hash, from, to, nonce, value, input, submitted: true, chain_id: self.chain_id }
    }

    /// The account that `eth_accounts` lists first.
    pub(super) fn account(&self, index: usize) -> Address {
        self.accounts[index % self.accounts.len()]
    }

    /// The place of an account among those that the pretend traffic moves tokens between.
    pub(super) fn index(&self, account: Address) -> Option<usize> {
        self.accounts.iter().position(|known| *known == account)
    }

    /// A transaction of an account that no client has: of any but the first.
    fn draw(&self, rng: &mut Rng, salt: B256, index: u64, sent: &mut Sent) -> Transaction {
        let mut input = vec![0xa9, 0x05, 0x9c, 0xbb];
        let to = self.account(rng.usize(..));
        input.extend_from_slice(&to.into_word()[..]);
        input.extend_from_slice(&amount(rng));
        let sender = rng.usize(1..ACCOUNTS);
        let nonce = sent[sender];
        sent[sender] += 1;
        Transaction {
            hash: hash::derived("transaction", &[&salt.0[..], &index.to_be_bytes()].concat()),
            from: self.account(sender),
            to: self.contract(rng),
            nonce,
            value: 0,
            input,
            submitted: false,
            chain_id: self.chain_id,
        }
    }

    /// A transfer, and for every third transaction an approval of another contract too. The logs
    /// are drawn from the transaction's hash, so that a transaction leaves the same logs in every
    /// block.
    fn logs(&self, transaction: &Transaction) -> Vec<Log> {
        let mut rng = Rng::with_seed(hash::seed(&transaction.hash));
        let address = if self.contracts.contains(&transaction.to) { transaction.to } else { self.contract(&mut rng) };
        let mut event = |address, signature| Log {
            address,
            topics: vec![signature, transaction.from.into_word(), self.account(rng.usize(..)).into_word()],
            data: amount(&mut rng).to_vec(),
        };
        let mut logs = vec![event(address, self.transfer)];
        if transaction.hash.0[31].is_multiple_of(3) {
            logs.push(event(self.contracts[usize::from(transaction.hash.0[30]) % 3], self.approval));
        }
        logs
    }

    fn contract(&self, rng: &mut Rng) -> Address {
        self.contracts[rng.usize(..self.contracts.len())]
    }
}

fn amount(rng: &mut Rng) -> [u8; 32] {
    let mut out = [0; 32];
    out[24..].copy_from_slice(&rng.u64(1..1_000_000_000).to_be_bytes());
    out
}
