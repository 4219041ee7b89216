//! The cluster in `/status`, `/leader` and the metrics.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{failure, json_reply, wishes};
use crate::{
    cluster::{Change, Cluster, Leader, Peer, Seen, Snapshot, counts, moment::Moment},
    domain::fleet::{MemberState, NodeRef, ReplicaName, Role, VerdictWord},
    metrics::ClusterFacts,
};

/// The answer of a proxy without a cluster.
pub(super) const ALONE: &str = "this proxy is in no cluster: its settings have no [cluster]";

/// `GET /leader`: 200 at the leader, 503 at any other replica, so that a load balancer, or the
/// holder of an address, can follow.
pub(super) fn leader(cluster: Option<&Cluster>) -> Response<Full<Bytes>> {
    let Some(cluster) = cluster else { return failure(StatusCode::NOT_FOUND, ALONE) };
    let term = cluster.leads();
    let snapshot = cluster.snapshot();
    let status = if term.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let holder = snapshot.leader.as_ref().map(|leader| leader.replica.as_str());
    json_reply(
        status,
        &json!({ "leading": term.is_some(), "term": term, "replica": snapshot.replica.as_str(), "last_leader": holder }),
    )
}

/// The cluster in `/status`.
pub(super) fn status(cluster: &Cluster) -> Value {
    let (snapshot, now) = (cluster.snapshot(), cluster.now());
    let Snapshot {
        cluster: name,
        replica,
        state,
        role,
        epoch,
        lease: _,
        sure_until: _,
        replaced_by,
        view,
        leader,
        peers,
        heard: _,
        fault,
        set_back,
        fleet,
        last_fence,
        started: _,
    } = &*snapshot;
    let leader = leader.as_ref().map(|leader| {
        let Leader { replica, epoch, term, state, revision } = leader;
        json!({
            "replica": replica.as_str(), "epoch": epoch, "term": term, "lease": state.as_str(), "revision": revision,
        })
    });
    let members = view.as_ref().map(|(number, view)| {
        let members = view.members.iter();
        let members = members.map(
            |(name, member)| json!({ "replica": name.as_str(), "epoch": member.epoch, "state": member.state.as_str() }),
        );
        json!({ "number": number, "members": members.collect::<Vec<_>>() })
    });
    let last_fence =
        last_fence.as_ref().map(|(at, why)| json!({ "seconds_ago": now.since(*at) / 1000, "reason": why }));
    let set_back = set_back.map(|at| now.since(at) / 1000);
    json!({
        "name": name.as_str(),
        "replica": replica.as_str(),
        "state": state.as_ref().map(MemberState::as_str),
        "role": role.as_str(),
        "epoch": epoch,
        "leading": cluster.leads().is_some(),
        "term": cluster.leads(),
        "replaced_by": replaced_by,
        "store": { "copy_age_ms": snapshot.age(now), "fault": fault, "set_back_seconds_ago": set_back },
        "leader": leader,
        "view": members,
        "last_fence": last_fence,
        "wishes": wishes::told(cluster, &snapshot),
        "wishes_left_out": cluster.wishes().borrow().left_out,
        "nodes": fleet.verdicts().iter().map(|(node, seen)| node_told(node, seen)).collect::<Vec<_>>(),
        "changes": fleet.changes().map(|change| change_told(change, now)).collect::<Vec<_>>(),
        "replicas": peers.iter().map(|peer| told(peer, &snapshot, now)).collect::<Vec<_>>(),
    })
}

/// A replica, as its last heartbeat tells; the view's word on it stands beside.
fn told(peer: &Peer, snapshot: &Snapshot, now: Moment) -> Value {
    let Peer { name, heartbeat, seen } = peer;
    let member = snapshot.view.as_ref().and_then(|(_, view)| view.members.get(name));
    let heads = heartbeat
        .heads
        .iter()
        .map(|head| json!({ "network": head.network.as_str(), "layer": head.layer.as_str(), "served": head.served }));
    let serving = heartbeat.serving.iter().map(
        |node| json!({ "network": node.network.as_str(), "layer": node.layer.as_str(), "node": node.node.as_str() }),
    );
    json!({
        "replica": name.as_str(),
        // A replica in no view has no standing, whatever its heartbeat says.
        "state": member.map_or("unknown", |member| member.state.as_str()),
        "role": heartbeat.role.as_str(),
        "epoch": heartbeat.epoch,
        "term": heartbeat.term,
        "wants_lead": heartbeat.wants_lead,
        "drained": heartbeat.drained,
        "view": heartbeat.view,
        "shards": heartbeat.shards,
        "heard_ms_ago": now.since(*seen),
        "version": heartbeat.build,
        "heads": heads.collect::<Vec<_>>(),
        "serving": serving.collect::<Vec<_>>(),
    })
}

/// A node, as the replicas see it.
fn node_told(node: &NodeRef, seen: &BTreeMap<ReplicaName, Seen>) -> Value {
    let counts: serde_json::Map<_, _> =
        counts(seen).into_iter().map(|(word, count)| (word.as_str().to_owned(), json!(count))).collect();
    let replicas = seen.iter().map(|(replica, Seen { verdict, last_error, cordoned })| {
        json!({
            "replica": replica.as_str(), "verdict": verdict.as_str(), "last_error": last_error, "cordoned": cordoned,
        })
    });
    json!({
        "network": node.network.as_str(), "layer": node.layer.as_str(), "node": node.node.as_str(),
        "verdicts": counts, "of": seen.len(), "replicas": replicas.collect::<Vec<_>>(),
    })
}

fn change_told(change: &Change, now: Moment) -> Value {
    let Change { at, node, replica, from, to, last_error } = change;
    let word = |word: &Option<VerdictWord>| word.as_ref().map(|word| word.as_str().to_owned());
    json!({
        "seconds_ago": now.since(*at) / 1000, "replica": replica.as_str(), "network": node.network.as_str(),
        "layer": node.layer.as_str(), "node": node.node.as_str(), "from": word(from), "to": word(to),
        "last_error": last_error,
    })
}

/// Writes the gauges of the cluster.
pub(super) fn fill(cluster: &Cluster, facts: &ClusterFacts) {
    let (snapshot, now) = (cluster.snapshot(), cluster.now());
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for role in Role::KNOWN {
        facts.role.with_label_values(&[role.as_str()]).set(i64::from(*role == snapshot.role));
    }
    let none: &[&str] = &[];
    facts.leading.with_label_values(none).set(i64::from(cluster.leads().is_some()));
    facts.epoch.with_label_values(none).set(snapshot.epoch.map_or(0, |epoch| number(epoch.0)));
    facts.term.with_label_values(none).set(snapshot.leader.as_ref().map_or(0, |leader| number(leader.term.0)));
    facts.copy_age.with_label_values(none).set(number(snapshot.age(now) / 1000));
    for (node, seen) in snapshot.fleet.verdicts() {
        let (network, name, layer) = (node.network.as_str(), node.node.as_str(), node.layer.as_str());
        for (word, count) in counts(seen) {
            let labels = [network, name, layer, word.as_str()];
            facts.verdicts.with_label_values(&labels).set(number(count as u64));
        }
    }
    wishes::fill(cluster, &snapshot, facts);
    let Some((view, members)) = &snapshot.view else { return };
    facts.view.with_label_values(none).set(number(view.0));
    for state in [MemberState::Active, MemberState::Draining, MemberState::Left, MemberState::Failed] {
        let count = members.members.values().filter(|member| member.state == state).count();
        facts.replicas.with_label_values(&[state.as_str()]).set(number(count as u64));
    }
}
