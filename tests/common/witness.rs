//! A WebSocket client that subscribes, calls without pause, and checks all that it receives
//! against the promises.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use alloy_primitives::{Bloom, BloomInput};
use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep_until, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, protocol::CloseFrame},
};

use super::SOON;

/// The pretend nodes' answer to `eth_gasPrice`.
pub const GAS_PRICE: &str = "0x3b9aca00";

/// The task of a witness.
#[derive(Clone)]
pub struct Plan {
    /// Its number among the witnesses.
    pub number: usize,
    /// Its name in what it says.
    pub name: String,
    pub seed: u64,
    /// Milliseconds between two calls.
    pub pace: Range<u64>,
    /// When it stops calling.
    pub calls_until: Instant,
    /// When it stops listening.
    pub end: Instant,
    /// How long an answer may take.
    pub time_limit: Duration,
    /// The filter of its subscription to logs.
    pub filter: Value,
    /// Whether it fetches each block as it hears of it, which must be there.
    pub fetches: bool,
    /// Whether it may be closed with 1013, since something was not to be had.
    pub may_be_closed: bool,
    /// Blocks up to this height are the same on every node, whatever befalls it.
    pub old_blocks: u64,
    /// The head of the network at this moment.
    pub tip: std::sync::Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// The news that a witness heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The messages, each with its moment since the start.
    pub lines: Vec<(Duration, String)>,
    /// The headers of the chain as told, oldest first: number and hash.
    pub heads: Vec<(u64, String)>,
    /// The logs that stand, in their order: number and hash of the block, and the place in it.
    pub logs: Vec<(u64, String, u64)>,
    /// The network's height when the subscriptions were answered: from the next block on, nothing
    /// may be missing.
    pub since: u64,
    /// Notifications, of heads and of logs.
    pub notified: (usize, usize),
    pub calls: usize,
    /// When it was closed with 1013, and why.
    pub closed: Option<(Duration, String)>,
    /// The longest that an answer took.
    pub worst: Duration,
    /// The longest time between two heads.
    pub quiet: Duration,
}

