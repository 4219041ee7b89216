//! A consensus node over raw connections, whose events a test gives word by word.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::common::sim::Net;
use serde_json::{Value, json};
use steadfast::net::{BoxIo, Listen};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    sync::broadcast,
    task::JoinSet,
    time::{Instant, sleep},
};

/// The Unix time at which the clock of a test begins, in seconds.
const EPOCH: u64 = 1_700_000_000;

thread_local! {
    /// When the clock of the test on this thread began.
    static BEGINNING: Instant = Instant::now();
}

/// What a node does when it is asked for a set of topics.
#[derive(Clone)]
pub enum Reaction {
    /// It answers with this status and body.
    Refuse(&'static str, String),
    /// It does not answer.
    Hang,
    /// It opens a stream, and ends that at once.
    End,
}

struct Shared {
    head: AtomicU64,
    syncing: AtomicBool,
    /// It does not answer when it is asked for a header by its root.
    hides: AtomicBool,
    /// Its answer to such a question, where it is not the header.
    words: Mutex<Option<&'static str>>,
    /// It answers nothing, and closes each connection that is asked over, but for its streams.
    breaks: AtomicBool,
    /// It closes each new connection at once.
    is_full: AtomicBool,
    /// Its chain has no genesis yet.
    is_early: AtomicBool,
    is_fast: AtomicBool,
    events: broadcast::Sender<(String, String)>,
    reactions: Mutex<BTreeMap<String, Reaction>>,
    /// The same for the next time only.
    single: Mutex<BTreeMap<String, Reaction>>,
    asked: Mutex<Vec<String>>,
    streams: AtomicUsize,
}

/// A running node. Its chain has a block at each slot, and the root of a block is its slot.
pub struct Teller {
    url: String,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

/// The root of the block at a slot.
pub fn root(slot: u64) -> String {
    format!("0x{slot:064x}")
}

/// A slot that lies a little before the present one.
pub fn present() -> u64 {
    (now() - genesis()) / 12 - 4
}

/// The slot of now, where slots are seconds.
pub fn second() -> u64 {
    now() - genesis()
}

/// The Unix time of the test's own clock, in seconds.
pub fn now() -> u64 {
    EPOCH + BEGINNING.with(Instant::elapsed).as_secs()
}

fn genesis() -> u64 {
    // The same for all nodes, and long ago.
    (now() / 1_000_000 - 1) * 1_000_000
}

impl Teller {
    pub async fn start(net: &Net, head: u64) -> Self {
        let mut listener = net.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let url = format!("http://{}", listener.local_addr());
        let shared = Arc::new(Shared {
            head: AtomicU64::new(head),
            syncing: AtomicBool::new(false),
            hides: AtomicBool::new(false),
            words: Mutex::default(),
            breaks: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            is_early: AtomicBool::new(false),
            is_fast: AtomicBool::new(false),
            events: broadcast::Sender::new(10_000),
            reactions: Mutex::default(),
            single: Mutex::default(),
            asked: Mutex::default(),
            streams: AtomicUsize::new(0),
        });
        let mut task = JoinSet::new();
        let serving = shared.clone();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (incoming, _) = listener.accept().await.unwrap();
                let io = incoming.open().unwrap();
                if serving.is_full.load(SeqCst) {
                    continue;
                }
                let shared = serving.clone();
                connections.spawn(async move { serve(io, &shared).await });
            }
        });
        Self { url, shared, _task: task }
    }

    /// The same, known by a URL that goes on with this path.
    pub fn under(mut self, path: &str) -> Self {
        self.url += path;
        self
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn set_syncing(&self, syncing: bool) {
        self.shared.syncing.store(syncing, SeqCst);
    }

    /// From now on it does not answer when it is asked for a header by its root, or does again.
    pub fn set_hiding(&self, hides: bool) {
        self.shared.hides.store(hides, SeqCst);
    }

    /// From now on it answers with this text when it is asked for a header by its root.
    pub fn says_of_headers(&self, text: &'static str) {
        *self.shared.words.lock().unwrap() = Some(text);
    }

    /// Its slots are seconds, and four of them an epoch.
    pub fn set_fast(&self) {
        self.shared.is_fast.store(true, SeqCst);
    }

    /// From now on its chain has no genesis yet, or has one.
    pub fn set_early(&self, is_early: bool) {
        self.shared.is_early.store(is_early, SeqCst);
    }

    /// From now on it closes each connection that it is asked over, and, if it `is_full`, each new
    /// one at once; its streams go on.
    pub fn set_breaking(&self, is_full: bool) {
        self.shared.breaks.store(true, SeqCst);
        self.shared.is_full.store(is_full, SeqCst);
    }

    /// From now on it does so when it is asked for exactly these topics, in order and with commas between.
    pub fn reacts(&self, topics: &str, reaction: Reaction) {
        self.shared.reactions.lock().unwrap().insert(topics.to_owned(), reaction);
    }

    /// It does so the next time that it is asked for these topics, and not again.
    pub fn reacts_once(&self, topics: &str, reaction: Reaction) {
        self.shared.single.lock().unwrap().insert(topics.to_owned(), reaction);
    }

    /// Ends its open streams.
    pub fn end_streams(&self) {
        self.tell("", "");
    }

    /// Streams that are open.
    pub fn streams(&self) -> usize {
        self.shared.streams.load(SeqCst)
    }

    /// The sets of topics that it was asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// Tells an event on all streams that have its topic.
    pub fn tell(&self, topic: &str, data: &str) {
        // That nobody listens is a matter of the test.
        let _ = self.shared.events.send((topic.to_owned(), data.to_owned()));
    }

    /// Its head is at this slot now; its streams do not tell.
    pub fn set_head(&self, slot: u64) {
        self.shared.head.store(slot, SeqCst);
    }

    /// Its head is at this slot now, and its streams tell the block and the head, with `more` in both.
    pub fn advance(&self, slot: u64, more: &str) {
        self.set_head(slot);
        self.tell("block", &json!({"slot": slot.to_string(), "block": root(slot), "more": more}).to_string());
        let head = json!({
            "slot": slot.to_string(), "block": root(slot), "state": root(0), "more": more,
            "previous_duty_dependent_root": root(1), "current_duty_dependent_root": root(2),
        });
        self.tell("head", &head.to_string());
    }
}

