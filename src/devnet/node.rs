//! A pretend node: a name, a view of the chain, faults, and a record of its requests.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use alloy_primitives::{Address, B256};
use fastrand::Rng;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    chain::Chain,
    fault::{Fault, Faults},
    filter::Filters,
    hash,
    record::{Records, Request},
    told::Told,
    view::View,
};

/// Which side of Ethereum a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON-RPC over HTTP and WebSocket.
    Execution,
    /// The beacon API.
    Consensus,
}

/// A pretend node. Faults work at once, also on connections that are open and requests that wait.
pub struct Node {
    name: String,
    kind: Kind,
    addr: SocketAddr,
    pub(super) chain: Arc<Chain>,
    pub(super) settings: Settings,
    pub(super) records: Arc<Records>,
    faults: watch::Sender<Arc<Faults>>,
    listening: watch::Sender<bool>,
    own: Mutex<Own>,
}

/// The settings of a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// The node's place among those of its kind.
    pub(super) place: usize,
    pub(super) own_mempools: bool,
    pub(super) small_ids: bool,
    pub(super) slot: Duration,
    pub(super) state_bytes: u64,
}

/// State of this node alone; the chain's state is shared.
struct Own {
    rng: Rng,
    next_id: u64,
    small_ids: bool,
    filters: Filters,
    raw: Vec<B256>,
    told: Told,
    /// Credits that were spent and have not come back, and when that was so.
    spent: (f64, Instant),
    /// Messages that were refused for want of credits.
    overspent: u64,
}

/// The connection is to be dropped without an answer.
#[derive(Debug, thiserror::Error)]
#[error("dropped by a fault")]
pub(super) struct Dropped;

impl Node {
    pub(super) fn new(
        name: String,
        kind: Kind,
        addr: SocketAddr,
        chain: Arc<Chain>,
        settings: Settings,
        seed: u64,
    ) -> Self {
        let own = Own {
            rng: Rng::with_seed(hash::seed(&hash::derived(&name, &seed.to_be_bytes()))),
            next_id: 0,
            small_ids: settings.small_ids,
            filters: Filters::default(),
            raw: Vec::new(),
            told: Told::nothing(),
            spent: (0.0, Instant::now()),
            overspent: 0,
        };
        Self {
            name,
            kind,
            addr,
            chain,
            settings,
            records: Arc::default(),
            faults: watch::Sender::default(),
            listening: watch::Sender::new(true),
            own: Mutex::new(own),
        }
    }

    /// `el-1`, `cl-2`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Execution or consensus.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The node's address, also while the node is down.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:8545`
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// `ws://127.0.0.1:8545`, the same port.
    #[must_use]
    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    /// Switches a fault on, in the place of one of its kind. The socket follows [`Fault::Down`]
    /// shortly: see [`Node::settled`]; a `Down` that is cleared before that may pass unnoticed.
    pub fn set_fault(&self, fault: Fault) {
        if let Fault::Branch { blocks } = fault {
            self.chain.diverge(blocks);
        }
        if fault == Fault::Forgetful && self.kind == Kind::Execution {
            self.chain.set_forgetful(self.settings.place, true);
            self.chain.forget_mempool(self.settings.place);
        }
        let view = self.view();
        self.faults.send_modify(|faults| Arc::make_mut(faults).set(fault, view));
    }

    /// Switches the fault of this name off.
    pub fn clear_fault(&self, name: &str) {
        if name == "forgetful" {
            self.remember();
        }
        self.faults.send_modify(|faults| Arc::make_mut(faults).unset(name));
    }

    /// Switches all faults off.
    pub fn clear_faults(&self) {
        self.remember();
        self.faults.send_replace(Arc::default());
    }

    /// Keeps the transactions that come from now on.
    fn remember(&self) {
        if self.kind == Kind::Execution {
            self.chain.set_forgetful(self.settings.place, false);
        }
    }

