//! The process itself: its signals, its log, and the commands that talk to it.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use steadfast::devnet::{Fault, Options};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep, timeout},
};

use crate::common::{
    self, SOON,
    binary::Binary,
    client::{Client, call, post},
    devnet,
    origin::{Origin, Reply},
    proxy::nodes,
    rest, until,
};

/// Where commands look for a proxy that are told no other place: nobody is there.
pub(crate) const USUAL: &str = "http://127.0.0.1:1";

/// Free ports, and probes that tell soon.
pub(crate) const QUICK: &str =
    "listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n[health]\ninterval = \"50ms\"\ntimeout = \"500ms\"\n";

/// Waits until it runs; returns where its clients and its operator connect.
fn until_it_runs(process: &mut Binary) -> (String, String) {
    let line = process.until_it_says("steadfast is running", SOON);
    let after = |key: &str| {
        let rest = line.split_once(key).unwrap_or_else(|| panic!("no {key} in {line}")).1;
        rest.split(' ').next().unwrap().to_owned()
    };
    (after("clients="), after("admin="))
}

#[tokio::test]
async fn a_reload_that_waits_for_a_silent_node_delays_no_shutdown() {
    let origin = Origin::echo().await;
    // Takes connections, and says nothing on them.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let settings = |url: &str| {
        let top = "listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nhealth.timeout = \"30s\"\n";
        format!("{top}{}", nodes([url]))
    };
    let (first, second) = (settings(origin.url()), settings(&silent_url));
    let waited = spawn_blocking(move || {
        let mut process = Binary::run(&first);
        process.until_it_says("steadfast is running", SOON);
        process
    });
    let mut process = timeout(common::SOON, waited).await.unwrap().unwrap();
    // The process listens for signals a moment later only.
    sleep(Duration::from_millis(300)).await;
    process.rewrite(&second);
    process.signal("HUP");
    // The reload is under way once its node is being probed.
    let _probe = timeout(common::SOON, silent.accept()).await.expect("the reload probes the new node").unwrap();
    let told = Instant::now();
    process.signal("TERM");
    let mut status = None;
    until("it ends", async || {
        status = process.ended();
        status.is_some()
    })
    .await;
    assert!(told.elapsed() < Duration::from_secs(5), "only after {:?}", told.elapsed());
    assert!(status.unwrap().success(), "{status:?}");
}

#[tokio::test]
async fn a_process_that_says_that_it_runs_hears_signals_from_then_on() {
    let origin = Origin::echo().await;
    let settings = format!("listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n{}", nodes([origin.url()]));
    let ends = spawn_blocking(move || {
        for start in 1..=20 {
            let mut process = Binary::run(&settings);
            process.until_it_says("steadfast is running", SOON);
            process.signal("TERM");
            let status = process.wait();
            assert!(status.success(), "start {start}: {status:?}");
        }
    });
    timeout(common::SOON * 3, ends).await.expect("it ends").unwrap();
}

/// Runs the binary with these words; its exit code, and what it printed.
pub(crate) async fn command(words: &[&str]) -> (i32, String, String) {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let run = spawn_blocking(move || {
        let done =
            Command::new(env!("CARGO_BIN_EXE_steadfast")).args(&words).env("STEADFAST_ADMIN", USUAL).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    });
    timeout(common::SOON * 3, run).await.expect("the command ends").unwrap()
}

/// A process that runs before these nodes, and its client and operator addresses.
pub(crate) async fn running(settings: String) -> (Binary, String, String) {
    let started = spawn_blocking(move || {
        let mut process = Binary::run(&settings);
        let (clients, admin) = until_it_runs(&mut process);
        (process, clients, admin)
    });
    timeout(common::SOON * 2, started).await.expect("it starts").unwrap()
}

