//! The task: watches the bucket, writes rows, and moves shards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use futures_util::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{FuturesOrdered, FuturesUnordered},
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};
use tracing::{debug, error, info, warn};

use super::{
    Known, Link, MoveReason, Replicas, Row,
    clocks::Skew,
    lock,
    placement::{Held, Placement},
    row::{Owner, Place},
    writing::Written,
};
use crate::{
    cluster::{
        Cluster,
        store::{Entry, Event, Incarnation, Prefix, Revision, Store, Watch, nats::OpenError},
    },
    domain::{
        backoff::Backoff,
        fleet::{Epoch, ReplicaName},
    },
    outbox::{
        desk::NotDone,
        handle::Shared,
        ownership::Ownership,
        record::{Delivery, Network, TxId},
        relay::{Order, ReplicaOrder},
        shard::{Shard, ShardSet},
        step::Step,
        store::{self, StoreError},
    },
};

/// From one look at the cluster to the next.
const TICK: Duration = Duration::from_millis(100);
/// Events of the watch that are taken in at once.
const BATCH: usize = 256;
/// The first and the longest pause between two attempts at the bucket.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The least time between two listings that this replica asks for.
const LISTING_PAUSE: Duration = Duration::from_secs(10);

/// Opens the bucket.
pub type OpenBucket = Arc<dyn Fn() -> BoxFuture<'static, Result<Arc<dyn Store>, OpenError>> + Send + Sync>;

/// The end of something that the task has begun.
pub(super) enum Outcome {
    Row(TxId, Written),
    Claimed(Shard, Option<MoveReason>, bool),
    Released(Shard, bool),
    Moved(ShardSet, ShardSet, Result<(), String>),
    Deliveries(ShardSet, Result<Vec<Delivery>, String>),
    Clocks(Option<Skew>),
    Chains(Option<Option<NotDone>>),
}

/// An event of the watch behind the rows that came before.
enum Taken {
    Rows,
    /// A relay could not take the rows.
    Lost,
    Owner(Shard, Held),
    NoOwner(Shard, Revision),
    Synced,
}

/// The task.
pub(in crate::outbox) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) replicas: Arc<Replicas>,
    cluster: Cluster,
    open: OpenBucket,
    pub(super) me: ReplicaName,
    pub(super) failover: u64,
    pub(super) placement: Placement,
    pub(super) life: Option<Epoch>,
    taken: FuturesOrdered<BoxFuture<'static, Taken>>,
    pub(super) requests: FuturesUnordered<BoxFuture<'static, Outcome>>,
    /// Transactions whose rows are being written.
    pub(super) writing: BTreeSet<TxId>,
    pub(super) next_write: Instant,
    /// Since when all is delivered of the transactions of rows that are to go.
    pub(super) done_since: BTreeMap<TxId, Instant>,
    pub(super) next_sweep: Instant,
    /// The last row that was looked at whether all is delivered.
    pub(super) swept: Option<TxId>,
    /// When a disk that took no writes will have taken them for long enough.
    pub(super) well_from: Option<Instant>,
    /// Shards that are to be taken up with the next move, and put down.
    pub(super) preparing: ShardSet,
    pub(super) stopping: ShardSet,
    pub(super) is_moving: bool,
    /// The relays are to be told of the owned shards, though none moves.
    pub(super) must_move: bool,
    pub(super) next_move: Instant,
    /// Until when shards that are given away wait for rows.
    pub(super) flush_until: Option<Instant>,
    next_listing: Instant,
    /// The bucket that was read last.
    bucket: Option<Incarnation>,
    /// Rows that came are not on the disk, until all are listed anew.
    pub(super) is_behind: bool,
    /// The log has said that rows wait.
    pub(super) is_told: bool,
    pub(super) next_clocks: Instant,
    pub(super) is_looking_at_clocks: bool,
    /// When the task began.
    pub(super) began: Instant,
    pub(super) next_chains: Instant,
    pub(super) is_looking_at_chains: bool,
    /// The chain of a network's nodes is not known.
    pub(super) has_unknown_chain: bool,
    /// Networks of which rows came, and that are not in the settings.
    unknown: BTreeSet<Network>,
}

