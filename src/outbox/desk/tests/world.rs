//! A random world around the desk: nodes that die, forget and refuse, a chain that is reorganised
//! and followed with gaps, a disk behind, crashes and failed writes. In the end all is calm, and
//! nothing may be missing.

mod checks;
mod nodes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use alloy_primitives::{Address, B256, keccak256};
use bytes::Bytes;

use self::nodes::Node;
use super::{super::*, bench::*};
use crate::outbox::{record::EventId, step::Step};

/// Runs by default, each another seed; `OUTBOX_SEEDS` asks for more.
const SEEDS: u64 = 100;
/// What happens in a run before it calms down.
const TROUBLES: usize = 350;
const NODES: usize = 3;
const SENDERS: u8 = 3;
/// Blocks that no reorganisation takes.
const FINAL_BEHIND: usize = 5;

/// A transaction of the world: ours, or of somebody else.
#[derive(Clone, Copy, Debug)]
struct Tx {
    sender: Address,
    nonce: u64,
    /// Every node refuses it for its bytes.
    is_poison: bool,
}

struct World {
    rng: fastrand::Rng,
    seed: u64,
    now: u64,
    names: u64,
    chain: Vec<NewBlock>,
    orphans: BTreeMap<B256, BlockId>,
    finalized: usize,
    /// The chain as the desk was told it.
    told: Vec<BlockId>,
    had_gaps: bool,
    nodes: Vec<Node>,
    txs: BTreeMap<B256, Tx>,
    nonces: BTreeMap<Address, u64>,
    desk: Desk,
    disk: Disk,
    /// Steps that are not durable, with their effects.
    behind: VecDeque<(Step, Vec<Effect>)>,
    /// What is on its way to the desk: each list in its order.
    mail: Vec<VecDeque<Input>>,
    waiting: BTreeSet<Waiter>,
    acknowledged: BTreeSet<TxId>,
    cancelled: BTreeSet<B256>,
    /// Transactions that a block had before a client sent them.
    mined_before: BTreeSet<B256>,
    told_events: BTreeSet<(TxId, EventId)>,
    /// Slots of which a node has said that it took one, or that the nonce is used.
    heard: BTreeSet<(Address, u64)>,
    open: BTreeMap<TenantName, BTreeMap<B256, u64>>,
    /// When the desk decided on each sending, and when on the newest that was begun of each
    /// transaction: one whose step is lost never begins.
    decided_at: BTreeMap<u64, u64>,
    sent_at: BTreeMap<TxId, u64>,
    trace: Vec<String>,
}

