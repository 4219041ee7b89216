//! Accepts the connections of clients and of operators, and keeps to the limits: which connection
//! gives way when there are too many.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

use tokio::{
    task::{AbortHandle, JoinSet},
    time::sleep,
};
use tracing::warn;

use super::{
    Shared,
    descriptors::{self, MAX_PENDING_ACCEPTS},
    worker::{Accepted, Dispatcher},
};
use crate::{
    domain::client::Peer,
    door::{
        admin::Admin,
        crowd::{Crowd, Entered},
        http,
        site::Served,
    },
    metrics::{Ended, Throttle},
    net::{
        Incoming, Listeners,
        descriptors::are_used_up,
        node_connections::{Caller, Peers},
    },
};

/// How long to wait after a failure to accept that another try would only repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Failures in a row that are more than the failures of single connections.
const MANY: u32 = 64;

/// Takes clients in. Where there are as many as may be, the one that has been idle longest makes
/// room.
pub(super) async fn clients(mut listener: Listeners, dispatcher: Dispatcher, shared: Arc<Shared>) {
    let (crowd, full, mut failures) = (Crowd::new(), Throttle::default(), Failures::default());
    let peers = Peers::default();
    // Newcomers that wait until another connection gives way. Later newcomers do not wait for
    // these, unless as many as [`MAX_PENDING_ACCEPTS`] wait.
    let mut pending = FuturesUnordered::new();
    loop {
        // Both arms are cancel-safe.
        let accepted = tokio::select! {
            biased;
            Some(entered) = pending.next(), if !pending.is_empty() => {
                seat(entered, &full, &dispatcher, &shared).await;
                continue;
            }
            accepted = listener.accept(), if pending.len() < MAX_PENDING_ACCEPTS => accepted,
        };
        let (incoming, peer) = match failures.filter(&shared, accepted, "client").await {
            Ok(accepted) => accepted,
            Err(is_want) => {
                // The waiting client gets the descriptor of an idle connection.
                if is_want && crowd.end_longest_idle() {
                    shared.metrics.client_ended(Ended::Crowded);
                }
                continue;
            }
        };
        let (limit, is_shared) = {
            let site = shared.site.load();
            (site.max_connections, site.shared_addresses.contains(peer))
        };
        let caller = if is_shared { Arc::default() } else { peers.caller(peer) };
        // WebSockets have a limit of their own, and have left this crowd.
        let crowd = crowd.clone();
        let waits = Waits(Some(incoming));
        let mut enters = Box::pin(async move {
            let entered = crowd.enter(limit, caller.address()).await;
            Newcomer { waits, peer, caller, limit, entered }
        });
        // Most newcomers find room at once.
        let entered = (&mut enters).now_or_never();
        match entered {
            Some(newcomer) => seat(newcomer, &full, &dispatcher, &shared).await,
            None => pending.push(enters),
        }
    }
}

/// A connection that waits for a place. If the proxy goes down first, the client is told.
struct Waits(Option<Incoming>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|incoming| incoming.refuse(&http::going_down()));
    }
}

/// A connection for which the crowd has decided: a place, or none.
struct Newcomer {
    waits: Waits,
    peer: Peer,
    caller: Arc<Caller>,
    /// The most connections that there may be.
    limit: usize,
    entered: Entered,
}

/// Gives a newcomer to a worker, or refuses the newcomer where there is no room.
async fn seat(newcomer: Newcomer, full: &Throttle, dispatcher: &Dispatcher, shared: &Shared) {
    let Newcomer { mut waits, peer, caller, limit, entered: Entered { place, ended } } = newcomer;
    let Some(incoming) = waits.0.take() else { return };
    let outcome = match (&place, ended.idle, ended.busy) {
        (Some(_), 0, 0) => None,
        (Some(_), _, 0) => Some("new connection takes the place of the one idle longest"),
        (Some(_), ..) => Some("new connection takes the place of a busy one of the address with most connections"),
        (None, ..) => Some("new connection refused"),
    };
    if let Some(outcome) = outcome
        && let Some(before) = full.pass()
    {
        warn!(limit, before, "max_connections is reached: {outcome}");
    }
    // Busy connections are counted where each is cut.
    (0..ended.idle).for_each(|_| shared.metrics.client_ended(Ended::Crowded));
    match place {
        Some(place) => dispatcher.give(Accepted { incoming, peer, caller, place }).await,
        None => {
            shared.metrics.connection_refused();
            incoming.refuse(&http::full(limit));
        }
    }
}

/// Accepts the operator's connections. Operators need few connections, so the oldest one makes room
/// for the newest.
pub(super) async fn admin(mut listener: Listeners, admin: Admin, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    let mut failures = Failures::default();
    loop {
        // Both arms are cancel-safe.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => {
                open.retain(|connection| !connection.is_finished());
                continue;
            }
        };
        let Ok((incoming, _)) = failures.filter(&shared, accepted, "admin").await else { continue };
        let Ok(io) = incoming.open() else { continue };
        if open.len() >= descriptors::ADMIN
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(connections.spawn(admin.clone().serve(io)));
    }
}

/// Keeps the log and the processor calm when connections cannot be accepted.
#[derive(Default)]
struct Failures {
    log: Throttle,
    in_a_row: u32,
}

impl Failures {
    /// The accepted connection. After an error there may be room now, or a moment has passed;
    /// `true` says that descriptors were used up.
    async fn filter(
        &mut self,
        shared: &Shared,
        accepted: io::Result<(Incoming, Peer)>,
        door: &str,
    ) -> Result<(Incoming, Peer), bool> {
        let error = match accepted {
            Ok(accepted) => {
                self.in_a_row = 0;
                return Ok(accepted);
            }
            Err(error) => error,
        };
        self.in_a_row += 1;
        if let Some(before) = self.log.pass() {
            warn!(door, %error, before, "cannot accept a connection");
        }
        let is_want = are_used_up(&error);
        if is_want {
            // Idle connections to nodes are cheap to open again.
            let site = shared.site.load_full();
            let nodes = site.networks.iter().flat_map(Served::pools).flat_map(|pool| pool.nodes.iter());
            nodes.filter_map(|node| node.upstream.as_ref()).for_each(|upstream| upstream.close_idle());
        }
        // An error of one connection, which its client may have brought about, must not hold up the
        // next.
        if is_want || self.in_a_row > MANY {
            sleep(ACCEPT_PAUSE).await;
        }
        Err(is_want)
    }
}
