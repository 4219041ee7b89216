//! Floor 6, the chain: the follower keeps a network's canonical chain and reports how the chain
//! changes, also while nodes fail and others take over.

mod arrivals;
mod block;
mod driver;
mod follow;
mod interest;
mod known;
mod window;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

pub use self::{
    block::{Block, Change},
    interest::{Interest, Interested, Listening},
};
use self::{driver::Driver, follow::Follow, interest::Listeners};
pub use crate::pool::Running;
use crate::{
    config,
    domain::{block::BlockRef, node_id::NodeId},
    metrics::Metrics,
    pool::Pool,
};

/// Changes that may wait to be taken. With as many waiting, the follower waits too.
const BACKLOG: usize = 64;

/// Follows the chain of one network.
pub struct Follower {
    pools: watch::Sender<Arc<Pool>>,
    demand: watch::Sender<Demand>,
    pace: Pace,
    place: watch::Receiver<ChainPosition>,
    listeners: Listeners,
}

/// The follower's place in the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainPosition {
    /// The height of the newest block that stands.
    pub tip: u64,
    /// The number of the newest change that was told.
    pub seq: u64,
}

/// The usual time between blocks in milliseconds, plus one; 0 while the time is not known. The
/// driver writes this number.
#[derive(Clone, Debug, Default)]
struct Pace(Arc<AtomicU64>);

impl Pace {
    fn set(&self, time: Option<Duration>) {
        self.0.store(time.map_or(0, |time| u64::try_from(time.as_millis()).map_or(0, |millis| millis + 1)), Relaxed);
    }

    fn time(&self) -> Option<Duration> {
        self.0.load(Relaxed).checked_sub(1).map(Duration::from_millis)
    }
}

/// Whether there are listeners, and where the chain was when the first one came.
#[derive(Clone, Debug, Default)]
struct Demand {
    is_wanted: bool,
    /// The active node and its head at that moment.
    since: Option<(NodeId, BlockRef)>,
}

impl Follower {
    /// Starts to follow the chain of `pool`, a pool of execution nodes. The follower asks nodes for
    /// nothing until [`Follower::want`] tells of a listener.
    pub fn start(
        pool: Arc<Pool>,
        settings: &config::Chain,
        metrics: Arc<Metrics>,
    ) -> (Arc<Self>, mpsc::Receiver<Change>, Running) {
        let (changes, told) = mpsc::channel(BACKLOG);
        let (pools, demand) = (watch::Sender::new(pool.clone()), watch::Sender::new(Demand::default()));
        let follow = Follow::new(settings, Instant::now());
        let pace = Pace::default();
        let (progress, place) = watch::channel(ChainPosition::default());
        let listeners = Listeners::default();
        let tellers = (changes, listeners.clone());
        let driver = Driver::new(pool, follow, demand.subscribe(), tellers, metrics, pace.clone(), progress);
        let mut task = JoinSet::new();
        task.spawn(driver.run(pools.subscribe()));
        (Arc::new(Self { pools, demand, pace, place, listeners }), told, Running::new(task))
    }

    /// From now on the chain is that of another pool of the same network. Nothing is lost on the
    /// way.
    pub fn move_to(&self, pool: Arc<Pool>) {
        self.pools.send_replace(pool);
    }

    /// Whether anybody listens. Every block that becomes canonical after `want(true)` has returned
    /// is told.
    pub fn want(&self, wanted: bool) {
        let since = driver::active_head(&self.pool()).filter(|_| wanted);
        self.demand.send_if_modified(|demand| {
            let is_news = demand.is_wanted != wanted;
            if is_news {
                *demand = Demand { is_wanted: wanted, since };
            }
            is_news
        });
    }

    /// The usual time between blocks, once enough are known.
    pub fn block_time(&self) -> Option<Duration> {
        self.pace.time()
    }

    /// The follower's place in the chain.
    pub fn place(&self) -> watch::Receiver<ChainPosition> {
        self.place.clone()
    }

    /// The pool whose chain is followed now.
    pub fn pool(&self) -> Arc<Pool> {
        self.pools.borrow().clone()
    }
}
