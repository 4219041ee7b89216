//! The control server: faults, mining and reorganisations by HTTP, made to be typed.
//!
//! | request | does |
//! |---|---|
//! | `GET /` | lists chain and nodes |
//! | `GET /nodes/el-1` | one node |
//! | `GET /nodes/el-1/requests` | counts by method |
//! | `POST /nodes/el-1/faults` | sets `{"fault":"lag","blocks":10}` |
//! | `DELETE /nodes/el-1/faults`, `POST /nodes/el-1/up` | clears all faults |
//! | `DELETE /nodes/el-1/faults/lag` | clears one |
//! | `POST /nodes/el-1/down`, `POST /nodes/el-1/lag/10` | sets one |
//! | `POST /nodes/cl-1/restart` | drops connections and messages of a node |
//! | `GET /validators` | the earnings of validator clients |
//! | `GET /replicas` | lists the proxies in front, where there are several |
//! | `POST /replicas/r1/kill`, `…/start` | ends a replica at once, and starts the replica again |
//! | `POST /mine`, `POST /mine/3` | mines |
//! | `POST /miss`, `POST /miss/3` | leaves the next slots empty whose proposers no client has |
//! | `POST /reorg/2`, `POST /reorg/2/1` | replaces two blocks by three, or by one |
//! | `POST /reorg-out/0x…` | takes a transaction out of its block and all mempools |

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tracing::debug;

use super::{
    chain::{Chain, KEPT_BLOCKS, Reorg, Turn},
    fault::Fault,
    http::{self as answers, Body},
    node::{Kind, Node},
    validator::Earned,
};
use crate::net::{Accept, BoxFuture};

/// How long a change of faults waits for the node's socket to follow.
const SETTLE: Duration = Duration::from_secs(2);

/// Slots that are left empty at once at most.
const MOST_MISSED: u64 = 64;

/// The chain, the nodes and the validator clients that the server controls.
pub(super) struct Control {
    pub(super) chain: Arc<Chain>,
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) clients: Arc<Clients>,
    pub(super) replicas: Arc<OnceLock<Arc<dyn Replicas>>>,
}

/// The proxies in front of the network.
pub trait Replicas: Send + Sync + 'static {
    /// Each replica's name, addresses, and whether the replica runs and leads.
    fn describe(&self) -> BoxFuture<'_, Value>;

    /// Ends the replica of this name at once, if it runs.
    ///
    /// # Errors
    /// There is no such replica.
    fn kill<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Starts the replica of this name, unless it runs.
    ///
    /// # Errors
    /// There is no such replica, or the replica does not start.
    fn start<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// The validator clients that were started, by name.
#[derive(Default)]
pub(super) struct Clients(Mutex<Vec<(String, watch::Receiver<Earned>)>>);

impl Clients {
    pub(super) fn add(&self, name: String, earned: watch::Receiver<Earned>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((name, earned));
    }

    fn describe(&self) -> Value {
        let clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clients.iter().map(|(name, earned)| (name.clone(), json!(*earned.borrow()))).collect()
    }
}

/// Why a request cannot be served.
struct Refusal(StatusCode, String);

/// Serves for ever. Connections end with this future.
pub(super) async fn run(control: Arc<Control>, mut socket: Box<dyn Accept>) {
    let mut connections = JoinSet::new();
    loop {
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            Some(_) = connections.join_next() => {}
            accepted = socket.accept() => match accepted {
                Ok((incoming, _)) => {
                    let control = control.clone();
                    connections.spawn(async move {
                        let Ok(io) = incoming.open() else { return };
                        let service = service_fn(|request| control.handle(request));
                        let mut server = http1::Builder::new();
                        server.header_read_timeout(None);
                        // A client that goes away is no error here.
                        let _ = server.serve_connection(TokioIo::new(io), service).await;
                    });
                }
                Err(error) => {
                    debug!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
        }
    }
}

/// Refuses web pages: with an `Origin`, or of a name that was made to point here.
fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    if headers.contains_key(header::ORIGIN) || !(is_address || name.eq_ignore_ascii_case("localhost")) {
        return Err(Refusal(StatusCode::FORBIDDEN, "a web page may not control the pretend network".to_owned()));
    }
    Ok(())
}

impl Control {
    async fn handle(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let body = answers::read(body).await.unwrap_or_default();
        let path: Vec<&str> = head.uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
        let routed = match check(&head.headers) {
            Ok(()) => self.route(head.method.as_str(), &path, &body).await,
            Err(refusal) => Err(refusal),
        };
        let (status, value) = match routed {
            Ok(value) => (StatusCode::OK, value),
            Err(Refusal(status, message)) => (status, json!({"error": message})),
        };
        Ok(answers::json(status, format!("{value:#}\n")))
    }

