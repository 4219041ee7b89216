//! A desk with a disk of memory, and short words for what happens to it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alloy_primitives::{Address, B256};
use bytes::Bytes;

use super::super::*;
use crate::{
    config::Ack,
    domain::signed_transaction::SignedTransaction,
    outbox::{
        record::{EventId, EventKind, StateName, WorkId},
        step::{Step, Write},
    },
};

/// What a store would hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    pub(super) records: BTreeMap<TxId, Record>,
    pub(super) raw: BTreeMap<TxId, Bytes>,
    pub(super) marks: BTreeSet<(TenantName, EventId)>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) checkpoint: Option<BlockId>,
}

impl Disk {
    pub(super) fn apply(&mut self, step: &Step) {
        for write in step.writes() {
            match write {
                Write::Raw { id, bytes } => _ = self.raw.insert(id.clone(), bytes.clone()),
                Write::Record(record) => _ = self.records.insert(record.id.clone(), (**record).clone()),
                Write::Event { tenant, event, deliveries } => {
                    if self.marks.insert((tenant.clone(), event.clone())) {
                        self.deliveries.extend(deliveries.iter().cloned());
                    }
                }
                Write::Remove(id) => {
                    self.records.remove(id);
                    self.raw.remove(id);
                }
                Write::Checkpoint { block, .. } => self.checkpoint = Some(*block),
                other => panic!("a desk writes no {other:?}"),
            }
        }
    }

    pub(super) fn stored(&self) -> Stored {
        let live = self.records.values().filter(|record| !record.state.is_over()).cloned().collect();
        let mut sums = BTreeMap::<TenantName, Sum>::new();
        for record in self.records.values() {
            let sum = sums.entry(record.id.tenant.clone()).or_default();
            if record.state.is_over() {
                (sum.over, sum.over_bytes) = (sum.over + 1, sum.over_bytes + record.bytes);
            } else {
                (sum.live, sum.live_bytes) = (sum.live + 1, sum.live_bytes + record.bytes);
            }
        }
        Stored { live, sums: sums.into_iter().collect(), checkpoint: self.checkpoint, ..Stored::default() }
    }
}

/// One endpoint that wants everything.
pub(super) struct WantsAll;

/// A block, and its transactions: hash, sender and nonce.
pub(super) type Added<'a> = (BlockId, &'a [(u8, u8, u64)]);

impl Endpoints for WantsAll {
    fn deliveries(&self, record: &Record, transition: &Transition) -> Vec<Delivery> {
        let Some(kind) = EventKind::of(transition.to) else { return Vec::new() };
        let event = record.event(transition.seq);
        vec![Delivery {
            id: WorkId::of_delivery(&event, "all"),
            event,
            kind,
            tenant: record.id.tenant.clone(),
            endpoint: "all".to_owned(),
            body: format!("{} {}", record.id.hash, transition.seq),
            attempt: 0,
            first_at: transition.at,
            due: transition.at,
            request_id: record.request_id.clone(),
            traceparent: record.traceparent.clone(),
            of: None,
        }]
    }
}

pub(super) fn terms() -> Terms {
    Terms {
        tenants: BTreeMap::new(),
        network: "main".into(),
        ack: Ack::Node,
        hold: 5_000,
        confirmations: 3,
        resend_blocks: 2,
        deadline: 1_000_000,
        keep: 10_000_000,
        bounds: Bounds { pending: 1000, tenant_pending: 1000, bytes: 1 << 30, tenant_bytes: 1 << 30 },
        in_flight: 16,
    }
}

pub(super) fn sender(name: u8) -> Address {
    Address::repeat_byte(name)
}

pub(super) fn hash(name: u8) -> B256 {
    B256::repeat_byte(name)
}

/// The block of that height; `fork` tells those of one height apart.
pub(super) fn block(number: u64, fork: u8) -> BlockId {
    let mut hash = B256::repeat_byte(fork);
    hash[..8].copy_from_slice(&number.to_be_bytes());
    BlockId { number, hash }
}

pub(super) fn transaction(hash: B256, sender: Address, nonce: u64) -> SignedTransaction {
    SignedTransaction {
        hash,
        sender,
        nonce,
        chain_id: Some(1),
        kind: 2,
        gas: 21_000,
        max_fee: 2,
        max_priority_fee: Some(1),
        max_blob_fee: None,
        blobs: 0,
        bytes: 3,
    }
}