    /// The faults that are set.
    #[must_use]
    pub fn active_faults(&self) -> Vec<Fault> {
        self.faults.borrow().list().to_vec()
    }

    /// Spends the credits of a message with so many calls, where the node counts any; `false` if
    /// there are too few.
    pub(super) fn spends(&self, faults: &Faults, calls: usize) -> bool {
        let Some((per_second, burst, _)) = faults.credits() else { return true };
        let mut own = self.own();
        let (before, at) = own.spent;
        let now = Instant::now();
        let left = (before - (now - at).as_secs_f64() * per_second as f64).max(0.0) + calls as f64;
        // The sum of many parts is no exact one.
        let is_within = left <= burst as f64 + 1e-3;
        own.spent = (if is_within { left } else { left - calls as f64 }, now);
        own.overspent += u64::from(!is_within);
        is_within
    }

    /// How many messages were refused for want of credits.
    #[must_use]
    pub fn overspent(&self) -> u64 {
        self.own().overspent
    }

    /// Waits until the listening socket follows the faults: closed if the node is down, open if
    /// not.
    pub async fn settled(&self) {
        let (mut listening, mut faults) = (self.listening.subscribe(), self.watch_faults());
        while *listening.borrow_and_update() == faults.borrow_and_update().down() {
            // Both arms are cancel-safe, and cannot fail, because the senders live in self.
            tokio::select! {
                biased;
                _ = faults.changed() => {}
                _ = listening.changed() => {}
            }
        }
    }

    /// The newest block number that the node reports, lies included.
    #[must_use]
    pub fn head_number(&self) -> u64 {
        let faults = self.faults();
        self.view_under(&faults).head().number + faults.lie()
    }

