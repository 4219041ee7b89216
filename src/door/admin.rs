//! The operator's side: the dashboard, status, metrics, probes of the proxy itself, and the
//! switches for nodes.
//!
//! It listens on an address of its own, the loopback by default, and asks for no password: whoever
//! reaches it may use it.

mod cluster;
mod dashboard;
mod live;
mod names;
mod outbox;
mod page;
mod reload;
mod status;
mod wishes;

use std::{convert::Infallible, future::poll_fn, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioTimer;
use serde_json::json;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use crate::{
    cluster::Cluster,
    domain::{node_id::ByNode, verdict::Verdict},
    door::{
        STALL,
        last_words::{self, HoldsBack},
        readiness::{Detail, Readiness},
        site::{Served, Site},
        stall::Stall,
    },
    metrics::{Metrics, NodeGauges, Tally},
    net::BoxIo,
    pool::{Pool, credits::Left},
};

pub use self::reload::{Comparison, Reload};

/// How long a client of the admin side may leave its connection idle.
const IDLE: Duration = Duration::from_secs(60);

/// Sets or ends a fault of a pretend node: given the node's name and a word for the fault, `false`
/// where there is no such node or word.
pub type Faults = Arc<dyn Fn(&str, &str) -> bool + Send + Sync>;

/// The operator's side of a running proxy.
#[derive(Clone)]
pub struct Admin {
    site: Arc<ArcSwap<Site>>,
    metrics: Arc<Metrics>,
    started: Instant,
    /// Whether the operator asked for no more traffic.
    draining: watch::Sender<bool>,
    readiness: Readiness,
    /// Turns true when a task that all depends on has ended.
    broken: watch::Receiver<bool>,
    reload: mpsc::Sender<Reload>,
    /// `None` before real nodes.
    faults: Option<Faults>,
    /// Places for streams of `/events`.
    streams: Arc<Semaphore>,
    /// The cluster; `None` where the proxy is alone.
    cluster: Option<Cluster>,
}

impl Admin {
    /// The side for what `site` holds. It switches `draining`, and reloads are asked for through
    /// `reload`. Where the nodes are pretend ones, their faults are switched by `faults`.
    pub fn new(
        site: Arc<ArcSwap<Site>>,
        metrics: Arc<Metrics>,
        draining: watch::Sender<bool>,
        readiness: Readiness,
        broken: watch::Receiver<bool>,
        reload: mpsc::Sender<Reload>,
        faults: Option<Faults>,
    ) -> Self {
        let streams = Arc::new(Semaphore::new(live::STREAMS));
        let (started, cluster) = (Instant::now(), None);
        Self { site, metrics, started, draining, readiness, broken, reload, faults, streams, cluster }
    }

    /// The same side of a proxy that is a replica of `cluster`.
    pub fn of_cluster(self, cluster: Option<Cluster>) -> Self {
        Self { cluster, ..self }
    }

    /// Serves one connection to its end.
    pub async fn serve(self, io: BoxIo) {
        let respond = service_fn(|request| Box::pin(async { Ok::<_, Infallible>(self.respond(request).await) }));
        let stream = HoldsBack::new(Stall::new(io, Bytes::new(), STALL));
        let mut connection =
            http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(IDLE).serve_connection(stream, respond);
        let outcome = poll_fn(|context| connection.poll_without_shutdown(context)).await;
        let (mut io, held) = connection.into_parts().io.finish();
        let is_refused = outcome.as_ref().is_err_and(hyper::Error::is_parse);
        let last = if is_refused {
            let status = last_words::status(&held);
            last_words::whole(status, told(&json!({ "error": last_words::why(status) })).as_bytes()).into()
        } else {
            held
        };
        last_words::say(&mut io, &last, is_refused).await;
        if let Err(error) = outcome {
            tracing::debug!(%error, "admin connection ended");
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let response = if let Err((status, why)) = page::check(&self.site.load().admin_hosts, &request) {
            failure(status, why)
        } else if request.method() == Method::GET && request.uri().path() == "/events" {
            match self.streams.clone().try_acquire_owned() {
                Ok(place) => return live::open(self.clone(), place),
                Err(_) => failure(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &format!("too many dashboards are open ({}): close one", live::STREAMS),
                ),
            }
        } else {
            self.answer(request).await
        };
        response.map(BodyExt::boxed_unsync)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        let is_of_outbox = path.strip_prefix("/outbox").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if is_of_outbox && [Method::GET, Method::HEAD, Method::POST].contains(request.method()) {
            let outbox = self.site.load().outbox.clone();
            return outbox::answer(outbox.as_ref(), request.method(), path, request.uri().query()).await;
        }
        if request.method() == Method::GET || request.method() == Method::HEAD {
            if let Some(file) = dashboard::answer(&request) {
                return file;
            }
            return match path {
                "/" => json_reply(StatusCode::OK, &json!({ "paths": PATHS })),
                "/status" => json_reply(StatusCode::OK, &self.status(&self.metrics.tally()).await),
                "/leader" => cluster::leader(self.cluster.as_ref()),
                "/metrics" => self.metrics().await,
                "/livez" if *self.broken.borrow() => text(StatusCode::INTERNAL_SERVER_ERROR, "broken: see the log\n"),
                "/livez" => text(StatusCode::OK, "ok\n"),
                _ => match path.strip_prefix("/readyz").filter(|part| part.is_empty() || part.starts_with('/')) {
                    Some(part) => {
                        let (status, told) = self.readiness.answer(part, request.uri().query(), Detail::Names);
                        json_reply(status, &told)
                    }
                    None => unknown(path),
                },
            };
        }
        if request.method() != Method::POST {
            return failure(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST are allowed");
        }
        match path {
            "/drain" | "/undrain" => {
                self.draining.send_replace(path == "/drain");
                tracing::info!(draining = path == "/drain", "the operator switched the drain");
                json_reply(StatusCode::OK, &json!({ "draining": path == "/drain" }))
            }
            "/reload" => reload::answer(&self.reload, request.uri().query()).await,
            _ if path.starts_with("/cluster/wishes/") => {
                wishes::answer(self.cluster.as_ref(), &self.site.load_full(), path, request.uri().query()).await
            }
            _ => match path.strip_prefix("/nodes/").and_then(|rest| rest.rsplit_once('/')) {
                Some((node, "cordon")) => self.cordon(node, true).await,
                Some((node, "uncordon")) => self.cordon(node, false).await,
                _ => self.pretend(path),
            },
        }
    }

    /// `/pretend/<node>/<fault>`: only before pretend nodes.
    fn pretend(&self, path: &str) -> Response<Full<Bytes>> {
        let asked = path.strip_prefix("/pretend/").and_then(|rest| rest.split_once('/'));
        match asked.zip(self.faults.as_ref()) {
            Some(((node, fault), set)) if set(node, fault) => {
                json_reply(StatusCode::OK, &json!({ "node": node, "fault": fault }))
            }
            _ => unknown(path),
        }
    }

    async fn status(&self, tally: &Tally) -> serde_json::Value {
        let site = self.site.load_full();
        let outbox = match &site.outbox {
            Some(outbox) => Some(outbox::status(outbox).await),
            None => None,
        };
        let networks: Vec<_> = site.networks.iter().map(status::network).collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "ready": self.readiness.is_ready(),
            "draining": self.readiness.is_draining(),
            "websockets": {
                "connections": tally.websockets,
                "subscriptions": tally.subscriptions.values().sum::<u64>(),
            },
            "networks": networks,
            "outbox": outbox,
            "cluster": self.cluster.as_ref().map(cluster::status),
        })
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let site = self.site.load_full();
        let outbox = match &site.outbox {
            Some(outbox) => Some(outbox::Gathered::of(outbox).await),
            None => None,
        };
        let body = self.metrics.render(|facts| {
            site.networks.iter().flat_map(Served::pools).for_each(|pool| fill(facts, pool));
            outbox.iter().for_each(|outbox| outbox.fill(&facts.outbox));
            self.cluster.iter().for_each(|cluster| cluster::fill(cluster, &facts.cluster));
        });
        let mut response = Response::new(Full::new(body.into()));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    /// `node` is a name, with the network, the layer (`el`, `cl`) or both before it where the name
    /// alone would not do.
    async fn cordon(&self, node: &str, cordoned: bool) -> Response<Full<Bytes>> {
        let place = |pool: &Pool, name: &str| [&*pool.network, pool.layer.as_str(), name].map(str::to_owned);
        let full = |pool: &Pool, name: &str| place(pool, name).join("/");
        let is_meant =
            |pool: &Pool, name: &str| names::is_meant(node, place(pool, name).each_ref().map(|part| &**part));
        let site = self.site.load_full();
        let all: Vec<_> = site.networks.iter().flat_map(Served::pools).flat_map(|pool| pool.names()).collect();
        let meant: Vec<_> = all.iter().filter(|(pool, name)| is_meant(pool, name)).collect();
        match meant[..] {
            [] => names::unknown(node, all.iter().map(|(pool, name)| full(pool, name))),
            [(pool, name)] => {
                pool.cordon(name, cordoned).await;
                let (network, layer) = (&*pool.network, pool.layer.as_str());
                tracing::info!(network, layer, node = &**name, cordoned, "the operator switched a node");
                // What is said of it is as of then.
                let is_wished = |name: &str| {
                    let known = pool.nodes.find_node(|node| *node.name == *name);
                    known.is_some_and(|node| pool.snapshot().nodes[node].cordons.fleet)
                };
                let warning = if cordoned {
                    (!pool.snapshot().serves()).then(|| names::no_other(network, layer))
                } else {
                    is_wished(name).then(|| {
                        "the node stays out of use by the operator's wish for all replicas, which \
                         `steadfast fleet uncordon` ends"
                            .to_owned()
                    })
                };
                let done = json!({
                    "node": &**name, "network": network, "layer": layer, "cordoned": cordoned, "warning": warning,
                });
                json_reply(StatusCode::OK, &done)
            }
            _ => names::several(node, meant.iter().map(|(pool, name)| full(pool, name))),
        }
    }
}

const PATHS: [&str; 25] = [
    "GET /events",
    "GET /leader",
    "GET /status",
    "GET /metrics",
    "GET /livez",
    "GET /readyz",
    "GET /readyz/<network>?layer=<el|cl>",
    "POST /nodes/<name>/cordon",
    "POST /nodes/<name>/uncordon",
    "POST /cluster/wishes/nodes/<name>/cordon",
    "POST /cluster/wishes/nodes/<name>/drain",
    "POST /cluster/wishes/nodes/<name>/uncordon",
    "POST /cluster/wishes/log/<level or default>",
    "POST /drain",
    "POST /undrain",
    "POST /reload",
    "POST /reload?dry=1",
    "GET /outbox?network=&tenant=&state=&after=&limit=",
    "GET /outbox/<hash>",
    "POST /outbox/<hash>/resend",
    "POST /outbox/<hash>/cancel",
    "POST /outbox/<hash>/drop",
    "GET /outbox/quarantine?tenant=&after=&limit=",
    "POST /outbox/quarantine/<delivery>/retry?tenant=",
    "POST /outbox/replay?from=<block>&network=&tenant=&endpoint=&limit=&yes=1",
];

fn fill(facts: &NodeGauges, pool: &Pool) {
    let (network, layer) = (&*pool.network, pool.layer.as_str());
    let snapshot = pool.snapshot();
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    for ((id, node), known) in pool.nodes.by_node().zip(&snapshot.nodes) {
        let name = &*node.name;
        let usable = known.verdict.is_usable() && !known.cordoned;
        facts.node_usable.with_label_values(&[network, name, layer, node.tier.as_str()]).set(i64::from(usable));
        let cordoned = i64::from(known.cordoned);
        facts.node_cordoned.with_label_values(&[network, name, layer]).set(cordoned);
        if let Some(head) = &known.head {
            facts.node_head.with_label_values(&[network, name, layer]).set(number(head.number));
        }
        if let Some(lag) = known.lag {
            facts.node_lag.with_label_values(&[network, name, layer]).set(number(lag));
        }
        for word in Verdict::WORDS {
            let is = i64::from(known.verdict.as_str() == word);
            facts.node_verdict.with_label_values(&[network, name, layer, word]).set(is);
        }
        facts.node_in_flight.with_label_values(&[network, name, layer]).set(number(node.traffic.in_flight() as u64));
        let occupancy = node.occupancy();
        facts.node_connections.with_label_values(&[network, name, layer]).set(number(occupancy.open as u64));
        if let Some(credits) = &node.credits {
            let Left { at_once, today } = credits.left(Instant::now());
            for (of, left) in [("burst", at_once), ("day", today)] {
                if let Some(left) = left {
                    facts.node_credits_left.with_label_values(&[network, name, layer, of]).set(number(left));
                }
            }
        }
        facts.node_waiting.with_label_values(&[network, name, layer]).set(number(occupancy.waiting as u64));
        let active = i64::from(snapshot.active == Some(id));
        facts.active_node.with_label_values(&[network, layer, name]).set(active);
    }
    if let Some(head) = snapshot.head {
        facts.pool_head.with_label_values(&[network, layer]).set(number(head));
    }
    facts.pool_serves.with_label_values(&[network, layer]).set(i64::from(snapshot.serves()));
    facts.failover_active.with_label_values(&[network, layer]).set(i64::from(snapshot.is_failed_over()));
}

fn unknown(path: &str) -> Response<Full<Bytes>> {
    failure(StatusCode::NOT_FOUND, &format!("unknown path {path}; GET / lists the paths"))
}

fn failure(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json_reply(status, &json!({ "error": why }))
}

fn json_reply(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = text(status, &told(value));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn told(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
