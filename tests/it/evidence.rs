//! Which failures count against a node, on a network of memory under a simulated clock.

mod probes;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::common::{
    client::call,
    origin::{Origin, Reply, Seen, chain, response},
    sim::{Net, Proxy},
    until,
};
use steadfast::{
    domain::node_id::NodeId,
    pool::head::{HeadState, Limit, Memory, Report, judge_heads},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// The default `health.fall`.
const FALL: usize = 3;
/// The call that some nodes will not have.
const BAD: &str = "eth_getLogs";

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

/// How nodes, and gateways before them, refuse a call.
const REFUSALS: [&str; 6] = [
    "413 Content Too Large",
    "400 Bad Request",
    "431 Request Header Fields Too Large",
    "403 Forbidden",
    "504 Gateway Timeout",
    "dropped",
];

fn refuse(how: &str) -> Reply {
    match how {
        "dropped" => Reply::Last(Vec::new()),
        status => Reply::Bytes(response(status, "content-type: text/plain\r\n", "no")),
    }
}

/// A node that does this with [`BAD`] and answers all else.
async fn refusing(net: &Net, how: &'static str) -> Origin {
    Origin::within(net, move |seen| match seen.method() == BAD {
        true => refuse(how),
        false => Reply::result(seen, "\"well\""),
    })
    .await
}

async fn switches(proxy: &Proxy) -> f64 {
    proxy.metric("steadfast_switches_total", "").await
}

#[tokio::test(start_paused = true)]
async fn a_call_that_every_node_refuses_takes_none_out() {
    for how in REFUSALS {
        let net = Net::default();
        let origins = [refusing(&net, how).await, refusing(&net, how).await];
        let _chain = chain(&origins);
        let proxy = Arc::new(Proxy::over(&net, origins.iter().map(Origin::url), "").await);
        let before = switches(&proxy).await;
        let mut calls = JoinSet::new();
        for id in 0..30 {
            let proxy = proxy.clone();
            calls.spawn(async move { proxy.post(call(id, BAD, "[]")).await });
        }
        let mut refused = 0;
        while let Some(response) = calls.join_next().await {
            let response = response.unwrap();
            let error = response.json()["error"].take();
            let (status, reason) = match how.split(' ').next().unwrap() {
                status @ ("413" | "400" | "431" | "403") => (status.parse().unwrap(), "rejected"),
                _ => (503, "attempts_failed"),
            };
            assert_eq!((response.status, &error["data"]["reason"]), (status, &reason.into()), "{how}: {error}");
            refused += 1;
            assert_eq!(proxy.verdicts().await, ["up", "up"], "{how}, after {refused} calls");
        }
        assert_eq!(refused, 30);
        // Nor does it when they come one by one.
        for id in 0..2 * FALL {
            proxy.post(call(id, BAD, "[]")).await;
            sleep(Duration::from_millis(300)).await;
            assert_eq!(proxy.verdicts().await, ["up", "up"], "{how}");
        }
        assert!((switches(&proxy).await - before).abs() < 0.5, "{how}: calls went elsewhere");
        assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.text(), answer(1, "\"well\""));
        assert_eq!((origins[0].count("eth_call"), origins[1].count("eth_call")), (1, 0), "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_failing_method_move_no_other_calls() {
    for how in REFUSALS {
        let net = Net::default();
        let first = refusing(&net, how).await;
        let well = Origin::within(&net, |seen| Reply::result(seen, "\"well\"")).await;
        let _chain = chain([&first, &well]);
        let proxy = Proxy::over(&net, [first.url(), well.url()], "").await;
        let before = switches(&proxy).await;
        for id in 1..=5 * FALL {
            assert_eq!(proxy.post(call(id, BAD, "[]")).await.text(), answer(id, "\"well\""), "{how}");
            assert_eq!(proxy.verdicts().await, ["up", "up"], "{how}, after call {id}");
            proxy.post(call(id, "eth_call", "[]")).await;
        }
        assert_eq!((first.count("eth_call"), well.count("eth_call")), (5 * FALL, 0), "{how}");
        assert!((switches(&proxy).await - before).abs() < 0.5, "{how}: calls went elsewhere");
        // A fault of the call says nothing of the next call. A fault that may be the node's is not
        // tried each time.
        let expected = match how {
            // Each is sent twice: an idle connection may just have been closing.
            "dropped" => 2 * FALL,
            how if how.starts_with('4') => 5 * FALL,
            _ => FALL,
        };
        assert_eq!(first.count(BAD), expected, "{how}");
    }
}

/// The methods that several clients call.
const SEVERAL: [&str; 4] = ["eth_call", "eth_gasPrice", "eth_getBalance", "eth_getLogs"];

/// The conduct of a node that is no good for calls, though its probes are well.
fn broken(seen: &Seen, how: &str) -> Reply {
    match how.split_once(' ') {
        Some(("error", code)) => Reply::error(seen, code.parse().unwrap(), "Internal error"),
        Some(("state", _)) => Reply::error(seen, -32000, "missing trie node 12ab"),
        _ => refuse(how),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fails_what_others_answer_is_out_until_it_answers() {
    for how in ["error -32603", "state is missing", "500 Oops", "504 Gateway Timeout", "dropped"] {
        let net = Net::default();
        let ill = Arc::new(AtomicU64::new(1));
        let state = ill.clone();
        let first = Origin::within(&net, move |seen| match state.load(SeqCst) {
            0 => well(seen),
            _ => broken(seen, how),
        })
        .await;
        let other = Origin::within(&net, well).await;
        let _chain = chain([&first, &other]);
        let proxy = Proxy::over(&net, [first.url(), other.url()], "").await;
        let mut callers = Vec::new();
        for _ in SEVERAL {
            callers.push(proxy.client().await);
        }
        for (id, (caller, method)) in callers.iter_mut().zip(SEVERAL).enumerate() {
            assert_eq!(caller.post(call(id, method, "[]")).await.text(), answer(id, "\"well\""), "{how}");
        }
        let asked = Instant::now();
        until("it is out", async || proxy.verdicts().await == ["down", "up"]).await;
        assert!(asked.elapsed() < Duration::from_millis(250), "{how}: {:?}", asked.elapsed());
        let left = first.count("eth_call");
        for (caller, method) in callers.iter_mut().zip(SEVERAL) {
            caller.post(call(1, method, "[]")).await;
        }
        sleep(Duration::from_secs(60)).await;
        let asked_again = first.count("eth_call") - left;
        assert!((10..=140).contains(&asked_again), "{how}: asked {asked_again} times whether it is well");
        assert_eq!(proxy.verdicts().await, ["down", "up"], "{how}: it flaps");
        ill.store(0, SeqCst);
        until("it is up again", async || proxy.verdicts().await == ["up", "up"]).await;
        sleep(Duration::from_secs(5)).await;
        let before = first.count("eth_gasPrice");
        callers[0].post(call(2, "eth_gasPrice", "[]")).await;
        assert_eq!(first.count("eth_gasPrice"), before + 1, "{how}: its calls do not come home");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_out_for_what_it_fails_serves_as_the_last_one() {
    let net = Net::default();
    let first = Origin::within(&net, |seen| match seen.method() == "eth_blockNumber" {
        true => well(seen),
        false => Reply::error(seen, -32603, "Internal error"),
    })
    .await;
    let other = Origin::within(&net, well).await;
    let _chain = chain([&first, &other]);
    let proxy = Proxy::over(&net, [first.url(), other.url()], "").await;
    for (id, method) in SEVERAL.iter().enumerate() {
        proxy.post(call(id, method, "[]")).await;
    }
    until("it is out", async || proxy.verdicts().await == ["down", "up"]).await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(proxy.verdicts().await, ["down", "up"]);
    other.mute();
    other.hang_up();
    let asked = Instant::now();
    assert_eq!(proxy.post(call(1, "eth_blockNumber", "[]")).await.text(), answer(1, "\"well\""));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    // And goes on serving, whatever else it fails.
    sleep(Duration::from_secs(30)).await;
    assert_eq!(proxy.post(call(2, "eth_blockNumber", "[]")).await.text(), answer(2, "\"well\""));
    assert_eq!(proxy.verdicts().await, ["up", "down"]);
}

#[tokio::test(start_paused = true)]
async fn no_client_talks_a_node_down_with_calls_that_fail_by_nature() {
    for how in ["error -32603", "state is missing", "500 Oops", "413 Content Too Large", "dropped"] {
        let net = Net::default();
        let first = Origin::within(&net, move |seen| match seen.params().contains("poison") {
            true => broken(seen, how),
            false => well(seen),
        })
        .await;
        let other = Origin::within(&net, well).await;
        let _chain = chain([&first, &other]);
        let proxy = Proxy::over(&net, [first.url(), other.url()], "").await;
        let before = switches(&proxy).await;
        for id in 0..50 {
            for method in SEVERAL {
                let got = proxy.post(call(id, method, &format!("[\"poison\",{id}]"))).await.text();
                assert_eq!(got, answer(id, "\"well\""), "{how}");
            }
            assert_eq!(proxy.verdicts().await, ["up", "up"], "{how}, after {id} calls of each");
            let (one, two) = (first.count("eth_feeHistory"), other.count("eth_feeHistory"));
            proxy.post(call(id, "eth_feeHistory", "[]")).await;
            assert_eq!((first.count("eth_feeHistory"), other.count("eth_feeHistory")), (one + 1, two), "{how}");
            sleep(Duration::from_millis(200)).await;
        }
        assert!((switches(&proxy).await - before).abs() < 0.5, "{how}: calls went elsewhere");
    }
}

/// A node that answers all but eth_call, on which it hangs.
async fn stuck(net: &Net) -> Origin {
    Origin::within(net, |seen| match seen.method().as_str() {
        "eth_call" => Reply::act(async |_io| pending().await),
        _ => Reply::result(seen, "\"from memory\""),
    })
    .await
}

/// Makes calls one after the other until one is answered at once; how long the others took.
async fn until_fast(proxy: &Proxy, most: usize, between: impl AsyncFn()) -> Vec<Duration> {
    let mut slow = Vec::new();
    while slow.len() < most {
        let asked = Instant::now();
        assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.text(), answer(1, "\"well\""));
        if asked.elapsed() < Duration::from_millis(500) {
            break;
        }
        slow.push(asked.elapsed());
        between().await;
    }
    slow
}

async fn stuck_and_well(net: &Net) -> (Origin, Origin, JoinSet<()>, Proxy) {
    let (first, well) = (stuck(net).await, Origin::within(net, |seen| Reply::result(seen, "\"well\"")).await);
    let chain = chain([&first, &well]);
    let proxy = Proxy::over(net, [first.url(), well.url()], "").await;
    (first, well, chain, proxy)
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_node_hangs_on_is_left_after_a_run() {
    let net = Net::default();
    let (first, _well, _chain, proxy) = stuck_and_well(&net).await;
    let slow = until_fast(&proxy, 2 * FALL, async || {}).await;
    assert_eq!(slow.len(), FALL, "{slow:?}");
    assert_eq!((first.count("eth_call"), &*proxy.verdicts().await[0]), (FALL, "up"));
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_node_hangs_on_is_left_and_others_go_on() {
    let net = Net::default();
    let (_first, _well, _chain, proxy) = stuck_and_well(&net).await;
    let slow = until_fast(&proxy, 4 * FALL, async || {
        proxy.post(call(2, "eth_blockNumber", "[]")).await;
    })
    .await;
    assert!(slow.len() < 4 * FALL, "still hanging after {} calls: {slow:?}", slow.len());
}

#[tokio::test(start_paused = true)]
async fn a_want_of_this_machine_takes_no_node_out() {
    const EMFILE: i32 = 24;
    let net = Net::default();
    let origins = [Origin::within(&net, well).await, Origin::within(&net, well).await];
    let _chain = chain(&origins);
    let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "[calls]\nhold = \"3s\"\n").await;
    let before = switches(&proxy).await;
    net.exhaust(Some(EMFILE));
    origins.iter().for_each(Origin::hang_up);
    let mut refused = 0;
    for id in 0..5 {
        for method in ["eth_call", "eth_sendTransaction"] {
            let answered = proxy.post(call(id, method, "[]")).await;
            assert_eq!(answered.json()["error"]["data"]["reason"], "out_of_resources", "{method}");
            refused += 1;
            assert_eq!(proxy.verdicts().await, ["up", "up"], "after {refused} calls");
        }
    }
    net.exhaust(None);
    for method in ["eth_call", "eth_sendTransaction"] {
        assert_eq!(proxy.post(call(1, method, "[]")).await.text(), answer(1, "\"well\""));
    }
    assert_eq!(origins.each_ref().map(|origin| origin.seen().len()), [2, 0]);
    assert!((switches(&proxy).await - before).abs() < 0.5, "calls went elsewhere");
}

fn well(seen: &Seen) -> Reply {
    Reply::result(seen, "\"well\"")
}

/// The node's pending block, one above its head, in the words of the call.
fn block_above(head: u64, seen: &Seen) -> Reply {
    let next = format!("0x{:x}", head + 1);
    let result = match seen.method().as_str() {
        "eth_getBlockReceipts" => format!(r#"[{{"blockNumber":"{next}"}}]"#),
        "eth_getTransactionByBlockNumberAndIndex" => format!(r#"{{"blockHash":null,"blockNumber":"{next}"}}"#),
        _ => format!(r#"{{"hash":null,"number":"{next}"}}"#),
    };
    Reply::result(seen, &result)
}

/// Polls two nodes, of which the second has each block first, and tells how many calls it got and
/// how often they went elsewhere.
async fn strays(method: &str, params: &str) -> (usize, f64) {
    let net = Net::default();
    let heads = [Arc::new(AtomicU64::new(100)), Arc::new(AtomicU64::new(100))];
    let mut origins = Vec::new();
    for head in &heads {
        let head = head.clone();
        origins.push(Origin::within(&net, move |seen| block_above(head.load(SeqCst), seen)).await);
    }
    let told = [origins[0].head(), origins[1].head()];
    let _blocks = JoinSet::from_iter([async move {
        loop {
            for (node, wait) in [(1, 600), (0, 1400)] {
                told[node].store(heads[node].fetch_add(1, SeqCst) + 1, SeqCst);
                sleep(Duration::from_millis(wait)).await;
            }
        }
    }]);
    let proxy = Proxy::over(&net, origins.iter().map(Origin::url), "").await;
    sleep(Duration::from_secs(15)).await;
    let before = switches(&proxy).await;
    let mut client = proxy.client().await;
    for id in 0..400 {
        let number = client.post(call(id, method, params)).await.text();
        assert!(number.contains("umber\":\"0x"), "{number}");
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(origins[0].count(method) + origins[1].count(method), 400);
    (origins[1].count(method), switches(&proxy).await - before)
}

#[tokio::test(start_paused = true)]
async fn asking_for_the_pending_block_moves_no_call_to_another_node() {
    for (method, params) in [
        ("eth_getBlockByNumber", r#"["pending",false]"#),
        ("eth_getBlockByNumber", r#"[ "pending" , true ]"#),
        ("eth_getHeaderByNumber", r#"["pending"]"#),
    ] {
        assert_eq!(strays(method, params).await, (0, 0.0), "{method}{params}");
    }
}

#[tokio::test(start_paused = true)]
async fn asking_for_what_is_in_the_pending_block_moves_nobody_either() {
    for (method, params) in [
        ("eth_getBlockReceipts", r#"["pending"]"#),
        ("eth_getTransactionByBlockNumberAndIndex", r#"["pending","0x0"]"#),
        ("eth_getBlockByNumber", r#"["\u0070ending",false]"#),
    ] {
        assert_eq!(strays(method, params).await, (0, 0.0), "{method}{params}");
    }
}

/// Judges what nodes say of a chain of a block every twelve seconds, from the very first report on.
struct Bench {
    memory: Memory,
    reports: Vec<Report>,
    start: Instant,
}

/// Unix time of the start.
const START_UNIX: u64 = 1_800_000_000;

impl Bench {
    fn new() -> Self {
        Self { memory: Memory::default(), reports: Vec::new(), start: Instant::now() }
    }

    /// The node says `number`, a block stamped so many seconds after the start; how it and those
    /// before it stand then.
    fn hears(&mut self, millis: u64, node: NodeId, number: u64, stamped: i64) -> Vec<HeadState> {
        let now = self.start + Duration::from_millis(millis);
        let moved = match self.reports.iter().find(|report| report.node == node) {
            Some(earlier) if earlier.number == number => earlier.moved,
            _ => now,
        };
        self.reports.retain(|report| report.node != node);
        let timestamp = START_UNIX.checked_add_signed(stamped).unwrap();
        self.reports.push(Report { node, number, timestamp, moved, heard: now });
        self.reports.sort_by_key(|report| report.node);
        let limit = Limit { blocks: 5, time: Duration::from_secs(2) };
        let (memory, judgement) = judge_heads(&self.memory, &self.reports, limit, now, START_UNIX + millis / 1000);
        self.memory = memory;
        judgement.standings
    }
}

#[tokio::test]
async fn a_node_alone_that_recovers_from_a_halt_is_believed() {
    let mut bench = Bench::new();
    for seconds in 0..3000_u64 {
        let block = if (600..2400).contains(&seconds) { 600 / 12 } else { seconds / 12 };
        let standings = bench.hears(seconds * 1000, NodeId(0), 1000 + block, (block * 12).cast_signed());
        assert!(!matches!(standings[0], HeadState::Implausible), "at {seconds}: {standings:?}");
    }
}

#[tokio::test]
async fn a_lead_at_the_start_does_not_count_against_an_old_block() {
    // The first block heard is up to a block time old, and a liar copies its timestamp.
    for age in [1, 5, 11, 30, 55] {
        for (lead, known) in [(6, true), (20, true), (1000, true), (20, false), (1000, false)] {
            let mut bench = Bench::new();
            if known {
                // As of a chain whose block time its id tells.
                bench.memory.know_slot(Duration::from_secs(12), true);
            }
            for seconds in 0..240_u64 {
                let block = (seconds + age) / 12;
                let stamped = (block * 12).cast_signed() - age.cast_signed() - if age > 12 { 12 } else { 0 };
                bench.hears(seconds * 1000, NodeId(0), 1000 + block, stamped);
                let standings = bench.hears(seconds * 1000 + 400, NodeId(1), 1000 + lead + block, stamped);
                assert!(matches!(standings[0], HeadState::Fit), "age {age}, lead {lead}, at {seconds}: {standings:?}");
            }
        }
    }
}