fn tenant(of: Address) -> TenantName {
    if of == sender(1) { "one".parse().unwrap() } else { TenantName::default() }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            rng: fastrand::Rng::with_seed(seed),
            seed,
            now: 1_000,
            names: 0,
            chain: Vec::new(),
            orphans: BTreeMap::new(),
            finalized: 0,
            told: Vec::new(),
            had_gaps: false,
            nodes: vec![Node::default(); NODES],
            txs: BTreeMap::new(),
            nonces: BTreeMap::new(),
            desk: Desk::new(Self::terms(), Arc::new(WantsAll), Stored::default(), Millis(0)),
            disk: Disk::default(),
            behind: VecDeque::new(),
            mail: Vec::new(),
            waiting: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            mined_before: BTreeSet::new(),
            told_events: BTreeSet::new(),
            heard: BTreeSet::new(),
            open: BTreeMap::new(),
            decided_at: BTreeMap::new(),
            sent_at: BTreeMap::new(),
            trace: Vec::new(),
        };
        world.mine();
        world
    }

    fn terms() -> Terms {
        Terms { in_flight: 3, deadline: 100_000_000, ..terms() }
    }

    fn name(&mut self) -> B256 {
        self.names += 1;
        keccak256([self.seed.to_be_bytes(), self.names.to_be_bytes()].concat())
    }

    fn id(&self, hash: B256) -> TxId {
        TxId { tenant: tenant(self.txs[&hash].sender), network: "main".into(), hash }
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    /// Hands an input to the desk, and checks what may be checked at once.
    fn input(&mut self, input: Input) {
        self.trace.push(format!("{input:?}"));
        match &input {
            // Only lost words leave a sending in its place.
            Input::Heard { word: Word::Lost, .. } => {}
            Input::Heard { id, send, .. } | Input::SendDone { id, send, .. } => {
                self.open.entry(id.tenant.clone()).or_default().retain(|_, open| open != send);
            }
            // Where nodes forgot it, an earlier sending is not waited for.
            Input::Looked { id, found: Found::Unknown | Found::Disputed | Found::Missing { .. }, .. } => {
                self.open.entry(id.tenant.clone()).or_default().remove(&id.hash);
            }
            _ => {}
        }
        let turn = self.desk.input(Millis(self.now), input);
        self.check_that_none_is_stuck();
        self.desk.book.check_indices();
        for effect in turn.at_once.iter().chain(&turn.effects) {
            if let Effect::Send { id, send, .. } = effect {
                self.check_sending(id, *send);
                self.decided_at.insert(*send, self.now);
            }
        }
        for effect in turn.at_once {
            assert!(matches!(effect, Effect::Answer { .. }), "only answers go out at once: {effect:?}");
            self.perform(effect);
        }
        self.behind.push_back((turn.step, turn.effects));
    }

    fn perform(&mut self, effect: Effect) {
        self.trace.push(format!("{effect:?}"));
        match effect {
            Effect::Answer { waiter, answer } => {
                if let Ok(Done::Hash(hash)) = answer {
                    let id = self.id(hash);
                    assert!(self.disk.records.contains_key(&id), "seed {}: a hash without a record", self.seed);
                    assert!(self.disk.raw.contains_key(&id), "seed {}: a hash without bytes", self.seed);
                    self.acknowledged.insert(id);
                }
                assert!(self.waiting.remove(&waiter), "seed {}: {waiter} is answered twice", self.seed);
            }
            Effect::Tell { id, transition } => {
                let record = &self.disk.records[&id];
                let event = record.event(transition.seq);
                let is_new = self.told_events.insert((id, event));
                assert!(is_new, "seed {}: {transition:?} is told twice", self.seed);
            }
            Effect::Settled { id, seq } => self.desk.settled(&id, seq),
            Effect::Forgotten { id } => self.desk.forgotten(&id),
            Effect::Send { id, send, to, .. } => {
                assert!(self.disk.raw.contains_key(&id), "seed {}: sent before the sync", self.seed);
                self.sent_at.insert(id.clone(), self.decided_at[&send]);
                let mut words = VecDeque::new();
                let mut usable = 0;
                for at in 0..NODES {
                    let name: Arc<str> = format!("n{at}").into();
                    if !to.has(&name) {
                        continue;
                    }
                    usable += usize::from(!self.nodes[at].is_dead);
                    let word = self.word(at, id.hash);
                    words.push_back(Input::Heard { id: id.clone(), send, node: name, word });
                }
                self.rng.shuffle(words.make_contiguous());
                words.push_back(Input::SendDone { id, send, is_whole: usable > 0 });
                self.mail.push(words);
            }
            Effect::Look { id, look, hash, with_nonce } => {
                let (found, final_nonces) = self.find(&id, hash);
                let final_nonces = final_nonces.filter(|_| with_nonce);
                self.mail.push(VecDeque::from([Input::Looked { id, look, found, final_nonces }]));
            }
        }
    }

    /// Tells the desk how the chain changed since it was told last.
    fn tell(&mut self, with_gap: bool) {
        let same = self.chain.iter().zip(&self.told).take_while(|(block, told)| block.id == **told).count();
        let is_start = self.told.is_empty();
        let with_gap = with_gap && !is_start && same < self.chain.len();
        let removed: Vec<BlockId> = self.told[same..].iter().rev().copied().collect();
        let first = if with_gap {
            self.had_gaps = true;
            self.rng.usize(same..self.chain.len())
        } else {
            same
        };
        let first = if is_start { self.chain.len() - 1 } else { first };
        let added = self.chain[first..].to_vec();
        let hashes: BTreeSet<B256> = added.iter().flat_map(|block| &block.transactions).map(|tx| tx.hash).collect();
        let recalled = self.disk.records.values().filter(|record| hashes.contains(&record.id.hash)).cloned().collect();
        let removed = if with_gap { Vec::new() } else { removed };
        self.told = self.chain.iter().map(|block| block.id).collect();
        let tip = self.chain.len() - 1;
        // Now and then nodes of another branch tell a final block.
        let is_strange = self.chance(10);
        let finalized = if is_strange {
            BlockId { number: tip as u64, hash: self.name() }
        } else {
            self.chain[self.finalized.min(tip)].id
        };
        let finalized = Some(Final::Told(finalized));
        let blocks = Blocks { removed, added, skipped: with_gap, finalized, recalled, ..Blocks::default() };
        self.input(Input::Blocks(Box::new(blocks)));
    }

    fn client(&mut self) {
        let from = sender(self.rng.u8(1..=SENDERS));
        let next = self.nonces.get(&from).copied().unwrap_or(0);
        let ours: Vec<B256> = self.txs.iter().filter(|(_, tx)| tx.sender == from).map(|(hash, _)| *hash).collect();
        let hash = match self.rng.u8(..10) {
            0 if !ours.is_empty() => ours[self.rng.usize(..ours.len())],
            1 if next > 0 => self.new_tx(from, next - 1),
            _ => {
                self.nonces.insert(from, next + 1);
                self.new_tx(from, next)
            }
        };
        let tx = self.txs[&hash];
        if self.chain.iter().flat_map(|block| &block.transactions).any(|tx| tx.hash == hash) {
            self.mined_before.insert(hash);
        }
        let waiter = self.names + 1;
        self.names += 1;
        self.waiting.insert(waiter);
        let known = self.disk.records.get(&self.id(hash)).cloned().map(Box::new);
        self.input(Input::Accept(Box::new(Accept {
            waiter,
            tenant: tenant(from),
            raw: Bytes::copy_from_slice(&hash[..3]),
            tx: transaction(hash, from, tx.nonce),
            request_id: None,
            traceparent: None,
            known,
            is_other_form: false,
        })));
    }

    fn new_tx(&mut self, sender: Address, nonce: u64) -> B256 {
        let (hash, is_poison) = (self.name(), self.chance(5));
        self.txs.insert(hash, Tx { sender, nonce, is_poison });
        hash
    }

    /// Makes the first `count` steps durable, and performs their effects.
    fn sync(&mut self, count: usize) {
        for _ in 0..count {
            let Some((step, effects)) = self.behind.pop_front() else { return };
            self.disk.apply(&step);
            for effect in effects {
                self.perform(effect);
            }
        }
    }

    /// The desk is made anew from the disk. In a crash all that waits is lost; after a failed write
    /// those who wait are taken over or answered.
    fn restart(&mut self, is_crash: bool) {
        let lost = std::mem::take(&mut self.behind);
        self.mail.clear();
        self.open.clear();
        let desk = Desk::new(Self::terms(), Arc::new(WantsAll), self.disk.stored(), Millis(self.now));
        let waiters = std::mem::replace(&mut self.desk, desk).into_waiters();
        if is_crash {
            self.waiting.clear();
        } else {
            for (waiter, id, until) in waiters {
                if !self.desk.adopt(waiter, &id, until) {
                    self.perform(Effect::Answer { waiter, answer: Err(NotDone::Unwritable) });
                }
            }
            for effect in lost.into_iter().flat_map(|(_, effects)| effects) {
                if let Effect::Answer { waiter, .. } = effect {
                    self.perform(Effect::Answer { waiter, answer: Err(NotDone::Unwritable) });
                }
            }
        }
        // Blocks since the checkpoint are told again, where it is canonical and not too long ago.
        let checkpoint = self.disk.checkpoint;
        let at = self.chain.iter().position(|block| Some(block.id) == checkpoint);
        self.told.clear();
        if let Some(at) = at.filter(|_| self.rng.u8(..100) < 70) {
            self.told.extend(self.chain[..=at].iter().map(|block| block.id));
        } else {
            self.had_gaps = true;
        }
        self.tell(false);
    }

    fn trouble(&mut self) {
        match self.rng.u8(..100) {
            0..20 => self.client(),
            20..45 => self.deliver(),
            45..65 => {
                let count = self.rng.usize(1..6);
                self.sync(count);
            }
            65..73 => self.mine(),
            73..81 => {
                let with_gap = self.chance(15);
                self.tell(with_gap);
            }
            81..83 => self.reorganise(),
            83..86 => {
                let node = self.rng.usize(..NODES);
                self.nodes[node].is_dead = true;
                if self.chance(50) {
                    self.nodes[node].pool.clear();
                }
            }
            86..89 => {
                let at = self.rng.usize(..NODES);
                self.nodes[at].is_dead = false;
                self.nodes[at].refuses = self.chance(20);
                self.input(Input::NodeReturned { node: format!("n{at}").into() });
            }
            89..91 => {
                let at = self.rng.usize(..NODES);
                self.nodes[at].pool.clear();
            }
            91..96 => {
                self.now += self.rng.u64(1..4_000);
                self.due();
            }
            96 => self.cancel(),
            97 => {
                let durable = self.rng.usize(..=self.behind.len());
                for (step, _) in self.behind.drain(..durable).collect::<Vec<_>>() {
                    self.disk.apply(&step);
                }
                self.restart(true);
            }
            98 => self.restart(false),
            _ => {}
        }
    }

    fn cancel(&mut self) {
        let live: Vec<TxId> = self.desk.records().map(|record| record.id.clone()).collect();
        if live.is_empty() {
            return;
        }
        let id = live[self.rng.usize(..live.len())].clone();
        self.names += 1;
        self.waiting.insert(self.names);
        self.cancelled.insert(id.hash);
        self.input(Input::Command { waiter: self.names, id, known: None, command: Command::Cancel });
    }

    fn deliver(&mut self) {
        if self.mail.is_empty() {
            return;
        }
        let at = self.rng.usize(..self.mail.len());
        if let Some(input) = self.mail[at].pop_front() {
            self.input(input);
        }
        self.mail.retain(|list| !list.is_empty());
    }

    fn due(&mut self) {
        while self.desk.next_due().is_some_and(|due| due.0 <= self.now) {
            self.input(Input::Due);
        }
    }

    /// All is well, for so many blocks.
    fn calm(&mut self, blocks: usize) {
        for node in &mut self.nodes {
            (node.is_dead, node.refuses) = (false, false);
        }
        for at in 0..NODES {
            self.input(Input::NodeReturned { node: format!("n{at}").into() });
        }
        for _ in 0..blocks {
            self.now += 12_000;
            while !self.mail.is_empty() || !self.behind.is_empty() {
                self.sync(usize::MAX);
                self.deliver();
            }
            self.due();
            self.mine();
            self.tell(false);
        }
        self.sync(usize::MAX);
    }

    fn run(&mut self) {
        self.tell(false);
        for _ in 0..TROUBLES {
            self.trouble();
        }
        self.now = CALM;
        self.calm(60);
        // What a gap in the nonces keeps from all blocks expires.
        self.now += 200_000_000;
        self.due();
        self.calm(20);
        self.check();
    }
}

/// A run that fails leaves its trace behind.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let file = std::env::temp_dir().join(format!("outbox-world-{}.txt", self.seed));
            _ = std::fs::write(&file, self.trace.join("\n"));
            eprintln!("seed {}: the trace is in {}", self.seed, file.display());
        }
    }
}

/// From this time on no foreign transaction is mined.
const CALM: u64 = 50_000_000;

#[test]
fn no_acknowledged_transaction_is_lost_and_none_is_told_twice() {
    let (mut acknowledged, mut transitions) = (0, 0);
    let asked = std::env::var("OUTBOX_SEEDS").ok();
    let seeds = asked.map_or(SEEDS, |seeds| seeds.parse().expect("OUTBOX_SEEDS is a number"));
    for seed in 0..seeds {
        let mut world = World::new(seed);
        world.run();
        acknowledged += world.acknowledged.len();
        transitions += world.told_events.len();
    }
    assert!(acknowledged > 10 * seeds as usize, "{acknowledged}");
    assert!(transitions > 50 * seeds as usize, "{transitions}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [3, 77] {
        let runs = [World::new(seed), World::new(seed)].map(|mut world| {
            world.run();
            std::mem::take(&mut world.trace)
        });
        assert_eq!(runs[0], runs[1]);
    }
}
