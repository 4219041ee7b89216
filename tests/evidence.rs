//! What is held against a node and what is not, on a network of memory under a simulated clock.
#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod common;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{
    client::call,
    origin::{Origin, Reply, Seen, chain, response},
    sim::{Net, Proxy},
    until,
};
use steadfast::{
    devnet::{Devnet, Fault, Options},
    pool::head::{Limit, Memory, Report, Standing, judge},
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

/// What nodes and what stands before them do with a call that they will not have.
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
async fn a_call_that_every_node_refuses_takes_none_out_however_often_it_is_made() {
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
                status @ ("413" | "400" | "431") => (status.parse().unwrap(), "rejected"),
                _ => (503, "no_node"),
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
async fn a_run_of_calls_that_another_node_answers_well_takes_the_failing_one_out() {
    for how in REFUSALS {
        let net = Net::default();
        let first = refusing(&net, how).await;
        let well = Origin::within(&net, |seen| Reply::result(seen, "\"well\"")).await;
        let _chain = chain([&first, &well]);
        let proxy = Proxy::over(&net, [first.url(), well.url()], "").await;
        for id in 1..=FALL {
            assert_eq!(proxy.verdicts().await, ["up", "up"], "{how}, before call {id}");
            assert_eq!(proxy.post(call(id, BAD, "[]")).await.text(), answer(id, "\"well\""), "{how}");
        }
        let asked = Instant::now();
        until("it is out", async || proxy.verdicts().await == ["down", "up"]).await;
        assert!(asked.elapsed() < Duration::from_millis(100), "{how}: {:?}", asked.elapsed());
        let before = first.count(BAD);
        assert_eq!(proxy.post(call(0, BAD, "[]")).await.text(), answer(0, "\"well\""));
        assert_eq!((first.count(BAD), well.count(BAD)), (before, FALL + 1), "{how}");
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
async fn a_node_that_answers_probes_but_no_calls_is_left_after_a_run_of_them() {
    let net = Net::default();
    let (first, _well, _chain, proxy) = stuck_and_well(&net).await;
    let slow = until_fast(&proxy, 2 * FALL, async || {}).await;
    assert_eq!(slow.len(), FALL, "{slow:?}");
    assert_eq!((first.count("eth_call"), &*proxy.verdicts().await[0]), (FALL, "down"));
}

#[tokio::test(start_paused = true)]
async fn a_node_stuck_on_one_kind_of_call_is_left_though_it_answers_other_kinds() {
    let net = Net::default();
    let (_first, _well, _chain, proxy) = stuck_and_well(&net).await;
    let slow = until_fast(&proxy, 4 * FALL, async || {
        proxy.post(call(2, "eth_blockNumber", "[]")).await;
    })
    .await;
    assert!(slow.len() < 4 * FALL, "still hanging after {} calls: {slow:?}", slow.len());
}

#[tokio::test(start_paused = true)]
async fn what_this_machine_lacks_takes_no_node_out() {
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
            assert_eq!(answered.json()["error"]["data"]["reason"], "no_node", "{method}");
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

/// Polls two nodes, of which the second has each block first, and tells how many calls it got and how often they went elsewhere.
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
async fn asking_for_the_pending_block_moves_nobody_to_the_node_that_is_first_with_each_block() {
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
const DAWN: u64 = 1_800_000_000;

impl Bench {
    fn new() -> Self {
        Self { memory: Memory::default(), reports: Vec::new(), start: Instant::now() }
    }

    /// The node says `number`, a block stamped so many seconds after the start; how it and those before it stand then.
    fn hears(&mut self, millis: u64, node: usize, number: u64, stamped: i64) -> Vec<Standing> {
        let now = self.start + Duration::from_millis(millis);
        let moved = match self.reports.iter().find(|report| report.node == node) {
            Some(earlier) if earlier.number == number => earlier.moved,
            _ => now,
        };
        self.reports.retain(|report| report.node != node);
        let timestamp = DAWN.checked_add_signed(stamped).unwrap();
        self.reports.push(Report { node, number, timestamp, moved, heard: now });
        self.reports.sort_by_key(|report| report.node);
        let (memory, judgement) =
            judge(&self.memory, &self.reports, Limit { blocks: 5, time: Duration::ZERO }, now, DAWN + millis / 1000);
        self.memory = memory;
        judgement.standings
    }
}

#[tokio::test]
async fn a_node_alone_that_recovers_from_a_halt_is_believed() {
    let mut bench = Bench::new();
    for seconds in 0..3000_u64 {
        let block = if (600..2400).contains(&seconds) { 600 / 12 } else { seconds / 12 };
        let standings = bench.hears(seconds * 1000, 0, 1000 + block, (block * 12).cast_signed());
        assert!(!matches!(standings[0], Standing::Implausible), "at {seconds}: {standings:?}");
    }
}

#[tokio::test]
async fn a_lead_at_the_start_does_not_count_against_a_block_as_old_as_blocks_get() {
    // The first block heard is up to a block time old, and a liar copies its timestamp.
    for age in [1, 5, 11, 30, 55] {
        for (lead, known) in [(6, true), (20, true), (1000, true), (20, false), (1000, false)] {
            let mut bench = Bench::new();
            if known {
                // As of a chain whose block time its id tells.
                bench.memory.know_slot(Duration::from_secs(12));
            }
            for seconds in 0..240_u64 {
                let block = (seconds + age) / 12;
                let stamped = (block * 12).cast_signed() - age.cast_signed() - if age > 12 { 12 } else { 0 };
                bench.hears(seconds * 1000, 0, 1000 + block, stamped);
                let standings = bench.hears(seconds * 1000 + 400, 1, 1000 + lead + block, stamped);
                assert!(matches!(standings[0], Standing::Fit), "age {age}, lead {lead}, at {seconds}: {standings:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_its_time_over_probes_is_not_silent_and_one_that_hangs_is_out_though_nobody_calls() {
    for (timeout, slow, limit) in [(2, 1500, 3200), (2, 1900, 3200), (6, 2500, 7200), (6, 5800, 7200)] {
        let net = Net::default();
        let options = Options { execution: 1, ..Options::default() };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let node = devnet.el(0);
        let health = format!("health = {{ timeout = \"{timeout}s\" }}\n");
        let url = node.http_url();
        let proxy = Proxy::over(&net, [], &(health + &common::proxy::nodes([&*url]))).await;
        until("it is up", async || proxy.verdicts().await == ["up"]).await;
        node.set_fault(Fault::slow(slow));
        for _ in 0..600 {
            sleep(Duration::from_millis(100)).await;
            assert_eq!((proxy.verdicts().await, proxy.in_flight().await), (vec!["up".to_owned()], 0), "{slow} ms");
        }
        node.clear_faults();
        sleep(Duration::from_secs(10)).await;
        node.set_fault(Fault::Hang);
        let start = Instant::now();
        until("it is out", async || proxy.verdicts().await == ["down"]).await;
        let took = start.elapsed().as_millis();
        assert!(took < limit, "out after {took} ms, of a probe's {timeout} s");
    }
}
