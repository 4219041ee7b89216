//! What must never be shown.

use cucumber::{given, then, when};
use steadfast::{devnet::Fault, domain::layer::Layer};
use tokio::time::timeout;

use crate::world::{Named, Proxy, eventually, soon};

const SECRETS: [&str; 6] =
    ["pathKey0001", "queryKey0002", "userName0003", "passWord0004", "tokenKey0005", "plainKey0006"];

#[given(expr = "a primary {word} whose URL and headers hold secrets")]
async fn secretive(proxy: &mut Proxy, name: String) {
    let url = "http://{addr}/v2/pathKey0001?apikey=queryKey0002".to_owned();
    let more =
        r#"headers = { Authorization = "Bearer tokenKey0005", X-Api-Key = "plainKey0006plainKey0006" }"#.to_owned();
    proxy.nodes.push(Named { name, layer: Layer::El, tier: "primary", url, more });
}

#[given(expr = "a primary {word} whose URL holds a user and a password")]
async fn user(proxy: &mut Proxy, name: String) {
    let url = "http://userName0003:passWord0004@{addr}/".to_owned();
    proxy.nodes.push(Named { name, layer: Layer::El, tier: "primary", url, more: String::new() });
}

#[given("the secrets do reach the nodes")]
async fn reach(proxy: &mut Proxy) {
    let proxy = &*proxy;
    for name in proxy.nodes.iter().map(|node| &node.name) {
        eventually("a probe", soon(), async || {
            let probes = proxy.node(name).requests();
            let probe = probes.last().ok_or("none")?;
            match probe.headers.contains_key("authorization") {
                true => Ok(()),
                false => Err(format!("{:?}", probe.headers)),
            }
        })
        .await;
    }
}

#[when(expr = "{word} complains of {string}")]
async fn complains(proxy: &mut Proxy, name: String, words: String) {
    let node = proxy.node(&name);
    node.set_fault(Fault::rpc_error(-32000, &words));
    timeout(soon(), node.settled()).await.unwrap();
}

#[when(expr = "{word} complains of {string} after {int} other letters")]
async fn complains_late(proxy: &mut Proxy, name: String, words: String, letters: usize) {
    complains(proxy, name, format!("{} {words}", "x".repeat(letters))).await;
}

#[then(expr = "the status shows an error of {word} that holds {string}")]
async fn shows(proxy: &mut Proxy, name: String, words: String) {
    let proxy = &*proxy;
    eventually(&format!("an error that holds {words}"), soon(), async || {
        let node = proxy.status_of(&name).await;
        let error = node["last_error"]["message"].as_str().unwrap_or_default();
        if error.contains(&words) { Ok(()) } else { Err(format!("{node:#}")) }
    })
    .await;
}

#[then("no secret is shown anywhere")]
async fn none(proxy: &mut Proxy) {
    let reply = proxy.call("eth_gasPrice", &serde_json::json!([])).await;
    let places = [
        ("the status", proxy.get("/status").await.1),
        ("the metrics", proxy.get("/metrics").await.1),
        ("the admin's index", proxy.get("/").await.1),
        ("the answer to a client", reply.body),
        ("the log", proxy.process.as_ref().expect("a process").log()),
    ];
    for (place, text) in places {
        assert!(!text.is_empty(), "{place} is empty");
        // Half a secret is still too much.
        for secret in SECRETS.iter().map(|secret| &secret[..7]) {
            let at = text.find(secret);
            assert!(at.is_none(), "{place} shows {secret}…: {}", &text[at.unwrap().saturating_sub(200)..]);
        }
    }
}
