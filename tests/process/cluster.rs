//! Three processes as replicas over a real NATS server.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::json;
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    common::{
        SOON,
        binary::{ADDRESSES, Binary},
        client::{Client, call},
        devnet,
        ports::free_addr,
        signed, until,
    },
    harness::Process,
};

/// Names the binary of the server. Without, that of `tests/install.sh` is taken.
const SERVER: &str = "STEADFAST_NATS_SERVER";
/// The lease has room for a busy machine.
const TIMES: &str = "heartbeat = \"500ms\"\nfailure_threshold = 6\nsafety_margin = \"1s\"\nfailover_timeout = \"6s\"\n";
/// The longest that these times leave to `on_fence`.
const HOOK_TIME: &str = "on_hook_timeout = \"2900ms\"\n";
const FAILOVER: Duration = Duration::from_secs(6);
/// For a machine that has other things to do.
const SLACK: Duration = Duration::from_secs(20);

/// A NATS server with a folder of its own; killed when dropped.
struct Nats {
    child: Option<Child>,
    folder: PathBuf,
    port: u16,
    /// More arguments.
    more: &'static [&'static str],
}

impl Nats {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    async fn start_with(more: &'static [&'static str]) -> Self {
        let port = free_addr().port();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("nats-{}-{port}", std::process::id()));
        let mut nats = Self { child: None, folder, port, more };
        nats.run();
        until("NATS listens", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
        nats
    }

    fn run(&mut self) {
        let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/venv/bin/nats-server");
        let server = std::env::var_os(SERVER).map_or(installed, PathBuf::from);
        assert!(server.exists(), "no {}: run tests/install.sh, or set {SERVER}", server.display());
        let mut command = Command::new(server);
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-sd"]).arg(&self.folder).args(self.more);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn settings(&self, replica: usize, node: &Devnet, more: &str) -> String {
        let (url, port) = (node.el(0).http_url(), self.port);
        format!(
            "[[el.primary]]\nname = \"el-1\"\nhttp = \"{url}\"\n[cluster]\nname = \"test\"\nreplica = \"r{replica}\"\n\
             nats = \"nats://127.0.0.1:{port}\"\n{TIMES}{more}"
        )
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The places of the processes that say that they lead.
async fn leaders(processes: &[Option<Process>]) -> Vec<usize> {
    let mut leaders = Vec::new();
    for (place, process) in processes.iter().enumerate() {
        let Some(process) = process else { continue };
        if process.admin_status("/leader").await == Some(200) {
            leaders.push(place);
        }
    }
    leaders
}

/// Calls again and again, each of which must be answered with a result, until told to stop. How
/// many calls there were.
async fn call_on(addr: SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let mut calls = 0;
    while !stop.load(SeqCst) {
        let answer = Client::connect(addr).await.post(call(1, "eth_chainId", "[]")).await.json();
        assert!(answer["result"].is_string(), "{answer}");
        calls += 1;
        sleep(Duration::from_millis(20)).await;
    }
    calls
}

async fn leader_within(processes: &[Option<Process>], patience: Duration) -> usize {
    let start = Instant::now();
    loop {
        if let Some(leader) = leaders(processes).await.first() {
            return *leader;
        }
        assert!(start.elapsed() < patience, "no leader within {patience:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until `check` holds, for as long as a takeover may take on a busy machine.
async fn until_late(goal: &str, mut check: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < FAILOVER + 2 * SLACK, "still not so: {goal}");
        sleep(Duration::from_millis(200)).await;
    }
}

/// A12, A15, A16, A40; R1 and R2 of the promises: the leader is killed and another leads; NATS is
/// killed and calls go on; NATS comes back and there is a leader again.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_and_a_killed_store_cost_no_call() {
    let node = devnet(Options { execution: 1, ..Options::default() }).await;
    let mut nats = Nats::start().await;
    let mut processes = Vec::new();
    for place in 0..3 {
        processes.push(Some(Process::start(&nats.settings(place, &node, ""), &[]).await));
    }
    let leader = leader_within(&processes, FAILOVER + SLACK).await;
    let others = (0..3).filter(|place| *place != leader);
    let (mut callers, stop) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    for place in others {
        callers.spawn(call_on(processes[place].as_ref().unwrap().clients(), stop.clone()));
    }
    // Dropped, the process gets SIGKILL.
    drop(processes[leader].take());
    let killed = Instant::now();
    let next = leader_within(&processes, FAILOVER + SLACK).await;
    println!("the next replica leads after {:?}", killed.elapsed());
    assert!(killed.elapsed() > Duration::from_secs(2), "before the dead one's lease was over");
    nats.kill();
    let gone = Instant::now();
    until("the leader stops", async || leaders(&processes).await.is_empty()).await;
    println!("without NATS the leader stopped after {:?}", gone.elapsed());
    assert!(!processes[next].as_ref().unwrap().log().contains("panicked"));
    sleep(Duration::from_secs(2)).await;
    nats.run();
    leader_within(&processes, FAILOVER + SLACK).await;
    stop.store(true, SeqCst);
    while let Some(calls) = callers.join_next().await {
        let calls = calls.unwrap();
        assert!(calls > 20, "only {calls} calls");
    }
    for process in processes.iter_mut().flatten() {
        assert!(process.terminate(), "{}", process.log());
    }
}

/// A19, A20, A29, A37: SIGTERM runs `on_fence` and gives the lease away; an `on_fence` that fails
/// ends the process at once.
#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_at_promotion_and_fence() {
    let node = devnet(Options { execution: 1, ..Options::default() }).await;
    let nats = Nats::start().await;
    let file = nats.folder.with_extension("hooks");
    let hook = |event: &str| format!("[\"/bin/sh\", \"-c\", \"echo {event} $STEADFAST_EVENT >> {}\"]", file.display());
    let hooks = format!("on_lead = {}\non_fence = {}\n{HOOK_TIME}", hook("a"), hook("b"));
    let first = Process::start(&nats.settings(0, &node, &hooks), &[]).await;
    let mut processes = vec![Some(first)];
    leader_within(&processes, FAILOVER + SLACK).await;
    let told = || std::fs::read_to_string(&file).unwrap_or_default();
    until("on_lead has run", async || told() == "a lead\n").await;
    let broken = nats.settings(1, &node, &format!("on_fence = \"/bin/false\"\n{HOOK_TIME}"));
    processes.push(Some(Process::start(&broken, &[]).await));
    let second = processes[1].as_ref().unwrap();
    until("both are there", async || second.metric("steadfast_cluster_replicas{state=\"active\"}").await == 2.0).await;
    let start = Instant::now();
    assert!(processes[0].as_mut().unwrap().terminate());
    assert_eq!(told(), "a lead\nb fence\n");
    processes[0] = None;
    leader_within(&processes, SLACK).await;
    println!("the second leads {:?} after the first was told to end", start.elapsed());
    let mut last = processes[1].take().unwrap();
    assert!(!last.terminate(), "a fence that failed is no good end: {}", last.log());
    assert!(last.log().contains("the process ends"), "{}", last.log());
    let _ = std::fs::remove_file(&file);
}

