//! The memory for transactions on their way to nodes: one bound for all tenants and networks.
//!
//! A place lasts until the last node has given its word, or is given up. A node that hangs would so
//! fill the room. So the node is left out once its sendings take half of the room.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, time::sleep};

use super::record::Network;
use crate::memory::{Account, Budget, Claim};

/// Transactions on their way to nodes may take an eighth of the clients' memory in all.
const DIVISOR: usize = 8;
/// A transaction of this length at most is small: it waits behind no other, and may take the
/// reserve. Otherwise long transactions would hold up everybody's.
const SMALL: usize = 4096;
/// The reserve for small transactions: this part of the room.
const RESERVE_DIVISOR: usize = 8;
/// The pause before a sending without room asks for room again.
const ROOM_PAUSE: Duration = Duration::from_millis(20);
/// Copies of a transaction that a sending holds: the bytes, and their hex digits.
const COPIES: usize = 3;
/// Bytes of a sending besides the copies.
const OVERHEAD: usize = 1024;
/// Sendings that wait for one node may take this part of the room while another node is quick.
const NODE_DIVISOR: usize = 2;

/// The room.
#[derive(Debug)]
pub(super) struct SendRoom {
    budget: Arc<Budget>,
    held: AtomicUsize,
    /// Waiting sendings.
    waiting: AtomicUsize,
    /// Waiting sendings take turns.
    turn: Semaphore,
    /// Bytes of the sendings that wait for a node's word, by network and node.
    at_nodes: Mutex<BTreeMap<NodeKey, usize>>,
}

/// A node: its network, and its name there.
type NodeKey = (Network, Arc<str>);

/// A sending's wait for the word of one node, in the count of that node.
#[derive(Debug)]
pub(super) struct AtNode {
    room: Arc<SendRoom>,
    node: NodeKey,
    bytes: usize,
}

impl Drop for AtNode {
    fn drop(&mut self) {
        let mut at_nodes = self.room.at_nodes();
        if let Some(held) = at_nodes.get_mut(&self.node) {
            *held = held.saturating_sub(self.bytes);
            if *held == 0 {
                at_nodes.remove(&self.node);
            }
        }
    }
}

/// A waiting sending, in the count while it waits.
struct Waiting<'r>(&'r AtomicUsize);

impl<'r> Waiting<'r> {
    fn new(count: &'r AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// A place in the room, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    room: Arc<SendRoom>,
    bytes: usize,
    _claim: Claim,
}

impl SendRoom {
    /// A room in the memory of `budget`.
    pub(super) fn new(budget: Arc<Budget>) -> Arc<Self> {
        let (held, waiting, turn) = (AtomicUsize::new(0), AtomicUsize::new(0), Semaphore::new(1));
        Arc::new(Self { budget, held, waiting, turn, at_nodes: Mutex::default() })
    }

    /// Counts a transaction of this length among those that wait for a node's word.
    pub(super) fn at_node(self: &Arc<Self>, network: &Network, node: &Arc<str>, length: usize) -> AtNode {
        let (node, bytes) = ((network.clone(), node.clone()), cost(length));
        *self.at_nodes().entry(node.clone()).or_default() += bytes;
        AtNode { room: self.clone(), node, bytes }
    }

    /// Bytes of the sendings that wait for this node's word.
    pub(super) fn held_by(&self, network: &Network, node: &Arc<str>) -> usize {
        self.at_nodes().get(&(network.clone(), node.clone())).copied().unwrap_or(0)
    }

    /// Whether a node whose sendings take so much is left out, beside one whose sendings take
    /// `least`.
    pub(super) fn leaves_out(&self, held: usize, least: usize) -> bool {
        let most = self.limit() / NODE_DIVISOR;
        held >= most && least < most / 2
    }

    fn limit(&self) -> usize {
        self.budget.limit() / DIVISOR
    }

