//! The encoders, of which no client takes all.

use tokio::io::DuplexStream;

use super::{ON, node};
use crate::common::{
    client::{Client, call, with_headers},
    sim::{Net, Proxy},
    until,
};

/// A client of this address that reads no more than the head of a long answer, and the coding that
/// the answer has.
async fn slow_reader(proxy: &Proxy, host: u8) -> (Client<DuplexStream>, Option<String>) {
    let mut client = proxy.client_at(host).await;
    let headers = "Accept-Encoding: gzip, identity;q=0\r\n";
    client.send(with_headers("/", headers, call(1, "eth_call", "[2000000]").as_bytes())).await;
    let head = client.head().await;
    let coding = head.lines().find_map(|line| line.strip_prefix("content-encoding: ")).map(str::to_owned);
    (client, coding)
}

#[tokio::test(start_paused = true)]
async fn an_address_of_slow_readers_leaves_encoders_to_others() {
    let net = Net::default();
    let origin = node(&net).await;
    let proxy = Proxy::over(&net, [origin.url()], ON).await;
    let mut slow = Vec::new();
    for at in 0..24 {
        let (client, coding) = slow_reader(&proxy, 7).await;
        assert_eq!(coding.is_some(), at < 16, "answer {at} of one address");
        slow.push(client);
    }
    for host in [8, 9, 10] {
        for at in 0..16 {
            let (client, coding) = slow_reader(&proxy, host).await;
            assert!(coding.is_some(), "answer {at} of address {host}");
            slow.push(client);
        }
    }
    // All 64 are in use, and a plain answer is better than none.
    assert_eq!(slow_reader(&proxy, 11).await.1, None);
    slow.remove(0);
    until("an encoder is free again", async || slow_reader(&proxy, 11).await.1.is_some()).await;
}
