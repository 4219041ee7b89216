//! A consensus node's port: the beacon API over REST, and its events.
//!
//! Every execution block has a slot of its own; roots are derived from its hash.

mod blobs;
mod blocks;
mod events;
mod pool;
mod spec;
mod state;
mod topics;
mod validator;

pub(super) use self::validator::{VALIDATORS, proposer, pubkey};

use std::sync::Arc;

use alloy_primitives::B256;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::{
    fault::{Fault, Faults},
    hanging_io::HangingIo,
    hash,
    http::{self as answers, Body},
    node::{Dropped, Node},
    record::Transport,
    view::{FINALIZED, SLOTS_PER_EPOCH, View},
};

/// The fork that all blocks are of.
const FORK: &str = "electra";
const GENESIS_FORK_VERSION: &str = "0x10000038";
const FORK_VERSION: &str = "0x60000038";
/// The version before, by the numbers that test networks count with.
const PREVIOUS_FORK_VERSION: &str = "0x50000038";
/// The `sync_distance` that a syncing node reports, at least.
const SYNC_DISTANCE: u64 = 64;

/// Peers that a node finds, and how long it takes over each.
const PEERS: u128 = 50;
const PEER_MILLIS: u128 = 200;

/// An error as the beacon API has it.
struct Problem(StatusCode, String);

type Outcome = Result<Response<Body>, Problem>;

/// Serves one connection until it ends.
pub(super) async fn serve(node: Arc<Node>, io: HangingIo) {
    let service = service_fn(|request| handle(node.clone(), request));
    let mut server = http1::Builder::new();
    server.header_read_timeout(None);
    // A client that goes away, and a fault that drops the connection, are no errors here.
    let _ = server.serve_connection(TokioIo::new(io), service).await;
}

async fn handle(node: Arc<Node>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    let query = head.uri.query().unwrap_or_default();
    let called = format!("{} {path}", head.method);
    let body = answers::read(body).await;
    let kept = body.clone().unwrap_or_default();
    node.records.add_with_body(Transport::Http, &called, query, &answers::shared(&head.headers), kept);
    let slow = node.faults().slow_over(&called, query);
    let faults = node.admit(slow).await?;
    if let Some(refusal) = answers::refusal(&faults) {
        return Ok(refusal);
    }
    if let Some(status) = faults.gateway(&called, query) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        let page = format!("<html><body><h1>{status}</h1></body></html>");
        return Ok(answers::answer(status, "text/html", page));
    }
    if faults.hangs_over(&called, query) {
        // An error means that the node is gone: the connection is, too.
        let _ = node.watch_faults().wait_for(|faults| !faults.hangs_over(&called, query)).await;
        return Err(Dropped);
    }
    let api = Api { view: node.view_under(&faults), node: &node, faults: &faults };
    let ordered = faults.rpc_error().map(|(code, message)| (u16::try_from(code).unwrap_or(0), message));
    let ordered = ordered.or_else(|| Some((faults.http_status(&called, query)?, "by order of the devnet")));
    let refused = || {
        let no_quota = faults.has_no_quota(&called, query).then_some((429, "too many requests"));
        no_quota.or_else(|| faults.does_not_offer(&called, query).then_some((404, "not offered here")))
    };
    let ordered = ordered.or_else(refused);
    let outcome = match (body, ordered) {
        (None, _) => Err(Problem(StatusCode::PAYLOAD_TOO_LARGE, "body too large".to_owned())),
        (_, Some((status, message))) => {
            let status = StatusCode::from_u16(status).ok().filter(|status| status.as_u16() >= 200);
            Err(Problem(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message.to_owned()))
        }
        (Some(body), None) => api.route(&head.method, path, query, &head.headers, &body),
    };
    if faults.cuts(&called, query) {
        return Err(Dropped);
    }
    let mut response = outcome.unwrap_or_else(|Problem(status, message)| {
        answers::json(status, json!({"code": status.as_u16(), "message": message}).to_string())
    });
    if faults.has(&Fault::Gzip) {
        response = answers::gzipped(response).await;
    }
    // An event stream has no end, so there is no half of the body to cut at.
    let whole = path != "/eth/v1/events";
    if whole && faults.has(&Fault::CutMidBody) { Ok(answers::cut(response).await) } else { Ok(response) }
}

/// Answers one request: the node, its faults and its view of the chain at this moment.
struct Api<'a> {
    node: &'a Arc<Node>,
    faults: &'a Faults,
    view: View,
}

