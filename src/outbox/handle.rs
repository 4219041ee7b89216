//! The outbox as the rest of the proxy uses it: a handle on the store, the webhooks and the relays
//! of the networks. Clones are the same outbox.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use alloy_primitives::{Address, B256};
use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{sync::oneshot, time::timeout};

use super::{
    desk::{Answer, Command, Done, NotDone},
    ownership::Ownership,
    record::{Millis, Network, Record, TenantName, TxId},
    relay::{Order, Question, RelayHandle, Submitted},
    replicas::Replicas,
    send_room::SendRoom,
    status::Status,
    store::{self, Store, StoreError},
    told::{Hub, Told, Watch},
    webhook::{Clock, Connect, Webhooks},
};
use crate::{
    config,
    domain::signed_transaction::{Limits, NotATransaction, SignedTransaction},
    memory::Claim,
};

/// Bytes that a delivery or a quarantine record counts, on the disk and in memory.
pub(super) const DELIVERY_BYTES: usize = 4096;

/// How long a call waits for the next nonce of its sender: a relay may be busy with the disk. The
/// node's own count is the answer then.
const TELL_TIMEOUT: Duration = Duration::from_secs(5);

/// The outbox.
#[derive(Clone)]
pub struct Outbox {
    pub(super) shared: Arc<Shared>,
}

/// The parts that all clones share.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) webhooks: Webhooks,
    pub(super) clock: Clock,
    pub(super) connect: Connect,
    pub(super) settings: ArcSwap<config::Outbox>,
    /// The relays, by network.
    pub(super) relays: Mutex<BTreeMap<Network, Arc<RelayHandle>>>,
    /// The most pending transactions of a network that memory holds.
    pub(super) most_pending: usize,
    pub(super) hub: Arc<Hub>,
    /// The shards that this replica owns.
    pub(super) ownership: Ownership,
    /// The other replicas; `None`: the proxy is alone.
    pub(super) replicas: Option<Arc<Replicas>>,
    /// Bounds the bytes on their way to nodes.
    pub(super) send_room: Arc<SendRoom>,
    /// Whether no further transaction is taken, because the proxy goes down.
    pub(super) is_closing: AtomicBool,
}

/// A transaction as a client sends it.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Whose it is.
    pub tenant: TenantName,
    /// The signed bytes.
    pub raw: Bytes,
    /// `x-request-id` of the request.
    pub request_id: Option<String>,
    /// `traceparent` of the request.
    pub traceparent: Option<String>,
}

/// Why a transaction was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAccepted {
    /// The bytes are no transaction that the network can take.
    #[error(transparent)]
    NotATransaction(#[from] NotATransaction),
    /// The outbox does not take it, or the nodes do not.
    #[error("{0}")]
    NotDone(NotDone),
    /// The proxy goes down, or the network was taken out of the settings.
    #[error("the outbox of this network is going down")]
    GoingDown,
}

impl Outbox {
    /// Takes a transaction in. Ends with the hash when `outbox.ack` allows that; never before the
    /// transaction is on the disk. `claim` is for the bytes, while they are in memory.
    ///
    /// # Errors
    /// Says why the transaction is not taken.
    pub async fn accept(&self, network: &Network, incoming: Incoming, claim: Claim) -> Result<B256, NotAccepted> {
        let relay = self.relay(network).ok_or(NotAccepted::GoingDown)?;
        let limits = {
            let settings = self.shared.settings.load();
            let chain_id = relay.calls().ok_or(NotAccepted::GoingDown)?.pool().chain_id();
            Limits { chain_id, bytes: settings.max_transaction, blob_bytes: settings.max_blob_transaction }
        };
        let tx = SignedTransaction::decode(&incoming.raw, &limits)?;
        if self.shared.is_closing.load(SeqCst) {
            return Err(NotAccepted::GoingDown);
        }
        if let Some(why) = not_writable(&self.shared.store.health().borrow()) {
            return Err(NotAccepted::NotDone(why));
        }
        if let Some(full) = self.too_many_deliveries(network, &incoming.tenant, &tx.hash) {
            return Err(NotAccepted::NotDone(full));
        }
        let answer = match &self.shared.replicas {
            Some(replicas) => self.accept_shared(replicas, (network, &relay), incoming, tx, claim).await,
            None => relay.ask(|answer| Order::Accept(Box::new(Submitted { incoming, tx, answer, claim }))).await,
        };
        match answer.ok_or(NotAccepted::GoingDown)? {
            Ok(Done::Hash(hash)) => Ok(hash),
            Ok(Done::Command) => Err(NotAccepted::GoingDown),
            Err(why) => Err(NotAccepted::NotDone(why)),
        }
    }

