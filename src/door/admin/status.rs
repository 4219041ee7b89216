//! What `/status` tells of a network. URLs come without their secrets, and errors were cleaned when
//! they were noted.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    config::Budget,
    domain::{
        asked_blocks::Data,
        beacon_route::Route,
        chain::Chain,
        layer::Layer,
        method::{Method, MethodId},
        node_id::ByNode,
        verdict::Condition,
    },
    door::site::Served,
    net::node_connections::Occupancy,
    pool::{
        Pool,
        credits::{Credits, Left},
        node::Node,
        pair::{PairFault, fault},
        snapshot::{Cordons, Switch},
    },
    view::Counts,
};

pub(super) fn network(served: &Served) -> Value {
    let (el, cl) =
        (served.calls.as_ref().map(|calls| &**calls.pool()), served.beacon.as_ref().map(|rest| &**rest.pool()));
    // Both sides tell the same of a pair.
    let pair = |name: &str| {
        let fault = el.zip(cl).and_then(|(el, cl)| fault(name, el, cl));
        json!({ "name": name, "fault": fault.map(PairFault::as_str) })
    };
    json!({
        "name": &*served.name,
        "el": el.map(|pool| side(pool, pair)),
        "cl": cl.map(|pool| side(pool, pair)),
        "filters": served.views.as_ref().map(|views| {
            let Counts { blocks, logs, transactions, bytes, backlog_bytes } = views.filters().counts();
            json!({
                "blocks": blocks, "logs": logs, "transactions": transactions,
                "bytes": bytes, "backlog_bytes": backlog_bytes,
            })
        }),
        // Another than the active one, while that does not tell them.
        "events_from": served.events.as_ref().and_then(|events| events.source()).as_deref(),
    })
}

fn side(pool: &Pool, pair: impl Fn(&str) -> Value) -> Value {
    let snapshot = pool.snapshot();
    let nodes: Vec<Value> = pool
        .nodes
        .by_node()
        .zip(&snapshot.nodes)
        .map(|((index, node), known)| {
            json!({
                "name": &*node.name,
                "tier": node.tier.as_str(),
                "url": node.url,
                "verdict": known.verdict.as_str(),
                "reason": known.verdict.to_string(),
                "usable": known.verdict.is_usable() && !known.cordoned,
                "cordoned": known.cordoned,
                "cordoned_by": cordoned_by(known.cordons),
                "resting": resting(node, pool.layer),
                "account": node.settings().account.as_ref().map(ToString::to_string),
                "budget": node.credits.as_ref().map(budget),
                "probe": node.settings().probing.as_str(),
                "idle": pool.is_idle(index),
                "missing_methods": node.missing_methods.names(Instant::now()),
                "oldest": (pool.layer == Layer::El).then(|| oldest(node, known.number())),
                "chain_id": known.chain.as_ref().and_then(|chain| chain.id),
                "genesis_validators_root": genesis(known.chain.as_ref()),
                "head": known.head.as_ref().map(|head| head.number),
                "head_hash": known.head.as_ref().map(|head| head.hash.clone()),
                "lag": known.lag,
                "sync": (pool.layer == Layer::Cl && known.head.is_some()).then(|| sync(known.condition)),
                // `heads`: whether it tells its heads by itself; if not, it is asked for them.
                "link": node.link.as_ref().map(|link| json!({ "up": link.is_up(), "heads": known.pushing })),
                "pair": node.pair.as_deref().map(&pair),
                "latency_ms": known.latency.map(|latency| (latency.as_secs_f64() * 1e5).round() / 100.0),
                "in_flight": node.traffic.in_flight(),
                "connections": connections(node.occupancy()),
                "good_probes_needed": known.proving,
                "last_error": known.last_error.as_ref().map(|(text, at)| json!({
                    "message": text,
                    "seconds_ago": at.elapsed().as_secs(),
                })),
            })
        })
        .collect();
    json!({
        "chain_id": snapshot.chain.as_ref().and_then(|chain| chain.id),
        "genesis_validators_root": genesis(snapshot.chain.as_ref()),
        // Where no node tells how long its slots are, none is late by the clock.
        "clock_rule": (pool.layer == Layer::Cl).then(|| has_slots(snapshot.chain.as_ref())),
        "head": snapshot.head,
        "served_head": pool.served(),
        "active": snapshot.active.map(|active| &*pool.nodes[active].name),
        "last_switch": snapshot.switches.last().map(last_switch),
        // For a node that is soon where clients have seen the chain.
        "calls_wait": snapshot.wait.is_some(),
        "degraded": snapshot.is_degraded(),
        "serves": snapshot.serves(),
        "failover": snapshot.is_failed_over(),
        "nodes": nodes,
    })
}

