//! What `/status` tells of a network. URLs come without their secrets, and errors were cleaned when they were noted.

use serde_json::{Value, json};

use crate::{door::site::Served, pool::Pool};

pub(super) fn network(served: &Served) -> Value {
    json!({
        "name": &*served.name,
        "el": served.calls.as_ref().map(|calls| side(calls.pool())),
    })
}

fn side(pool: &Pool) -> Value {
    let snapshot = pool.snapshot();
    let nodes: Vec<Value> = pool
        .nodes
        .iter()
        .zip(&snapshot.nodes)
        .map(|(node, known)| {
            json!({
                "name": &*node.name,
                "tier": node.tier.as_str(),
                "url": node.url,
                "verdict": known.verdict.as_str(),
                "reason": known.verdict.to_string(),
                "usable": known.verdict.is_usable() && !known.cordoned,
                "cordoned": known.cordoned,
                "chain_id": known.chain_id,
                "head": known.head.as_ref().map(|head| head.number),
                "head_hash": known.head.as_ref().map(|head| head.hash.clone()),
                "lag": known.lag,
                "latency_ms": known.latency.map(|latency| latency.as_secs_f64() * 1000.0),
                "in_flight": node.traffic.in_flight(),
                "good_probes_needed": known.proving,
                "last_error": known.last_error.as_ref().map(|(text, at)| json!({
                    "message": text,
                    "seconds_ago": at.elapsed().as_secs(),
                })),
            })
        })
        .collect();
    json!({
        "chain_id": snapshot.chain_id,
        "head": snapshot.head,
        "served_head": pool.served(),
        "active": snapshot.active.map(|active| &*pool.nodes[active].name),
        "degraded": snapshot.is_degraded(),
        "failover": snapshot.is_failed_over(),
        "nodes": nodes,
    })
}
