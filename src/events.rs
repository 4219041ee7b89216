//! Floor 7, promises: the events of consensus nodes as streams that survive the loss of a node.
//!
//! All clients of a network share one stream, from the node that serves the calls. Its events go
//! through the stitcher ([`stitch`]), which sends each event to clients once, in order, and makes
//! up the blocks that were missed in a switch.

mod audience;
pub mod beacon;
mod hub;
mod node;
mod question;
mod seen;
pub mod sse;
pub mod stitch;
pub mod topics;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::{sync::watch, task::JoinSet, time::timeout};

pub use self::audience::{KEEP_ALIVE, Subscription};
use self::{audience::Audience, hub::State, topics::Names};
pub use crate::pool::Running;
use crate::{metrics::Metrics, pool::Pool};

/// Headers of a stream's response, in lower case. The last keeps proxies on the way from buffering.
pub const HEADERS: [(&str, &str); 3] =
    [("content-type", "text/event-stream"), ("cache-control", "no-store"), ("x-accel-buffering", "no")];

/// The settings of one network's events.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes that may wait for one client; a client with more is cut off.
    pub max_waiting: usize,
    /// How long a newcomer waits for a stream.
    pub hold: Duration,
    /// Seeds random pauses.
    pub seed: u64,
}

/// Why a client gets no stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoStream {
    /// No node has a stream to give.
    NoNode,
    /// The node does not know a topic: status and body of its answer.
    Topic(u16, Bytes),
}

/// The events of one network.
pub struct Events {
    audience: Arc<Audience>,
    pools: watch::Sender<Arc<Pool>>,
    state: watch::Receiver<State>,
    hold: ArcSwap<Duration>,
}

impl Events {
    /// Starts to serve the events of `pool`, a pool of consensus nodes. Nodes are asked for events
    /// only while there are clients.
    pub fn start(pool: Arc<Pool>, settings: &Settings, metrics: Arc<Metrics>) -> (Arc<Self>, Running) {
        let audience = Audience::new(pool.network.clone(), settings.max_waiting, metrics.clone());
        let (sender, state) = watch::channel(State::default());
        let (pools, of_hub) = watch::channel(pool);
        let mut task = JoinSet::new();
        task.spawn(hub::run(of_hub, audience.clone(), sender, metrics, settings.seed));
        (Arc::new(Self { audience, pools, state, hold: ArcSwap::from_pointee(settings.hold) }), Running::new(task))
    }

    /// From now on events come from another pool of the same network, and newcomers wait for `hold`
    /// at most. Clients' streams go on.
    pub fn move_to(&self, pool: Arc<Pool>, hold: Duration) {
        self.hold.store(Arc::new(hold));
        self.pools.send_replace(pool);
    }

    /// The name of the node whose events clients get; `None` while no node has a stream, or no
    /// client wants one.
    pub fn source(&self) -> Option<Arc<str>> {
        self.state.borrow().node.clone()
    }

    /// A stream of these topics from now on. Waits until a node's stream carries them, but no
    /// longer than clients are held.
    ///
    /// # Errors
    /// When no node's stream carries the topics in time, or the node refuses one of them.
    pub async fn subscribe(&self, topics: Names) -> Result<Subscription, NoStream> {
        if self.audience.is_too_much(&topics) {
            let body = Bytes::from_static(br#"{"code":400,"message":"too many topics that the API does not know"}"#);
            return Err(NoStream::Topic(400, body));
        }
        let subscription = self.audience.join(topics.clone());
        let mut state = self.state.clone();
        let mut refused = None;
        let settled = state.wait_for(|state| {
            refused = topics.iter().find_map(|topic| state.refused.get(topic)).cloned();
            refused.is_some() || topics.is_subset(&state.open)
        });
        let hold = **self.hold.load();
        match timeout(hold, settled).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(NoStream::NoNode),
        }
        match refused {
            Some((status, body)) => Err(NoStream::Topic(status, body)),
            None => Ok(subscription),
        }
    }

    /// Ends all clients' streams, each after the events that wait for its client.
    pub fn close(&self) {
        self.audience.close();
    }
}