/// A desk whose steps are durable at once.
pub(super) struct Bench {
    pub(super) desk: Desk,
    pub(super) disk: Disk,
    pub(super) now: u64,
    pub(super) tip: u64,
    /// The newest block of each height.
    canonical: BTreeMap<u64, BlockId>,
    waiters: Waiter,
    /// The newest sending of each transaction, and the newest question.
    sends: BTreeMap<B256, u64>,
    looks: BTreeMap<B256, u64>,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(terms())
    }

    pub(super) fn with(terms: Terms) -> Self {
        let desk = Desk::new(terms, Arc::new(WantsAll), Stored::default(), Millis(0));
        let mut bench = Self {
            desk,
            disk: Disk::default(),
            now: 1000,
            tip: 100,
            canonical: BTreeMap::new(),
            waiters: 0,
            sends: BTreeMap::new(),
            looks: BTreeMap::new(),
        };
        bench.blocks(&[], &[(block(100, 0), &[])]);
        bench
    }

    /// The effects of an input, those of a state that is over performed already.
    pub(super) fn input(&mut self, input: Input) -> Vec<Effect> {
        let turn = self.desk.input(Millis(self.now), input);
        self.disk.apply(&turn.step);
        let mut effects = turn.at_once;
        effects.extend(turn.effects);
        for effect in &effects {
            match effect {
                Effect::Settled { id, seq } => self.desk.settled(id, *seq),
                Effect::Forgotten { id } => self.desk.forgotten(id),
                Effect::Send { id, send, .. } => _ = self.sends.insert(id.hash, *send),
                Effect::Look { id, look, .. } => _ = self.looks.insert(id.hash, *look),
                _ => {}
            }
        }
        effects.retain(|effect| {
            !matches!(effect, Effect::Settled { .. } | Effect::Forgotten { .. } | Effect::Tell { .. })
        });
        effects
    }

    pub(super) fn id(&self, name: u8) -> TxId {
        TxId { tenant: TenantName::default(), network: "main".into(), hash: hash(name) }
    }

    /// A client sends transaction `name` of sender 1.
    pub(super) fn accept(&mut self, name: u8, nonce: u64) -> Vec<Effect> {
        self.accept_of("default", name, 1, nonce)
    }

    pub(super) fn accept_of(&mut self, tenant: &str, name: u8, from: u8, nonce: u64) -> Vec<Effect> {
        self.waiters += 1;
        let tenant: TenantName = tenant.parse().unwrap();
        let known = self.disk.records.get(&TxId { tenant: tenant.clone(), ..self.id(name) }).cloned();
        self.input(Input::Accept(Box::new(Accept {
            waiter: self.waiters,
            tenant,
            raw: Bytes::from(vec![name; 3]),
            tx: transaction(hash(name), sender(from), nonce),
            request_id: Some(format!("r{name}")),
            traceparent: None,
            known: known.map(Box::new),
            is_other_form: false,
        })))
    }

    pub(super) fn word(&mut self, name: u8, node: &str, word: Word) -> Vec<Effect> {
        self.word_of("default", name, node, word)
    }

    pub(super) fn word_of(&mut self, tenant: &str, name: u8, node: &str, word: Word) -> Vec<Effect> {
        let id = TxId { tenant: tenant.parse().unwrap(), ..self.id(name) };
        let send = self.sending(name);
        self.input(Input::Heard { id, send, node: node.into(), word })
    }

    /// Node `a` takes a transaction, and the sending ends.
    pub(super) fn taken(&mut self, name: u8) -> Vec<Effect> {
        let mut effects = self.word(name, "a", Word::Taken);
        effects.extend(self.done(name));
        effects
    }

    pub(super) fn done(&mut self, name: u8) -> Vec<Effect> {
        let id = self.id(name);
        let send = self.sending(name);
        self.input(Input::SendDone { id, send, is_whole: true })
    }

    /// The number of the newest sending of a transaction.
    pub(super) fn sending(&self, name: u8) -> u64 {
        self.sends.get(&hash(name)).copied().unwrap_or_default()
    }

    pub(super) fn looked(&mut self, name: u8, found: Found, final_nonces: Option<u64>) -> Vec<Effect> {
        let id = self.id(name);
        let look = self.looks.get(&hash(name)).copied().unwrap_or_default();
        self.input(Input::Looked { id, look, found, final_nonces })
    }

    /// Blocks go and come; of each new one the transactions `(name, sender, nonce)`.
    pub(super) fn blocks(&mut self, removed: &[BlockId], added: &[Added<'_>]) -> Vec<Effect> {
        self.final_blocks(removed, added, None)
    }

    pub(super) fn final_blocks(
        &mut self,
        removed: &[BlockId],
        added: &[Added<'_>],
        finalized: Option<u64>,
    ) -> Vec<Effect> {
        let of = |&(name, from, nonce): &(u8, u8, u64)| InBlock { hash: hash(name), sender: sender(from), nonce };
        let new =
            |(id, has): &(BlockId, &[(u8, u8, u64)])| NewBlock { id: *id, transactions: has.iter().map(of).collect() };
        let added: Vec<NewBlock> = added.iter().map(new).collect();
        let hashes = added.iter().flat_map(|block| &block.transactions).map(|tx| tx.hash).collect::<Vec<_>>();
        let recalled = self.disk.records.values().filter(|record| hashes.contains(&record.id.hash)).cloned();
        let recalled = recalled.collect();
        self.canonical.extend(added.iter().map(|block| (block.id.number, block.id)));
        let of_height = |number: u64| self.canonical.get(&number).copied().unwrap_or(block(number, 0));
        let finalized = finalized.map(of_height).map(Final::Told);
        self.tip = added.last().map_or(self.tip, |block| block.id.number);
        let removed = removed.to_vec();
        self.input(Input::Blocks(Box::new(Blocks { removed, added, finalized, recalled, ..Blocks::default() })))
    }

    /// Empty blocks come, so many, each 12 s after the one before it.
    pub(super) fn pass(&mut self, count: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        for _ in 0..count {
            self.now += 12_000;
            let next = block(self.tip + 1, 0);
            effects.extend(self.blocks(&[], &[(next, &[])]));
        }
        effects
    }

    pub(super) fn pause(&mut self, millis: u64) -> Vec<Effect> {
        self.now += millis;
        self.input(Input::Due)
    }

    pub(super) fn command(&mut self, name: u8, command: Command) -> Answer {
        let (id, known) = (self.id(name), self.disk.records.get(&self.id(name)).cloned().map(Box::new));
        let effects = self.input(Input::Command { waiter: 77, id, known, command });
        let answer = effects.into_iter().find_map(|effect| match effect {
            Effect::Answer { waiter: 77, answer } => Some(answer),
            _ => None,
        });
        answer.expect("a command is answered")
    }

    /// The process dies and comes again.
    pub(super) fn restart(&mut self) {
        self.desk = Desk::new(terms(), Arc::new(WantsAll), self.disk.stored(), Millis(self.now));
    }

    pub(super) fn state(&self, name: u8) -> StateName {
        self.disk.records[&self.id(name)].state.name()
    }

    /// The states of a transaction's life so far.
    pub(super) fn life(&self, name: u8) -> String {
        let history = &self.disk.records[&self.id(name)].history;
        history.iter().map(|transition| transition.to.as_str()).collect::<Vec<_>>().join(" ")
    }
}

/// The hashes' first bytes of the transactions that are sent to all.
pub(super) fn sent(effects: &[Effect]) -> Vec<u8> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { id, to: To::All, .. } => Some(id.hash[0]),
        _ => None,
    });
    sent.collect()
}

