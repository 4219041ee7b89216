//! Raw transactions that nodes took in the last minutes, kept for nodes that have not had them.
//!
//! Rule: a transaction that a node acknowledged is kept for [`KEPT_FOR`], and due for each node
//! that was not sent the transaction in the node's present life; a node begins a new life when it
//! comes back from an outage, since its mempool may be gone. A node that has said its word, also a
//! refusal, is not sent the transaction again in that life. A node that was busy or lost over a
//! transaction is sent the transaction again when the node takes over or comes back. Where too much
//! is kept, the client that has the most makes room. Reason: a node that lacks one transaction of a
//! sender keeps all later ones waiting for ever. Example: a bot's nonces 1 to 3 went to node A
//! alone, and A dies: node B, which takes over, is sent 1, 2 and 3 in this order.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Release},
        },
    },
    time::Duration,
};

use alloy_primitives::B256;
use tokio::{sync::Notify, time::Instant};

use super::send_outcome::SendOutcome;
use crate::{
    domain::{client::Peer, node_id::NodeId},
    memory::{Account, Claim},
    pool::Pool,
};

/// For how long a transaction is kept: some blocks.
const KEPT_FOR: Duration = Duration::from_secs(5 * 60);
/// Transactions that are kept, at most.
const MAX_TRANSACTIONS: usize = 4096;
/// Bytes that are kept, at most.
const MAX_BYTES: usize = 16 << 20;
/// Bytes that a kept transaction takes besides its own.
const EACH: usize = 256;

/// The places of the measures in a client's part.
const COUNT: usize = 0;
const BYTES: usize = 1;

/// A node's state towards one transaction, in the low bits; the node's life stands above.
const STATE_BITS: u32 = 2;
/// The node was not sent the transaction.
const UNSENT: u32 = 0;
/// The node is being sent the transaction.
const UNDER_WAY: u32 = 1;
/// The node has had its say.
const SAID: u32 = 2;
/// The node was busy, or no answer came.
const FAILED: u32 = 3;

/// The states of all nodes towards one transaction.
#[derive(Debug)]
pub(super) struct Sends(Box<[AtomicU32]>);

impl Sends {
    fn new(nodes: usize) -> Self {
        Self((0..nodes).map(|_| AtomicU32::new(UNSENT)).collect())
    }

    fn state(&self, node: NodeId, life: u32) -> u32 {
        let value = self.0[node].load(Acquire);
        if value >> STATE_BITS == life { value & ((1 << STATE_BITS) - 1) } else { UNSENT }
    }

    fn set(&self, node: NodeId, life: u32, state: u32) {
        self.0[node].store(life << STATE_BITS | state, Release);
    }

    /// The word of a node that was sent the transaction. The word counts for the life in which the
    /// node was sent the transaction.
    pub(super) fn heard(&self, node: NodeId, word: &SendOutcome) {
        let life = self.0[node].load(Acquire) >> STATE_BITS;
        let has_said = matches!(word, SendOutcome::Took | SendOutcome::AlreadyKnown | SendOutcome::Refused { .. });
        self.set(node, life, if has_said { SAID } else { FAILED });
    }
}

/// A transaction that a node took.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    pub(super) hash: B256,
    pub(super) raw: Arc<[u8]>,
}

struct Kept {
    transaction: Transaction,
    at: Instant,
    client: Option<Peer>,
    sends: Arc<Sends>,
}

impl Kept {
    fn weight(&self) -> usize {
        EACH + self.transaction.raw.len()
    }
}

/// A transaction that a node is to be sent again.
pub(super) struct Due {
    pub(super) transaction: Transaction,
    pub(super) sends: Arc<Sends>,
}

/// The transactions that are kept.
pub(super) struct Remembered {
    state: Mutex<State>,
    /// Notified when a transaction is kept that some node was not sent.
    pub(super) bell: Notify,
}