/// Waits for a line of the log.
pub(crate) async fn says(mut process: Binary, words: &'static str) -> (Binary, String) {
    let heard = spawn_blocking(move || {
        let line = process.until_it_says(words, SOON);
        (process, line)
    });
    timeout(common::SOON * 2, heard).await.unwrap_or_else(|_| panic!("it does not say {words:?}")).unwrap()
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for (first, second, code) in [("TERM", "TERM", 143), ("INT", "INT", 130), ("INT", "TERM", 143)] {
        // A shutdown would wait for it, for long.
        let origin = Origin::start(|_| Reply::act(async |_io| std::future::pending().await)).await;
        let (mut process, clients, _) =
            running(format!("shutdown_grace = \"10m\"\n{QUICK}{}", nodes([origin.url()]))).await;
        let mut client = Client::connect(clients.parse().unwrap()).await;
        client.send(post("/", call(1, "eth_sendTransaction", "[{}]").as_bytes())).await;
        until("it is on its way", async || !origin.seen().is_empty()).await;
        process.signal(first);
        let (again, line) = says(process, "shutting down").await;
        assert!(line.contains("a second signal ends the process at once"), "{line}");
        process = again;
        assert!(process.ended().is_none(), "it does not wait for the call");
        process.signal(second);
        let mut status = None;
        until("it ends", async || {
            status = process.ended();
            status.is_some()
        })
        .await;
        assert_eq!(status.unwrap().code(), Some(code), "{first}, {second}");
    }
}

#[tokio::test]
async fn an_outage_is_an_error_and_a_recovery_is_none() {
    let devnet = devnet(Options::default()).await;
    let (one, two) = (devnet.el(0), devnet.el(1));
    let (process, ..) = running(format!("{QUICK}{}", nodes([&*one.http_url(), &*two.http_url()]))).await;
    let (process, _) = says(process, "node=\"el-2\" was=down: not probed yet").await;
    one.set_fault(Fault::Down);
    let (process, line) = says(process, "node is not usable").await;
    assert!(line.contains("WARN") && line.contains("el-1"), "{line}");
    let (process, line) = says(process, "calls go elsewhere").await;
    assert!(line.contains("from=\"el-1\" to=\"el-2\" reason=\"down\""), "{line}");
    two.set_fault(Fault::Down);
    let (process, line) = says(process, "no node can serve").await;
    assert!(line.contains("ERROR") && line.contains("layer=\"el\""), "{line}");
    assert!(line.contains("el-1: down: unreachable; el-2: down: unreachable"), "{line}");
    one.clear_faults();
    two.clear_faults();
    // The nodes' answers are good from here on, though the nodes have yet to prove themselves.
    let (mut process, mut told) = (process, String::new());
    while !told.contains("a node serves again: the outage is over") || !told.contains("from=\"none\"") {
        let line;
        (process, line) = says(process, "default").await;
        assert!(line.contains("INFO"), "{line}");
        told.push_str(&line);
    }
    assert!(told.contains("reason=\"recovered\""), "{told}");
}

