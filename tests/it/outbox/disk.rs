//! A disk that fails, and the start and the end of the outbox.

use std::io::ErrorKind;

use super::*;
use steadfast::devnet::Fault;

/// U22, U43, U44: no hash without a record; reads go on, and `/readyz` names the outbox.
#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_nothing_refuses_transactions_and_not_reads() {
    for (kind, reason, ack) in [
        (ErrorKind::StorageFull, "outbox_full", "node"),
        (ErrorKind::Other, "outbox_unwritable", "node"),
        (ErrorKind::Other, "outbox_unwritable", "disk"),
    ] {
        let scene = Scene::start(&format!("{ON}ack = \"{ack}\"\n")).await;
        scene.sent(0).await;
        scene.until_state(hash(0), "sent").await;
        scene.net.1.fail_after(0, kind, 1);
        for nonce in 1..3 {
            let answer = scene.send(&transaction(nonce).0).await;
            let (code, why, _) = error(&answer);
            assert_eq!((code, why), (-32005, reason), "{answer}");
        }
        let read = scene.ask("eth_blockNumber", "[]").await;
        assert!(read["result"].is_string(), "{read}");
        assert_eq!(scene.status(hash(0)).await["hash"], json!(hash(0)), "rows can be read");
        let ready = scene.proxy().admin("/readyz").await;
        let text = ready.text();
        assert!(ready.status == 200 && text.contains("the outbox"), "{text}");
        assert_eq!(scene.state(hash(1)).await, "none");
        for index in 0..3 {
            assert_eq!(scene.node(index).raw_transactions(), [hash(0)], "a node got one without a record");
        }
        scene.net.1.mend();
        let mended = async || scene.proxy().admin("/readyz").await.text().contains("\"outbox\": \"writable\"");
        until("the outbox takes writes", mended).await;
        sleep(Duration::from_secs(3)).await;
        scene.sent(1).await;
        scene.mine(2).await;
        for nonce in 0..2 {
            scene.until_state(hash(nonce), "mined").await;
        }
    }
}

/// A client that waits for a node's word is answered, whatever becomes of the disk.
#[tokio::test(start_paused = true)]
async fn a_client_that_waits_while_the_disk_fails_has_an_answer() {
    let scene = Scene::start(ON).await;
    scene.node(0).set_fault(Fault::slow_over(2000, &[SEND]));
    scene.node(1).set_fault(Fault::slow_over(2000, &[SEND]));
    scene.node(2).set_fault(Fault::slow_over(2000, &[SEND]));
    let (raw, hash) = transaction(0);
    let mut client = scene.proxy().client().await;
    client.send(crate::common::client::post("/", send(&raw).as_bytes())).await;
    sleep(Duration::from_millis(500)).await;
    scene.net.1.fail_after(0, ErrorKind::Other, 1);
    let other = scene.send(&transaction(1).0).await;
    assert_eq!(error(&other).1, "outbox_unwritable", "{other}");
    sleep(Duration::from_secs(5)).await;
    scene.net.1.mend();
    let answer = client.response().await.json();
    // It is on the disk since before the failure.
    assert_eq!(answer["result"], json!(hash), "{answer}");
}

/// A sync that fails may have kept the transaction: the client hears that nobody knows, and is
/// refused only what is never sent.
#[tokio::test(start_paused = true)]
async fn a_client_is_refused_only_what_is_not_kept() {
    let mut unsure = 0;
    for ack in ["node", "disk"] {
        for seed in 0..8 {
            let scene = Scene::start(&format!("{ON}ack = \"{ack}\"\n[calls]\nhold = \"3s\"\n")).await;
            scene.net.1.fail_syncs(ErrorKind::Other, seed);
            let answer = scene.send(&transaction(0).0).await;
            sleep(Duration::from_secs(5)).await;
            scene.net.1.mend();
            sleep(Duration::from_secs(10)).await;
            let is_sent = !scene.node(0).raw_transactions().is_empty();
            match error(&answer) {
                (-32002, "outcome_unknown", _) => unsure += usize::from(is_sent),
                (-32005, "outbox_unwritable", _) => assert!(!is_sent, "{ack} {seed}: refused, and sent"),
                other => panic!("{ack} {seed}: {other:?} {answer}"),
            }
        }
    }
    assert!(unsure > 0, "no sync kept a transaction");
}

