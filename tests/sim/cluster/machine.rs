//! A machine on which one replica runs: its ways to nodes and clients, its clock, and a switch that
//! stops the process.
//!
//! The tasks of all replicas share one runtime, so a frozen process is made out of its parts: the
//! task of the cluster is not run, and no byte comes in or goes out. A request to the store that has
//! left arrives. When the process wakes, all answers and timers are there at once, and the clock has
//! gone on.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::FutureExt;
use steadfast::{
    app::App,
    cluster::{
        Cluster, RunTask,
        moment::{Clock, Moment},
    },
    domain::{address::Address, client::Peer},
    net::{Accept, Arrived, BoxFuture, BoxIo, Dial, Endpoint, Incoming, Io, Listen},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
    time::Instant,
};

use crate::common::sim::Net;

/// The speed of a true clock, in the unit of [`Switch::new`].
pub const TRUE_RATE: u64 = 10_000;

/// The process runs or stands still, and which nodes it cannot reach. Clones are the same.
#[derive(Clone)]
pub struct Switch(Arc<Mutex<State>>);

struct State {
    start: Instant,
    /// The clock's start, and how many ten-thousandths of a millisecond it counts in a tenth.
    offset: u64,
    rate: u64,
    is_frozen: bool,
    /// When the process last went on.
    awoke: Instant,
    /// Ports of nodes that are cut off in silence.
    cut: BTreeSet<u16>,
    wakers: Vec<Waker>,
}

impl State {
    fn now(&self) -> Moment {
        let passed = u64::try_from(self.start.elapsed().as_millis()).unwrap();
        Moment(self.offset + passed * self.rate / TRUE_RATE)
    }

    fn blocks(&self, port: Option<u16>) -> bool {
        self.is_frozen || port.is_some_and(|port| self.cut.contains(&port))
    }
}

impl Switch {
    /// A machine whose clock began at `offset` and runs at `rate`.
    pub fn new(start: Instant, offset: u64, rate: u64) -> Self {
        let (cut, wakers) = (BTreeSet::new(), Vec::new());
        Self(Arc::new(Mutex::new(State { start, offset, rate, is_frozen: false, awoke: start, cut, wakers })))
    }

    /// The machine's clock, which runs on while the process stands still.
    pub fn clock(&self) -> Clock {
        let switch = self.clone();
        Arc::new(move || switch.now())
    }

    pub fn now(&self) -> Moment {
        self.0.lock().unwrap().now()
    }

    /// Runs a task of the process, but while the process stands still.
    pub fn run_task(&self) -> RunTask {
        let switch = self.clone();
        Arc::new(move |mut task| {
            let switch = switch.clone();
            Box::pin(poll_fn(move |cx| {
                ready!(switch.poll_open(None, cx));
                task.as_mut().poll(cx)
            }))
        })
    }

    pub fn is_frozen(&self) -> bool {
        self.0.lock().unwrap().is_frozen
    }

    /// Whether the process has run for so long.
    pub fn is_awake_for(&self, span: Duration) -> bool {
        let state = self.0.lock().unwrap();
        !state.is_frozen && state.awoke.elapsed() >= span
    }

    pub fn freeze(&self) {
        self.change(|state| state.is_frozen = true);
    }

    pub fn thaw(&self) {
        self.change(|state| (state.is_frozen, state.awoke) = (false, Instant::now()));
    }

    /// Cuts the machine off from the node at this port.
    pub fn cut(&self, port: u16) {
        self.change(|state| _ = state.cut.insert(port));
    }

    /// Ends all cuts.
    pub fn heal(&self) {
        self.change(|state| state.cut.clear());
    }

    pub fn is_cut(&self) -> bool {
        !self.0.lock().unwrap().cut.is_empty()
    }

    /// Waits until the process runs, and reaches this port.
    pub async fn open(&self, port: Option<u16>) {
        poll_fn(|cx| self.poll_open(port, cx)).await;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            change(&mut state);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    fn poll_open(&self, port: Option<u16>, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock().unwrap();
        if !state.blocks(port) {
            return Poll::Ready(());
        }
        state.wakers.push(cx.waker().clone());
        Poll::Pending
    }
}

/// A machine, and the process on it.
pub struct Machine {
    pub switch: Switch,
    pub life: Option<Life>,
    /// Lives so far.
    pub lives: u64,
    /// Another life begins by itself.
    pub is_starting: bool,
}

/// A process.
pub struct Life {
    pub number: u64,
    /// None while the process ends in order.
    pub app: Option<App>,
    /// The end in order, which dies with the process.
    pub ending: Option<AbortHandle>,
    /// Ends when the process must end at once.
    must_end: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub cluster: Cluster,
    /// The process stood still at some moment.
    pub was_frozen: bool,
}

impl Life {
    pub fn new(number: u64, app: App) -> Self {
        let cluster = app.cluster().unwrap().clone();
        let must_end = Box::pin(app.must_end());
        Self { number, app: Some(app), ending: None, must_end, cluster, was_frozen: false }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(ending) = &self.ending {
            ending.abort();
        }
    }
}

impl Machine {
    /// The running process.
    pub fn running(&self) -> Option<&Life> {
        self.life.as_ref().filter(|life| life.app.is_some())
    }

    /// Whether the process says that it must end.
    pub fn must_end(&mut self) -> bool {
        self.life.as_mut().is_some_and(|life| life.must_end.as_mut().now_or_never().is_some())
    }
}

/// The network as a machine reaches it.
#[derive(Clone)]
pub struct Way {
    pub net: Net,
    pub switch: Switch,
}

impl Dial for Way {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let port = match to {
                Endpoint::Tcp { port, .. } => Some(*port),
                Endpoint::Unix(_) => None,
            };
            self.switch.open(port).await;
            let inner = self.net.dial(to).await?;
            Ok(Box::new(Gated { inner, switch: self.switch.clone(), port }) as BoxIo)
        })
    }
}

impl Listen for Way {
    fn bind(&self, address: Address) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        Box::pin(async move {
            let inner = self.net.bind(address).await?;
            Ok(Box::new(Door { inner, switch: self.switch.clone() }) as Box<dyn Accept>)
        })
    }

    fn is_own(&self, _: IpAddr) -> bool {
        false
    }
}

struct Door {
    inner: Box<dyn Accept>,
    switch: Switch,
}

impl Accept for Door {
    fn local_addr(&self) -> Address {
        self.inner.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Incoming, Peer)>> {
        Box::pin(async move {
            self.switch.open(None).await;
            let (incoming, peer) = self.inner.accept().await?;
            Ok((Incoming::new(Opening { incoming, switch: self.switch.clone() }), peer))
        })
    }
}

struct Opening {
    incoming: Incoming,
    switch: Switch,
}

impl Arrived for Opening {
    fn open(self: Box<Self>) -> io::Result<BoxIo> {
        let inner = self.incoming.open()?;
        Ok(Box::new(Gated { inner, switch: self.switch, port: None }))
    }

    fn refuse(self: Box<Self>, words: &[u8]) {
        self.incoming.refuse(words);
    }
}

/// A connection on which nothing moves while the machine's switch says so.
struct Gated {
    inner: BoxIo,
    switch: Switch,
    port: Option<u16>,
}

impl Io for Gated {}

impl AsyncRead for Gated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.switch.poll_open(self.port, cx));
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.switch.poll_open(self.port, cx));
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