#[tokio::test]
async fn the_operators_commands_do_what_they_say() {
    let devnet = devnet(Options::default()).await;
    let (one, two) = (devnet.el(0).http_url(), devnet.el(1).http_url());
    let (process, _, admin) = running(format!("{QUICK}{}", nodes([&*one, &*two]))).await;
    let at = ["--admin", &*admin];
    let run = async |words: &[&str]| command(&[words, &at].concat()).await;
    until("it is ready", async || run(&["status", "--ready"]).await.0 == 0).await;

    let (code, said, _) = run(&["cordon", "el-1"]).await;
    assert_eq!((code, &*said), (0, "el-1 (default, el) is cordoned: it gets no new calls and stays probed\n"));
    until("calls go to the other", async || run(&["status", "--json"]).await.1.contains("\"active\": \"el-2\"")).await;
    assert!(run(&["status"]).await.1.contains("cordoned (up)"));
    let (code, said, _) = run(&["cordon", "default/el/el-2"]).await;
    assert!(code == 0 && said.contains("warning: no other node of default el can serve now"), "{said}");
    assert_eq!(run(&["status", "--ready"]).await.0, 1);
    assert_eq!(run(&["status", "--live"]).await.0, 0);
    for node in ["el-1", "el-2"] {
        let (code, said, _) = run(&["uncordon", node]).await;
        assert_eq!((code, said), (0, format!("{node} (default, el) is no longer cordoned\n")));
    }
    let (code, _, why) = run(&["cordon", "el-3"]).await;
    assert_eq!((code, &*why), (1, "there is no node el-3; the nodes are default/el/el-1, default/el/el-2\n"));

    assert_eq!(run(&["drain"]).await.0, 0);
    assert_eq!(run(&["status", "--ready"]).await.0, 1);
    assert!(run(&["status"]).await.1.contains(": draining"));
    assert_eq!(run(&["undrain"]).await.0, 0);
    assert_eq!(run(&["status", "--ready"]).await.0, 0);

    let (code, said, _) = run(&["reload"]).await;
    assert_eq!((code, &*said), (0, "reloaded: nothing had changed\n"));
    process.rewrite(&format!("max_connections = 77\n{QUICK}[calls]\ntimeout = \"20s\"\n{}", nodes([&*one, &*two])));
    let (code, said, _) = run(&["reload"]).await;
    assert_eq!((code, &*said), (0, "reloaded: max_connections, calls.timeout\n"));
    let settings = format!("workers = 7\n{QUICK}{}", nodes([&*one, &*two]));
    process.rewrite(&settings);
    let (code, _, why) = run(&["reload"]).await;
    assert_eq!(code, 1);
    assert!(why.starts_with("workers: ") && why.contains("restart to apply, or change it back"), "{why}");
    drop(process);
    let (_, _, why) = command(&["drain"]).await;
    assert!(why.starts_with(&format!("{USUAL} does not answer")), "{why}");

    for words in [&["drain"][..], &["reload"], &["cordon", "el-1"], &["status"]] {
        let (code, _, why) = run(words).await;
        assert_eq!(code, 1, "{words:?}");
        assert!(why.contains(&format!("http://{admin} does not answer as a proxy's admin side")), "{why}");
        assert!(why.contains("is this its admin.listen?"), "{why}");
    }
}

#[tokio::test]
async fn no_command_shows_the_password_of_the_admin_url() {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("o1-{}.toml", std::process::id()));
    std::fs::write(&folder, nodes(["http://127.0.0.1:2"])).unwrap();
    let file = folder.to_str().unwrap();
    // No admin side is there, and one that is none.
    let other = rest::Node::start(|exchange: rest::Exchange| async move {
        exchange.reply("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await
    })
    .await;
    for host in ["127.0.0.1:1".to_owned(), format!("127.0.0.1:{}", other.port())] {
        let at = format!("http://operator:s3cret@{host}/");
        for words in [
            &["status"][..],
            &["status", "--json"],
            &["cordon", "el-1"],
            &["uncordon", "el-1"],
            &["drain"],
            &["undrain"],
            &["reload"],
            &["check", "--diff", "--config", file],
            &["top"],
        ] {
            let (code, said, why) = command(&[words, &["--admin", &at]].concat()).await;
            assert!(code != 0 && !why.is_empty(), "{words:?}: {said}{why}");
            assert!(!said.contains("s3cret") && !why.contains("s3cret"), "{words:?}: {said}{why}");
        }
    }
    std::fs::remove_file(&folder).unwrap();
}

#[tokio::test]
async fn a_watch_of_a_proxy_that_is_gone_says_so_on_an_empty_screen() {
    let devnet = devnet(Options::default()).await;
    let (process, _, admin) = running(format!("{QUICK}{}", nodes([&*devnet.el(0).http_url()]))).await;
    let screens = spawn_blocking(move || {
        let mut watch = Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .args(["status", "--watch", "--admin", &admin])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
        let first = lines.find(|line| line.contains(", as of ")).unwrap();
        drop(process);
        let gone = lines.find(|line| line.contains("does not answer")).unwrap();
        let age = lines.find(|line| line.contains("last answer: ")).unwrap();
        watch.kill().unwrap();
        watch.wait().unwrap();
        (first, gone, age)
    });
    let (first, gone, age) = timeout(common::SOON, screens).await.expect("it shows all that").unwrap();
    const CLEAR: &str = "\x1b[2J\x1b[H";
    assert!(first.contains(&format!("{CLEAR}steadfast ")), "{first:?}");
    assert!(gone.starts_with(CLEAR), "{gone:?}");
    assert!(age.ends_with(" s ago"), "{age}");
}