impl Task {
    pub(in crate::outbox) fn new(
        shared: Arc<Shared>,
        replicas: Arc<Replicas>,
        cluster: Cluster,
        failover: u64,
        open: OpenBucket,
    ) -> Self {
        let (me, now) = (cluster.snapshot().replica.clone(), Instant::now());
        Self {
            shared,
            replicas,
            cluster,
            open,
            placement: Placement::new(me.clone()),
            me,
            failover,
            life: None,
            taken: FuturesOrdered::new(),
            requests: FuturesUnordered::new(),
            writing: BTreeSet::new(),
            next_write: now,
            done_since: BTreeMap::new(),
            next_sweep: now,
            swept: None,
            well_from: None,
            preparing: ShardSet::NONE,
            stopping: ShardSet::NONE,
            is_moving: false,
            must_move: false,
            next_move: now,
            flush_until: None,
            next_listing: now,
            bucket: None,
            is_behind: false,
            is_told: false,
            next_clocks: now,
            is_looking_at_clocks: false,
            began: now,
            next_chains: now,
            is_looking_at_chains: false,
            has_unknown_chain: false,
            unknown: BTreeSet::new(),
        }
    }

    /// Runs until the task is dropped.
    pub(in crate::outbox) async fn run(mut self, seed: u64) {
        let store = bucket(self.open.clone(), seed).await;
        info!("the bucket of the outbox is open");
        let link = Link { store, cluster: self.cluster.clone() };
        self.replicas.link.store(Some(Arc::new(link.clone())));
        let mut watch = link.store.watch(&Prefix::ALL);
        loop {
            self.look_at_clocks(&link);
            self.look_at_chains(&link);
            self.place(&link);
            self.write_rows(&link);
            self.sweep_rows(&link);
            if self.replicas.must_list.load(SeqCst) && Instant::now() >= self.next_listing {
                self.replicas.must_list.store(false, SeqCst);
                watch = self.list_anew(&link);
            }
            let replicas = self.replicas.clone();
            // All arms are cancel-safe.
            tokio::select! {
                biased;
                Some(outcome) = self.requests.next(), if !self.requests.is_empty() => self.ended(&link, outcome),
                Some(taken) = self.taken.next(), if !self.taken.is_empty() => self.took(taken).await,
                event = watch.next() => {
                    let mut events = vec![event];
                    while events.len() < BATCH && let Some(event) = watch.next().now_or_never() {
                        events.push(event);
                    }
                    self.take(events).await;
                }
                () = replicas.wake.notified() => {}
                () = sleep(TICK) => {}
            }
        }
    }

    pub(super) fn ownership(&self) -> Ownership {
        self.shared.ownership.clone()
    }

    pub(super) fn is_synced(&self) -> bool {
        self.replicas.is_synced.load(SeqCst)
    }

    fn list_anew(&mut self, link: &Link) -> Watch {
        self.next_listing = Instant::now() + LISTING_PAUSE;
        (self.taken, self.is_behind) = (FuturesOrdered::new(), true);
        // A network may have come, whose relay knows of no move.
        self.must_move = true;
        lock(&self.replicas.rows).clear();
        link.store.watch(&Prefix::ALL)
    }

    fn ended(&mut self, link: &Link, outcome: Outcome) {
        match outcome {
            Outcome::Row(id, written) => self.written(id, written),
            Outcome::Claimed(shard, reason, is_ok) => self.claimed(link, shard, reason, is_ok),
            Outcome::Released(_, true) => {}
            Outcome::Released(shard, false) => self.placement.failed(link.cluster.now(), shard),
            Outcome::Moved(begin, end, outcome) => self.moved(begin, end, outcome),
            Outcome::Deliveries(begin, outcome) => self.begun(begin, outcome),
            Outcome::Clocks(skew) => self.compared(skew),
            Outcome::Chains(outcome) => self.found_chains(outcome),
        }
    }