/// The right answer to a call.
enum Expected {
    Result(String),
    Block(String),
    Subscription(&'static str),
    Batch(Vec<String>),
}

struct Witness<S> {
    plan: Plan,
    socket: WebSocketStream<S>,
    rng: Rng,
    start: Instant,
    asked: BTreeMap<String, (Instant, Expected)>,
    subscriptions: BTreeMap<String, &'static str>,
    parents: Vec<String>,
    last_head: Option<Instant>,
    count: u64,
    report: Report,
}

/// Does as `plan` says over `io` until its end.
///
/// # Panics
/// When a promise is broken.
pub async fn witness<S: AsyncRead + AsyncWrite + Unpin>(io: S, plan: Plan) -> Report {
    let opening = timeout(SOON, client_async("ws://proxy/", io)).await;
    let (socket, _) = opening.expect("no answer to the upgrade").expect("no WebSocket");
    let mut witness = Witness {
        socket,
        rng: Rng::with_seed(plan.seed),
        start: Instant::now(),
        asked: BTreeMap::new(),
        subscriptions: BTreeMap::new(),
        parents: Vec::new(),
        last_head: None,
        count: 0,
        report: Report::default(),
        plan,
    };
    witness.run().await;
    witness.report
}

impl<S: AsyncRead + AsyncWrite + Unpin> Witness<S> {
    async fn run(&mut self) {
        let filter = self.plan.filter.to_string();
        self.ask("eth_subscribe", r#"["newHeads"]"#, Expected::Subscription("newHeads")).await;
        self.ask("eth_subscribe", &format!(r#"["logs",{filter}]"#), Expected::Subscription("logs")).await;
        let mut next_call = Instant::now();
        while Instant::now() < self.plan.end && self.report.closed.is_none() {
            let due = if next_call < self.plan.calls_until { next_call } else { self.plan.end };
            let overdue = self.asked.values().map(|(at, _)| *at + self.plan.time_limit).min();
            tokio::select! {
                biased;
                message = self.socket.next() => match message {
                    Some(Ok(message)) => self.hear(message).await,
                    other => self.fail(&format!("the connection ended: {other:?}")),
                },
                () = sleep_until(overdue.unwrap_or(self.plan.end)), if overdue.is_some() => {
                    let late: Vec<_> = self.asked.keys().collect();
                    self.fail(&format!("no answer within {:?} to one of {late:?}", self.plan.time_limit));
                }
                () = sleep_until(due) => {
                    if due == next_call {
                        self.call().await;
                        next_call += Duration::from_millis(self.rng.u64(self.plan.pace.clone()));
                    }
                }
            }
        }
        if !self.asked.is_empty() && self.report.closed.is_none() {
            self.fail(&format!("never answered: {:?}", self.asked.keys()));
        }
    }

    fn fail(&self, what: &str) -> ! {
        let lines = &self.report.lines;
        let tail: Vec<_> = lines[lines.len().saturating_sub(12)..]
            .iter()
            .map(|(at, text)| format!("  {at:?} {}", text.chars().take(300).collect::<String>()))
            .collect();
        panic!("{} at {:?}: {what}\n{}", self.plan.name, self.start.elapsed(), tail.join("\n"));
    }

    fn id(&mut self) -> String {
        self.count += 1;
        match self.rng.u8(..4) {
            0 => format!("\"{}-{}\"", self.plan.name, self.count),
            1 => format!("1234567890123456789{}", self.count),
            _ => self.count.to_string(),
        }
    }

    async fn ask(&mut self, method: &str, params: &str, expected: Expected) {
        let id = self.id();
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        self.asked.insert(id, (Instant::now(), expected));
        self.send(text).await;
    }

    async fn send(&mut self, text: String) {
        let message =
            if self.rng.u8(..8) == 0 { Message::Binary(text.into_bytes().into()) } else { Message::text(text) };
        timeout(SOON, self.socket.send(message)).await.expect("the write stalls").expect("the connection ended");
    }

    async fn call(&mut self) {
        self.report.calls += 1;
        match self.rng.u8(..4) {
            0 => {
                let height = self.rng.u64(1..=self.plan.old_blocks);
                let number = format!("0x{height:x}");
                self.ask("eth_getBlockByNumber", &format!(r#"["{number}",false]"#), Expected::Block(number)).await;
            }
            1 => {
                let (one, two) = (self.id(), self.id());
                let call = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_gasPrice","params":[]}}"#);
                let text = format!("[{},{}]", call(&one), call(&two));
                let answer = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{GAS_PRICE}"}}"#);
                let answers = vec![answer(&one), answer(&two)];
                self.asked.insert(one, (Instant::now(), Expected::Batch(answers)));
                self.send(text).await;
            }
            _ => self.ask("eth_gasPrice", "[]", Expected::Result(GAS_PRICE.into())).await,
        }
    }

    async fn hear(&mut self, message: Message) {
        let text = match message {
            Message::Text(text) => text.as_str().to_owned(),
            Message::Ping(_) | Message::Pong(_) => return,
            Message::Close(Some(CloseFrame { code, reason })) if u16::from(code) == 1013 && self.plan.may_be_closed => {
                self.report.closed = Some((self.start.elapsed(), reason.to_string()));
                return;
            }
            Message::Close(Some(CloseFrame { code, reason })) => self.fail(&format!("closed with {code} {reason}")),
            other => self.fail(&format!("{other:?}")),
        };
        let at = self.start.elapsed();
        self.report.lines.push((at, text.clone()));
        let value: Value = match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(error) => self.fail(&format!("{error}: {text}")),
        };
        if value["method"].is_string() {
            self.notified(&value).await;
        } else {
            self.answered(&value, &text);
        }
    }

    fn answered(&mut self, value: &Value, text: &str) {
        let first = value.as_array().and_then(|batch| batch.first()).unwrap_or(value);
        // The id byte for byte: numbers of any size are not what `Value` makes of them.
        let id = raw_id(if value.is_array() { &text[1..] } else { text });
        let Some((asked, expected)) = id.as_ref().and_then(|id| self.asked.remove(id)) else {
            self.fail(&format!("an answer that was not asked for: {text}"));
        };
        self.report.worst = self.report.worst.max(asked.elapsed());
        let result = &first["result"];
        match expected {
            Expected::Result(expected) if *result == *expected => {}
            Expected::Block(number) if result["number"] == *number => {}
            Expected::Block(hash) if result["hash"] == *hash => {}
            Expected::Batch(answers) if is_batch(text, &answers) => {}
            Expected::Subscription(kind) if result.is_string() => {
                let id = result.as_str().unwrap().to_owned();
                let digits = id.strip_prefix("0x").unwrap_or_default();
                if digits.is_empty() || digits.len() > 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                    self.fail(&format!("no subscription id: {id}"));
                }
                if self.subscriptions.insert(id, kind).is_some() {
                    self.fail("a subscription id was given twice");
                }
                self.report.since = (self.plan.tip)();
            }
            _ => self.fail(&format!("a wrong answer: {text}")),
        }
    }

    async fn notified(&mut self, value: &Value) {
        if value["method"] != "eth_subscription" || !value["id"].is_null() {
            self.fail(&format!("no notification: {value}"));
        }
        let params = &value["params"];
        match params["subscription"].as_str().and_then(|id| self.subscriptions.get(id)) {
            Some(&"newHeads") => self.head(&params["result"]).await,
            Some(_) => self.log(&params["result"]),
            None => self.fail(&format!("a notification of an unknown subscription: {value}")),
        }
    }

    async fn head(&mut self, header: &Value) {
        self.report.notified.0 += 1;
        if let Some(last) = self.last_head.replace(Instant::now()) {
            self.report.quiet = self.report.quiet.max(last.elapsed());
        }
        let (number, hash) = (quantity(&header["number"]), text(&header["hash"]));
        let parent = text(&header["parentHash"]);
        if header["transactions"] != Value::Null || header["logsBloom"] == Value::Null {
            self.fail(&format!("no header: {header}"));
        }
        let heads = &mut self.report.heads;
        let first = heads.first().map(|(number, _)| *number);
        if heads.last().is_some_and(|(_, last)| *last == hash) {
            self.fail(&format!("header {number} {hash} twice in a row"));
        } else if let Some(at) = heads.iter().rposition(|(_, hash)| *hash == parent) {
            if heads[at].0 + 1 != number {
                self.fail(&format!("header {number} on one of height {}", self.report.heads[at].0));
            }
            heads.truncate(at + 1);
        } else if first.is_none_or(|first| number <= first) {
            // Nothing that was told stands any more.
            heads.clear();
        } else {
            let last = heads.last().cloned();
            self.fail(&format!(
                "header {number} {hash} does not connect: its parent is {parent}, the last was {last:?}"
            ));
        }
        self.report.heads.push((number, hash.clone()));
        if self.plan.fetches {
            self.report.calls += 1;
            self.ask("eth_getBlockByHash", &json!([hash, false]).to_string(), Expected::Block(hash)).await;
        }
    }

    fn log(&mut self, log: &Value) {
        self.report.notified.1 += 1;
        let place = (quantity(&log["blockNumber"]), text(&log["blockHash"]), quantity(&log["logIndex"]));
        let logs = &mut self.report.logs;
        if log["removed"] == true {
            // The newest goes first.
            if logs.pop().as_ref() != Some(&place) {
                self.fail(&format!("{place:?} was removed and is not the newest that stood"));
            }
            return;
        }
        let follows =
            logs.last().is_none_or(|last| if last.1 == place.1 { last.2 < place.2 } else { last.0 < place.0 });
        if !follows {
            let last = logs.last().cloned();
            self.fail(&format!("{place:?} after {last:?}"));
        }
        self.report.logs.push(place);
    }
}

impl Plan {
    /// Whether a block with this bloom filter may have logs that its filter wants: an address, or
    /// alternatives of the first topic.
    pub fn may_want(&self, bloom: &Bloom) -> bool {
        let has = |value: &Value| {
            let hex = value.as_str().unwrap().trim_start_matches("0x");
            let byte = |place: usize| u8::from_str_radix(&hex[place..place + 2], 16).unwrap();
            bloom.contains_input(BloomInput::Raw(&(0..hex.len()).step_by(2).map(byte).collect::<Vec<u8>>()))
        };
        let any = |wish: &Value| match wish {
            Value::Null => true,
            Value::Array(list) => list.is_empty() || list.iter().any(has),
            one => has(one),
        };
        any(&self.filter["address"]) && any(&self.filter["topics"][0]) && bloom.0 != [0; 256]
    }
}

impl Report {
    /// Holds what stands at the end against the canonical `heads` (number and hash) and `logs` of
    /// the network.
    pub fn settle(&self, name: &str, heads: &[(u64, String)], logs: &[(u64, String, u64)]) {
        if self.closed.is_some() {
            return;
        }
        let (first, tip) = (self.heads.first().map(|head| head.0), heads.last().map(|head| head.0));
        assert!(
            first.is_some_and(|first| first <= self.since + 1) || tip == Some(self.since),
            "{name}: heads from {first:?} on, subscribed at {}",
            self.since
        );
        let expected: Vec<_> = heads.iter().filter(|head| Some(head.0) >= first).collect();
        assert_eq!(self.heads.iter().collect::<Vec<_>>(), expected, "{name}: heads");
        let ours: Vec<_> = self.logs.iter().filter(|log| log.0 > self.since).collect();
        let expected: Vec<_> = logs.iter().filter(|log| log.0 > self.since).collect();
        let differs = ours.iter().zip(&expected).position(|(a, b)| a != b);
        let differs = differs.map(|at| (ours[at], expected[at]));
        assert!(
            differs.is_none() && ours.len() == expected.len(),
            "{name}: {} logs of {}, {differs:?}",
            ours.len(),
            expected.len()
        );
        // Earlier news of blocks is the chain's too.
        for log in &self.logs {
            assert!(logs.contains(log), "{name}: {log:?} does not stand");
        }
    }
}

/// Whether the text is a batch of these answers, with their ids byte for byte, wherever in them a
/// node had none written.
fn is_batch(text: &str, answers: &[String]) -> bool {
    let expected = format!("[{}]", answers.join(","));
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    let ids = |text: &str| -> Vec<_> {
        text.split("\"id\":").skip(1).map(|rest| raw_id(&format!("\"id\":{rest}"))).collect()
    };
    text == expected || (parsed(text) == parsed(&expected) && ids(text) == ids(&expected))
}

/// The value of the first `"id":` as it was written.
fn raw_id(text: &str) -> Option<String> {
    let rest = &text[text.find("\"id\":")? + 5..];
    let end = if let Some(string) = rest.strip_prefix('"') { string.find('"')? + 2 } else { rest.find([',', '}'])? };
    Some(rest[..end].to_owned())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn quantity(value: &Value) -> u64 {
    let text = text(value);
    u64::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_else(|_| panic!("no quantity: {text}"))
}
