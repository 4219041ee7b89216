//! A client's WebSocket from the handshake to its end: one task, and one function that looks at all
//! sources of events.
//!
//! Rare events (a timer, the end of the proxy) stand in one set with the calls under way: the set
//! knows which of these woke the task, so that a notification on its way to the client costs no
//! look at them.

mod life;
mod news;
mod slow;
mod turns;

use std::{
    collections::VecDeque,
    future::poll_fn,
    ops::ControlFlow,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::AsyncWriteExt,
    sync::watch,
    time::{Instant, timeout},
};

use self::{news::Event, slow::Begun, turns::Queued};
use super::{
    frame::{self, Closing, NO_ROOM, Opcode},
    message::{Client, Message, Network, Visitor},
    reader::{Incoming, Reader, Unread},
    writer::Writer,
};
use crate::{
    config::Ws,
    domain::pace::{CLIENT_RATE, Pace},
    door::{
        STALL,
        crowd::{Linger, Place},
        site::Site,
    },
    memory::Account,
    metrics::Metrics,
    net::{BoxFuture, BoxIo, node_connections::Caller},
    view::{self, Mailbox, Outbound},
};

/// How long a client may take to close its side of the connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The part of a shutdown's grace time in which calls under way may still be answered.
const DRAIN_SHARE_OF_GRACE: f64 = 0.9;

const DOWN: Closing = Closing::new(Closing::RESTART, "the proxy is going down");
const ENDED: Closing = Closing::new(Closing::TRY_AGAIN, "no node gives one of the subscriptions any more");
const CROWDED: Closing =
    Closing::new(Closing::TRY_AGAIN, "ws.max_connections is reached, and this connection makes room");
const GONE: Closing = Closing::new(Closing::RESTART, "the network is served no longer");

const GAP: Closing = Closing::new(Closing::TRY_AGAIN, "gap: blocks are missing from the subscriptions' notifications");

/// The signals from outside to a session.
#[derive(Clone)]
pub(super) struct Signals {
    /// Turns true when the proxy goes down.
    pub(super) closing: watch::Receiver<bool>,
    /// Changes after a reload has replaced the site.
    pub(super) reloads: watch::Receiver<u64>,
}

/// A client's WebSocket.
pub(super) struct Session {
    io: BoxIo,
    reader: Reader,
    writer: Writer,
    client: Arc<Client>,
    mailbox: Arc<Mailbox>,
    site: Arc<ArcSwap<Site>>,
    /// The name of the client's network.
    network: Arc<str>,
    signals: Signals,
    metrics: Arc<Metrics>,
    work: FuturesUnordered<BoxFuture<'static, Event>>,
    is_work_new: bool,
    state: State,
    /// Messages under way, their calls and their bytes.
    served: usize,
    calls: usize,
    served_bytes: usize,
    /// Messages that wait for their turn, their calls and their bytes.
    queue: VecDeque<Queued>,
    queued_calls: usize,
    queued_bytes: usize,
    limits: Limits,
    heard: Instant,
    /// When the client's life is checked next.
    tick: Instant,
    is_going_down: bool,
    /// Whether a ping is unanswered.
    pinged: bool,
    /// Since when the writer waits for the client.
    stalled: Option<Instant>,
    /// The rate at which the client takes written bytes.
    pace: Pace,
    /// Whether an [`Event::Stalled`] is on its way.
    is_stall_watched: bool,
    /// The message that has begun to come and is not whole.
    begun: Option<Begun>,
    /// Whether an [`Event::Late`] is on its way.
    is_message_watched: bool,
    standing: SeatState,
    is_idle: bool,
}

/// The connection's standing among all WebSockets.
enum SeatState {
    /// The connection has a place, as idle while without calls and subscriptions.
    Seated(Place),
    /// The connection had to leave, and may still write a farewell.
    Lingers(#[expect(dead_code, reason = "held for its drop")] Linger),
    /// The connection had to leave at once.
    Left,
}

#[derive(Clone, Copy)]
struct Limits {
    max_calls: usize,
    max_message: usize,
    max_outbound: usize,
    ping_interval: Duration,
}

impl Limits {
    fn of(ws: &Ws) -> Self {
        Self {
            max_calls: ws.max_calls.get(),
            max_message: ws.max_message,
            max_outbound: ws.max_outbound,
            ping_interval: ws.ping_interval,
        }
    }
}

enum State {
    Open,
    /// No further message is taken; the session closes when those under way have ended.
    Leaving(Closing),
    /// The close frame is on its way, and the client's is awaited; other frames are passed over.
    Closing,
    /// The client's close frame has come, or is not waited for; only the proxy's close frame is
    /// still to be written.
    Answering,
}

impl Session {
    #[expect(clippy::too_many_arguments, reason = "each is handed through once")]
    pub(super) fn new(
        io: BoxIo,
        read: Bytes,
        visitor: Visitor,
        network: Arc<str>,
        site: Arc<ArcSwap<Site>>,
        signals: Signals,
        metrics: Arc<Metrics>,
        memory: &Arc<Account>,
        caller: Arc<Caller>,
        place: Place,
    ) -> Self {
        let (limits, now) = (Limits::of(&site.load().ws), Instant::now());
        let mailbox = Mailbox::of(memory, limits.max_outbound);
        let client = Arc::new(Client::new(mailbox.clone(), visitor, caller, limits.max_outbound));
        let mut session = Self {
            io,
            reader: Reader::new(read, limits.max_message),
            writer: Writer::default(),
            client,
            mailbox,
            site,
            network,
            signals,
            metrics,
            work: FuturesUnordered::new(),
            is_work_new: true,
            state: State::Open,
            served: 0,
            calls: 0,
            served_bytes: 0,
            queue: VecDeque::new(),
            queued_calls: 0,
            queued_bytes: 0,
            limits,
            heard: now,
            tick: now + limits.ping_interval,
            is_going_down: false,
            pinged: false,
            stalled: None,
            pace: Pace::new(STALL, CLIENT_RATE),
            is_stall_watched: false,
            begun: None,
            is_message_watched: false,
            standing: SeatState::Seated(place),
            is_idle: false,
        };
        session.note_idleness();
        session.hear();
        session
    }

