//! States: bodies that are longer than what a proxy may keep.

use std::hash::{DefaultHasher, Hasher};

use cucumber::{given, then};
use reqwest::{Method, Response};
use steadfast::{devnet::Fault, domain::layer::Layer};

use crate::{
    network::{At, Port, here},
    nodes::befalls,
    world::Proxy,
};

const STATE: &str = "/eth/v2/debug/beacon/states/head";

#[given(expr = "states of {int} MiB")]
async fn states(proxy: &mut Proxy, mebibytes: u64) {
    proxy.state_bytes = mebibytes << 20;
}

/// The most memory that the process has had in use since it was last told to forget, in bytes.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// How many bytes a body has, and what they hash to.
async fn digest(mut response: Response) -> (u64, u64) {
    let (mut length, mut hasher) = (0, DefaultHasher::new());
    while let Some(piece) = response.chunk().await.unwrap() {
        length += piece.len() as u64;
        hasher.write(&piece);
    }
    (length, hasher.finish())
}

#[then(expr = "a client gets a whole state, while the process grows by less than {int} MiB")]
async fn flat(proxy: &mut Proxy, mebibytes: u64) {
    let process = proxy.process.as_ref().expect("a process").id();
    std::fs::write(format!("/proc/{process}/clear_refs"), "5").unwrap();
    let before = peak(process);
    let response = proxy.beacon(Method::GET, STATE).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let through = digest(response).await;
    let grown = peak(process) - before;
    assert!(grown < mebibytes << 20, "{grown} bytes");
    assert_eq!(through.0, proxy.state_bytes);
    let at = At { layer: Layer::Cl, place: 0 };
    let node = here(proxy.net().addr(at, Port::Http));
    let own = proxy.client.get(format!("http://{node}{STATE}")).send().await.unwrap();
    assert_eq!(through, digest(own).await, "bytes, and what they hash to: through the proxy, and of the node");
}

#[then(expr = "a client that has begun a state when {word} goes down sees that it is not whole")]
async fn broken(proxy: &mut Proxy, name: String) {
    let mut response = proxy.beacon(Method::GET, STATE).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let mut length = response.chunk().await.unwrap().expect("a beginning").len() as u64;
    befalls(proxy, &name, Fault::Down).await;
    let end = loop {
        match response.chunk().await {
            Ok(Some(piece)) => length += piece.len() as u64,
            end => break end,
        }
    };
    assert!(length < proxy.state_bytes, "it had all been sent");
    assert!(end.is_err(), "{length} bytes look like the whole");
}