    /// The latest requests, oldest first. At most ten thousand are kept.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.records.requests()
    }

    /// How often a method was asked for since the start or the last [`Node::clear_records`].
    #[must_use]
    pub fn count(&self, method: &str) -> u64 {
        self.records.count(method)
    }

    /// All methods, with the number of calls of each.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.records.counts()
    }

    /// Forgets the requests and their counts.
    pub fn clear_records(&self) {
        self.records.clear();
    }

    /// Connections that are open now, WebSockets included.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        self.records.connections().0
    }

    /// Connections ever accepted.
    #[must_use]
    pub fn connections_total(&self) -> u64 {
        self.records.connections().1
    }

    /// Connections closed at once because of [`Fault::MaxConnections`].
    #[must_use]
    pub fn connections_refused(&self) -> u64 {
        self.records.refused()
    }

    /// WebSockets that are open now.
    #[must_use]
    pub fn websockets_open(&self) -> u64 {
        self.records.websockets()
    }

    /// Subscriptions over WebSocket, or event streams, that are alive now.
    #[must_use]
    pub fn subscriptions(&self) -> u64 {
        self.records.subscriptions()
    }

    /// Hashes of the raw transactions that this node was sent and accepted, in order.
    #[must_use]
    pub fn raw_transactions(&self) -> Vec<B256> {
        self.own().raw.clone()
    }

    /// Hashes of the transactions that wait in this node's mempool, in the order of their coming
    /// to the network.
    #[must_use]
    pub fn mempool(&self) -> Vec<B256> {
        self.chain.mempool_of(self.settings.place)
    }

    /// Gives out subscription ids as Besu does, `0x1`, `0x2`, instead of random ones.
    pub fn set_small_ids(&self, small: bool) {
        self.own().small_ids = small;
    }

    pub(super) fn sent_raw(&self, hash: B256) {
        self.own().raw.push(hash);
    }

    /// Stops and starts again: all connections are dropped, a consensus node forgets the
    /// registrations and subscriptions of validators, and an execution node the transactions in a
    /// mempool of its own. (A node with [`Fault::Down`] is cut off, and
    /// remembers.)
    pub async fn restart(&self) {
        self.set_fault(Fault::Down);
        self.settled().await;
        self.told(|told| *told = Told::nothing());
        if self.settings.own_mempools && self.kind == Kind::Execution {
            self.chain.forget_mempool(self.settings.place);
        }
        self.clear_fault("down");
        self.settled().await;
    }

    /// Whether the node was told, since its start, that a validator will aggregate attestations of
    /// `slot`.
    #[must_use]
    pub fn listens_at(&self, slot: u64) -> bool {
        self.told(|told| told.listens_at(slot))
    }

    /// Whether the node was told, since its start, that the validator is in a sync committee.
    #[must_use]
    pub fn syncs(&self, validator: u64) -> bool {
        self.told(|told| told.syncs(validator))
    }

    /// The fee recipient of a block that the node makes for this validator.
    #[must_use]
    pub fn fee_recipient(&self, validator: u64) -> Option<Address> {
        self.told(|told| told.recipient(validator))
    }

    /// Whether this public key was registered with the node since its start.
    #[must_use]
    pub fn is_registered(&self, key: &str) -> bool {
        self.told(|told| told.is_registered(key))
    }

    pub(super) fn told<T>(&self, act: impl FnOnce(&mut Told) -> T) -> T {
        act(&mut self.own().told)
    }

    /// How long the node has been running.
    pub(super) fn running(&self) -> Duration {
        self.told(|told| told.since.elapsed())
    }

    pub(super) fn new_id(&self) -> String {
        let mut own = self.own();
        if own.small_ids {
            own.next_id += 1;
            format!("0x{:x}", own.next_id)
        } else {
            format!("0x{:x}", own.rng.u128(1 << 64..))
        }
    }

    pub(super) fn with_filters<T>(&self, act: impl FnOnce(&mut Filters) -> T) -> T {
        act(&mut self.own().filters)
    }

    pub(super) fn faults(&self) -> Arc<Faults> {
        self.faults.borrow().clone()
    }

    pub(super) fn watch_faults(&self) -> watch::Receiver<Arc<Faults>> {
        self.faults.subscribe()
    }

    pub(super) fn set_listening(&self, open: bool) {
        self.listening.send_replace(open);
    }

    pub(super) fn view(&self) -> View {
        self.view_under(&self.faults())
    }

    pub(super) fn view_under(&self, faults: &Faults) -> View {
        let view = match faults.frozen() {
            Some(frozen) => frozen.back(faults.lag()),
            None => {
                let seen = self.chain.seen(faults.late());
                let rival = seen.rival.clone().filter(|_| faults.branch());
                View::new(rival.unwrap_or(seen), faults.lag())
            }
        };
        let head = view.head().number;
        if faults.missing_block() == Some(head) { view.at(head.saturating_sub(1)) } else { view }
    }

    /// When the node sees more of the chain than now, though nothing new happens.
    pub(super) fn sees_more_at(&self, faults: &Faults) -> Option<Instant> {
        self.chain.next_seen(faults.late())
    }

    /// Waits for as long as the node takes to answer a request that has just come; `extra` is the
    /// request's own delay. Returns the faults under which to answer the request. A change of
    /// faults counts for requests that wait already.
    pub(super) async fn admit(&self, extra: Duration) -> Result<Arc<Faults>, Dropped> {
        let faults = self.faults();
        if faults.none() && extra.is_zero() {
            return Ok(faults);
        }
        let mut changes = self.watch_faults();
        let arrived = Instant::now();
        loop {
            let faults = changes.borrow_and_update().clone();
            if faults.hang() {
                let _ = changes.wait_for(|faults| !faults.hang()).await;
                return Err(Dropped);
            }
            let wait = faults.slow() + if faults.refuses() { Duration::ZERO } else { extra };
            let until = arrived + wait;
            if Instant::now() >= until {
                return Ok(faults);
            }
            // Both arms may be dropped and made again without loss.
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = sleep_until(until) => {}
            }
        }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