    /// Takes events in: rows go to the relays of their networks, and all else waits until those
    /// before are on the disk.
    async fn take(&mut self, events: Vec<Option<Event>>) {
        let mut rows = BTreeMap::new();
        for event in events {
            match event {
                Some(Event::Entry(entry)) => self.entry(&mut rows, entry).await,
                Some(Event::Deleted { key, revision }) => match Place::parse(&key) {
                    Ok(Place::Transaction(id, _)) => self.deleted(id, revision),
                    Ok(Place::Owner(shard)) => {
                        self.hand_on(&mut rows).await;
                        self.behind(Taken::NoOwner(shard, revision));
                    }
                    Ok(Place::Clock(_) | Place::Chain(_)) | Err(_) => {}
                },
                // A watch that has begun anew does not know the bucket of the one before.
                Some(Event::Synced { incarnation }) if self.bucket.is_some_and(|bucket| bucket != incarnation) => {
                    rows.clear();
                    self.reset(incarnation);
                    self.next_listing = Instant::now();
                    self.replicas.list_anew();
                }
                Some(Event::Synced { incarnation }) => {
                    self.bucket = Some(incarnation);
                    self.hand_on(&mut rows).await;
                    self.behind(Taken::Synced);
                }
                Some(Event::Reset { incarnation }) => {
                    rows.clear();
                    self.reset(incarnation);
                }
                Some(Event::Malformed(malformed)) => {
                    self.replicas.metrics.cluster_unreadable();
                    debug!(key = malformed.key, why = malformed.why, "an entry of the bucket is not Steadfast's");
                }
                Some(Event::Failed(why)) => debug!(why, "the bucket of the outbox cannot be watched now"),
                None => {
                    error!("the watch of the outbox's bucket ended, and begins anew");
                    self.replicas.list_anew();
                }
            }
        }
        self.hand_on(&mut rows).await;
    }

    /// The bucket is another, or was set back: all that was known is void.
    fn reset(&mut self, bucket: Incarnation) {
        warn!("the bucket of the outbox is another, or was set back: this replica brings its transactions");
        self.bucket = Some(bucket);
        self.taken = FuturesOrdered::new();
        lock(&self.replicas.rows).clear();
        self.placement.reset();
        self.replicas.is_synced.store(false, SeqCst);
    }

    async fn entry(&mut self, rows: &mut BTreeMap<Network, Vec<Row>>, entry: Entry) {
        let Entry { key, value, revision, .. } = entry;
        match Place::parse(&key) {
            Ok(place @ Place::Transaction(..)) => match Row::decode(&place, &value) {
                Ok(row) => {
                    self.replicas.note(row.record.id.clone(), Known::new(&row, revision, &value));
                    rows.entry(row.record.id.network.clone()).or_default().push(row);
                }
                Err(why) => self.unreadable(key.as_str(), &why),
            },
            Ok(Place::Owner(shard)) => {
                self.hand_on(rows).await;
                let row = Owner::decode(&value).map_err(|why| self.unreadable(key.as_str(), &why)).ok();
                self.behind(Taken::Owner(shard, Held { revision, row }));
            }
            Ok(Place::Clock(_) | Place::Chain(_)) => {}
            Err(why) => self.unreadable(key.as_str(), &why),
        }
    }

    fn unreadable(&self, key: &str, why: &super::row::NotARow) {
        self.replicas.metrics.cluster_unreadable();
        warn!(key, %why, "a row of the outbox cannot be read");
    }

    fn deleted(&mut self, id: TxId, revision: Revision) {
        let mut rows = lock(&self.replicas.rows);
        if rows.get(&id).is_some_and(|known| known.revision <= revision) {
            rows.remove(&id);
            drop(rows);
            // Where the life goes on, as far as this replica knows, the row comes back: its owner
            // knows better, or goes on with it.
            self.replicas.publish([id]);
        }
    }

    fn behind(&mut self, taken: Taken) {
        self.taken.push_back(std::future::ready(taken).boxed());
    }

