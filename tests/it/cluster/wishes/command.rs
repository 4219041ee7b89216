//! `steadfast fleet …` and `steadfast status --fleet`, against two proxies on real sockets.

use std::sync::Arc;

use steadfast::{
    app::{App, World},
    cluster::store::{
        Store,
        memory::{Memory, Settings},
    },
    devnet::Options,
};

use crate::{
    common::{
        devnet,
        proxy::{config, nodes},
        until,
    },
    operator::process::command,
};

/// A replica before nodes of these names, over the store.
async fn replica(store: &Memory, name: &str, nodes: String) -> App {
    let store = store.clone();
    let open_cluster = Arc::new(move |settings: &steadfast::config::Cluster| {
        let client = Arc::new(store.client(settings.replica.as_str())) as Arc<dyn Store>;
        Box::pin(async move { Ok(client) }) as _
    });
    let cluster = format!("[cluster]\nname = \"eu\"\nreplica = \"{name}\"\nnats = \"nats://unused\"\n");
    let settings = config(&[nodes, cluster].concat());
    App::start(settings, World { open_cluster, ..World::real(1) }, None).await.unwrap()
}

/// Runs the command against the proxy with this admin side.
async fn run_words(words: &str, admin: &str) -> (i32, String, String) {
    command(&words.split(' ').chain(["--admin", admin]).collect::<Vec<_>>()).await
}

/// C16, C17: the command writes a wish, waits for all replicas, and prints a line for each; the exit
/// code says whether all have applied the wish.
#[tokio::test]
async fn the_command_waits_for_all_replicas() {
    let net = devnet(Options { execution: 2, ..Options::default() }).await;
    let urls = [net.el(0).http_url(), net.el(1).http_url()];
    let both = nodes(urls.iter().map(String::as_str));
    let store = Memory::new(Settings::default());
    let first = replica(&store, "r1", both.clone()).await;
    let second = replica(&store, "r2", both.replacen("\"el-2\"", "\"other\"", 1)).await;
    let admins = [&first, &second].map(|app| app.admin_addr().to_string());
    let run = async |at: usize, words: &str| run_words(words, &admins[at]).await;
    until("both are active", async || {
        let (_, text, _) = run(0, "status --fleet").await;
        text.lines().filter(|line| line.contains(" active ")).count() == 2
    })
    .await;
    let (code, text, error) = run(0, "fleet cordon el-1").await;
    let words: Vec<_> = text.lines().collect();
    assert!(
        code == 0 && words[0].starts_with("default el el-1 is to be cordoned at all replicas: rev"),
        "{text}{error}"
    );
    assert_eq!(words[1..], ["r1: applied", "r2: applied"], "{text}");
    let (code, text, _) = run(1, "fleet drain el-2 --network default --layer el").await;
    let words: Vec<_> = text.lines().collect();
    assert_eq!(words[1..], ["r1: applied", "r2: not applied: this replica has no node el-2 in default el"], "{text}");
    assert_eq!(code, 1);
    let (_, text, _) = run(0, "status --fleet").await;
    assert!(text.contains("wish of r1: default el el-1 cordoned, revision ") && text.contains(": applied by 2 of 2"));
    assert!(
        text.contains("wish of r2: default el el-2 drained") && text.contains("  r2: this replica has no node el-2")
    );
    let (code, text, _) = run(0, "fleet log debug --wait 0s").await;
    assert_eq!((code, text.lines().count()), (0, 1), "{text}");
    let (code, text, _) = run(1, "fleet log trace").await;
    assert!(code == 1 && text.contains("r1: not applied: the log of this replica has a fixed level"), "{text}");
    // The operator's own cordon stays, and is told.
    let (code, _, error) = run(1, "cordon el-1").await;
    assert_eq!(code, 0, "{error}");
    let (code, text, _) = run(1, "fleet uncordon el-1").await;
    assert!(
        code == 0 && text.contains("default el el-1 stays cordoned at r2, by the replica's own operator"),
        "{text}"
    );
    assert!(text.ends_with("r1: applied\nr2: applied\n"), "{text}");
    let (_, text, _) = run(1, "fleet uncordon el-1 --wait 0s").await;
    assert!(text.starts_with("there was no wish for default el el-1\n"), "{text}");
    let (code, _, error) = run(0, "fleet cordon el-9").await;
    assert!(code == 1 && error.starts_with("there is no node el-9; the nodes are default/el/"), "{error}");
    // Without the store nothing is wished, and the command says so.
    ["r1", "r2"].iter().for_each(|name| store.refuse(name));
    let (code, text, error) = run(0, "fleet cordon el-1").await;
    assert!(code == 1 && text.is_empty() && error.contains("no wish is changed"), "{text}{error}");
}

/// Outside a cluster there is nobody to wish something of.
#[tokio::test]
async fn a_proxy_without_a_cluster_takes_no_wish() {
    let net = devnet(Options { execution: 1, ..Options::default() }).await;
    let app = App::start(config(&nodes([&*net.el(0).http_url()])), World::real(1), None).await.unwrap();
    for words in ["fleet cordon el-1", "fleet log --default"] {
        let (code, text, error) = run_words(words, &app.admin_addr().to_string()).await;
        assert!(code == 1 && text.is_empty() && error.starts_with("this proxy is in no cluster"), "{text}{error}");
    }
}
