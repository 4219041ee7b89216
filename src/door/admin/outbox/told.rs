//! The outbox in JSON, for operators, and its gauges.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::time::timeout;

use super::{Refusal, not_a_place};
use crate::{
    config::{Ack, SendTo},
    domain::fleet::ReplicaName,
    metrics::OutboxFacts,
    outbox::{
        Outbox,
        operator::{Health, NetworkHealth},
        record::{BlockId, Millis, Network, Quarantined, Record, State, Stopped, Transition, TxId},
        shard::SHARDS,
        store,
    },
};

/// Where a page of a list ended: `tenant/network/hash`.
pub(super) fn place(TxId { tenant, network, hash }: &TxId) -> String {
    format!("{tenant}/{network}/{hash}")
}

pub(super) fn place_of(text: &str) -> Result<TxId, Refusal> {
    let mut parts = text.splitn(3, '/');
    let (Some(tenant), Some(network), Some(hash)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(not_a_place(text));
    };
    match (tenant.parse(), hash.parse()) {
        (Ok(tenant), Ok(hash)) => Ok(TxId { tenant, network: network.into(), hash }),
        _ => Err(not_a_place(text)),
    }
}

fn block(block: BlockId) -> Value {
    json!({ "number": block.number, "hash": block.hash.to_string() })
}

/// A record, as in a list.
pub(super) fn brief(record: &Record) -> Value {
    let (by, reason) = match &record.state {
        State::Replaced { by, .. } => (Some(by.to_string()), None),
        State::Refused { reason } => (None, Some(reason)),
        _ => (None, None),
    };
    let stopped = record.stopped.as_ref().map(|why| match why {
        Stopped::Refused { .. } => "refused",
        Stopped::Expired => "expired",
        Stopped::Cancelled => "cancelled",
    });
    json!({
        "tenant": record.id.tenant.as_str(), "network": record.id.network.as_str(),
        "hash": record.id.hash.to_string(), "state": record.state.name().as_str(),
        "is_over": record.state.is_over(), "block": record.state.block().map(block),
        "replaced_by": by, "reason": reason, "stopped": stopped,
        "from": record.sender.to_string(), "nonce": record.nonce, "bytes": record.bytes,
        "accepted_at": record.accepted_at.to_string(), "deadline": record.deadline.to_string(),
    })
}

/// A record with all its fields, and the replica that sees the transaction through.
pub(super) fn whole(record: &Record, replica: Option<ReplicaName>) -> Value {
    let mut told = brief(record);
    let more = json!({
        "type": record.kind, "chain_id": record.chain_id, "blobs": record.blobs, "fees": record.fees,
        "request_id": record.request_id, "traceparent": record.traceparent,
        "keep_until": record.keep_until.map(|at| at.to_string()), "refusals": record.refusals,
        "replica": replica.as_ref().map(ReplicaName::as_str),
        "history": record.history.iter().map(transition).collect::<Vec<_>>(),
    });
    if let (Value::Object(told), Value::Object(more)) = (&mut told, more) {
        told.extend(more);
    }
    told
}

fn transition(transition: &Transition) -> Value {
    let Transition { seq, at, to, block: of, node, reason, refusals, repeat: _ } = transition;
    json!({
        "seq": seq, "at": at.to_string(), "state": to.as_str(), "block": of.map(block), "node": node, "reason": reason,
        "refusals": refusals,
    })
}

/// A delivery in quarantine, with its body.
pub(super) fn quarantined(Quarantined { delivery, at, reason }: &Quarantined) -> Value {
    json!({
        "id": delivery.id.as_str(), "tenant": delivery.tenant.as_str(), "endpoint": delivery.endpoint,
        "event": delivery.event.as_str(), "kind": delivery.kind.as_str(), "attempts": delivery.attempt,
        "first_at": delivery.first_at.to_string(), "given_up_at": at.to_string(), "reason": reason,
        "request_id": delivery.request_id, "body": delivery.body,
    })
}

/// Seconds from `earlier` to `now`.
fn seconds(earlier: Millis, now: Millis) -> u64 {
    now.since(earlier) / 1000
}

