//! Calls over WebSockets, from the handshake to the close frame.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

#[path = "ws/calls.rs"]
mod calls;
#[path = "ws/closing.rs"]
mod closing;
mod common;
#[path = "ws/framing.rs"]
mod framing;
#[path = "ws/handshake.rs"]
mod handshake;
#[path = "ws/limits.rs"]
mod limits;
#[path = "ws/places.rs"]
mod places;
#[path = "ws/subscriptions.rs"]
mod subscriptions;
#[path = "ws/vanishing.rs"]
mod vanishing;

use common::{
    origin::{Origin, Reply},
    sim::{Net, Proxy},
};

/// A node that returns each call's params, and a proxy before it, in memory.
async fn echo(settings: &str) -> (Net, Origin, Proxy) {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| Reply::result(seen, &seen.params())).await;
    let proxy = Proxy::over(&net, [origin.url()], settings).await;
    (net, origin, proxy)
}

/// A node whose results are strings as long as the params say, and a proxy before it.
async fn lengths(settings: &str) -> (Net, Origin, Proxy) {
    let net = Net::default();
    let origin = Origin::within(&net, |seen| {
        let length = seen.params().trim_matches(['[', ']']).parse().unwrap();
        Reply::result(seen, &string(length))
    })
    .await;
    let proxy = Proxy::over(&net, [origin.url()], settings).await;
    (net, origin, proxy)
}

fn string(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length))
}

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}
