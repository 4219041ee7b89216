//! The connection for messages to one node, a WebSocket or its IPC socket: opened ahead of need and
//! kept open, for calls and for subscriptions of our own.
//!
//! The rule: **however a connection ends, it ends as lost.** Every call on it ends with
//! [`Error::Lost`], and every subscription is asked for again on the next connection. The reason: a
//! closed, a silent and a broken connection look alike to a caller, which must know only whether a
//! call may have arrived. An example: a node is silent for 5 s (`ping`), is pinged, and sends no
//! byte for 5 s more (`pong`); ten seconds after its last byte the link is lost, its calls go to
//! other nodes, and its feeds yield [`News::Lost`] and, once the next connection has granted them,
//! [`News::Back`].

mod actor;
mod connect;
mod feed;
mod message;
mod reply;
mod socket;
mod stubs;
mod table;

use std::{
    fmt,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio_tungstenite::tungstenite::Utf8Bytes;

pub use self::{
    actor::Actor,
    feed::{Feed, News},
    message::Response,
};
use self::{connect::Connector, feed::Queue, reply::Reply};
use super::{Dial, http::Target, node_connections::NodeConnections};
use crate::metrics::LinkMetrics;

/// The longest message, in bytes, in either direction. A longer answer is the end of its call, and
/// the link goes on.
pub const MAX_MESSAGE: usize = 64 << 20;
/// How many calls may wait to be written.
const MAX_QUEUED: usize = 1024;

/// Time limits, after which the link takes the connection as lost.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection to come about: dial, TLS and handshake together.
    pub connect: Duration,
    /// For the node to take any byte of a message.
    pub write: Duration,
    /// Silence after which the node is pinged.
    pub ping: Duration,
    /// For any byte after a ping.
    pub pong: Duration,
    /// For the node's answer to the link's own requests, `subscribe` and `unsubscribe`. Callers
    /// limit the time of calls.
    pub answer: Duration,
}

/// How messages reach a node.
pub enum Route {
    /// In WebSocket frames.
    WebSocket(Target),
    /// As JSON values one after another on a Unix socket of the node's: its IPC.
    Ipc {
        /// The socket's file.
        path: Arc<Path>,
        /// The connections there.
        connections: Arc<NodeConnections>,
    },
}

impl From<Target> for Route {
    fn from(target: Target) -> Self {
        Self::WebSocket(target)
    }
}

/// Whether the link can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// A connection is open.
    pub up: bool,
    /// Counts connections: the number of the one that is open, or was last.
    pub epoch: u64,
    /// Why there is none now, without secrets. `None` while one is open, and before the first
    /// attempt has failed.
    pub why_down: Option<Arc<str>>,
}

/// Why a call has no answer. The kind of error decides whether the call may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was sent: the link is down, or too much waits to be written.
    #[error("not sent: the link is down or overfull")]
    NotSent,
    /// The connection was lost: the call may have had its effect.
    #[error("the link was lost")]
    Lost,
    /// The node answered the call with more than [`MAX_MESSAGE`] bytes.
    #[error("the answer is longer than {MAX_MESSAGE} bytes")]
    TooLong,
}

/// Why there is no subscription.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The node answered with this error object.
    #[error("refused: {}", String::from_utf8_lossy(.0))]
    Refused(Bytes),
    /// The subscription was not asked for, or no answer came.
    #[error(transparent)]
    Link(#[from] Error),
}

/// The handle to the connection for messages to one node.
pub struct Link {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    status: watch::Receiver<Status>,
    metrics: LinkMetrics,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({:?})", *self.status.borrow())
    }
}

impl Link {
    /// Prepares the link that goes by `route`, whose delays between attempts are drawn from `seed`.
    /// Nothing is dialled before the actor runs; the actor ends when the handle is gone.
    pub fn new(
        route: impl Into<Route>,
        dial: Arc<dyn Dial>,
        timeouts: Timeouts,
        seed: u64,
        metrics: LinkMetrics,
    ) -> (Arc<Self>, Actor) {
        let (commands, queued) = mpsc::channel(MAX_QUEUED);
        let (told, status) = watch::channel(Status::default());
        let shared = Arc::new(Shared::default());
        let connector = Connector::new(route.into(), dial, timeouts);
        let actor = Actor::new(connector, timeouts, seed, metrics.clone(), queued, shared.clone(), told);
        (Arc::new(Self { commands, shared, status, metrics }), actor)
    }

    /// The counters of the link.
    pub fn metrics(&self) -> &LinkMetrics {
        &self.metrics
    }

