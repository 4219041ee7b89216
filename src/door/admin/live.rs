//! `/events` of the admin side: what the dashboard shows, as it changes.
//!
//! A stream begins with a snapshot of all that is shown. Another follows whenever something new is
//! known of a node, and each second in any case. Nothing is read while no stream is open.

use std::{convert::Infallible, future::pending, time::Duration};

use bytes::Bytes;
use futures_util::{future::select_all, stream};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until, timeout_at},
};

use super::Admin;
use crate::domain::duration::millis;
use crate::{
    door::site::Served,
    events::HEADERS,
    metrics::{CallTally, Tally},
    pool::{Pool, snapshot::Switch},
};

/// Streams that are open at once, at most.
pub(super) const STREAMS: usize = 8;
/// A snapshot follows the one before after this time at the latest.
const ROUND: Duration = Duration::from_secs(1);
/// A snapshot follows the one before after this time at the earliest.
const GAP: Duration = Duration::from_millis(250);

/// A stream, which lasts for as long as the client likes and the proxy runs. `place` is its place
/// among the streams.
pub(super) fn open(admin: Admin, place: OwnedSemaphorePermit) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let watch = Watch { admin, changes: Vec::new(), last: None, _place: place };
    let snapshots = stream::unfold(watch, async |mut watch| {
        let snapshot = watch.next().await;
        Some((Ok(Frame::data(snapshot)), watch))
    });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(snapshots)));
    let headers = HEADERS.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

struct Watch {
    admin: Admin,
    /// Of each pool: whether its nodes are known otherwise since the last snapshot.
    changes: Vec<watch::Receiver<()>>,
    /// When the last snapshot was made.
    last: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

impl Watch {
    async fn next(&mut self) -> Bytes {
        if let Some(last) = self.last {
            // Either way it is time for a snapshot.
            let _ = timeout_at(last + ROUND, changed(&mut self.changes)).await;
            sleep_until(last + GAP).await;
        }
        // A reload brings other pools. A change during the making of the snapshot counts for the
        // next one.
        let site = self.admin.site.load_full();
        self.changes = site.networks.iter().flat_map(Served::pools).map(|pool| pool.subscribe()).collect();
        self.last = Some(Instant::now());
        format!("data: {}\n\n", snapshot(&self.admin).await).into()
    }
}

/// Waits for the first change. A pool that is gone has changed.
async fn changed(changes: &mut [watch::Receiver<()>]) {
    if changes.is_empty() {
        pending::<()>().await;
    }
    let _ = select_all(changes.iter_mut().map(|change| Box::pin(change.changed()))).await;
}

async fn snapshot(admin: &Admin) -> Value {
    let tally = admin.metrics.tally();
    let at = |at: Instant| millis(at.saturating_duration_since(admin.started));
    let status = admin.status(&tally).await;
    let site = admin.site.load();
    let switches = site.networks.iter().flat_map(Served::pools).flat_map(|pool| {
        let snapshot = pool.snapshot().clone();
        snapshot.switches.iter().map(|one| switch(pool, one, at(one.at))).collect::<Vec<_>>()
    });
    json!({
        "uptime_ms": at(Instant::now()),
        "status": status,
        "switches": switches.collect::<Vec<_>>(),
        "calls": tally.calls.iter().map(|(side, of)| calls(side, of)).collect::<Vec<_>>(),
        "attempts": tally.attempts.iter().map(|([network, layer, node], [answered, failed])| json!({
            "network": network, "layer": layer, "node": node, "answered": answered, "failed": failed,
        })).collect::<Vec<_>>(),
        "clients": clients(&tally),
        "pretend": admin.faults.is_some(),
    })
}

fn switch(pool: &Pool, Switch { from, to, reason, .. }: &Switch, at: u64) -> Value {
    json!({
        "network": &*pool.network, "layer": pool.layer.as_str(),
        "from": from.as_deref(), "to": to.as_deref(), "reason": reason, "at_ms": at,
    })
}

fn calls([network, layer]: &[String; 2], of: &CallTally) -> Value {
    let CallTally { held, outcomes, methods, bounds, times } = of;
    let methods: Vec<_> = methods.iter().map(|(method, [all, unanswered])| json!([method, all, unanswered])).collect();
    json!({
        "network": network, "layer": layer, "held": held, "outcomes": outcomes, "methods": methods,
        "latency": { "bounds": bounds, "counts": times },
    })
}

fn clients(tally: &Tally) -> Value {
    let [held, limit] = tally.memory;
    json!({
        "http": tally.connections,
        "websockets": tally.websockets,
        "subscriptions": tally.subscriptions,
        "event_streams": tally.event_streams,
        "reorganisations": tally.reorganisations,
        "slow_closed": tally.slow_clients,
        "memory_bytes": held,
        "memory_limit_bytes": limit,
    })
}
