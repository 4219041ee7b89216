//! The outbox among replicas: one bucket has each transaction, and one replica sees it through.
//!
//! - A client's transaction is in the bucket before any replica acts on it, and before the client
//!   has the hash. Any replica may take it from the client.
//! - Each replica watches the bucket, and has all rows on its own disk: status, lists, nonces and
//!   subscriptions are read there, also while the bucket is away.
//! - Each shard of the senders has one owner, by [`placement`]. The owner sends, follows blocks,
//!   and tells endpoints; it writes each change of a record to the bucket, behind the commit on its
//!   disk. The next owner goes on with what the bucket has: it may make the last transitions again,
//!   and tells them with the same ids.
//! - The row has the events that endpoints were told of. The next owner makes the deliveries of the
//!   others.
//!
//! [`task`] is the one task that watches and writes; [`Replicas`] is the way to it for all others.

mod chains;
mod check;
mod clocks;
mod link;
mod moving;
mod placement;
mod row;
mod task;
mod told;
mod writing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

use self::check::Check;
pub(super) use self::{link::MAX_ROWS, task::Task};
pub use self::{placement::MoveReason, row::Row, task::OpenBucket};
use super::{
    ownership::Ownership,
    record::{EventId, Millis, TxId},
    shard::Shard,
};
use crate::{
    cluster::{
        Cluster,
        store::{Revision, Store},
    },
    domain::fleet::ReplicaName,
    metrics::Metrics,
};

/// A row of the bucket, without its content.
#[derive(Clone, Debug)]
struct Known {
    revision: Revision,
    shard: Shard,
    told: Arc<BTreeSet<EventId>>,
    is_over: bool,
    /// The life is over, and nothing is left to be told.
    is_done: bool,
    /// A replica that was away until then may have the transaction as one that is to be sent.
    outlives: Millis,
    /// Tells the value from others.
    digest: u64,
}

/// The way to the bucket.
#[derive(Clone)]
struct Link {
    store: Arc<dyn Store>,
    cluster: Cluster,
}

/// The outbox of this replica among others.
pub(super) struct Replicas {
    ownership: Ownership,
    metrics: Arc<Metrics>,
    link: ArcSwapOption<Link>,
    /// All rows of the bucket were taken up once.
    is_synced: AtomicBool,
    /// The replica ends, and gives its shards away.
    leaves: AtomicBool,
    /// The disk takes writes, and has done so for a while.
    can_write: AtomicBool,
    /// Whether the clock lets this replica take part.
    clock: Check,
    /// The same of the chains of its networks.
    chains: Check,
    /// The bucket is to be listed anew.
    must_list: AtomicBool,
    rows: Mutex<BTreeMap<TxId, Known>>,
    /// Transactions whose row may be behind the record.
    waiting: Mutex<BTreeSet<TxId>>,
    /// Of these, the transactions whose record was dropped, so that the row goes too. A record that
    /// is missing is no reason: its row may just not have come yet.
    dropped: Mutex<BTreeSet<TxId>>,
    owners: Mutex<Vec<Option<ReplicaName>>>,
    wake: Notify,
    /// No shard is left.
    is_empty: watch::Sender<bool>,
}

impl Replicas {
    pub(super) fn new(ownership: Ownership, metrics: Arc<Metrics>) -> Self {
        metrics.begin_shards(&MoveReason::ALL.map(MoveReason::as_str));
        Self {
            ownership,
            metrics,
            link: ArcSwapOption::empty(),
            is_synced: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            can_write: AtomicBool::new(true),
            clock: Check::default(),
            chains: Check::default(),
            must_list: AtomicBool::new(false),
            rows: Mutex::default(),
            waiting: Mutex::default(),
            dropped: Mutex::default(),
            owners: Mutex::new(vec![None; Shard::all().count()]),
            wake: Notify::new(),
            is_empty: watch::Sender::new(true),
        }
    }

    /// Has the rows of these transactions brought to where the records are.
    pub(super) fn publish(&self, ids: impl IntoIterator<Item = TxId>) {
        let mut waiting = lock(&self.waiting);
        let before = waiting.len();
        waiting.extend(ids);
        if waiting.len() > before {
            self.wake.notify_one();
        }
    }

    /// Has the rows of these transactions deleted, whose records were dropped.
    pub(super) fn drop_rows(&self, ids: Vec<TxId>) {
        lock(&self.dropped).extend(ids.iter().cloned());
        self.publish(ids);
    }

    /// Has the bucket listed anew: this replica may lack rows.
    pub(super) fn list_anew(&self) {
        self.must_list.store(true, SeqCst);
        self.wake.notify_one();
    }

    /// The replica that a shard's row names.
    pub(super) fn owner(&self, shard: Shard) -> Option<ReplicaName> {
        lock(&self.owners)[shard.index()].clone()
    }

    /// The shards that this replica sees through; `None` while it can take none.
    pub(super) fn shards(&self) -> Option<u8> {
        self.takes_part().then(|| self.ownership.active().count())
    }

    /// Whether this replica can see shards through.
    fn takes_part(&self) -> bool {
        let is_fit = self.clock.is_passed() && self.chains.is_passed();
        self.is_synced.load(SeqCst) && !self.leaves.load(SeqCst) && self.can_write.load(SeqCst) && is_fit
    }

    /// Whether the bucket has the transaction. Where it does not, as far as is known, the row is
    /// brought.
    pub(super) fn is_shared(&self, id: &TxId) -> bool {
        let is_shared = self.known(id).is_some();
        if !is_shared {
            self.publish([id.clone()]);
        }
        is_shared
    }

    /// Rows that are behind their records.
    pub(super) fn waiting(&self) -> usize {
        lock(&self.waiting).len()
    }

    /// Whether this replica tells of nodes and switches: the leader does.
    pub(super) fn leads(&self) -> bool {
        self.link.load().as_ref().is_some_and(|link| link.cluster.leads().is_some())
    }

    /// Gives all shards away. Others take over after `cluster.failover_timeout` what is left then.
    pub(super) async fn hand_over(&self, within: Duration) {
        self.leaves.store(true, SeqCst);
        self.wake.notify_one();
        let mut is_empty = self.is_empty.subscribe();
        if timeout(within, is_empty.wait_for(|is_empty| *is_empty)).await.is_err() {
            tracing::warn!("shards of the outbox are not given away in time: others take over after a while");
        }
    }

    fn note(&self, id: TxId, known: Known) {
        let mut rows = lock(&self.rows);
        if rows.get(&id).is_none_or(|before| before.revision < known.revision) {
            rows.insert(id, known);
        }
    }

    fn known(&self, id: &TxId) -> Option<Known> {
        lock(&self.rows).get(id).cloned()
    }
}

/// Each change is whole, so a panic elsewhere cannot have spoilt the value.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