/// The hashes' first bytes of the transactions that nodes are asked for.
pub(super) fn asked(effects: &[Effect]) -> Vec<u8> {
    let asked = effects.iter().filter_map(|effect| match effect {
        Effect::Look { hash, .. } => Some(hash[0]),
        _ => None,
    });
    asked.collect()
}

/// The answers.
pub(super) fn answers(effects: &[Effect]) -> Vec<Answer> {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Answer { answer, .. } => Some(answer.clone()),
        _ => None,
    });
    answers.collect()
}

pub(super) fn words(message: &str) -> NodeWords {
    NodeWords { code: -32000, message: message.to_owned() }
}

/// The sendings to some nodes alone, and these nodes.
pub(super) fn to_nodes(effects: &[Effect]) -> Vec<(u8, String)> {
    let sent = effects.iter().filter_map(|effect| match effect {
        Effect::Send { id, to: To::Nodes(nodes), .. } => {
            Some((id.hash[0], nodes.iter().map(|node| &**node).collect::<Vec<_>>().join(" ")))
        }
        _ => None,
    });
    sent.collect()
}

/// A desk whose transaction 2 of nonce 1 was refused for the gap before it, again and again.
pub(super) fn with_a_gap() -> Bench {
    let mut bench = Bench::new();
    bench.accept(2, 1);
    for _ in 0..6 {
        bench.word(2, "a", Word::RefusedNow(words("nonce too high")));
        bench.done(2);
        bench.pause(60_000);
    }
    bench.word(2, "a", Word::RefusedNow(words("nonce too high")));
    bench.done(2);
    bench
}