    /// Hands rows to the relays.
    async fn hand_on(&mut self, rows: &mut BTreeMap<Network, Vec<Row>>) {
        for (network, rows) in std::mem::take(rows) {
            let relay = self.shared.relays().get(&network).cloned();
            let Some(relay) = relay else {
                if self.unknown.insert(network.clone()) {
                    warn!(%network, "other replicas keep transactions of a network that is not in these settings");
                }
                continue;
            };
            let (done, taken) = oneshot::channel();
            // A relay that has ended has no transactions.
            if relay.orders.send(Order::Replicas(ReplicaOrder::Rows { rows, done })).await.is_ok() {
                let taken = taken.map(|taken| if taken.is_ok() { Taken::Rows } else { Taken::Lost });
                self.taken.push_back(taken.boxed());
            }
        }
    }

    async fn took(&mut self, taken: Taken) {
        match taken {
            Taken::Rows => {}
            Taken::Lost => {
                // Rows are missing, so what comes behind them counts for nothing.
                (self.taken, self.is_behind) = (FuturesOrdered::new(), true);
                self.replicas.list_anew();
            }
            Taken::Owner(shard, held) => {
                self.placement.seen(shard, held);
                self.note_owner(shard);
            }
            Taken::NoOwner(shard, revision) => {
                self.placement.gone(shard, revision);
                self.note_owner(shard);
            }
            Taken::Synced if !self.is_synced() && !self.replicas.must_list.load(SeqCst) => {
                self.bring_missing().await;
                self.is_behind = false;
                self.replicas.is_synced.store(true, SeqCst);
                info!("this replica has all rows of the outbox's bucket");
            }
            Taken::Synced => self.is_behind &= self.replicas.must_list.load(SeqCst),
        }
    }

    fn note_owner(&self, shard: Shard) {
        lock(&self.replicas.owners)[shard.index()] = self.placement.owner(shard).cloned();
    }

    /// Has the bucket brought the transactions that are kept here, and that the bucket lacks: those
    /// whose life goes on, and those with a waiting delivery.
    async fn bring_missing(&mut self) {
        let networks: Vec<Network> = self.shared.relays().keys().cloned().collect();
        let live = move |reader: &store::Reader| {
            let mut ids = Vec::new();
            for network in &networks {
                for record in reader.live(network)? {
                    ids.push(record?.id);
                }
            }
            ids.extend(reader.awaited()?.into_iter().filter(|id| networks.contains(&id.network)));
            Ok(ids)
        };
        let ids = match note_shared(&self.shared.store).await {
            Ok(()) => self.shared.store.read_long(live).await,
            Err(error) => Err(error),
        };
        match ids {
            Ok(ids) => {
                let missing: BTreeSet<TxId> = ids.into_iter().filter(|id| self.replicas.known(id).is_none()).collect();
                if !missing.is_empty() {
                    info!(count = missing.len(), "the bucket lacks transactions that are kept here: they are brought");
                }
                self.replicas.publish(missing);
            }
            Err(error) => {
                warn!(%error, "the outbox cannot be read, or takes no writes");
                self.replicas.list_anew();
            }
        }
    }
}

/// Notes on the disk that other replicas deliver events from now on.
async fn note_shared(store: &store::Store) -> Result<(), StoreError> {
    match store.read()?.is_shared()? {
        true => Ok(()),
        false => store.commit(Step::new().shared(true).take()).await,
    }
}

/// Opens the bucket, again and again until that succeeds.
async fn bucket(open: OpenBucket, seed: u64) -> Arc<dyn Store> {
    let mut pauses = Backoff::jittered(PAUSES.0, PAUSES.1, seed);
    let mut is_told = false;
    loop {
        match open().await {
            Ok(store) => return store,
            Err(error) if !is_told => {
                warn!(%error, "the bucket of the outbox cannot be opened: transactions are not taken");
                is_told = true;
            }
            Err(_) => {}
        }
        sleep(pauses.pause()).await;
    }
}
