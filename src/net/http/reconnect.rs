//! The client's retry rule: over which connection a request goes, and when once more over another.
//!
//! The rule: a request that may be sent twice goes once more over a fresh connection when its idle
//! connection is closed within 200 ms, without a byte of an answer; and once more after a pause
//! when the node closes a new connection at once. The reason: a node closes idle connections
//! whenever it likes, and a full node closes new ones, so neither shows that the node is lost. A
//! connection that is lost later was alive: the node had the request, and asking the same node
//! again would only take as long again. Example: a call goes over a connection that was idle for a
//! minute, and is reset after 3 ms: it is sent again over a fresh connection. If that one is lost
//! too, the call has failed at this node.

use std::{io, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Error, Sending, Upstream,
    connection::{Broken, Conn},
};
use crate::{
    domain::backoff::doubled,
    net::node_connections::{Caller, Grant, Rank},
};

/// How long a question of our own that is no probe waits for a connection: the first where there
/// are other nodes to ask. The node's time to answer begins after that.
const OWN_CONNECTION_WAIT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(10));
/// How soon an idle connection turns out to be closed. A connection that is lost later was alive
/// when the request was sent: the node had the request, and asking the same node again would only
/// take as long again.
const IDLE_CLOSE_WITHIN: Duration = Duration::from_millis(200);
/// How soon a node that is full closes a new connection: one that is closed later was closed for
/// something else.
const FULL_CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// How long a new connection is watched before the request is written, since a full node closes new
/// ones at once. The first: a request that is sent once, to a node that has shown a bound. The
/// second: a request whose new connection was closed at once before, or whose idle connection was
/// closed by a node that has shown a bound.
const LOOK: Duration = Duration::from_millis(20);
const LONG_LOOK: Duration = Duration::from_millis(100);
/// The pause after the node closed a new connection at once, and the longest: each is twice the one
/// before.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// How far a request has come, for a caller that gives it up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The request was sent before, and may have arrived: the connection was closed without a byte
    /// of an answer.
    pub again: bool,
    /// The request waits for a connection: the node owes nothing.
    pub waits: bool,
}

/// The tries of one request.
pub(super) struct Reconnect<'a> {
    upstream: &'a Arc<Upstream>,
    rank: Rank,
    caller: Option<&'a Arc<Caller>>,
    sending: Sending,
    until: Option<Instant>,
    /// Whether a call waits until its caller gives it up, though there are other nodes.
    pub(super) in_line: bool,
    /// Whether `until` has been set for its rank.
    is_bounded: bool,
    progress: &'a mut Progress,
    /// Whether an idle connection was closed after the request was written to it.
    was_stale: bool,
    /// Whether a new connection was closed at once after the request was written to it.
    is_suspicious: bool,
    /// How often a new connection was closed at once.
    refusals: u32,
    opened: Option<Instant>,
    /// When the request set out over the present connection.
    sent: Option<Instant>,
}

impl<'a> Reconnect<'a> {
    /// A request that waits for a connection `until` then, if that is bounded here.
    pub(super) fn new(
        upstream: &'a Arc<Upstream>,
        sending: Sending,
        rank: Rank,
        caller: Option<&'a Arc<Caller>>,
        until: Option<Instant>,
        progress: &'a mut Progress,
    ) -> Self {
        Self {
            upstream,
            rank,
            caller,
            sending,
            until,
            in_line: false,
            is_bounded: false,
            progress,
            was_stale: false,
            is_suspicious: false,
            refusals: 0,
            opened: None,
            sent: None,
        }
    }

    /// The request is written from now on.
    pub(super) fn sent(&mut self) {
        self.sent = Some(Instant::now());
    }

    /// A connection to go over.
    ///
    /// # Errors
    /// All say that nothing was sent.
    pub(super) async fn conn(&mut self) -> Result<Box<Conn>, Error> {
        if let Some(conn) = self.idle() {
            return Ok(conn);
        }
        // In a box, so that a request over an idle connection has no larger future.
        Box::pin(self.open()).await
    }

    fn idle(&mut self) -> Option<Box<Conn>> {
        let conn = if self.must_be_fresh() { None } else { self.upstream.connections().idle(self.rank, self.caller) };
        self.progress.waits &= conn.is_none();
        conn
    }

    fn must_be_fresh(&self) -> bool {
        self.sending == Sending::Once || self.was_stale
    }

