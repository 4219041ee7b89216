//! The task that owns a link's connection.

use std::{
    collections::{BTreeMap, VecDeque},
    future::ready,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    Command, Error, Shared, Signal, Status, Timeouts,
    connect::Connector,
    feed::{News, Outlet},
    message::Response,
    reply::Reply,
    socket::{Event, Socket},
    table::{Effect, Table},
};
use crate::{domain::backoff::Backoff, metrics::LinkMetrics};

/// Frames that are taken in a row before the callers' commands have their turn.
const MAX_FRAMES: usize = 64;
/// How many calls are written at once.
const MAX_BATCH: usize = 64;
/// The first and the longest pause between attempts to connect.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The longest pause while the node refuses the handshake: a wrong key, or too many requests, do
/// not pass in a moment.
const LONGEST_REFUSED: Duration = Duration::from_secs(60);

/// Opens the connection, keeps it open, and carries out the handle's commands.
pub struct Actor {
    connector: Arc<Connector>,
    metrics: LinkMetrics,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    status: watch::Sender<Status>,
    backoff: Backoff,
    table: Table<Reply<Response>>,
    feeds: BTreeMap<u64, Output>,
    /// The subscriptions to be written before any call.
    outgoing: VecDeque<Utf8Bytes>,
}

/// The feed of a subscription, and the caller that waits for its first answer.
struct Output {
    outlet: Outlet,
    first: Option<Reply<Result<(), Bytes>>>,
}

/// How a connection ended.
enum End {
    Lost(String),
    /// The handle is gone.
    Unused,
}

