//! The change of the shards that this replica owns: relays take up and put down, in one go for all
//! shards that move at the same moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use futures_util::future::{BoxFuture, join_all};
use tokio::{sync::oneshot, time::Instant};
use tracing::warn;

use super::{
    Link, MoveReason, lock,
    placement::{Action, Around, Phase},
    row::{Owner, Place},
    task::{Outcome, Task},
    told::untold,
};
use crate::{
    cluster::store::{Revision, WriteError},
    domain::fleet::{Epoch, MemberState, ReplicaName, View},
    outbox::{
        handle::Shared,
        record::{Delivery, EventId, TxId},
        relay::{Order, ReplicaOrder},
        shard::{Shard, ShardSet},
        step::Step,
        store::{Health, Reader, StoreError},
    },
};

/// How long a shard that is given away waits for rows that are behind their records.
const FLUSH: Duration = Duration::from_secs(2);
/// The pause before relays that could not take up shards are asked again.
const MOVE_PAUSE: Duration = Duration::from_secs(1);
/// How long a disk that took no writes must have taken them, before shards are taken again.
const WELL: Duration = Duration::from_secs(10);

impl Task {
    /// Looks at the cluster, and moves shards as that wants.
    pub(super) fn place(&mut self, link: &Link) {
        let (snapshot, now) = (link.cluster.snapshot(), link.cluster.now());
        let is_member = matches!(snapshot.state, Some(MemberState::Active | MemberState::Draining));
        let life = snapshot.epoch.filter(|_| is_member);
        if self.life != life {
            self.life = life;
            self.ownership().lives(life.map(|epoch| (link.cluster.clone(), epoch)));
        }
        let nobody = View::default();
        let view = snapshot.view.as_ref().map_or(&nobody, |(_, view)| view);
        let takes_part = |(name, epoch): (&ReplicaName, Epoch)| {
            let peer = snapshot.peers.iter().find(|peer| peer.name == *name)?;
            (peer.heartbeat.epoch == Some(epoch) && peer.heartbeat.shards.is_some()).then(|| name.clone())
        };
        let mut candidates: BTreeSet<ReplicaName> = view.active().filter_map(takes_part).collect();
        if candidates.is_empty() {
            // A replica that can take nothing new still finishes what it has, where no other can.
            candidates.insert(self.me.clone());
        }
        self.look_at_disk();
        self.ownership().settled(self.is_synced() && !self.is_behind);
        let leaves = self.replicas.leaves.load(SeqCst);
        let around = Around {
            life,
            takes: self.replicas.takes_part() && !self.is_behind && self.ownership().is_sure(),
            leaves,
            view,
            candidates: &candidates,
            failover: self.failover,
        };
        for action in self.placement.look(now, around) {
            self.act(link, life, action);
        }
        for shard in self.ownership().held().iter() {
            if matches!(self.placement.phase(shard), Phase::Elsewhere) && !self.placement.is_mine(life, shard) {
                self.ownership().let_go(shard);
            }
        }
        self.replicas.is_empty.send_if_modified(|is_empty| {
            // Without a lease nothing can be given away, and no effect begins either.
            let now = !self.ownership().is_sure() || self.placement.is_empty(life);
            std::mem::replace(is_empty, now) != now
        });
        self.begin_move();
    }

    /// Notes whether the disk takes writes. A replica whose disk takes none gives its shards to
    /// others, and takes its share again when the disk was well for a while.
    fn look_at_disk(&mut self) {
        if *self.shared.store.health().borrow() != Health::Writable {
            self.well_from = Some(Instant::now() + WELL);
        }
        let is_well = self.well_from.is_none_or(|from| Instant::now() >= from);
        if self.replicas.can_write.swap(is_well, SeqCst) != is_well {
            match is_well {
                true => tracing::info!("the disk takes writes again: this replica takes its share of the outbox"),
                false => warn!("the disk takes no writes: other replicas see the outbox's transactions through"),
            }
        }
    }