    async fn open(&mut self) -> Result<Box<Conn>, Error> {
        loop {
            let permit = match self.grant().await? {
                Grant::Conn(conn) => return Ok(conn),
                Grant::Permit(permit) => permit,
            };
            let mut conn = match self.upstream.connect(permit).await {
                Ok(conn) => conn,
                Err((error, mut permit)) => {
                    if !is_hanging_up(&error) || !permit.refused(true) {
                        return Err(error);
                    }
                    drop(permit);
                    self.pause().await?;
                    continue;
                }
            };
            self.opened = Some(Instant::now());
            let is_learnt = self.upstream.connections().is_learnt();
            let look = match self.sending != Sending::Repeatable {
                _ if self.is_suspicious || (self.was_stale && is_learnt) => LONG_LOOK,
                true if is_learnt => LOOK,
                true => Duration::ZERO,
                false => return Ok(conn),
            };
            if !conn.closes_within(look).await {
                return Ok(conn);
            }
            if !conn.permit.refused(true) {
                return Err(Error::Connect(io::ErrorKind::UnexpectedEof.into()));
            }
            drop(conn);
            self.pause().await?;
        }
    }

    /// A connection, or the right to open one.
    async fn grant(&mut self) -> Result<Grant, Error> {
        let connections = self.upstream.connections();
        if let Some(conn) = self.idle() {
            return Ok(Grant::Conn(conn));
        }
        self.progress.waits = true;
        let grant = match connections.free(self.rank, self.caller) {
            Some(permit) => Grant::Permit(permit),
            None => {
                let wait = connections.wait(self.rank, self.must_be_fresh(), self.caller);
                match self.until() {
                    Some(until) => timeout_at(until, wait).await.map_err(|_| Error::NoPlace)?,
                    None => wait.await,
                }
            }
        };
        self.progress.waits = false;
        Ok(grant)
    }

    fn until(&mut self) -> Option<Instant> {
        let connections = self.upstream.connections();
        let wait_limit = match self.rank {
            // The probe's own clock bounds the wait.
            Rank::Probe => None,
            Rank::Own => {
                Some(if connections.is_the_only_node() { OWN_CONNECTION_WAIT.1 } else { OWN_CONNECTION_WAIT.0 })
            }
            Rank::Call => connections.wait_limit().filter(|_| !self.in_line),
        };
        if let Some(wait_limit) = wait_limit.filter(|_| !self.is_bounded) {
            let until = Instant::now() + wait_limit;
            self.until = Some(self.until.map_or(until, |other| other.min(until)));
            self.is_bounded = true;
        }
        self.until
    }

    async fn pause(&mut self) -> Result<(), Error> {
        let pause = doubled(FIRST_PAUSE, self.refusals, LONGEST_PAUSE);
        self.refusals += 1;
        self.progress.waits = true;
        if self.until().is_some_and(|until| Instant::now() + pause > until) {
            return Err(Error::NoPlace);
        }
        sleep(pause).await;
        Ok(())
    }

    /// The connection was lost. Returns when the request may go over another.
    ///
    /// # Errors
    /// When the request may not be sent again.
    pub(super) async fn lost(&mut self, broken: Broken, mut conn: Box<Conn>) -> Result<(), Error> {
        let reused = conn.reused;
        if self.sending != Sending::Repeatable || !matches!(broken, Broken::Lost { started: false, .. }) {
            return Err(Error::Broken { broken });
        }
        if self.is_suspicious {
            // A second new connection was closed: the request is the cause, or the node is going
            // down.
            self.upstream.connections().cleared();
            return Err(Error::Broken { broken });
        }
        let is_soon = self.sent.is_none_or(|sent| sent.elapsed() <= IDLE_CLOSE_WITHIN);
        if reused && !self.was_stale && is_soon {
            // The idle connection may only have been closed; a fresh one shows whether the node is
            // well.
            self.was_stale = true;
            self.progress.again = true;
            return Ok(());
        }
        let at_once = self.opened.is_some_and(|opened| opened.elapsed() <= FULL_CLOSE_WITHIN);
        if self.was_stale || !at_once || !conn.permit.refused(false) {
            return Err(Error::Broken { broken });
        }
        self.is_suspicious = true;
        self.progress.again = true;
        drop(conn);
        Box::pin(self.pause()).await
    }
}

/// Whether the node closed the connection while it was being opened.
fn is_hanging_up(error: &Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let Error::Connect(error) = error else { return false };
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