    /// Serves the client to the end of the connection. `_counted` counts the connection while held.
    pub(super) async fn run(mut self: Box<Self>, _counted: impl Drop) {
        poll_fn(|context| self.poll(context)).await;
        if matches!(self.state, State::Answering) {
            // Under TLS, the end has to be written too. In a box, so that no session holds the room
            // for that before.
            let _ = Box::pin(timeout(CLOSE_TIMEOUT, self.io.shutdown())).await;
        }
    }

    /// Looks at all sources of events; ready when the connection is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            while let Poll::Ready(Some(event)) = self.work.poll_next_unpin(context) {
                if self.happened(event).is_break() {
                    return Poll::Ready(());
                }
            }
            if self.deliver(context).is_break() {
                return Poll::Ready(());
            }
            if self.mailbox.memory().poll_cut(context).is_ready() {
                self.cut();
            }
            self.take_turns();
            // New work must be polled once before it can wake the task.
            if std::mem::take(&mut self.is_work_new) {
                continue;
            }
            if matches!(self.state, State::Answering) {
                return Poll::Pending;
            }
            if matches!(self.state, State::Closing) {
                if !ready!(self.reader.poll_close(&mut self.io, context)) {
                    return Poll::Ready(());
                }
                self.state = State::Answering;
                continue;
            }
            let Poll::Ready(read) = self.reader.poll_next(&mut self.io, self.mailbox.memory(), context) else {
                self.watch_message();
                if self.is_work_new {
                    continue;
                }
                return Poll::Pending;
            };
            match read {
                Ok(Incoming::Gone) | Err(Unread::Lost) => return Poll::Ready(()),
                Ok(incoming) => self.take(incoming),
                Err(Unread::Violation(closing)) => self.close(&closing),
            }
        }
    }

    fn take(&mut self, incoming: Incoming) {
        self.heard = Instant::now();
        self.pinged = false;
        self.reader.take_heard();
        let open = matches!(self.state, State::Open);
        // A ping may stand between the frames of a message, and does not end the message.
        if !self.reader.is_in_message() {
            self.begun = None;
        }
        match incoming {
            Incoming::Text(text) if open => self.admit(Message { text, is_binary: false }),
            Incoming::Binary(text) if open => self.admit(Message { text, is_binary: true }),
            Incoming::Text(_) | Incoming::Binary(_) => drop(self.reader.take_claim()),
            // A pong may answer several pings, so a client that reads no pongs is sent no more.
            Incoming::Ping(payload)
                if (open || matches!(self.state, State::Leaving(_)))
                    && self.writer.waiting() < self.limits.max_outbound =>
            {
                self.writer.control(Opcode::Pong, &payload);
            }
            Incoming::Close(payload) => {
                self.end(State::Answering);
                match frame::read_close(&payload) {
                    Ok(code) => self.writer.close(code, ""),
                    Err(closing) => self.writer.close(Some(closing.code), closing.reason),
                }
            }
            _ => {}
        }
    }

    /// The network that serves this client now.
    fn behind(&self) -> Option<Network> {
        let site = self.site.load();
        let served = site.network(&self.network)?;
        let (calls, views) = (served.calls.clone()?, served.views.clone());
        let max_subscriptions = site.ws.max_subscriptions.get();
        Some(Network { calls, views, max_subscriptions, access: site.access.clone() })
    }

    /// Takes messages from the mailbox and writes them, as far as the client takes bytes.
    fn deliver(&mut self, context: &mut Context<'_>) -> ControlFlow<()> {
        loop {
            let is_drained = self.fill(context);
            if self.writer.has_receipts() && self.reader.has_left(&mut self.io, context) {
                return ControlFlow::Break(());
            }
            let before = self.writer.waiting();
            match self.writer.poll_flush(&mut self.io, context) {
                Poll::Ready(Err(_)) => return ControlFlow::Break(()),
                Poll::Pending if matches!(self.standing, SeatState::Left) => return ControlFlow::Break(()),
                Poll::Pending => {
                    self.mailbox.note_unwritten(self.writer.held());
                    self.stall(before);
                    return ControlFlow::Continue(());
                }
                Poll::Ready(Ok(())) => {
                    if self.stalled.take().is_some() {
                        self.mailbox.note_unwritten(0);
                        self.pace = Pace::new(STALL, CLIENT_RATE);
                        self.refreshes(Instant::now());
                    }
                }
            }
            match &self.state {
                State::Answering => return ControlFlow::Break(()),
                State::Leaving(closing) if is_drained && self.served == 0 && self.queue.is_empty() => {
                    let closing = closing.clone();
                    self.close(&closing);
                }
                _ if is_drained => return ControlFlow::Continue(()),
                _ => {}
            }
        }
    }

    /// Takes messages from the mailbox while the writer has room; returns whether none is left.
    fn fill(&mut self, context: &mut Context<'_>) -> bool {
        let mut taken = 0;
        let is_drained = loop {
            if !matches!(self.state, State::Open | State::Leaving(_)) {
                return true;
            }
            if !self.writer.has_room() {
                if let Poll::Ready(why) = self.mailbox.poll_end(context) {
                    self.mailbox_ends(why);
                }
                break false;
            }
            match self.mailbox.poll_next(context) {
                Poll::Ready(Outbound::Close(why)) => {
                    self.mailbox_ends(why);
                    break true;
                }
                Poll::Ready(message) => taken += self.writer.put(message),
                Poll::Pending => break true,
            }
        };
        if taken > 0 {
            self.metrics.messages_out(taken);
            self.client.drained.notify_waiters();
        }
        is_drained
    }

    fn mailbox_ends(&mut self, why: view::Closing) {
        match why {
            view::Closing::Slow => self.too_slow(),
            view::Closing::Gap => self.close(&GAP),
            view::Closing::Full => self.close(&Closing::new(Closing::TRY_AGAIN, NO_ROOM)),
            view::Closing::Gone => self.close(&ENDED),
        }
    }

    fn happened(&mut self, event: Event) -> ControlFlow<()> {
        match event {
            Event::Served(calls, bytes, outcome) => {
                self.served -= 1;
                self.calls -= calls;
                self.served_bytes -= bytes;
                self.note_idleness();
                if let Err(closing) = outcome {
                    self.close(&closing);
                }
            }
            Event::Tick => {
                self.tick()?;
                self.hear_on();
            }
            Event::Stalled => self.look_for_stall(),
            Event::Late => self.look_for_message(),
            Event::Crowded => {
                self.make_room();
                self.hear_on();
            }
            Event::GoingDown => {
                self.is_going_down = true;
                self.hear_on();
                self.leave(DOWN);
                let grace = self.site.load().shutdown_grace;
                self.at(Instant::now() + grace.mul_f64(DRAIN_SHARE_OF_GRACE), || Event::LastCall);
            }
            Event::Reloaded => {
                self.signals.reloads.mark_unchanged();
                let site = self.site.load_full();
                self.limits = Limits::of(&site.ws);
                self.reader.allow(self.limits.max_message);
                if site.network(&self.network).is_none_or(|network| network.calls.is_none()) {
                    self.leave(GONE);
                }
                self.hear_on();
            }
            Event::LastCall => {
                if let State::Leaving(closing) = &self.state {
                    let closing = closing.clone();
                    self.close(&closing);
                }
            }
            Event::Farewell => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    /// Waits for the next event, unless the session has begun to close: [`Session::end`] then waits
    /// anew.
    fn hear_on(&mut self) {
        if matches!(self.state, State::Open | State::Leaving(_)) {
            self.hear();
        }
    }

    /// Takes no further messages, and closes when those under way have ended.
    fn leave(&mut self, closing: Closing) {
        if matches!(self.state, State::Open) {
            self.state = State::Leaving(closing);
        }
    }

    fn too_slow(&mut self) {
        self.metrics.slow_client_closed();
        self.close(&Closing::new(Closing::POLICY, "too slow: what is sent is not taken"));
    }

    /// Drops the messages under way and closes.
    fn close(&mut self, closing: &Closing) {
        if matches!(self.state, State::Open | State::Leaving(_)) {
            // A client without a place is not waited for.
            let is_seated = matches!(self.standing, SeatState::Seated(_));
            self.end(if is_seated { State::Closing } else { State::Answering });
            self.writer.close(Some(closing.code), closing.reason);
        }
    }

    /// Drops the messages under way, and allows [`CLOSE_TIMEOUT`] for the rest.
    fn end(&mut self, state: State) {
        self.state = state;
        self.work.clear();
        self.client.subscriptions.clear();
        self.queue = VecDeque::new();
        (self.queued_calls, self.queued_bytes) = (0, 0);
        self.served = 0;
        self.calls = 0;
        self.served_bytes = 0;
        self.note_idleness();
        if let SeatState::Seated(place) = &self.standing {
            place.departs();
        }
        self.hear();
        self.at(Instant::now() + CLOSE_TIMEOUT, || Event::Farewell);
    }
}