    fn act(&mut self, link: &Link, life: Option<Epoch>, action: Action) {
        match action {
            Action::Claim { shard, over, reason } => {
                let Some(epoch) = life else { return };
                let owner = Owner::new(self.me.clone(), epoch);
                self.requests.push(Box::pin(claim(link.clone(), shard, over, owner, reason)));
            }
            Action::Prepare(shard) => {
                self.ownership().hold(shard);
                self.preparing.insert(shard);
            }
            Action::Stop(shard) => {
                // Of a shard that is another's by now, no row is written any more.
                match self.placement.is_mine(life, shard) {
                    true => self.ownership().stop(shard),
                    false => self.ownership().let_go(shard),
                }
                self.preparing.remove(shard);
                self.stopping.insert(shard);
            }
            Action::Release { shard, over, row } => {
                let is_late = self.flush_until.is_some_and(|until| Instant::now() >= until);
                let is_behind = !self.writing.is_empty() || self.replicas.waiting() > 0;
                if is_behind && !is_late {
                    self.flush_until.get_or_insert(Instant::now() + FLUSH);
                    self.placement.postpone(link.cluster.now(), shard);
                    return;
                }
                self.ownership().let_go(shard);
                self.requests.push(Box::pin(release(link.clone(), shard, over, row)));
            }
        }
    }

    /// Has the relays take up and put down shards, where some move.
    fn begin_move(&mut self) {
        let is_due = self.must_move || self.preparing != ShardSet::NONE || self.stopping != ShardSet::NONE;
        if !is_due || self.is_moving || Instant::now() < self.next_move {
            return;
        }
        (self.is_moving, self.must_move) = (true, false);
        self.flush_until = None;
        let mut owned = self.ownership().active();
        self.preparing.iter().for_each(|shard| owned.insert(shard));
        let moving = Moving { shared: self.shared.clone(), begin: self.preparing, end: self.stopping, owned };
        (self.preparing, self.stopping) = (ShardSet::NONE, ShardSet::NONE);
        self.requests.push(moving.run());
    }

    /// The relays have taken up and put down shards, or could not. The events of the new ones
    /// that no endpoint has yet are looked for now: each row that came before is on the disk, and
    /// the desk takes up each later row.
    pub(super) fn moved(&mut self, begin: ShardSet, end: ShardSet, outcome: Result<(), String>) {
        if let Err(why) = outcome {
            return self.move_again(begin, end, &why);
        }
        end.iter().for_each(|shard| self.placement.stopped(shard));
        if end != ShardSet::NONE && !self.replicas.leaves.load(SeqCst) {
            // Of these shards the next owner's rows may have come already, and were not taken in.
            self.replicas.list_anew();
        }
        let rows = lock(&self.replicas.rows);
        let told = rows.iter().filter(|(_, known)| begin.has(known.shard));
        let told = told.map(|(id, known)| (id.clone(), known.told.clone())).collect();
        drop(rows);
        let shared = self.shared.clone();
        self.requests.push(Box::pin(async move {
            Outcome::Deliveries(begin, deliveries(&shared, begin, told).await.map_err(|error| error.to_string()))
        }));
    }

    /// The deliveries of shards that were taken up are on the disk: effects may begin.
    pub(super) fn begun(&mut self, begin: ShardSet, outcome: Result<Vec<Delivery>, String>) {
        let deliveries = match outcome {
            Ok(deliveries) => deliveries,
            Err(why) => return self.move_again(begin, ShardSet::NONE, &why),
        };
        self.is_moving = false;
        // A shard may have been lost meanwhile.
        for shard in begin.iter() {
            if self.placement.prepared(shard) {
                self.ownership().activate(shard);
            }
        }
        self.shared.webhooks.added(&deliveries);
        let rows = lock(&self.replicas.rows);
        let of_these: Vec<TxId> =
            rows.iter().filter(|(_, known)| begin.has(known.shard)).map(|(id, _)| id.clone()).collect();
        drop(rows);
        // There may be no endpoint that wants what is untold.
        self.replicas.publish(of_these);
    }

