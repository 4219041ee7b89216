//! Names that have the proxy's own address.

use std::time::Duration;

use tokio::time::sleep;

use super::{NAME, asks, names, until_up};
use crate::common::{
    log::Log,
    origin::{Origin, Reply},
    sim::{Net, Proxy},
    until,
};

/// The port of the proxy's clients: the network of memory counts ports up, and one node has one.
const OWN: u16 = 10_002;

async fn node(net: &Net) -> Origin {
    let node = Origin::within(net, |seen| Reply::result(seen, "\"at 1\"")).await;
    net.put("10.0.0.1", node.port());
    node
}

async fn proxy(net: &Net, scheme: &str) -> Proxy {
    let settings = format!("[[el.primary]]\nname = \"geth\"\nhttp = \"{scheme}://{NAME}:{OWN}\"\n");
    let proxy = Proxy::launch(net, &format!("{settings}[health]\ndns_interval = \"2s\"\n")).await;
    assert_eq!(proxy.app.addr().port(), OWN);
    proxy
}

#[tokio::test(start_paused = true)]
async fn the_proxys_own_address_among_a_names_is_no_node() {
    let (net, log) = (Net::default(), Log::start());
    let _one = node(&net).await;
    net.name(NAME, &["127.0.0.1", "10.0.0.1"]);
    let proxy = proxy(&net, "dns+http").await;
    until_up(&proxy, &["geth-10.0.0.1"]).await;
    assert_eq!(asks(&proxy).await, "at 1");
    let told = || log.saying("an address of a name is left out: Steadfast itself listens there, and would call itself");
    assert_eq!((told().len(), &told()[0]["address"]), (1, &serde_json::Value::from("127.0.0.1")));
    // With no other address left, the entry is a node that cannot be reached.
    net.name(NAME, &["127.0.0.1"]);
    sleep(Duration::from_secs(3)).await;
    until("the entry is down", async || names(&proxy).await == ["geth"] && proxy.verdicts().await == ["down"]).await;
    let error = proxy.node("geth").await["last_error"]["message"].as_str().unwrap().to_owned();
    assert!(error.contains("its address is Steadfast's own"), "{error}");
    assert_eq!(told().len(), 1, "the same address is told once");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_to_the_proxy_is_dialled_elsewhere() {
    let net = Net::default();
    let _one = node(&net).await;
    net.name(NAME, &["127.0.0.1", "10.0.0.1"]);
    let proxy = proxy(&net, "http").await;
    until_up(&proxy, &["geth"]).await;
    assert_eq!(asks(&proxy).await, "at 1");
}
