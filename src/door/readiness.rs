//! Whether new traffic is welcome: at the whole proxy, a network, or a side. The client port and
//! the operator's side answer health questions by this.

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::StatusCode;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::site::{Served, Site};
use crate::{config::Ready, domain::layer::Layer, pool::Pool};

/// Tells whether new traffic is welcome.
#[derive(Clone)]
pub struct Readiness {
    site: Arc<ArcSwap<Site>>,
    /// Turns true when the proxy goes down.
    closing: watch::Receiver<bool>,
    /// Whether the operator asked for no more traffic.
    draining: watch::Receiver<bool>,
}

/// How much an answer says of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// For clients: the state of the nodes, without names, since names may give away the owners.
    Verdicts,
    /// For the operator: each node by its name.
    Names,
}

impl Readiness {
    /// The readiness of `site`, until `closing` or while `draining`.
    pub fn new(site: Arc<ArcSwap<Site>>, closing: watch::Receiver<bool>, draining: watch::Receiver<bool>) -> Self {
        Self { site, closing, draining }
    }

    /// Whether the operator asked for no more traffic.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Whether the proxy as a whole welcomes new traffic.
    pub fn is_ready(&self) -> bool {
        let site = self.site.load();
        self.why_closed().is_none() && serve(site.ready, site.networks.iter().flat_map(Served::pools))
    }

    /// The answer to a question for `part`, which is the rest of the path: empty for the whole, or
    /// `/<network>`. A query may name the `layer`.
    pub fn answer(&self, part: &str, query: Option<&str>, detail: Detail) -> (StatusCode, Value) {
        let site = self.site.load();
        let wrong = |status, why: String| (status, json!({ "error": why }));
        let network = Some(part.trim_matches('/')).filter(|name| !name.is_empty());
        let layer = match layer(query) {
            Ok(layer) => layer,
            Err(why) => return wrong(StatusCode::BAD_REQUEST, why.to_owned()),
        };
        if network.is_some_and(|name| site.network(name).is_none()) {
            return wrong(StatusCode::NOT_FOUND, "there is no network of this name".to_owned());
        }
        let is_asked_for = |served: &&Served| network.is_none_or(|name| *served.name == *name);
        let networks = || site.networks.iter().filter(is_asked_for);
        let pools = |served| Served::pools(served).filter(|pool| layer.is_none_or(|layer| pool.layer == layer));
        if networks().flat_map(pools).next().is_none() {
            return wrong(StatusCode::NOT_FOUND, "there are no nodes of this layer".to_owned());
        }
        let why = self.why_closed().map(str::to_owned).or_else(|| {
            let serves = serve(site.ready, networks().flat_map(pools));
            (!serves).then(|| why_not(networks().flat_map(pools)))
        });
        let sides = |served| Value::Object(pools(served).map(|pool| side(pool, detail)).collect());
        let told: Map<_, _> = networks().map(|served| (served.name.to_string(), sides(served))).collect();
        let status = if why.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut answer = json!({ "ready": why.is_none(), "why": why, "networks": told });
        // Reads go on without an outbox, so its state is told and does not decide.
        if let Some(outbox) = &site.outbox {
            let closed = outbox.why_closed();
            // The words of a disk may have a path, which is for the operator.
            let closed = closed.map(|why| if detail == Detail::Names { why } else { "takes no transactions".into() });
            answer["outbox"] = json!(closed.unwrap_or_else(|| "writable".into()));
        }
        (status, answer)
    }

    /// Why new traffic is not welcome in any state of the nodes.
    fn why_closed(&self) -> Option<&'static str> {
        match (*self.closing.borrow(), *self.draining.borrow()) {
            (true, _) => Some("the proxy is shutting down"),
            (false, true) => Some("the operator drains the proxy"),
            (false, false) => None,
        }
    }
}

/// Whether enough of these sides have a node that may serve.
fn serve<'a>(rule: Ready, mut pools: impl Iterator<Item = &'a Arc<Pool>>) -> bool {
    match rule {
        Ready::Any => pools.any(|pool| pool.snapshot().serves()),
        Ready::All => pools.all(|pool| pool.snapshot().serves()),
    }
}

fn why_not<'a>(pools: impl Iterator<Item = &'a Arc<Pool>>) -> String {
    let silent = pools.filter(|pool| !pool.snapshot().serves());
    let names: Vec<_> = silent.map(|pool| format!("{} {}", pool.network, pool.layer.as_str())).collect();
    format!("no node can serve: {}", names.join(", "))
}

fn side(pool: &Arc<Pool>, detail: Detail) -> (String, Value) {
    let snapshot = pool.snapshot();
    let nodes = || pool.nodes.iter().zip(&snapshot.nodes).map(|(node, known)| (&node.name, known.state()));
    let nodes = match detail {
        Detail::Verdicts => nodes().map(|(_, state)| Value::String(state)).collect(),
        Detail::Names => Value::Object(nodes().map(|(name, state)| (name.to_string(), Value::String(state))).collect()),
    };
    let told = json!({ "serves": snapshot.serves(), "degraded": snapshot.is_degraded(), "nodes": nodes });
    (pool.layer.as_str().to_owned(), told)
}

/// The layer that a query names.
fn layer(query: Option<&str>) -> Result<Option<Layer>, &'static str> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut layers = pairs.filter(|(key, _)| *key == "layer").map(|(_, layer)| layer);
    match (layers.next(), layers.next()) {
        (None, _) => Ok(None),
        (Some("el"), None) => Ok(Some(Layer::El)),
        (Some("cl"), None) => Ok(Some(Layer::Cl)),
        (Some(_), None) => Err("layer is el or cl"),
        (Some(_), Some(_)) => Err("the query names more than one layer"),
    }
}