    /// Sends one call and waits for the answer. `raw` is the whole request object, `id` the place
    /// of its id's value there; `None` for a notification, which completes, with an empty answer,
    /// when it is written. Calls are written in the order in which their futures are first polled.
    /// Dropping the future forgets the call, which is then not written if it still waits. The
    /// caller limits the time.
    ///
    /// # Errors
    /// Tell whether the call may have arrived.
    pub async fn call(&self, raw: &[u8], id: Option<Range<usize>>) -> Result<Response, Error> {
        let key = self.shared.next_id();
        let is_notification = id.is_none();
        let text = message::with_id(raw, id, key).ok_or(Error::NotSent)?;
        // Drop order matters: the receiver, declared later, is dropped first, so the reply is
        // closed before `CallGone` is signalled.
        let forgotten = OnDrop { shared: &self.shared, signal: Some(Signal::CallGone(key)) };
        let (reply, answer) = Reply::new();
        let call = if is_notification { Command::Notify { text, reply } } else { Command::Call { key, text, reply } };
        self.queue(call)?;
        let answer = answer.await.unwrap_or(Err(Error::Lost));
        forgotten.defuse();
        answer
    }

    /// Subscribes at the node: `method` is, say, `eth_subscribe`, `params` a JSON array. The first
    /// answer decides; after a grant the link subscribes again on every new connection. Dropping
    /// the feed, or this future, unsubscribes. The caller limits the time.
    ///
    /// # Errors
    /// When the node refuses, there is no connection, or the connection is lost before the answer.
    pub async fn subscribe(&self, method: &str, params: Bytes) -> Result<Feed, SubscribeError> {
        let key = self.shared.next_id();
        let queue = Arc::new(Queue::default());
        // Declared before the receiver, for the same reason as above.
        let feed = Feed::new(key, queue.clone(), self.shared.clone());
        let (reply, answer) = Reply::new();
        let method = method.to_owned();
        self.queue(Command::Subscribe { key, method, params, queue, reply })?;
        match answer.await.unwrap_or(Err(Error::Lost))? {
            Ok(()) => Ok(feed),
            Err(refusal) => Err(SubscribeError::Refused(refusal)),
        }
    }

    fn queue(&self, command: Command) -> Result<(), Error> {
        if !self.is_up() {
            return Err(Error::NotSent);
        }
        self.commands.try_send(command).map_err(|_| Error::NotSent)
    }

    /// Whether a connection is open.
    pub fn is_up(&self) -> bool {
        self.status.borrow().up
    }

    /// Follows the state of the connection. All changes so far count as not yet seen. The channel
    /// closes when the actor ends.
    pub fn changes(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Connects at once, or as soon as the attempt under way has failed, if the link is down.
    pub fn hurry(&self) {
        if !self.is_up() {
            self.shared.hurry.notify_one();
        }
    }

    /// Takes the connection as lost for a reason outside of the connection. `why` is shown, so it
    /// must hold no secrets.
    pub fn cut(&self, why: &str) {
        let Status { up, epoch, .. } = *self.status.borrow();
        if up {
            self.shared.signal(Signal::Cut(epoch, why.into()));
        }
    }
}

/// A request of the handle to the actor.
enum Command {
    Call { key: u64, text: Utf8Bytes, reply: Reply<Response> },
    Notify { text: Utf8Bytes, reply: Reply<Response> },
    Subscribe { key: u64, method: String, params: Bytes, queue: Arc<Queue>, reply: Reply<Result<(), Bytes>> },
}

/// News that the actor must not miss, however much is queued: at most one for each call and two for
/// each feed.
#[derive(Debug, PartialEq, Eq)]
enum Signal {
    /// The caller of this call is gone.
    CallGone(u64),
    /// The reader of this feed is gone.
    FeedGone(u64),
    /// The reader of a feed that had been too slow has read all its news.
    FeedDrained(u64),
    /// The connection of this number is to be taken as lost.
    Cut(u64, Arc<str>),
}

/// The state that handle, feeds and actor share.
#[derive(Default)]
struct Shared {
    /// The last id that was given out. Calls and the link's own requests share the ids.
    last_id: AtomicU64,
    signals: Mutex<Vec<Signal>>,
    /// Notified for new signals.
    bell: Notify,
    /// Notified to connect without delay.
    hurry: Notify,
}

impl Shared {
    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Relaxed) + 1
    }

    /// Whether this id was given out at some time.
    fn has_given(&self, id: u64) -> bool {
        (1..=self.last_id.load(Relaxed)).contains(&id)
    }

    fn signal(&self, signal: Signal) {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        // The last one tells why a connection is cut.
        if matches!(signal, Signal::Cut(..)) {
            signals.retain(|other| !matches!(other, Signal::Cut(..)));
        }
        signals.push(signal);
        drop(signals);
        self.bell.notify_one();
    }

    fn take_signals(&self) -> Vec<Signal> {
        std::mem::take(&mut *self.signals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Sends its signal when dropped.
struct OnDrop<'a> {
    shared: &'a Shared,
    signal: Option<Signal>,
}

impl OnDrop<'_> {
    fn defuse(mut self) {
        self.signal = None;
    }
}

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        if let Some(signal) = self.signal.take() {
            self.shared.signal(signal);
        }
    }
}