/// A20, A37: a fence ends an `on_lead` that still runs, with the programs that it waits for; an
/// `on_lead` that fails is answered by `on_fence`, and another replica leads.
#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_that_is_cut_short_or_fails_is_fenced() {
    let node = devnet(Options { execution: 1, ..Options::default() }).await;
    let nats = Nats::start().await;
    let file = nats.folder.with_extension("cut");
    let name = file.display();
    let told = || std::fs::read_to_string(&file).unwrap_or_default();
    let fence = format!("on_fence = [\"/bin/sh\", \"-c\", \"echo fence >> {name}\"]\n{HOOK_TIME}");
    let slow =
        format!("on_lead = [\"/bin/sh\", \"-c\", \"echo lead >> {name}; sleep 5; echo late >> {name}\"]\n{fence}");
    let mut first = Process::start(&nats.settings(0, &node, &slow), &[]).await;
    until("on_lead runs", async || told() == "lead\n").await;
    let begun = Instant::now();
    assert!(first.terminate(), "{}", first.log());
    assert_eq!(told(), "lead\nfence\n");
    let failing = format!("on_lead = \"/bin/false\"\n{fence}");
    let mut processes = vec![Some(Process::start(&nats.settings(0, &node, &failing), &[]).await)];
    until("on_fence has run", async || told() == "lead\nfence\nfence\n").await;
    processes.push(Some(Process::start(&nats.settings(1, &node, ""), &[]).await));
    assert_eq!(leader_within(&processes, FAILOVER + SLACK).await, 1);
    let of = "steadfast_cluster_fences_total{reason=\"hook_failed\"}";
    assert_eq!(processes[0].as_ref().unwrap().metric(of).await, 1.0);
    sleep(Duration::from_secs(6).saturating_sub(begun.elapsed())).await;
    assert_eq!(told(), "lead\nfence\nfence\n", "the aborted hook went on");
    for process in processes.iter_mut().flatten() {
        assert!(process.terminate(), "{}", process.log());
    }
    let _ = std::fs::remove_file(&file);
}