/// The outbox in `/status`.
pub(in crate::door::admin) async fn status(outbox: &Outbox) -> Value {
    let now = outbox.now();
    let Health { store, networks, endpoints, deliveries, quarantined } = match outbox.health().await {
        Ok(health) => health,
        Err(error) => return json!({ "store": "unreadable", "why": error.to_string() }),
    };
    let (store, why) = match &store {
        store::Health::Writable => ("writable", None),
        store::Health::Full(why) => ("full", Some(why)),
        store::Health::Unwritable(why) => ("unwritable", Some(why)),
    };
    let networks = networks.iter().map(|of| {
        let NetworkHealth { network, depth, bytes, kept, in_flight, oldest } = of;
        json!({
            "name": network.as_str(), "pending": depth, "bytes": bytes, "kept": kept, "in_flight": in_flight,
            "oldest_seconds": oldest.map(|at| seconds(at, now)),
        })
    });
    let endpoints = endpoints.iter().map(|of| {
        json!({
            "name": of.name, "waiting": of.waiting, "under_way": of.under_way, "delivered": of.delivered,
            "failed": of.failed, "given_up": of.quarantined, "failing": of.is_failing,
            "held_until": of.held_until.filter(|until| *until > now).map(|until| until.to_string()), "last_error": of.last_error,
            "late_seconds": of.next_due.map_or(0, |due| seconds(due, now)),
        })
    });
    let shares =
        outbox.shares().map(|(shards, waiting)| json!({ "owned": shards, "of": SHARDS, "rows_waiting": waiting }));
    let settings = outbox.settings();
    let ack = match settings.ack {
        Ack::Node => "node",
        Ack::Disk => "disk",
    };
    let send_to = match settings.send_to {
        SendTo::All => "all",
        SendTo::Tier => "tier",
        SendTo::First => "first",
    };
    json!({
        "dir": settings.dir.display().to_string(), "ack": ack, "send_to": send_to,
        "tenant_header": settings.tenant_header.as_ref().map(|name| name.as_str()),
        "store": store, "why": why, "shards": shares, "deliveries": deliveries, "quarantined": quarantined,
        "networks": networks.collect::<Vec<_>>(), "webhooks": endpoints.collect::<Vec<_>>(),
    })
}

/// The outbox at a moment, for its gauges.
pub(in crate::door::admin) struct Gathered {
    /// `None` where the store cannot be read.
    health: Option<Health>,
    /// Of each network and tenant: pending transactions, their bytes, and kept records.
    tenants: BTreeMap<Network, Vec<(String, [u64; 3])>>,
    /// How late the work is that is due first, in seconds, by the kind of the work.
    late: Vec<(&'static str, u64)>,
    now: Millis,
    /// Shards, and rows that wait for the bucket.
    shares: (u8, usize),
}

/// How long the networks may take to count the transactions of tenants.
const COUNT_TIMEOUT: Duration = Duration::from_secs(1);

impl Gathered {
    pub(in crate::door::admin) async fn of(outbox: &Outbox) -> Self {
        let mut tenants = BTreeMap::<_, Vec<_>>::new();
        for (network, tenant, sum) in timeout(COUNT_TIMEOUT, outbox.tenants()).await.unwrap_or_default() {
            let counts = [sum.live, sum.live_bytes, sum.over].map(|count| count as u64);
            tenants.entry(network).or_default().push((tenant.to_string(), counts));
        }
        let late = outbox.late().await.unwrap_or_default();
        let shares = outbox.shares().map_or((SHARDS, 0), |(shards, waiting)| (shards.unwrap_or_default(), waiting));
        Self { health: outbox.health().await.ok(), tenants, late, now: outbox.now(), shares }
    }

    /// Writes the gauges.
    pub(in crate::door::admin) fn fill(&self, facts: &OutboxFacts) {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        let is_writable = self.health.as_ref().is_some_and(|health| health.store == store::Health::Writable);
        facts.writable.with_label_values(&NO_LABELS).set(i64::from(is_writable));
        let (shards, waiting) = self.shares;
        facts.shards.with_label_values(&NO_LABELS).set(shards.into());
        facts.rows_waiting.with_label_values(&NO_LABELS).set(number(waiting as u64));
        for (network, tenants) in &self.tenants {
            facts.tenants(network.as_str(), tenants.clone());
        }
        for (work, late) in &self.late {
            facts.late_seconds.with_label_values(&[*work]).set(number(*late));
        }
        let Some(Health { networks, endpoints, quarantined, .. }) = &self.health else { return };
        facts.quarantined.with_label_values(&NO_LABELS).set(number(*quarantined));
        for NetworkHealth { network, in_flight, oldest, .. } in networks {
            let network = network.as_str();
            facts.in_flight.with_label_values(&[network]).set(number(*in_flight));
            let oldest = oldest.map_or(0, |at| seconds(at, self.now));
            facts.oldest_seconds.with_label_values(&[network]).set(number(oldest));
        }
        for of in endpoints {
            let waiting = number((of.waiting + of.under_way) as u64);
            facts.webhook_waiting.with_label_values(&[&of.name]).set(waiting);
            facts.webhook_failing.with_label_values(&[&of.name]).set(i64::from(of.is_failing));
        }
    }
}

/// The labels of a gauge that has none.
const NO_LABELS: [&str; 0] = [];