    async fn route(&self, method: &str, path: &[&str], body: &Bytes) -> Result<Value, Refusal> {
        let bad = |error: &dyn std::fmt::Display| Refusal(StatusCode::BAD_REQUEST, error.to_string());
        match (method, path) {
            ("GET", []) => Ok(self.describe()),
            ("GET", ["validators"]) => Ok(self.clients.describe()),
            (_, ["replicas", rest @ ..]) => {
                let replicas = self.replicas.get().ok_or_else(|| {
                    Refusal(
                        StatusCode::NOT_FOUND,
                        "there is one proxy alone: see `steadfast dev --replicas`".to_owned(),
                    )
                })?;
                match (method, rest) {
                    ("GET", []) => {}
                    ("POST", [name, "kill"]) => replicas.kill(name).await.map_err(|why| bad(&why))?,
                    ("POST", [name, "start"]) => replicas.start(name).await.map_err(|why| bad(&why))?,
                    _ => return Err(unknown(method, path)),
                }
                Ok(replicas.describe().await)
            }
            ("POST", ["mine", count @ ..]) if count.len() <= 1 => {
                let count = count.first().map_or(Ok(1), |text| number(text))?;
                if count > KEPT_BLOCKS as u64 {
                    return Err(bad(&format!("at most {KEPT_BLOCKS} blocks at once")));
                }
                let head = self.chain.mine(count);
                Ok(json!({"head": head.number, "hash": head.hash.to_string()}))
            }
            ("POST", ["miss", count @ ..]) if count.len() <= 1 => {
                let count = count.first().map_or(Ok(1), |text| number(text))?;
                if count > MOST_MISSED {
                    return Err(bad(&format!("at most {MOST_MISSED} slots at once")));
                }
                let first = self.chain.head().slot + 1;
                (first..first + count).for_each(|slot| self.chain.arrange(slot, Turn::Empty));
                Ok(json!({"first": first, "slots": count}))
            }
            ("POST", ["reorg", depth, length @ ..]) if length.len() <= 1 => {
                let depth = number(depth)?;
                let length = length.first().map_or(Ok(depth.saturating_add(1)), |text| number(text))?;
                if length > KEPT_BLOCKS as u64 {
                    return Err(bad(&format!("at most {KEPT_BLOCKS} blocks at once")));
                }
                let reorg = self.chain.reorg_to(depth, length).map_err(|error| bad(&error))?;
                Ok(self.changed(&reorg))
            }
            ("POST", ["reorg-out", hash]) => {
                let hash = hash.parse().map_err(|_| bad(&format!("{hash:?} is not a transaction's hash")))?;
                let reorg = self.chain.reorg_out(hash).map_err(|error| bad(&error))?;
                Ok(self.changed(&reorg))
            }
            (_, ["nodes", name, rest @ ..]) => {
                let node = self.nodes.iter().find(|node| node.name() == *name);
                let node = node.ok_or_else(|| {
                    let names: Vec<&str> = self.nodes.iter().map(|node| node.name()).collect();
                    Refusal(StatusCode::NOT_FOUND, format!("no node {name:?}: there are {}", names.join(", ")))
                })?;
                match (method, rest) {
                    ("GET", []) => return Ok(describe(node)),
                    ("GET", ["requests"]) => return Ok(json!(node.counts())),
                    ("POST", ["faults"]) => node.set_fault(Fault::from_json(body).map_err(|error| bad(&error))?),
                    ("POST", ["restart"]) => _ = timeout(SETTLE, node.restart()).await,
                    ("DELETE", ["faults"]) | ("POST", ["up"]) => node.clear_faults(),
                    ("DELETE", ["faults", fault]) => node.clear_fault(&fault.replace('-', "_")),
                    ("POST", [fault, argument @ ..]) if argument.len() <= 1 => {
                        let fault = Fault::from_words(fault, argument.first().copied());
                        node.set_fault(fault.map_err(|error| bad(&error))?);
                    }
                    _ => return Err(unknown(method, path)),
                }
                // The answer waits until the node's socket has followed the change, but no longer
                // than `SETTLE`: a port that cannot be bound again must not hold the answer for
                // ever.
                let _ = timeout(SETTLE, node.settled()).await;
                Ok(describe(node))
            }
            _ => Err(unknown(method, path)),
        }
    }

    fn changed(&self, reorg: &Reorg) -> Value {
        let hashes = |blocks: &[Arc<super::Block>]| -> Vec<_> { blocks.iter().map(|b| b.hash.to_string()).collect() };
        let head = self.chain.head().number;
        json!({"head": head, "removed": hashes(&reorg.removed), "added": hashes(&reorg.added)})
    }

    fn describe(&self) -> Value {
        let head = self.chain.head();
        json!({
            "chain": {"id": self.chain.id(), "head": head.number, "hash": head.hash.to_string(), "mempool": self.chain.mempool().len()},
            "nodes": self.nodes.iter().map(|node| describe(node)).collect::<Vec<_>>(),
        })
    }
}

fn describe(node: &Node) -> Value {
    let mut about = json!({
        "name": node.name(),
        "kind": if node.kind() == Kind::Execution { "execution" } else { "consensus" },
        "http": node.http_url(),
        "head": node.head_number(),
        "faults": node.active_faults(),
        "connections": {"open": node.connections_open(), "total": node.connections_total()},
        "subscriptions": node.subscriptions(),
        "requests": node.counts().values().sum::<u64>(),
    });
    if node.kind() == Kind::Execution {
        about["ws"] = json!(node.ws_url());
    }
    about
}

fn number(text: &str) -> Result<u64, Refusal> {
    text.parse().map_err(|_| Refusal(StatusCode::BAD_REQUEST, format!("{text:?} is not a number of blocks")))
}

fn unknown(method: &str, path: &[&str]) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, format!("no {method} /{}: GET / lists what there is", path.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_do_not_control_the_network() {
        let is_let_in = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(*name, value.parse().unwrap());
            }
            check(&headers).is_ok()
        };
        for host in ["127.0.0.1:8547", "127.0.0.1", "localhost:8547", "LOCALHOST", "[::1]:8547", "[::1]"] {
            assert!(is_let_in(&[("host", host)]), "{host}");
            assert!(!is_let_in(&[("host", host), ("origin", "https://evil.example")]), "{host}");
        }
        for host in ["evil.example", "evil.example:8547", "127.0.0.1.nip.io:8547", ""] {
            assert!(!is_let_in(&[("host", host)]), "{host}");
        }
    }
}