async fn serve(mut io: BoxIo, shared: &Shared) {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            if io.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
                continue;
            }
            return;
        }
        if shared.breaks.load(SeqCst) {
            return;
        }
        let head = String::from_utf8(std::mem::take(&mut read)).unwrap();
        let target = head.split(' ').nth(1).unwrap();
        let target = target[target.find("/eth/").unwrap()..].to_owned();
        if let Some(topics) = target.strip_prefix("/eth/v1/events?topics=") {
            return events(io, shared, topics).await;
        }
        if target.starts_with("/eth/v1/beacon/headers/0x") && shared.hides.load(SeqCst) {
            return sleep(Duration::from_secs(60)).await;
        }
        let words = *shared.words.lock().unwrap();
        let (status, body) = match words.filter(|_| target.starts_with("/eth/v1/beacon/headers/0x")) {
            Some(words) => ("200 OK", words.to_owned()),
            None => answer(shared, &target),
        };
        if send(&mut io, status, &body).await.is_none() {
            return;
        }
    }
}

async fn send(io: &mut BoxIo, status: &str, body: &str) -> Option<()> {
    let length = body.len();
    let text = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    io.write_all(text.as_bytes()).await.ok()
}

async fn events(mut io: BoxIo, shared: &Shared, topics: &str) {
    shared.asked.lock().unwrap().push(topics.to_owned());
    let single = shared.single.lock().unwrap().remove(topics);
    let reaction = shared.reactions.lock().unwrap().get(topics).cloned();
    match single.or(reaction) {
        Some(Reaction::Refuse(status, body)) => {
            send(&mut io, status, &body).await;
            return;
        }
        Some(Reaction::Hang) => return sleep(Duration::from_secs(60)).await,
        Some(Reaction::End) => {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            let _ = io.write_all(head.as_bytes()).await;
            return;
        }
        None => {}
    }
    let mut events = shared.events.subscribe();
    let _open = Open::new(shared);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    if io.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let (mut from, mut to) = split(io);
    let mut end = [0];
    loop {
        tokio::select! {
            _ = from.read(&mut end) => return,
            event = events.recv() => {
                let (topic, data) = event.unwrap();
                if topic.is_empty() {
                    return;
                }
                let text = format!("event: {topic}\ndata: {data}\n\n");
                if topics.split(',').any(|wanted| wanted == topic) && to.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Counts a stream.
struct Open<'a>(&'a Shared);

impl<'a> Open<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.streams.fetch_add(1, SeqCst);
        Self(shared)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, SeqCst);
    }
}

fn answer(shared: &Shared, target: &str) -> (&'static str, String) {
    let head = shared.head.load(SeqCst);
    let steps: Vec<&str> = target.split('?').next().unwrap().trim_matches('/').split('/').skip(2).collect();
    let is_early = shared.is_early.load(SeqCst);
    let data = match steps[..] {
        ["beacon", ..] if is_early => return not_found("the genesis is not known yet"),
        ["node", "health"] => {
            return (if shared.syncing.load(SeqCst) { "206 Partial Content" } else { "200 OK" }, String::new());
        }
        ["node", "syncing"] => json!({
            "head_slot": head.to_string(), "sync_distance": "0", "is_syncing": shared.syncing.load(SeqCst),
            "is_optimistic": false, "el_offline": false,
        }),
        ["beacon", "genesis"] => json!({
            "genesis_time": genesis().to_string(), "genesis_validators_root": root(7),
            "genesis_fork_version": "0x00000001",
        }),
        ["config", "spec"] if shared.is_fast.load(SeqCst) => {
            json!({ "SECONDS_PER_SLOT": "1", "SLOTS_PER_EPOCH": "4", "DEPOSIT_CHAIN_ID": "1337" })
        }
        ["config", "spec"] => {
            json!({ "SECONDS_PER_SLOT": "12", "SLOTS_PER_EPOCH": "32", "DEPOSIT_CHAIN_ID": "1337" })
        }
        ["beacon", "headers", id] => {
            let slot = if id == "head" { head } else { u64::from_str_radix(&id[50..], 16).unwrap() };
            if slot > head {
                return not_found("not here");
            }
            header(slot)
        }
        ["beacon", "states", _, "finality_checkpoints"] => json!({"finalized": {"epoch": "0", "root": root(0)}}),
        ["beacon", "blocks", slot, "root"] if slot != "genesis" => json!({ "root": root(slot.parse().unwrap()) }),
        _ => return not_found("not here"),
    };
    ("200 OK", json!({ "data": data }).to_string())
}

fn not_found(message: &str) -> (&'static str, String) {
    ("404 Not Found", json!({ "code": 404, "message": message }).to_string())
}

fn header(slot: u64) -> Value {
    json!({
        "root": root(slot), "canonical": true, "header": {
            "message": {
                "slot": slot.to_string(), "proposer_index": "1", "parent_root": root(slot - 1), "state_root": root(0),
                "body_root": root(0),
            },
            "signature": "0x",
        },
    })
}
