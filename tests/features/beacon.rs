//! What befalls consensus nodes alone, and single requests to the beacon API.

use cucumber::{given, then, when};
use reqwest::Method;
use serde_json::Value;
use steadfast::devnet::{Fault, Request, is_probe};

use crate::{
    nodes::befalls,
    world::{Proxy, reply},
};

/// A block in SSZ, as far as a proxy may care: bytes of every value.
fn block() -> Vec<u8> {
    (0..=255).cycle().take(20_000).collect()
}

const PUBLISH: &str = "POST /eth/v2/beacon/blocks";
const VALIDATION: &str = "broadcast_validation=consensus_and_equivocation";

#[when(regex = r"^(\S+) (turns optimistic|loses its execution node|falls silent on its streams)$")]
async fn ails(proxy: &mut Proxy, name: String, how: String) {
    let fault = match how.as_str() {
        "turns optimistic" => Fault::Optimistic,
        "loses its execution node" => Fault::ElOffline,
        _ => Fault::Mute,
    };
    befalls(proxy, &name, fault).await;
}

#[when(expr = "{word} answers everything with HTTP status {int}")]
async fn answers_all(proxy: &mut Proxy, name: String, status: i64) {
    befalls(proxy, &name, Fault::rpc_error(status, "not now")).await;
}

#[when(expr = "{word} calls itself well, but for HTTP status {int} of its health")]
async fn answers_health(proxy: &mut Proxy, name: String, status: u16) {
    befalls(proxy, &name, Fault::http_status(status, &["GET /eth/v1/node/health"])).await;
}

#[given(expr = "{word} answers publications with HTTP status {int}")]
async fn answers_publications(proxy: &mut Proxy, name: String, status: u16) {
    befalls(proxy, &name, Fault::http_status(status, &[PUBLISH])).await;
}

#[given(regex = r"^(\S+) loses its answers to (publications|registrations)$")]
#[when(regex = r"^(\S+) loses its answers to (publications|registrations)$")]
async fn loses(proxy: &mut Proxy, name: String, what: String) {
    let path = if what == "publications" { PUBLISH } else { "POST /eth/v1/validator/register_validator" };
    befalls(proxy, &name, Fault::cut_answer(&[path])).await;
}

#[then(expr = "{word} has been asked for nothing but probes")]
async fn only_probed(proxy: &mut Proxy, name: String) {
    let counts = proxy.node(&name).counts();
    assert!(counts.contains_key(proxy.probe()) && counts.keys().all(|method| is_probe(method, "")), "{counts:?}");
}

#[when(expr = "a client asks for {word}")]
async fn asks(proxy: &mut Proxy, path: String) {
    proxy.last = Some(reply(proxy.beacon(Method::GET, &path)).await);
}

#[then(expr = "the client gets the beacon API's error {int}: {string}")]
async fn api_error(proxy: &mut Proxy, code: u16, words: String) {
    let reply = proxy.last.as_ref().expect("a reply");
    let error = reply.json();
    assert_eq!((reply.status, &error["code"]), (code, &Value::from(code)), "{reply:?}");
    assert!(error["message"].as_str().is_some_and(|message| message.contains(&words)), "{reply:?}");
    assert_eq!(error.as_object().unwrap().len(), 2, "{reply:?}");
}

#[when("a validator client publishes a block")]
async fn publishes(proxy: &mut Proxy) {
    let request = proxy.beacon(Method::POST, &format!("/eth/v2/beacon/blocks?{VALIDATION}"));
    let request = request.header("content-type", "application/octet-stream");
    proxy.last = Some(reply(request.header("eth-consensus-version", "electra").body(block())).await);
}

fn publications(proxy: &Proxy, name: &str) -> Vec<Request> {
    proxy.node(name).requests().into_iter().filter(|request| request.method == PUBLISH).collect()
}

#[then(expr = "the block has reached {word} once, byte for byte")]
async fn arrived(proxy: &mut Proxy, name: String) {
    assert_eq!(arrivals(proxy, &name), 1, "{:?}", proxy.node(&name).counts());
}

/// For a node that ends connections: where it ends one that was used before, the proxy asks it once
/// more over a new one.
#[then(expr = "the block has reached {word} once or twice, byte for byte")]
async fn arrived_again(proxy: &mut Proxy, name: String) {
    assert!((1..=2).contains(&arrivals(proxy, &name)), "{:?}", proxy.node(&name).counts());
}

/// How often the block came to a node, each time as the client sent it.
fn arrivals(proxy: &Proxy, name: &str) -> usize {
    let seen = publications(proxy, name);
    for request in &seen {
        assert!(request.body == block());
        assert_eq!(request.params, VALIDATION);
        for (header, value) in [("content-type", "application/octet-stream"), ("eth-consensus-version", "electra")] {
            assert_eq!(request.headers[header], value);
        }
    }
    seen.len()
}

#[then(expr = "the block has not reached {word}")]
async fn not_arrived(proxy: &mut Proxy, name: String) {
    assert_eq!(publications(proxy, &name).len(), 0);
}
