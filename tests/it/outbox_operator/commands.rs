//! `steadfast outbox …` before a running proxy.

use std::process::Command;

use tokio::task::spawn_blocking;

use super::{receiver::Receiver, *};

/// The exit code of `steadfast outbox` with these words, and all that it printed.
async fn steadfast(scene: &Scene, words: &[&str]) -> (i32, String) {
    let admin = format!("http://{}", scene.proxy.app.admin_addr());
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.arg("outbox").args(words).args(["--admin", &admin]);
    let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn commands_show_a_transaction_and_give_orders() {
    let scene = Scene::new("ack = \"disk\"\n").await;
    (0..2).for_each(|node| scene.net.el(node).set_fault(steadfast::devnet::Fault::refuse(&["eth_sendRawTransaction"])));
    assert_eq!(steadfast(&scene, &["list"]).await, (0, "no such transaction is kept\n".to_owned()));
    scene.send(0).await;
    let [_, hash] = SIGNED[0];
    let (code, list) = steadfast(&scene, &["list", "--state", "accepted,sent"]).await;
    assert!(code == 0 && list.contains(hash) && list.contains("accepted"), "{list}");
    let (code, json) = steadfast(&scene, &["list", "--json"]).await;
    assert_eq!(
        (code, serde_json::from_str::<Value>(&json).unwrap()["transactions"][0]["hash"].as_str()),
        (0, Some(hash))
    );
    let (code, shown) = steadfast(&scene, &["show", hash]).await;
    assert!(code == 0 && shown.starts_with(hash) && shown.contains("nonce 0"), "{shown}");
    let (code, told) = steadfast(&scene, &["resend", hash]).await;
    assert_eq!(
        (code, told),
        (0, format!("{hash} (default, default) is sent now, to the nodes of outbox.send_to that do not rest\n"))
    );
    let (code, told) = steadfast(&scene, &["drop", hash]).await;
    assert_eq!((code, told), (1, "the transaction is accepted: cancel it first\n".to_owned()));
    let (code, told) = steadfast(&scene, &["cancel", hash]).await;
    assert!(code == 0 && told.contains("is cancelled\nThe proxy stops sending. Cancelling cannot unsend"), "{told}");
    let (code, told) = steadfast(&scene, &["drop", hash, "--tenant", "default", "--network", "default"]).await;
    assert_eq!((code, told), (0, format!("{hash} (default, default) is dropped\n")));
    let (code, told) = steadfast(&scene, &["show", hash]).await;
    assert_eq!((code, told), (1, format!("the outbox has no transaction {hash}\n")));
    let (code, told) = steadfast(&scene, &["show", "0x7"]).await;
    assert!(code == 1 && told.contains("is not a transaction's hash"), "{told}");
}

#[tokio::test]
async fn a_command_whose_output_is_not_taken_ends_without_a_panic() {
    let scene = Scene::new("").await;
    let admin = format!("http://{}", scene.proxy.app.admin_addr());
    for words in [&["outbox", "list"][..], &["status"], &["config", "schema"]] {
        let with_admin = words[0] != "config";
        for (is_pipe, expected) in [(true, 0), (false, 1)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
            command.args(words).args(with_admin.then_some(["--admin", &admin]).into_iter().flatten());
            match is_pipe {
                // The reading end is gone.
                true => command.stdout(std::io::pipe().unwrap().1),
                false => command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap()),
            };
            let ended = spawn_blocking(move || command.output().unwrap()).await.unwrap();
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(expected), "{words:?}: {said}");
            assert!(!said.contains("panicked"), "{words:?}: {said}");
        }
    }
}

#[tokio::test]
async fn retry_all_takes_the_first_of_the_limit() {
    let endpoint = Receiver::start(&["tx.accepted"], 410).await;
    let scene = Scene::new(&endpoint.settings).await;
    for nonce in 0..2 {
        scene.send(nonce).await;
    }
    let waiting = async || scene.ask("GET /outbox/quarantine", 200).await["deliveries"].as_array().unwrap().len();
    until("both are given up", async || waiting().await == 2).await;
    endpoint.status.store(200, std::sync::atomic::Ordering::SeqCst);
    for left in [1, 0] {
        let (code, told) = steadfast(&scene, &["quarantine", "--retry-all", "--limit", "1"]).await;
        assert_eq!((code, told.matches("is out of quarantine").count()), (0, 1), "{told}");
        until("one is delivered", async || waiting().await == left).await;
    }
}

