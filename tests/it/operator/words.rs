//! Messages to a new operator when something is not as it should be: each names the fault, its
//! place, and the remedy.

use std::net::TcpListener;

use steadfast::devnet::{Fault, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::process::command;
use crate::common::{devnet, origin::Origin, proxy::Proxy, until};

#[tokio::test]
async fn a_port_that_another_program_has_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let nodes = ["--el", "http://127.0.0.1:1"];
    let run = [&["run", "--listen", &addr, "--admin-listen", "127.0.0.1:0"][..], &nodes].concat();
    let (code, _, why) = command(&run).await;
    assert_eq!(code, 1);
    assert!(why.starts_with(&format!("listen: cannot listen on {addr}: ")), "{why}");
    assert!(why.contains("a node has 8545 for its JSON-RPC") && why.contains("--listen"), "{why}");
    assert!(why.contains("another Steadfast may run here: `steadfast status` shows"), "{why}");
    let run = [&["run", "--listen", "127.0.0.1:0", "--admin-listen", &addr][..], &nodes].concat();
    let (code, _, why) = command(&run).await;
    assert_eq!(code, 1);
    assert!(why.starts_with(&format!("admin.listen: cannot listen on {addr}: ")), "{why}");
    assert!(why.contains("another Steadfast may run here") && why.contains("--admin-listen"), "{why}");
    assert!(why.contains(&format!("`steadfast status --admin {addr}` shows a running one")), "{why}");
    let any = addr.replace("127.0.0.1", "0.0.0.0");
    let run = [&["run", "--listen", "127.0.0.1:0", "--admin-listen", &any][..], &nodes].concat();
    let (code, _, why) = command(&run).await;
    assert!(code == 1 && why.contains(&format!("--admin {addr}` shows")), "{why}");
    let dev = ["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--control", &addr];
    let (code, _, why) = command(&dev).await;
    assert!(code == 1 && why.contains(&addr) && why.contains("--control"), "{why}");
    assert!(why.contains("another `steadfast dev` may run here: see `steadfast status`"), "{why}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_told_with_how_to_write_one() {
    for command_name in ["run", "check"] {
        let (code, _, why) = command(&[command_name, "--config", "/no/such/file.toml"]).await;
        assert_eq!(code, 2);
        assert!(why.starts_with("/no/such/file.toml: cannot be read: "), "{why}");
        assert!(why.contains("`steadfast init /no/such/file.toml`"), "{why}");
    }
}

#[tokio::test]
async fn a_block_time_that_is_none_is_told_with_the_forms_that_are() {
    for (time, expected) in [("soon", "such as 2 or 0.5"), ("0.01", "from 100ms to an hour"), ("2h", "to an hour")] {
        let (code, _, why) = command(&["dev", "--block-time", time]).await;
        assert_eq!(code, 2);
        assert!(why.contains(&format!("'{time}' for '--block-time <TIME>'")) && why.contains(expected), "{why}");
    }
}

#[tokio::test]
async fn nodes_of_both_layers_in_each_others_place_are_told() {
    let devnet = devnet(Options { execution: 1, consensus: 1, ..Options::default() }).await;
    let (el, cl) = (devnet.el(0).http_url(), devnet.cl(0).http_url());
    let (code, table, _) = command(&["check", "--el", &cl, "--cl", &el]).await;
    assert_eq!(code, 1);
    assert!(table.contains("this is a consensus node: its place is under `cl`, or --cl"), "{table}");
    assert!(table.contains("this is an execution node: its place is under `el`, or --el"), "{table}");
    // The proxy that runs tells it too.
    let settings = format!("[[el.primary]]\nname = \"el-1\"\nhttp = \"{cl}\"\n");
    let proxy = Proxy::launch(&settings).await;
    until("it is told", async || {
        let node = proxy.node("el-1").await;
        node["last_error"]["message"].as_str().is_some_and(|why| why.contains("this is a consensus node"))
    })
    .await;
    assert_eq!(proxy.node("el-1").await["reason"], "down: answers with errors");
}

/// The URL of a server that says this to whatever it hears, and hangs up.
async fn saying(words: &'static [u8]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let mut heard = [0; 4096];
            let _ = io.read(&mut heard).await;
            let _ = io.write_all(words).await;
        }
    });
    url
}

#[tokio::test]
async fn tls_to_a_plain_port_and_plain_words_to_a_tls_port_are_told() {
    // The answer of a server that gets no HTTP.
    let https = saying(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await.replace("http://", "https://");
    let (code, table, _) = command(&["check", "--el", &https]).await;
    assert_eq!(code, 3);
    assert!(table.contains("the port does not speak TLS: is the URL http:// or ws://?"), "{table}");
    // The answer of a server that wants TLS and gets something else: an alert, and the end.
    let url = saying(&[0x15, 3, 1, 0, 2, 2, 70]).await;
    let (code, table, _) = command(&["check", "--el", &url, "--cl", &url]).await;
    assert_eq!(code, 1);
    assert_eq!(table.matches("the port speaks TLS: is the URL https:// or wss://?").count(), 2, "{table}");
}

#[tokio::test]
async fn a_client_port_that_is_taken_for_the_admin_side_is_told() {
    let origin = Origin::echo().await;
    let proxy = Proxy::over([origin.url()], "").await;
    let client_port = proxy.addr().to_string();
    let (code, _, why) = command(&["status", "--admin", &client_port]).await;
    assert_eq!(code, 1);
    assert!(why.contains("not as a proxy's admin side") && why.contains("is this its admin.listen?"), "{why}");
    let (code, _, why) = command(&["cordon", "el-1", "--admin", &client_port]).await;
    assert_eq!(code, 1);
    assert!(why.contains("is this a proxy's admin.listen?"), "{why}");
}

#[tokio::test]
async fn check_ends_by_the_class_of_the_fault() {
    let devnet = devnet(Options { execution: 3, ..Options::default() }).await;
    let urls = [0, 1, 2].map(|place| devnet.el(place).http_url());
    let check = ["check", "--el", &urls[0], "--el", &urls[1], "--el-backup", &urls[2]];
    let (code, tables, _) = command(&check).await;
    assert_eq!(code, 0, "{tables}");
    for told in ["SOFTWARE", "the first", "eth_getBlockReceipts"] {
        assert!(tables.contains(told), "{told} in {tables}");
    }
    for (fault, class) in [(Fault::Down, 3), (Fault::wrong_chain(5), 4), (Fault::lag(8), 5), (Fault::Failing, 1)] {
        devnet.el(1).set_fault(fault.clone());
        devnet.el(1).settled().await;
        let (code, tables, _) = command(&check).await;
        assert_eq!(code, class, "{fault:?}: {tables}");
        devnet.el(2).set_fault(Fault::Syncing);
        let (code, tables, _) = command(&check).await;
        assert_eq!(code, if class == 5 { 5 } else { 1 }, "{fault:?} and a node that syncs: {tables}");
        devnet.el(1).clear_faults();
        devnet.el(2).clear_faults();
        devnet.el(1).settled().await;
    }
}