/// The nodes between which calls last came to go elsewhere; null for none.
fn last_switch(Switch { from, to, reason, at }: &Switch) -> Value {
    json!({ "from": from.as_deref(), "to": to.as_deref(), "reason": reason, "seconds_ago": at.elapsed().as_secs() })
}

/// Connections to a node. `bound` is how many may be open; where nobody says so, it is null until
/// the node shows it.
fn connections(Occupancy { open, bound, learnt, waiting }: Occupancy) -> Value {
    json!({ "open": open, "waiting": waiting, "bound": bound, "bound_is_learnt": learnt })
}

/// The orders that take a node out of use.
fn cordoned_by(Cordons { local, fleet }: Cordons) -> Vec<&'static str> {
    let words = [("local", local), ("fleet", fleet)];
    words.into_iter().filter_map(|(word, stands)| stands.then_some(word)).collect()
}

/// For how many seconds more the node is left alone, if as a whole, or else the methods, or groups
/// of routes, that pass it over.
fn resting(node: &Node, layer: Layer) -> Option<Value> {
    let now = Instant::now();
    let seconds = node.resting.until(now).map(|until| until.saturating_duration_since(now).as_secs());
    let label = |MethodId(place): MethodId| match layer {
        Layer::El => Method::label_of(MethodId(place)).to_owned(),
        Layer::Cl if place >= Route::GROUPS.len() => {
            let group = Route::GROUPS.get(place - Route::GROUPS.len());
            format!("publishing: {}", group.copied().unwrap_or("other"))
        }
        Layer::Cl => Route::GROUPS[place].to_owned(),
    };
    let mut methods: Vec<_> = node.resting.kinds(now).into_iter().map(|kind| label(kind.id())).collect();
    methods.sort_unstable();
    methods.dedup();
    let rests = seconds.is_some() || !methods.is_empty();
    rests.then(|| json!({ "seconds": seconds, "methods": methods }))
}

/// The terms of a budget, and the credits that are left; null for a limit that there is not.
fn budget(credits: &Credits) -> Value {
    let Left { at_once, today } = credits.left(Instant::now());
    let Budget { rate, per_day, costs: _ } = credits.budget();
    json!({
        "per_second": rate.map(|rate| rate.per_second),
        "burst": rate.map(|rate| rate.burst),
        "burst_left": at_once,
        "per_day": per_day,
        "day_left": today,
    })
}

/// The oldest block of which the node has data, for each kind; null where no lack is known.
fn oldest(node: &Node, head: u64) -> Value {
    let now = Instant::now();
    Data::ALL.iter().map(|data| (data.as_str(), json!(node.block_range.oldest(*data, head, now)))).collect()
}

fn genesis(chain: Option<&Chain>) -> Option<&str> {
    chain.and_then(|chain| chain.beacon.as_ref()).map(|beacon| &*beacon.genesis_validators_root)
}

fn has_slots(chain: Option<&Chain>) -> bool {
    chain.and_then(|chain| chain.beacon.as_ref()).is_some_and(|beacon| beacon.slot_millis.is_some())
}

/// What a consensus node said of itself when it last answered.
fn sync(condition: Condition) -> Value {
    json!({
        "is_syncing": condition.syncing,
        "is_optimistic": condition.optimistic,
        "el_offline": condition.el_offline,
        "sync_distance": condition.sync_distance,
    })
}
