//! The share that one client has of a node's connections, and the part that is left to others.
//!
//! Rule: a client is an address: all its connections together have one share. Within the share,
//! each connection is a unit of its own. Reason: a connection with many calls must not delay its
//! neighbours. Example with 100 connections to a node: a client's connection that has some in use
//! leaves 25 free; another connection of the same address, which has none, leaves 6 free; a
//! connection of a new address may take the last one.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::peers::Entry;

/// A quarter of a node's connections stays free for others when a client's connection with some in
/// use asks for one more.
pub(super) const PART_FOR_CONNECTIONS: usize = 4;
/// A sixteenth stays free for other addresses when an address with some in use asks for one more.
/// So a new address finds a connection free, and one address alone can have nearly all.
const PART_FOR_ADDRESSES: usize = 16;
/// Where there are fewer connections than this, none is kept for addresses that come.
const FEW_CONNECTIONS: usize = 8;
/// Nodes that a client's connection remembers without a call there.
const REMEMBERED_NODES: usize = 8;

/// No two addresses, nor two clients of no address, have the same.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Draws a unique number.
pub(super) fn number() -> u64 {
    NUMBERS.fetch_add(1, Relaxed)
}

/// A client's address, for as long as the address has an open connection.
#[derive(Debug)]
pub(super) struct Address {
    number: u64,
    /// By node: those that its connections have in mind.
    tallies: Mutex<Vec<Arc<Tally>>>,
    /// Its entry among all addresses.
    _entry: Option<Entry>,
}

/// The connections that an address has in use at one node.
#[derive(Debug)]
struct Tally {
    /// The number of the node's connections.
    connections: u64,
    used: AtomicUsize,
    /// The number of the last turn among the waiters for one; 0 for none.
    turn: AtomicU64,
}

/// A client's connection, which may have many calls under way.
#[derive(Debug)]
pub struct Caller {
    number: u64,
    address: Arc<Address>,
    shares: Mutex<Vec<Share>>,
}

/// The connections that a client's connection has in use at one node.
#[derive(Debug)]
struct Share {
    used: usize,
    /// The number of the last turn among the waiters for one; 0 for none.
    turn: u64,
    of_address: Arc<Tally>,
}

/// Whether a client has connections to a node in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Has {
    /// Whether this connection of its has some.
    pub(super) own: bool,
    /// Whether any connection of its address has.
    pub(super) address: bool,
}

/// The numbers of a client's last turns among the waiters; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// This connection's.
    pub(super) own: u64,
    /// Any connection's of its address.
    pub(super) address: u64,
}

/// Counts one connection as in use until dropped.
#[derive(Debug)]
pub(super) struct Part {
    caller: Arc<Caller>,
    connections: u64,
}

impl Address {
    pub(super) fn new(entry: Option<Entry>) -> Arc<Self> {
        Arc::new(Self { number: number(), tallies: Mutex::default(), _entry: entry })
    }

    /// The tally for the node of these connections.
    fn tally(&self, connections: u64) -> Arc<Tally> {
        let mut tallies = self.lock();
        if let Some(tally) = tallies.iter().find(|tally| tally.connections == connections) {
            return tally.clone();
        }
        // The address may be open for longer than nodes are there.
        tallies.retain(|tally| Arc::strong_count(tally) > 1);
        let tally = Arc::new(Tally { connections, used: AtomicUsize::new(0), turn: AtomicU64::new(0) });
        tallies.push(tally.clone());
        tally
    }

    /// The tally for the node of these connections, if there is one.
    fn known(&self, connections: u64) -> Option<Arc<Tally>> {
        self.lock().iter().find(|tally| tally.connections == connections).cloned()
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the list.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Tally>>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Caller {
    /// A client that shares with no other connection.
    fn default() -> Self {
        Self::of(Address::new(None))
    }
}

impl Caller {
    pub(super) fn of(address: Arc<Address>) -> Self {
        Self { number: number(), address, shares: Mutex::default() }
    }

    /// The number of its address, which no other has.
    pub fn address(&self) -> u64 {
        self.address.number
    }

    /// Its own number among the connections.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Counts one of these connections as in use.
    pub(super) fn uses(self: &Arc<Self>, connections: u64) -> Part {
        self.change(connections, |share| {
            share.used += 1;
            share.of_address.used.fetch_add(1, Release);
        });
        Part { caller: self.clone(), connections }
    }

    /// This client got one of these connections after a wait: the turn with this number.
    pub(super) fn has_turn(&self, connections: u64, number: u64) {
        self.change(connections, |share| {
            share.turn = number;
            share.of_address.turn.store(number, Relaxed);
        });
    }

    /// Changes the share of these connections.
    fn change(&self, connections: u64, change: impl FnOnce(&mut Share)) {
        let mut shares = self.lock();
        let at = shares.iter().position(|share| share.of_address.connections == connections).unwrap_or_else(|| {
            if shares.len() >= REMEMBERED_NODES {
                shares.retain(|share| share.used > 0);
            }
            shares.push(Share { used: 0, turn: 0, of_address: self.address.tally(connections) });
            shares.len() - 1
        });
        change(&mut shares[at]);
    }

    /// This client's last turns among the waiters for these connections.
    pub(super) fn turns(&self, connections: u64) -> Turns {
        let shares = self.lock();
        match shares.iter().find(|share| share.of_address.connections == connections) {
            Some(share) => Turns { own: share.turn, address: share.of_address.turn.load(Relaxed) },
            None => {
                let address = self.address.known(connections).map_or(0, |tally| tally.turn.load(Relaxed));
                Turns { own: 0, address }
            }
        }
    }

    /// Whether this client has some of these connections in use.
    pub(super) fn has(&self, connections: u64) -> Has {
        let shares = self.lock();
        match shares.iter().find(|share| share.of_address.connections == connections) {
            Some(share) => Has { own: share.used > 0, address: share.of_address.used.load(Acquire) > 0 },
            None => {
                let has_some = |tally: Arc<Tally>| tally.used.load(Acquire) > 0;
                Has { own: false, address: self.address.known(connections).is_some_and(has_some) }
            }
        }
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the list.
    fn lock(&self) -> MutexGuard<'_, Vec<Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Has {
    /// Has nothing.
    pub(super) const NONE: Self = Self { own: false, address: false };

    /// How many of at most `limit` connections must stay free when this client takes one more;
    /// `None`: the client may take the last one.
    pub(super) fn leaves(self, limit: usize) -> Option<usize> {
        match self {
            Self { own: true, .. } => Some(limit / PART_FOR_CONNECTIONS),
            Self { address: true, .. } if limit < FEW_CONNECTIONS => Some(0),
            Self { address: true, .. } => Some((limit / PART_FOR_ADDRESSES).max(1)),
            Self::NONE => None,
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut shares = self.caller.lock();
        if let Some(share) = shares.iter_mut().find(|share| share.of_address.connections == self.connections) {
            share.used -= 1;
            share.of_address.used.fetch_sub(1, Release);
        }
    }
}