impl Api<'_> {
    fn route(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap, body: &Bytes) -> Outcome {
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["eth", "v1", "node", "version"]) => {
                Ok(data(json!({"version": format!("SteadfastDevnet/v1/{}", self.node.name())})))
            }
            ("GET", ["eth", "v1", "node", "identity"]) => Ok(self.identity()),
            ("GET", ["eth", "v1", "node", "syncing"]) => Ok(data(self.sync_status())),
            ("GET", ["eth", "v1", "node", "health"]) => {
                let partial = self.faults.has(&Fault::Syncing) || self.faults.has(&Fault::Optimistic);
                let status = if partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
                Ok(answers::json(status, ""))
            }
            ("GET", ["eth", "v1", "node", "peer_count"]) => Ok(self.peer_count()),
            ("GET", ["eth", "v1", "beacon", "genesis"]) => Ok(self.genesis()),
            ("GET", ["eth", "v1", "config", "spec"]) => Ok(self.spec()),
            ("GET", ["eth", "v1", "beacon", "headers"]) => self.headers(query),
            ("GET", ["eth", "v1", "beacon", "headers", id]) => self.header(id),
            ("GET", ["eth", "v1", "beacon", "blocks", id, "root"]) => self.block_root(id),
            ("GET", ["eth", "v2", "beacon", "blocks", id]) => takes_json(headers).and_then(|()| self.block(id)),
            ("POST", ["eth", "v1" | "v2", "beacon", "blocks" | "blinded_blocks"]) => self.publish(headers, body),
            ("GET", ["eth", "v1", "beacon", "blob_sidecars", id]) => self.blob_sidecars(id, query),
            ("GET", ["eth", "v1", "beacon", "blobs", id]) => self.blobs(id, query),
            ("GET", ["eth", "v1", "debug", "beacon", "data_column_sidecars", id]) => self.data_columns(id),
            ("GET", ["eth", "v1", "beacon", "states", id, "finality_checkpoints"]) => self.checkpoints(id),
            ("GET", ["eth", "v1", "beacon", "states", id, "fork"]) => self.fork(id),
            ("GET", ["eth", "v2", "debug", "beacon", "states", id]) => {
                takes_json(headers).and_then(|()| self.state(id))
            }
            ("GET", ["eth", "v1", "events"]) => self.events(query),
            ("GET", ["eth", "v1", "beacon", "states", id, "validators"]) => self.validators_in_query(id, query),
            ("POST", ["eth", "v1", "beacon", "states", id, "validators"]) => self.validators_in_body(id, body),
            (method, ["eth", "v1" | "v2", "beacon", "pool", name]) => {
                self.pool(method, name, body).unwrap_or_else(not_found)
            }
            (method, ["eth", version, "validator", path @ ..]) => {
                self.validator(method, version, path, query, body).unwrap_or_else(not_found)
            }
            _ => not_found(),
        }
    }

    fn identity(&self) -> Response<Body> {
        let id = hash::derived("peer", self.node.name().as_bytes()).to_string();
        data(json!({
            "peer_id": format!("16Uiu2{}", &id[2..42]),
            "enr": "enr:-devnet",
            "p2p_addresses": [],
            "discovery_addresses": [],
            "metadata": {"seq_number": "1", "attnets": "0x0000000000000000", "syncnets": "0x00"},
        }))
    }

    /// A node that has just started finds its peers one by one.
    fn peer_count(&self) -> Response<Body> {
        let peers = (self.node.running().as_millis() / PEER_MILLIS + 1).min(PEERS);
        data(json!({"disconnected": "0", "connecting": "0", "connected": peers.to_string(), "disconnecting": "0"}))
    }

    fn sync_status(&self) -> Value {
        let head = self.view.head().slot;
        let behind = self.node.chain.head().slot.saturating_sub(head);
        let syncing = self.faults.has(&Fault::Syncing);
        let distance = match (syncing, self.faults.lie()) {
            (true, _) => behind.max(SYNC_DISTANCE),
            (false, 0) => behind,
            (false, _) => 0,
        };
        json!({
            "head_slot": (head + self.faults.lie()).to_string(),
            "sync_distance": distance.to_string(),
            "is_syncing": syncing,
            "is_optimistic": self.faults.has(&Fault::Optimistic),
            "el_offline": self.faults.has(&Fault::ElOffline),
        })
    }

    fn genesis(&self) -> Response<Body> {
        data(json!({
            "genesis_time": self.view.genesis().timestamp.to_string(),
            "genesis_validators_root": self.validators_root().to_string(),
            "genesis_fork_version": GENESIS_FORK_VERSION,
        }))
    }

    fn validators_root(&self) -> B256 {
        hash::derived("validators", &self.chain_id().to_be_bytes())
    }

    fn chain_id(&self) -> u64 {
        self.faults.chain_id().unwrap_or_else(|| self.node.chain.id())
    }

    /// An answer about a block or state of `slot`; without a slot about data as new as the head.
    fn described(&self, slot: Option<u64>, about: Value) -> Response<Body> {
        answers::json(StatusCode::OK, self.description(slot, about).to_string())
    }

    fn description(&self, slot: Option<u64>, about: Value) -> Value {
        let finalized = slot.is_some_and(|slot| slot <= self.view.checkpoint(FINALIZED).slot);
        let optimistic = self.faults.has(&Fault::Optimistic);
        json!({"execution_optimistic": optimistic, "finalized": finalized, "data": about})
    }
}

/// Whether the client takes JSON, the one form in which the node has blocks and states.
fn takes_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut ranges = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let takes = |range: &str| {
        let (kind, parameters) = range.split_once(';').unwrap_or((range, ""));
        let is_refused = parameters.split(';').any(|parameter| {
            let weight = parameter.trim().strip_prefix("q=");
            weight.and_then(|weight| weight.parse::<f32>().ok()) == Some(0.0)
        });
        !is_refused && ["application/json", "application/*", "*/*"].contains(&kind.trim())
    };
    if !headers.contains_key(header::ACCEPT) || ranges.any(|accept| accept.split(',').any(takes)) {
        return Ok(());
    }
    Err(Problem(StatusCode::NOT_ACCEPTABLE, "Accepted media type is not supported".to_owned()))
}

fn not_found() -> Outcome {
    Err(Problem(StatusCode::NOT_FOUND, "Not Found".to_owned()))
}

const CONSENSUS_VERSION: &str = "eth-consensus-version";

fn data(about: Value) -> Response<Body> {
    answers::json(StatusCode::OK, json!({"data": about}).to_string())
}

fn with_fork(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONSENSUS_VERSION, HeaderValue::from_static(FORK));
    response
}