    /// The bytes at nodes. Each change is made whole under the lock.
    fn at_nodes(&self) -> MutexGuard<'_, BTreeMap<NodeKey, usize>> {
        self.at_nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a transaction of this length, where there is room and none waits.
    pub(super) fn take_now(self: &Arc<Self>, length: usize) -> Option<Place> {
        if length > SMALL && self.waiting.load(SeqCst) > 0 {
            return None;
        }
        self.place(length)
    }

    /// A place for a transaction of this length, as soon as there is room. Cancel-safe.
    pub(super) async fn take(self: &Arc<Self>, length: usize) -> Place {
        let _waiting = (length > SMALL).then(|| Waiting::new(&self.waiting));
        // The semaphore is never closed.
        let _turn = if length > SMALL { self.turn.acquire().await.ok() } else { None };
        loop {
            if let Some(place) = self.place(length) {
                return place;
            }
            sleep(ROOM_PAUSE).await;
        }
    }

    fn place(self: &Arc<Self>, length: usize) -> Option<Place> {
        let bytes = cost(length);
        let before = self.held.fetch_add(bytes, SeqCst);
        let mut claim = Account::open(&self.budget).incoming();
        // However little memory there is, one transaction may go.
        let is_alone = before == 0;
        let limit = self.limit();
        let limit = if length > SMALL { limit - limit / RESERVE_DIVISOR } else { limit };
        let has_room = before + bytes <= limit && claim.resize(bytes).is_ok();
        if !has_room && !is_alone {
            self.held.fetch_sub(bytes, SeqCst);
            return None;
        }
        claim.set(bytes);
        Some(Place { room: self.clone(), bytes, _claim: claim })
    }
}

/// Bytes that a sending of a transaction of this length takes.
fn cost(length: usize) -> usize {
    length * COPIES + OVERHEAD
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.held.fetch_sub(self.bytes, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sends_share_an_eighth_of_the_memory() {
        let budget = Budget::new(9 << 20);
        let room = SendRoom::new(budget.clone());
        let places: Vec<_> = std::iter::from_fn(|| room.take_now(100_000)).collect();
        assert_eq!(places.len(), 3, "an eighth, less the reserve, is 1 MiB");
        assert!(budget.held() > 800_000, "{}", budget.held());
        let waits = tokio::spawn({
            let room = room.clone();
            async move { room.take(100_000).await }
        });
        sleep(ROOM_PAUSE * 10).await;
        assert!(!waits.is_finished());
        assert!(room.take_now(5000).is_none(), "those who wait come first");
        assert!(room.take_now(100).is_some(), "a small one waits for no long ones");
        drop(places);
        let place = waits.await.unwrap();
        drop(place);
        assert_eq!((budget.held(), room.held.load(SeqCst)), (0, 0));
    }

    #[test]
    fn a_node_that_holds_half_of_the_room_is_left_out() {
        let room = SendRoom::new(Budget::new(8 << 20));
        let (network, slow, quick) = (Network::from("main"), Arc::from("slow"), Arc::from("quick"));
        let at = |node: &Arc<str>| room.at_node(&network, node, 60_000);
        let held = |node: &Arc<str>| room.held_by(&network, node);
        let mut waits: Vec<_> = (0..2).map(|_| at(&slow)).collect();
        assert!(!room.leaves_out(held(&slow), held(&quick)), "a third of the room");
        waits.push(at(&slow));
        assert!(room.leaves_out(held(&slow), held(&quick)));
        assert!(!room.leaves_out(held(&slow), held(&slow)), "no other node is quicker");
        assert_eq!(room.held_by(&"other".into(), &slow), 0, "a node of another network");
        drop(waits);
        assert!(room.at_nodes().is_empty());
    }

    #[tokio::test]
    async fn one_transaction_may_go_however_large() {
        let room = SendRoom::new(Budget::new(1 << 10));
        let large = room.take(1 << 20).now_or_never().unwrap();
        assert!(room.take_now(1).is_none());
        drop(large);
        assert!(room.take_now(1).is_some());
    }
}
