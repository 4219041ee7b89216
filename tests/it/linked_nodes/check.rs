//! The output of `steadfast check` about WebSockets, over real sockets.

use steadfast::devnet::Options;

use crate::common::devnet;

async fn check(nodes: &[String]) -> (String, bool) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.arg("check").args(nodes.iter().flat_map(|node| ["--el", node.as_str()]));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

#[tokio::test]
async fn check_opens_the_websocket_of_every_node_that_has_one() {
    let devnet = devnet(Options { execution: 2, ..Options::default() }).await;
    let (http, ws) = (devnet.el(0).http_url(), devnet.el(0).ws_url());
    let other = devnet.el(1).ws_url();
    let (text, well) = check(&[format!("{http},{ws}"), other.clone()]).await;
    assert!(well && text.matches(" well").count() == 3, "{text}");
    let nowhere = "ws://127.0.0.1:1";
    let (text, well) = check(&[format!("{http},{nowhere}"), other]).await;
    assert!(!well && text.matches("the link is down: cannot connect").count() == 1, "{text}");
}
