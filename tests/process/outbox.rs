//! The outbox of a process that is killed again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use alloy_primitives::B256;
use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Fault, Options};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    common::{
        client::{Client, call},
        devnet, signed,
    },
    harness::Process,
};

/// Times that the process is killed; `STEADFAST_KILLS` chooses another number.
const KILLS: usize = 8;
/// Between two transactions of a sender: four senders make 20 in a second.
const PAUSE: Duration = Duration::from_millis(200);
const SENDERS: u8 = 4;
/// How long what was acknowledged may take to its end.
const TIMEOUT: Duration = Duration::from_secs(120);

/// What an endpoint was told: type and hash by the id of the event.
type Told = Arc<Mutex<BTreeMap<String, (String, String)>>>;

/// An endpoint that takes each event, at a pace of its own.
async fn endpoint(told: Told) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut clients = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            clients.spawn(take(stream, told.clone()));
        }
    });
    (url, tasks)
}

async fn take(mut stream: TcpStream, told: Told) {
    let mut text = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut text).await {
        let whole = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = whole.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let (Some(length), Some(id)) = (field("content-length"), field("webhook-id")) else { return };
        if body.len() < length.parse().unwrap() {
            continue;
        }
        let body: Value = serde_json::from_str(body).unwrap();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let event = (word(&body["type"]), word(&body["data"]["hash"]));
        let known = told.lock().unwrap().insert(id.clone(), event.clone());
        assert!(known.is_none_or(|known| known == event), "{id} was told of two events");
        text.clear();
        if stream.write_all(b"HTTP/1.1 204 x\r\ncontent-length: 0\r\n\r\n").await.is_err() {
            return;
        }
    }
}

/// Sends a sender's transactions, one after the other and each until it is acknowledged, until the
/// process is gone. Tells those that were.
async fn sender(addr: std::net::SocketAddr, key: u8, from: u64) -> Vec<B256> {
    let mut acknowledged = Vec::new();
    let Ok(io) = TcpStream::connect(addr).await else { return acknowledged };
    let mut client = Client::over(io);
    for nonce in from.. {
        let (raw, hash) = signed::transaction(1337, key, nonce, 1);
        let body = call(nonce, "eth_sendRawTransaction", &format!("[\"{raw}\"]"));
        client.io.write_all(&crate::common::client::post("/", body.as_bytes())).await.ok();
        let Ok(Ok(response)) = timeout(Duration::from_secs(30), client.try_response()).await else { break };
        let answer = response.json();
        assert_eq!(answer["result"], json!(hash), "{answer}");
        acknowledged.push(hash);
        sleep(PAUSE).await;
    }
    acknowledged
}

fn settings(devnet: &Devnet, url: &str, dir: &std::path::Path) -> String {
    let nodes: Vec<_> = (0..3).map(|index| devnet.el(index)).collect();
    let nodes = crate::common::proxy::nodes(
        nodes.iter().map(|node| node.http_url()).collect::<Vec<_>>().iter().map(|url| &**url),
    );
    format!(
        "[outbox]\ndir = {:?}\nconfirmations = 2\n[[outbox.webhook]]\nname = \"all\"\nurl = \"{url}\"\n\
         events = [\"tx.accepted\", \"tx.mined\"]\nsecret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n\
         allow_private = \"127.0.0.1\"\n{nodes}",
        dir.display().to_string()
    )
}

/// U33, U60: whatever the moment of the death, what was acknowledged is mined once, and each event
/// is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_loses_no_transaction_and_no_event() {
    let kills = std::env::var("STEADFAST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let options = Options {
        execution: 3,
        own_mempools: true,
        block_time: Some(Duration::from_millis(400)),
        ..Options::default()
    };
    let devnet = devnet(options).await;
    let told = Told::default();
    let (url, _endpoint) = endpoint(told.clone()).await;
    let dir = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("killed-{}", std::process::id()));
    let settings = settings(&devnet, &url, &dir);
    let mut rng = fastrand::Rng::with_seed(11);
    let mut next = [0_u64; SENDERS as usize];
    let mut acknowledged = BTreeSet::new();
    for _ in 0..kills {
        let process = Process::start(&settings, &[]).await;
        let mut senders = JoinSet::new();
        for key in 0..SENDERS {
            let (addr, from) = (process.clients(), next[usize::from(key)]);
            senders.spawn(async move { (key, sender(addr, key + 1, from).await) });
        }
        let node = devnet.el(rng.usize(0..3)).clone();
        node.set_fault(if rng.bool() { Fault::Down } else { Fault::Forgetful });
        sleep(Duration::from_millis(rng.u64(20..2000))).await;
        // A kill without a warning.
        drop(process);
        node.clear_faults();
        while let Some(sent) = senders.join_next().await {
            let (key, sent) = sent.unwrap();
            // What was under way is sent once more in the next life.
            next[usize::from(key)] += sent.len() as u64;
            acknowledged.extend(sent);
        }
    }
    let mut process = Process::start(&settings, &[]).await;
    let (start, all) = (Instant::now(), acknowledged.len());
    let lacking = || {
        let head = devnet.chain().head().number;
        let blocks = (0..=head).filter_map(|number| devnet.chain().block(number));
        let mut mined = BTreeMap::<B256, usize>::new();
        for block in blocks {
            block.transactions.iter().for_each(|mined_in| *mined.entry(mined_in.transaction.hash).or_default() += 1);
        }
        let events: BTreeSet<(String, String)> = told.lock().unwrap().values().cloned().collect();
        let has = |kind: &str, hash: &B256| events.contains(&(kind.to_owned(), hash.to_string()));
        let lack = |hash: &&B256| mined.get(*hash) != Some(&1) || !has("tx.accepted", hash) || !has("tx.mined", hash);
        acknowledged.iter().filter(lack).count()
    };
    while lacking() > 0 {
        assert!(start.elapsed() < TIMEOUT, "{} of {all} lack a block or an event\n{}", lacking(), process.log());
        sleep(Duration::from_millis(200)).await;
    }
    assert!(all > kills, "too few were sent to show anything: {all}");
    // U51: the end in order counts what stays.
    assert!(process.terminate(), "{}", process.log());
    assert!(process.log().contains("the outbox is closed"), "{}", process.log());
    std::fs::remove_dir_all(&dir).unwrap();
}