    /// Why a new transaction is not taken while deliveries wait; `None` where it is.
    fn too_many_deliveries(&self, network: &Network, tenant: &TenantName, hash: &B256) -> Option<NotDone> {
        let (all, of_tenant) = self.shared.webhooks.waiting(tenant);
        let settings = self.shared.settings.load();
        let bounds = [
            ("outbox.max_bytes_per_tenant", of_tenant, settings.max_bytes_per_tenant),
            ("outbox.max_bytes", all, settings.max_bytes),
        ];
        let is_too_much = |waiting: usize, limit| waiting.saturating_mul(DELIVERY_BYTES) >= limit;
        let (key, _, limit) = bounds.into_iter().find(|(_, waiting, limit)| is_too_much(*waiting, *limit))?;
        let id = TxId { tenant: tenant.clone(), network: network.clone(), hash: *hash };
        // A transaction that is kept already makes no new record.
        let is_known = self.record(&id).is_ok_and(|record| record.is_some());
        (!is_known).then_some(NotDone::Full { key, limit })
    }

    /// The record of a transaction; `None` where the tenant has none of this hash.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn record(&self, id: &TxId) -> Result<Option<Record>, StoreError> {
        self.shared.store.read()?.record(id)
    }

    /// The state of a transaction and how it came there, as clients are told.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn status(&self, id: &TxId) -> Result<Option<Status>, StoreError> {
        Ok(self.record(id)?.as_ref().map(Status::from))
    }

    /// The signed bytes of a transaction.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn raw(&self, id: &TxId) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.store.read()?.raw(id)
    }

    /// The first nonce from `count` on for which the tenant has no transaction of this sender that
    /// waits or is in a block.
    pub async fn next_nonce(&self, network: &Network, tenant: TenantName, sender: Address, count: u64) -> Option<u64> {
        let relay = self.relay(network)?;
        let told = relay.tell(|answer| Question::NextNonce { tenant, sender, count, answer });
        timeout(TELL_TIMEOUT, told).await.ok()?
    }

    /// All transitions of a transaction: those of its record, and each later one once.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn watch(&self, id: &TxId) -> Result<Option<Watch>, StoreError> {
        // The watch begins before the record is read, so that no transition falls between.
        let watch = self.shared.hub.watch(id);
        Ok(self.record(id)?.map(|record| watch.behind(&record)))
    }

    /// The transitions of all transactions from now on, for metrics. A receiver that does not keep
    /// up loses the oldest.
    pub fn transitions(&self) -> tokio::sync::broadcast::Receiver<Told> {
        self.shared.hub.all()
    }

    /// Carries out an operator's command.
    ///
    /// # Errors
    /// When there is no such transaction, the command does not fit its state, or the disk takes
    /// nothing.
    pub async fn command(&self, id: &TxId, command: Command) -> Result<(), NotDone> {
        let Some(relay) = self.relay(&id.network) else { return Err(NotDone::Unknown) };
        let id = id.clone();
        let answer: Option<Answer> = relay.ask(|answer| Order::Command { id, command, answer }).await;
        answer.unwrap_or(Err(NotDone::Unwritable)).map(|_| ())
    }

    /// The clock of the outbox, which a wall clock that jumps moves slowly.
    pub fn now(&self) -> Millis {
        (self.shared.clock)()
    }

    /// The settings in use.
    pub fn settings(&self) -> Arc<config::Outbox> {
        self.shared.settings.load_full()
    }

    /// The webhooks.
    pub fn webhooks(&self) -> &Webhooks {
        &self.shared.webhooks
    }

    pub(super) fn relay(&self, network: &Network) -> Option<Arc<RelayHandle>> {
        self.shared.relays().get(network).cloned()
    }
}

impl Shared {
    /// The relays. Each change is made whole under the lock.
    pub(super) fn relays(&self) -> MutexGuard<'_, BTreeMap<Network, Arc<RelayHandle>>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RelayHandle {
    /// Asks a question; `None` where the relay has ended, or reads the disk anew.
    pub(super) async fn tell<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(question(answer)).await.ok()?;
        answered.await.ok()
    }

    /// Hands an order in and waits for the answer; `None` where the relay has ended.
    pub(super) async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(order(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// Why nothing new is taken in this health; `None` where the store takes all.
pub(super) fn not_writable(health: &store::Health) -> Option<NotDone> {
    match health {
        store::Health::Writable => None,
        store::Health::Full(_) => Some(NotDone::DiskFull),
        store::Health::Unwritable(_) => Some(NotDone::Unwritable),
    }
}
