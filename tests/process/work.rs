//! Work on what clients send grows as what they send: four times as much takes about four times the
//! processor's time, whatever it is.

use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    common::{
        SOON,
        client::{Client, call, post, with_headers},
        origin::Origin,
        proxy::nodes,
        rest::{self, Node},
    },
    harness::Process,
};

/// What a client sends, for a size.
type Input = fn(usize) -> Vec<Vec<u8>>;

/// What could cost more than its length: a name, the lengths to compare, and the writes that make
/// it.
const INPUTS: [(&str, usize, Input); 12] = [
    ("a path that is encoded many times over", 1_900, |n| vec![get(&format!("/eth/v1/%{}", "25".repeat(n / 2)), "")]),
    ("a path of many steps", 1_900, |n| vec![get(&format!("/eth/v1/{}", "%2e./".repeat(n / 5)), "")]),
    ("options of a connection beside headers", 40_000, |n| {
        let headers: String = (0..90).map(|i| format!("x-h{i}: a\r\n")).collect();
        vec![get("/eth/v1/node/version", &format!("{headers}connection: {}a\r\n", "a,".repeat(n / 2)))]
    }),
    ("options of a connection beside headers of a call", 40_000, |n| {
        let headers = format!("{}connection: {}a\r\n", "x-request-id: a\r\n".repeat(90), "a,".repeat(n / 2));
        vec![with_headers("/", &headers, call(1, "eth_chainId", "[]").as_bytes())]
    }),
    ("topics of events", 14_000, |n| vec![get(&format!("/eth/v1/events?topics={}!", "t,".repeat(n / 2)), "")]),
    ("a head that comes line by line", 3_500, |n| {
        let bytes = format!("POST / HTTP/1.1\r\nhost: x\r\nx-a: {}\r\ncontent-length: 2\r\n\r\n{{}}", "a".repeat(n));
        bytes.into_bytes().chunks(8).map(<[u8]>::to_vec).collect()
    }),
    ("many keys", 1 << 20, |n| {
        let keys: String = (0..n / 10).map(|i| format!("\"k{i:06}\":0,")).collect();
        vec![post("/", format!("{{{keys}\"method\":\"admin_x\",\"id\":1}}").as_bytes())]
    }),
    ("keys that are escaped", 1 << 20, |n| {
        let keys: String = (0..n / 16).map(|i| format!("\"\\u006b{i:06}\":0,")).collect();
        vec![post("/", format!("{{{keys}\"method\":\"admin_x\",\"id\":1}}").as_bytes())]
    }),
    ("a long list of numbers", 1 << 20, |n| {
        vec![post("/", call(1, "admin_x", &format!("[{}0]", "0,".repeat(n / 2))).as_bytes())]
    }),
    ("brackets that are never closed", 1 << 20, |n| vec![post("/", &b"[".repeat(n))]),
    ("spaces before a call", 1 << 20, |n| {
        vec![post("/", &[b" ".repeat(n), call(1, "admin_x", "[]").into_bytes()].concat())]
    }),
    ("a batch of what are no calls", 400, |n| vec![post("/", format!("[{}1]", "1,".repeat(n / 2)).as_bytes())]),
];

fn get(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_times_the_input_is_about_four_times_the_work() {
    let el = Origin::echo().await;
    let cl = Node::start(async |exchange: rest::Exchange| exchange.reply(rest::json("200 OK", "{}")).await).await;
    let settings = format!("{}\n[[cl.primary]]\nhttp = \"{}\"\n", nodes([el.url()]), cl.url());
    let process = Process::start(&settings, &[]).await;
    for (what, size, input) in INPUTS {
        let (small, large) = (work(&process, &input(size)).await, work(&process, &input(4 * size)).await);
        // Quadratic work would be sixteen times as much; what any request costs is taken as a
        // millisecond.
        assert!(large < 8 * small + 4_000_000, "{what}: {small} ns, and {large} ns for four times as much");
    }
}

/// Nanoseconds of the processor that the process needs for it: the least of some, since probes fall
/// into others.
async fn work(process: &Process, writes: &[Vec<u8>]) -> u64 {
    let mut least = u64::MAX;
    for _ in 0..4 {
        let before = process.nanoseconds();
        let mut client = Client::connect(process.clients()).await;
        for bytes in writes {
            let written = timeout(SOON, client.io.write_all(bytes)).await.expect("the write stalls");
            // It may be refused before all of it has come.
            if written.is_err() {
                break;
            }
            if writes.len() > 1 {
                tokio::task::yield_now().await;
            }
        }
        let _ = client.try_response().await;
        least = least.min(process.nanoseconds() - before);
    }
    least
}