/// U51: what is not done stays on the disk, for the next start.
#[tokio::test(start_paused = true)]
async fn a_restart_loses_nothing() {
    let mut scene = Scene::start(ON).await;
    for nonce in 0..3 {
        scene.sent(nonce).await;
    }
    scene.restart().await;
    for nonce in 0..3 {
        assert_eq!(scene.state(hash(nonce)).await, "sent");
    }
    scene.until_verdicts(["up", "up", "up"]).await;
    scene.mine(3).await;
    for nonce in 0..3 {
        scene.until_state(hash(nonce), "confirmed").await;
    }
}

/// U15: a store that cannot be opened refuses the start, with its key and the reason.
#[tokio::test]
async fn a_store_that_cannot_be_opened_refuses_the_start() {
    use crate::common::proxy::config;
    use steadfast::app::{App, World};
    let folder = std::env::temp_dir().join(format!("steadfast-outbox-{}", std::process::id()));
    let node = "[[el.primary]]\nhttp = \"http://127.0.0.1:1\"\n";
    let settings = format!("[outbox]\ndir = {:?}\n{node}", folder.display().to_string());
    let start = || App::start(config(&settings), World::real(1), None);
    let first = start().await.unwrap();
    let second = start().await.err().expect("two proxies have one store").to_string();
    assert!(second.contains("outbox.dir") && second.contains("in use"), "{second}");
    first.shutdown().await;
    let file = folder.join(steadfast::outbox::store::FILE);
    std::fs::write(&file, b"no store at all, and long enough to be looked at").unwrap();
    let foreign = start().await.err().expect("a foreign file is no store").to_string();
    assert!(foreign.contains("outbox.dir") && foreign.contains("no outbox"), "{foreign}");
    std::fs::remove_dir_all(&folder).unwrap();
}

/// U48: a reload changes bounds; what needs a restart is named.
#[tokio::test(start_paused = true)]
async fn a_reload_changes_bounds_and_keeps_transactions() {
    let scene = Scene::start(ON).await;
    scene.sent(0).await;
    scene.proxy().reload(&scene.settings.replace(ON, "[outbox]\nconfirmations = 2\nmax_pending = 1\n")).await;
    let answer = scene.send(&transaction(1).0).await;
    assert_eq!(error(&answer).1, "outbox_full", "{answer}");
    // Nodes are replaced, and the outbox goes on over the new ones.
    let more = "[calls]\nattempts = 2\n[outbox]\nconfirmations = 2\n";
    scene.proxy().reload(&scene.settings.replace(ON, more)).await;
    scene.sent(1).await;
    scene.mine(3).await;
    for nonce in 0..2 {
        scene.until_state(hash(nonce), "confirmed").await;
    }
    let gone = scene.settings.replace(ON, "");
    gone.clone_into(&mut scene.proxy().settings.lock().unwrap());
    let refused = scene.proxy().app.reload().await.unwrap_err();
    assert!(refused.contains("outbox"), "{refused}");
}

/// A reload while the disk fails holds as soon as the disk takes writes again.
#[tokio::test(start_paused = true)]
async fn a_reload_while_the_disk_fails_holds_afterwards() {
    let scene = Scene::start(ON).await;
    scene.sent(0).await;
    scene.until_state(hash(0), "sent").await;
    scene.net.1.fail_after(0, ErrorKind::Other, 1);
    let answer = scene.send(&transaction(1).0).await;
    assert_eq!(error(&answer).1, "outbox_unwritable", "{answer}");
    sleep(Duration::from_secs(2)).await;
    scene.proxy().reload(&scene.settings.replace(ON, "[outbox]\nconfirmations = 2\nmax_pending = 1\n")).await;
    scene.net.1.mend();
    sleep(Duration::from_secs(5)).await;
    let answer = scene.send(&transaction(1).0).await;
    assert_eq!(error(&answer).1, "outbox_full", "{answer}");
}