    fn move_again(&mut self, begin: ShardSet, end: ShardSet, why: &str) {
        warn!(why, "shards of the outbox cannot be taken up yet");
        self.is_moving = false;
        for shard in begin.iter().filter(|shard| self.placement.phase(*shard) == Phase::Preparing) {
            self.preparing.insert(shard);
        }
        end.iter().for_each(|shard| self.stopping.insert(shard));
        self.next_move = Instant::now() + MOVE_PAUSE;
    }

    /// A claim has its answer.
    pub(super) fn claimed(&mut self, link: &Link, shard: Shard, reason: Option<MoveReason>, is_ok: bool) {
        if !is_ok {
            self.placement.failed(link.cluster.now(), shard);
        } else if let Some(reason) = reason {
            self.replicas.metrics.shard_moved(reason.as_str());
            tracing::info!(%shard, reason = reason.as_str(), "this replica takes a shard of the outbox over");
        }
    }
}

/// A change of the owned shards on its way through the relays.
struct Moving {
    shared: Arc<Shared>,
    begin: ShardSet,
    end: ShardSet,
    /// All shards that are owned then.
    owned: ShardSet,
}

impl Moving {
    fn run(self) -> BoxFuture<'static, Outcome> {
        Box::pin(async move {
            let (begin, end) = (self.begin, self.end);
            Outcome::Moved(begin, end, self.carry_out().await.map_err(|error| error.to_string()))
        })
    }

    async fn carry_out(self) -> Result<(), StoreError> {
        for shard in self.end.iter().chain(self.begin.iter()) {
            self.shared.ownership.quiet(shard).await;
        }
        let relays: Vec<_> = self.shared.relays().values().cloned().collect();
        let told = join_all(relays.iter().map(|relay| async {
            let (done, taken) = oneshot::channel();
            let order = Order::Replicas(ReplicaOrder::Own { shards: self.owned, done });
            // A relay that has ended has no transactions.
            if relay.orders.send(order).await.is_ok() { taken.await.is_ok() } else { true }
        }));
        if told.await.contains(&false) { Err(StoreError::Reopening) } else { Ok(()) }
    }
}

/// Makes the deliveries of all events of these shards but those that the rows say are told. The
/// record on the disk may be ahead of its row, or may have none.
async fn deliveries(
    shared: &Shared,
    shards: ShardSet,
    mut told: BTreeMap<TxId, Arc<BTreeSet<EventId>>>,
) -> Result<Vec<Delivery>, StoreError> {
    let (table, networks) = (shared.webhooks.table(), shared.relays().keys().cloned().collect::<Vec<_>>());
    let rows = move |reader: &Reader| {
        for network in &networks {
            for record in reader.live(network)? {
                let record = record?;
                if shards.has(record.shard()) {
                    told.entry(record.id).or_default();
                }
            }
        }
        untold(reader, &table, told)
    };
    let deliveries = shared.store.read_long(rows).await?;
    if !deliveries.is_empty() {
        let mut step = Step::new();
        for delivery in &deliveries {
            // The mark is the event's own, and no reason to leave it untold here.
            step.told(delivery.tenant.clone(), delivery.event.clone()).deliver(delivery.clone());
        }
        shared.store.commit(step).await?;
    }
    Ok(deliveries)
}

async fn claim(link: Link, shard: Shard, over: Option<Revision>, owner: Owner, reason: Option<MoveReason>) -> Outcome {
    let is_ok = put(&link, shard, over, &owner).await.is_ok();
    Outcome::Claimed(shard, reason, is_ok)
}

async fn release(link: Link, shard: Shard, over: Revision, owner: Owner) -> Outcome {
    let is_ok = put(&link, shard, Some(over), &owner).await.is_ok();
    Outcome::Released(shard, is_ok)
}

async fn put(link: &Link, shard: Shard, over: Option<Revision>, owner: &Owner) -> Result<Revision, WriteError> {
    let key = Place::Owner(shard).key().map_err(|error| WriteError::Malformed(error.to_string()))?;
    match over {
        Some(over) => link.store.compare_and_set(&key, over, owner.encode(), None).await,
        None => link.store.create(&key, owner.encode(), None).await,
    }
}
