//! The operator's wishes for all replicas: written through this one, and told in `/status` and the
//! metrics.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{cluster::ALONE, failure, json_reply, names, unknown};
use crate::{
    cluster::{Cluster, NotWished, Outcome, Progress, Reached, Snapshot, progress},
    domain::fleet::{MemberState, NodeRef, WishKey, WishWord},
    door::site::{Served, Site},
    metrics::ClusterFacts,
    pool::Pool,
};

/// `POST /cluster/wishes/…`: has all replicas take a node out of use or let a node in, or log at
/// another level.
pub(super) async fn answer(
    cluster: Option<&Cluster>,
    site: &Site,
    path: &str,
    query: Option<&str>,
) -> Response<Full<Bytes>> {
    if query.is_some_and(|query| !query.is_empty()) {
        return failure(StatusCode::BAD_REQUEST, "a wish takes no parameter: all of it is in the path");
    }
    let asked = path.strip_prefix("/cluster/wishes/").and_then(|rest| rest.rsplit_once('/'));
    let Some((subject, word)) = asked else { return unknown(path) };
    let Some(cluster) = cluster else { return failure(StatusCode::NOT_FOUND, ALONE) };
    if subject == "log" {
        let state = WishWord::from(word);
        return match word {
            "default" => write(cluster, site, WishKey::Log, None).await,
            _ if WishKey::Log.allows(&state) => write(cluster, site, WishKey::Log, Some(state)).await,
            _ => {
                let levels = WishWord::LEVELS.map(|level| level.as_str().to_owned()).join(", ");
                failure(StatusCode::BAD_REQUEST, &format!("{word} is no level of the log: those are {levels}, default"))
            }
        };
    }
    let state = match word {
        "cordon" => Some(WishWord::Cordoned),
        "drain" => Some(WishWord::Drained),
        "uncordon" => None,
        _ => return unknown(path),
    };
    let Some(asked) = subject.strip_prefix("nodes/") else { return unknown(path) };
    let all = nodes(cluster, site);
    let place = |NodeRef { network, layer, node }: &NodeRef| {
        [network.as_str(), layer.as_str(), node.as_str()].map(str::to_owned)
    };
    let mut meant = all.iter().filter(|node| names::is_meant(asked, place(node).each_ref().map(|part| &**part)));
    match (meant.next(), meant.next()) {
        (None, _) => names::unknown(asked, all.iter().map(|node| place(node).join("/"))),
        (Some(node), None) => write(cluster, site, WishKey::Node(node.clone()), state).await,
        (Some(first), Some(second)) => {
            names::several(asked, [first, second].into_iter().chain(meant).map(|node| place(node).join("/")))
        }
    }
}

/// The nodes of this replica, those that other replicas tell of, and those that wishes are for.
fn nodes(cluster: &Cluster, site: &Site) -> BTreeSet<NodeRef> {
    let mut nodes = BTreeSet::new();
    for (pool, name) in site.networks.iter().flat_map(Served::pools).flat_map(|pool| pool.names()) {
        if let (Ok(network), Ok(node)) = (pool.network.parse(), name.parse()) {
            nodes.insert(NodeRef { network, layer: pool.layer.as_str().into(), node });
        }
    }
    nodes.extend(cluster.snapshot().fleet.verdicts().keys().filter(|node| node.layer.is_known()).cloned());
    for (key, _) in cluster.wishes().borrow().iter() {
        if let WishKey::Node(node) = key {
            nodes.insert(node.clone());
        }
    }
    nodes
}

async fn write(cluster: &Cluster, site: &Site, key: WishKey, state: Option<WishWord>) -> Response<Full<Bytes>> {
    let Outcome { revision, before } = match cluster.wish(key.clone(), state.clone()).await {
        Ok(outcome) => outcome,
        Err(why) => {
            let status = match why {
                NotWished::Contended | NotWished::Full => StatusCode::CONFLICT,
                NotWished::Away(_)
                | NotWished::Refused(_)
                | NotWished::Unknown
                | NotWished::Busy
                | NotWished::Leaving => StatusCode::SERVICE_UNAVAILABLE,
            };
            return failure(status, &why.to_string());
        }
    };
    let (mut warning, mut cordoned_at) = (None, Vec::new());
    if let WishKey::Node(node) = &key {
        warning = state.as_ref().and_then(|_| last_of_its_side(site, node));
        cordoned_at = own_cordons(cluster, site, node);
    }
    let mut done = subject(&key);
    for (name, value) in [
        ("state", json!(state.as_ref().map(WishWord::as_str))),
        ("revision", json!(revision)),
        ("before", json!(before)),
        ("cordoned_at", json!(cordoned_at)),
        ("warning", json!(warning)),
    ] {
        done[name] = value;
    }
    json_reply(StatusCode::OK, &done)
}

