//! Calls and subscriptions over WebSockets.
//!
//! A connection comes here from the HTTP door, with its request; from then on one task serves the
//! connection. The framing is the proxy's own: there are few kinds of messages, all short texts,
//! and ten thousand idle clients must not hold ten thousand buffers.

mod frame;
mod handshake;
mod message;
mod reader;
mod session;
mod subscriptions;
mod writer;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::watch;
use tracing::warn;

use self::{
    message::Visitor,
    session::{Session, Signals},
};
use super::{
    Admitted, NotAdmitted, UpgradeHandler,
    crowd::{Crowd, Entered},
    site::Site,
};
use crate::{
    call::outbox_calls::Passed,
    domain::{client::Peer, refusal::Refusal},
    memory::{Account, Budget},
    metrics::{Ended, Metrics, Throttle},
    net::BoxFuture,
};

/// The WebSockets of all clients.
pub struct Sockets {
    site: Arc<ArcSwap<Site>>,
    metrics: Arc<Metrics>,
    memory: Arc<Budget>,
    signals: Signals,
    crowd: Arc<Crowd>,
    full: Throttle,
}

impl Sockets {
    /// WebSockets to the networks of `site`, which may take so much `memory`, until `closing` turns
    /// true. `reloads` changes after every change of `site`.
    pub fn new(
        site: Arc<ArcSwap<Site>>,
        metrics: Arc<Metrics>,
        memory: Arc<Budget>,
        closing: watch::Receiver<bool>,
        reloads: watch::Receiver<u64>,
    ) -> Self {
        let signals = Signals { closing, reloads };
        Self { site, metrics, memory, signals, crowd: Crowd::new(), full: Throttle::default() }
    }

    async fn take_over(
        &self,
        site: &Site,
        request: &Request<Incoming>,
        visitor: Visitor,
    ) -> Result<Admitted, NotAdmitted> {
        let response = handshake::answer(request, &site.ws.allow_origins)?;
        let refuse = |why| {
            let (status, hint) = (StatusCode::SERVICE_UNAVAILABLE, Some((header::RETRY_AFTER, "1")));
            NotAdmitted { status, why, hint }
        };
        if *self.signals.closing.borrow() {
            return Err(refuse(Refusal::ShuttingDown));
        }
        let Some(served) = site.websockets(request.uri().path()) else {
            return Err(NotAdmitted {
                status: StatusCode::NOT_FOUND,
                why: Refusal::NotARequest("no such network"),
                hint: None,
            });
        };
        // Where the door is full, the connection makes room that has been idle longest: without
        // calls and subscriptions. If none is idle, the newest of the address makes room that has
        // clearly more than this client's address.
        let (limit, caller) = (site.ws.max_connections.get(), super::caller(request));
        let Entered { place, ended } = self.crowd.enter(limit, caller.address()).await;
        (0..ended.idle).for_each(|_| self.metrics.client_ended(Ended::Crowded));
        (0..ended.busy).for_each(|_| self.metrics.client_ended(Ended::Share));
        let Some(place) = place else {
            self.metrics.websocket_refused();
            if let Some(before) = self.full.pass() {
                warn!(limit, before, "ws.max_connections is reached, and none is idle; WebSockets are refused");
            }
            return Err(refuse(Refusal::Limit { name: "ws.max_connections", limit }));
        };
        let (network, site, signals) = (served.name.clone(), self.site.clone(), self.signals.clone());
        let client = super::account(request).client();
        let (metrics, memory) = (self.metrics.clone(), Account::of(&self.memory, client));
        let counted = metrics.websocket();
        Ok(Admitted {
            headers: response,
            takeover: Box::new(move |io, read| {
                // The box spares the future the room for each move of the session.
                let session = Session::new(io, read, visitor, network, site, signals, metrics, &memory, caller, place);
                Box::pin(Box::new(session).run(counted))
            }),
        })
    }
}

impl UpgradeHandler for Sockets {
    fn admit<'a>(
        &'a self,
        site: &'a Site,
        request: &'a Request<Incoming>,
        headers: Passed,
        peer: Peer,
    ) -> BoxFuture<'a, Result<Admitted, NotAdmitted>> {
        Box::pin(self.take_over(site, request, Visitor { headers, peer }))
    }
}