struct State {
    kept: VecDeque<Kept>,
    hashes: HashSet<B256>,
    /// The number of the first transaction in `kept`; the others follow without gaps.
    first: u64,
    bytes: usize,
    /// The part of each client: transactions, and their bytes.
    shares: HashMap<Option<Peer>, [usize; 2]>,
    /// A claim on the clients' memory; `None` before the first transaction.
    claim: Option<Claim>,
    nodes: Vec<NodeState>,
    /// Whether a reload has put another in the place of this one.
    is_over: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct NodeState {
    /// How often the node has come back from an outage.
    life: u32,
    /// No transaction with a lower number is due.
    from: u64,
}

impl Remembered {
    /// Nothing yet, for so many nodes.
    pub(super) fn new(nodes: usize) -> Self {
        let state = State {
            kept: VecDeque::new(),
            hashes: HashSet::new(),
            first: 0,
            bytes: 0,
            shares: HashMap::new(),
            claim: None,
            nodes: vec![NodeState::default(); nodes],
            is_over: false,
        };
        Self { state: Mutex::new(state), bell: Notify::new() }
    }

    /// The states for a transaction that these nodes are sent now; `earlier` are its states so far.
    pub(super) fn begin(&self, earlier: Option<Arc<Sends>>, nodes: &[NodeId]) -> Arc<Sends> {
        let state = self.state();
        let sends = earlier.unwrap_or_else(|| Arc::new(Sends::new(state.nodes.len())));
        nodes.iter().for_each(|&node| sends.set(node, state.nodes[node].life, UNDER_WAY));
        sends
    }

    /// Keeps a transaction that `node` took for the client of `memory`, after the nodes that were
    /// `tried` in vain. A transaction that is kept already stays in its place.
    pub(super) fn keep(
        &self,
        transaction: Transaction,
        (node, tried): (Option<NodeId>, &[NodeId]),
        sends: Option<Arc<Sends>>,
        memory: &Arc<Account>,
    ) {
        let mut state = self.state();
        state.forget(Instant::now());
        if !state.hashes.insert(transaction.hash) {
            return;
        }
        let sends = sends.unwrap_or_else(|| Arc::new(Sends::new(state.nodes.len())));
        if let Some(node) = node {
            sends.set(node, state.nodes[node].life, SAID);
        }
        for &node in tried {
            let life = state.nodes[node].life;
            if sends.state(node, life) == UNSENT {
                sends.set(node, life, FAILED);
            }
        }
        if state.claim.is_none() {
            state.claim = Some(memory.records().beside());
        }
        let mut nodes = NodeId::all(state.nodes.len());
        let is_unsent = nodes.any(|node| sends.state(node, state.nodes[node].life) == UNSENT);
        let kept = Kept { transaction, at: Instant::now(), client: memory.client().map(Peer::block), sends };
        state.add(kept);
        state.make_room();
        drop(state);
        if is_unsent {
            self.bell.notify_one();
        }
    }

    /// The node came back from an outage: its mempool may be gone.
    pub(super) fn begins_anew(&self, node: NodeId) {
        let mut state = self.state();
        state.nodes[node].life = state.nodes[node].life.wrapping_add(1) & (u32::MAX >> STATE_BITS);
        state.nodes[node].from = 0;
    }

    /// The node takes over or comes back: transactions over which the node was busy or lost are
    /// due.
    pub(super) fn try_again(&self, node: NodeId) {
        let mut state = self.state();
        let life = state.nodes[node].life;
        state.nodes[node].from = 0;
        let failed = state.kept.iter().filter(|kept| kept.sends.state(node, life) == FAILED);
        failed.for_each(|kept| kept.sends.set(node, life, UNSENT));
    }

    /// Whether a transaction is due for the node.
    pub(super) fn has_due(&self, node: NodeId) -> bool {
        self.state().due(node).is_some()
    }

    /// The first transaction that is due for the node; from now on, the node is being sent that
    /// one.
    pub(super) fn next(&self, node: NodeId) -> Option<Due> {
        let mut state = self.state();
        state.forget(Instant::now());
        let place = state.due(node)?;
        let life = state.nodes[node].life;
        let Kept { transaction, sends, .. } = &state.kept[place];
        sends.set(node, life, UNDER_WAY);
        Some(Due { transaction: transaction.clone(), sends: sends.clone() })
    }

    /// The node was busy over a transaction that was due, which so is due again.
    pub(super) fn put_back(&self, node: NodeId, due: &Due) {
        let mut state = self.state();
        due.sends.set(node, state.nodes[node].life, UNSENT);
        state.nodes[node].from = 0;
    }

    /// Drops the transactions that are too old. Returns how many are kept, and their bytes; `None`
    /// after a reload, which has them counted elsewhere.
    pub(super) fn tidy(&self) -> Option<(usize, usize)> {
        let mut state = self.state();
        state.forget(Instant::now());
        (!state.is_over).then_some((state.kept.len(), state.bytes))
    }

