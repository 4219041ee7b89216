//! Calls over WebSockets, from the handshake to the close frame.

mod calls;
mod closing;
mod framing;
mod handshake;
mod limits;
mod places;
mod subscriptions;

use crate::common::{
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