impl Actor {
    pub(super) fn new(
        connector: Arc<Connector>,
        timeouts: Timeouts,
        seed: u64,
        metrics: LinkMetrics,
        commands: mpsc::Receiver<Command>,
        shared: Arc<Shared>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            connector,
            metrics,
            commands,
            table: Table::new(shared.clone(), timeouts.answer),
            shared,
            status,
            backoff: Backoff::jittered(PAUSES.0, PAUSES.1, seed),
            feeds: BTreeMap::new(),
            outgoing: VecDeque::new(),
        }
    }

    /// Runs until the handle is gone. Dropping the future ends the link: calls are lost, and feeds
    /// end.
    pub async fn run(mut self) {
        loop {
            let connector = self.connector.clone();
            let Some(connected) = self.without_connection(connector.connect()).await else { return };
            let mut refused = false;
            let why = match connected {
                Err(failed) => {
                    refused = failed.refused;
                    failed.why
                }
                Ok(wire) => {
                    let since = Instant::now();
                    let End::Lost(why) = self.with(wire).await else { return };
                    if since.elapsed() >= PAUSES.1 {
                        self.backoff.reset();
                    }
                    why
                }
            };
            self.down(&why);
            let longest = if refused { LONGEST_REFUSED } else { PAUSES.1 };
            let delay = self.backoff.pause_within(longest);
            let shared = self.shared.clone();
            let pause = async {
                // Both arms are cancel-safe.
                tokio::select! {
                    biased;
                    () = sleep(delay) => {}
                    () = shared.hurry.notified() => {}
                }
            };
            if self.without_connection(pause).await.is_none() {
                return;
            }
        }
    }

    /// Waits for `what` while there is no connection; `None` when the handle is gone.
    async fn without_connection<F: Future>(&mut self, what: F) -> Option<F::Output> {
        let mut what = pin!(what);
        loop {
            // All arms are cancel-safe: `what` is kept for the next round.
            tokio::select! {
                biased;
                done = &mut what => return Some(done),
                // The callers learn that nothing was sent.
                command = self.commands.recv() => drop(command?),
                () = self.shared.bell.notified() => {
                    for signal in self.shared.take_signals() {
                        match signal {
                            Signal::FeedGone(key) => self.unwant(key),
                            Signal::FeedDrained(key) => _ = self.table.resume(key, false, Instant::now()),
                            // Both are of a connection that is no more.
                            Signal::CallGone(_) | Signal::Cut(..) => {}
                        }
                    }
                }
            }
        }
    }

    /// Serves a connection to its end.
    async fn with(&mut self, mut wire: Socket) -> End {
        let replays = self.table.attach(Instant::now());
        self.perform(replays);
        self.status.send_modify(|status| *status = Status { up: true, epoch: status.epoch + 1, why_down: None });
        let _up = self.metrics.up();
        if self.status.borrow().epoch > 1 {
            self.metrics.relinked();
        }
        let mut frames = 0;
        loop {
            let due = self.table.due();
            if let Err(why) = self.write_own(&mut wire) {
                return End::Lost(why);
            }
            // All arms are cancel-safe. Incoming messages are taken before outgoing ones, since an
            // answer that was paid for should not wait behind new work; but not for ever.
            tokio::select! {
                biased;
                () = self.shared.bell.notified() => {
                    if let Some(why) = self.take_signals() {
                        return End::Lost(why);
                    }
                }
                event = wire.event(), if frames < MAX_FRAMES => {
                    match event {
                        Event::Flushed => {}
                        Event::Lost(why) => return End::Lost(why),
                        Event::Frame(text) => {
                            frames += 1;
                            let mut effects = Vec::new();
                            if let Err(broken) = self.table.frame(&text, Instant::now(), &mut effects) {
                                return End::Lost(broken.to_string());
                            }
                            self.perform(effects);
                            continue;
                        }
                        Event::TooLong(excerpt) => {
                            frames += 1;
                            let mut effects = Vec::new();
                            if let Err(broken) = self.table.too_long(&excerpt, &mut effects) {
                                return End::Lost(broken.to_string());
                            }
                            self.perform(effects);
                            continue;
                        }
                    }
                }
                command = self.commands.recv(), if wire.is_clear() => {
                    let Some(command) = command else {
                        wire.close();
                        return End::Unused;
                    };
                    if let Err(why) = self.write_calls(&mut wire, command) {
                        return End::Lost(why);
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    return End::Lost(self.table.overdue().to_string());
                }
                () = ready(()), if frames >= MAX_FRAMES => {}
            }
            frames = 0;
        }
    }

    /// Writes the link's own requests.
    fn write_own(&mut self, wire: &mut Socket) -> Result<(), String> {
        while let Some(text) = self.outgoing.pop_front() {
            wire.send(text)?;
        }
        Ok(())
    }

    /// Writes a first command, and more as long as some wait and there is room.
    fn write_calls(&mut self, wire: &mut Socket, first: Command) -> Result<(), String> {
        let mut more = self.write_call(wire, first)?;
        for _ in 1..MAX_BATCH {
            if !more {
                break;
            }
            let Ok(next) = self.commands.try_recv() else { break };
            more = self.write_call(wire, next)?;
        }
        Ok(())
    }

    /// Writes the message of a command, unless its caller is gone. Returns whether there is room
    /// for more.
    fn write_call(&mut self, wire: &mut Socket, command: Command) -> Result<bool, String> {
        match command {
            Command::Call { reply, .. } | Command::Notify { reply, .. } if reply.is_closed() => Ok(true),
            Command::Subscribe { reply, .. } if reply.is_closed() => Ok(true),
            Command::Call { key, text, mut reply } => {
                reply.written();
                self.table.call(key, reply);
                wire.send(text)
            }
            Command::Notify { text, mut reply } => {
                reply.written();
                let more = wire.send(text)?;
                reply.answer(Response::default());
                Ok(more)
            }
            Command::Subscribe { key, method, params, queue, mut reply } => {
                let asked = self.table.want(key, &method, &params, Instant::now());
                if asked.is_some() {
                    reply.written();
                    self.feeds.insert(key, Output { outlet: Outlet::new(queue), first: Some(reply) });
                }
                self.perform(asked);
                self.outgoing.pop_front().map_or(Ok(true), |text| wire.send(text))
            }
        }
    }

    /// Carries out effects; messages wait in `outgoing` for their turn.
    fn perform(&mut self, effects: impl IntoIterator<Item = Effect<Reply<Response>>>) {
        for effect in effects {
            match effect {
                Effect::Send(text) => self.outgoing.push_back(text),
                Effect::Answer(reply, answer) => reply.answer(answer),
                Effect::TooLong(reply) => reply.fail(Error::TooLong),
                Effect::Accepted(key) => self.first(key, Ok(())),
                Effect::Refused(key, error) => {
                    self.first(key, Err(error));
                    self.feeds.remove(&key);
                }
                // Dropping the reply tells the caller.
                Effect::Unanswered(key) => _ = self.feeds.remove(&key),
                Effect::News(key, news) => self.tell(key, news),
                Effect::Replayed(outcome) => self.metrics.replayed(outcome),
            }
        }
    }

    fn first(&mut self, key: u64, answer: Result<(), Bytes>) {
        if let Some(reply) = self.feeds.get_mut(&key).and_then(|feed| feed.first.take()) {
            reply.answer(answer);
        }
    }

    fn tell(&mut self, key: u64, news: News) {
        let Some(feed) = self.feeds.get(&key) else { return };
        if !feed.outlet.push(news)
            && let Some(Effect::Send(text)) = self.table.lapse(key, Instant::now())
        {
            self.outgoing.push_back(text);
        }
    }

    /// Returns the reason to cut the connection, if a signal gives one.
    fn take_signals(&mut self) -> Option<String> {
        let mut cut = None;
        for signal in self.shared.take_signals() {
            match signal {
                Signal::CallGone(key) => self.table.forget(key),
                Signal::FeedGone(key) => self.unwant(key),
                Signal::FeedDrained(key) => {
                    let asked = self.table.resume(key, true, Instant::now());
                    self.perform(asked);
                }
                Signal::Cut(epoch, why) if epoch == self.status.borrow().epoch => cut = Some(why.to_string()),
                Signal::Cut(..) => {}
            }
        }
        cut
    }

    fn unwant(&mut self, key: u64) {
        self.feeds.remove(&key);
        let ended = self.table.unwant(key, Instant::now());
        self.perform(ended);
    }

    /// There is no connection now. The status is changed first, so that a caller whose call is lost
    /// does not try again here.
    fn down(&mut self, why: &str) {
        self.status.send_modify(|status| (status.up, status.why_down) = (false, Some(why.into())));
        let lost = self.table.detach();
        self.perform(lost);
        self.outgoing.clear();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.status.send_modify(|status| (status.up, status.why_down) = (false, Some("the link is ended".into())));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::net::{Endpoint, http::Target, link::Link, node_connections::NodeConnections, system::System};

    #[test]
    fn a_call_that_nobody_waits_for_is_not_kept_until_its_answer() {
        let url: crate::config::Url = "ws://node".parse().unwrap();
        let endpoint = Endpoint::Tcp { host: url.host().clone(), port: url.port() };
        let target =
            Target { endpoint, tls: None, url, headers: Vec::new(), connections: NodeConnections::new(None, 0) };
        let [connect, write, ping, pong, answer] = [Duration::from_secs(1); 5];
        let timeouts = Timeouts { connect, write, ping, pong, answer };
        let metrics = crate::metrics::Metrics::new();
        let of = crate::metrics::NodeLabels { network: "default", layer: "el", node: "el-1" };
        let (link, mut actor) = Link::new(target, Arc::new(System), timeouts, 1, metrics.link(of));
        actor.status.send_modify(|status| status.up = true);
        let mut call = Box::pin(link.call(b"{\"id\":1}", Some(6..7)));
        assert!(call.as_mut().now_or_never().is_none());
        let Some(Command::Call { key, reply, .. }) = actor.commands.try_recv().ok() else { panic!("no call") };
        actor.table.call(key, reply);
        drop(call);
        assert_eq!(actor.take_signals(), None);
        let mut effects = Vec::new();
        let text = Bytes::from(format!("{{\"id\":{key},\"result\":1}}"));
        actor.table.frame(&text, Instant::now(), &mut effects).unwrap();
        assert!(effects.is_empty());
    }
}