/// The fields that name the subject of a wish: of the log all are null.
fn subject(key: &WishKey) -> Value {
    let (network, layer, node) = match key {
        WishKey::Node(NodeRef { network, layer, node }) => {
            (Some(network.as_str()), Some(layer.as_str()), Some(node.as_str()))
        }
        WishKey::Log => (None, None, None),
    };
    json!({ "subject": key.to_string(), "network": network, "layer": layer, "node": node })
}

fn pool<'a>(site: &'a Site, node: &NodeRef) -> Option<&'a Pool> {
    let mut pools = site.network(node.network.as_str())?.pools();
    pools.find(|pool| pool.layer.as_str() == node.layer.as_str()).map(|pool| &**pool)
}

/// A warning where no other node of the side could serve here.
fn last_of_its_side(site: &Site, node: &NodeRef) -> Option<String> {
    let pool = pool(site, node)?;
    let snapshot = pool.snapshot();
    let mut others = pool.nodes.iter().zip(&snapshot.nodes).filter(|(of, _)| *of.name != *node.node.as_str());
    let is_last = !others.any(|(_, known)| known.preference(0, 0).is_some());
    is_last.then(|| names::no_other(node.network.as_str(), node.layer.as_str()))
}

/// The replicas whose own operators cordon the node, this one by its newest knowledge.
fn own_cordons(cluster: &Cluster, site: &Site, node: &NodeRef) -> Vec<String> {
    let snapshot = cluster.snapshot();
    let told = snapshot.fleet.verdicts().get(node);
    let mut at: BTreeSet<&str> = told
        .into_iter()
        .flatten()
        .filter_map(|(replica, seen)| seen.cordoned.then_some(replica.as_str()))
        .filter(|replica| *replica != snapshot.replica.as_str())
        .collect();
    let is_here = pool(site, node).is_some_and(|pool| {
        let known = pool.snapshot();
        let mut nodes = pool.nodes.iter().zip(&known.nodes);
        nodes.any(|(of, known)| *of.name == *node.node.as_str() && known.cordons.local)
    });
    if is_here {
        at.insert(snapshot.replica.as_str());
    }
    at.into_iter().map(str::to_owned).collect()
}

/// The wishes in `/status`, with the progress of each active replica.
pub(super) fn told(cluster: &Cluster, snapshot: &Snapshot) -> Value {
    let wishes = cluster.wishes().borrow().clone();
    let all: Vec<Value> = progress(&wishes, snapshot).iter().map(one_told).collect();
    json!(all)
}

fn one_told(Progress { key, standing, is_ignored, replicas }: &Progress) -> Value {
    let wish = standing.as_ref().and_then(|standing| standing.wish.as_ref().ok());
    let fault = standing.as_ref().and_then(|standing| standing.wish.as_ref().err());
    let obeyed = standing.as_ref().and_then(|standing| standing.state.as_ref());
    let replicas = replicas.iter().map(|Reached { replica, applied, is_met, last_error }| {
        let last_error =
            last_error.as_ref().map(|error| json!({ "reason": error.reason.as_str(), "text": error.text }));
        json!({ "replica": replica.as_str(), "applied": applied, "met": is_met, "last_error": last_error })
    });
    let mut told = subject(key);
    for (name, value) in [
        ("state", json!(wish.map(|wish| wish.state.as_str()))),
        ("obeyed", json!(obeyed.map(WishWord::as_str))),
        ("by", json!(wish.map(|wish| wish.by.as_str()))),
        ("revision", json!(standing.as_ref().map(|standing| standing.revision))),
        ("created_unix", json!(standing.as_ref().map(|standing| standing.created / 1_000_000_000))),
        ("unreadable", json!(fault)),
        ("ignored", json!(is_ignored)),
        ("replicas", replicas.collect()),
    ] {
        told[name] = value;
    }
    told
}

/// Writes the gauges of the wishes.
pub(super) fn fill(cluster: &Cluster, snapshot: &Snapshot, facts: &ClusterFacts) {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let wishes = cluster.wishes().borrow().clone();
    let obeyed = wishes.obeyed();
    let unreadable = obeyed.values().filter(|standing| standing.wish.is_err()).count();
    for (state, count) in
        [("obeyed", obeyed.len() - unreadable), ("unreadable", unreadable), ("ignored", wishes.ignored())]
    {
        facts.wishes.with_label_values(&[state]).set(number(count));
    }
    // A replica that lacks no wish has a series too, without which no alert on it could end.
    let active = snapshot.view.iter().flat_map(|(_, view)| &view.members);
    for (replica, _) in active.filter(|(_, member)| member.state == MemberState::Active) {
        facts.wishes_unapplied.with_label_values(&[replica.as_str()]).set(0);
    }
    for progress in progress(&wishes, snapshot) {
        for Reached { replica, is_met, .. } in progress.replicas {
            facts.wishes_unapplied.with_label_values(&[replica.as_str()]).add(i64::from(!is_met));
        }
    }
}
