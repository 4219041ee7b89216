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
async fn calls_of_one_method_that_another_node_answers_take_nobody_out_and_move_no_other_calls() {
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
        // What speaks of the call says nothing of the next. What the node may be to blame for is not tried each time.
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

/// What a node does that is no good for calls, though its probes are well.
fn broken(seen: &Seen, how: &str) -> Reply {
    match how.split_once(' ') {
        Some(("error", code)) => Reply::error(seen, code.parse().unwrap(), "Internal error"),
        Some(("state", _)) => Reply::error(seen, -32000, "missing trie node 12ab"),
        _ => refuse(how),
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_fails_what_others_answer_is_out_though_its_probes_are_well_until_it_answers_too() {
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
async fn no_client_talks_a_node_down_with_calls_of_many_methods_that_fail_there_by_nature() {
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
async fn a_method_that_a_node_hangs_on_is_left_after_a_run_of_its_calls() {
    let net = Net::default();
    let (first, _well, _chain, proxy) = stuck_and_well(&net).await;
    let slow = until_fast(&proxy, 2 * FALL, async || {}).await;
    assert_eq!(slow.len(), FALL, "{slow:?}");
    assert_eq!((first.count("eth_call"), &*proxy.verdicts().await[0]), (FALL, "up"));
}

#[tokio::test(start_paused = true)]
async fn a_method_that_a_node_hangs_on_is_left_though_the_node_answers_others() {
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
        let limit = Limit { blocks: 5, time: Duration::from_secs(2) };
        let (memory, judgement) = judge(&self.memory, &self.reports, limit, now, DAWN + millis / 1000);
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
                bench.memory.know_slot(Duration::from_secs(12), true);
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

/// A proxy before the one execution node of a pretend network, up.
async fn alone(net: &Net, settings: &str) -> (Devnet, Proxy) {
    let options = Options { execution: 1, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let url = devnet.el(0).http_url();
    let proxy = Proxy::over(net, [], &(settings.to_owned() + &common::proxy::nodes([&*url]))).await;
    until("it is up", async || proxy.verdicts().await == ["up"]).await;
    (devnet, proxy)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_takes_its_time_over_everything_is_not_silent() {
    for (timeout, slow) in [(2, 1200), (2, 1900), (6, 5800)] {
        let net = Net::default();
        let settings = format!("calls.attempt_timeout = \"20s\"\nhealth = {{ timeout = \"{timeout}s\" }}\n");
        let (devnet, proxy) = alone(&net, &settings).await;
        devnet.el(0).set_fault(Fault::slow(slow));
        // Of a node that was quick until now, nobody can tell whether it will be slow or silent.
        sleep(Duration::from_millis(2 * slow)).await;
        for id in 0..20 {
            let asked = Instant::now();
            let text = proxy.post(call(id, "eth_gasPrice", "[]")).await.text();
            assert_eq!(
                (text, proxy.verdicts().await),
                (answer(id, "\"0x3b9aca00\""), vec!["up".to_owned()]),
                "{slow} ms"
            );
            assert!(asked.elapsed() < Duration::from_millis(slow + 100), "{slow} ms: {:?}", asked.elapsed());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_works_on_a_long_call_and_is_slow_with_probes_meanwhile_is_not_silent() {
    let net = Net::default();
    let (devnet, proxy) = alone(&net, "calls.attempt_timeout = \"20s\"\nhealth = { timeout = \"5s\" }\n").await;
    devnet.el(0).set_fault(Fault::slow(1100));
    sleep(Duration::from_secs(3)).await;
    let text = proxy.post(call(1, "dev_sleep", "[9000]")).await.text();
    assert_eq!((text, proxy.verdicts().await), (answer(1, "9000"), vec!["up".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_hangs_with_calls_in_flight_is_out_after_two_seconds() {
    let net = Net::default();
    let (devnet, proxy) = alone(&net, "").await;
    proxy.post(call(1, "eth_gasPrice", "[]")).await;
    devnet.el(0).set_fault(Fault::Hang);
    let mut client = proxy.client().await;
    client.send(common::client::post("/", call(1, "eth_gasPrice", "[]").as_bytes())).await;
    let start = Instant::now();
    until("it is out", async || proxy.verdicts().await == ["down"]).await;
    assert!(start.elapsed() < Duration::from_millis(2300), "{:?}", start.elapsed());
}

async fn both_sides(net: &Net, nodes: usize, settings: &str) -> (Devnet, Proxy) {
    let options = Options { execution: nodes, consensus: nodes, ..Options::default() };
    let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
    let urls = |side: &str| -> Vec<String> { (0..nodes).map(|i| node(&devnet, side, i).http_url()).collect() };
    let (el, cl) = (urls("el"), urls("cl"));
    let nodes = common::proxy::nodes(el.iter().map(String::as_str)) + &common::rest::nodes(&cl);
    let proxy = Proxy::launch(net, &(settings.to_owned() + &nodes)).await;
    for side in SIDES {
        until("all are up", async || verdicts(&proxy, side).await.iter().all(|verdict| verdict == "up")).await;
    }
    (devnet, proxy)
}

const SIDES: [&str; 2] = ["el", "cl"];

fn node<'a>(devnet: &'a Devnet, side: &str, index: usize) -> &'a Arc<steadfast::devnet::Node> {
    if side == "el" { devnet.el(index) } else { devnet.cl(index) }
}

async fn verdicts(proxy: &Proxy, side: &str) -> Vec<String> {
    let side = proxy.admin("/status").await.json()["networks"][0][side].take();
    let nodes = side["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["verdict"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_to_serve_another_chain_without_going_down_is_found_within_a_minute() {
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 2, "").await;
    for side in SIDES {
        node(&devnet, side, 0).set_fault(Fault::wrong_chain(5));
        let start = Instant::now();
        while verdicts(&proxy, side).await != ["wrong_chain", "up"] {
            assert!(start.elapsed() < Duration::from_secs(63), "{side}");
            sleep(Duration::from_millis(100)).await;
        }
        node(&devnet, side, 0).clear_faults();
        let start = Instant::now();
        while verdicts(&proxy, side).await != ["up", "up"] {
            assert!(start.elapsed() < Duration::from_secs(63), "{side}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_join_has_the_chain_asked_at_once() {
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 2, "").await;
    for side in SIDES {
        node(&devnet, side, 0).set_fault(Fault::wrong_chain(5));
        devnet.chain().reorg(1).unwrap();
        let start = Instant::now();
        until("it is found", async || verdicts(&proxy, side).await == ["wrong_chain", "up"]).await;
        assert!(start.elapsed() < Duration::from_millis(2500), "{side}: {:?}", start.elapsed());
        node(&devnet, side, 0).clear_faults();
        devnet.chain().reorg(1).unwrap();
        until("it is back", async || verdicts(&proxy, side).await == ["up", "up"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_down_have_no_vote_on_the_chain_and_the_last_one_alive_is_used() {
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 3, "").await;
    for side in SIDES {
        node(&devnet, side, 2).set_fault(Fault::wrong_chain(5));
        sleep(Duration::from_secs(62)).await;
        assert_eq!(verdicts(&proxy, side).await, ["up", "up", "wrong_chain"]);
        for dead in 0..2 {
            node(&devnet, side, dead).set_fault(Fault::Down);
        }
        until("the last one serves", async || verdicts(&proxy, side).await == ["down", "down", "up"]).await;
        // One of those that were there first is back, and has its place.
        node(&devnet, side, 0).clear_faults();
        until("it is home", async || verdicts(&proxy, side).await == ["up", "down", "wrong_chain"]).await;
        node(&devnet, side, 1).clear_faults();
        node(&devnet, side, 2).clear_faults();
        until("all are back", async || verdicts(&proxy, side).await[..2] == ["up", "up"]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_operator_names_the_chain_no_vote_changes_it() {
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 2, "chain_id = 1337\n").await;
    for side in SIDES {
        node(&devnet, side, 1).set_fault(Fault::wrong_chain(5));
        sleep(Duration::from_secs(62)).await;
        node(&devnet, side, 0).set_fault(Fault::Down);
        sleep(Duration::from_secs(10)).await;
        assert_eq!(verdicts(&proxy, side).await, ["down", "wrong_chain"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_say_whether_it_syncs_is_well_in_whatever_words() {
    const SYNCING: [&str; 2] = ["eth_syncing", "GET /eth/v1/node/syncing"];
    let net = Net::default();
    let (devnet, proxy) = both_sides(&net, 1, "").await;
    let mut faults = vec![("not offered", Fault::not_offered(&SYNCING)), ("no quota", Fault::quota(&SYNCING))];
    for status in [400, 403, 404, 405, 410, 422, 501] {
        faults.push(("a status", Fault::http_status(status, &SYNCING)));
    }
    for (what, fault) in faults {
        for side in SIDES {
            node(&devnet, side, 0).set_fault(fault.clone());
        }
        for _ in 0..50 {
            sleep(Duration::from_millis(200)).await;
            for side in SIDES {
                assert_eq!(verdicts(&proxy, side).await, ["up"], "{side}, {what}: {fault:?}");
            }
        }
        devnet.nodes().for_each(|node| node.clear_faults());
    }
    // What must be known is not let pass.
    for fault in [
        Fault::http_status(403, &["eth_getBlockByNumber", "GET /eth/v1/beacon/headers/head"]),
        Fault::not_offered(&["eth_getBlockByNumber", "GET /eth/v1/beacon/headers/head"]),
        Fault::http_status(500, &SYNCING),
        Fault::http_status(401, &SYNCING),
    ] {
        for side in SIDES {
            node(&devnet, side, 0).set_fault(fault.clone());
            until("it is out", async || verdicts(&proxy, side).await == ["down"]).await;
            node(&devnet, side, 0).clear_faults();
            until("it is back", async || verdicts(&proxy, side).await == ["up"]).await;
        }
        // Flapping would be held against it.
        sleep(Duration::from_secs(700)).await;
    }
}
