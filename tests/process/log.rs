//! A log that cannot be written.

use tokio::{task::spawn_blocking, time::timeout};

use crate::common::{
    SOON,
    binary::{ADDRESSES, Binary},
    client::{Client, call},
    origin::{Origin, Reply},
    proxy::nodes,
};

/// Calls that are more than a pipe holds of lines in the access log.
const CALLS: usize = 1_000;

/// Runs the binary with its log going to `reader`, a command that reads a pipe, and calls it.
async fn serves_with_its_log_in(name: &str, reader: &str) {
    let node = Origin::start(|seen| Reply::result(seen, "\"well\"")).await;
    let pipe = std::env::temp_dir().join(format!("steadfast-log-{}-{name}", std::process::id()));
    let (pipe, settings) = (pipe.display(), [ADDRESSES, &nodes([node.url()]), "[log]\naccess = 1\n"].concat());
    // The first lines go to the test, which has the addresses from them.
    let read = format!(
        "rm -f {pipe}\nmkfifo {pipe}\n(exec <{pipe}; sed '/steadfast is running/q' >&2; exec 2>&-; {reader}) &\nexec 2>{pipe}"
    );
    let process = spawn_blocking(move || {
        let mut process = Binary::run_after(&settings, &[&read]);
        process.until_it_says("steadfast is running", SOON);
        process
    });
    let mut process = process.await.unwrap();
    let mut client = Client::connect(process.address("clients").unwrap()).await;
    for n in 0..CALLS {
        let answer = timeout(SOON, client.post(&call(n, "eth_call", "[]"))).await;
        assert_eq!(answer.expect("an answer in time").status, 200, "call {n}");
    }
    let mut admin = Client::connect(process.address("admin").unwrap()).await;
    admin.send("GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(timeout(SOON, admin.response()).await.expect("an answer in time").status, 200);
    process.signal("TERM");
    let ended = spawn_blocking(move || process.wait().code());
    assert_eq!(timeout(SOON * 2, ended).await.expect("its end").unwrap(), Some(0));
}

#[tokio::test]
async fn calls_go_on_while_nobody_reads_the_log() {
    serves_with_its_log_in("silent", "exec sleep 30").await;
}

#[tokio::test]
async fn calls_go_on_when_the_reader_of_the_log_is_gone() {
    serves_with_its_log_in("gone", "exit").await;
}