    /// Takes over the transactions that an earlier pool's clients sent: a node at another address
    /// is another node.
    pub(super) fn inherit(&self, pool: &Pool, earlier: &Self, of: &Pool) {
        let places: Vec<Option<NodeId>> = pool.nodes.iter().map(|node| of.place_of(node)).collect();
        self.take_over(earlier, &places);
    }

    /// The same, where `places` are the nodes' places in the earlier pool.
    fn take_over(&self, earlier: &Self, places: &[Option<NodeId>]) {
        let (kept, claim, nodes) = {
            let mut earlier = earlier.state();
            (earlier.bytes, earlier.is_over) = (0, true);
            earlier.hashes.clear();
            earlier.shares.clear();
            earlier.first += earlier.kept.len() as u64;
            (std::mem::take(&mut earlier.kept), earlier.claim.take(), earlier.nodes.clone())
        };
        let mut state = self.state();
        // Transactions that came here meanwhile are newer.
        let newer = std::mem::take(&mut state.kept);
        for mut kept in kept {
            if !state.hashes.insert(kept.transaction.hash) {
                continue;
            }
            let sends = Sends::new(state.nodes.len());
            for (node, place) in NodeId::all(places.len()).zip(places) {
                // The earlier pool's sends may end with that pool, so those under way do not count.
                if let Some(place) = place.filter(|place| kept.sends.state(*place, nodes[*place].life) >= SAID) {
                    let said = kept.sends.state(place, nodes[place].life);
                    sends.set(node, state.nodes[node].life, said);
                }
            }
            kept.sends = Arc::new(sends);
            state.add(kept);
        }
        state.kept.extend(newer);
        state.nodes.iter_mut().for_each(|node| node.from = 0);
        state.claim = state.claim.take().or(claim);
        state.make_room();
        drop(state);
        self.bell.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is given up.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The place of the first transaction that is due for the node.
    fn due(&mut self, node: NodeId) -> Option<usize> {
        let NodeState { life, from } = self.nodes[node];
        let skipped = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX).min(self.kept.len());
        let is_due = |kept: &Kept| kept.sends.state(node, life) == UNSENT;
        let place = self.kept.iter().skip(skipped).position(is_due).map(|place| skipped + place);
        self.nodes[node].from = self.first + place.unwrap_or(self.kept.len()) as u64;
        place
    }

    fn forget(&mut self, now: Instant) {
        while self.kept.front().is_some_and(|kept| now.saturating_duration_since(kept.at) > KEPT_FOR) {
            self.remove(0);
        }
        self.count();
    }

    /// Keeps no more than the limits allow, and than the clients' memory has room for.
    fn make_room(&mut self) {
        while self.bytes > MAX_BYTES && self.thin(BYTES) {}
        while self.kept.len() > MAX_TRANSACTIONS && self.thin(COUNT) {}
        self.count();
    }

    fn count(&mut self) {
        while let Some(claim) = &mut self.claim
            && claim.resize(self.bytes).is_err()
            && self.thin(BYTES)
        {}
    }

    /// Removes the oldest transaction of the client that has the most by this measure; `false` if
    /// there is no transaction.
    fn thin(&mut self, measure: usize) -> bool {
        let Some((&client, _)) = self.shares.iter().max_by_key(|(_, share)| share[measure]) else { return false };
        let oldest = self.kept.iter().position(|kept| kept.client == client);
        oldest.is_some_and(|place| {
            self.remove(place);
            true
        })
    }

    fn add(&mut self, kept: Kept) {
        self.bytes += kept.weight();
        let share = self.shares.entry(kept.client).or_default();
        share[COUNT] += 1;
        share[BYTES] += kept.weight();
        self.kept.push_back(kept);
    }

    fn remove(&mut self, place: usize) {
        let Some(kept) = self.kept.remove(place) else { return };
        self.bytes -= kept.weight();
        if let Some(share) = self.shares.get_mut(&kept.client) {
            share[COUNT] -= 1;
            share[BYTES] -= kept.weight();
            if share[COUNT] == 0 {
                self.shares.remove(&kept.client);
            }
        }
        self.hashes.remove(&kept.transaction.hash);
        // The numbers behind are one lower now, unless the first one went; so nothing is skipped.
        if place == 0 {
            self.first += 1;
        } else {
            self.nodes.iter_mut().for_each(|node| node.from = node.from.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests;