/// U15: a check finds a folder that the outbox cannot use.
#[tokio::test]
async fn a_check_tells_of_a_folder_that_cannot_be_written() {
    let net = start_devnet(Options { execution: 1, ..Options::default() }).await;
    let folder = crate::unix_sockets::Folder::new();
    let file = folder.path("steadfast.toml");
    for (dir, code) in [(folder.path("deep/er"), 0), (std::path::PathBuf::from("/proc/nope"), 1)] {
        let settings = nodes([&*net.el(0).http_url()]) + &format!("[outbox]\ndir = {dir:?}\n");
        std::fs::write(&file, settings).unwrap();
        let words = ["check", "--config", file.to_str().unwrap()];
        let (ended, said, _) = crate::operator::process::command(&words).await;
        assert_eq!(
            (ended, said.contains("outbox.dir: no file can be made in /proc/nope: ")),
            (code, code == 1),
            "{said}"
        );
        assert!(!dir.exists(), "a check makes nothing");
    }
}

#[tokio::test]
async fn retry_all_passes_over_deliveries_without_an_endpoint() {
    let (old, billing) = (Receiver::start(&["tx.accepted"], 410).await, Receiver::start(&["tx.accepted"], 410).await);
    let of_old = old.settings.replace("\"billing\"", "\"a-old\"");
    let scene = Scene::new(&(of_old + &billing.settings)).await;
    for nonce in 0..2 {
        scene.send(nonce).await;
    }
    let waiting =
        async |scene: &Scene| scene.ask("GET /outbox/quarantine", 200).await["deliveries"].as_array().unwrap().len();
    until("all are given up", async || waiting(&scene).await == 4).await;
    billing.status.store(200, std::sync::atomic::Ordering::SeqCst);
    scene.reload(&billing.settings).await;
    let (code, told) = steadfast(&scene, &["quarantine", "--retry-all", "--limit", "2"]).await;
    assert_eq!((code, told.matches("is out of quarantine").count()), (1, 2), "{told}");
    assert!(told.contains("its endpoint `a-old` is not in the settings"), "{told}");
    until("those of the endpoint are delivered", async || billing.seen().len() == 4).await;
    let (code, told) = steadfast(&scene, &["quarantine", "--retry-all"]).await;
    assert!(code == 1 && told.ends_with("2 deliveries stay in quarantine\n"), "{told}");
}

/// The proxy ends while its deliveries are taken out: the command says which ones are out.
#[tokio::test]
async fn retry_all_tells_of_those_that_are_out_when_the_proxy_ends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let admin = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let deliveries = ["one", "other"].map(|id| json!({ "id": id, "tenant": "default" }));
        let list = json!({ "deliveries": deliveries });
        let done = json!({ "retried": "one", "tenant": "default" });
        for answer in [list, done] {
            let (io, _) = listener.accept().await.unwrap();
            let mut client = crate::common::client::Client::over(io);
            client.head().await;
            client.send(crate::common::origin::response("200 OK", "connection: close\r\n", answer.to_string())).await;
        }
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_steadfast"));
    command.args(["outbox", "quarantine", "--retry-all", "--admin", &admin]);
    let ended = spawn_blocking(move || command.output().unwrap()).await.unwrap();
    serving.await.unwrap();
    let [out, said] = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(out.contains("one is out of quarantine") && !out.contains("other"), "{out}");
    assert!(ended.status.code() == Some(1) && !said.is_empty(), "{said}");
}

#[tokio::test]
async fn commands_empty_the_quarantine_and_replay() {
    let endpoint = Receiver::start(&["tx.mined"], 410).await;
    let scene = Scene::new(&endpoint.settings).await;
    assert_eq!(steadfast(&scene, &["quarantine"]).await, (0, "no delivery is in quarantine\n".to_owned()));
    scene.send(0).await;
    let from = scene.net.chain().mine(1).number.to_string();
    until("it is given up", async || {
        steadfast(&scene, &["quarantine"]).await.1.contains("status 410: it wants no more")
    })
    .await;
    endpoint.status.store(200, std::sync::atomic::Ordering::SeqCst);
    let (code, told) = steadfast(&scene, &["quarantine", "--retry-all"]).await;
    assert!(code == 0 && told.contains("@billing is out of quarantine"), "{told}");
    until("it is delivered", async || endpoint.seen().len() == 2).await;
    let (code, told) = steadfast(&scene, &["quarantine", "--retry", "evt_0@billing"]).await;
    assert!(code == 1 && told.contains("no such delivery is in quarantine"), "{told}");
    let (code, told) = steadfast(&scene, &["replay", "--from", &from]).await;
    assert!(code == 0 && told.starts_with("1 deliveries would be made") && told.contains("nothing was done"), "{told}");
    let (code, told) = steadfast(&scene, &["replay", "--from", &from, "--endpoint", "billing", "--yes"]).await;
    assert!(code == 0 && told.starts_with("1 deliveries to billing are made"), "{told}");
    until("it is told once more", async || endpoint.seen().len() == 3).await;
}