/// A6, A28; R2 of the promises: a leader that is stopped past its lease does no leader's work when
/// it goes on, and says so in its first answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_stopped_wakes_up_fenced() {
    let node = devnet(Options { execution: 1, ..Options::default() }).await;
    let nats = Nats::start().await;
    let file = |place: usize| nats.folder.with_extension(format!("stopped-{place}"));
    let told = |place: usize| std::fs::read_to_string(file(place)).unwrap_or_default();
    let mut processes = Vec::new();
    for place in 0..3 {
        let name = file(place).display().to_string();
        let hook = |event: &str| format!("on_{event} = [\"/bin/sh\", \"-c\", \"echo {event} >> {name}\"]\n");
        let hooks = [hook("lead"), hook("fence"), HOOK_TIME.to_owned()].concat();
        processes.push(Some(Process::start(&nats.settings(place, &node, &hooks), &[]).await));
    }
    let leader = leader_within(&processes, FAILOVER + SLACK).await;
    until("on_lead has run", async || told(leader) == "lead\n").await;
    let stopped = processes[leader].take().unwrap();
    stopped.signal("STOP");
    let next = leader_within(&processes, FAILOVER + SLACK).await;
    until("the next on_lead has run", async || told(next) == "lead\n").await;
    assert_eq!(told(leader), "lead\n");
    stopped.signal("CONT");
    assert_eq!(stopped.admin_status("/leader").await, Some(503));
    until("on_fence has run", async || told(leader) == "lead\nfence\n").await;
    let woke = Instant::now();
    while woke.elapsed() < FAILOVER {
        assert_eq!(stopped.admin_status("/leader").await, Some(503));
        assert_eq!(leaders(&processes).await, [next]);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!((told(leader), told(next)), ("lead\nfence\n".to_owned(), "lead\n".to_owned()));
    (0..3).for_each(|place| _ = std::fs::remove_file(file(place)));
}

/// R17 to R22, U21: what each of three replicas acknowledged is sent and followed by the two that are
/// left.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replica_takes_no_transaction_along() {
    const SEND: &str = "eth_sendRawTransaction";
    let node = devnet(Options { execution: 1, ..Options::default() }).await;
    let nats = Nats::start().await;
    let folder = |place: usize| nats.folder.with_extension(format!("outbox-{place}"));
    let outbox = |place: usize| format!("[outbox]\ndir = {:?}\nack = \"disk\"\nconfirmations = 2\n", folder(place));
    let mut processes = Vec::new();
    for place in 0..3 {
        processes.push(Some(Process::start(&nats.settings(place, &node, &outbox(place)), &[]).await));
    }
    let is_shared = async || {
        let mut shards = 0.0;
        for process in processes.iter().flatten() {
            shards += process.metric("steadfast_outbox_shards").await;
        }
        shards == 64.0
    };
    until_late("each shard has an owner", is_shared).await;
    // No node takes a transaction while the three run.
    node.el(0).set_fault(Fault::refuse(&[SEND]));
    let mut hashes = Vec::new();
    for key in 1..=12 {
        let (raw, hash) = signed::transaction(1337, key, 0, 1);
        let client = processes[usize::from(key) % 3].as_ref().unwrap().clients();
        let answer = Client::connect(client).await.post(call(1, SEND, &json!([raw]).to_string())).await.json();
        assert_eq!(answer["result"], json!(hash), "{answer}");
        hashes.push(hash);
    }
    // Dropped, the process gets SIGKILL.
    drop(processes[0].take());
    node.el(0).clear_faults();
    let client = processes[1].as_ref().unwrap().clients();
    let are_mined = async || {
        node.chain().mine(1);
        for hash in &hashes {
            let status = call(1, "steadfast_getTransactionStatus", &json!([hash]).to_string());
            let status = Client::connect(client).await.post(status).await.json();
            if !["mined", "confirmed"].contains(&status["result"]["state"].as_str().unwrap_or_default()) {
                return false;
            }
        }
        true
    };
    until_late("all are mined", are_mined).await;
    for process in processes.iter_mut().flatten() {
        assert!(process.terminate(), "{}", process.log());
    }
    (0..3).for_each(|place| _ = std::fs::remove_dir_all(folder(place)));
}

/// Settings that no wait can mend are refused at the start.
#[tokio::test]
async fn credentials_that_are_not_there_are_refused_at_the_start() {
    let node = devnet(Options { execution: 1, ..Options::default() }).await;
    let nats = Nats { child: None, folder: PathBuf::new(), port: 1, more: &[] };
    let settings = nats.settings(0, &node, "credentials = \"/nowhere/nats.creds\"\n");
    let mut binary = Binary::run(&[ADDRESSES, &settings].concat());
    let line = binary.until_it_says("/nowhere/nats.creds", SOON);
    assert!(line.starts_with("cluster: "), "{line}");
    assert!(!binary.wait().success());
}

/// A refusal of NATS ends no proxy: calls go on, the refusal is told, and the replica takes part
/// once NATS lets it in.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_nats_ends_no_proxy() {
    let node = devnet(Options { execution: 1, ..Options::default() }).await;
    let mut nats = Nats::start_with(&["--user", "u", "--pass", "p"]).await;
    let mut process = Process::start(&nats.settings(0, &node, ""), &[]).await;
    until("the refusal is told", async || process.log().contains("refuses this replica")).await;
    sleep(Duration::from_secs(2)).await;
    assert!(process.is_alive() && process.log().contains("ERROR"), "{}", process.log());
    let answer = Client::connect(process.clients()).await.post(call(1, "eth_chainId", "[]")).await.json();
    assert!(answer["result"].is_string(), "{answer}");
    nats.kill();
    nats.more = &[];
    nats.run();
    leader_within(&[Some(process)], FAILOVER + SLACK).await;
}
