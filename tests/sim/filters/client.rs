//! A client that makes filters, polls them when it likes, and calls over a connection of its own
//! each time: a filter belongs to the network.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};
use steadfast::devnet::Chain;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::told::Told;
use crate::common::{
    client::{Client, ROUNDABOUT, call, with_headers},
    sim::Net,
    ws::Ws,
};

/// Filters that a client has at once, at most.
const MOST: usize = 6;
/// Bytes that may be on their way on a connection whose client leaves, and that it reads before:
/// together less than any answer has.
const NARROW: usize = 16;
const FEW: usize = 20;
/// A poll needs no node, but it may wait a moment for what clients were shown already.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);
/// What needs a node waits as other calls do.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a client is to do.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) rng: Rng,
    pub(crate) net: Net,
    pub(crate) port: u16,
    pub(crate) chain: Arc<Chain>,
    /// Blocks that what a filter tells first may be older than the filter.
    pub(crate) behind: u64,
    /// When it stops making filters and polling as it likes.
    pub(crate) until: Instant,
    /// When it polls all its filters for the last time.
    pub(crate) end: Instant,
    /// The logs that it wants.
    pub(crate) filter: Value,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// All filters that it ever had, but for those that were lost.
    pub(crate) filters: Vec<Told>,
    /// Filters that were not found though nobody had removed them.
    pub(crate) lost: usize,
    /// Answers to polls that were lost.
    pub(crate) unread: usize,
}

struct Poller {
    plan: Plan,
    /// The filters that there are, by their ids.
    filters: Vec<(String, Told)>,
    count: u64,
    lost: usize,
    unread: usize,
}

/// Does as `plan` says, until its end.
pub(crate) async fn poll(plan: Plan) -> Report {
    let mut poller = Poller { plan, filters: Vec::new(), count: 0, lost: 0, unread: 0 };
    poller.make(&[false, true]).await;
    while Instant::now() < poller.plan.until {
        let rng = &mut poller.plan.rng;
        // Mostly in short steps, now and then after a long pause.
        let pause = if rng.u8(..30) == 0 { rng.u64(15_000..60_000) } else { (20.0 * 250.0_f64.powf(rng.f64())) as u64 };
        let due = (Instant::now() + Duration::from_millis(pause)).min(poller.plan.until);
        sleep_until(due).await;
        let rng = &mut poller.plan.rng;
        match rng.u8(..24) {
            0 if poller.filters.len() < MOST => {
                let is_of_logs = rng.bool();
                poller.make(&[is_of_logs]).await;
            }
            1 if poller.filters.len() + 2 <= MOST => poller.make(&[true, false]).await,
            2 if poller.filters.len() > 2 => poller.remove().await,
            3 => poller.whole().await,
            chance => {
                let mut some: Vec<usize> = (0..poller.filters.len()).collect();
                rng.shuffle(&mut some);
                some.truncate(rng.usize(1..=MOST));
                if chance < 7 {
                    poller.miss(&some).await;
                } else {
                    poller.changes(&some).await;
                }
            }
        }
        if poller.filters.is_empty() {
            poller.make(&[false, true]).await;
        }
    }
    sleep_until(poller.plan.end).await;
    poller.changes(&(0..poller.filters.len()).collect::<Vec<_>>()).await;
    let Poller { filters, lost, unread, .. } = poller;
    Report { filters: filters.into_iter().map(|(_, told)| told).collect(), lost, unread }
}

impl Poller {
    /// Makes filters, in one batch if there is more than one: of logs, or of blocks.
    async fn make(&mut self, kinds: &[bool]) {
        let Self { plan: Plan { rng, filter, .. }, .. } = self;
        let mut wish = filter.clone();
        match rng.u8(..4) {
            0 => wish["fromBlock"] = json!("latest"),
            1 => (wish["fromBlock"], wish["toBlock"]) = (json!("0x1"), json!("latest")),
            _ => {}
        }
        let calls: Vec<_> = kinds
            .iter()
            .map(
                |is_of_logs| {
                    if *is_of_logs { ("eth_newFilter", json!([wish])) } else { ("eth_newBlockFilter", json!([])) }
                },
            )
            .collect();
        let oldest = self.plan.chain.head().number.saturating_sub(self.plan.behind);
        let answers = self.ask(&calls).await;
        let since = self.plan.chain.head().number;
        for (answer, is_of_logs) in answers.into_iter().zip(kinds) {
            let id = answer["result"].as_str().unwrap_or_else(|| self.fail(&format!("no filter: {answer}")));
            let digits = id.strip_prefix("0x").unwrap_or_default();
            if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                self.fail(&format!("no filter's id: {id}"));
            }
            if self.filters.iter().any(|(other, _)| other == id) {
                self.fail("an id was given twice");
            }
            let kind = if *is_of_logs { "logs" } else { "blocks" };
            let told = Told {
                name: format!("{} filter {} of {kind}", self.plan.name, self.count),
                is_of_logs: *is_of_logs,
                oldest,
                since,
                stands: Vec::new(),
                polls: 0,
                added: 0,
                removed: 0,
            };
            self.filters.push((id.to_owned(), told));
        }
    }

    /// Polls these filters.
    async fn changes(&mut self, some: &[usize]) {
        let call = |place: &usize| ("eth_getFilterChanges", json!([self.filters[*place].0]));
        let calls: Vec<_> = some.iter().map(call).collect();
        let asked = Instant::now();
        let answers = self.ask(&calls).await;
        if asked.elapsed() > POLL_TIMEOUT {
            self.fail(&format!("a poll took {:?}", asked.elapsed()));
        }
        let mut lost = Vec::new();
        for (place, answer) in some.iter().zip(answers) {
            if is_not_found(&answer) {
                lost.push(*place);
            } else if answer["error"].is_null() {
                self.filters[*place].1.hear(&self.plan.chain, &answer["result"]);
            } else {
                self.fail(&format!("a poll was answered with {answer}"));
            }
        }
        lost.sort_unstable();
        for place in lost.into_iter().rev() {
            self.filters.remove(place);
            self.lost += 1;
        }
    }

    /// Polls these filters, and leaves in the midst of the answer: what it brings comes again.
    async fn miss(&mut self, some: &[usize]) {
        let poll = |place: &usize| json!([self.filters[*place].0]).to_string();
        let calls: Vec<_> = some.iter().map(|place| call(1, "eth_getFilterChanges", &poll(place))).collect();
        self.unread += calls.len();
        let body = if calls.len() > 1 { format!("[{}]", calls.join(",")) } else { calls[0].clone() };
        let mut io = self.plan.net.connect_over(NARROW, Ipv4Addr::LOCALHOST.into(), self.plan.port).await.unwrap();
        let rng = &mut self.plan.rng;
        let (pause, few) = (Duration::from_millis(rng.u64(1..1_500)), rng.usize(1..=FEW));
        match rng.u8(..3) {
            0 => {
                let mut socket = Ws::open(io, "/").await;
                socket.send(body).await;
                leave(socket.socket.get_mut(), few, pause).await;
            }
            way => {
                let headers = if way == 1 { "" } else { ROUNDABOUT };
                io.write_all(&with_headers("/", headers, body.as_bytes())).await.unwrap();
                leave(&mut io, few, pause).await;
            }
        }
        // It is known to have left before the next poll.
        sleep(Duration::from_millis(1)).await;
    }

    /// Asks for all that a filter wants, as a node has it now.
    async fn whole(&mut self) {
        let place = self.plan.rng.usize(..self.filters.len());
        let (id, told) = &self.filters[place];
        let is_of_logs = told.is_of_logs;
        let answer = self.ask(&[("eth_getFilterLogs", json!([id]))]).await.remove(0);
        if answer["result"].is_array() != is_of_logs {
            // Nodes may be unable to give logs for a while.
            let of_a_node = is_of_logs && !answer["error"].is_null() && !is_not_found(&answer);
            if !of_a_node && !is_not_found(&answer) {
                self.fail(&format!("not what a filter wants: {answer}"));
            }
        }
    }

    async fn remove(&mut self) {
        let place = self.plan.rng.usize(..self.filters.len());
        let (id, _) = self.filters.remove(place);
        let uninstall = ("eth_uninstallFilter", json!([id]));
        let answer = self.ask(std::slice::from_ref(&uninstall)).await.remove(0);
        let again = self.ask(&[uninstall]).await.remove(0);
        let poll = self.ask(&[("eth_getFilterChanges", json!([id]))]).await.remove(0);
        if answer["result"] != true || again["result"] != false || !is_not_found(&poll) {
            self.fail(&format!("a filter does not go: {answer} {again} {poll}"));
        }
    }

    /// The answers to these calls, in their order: in a batch unless there is one alone, over HTTP
    /// or a WebSocket.
    async fn ask(&mut self, calls: &[(&str, Value)]) -> Vec<Value> {
        let first = self.count + 1;
        self.count += calls.len() as u64;
        let calls: Vec<_> =
            calls.iter().zip(first..).map(|((method, params), id)| call(id, method, &params.to_string())).collect();
        let is_batch = calls.len() > 1 || self.plan.rng.u8(..4) == 0;
        let body = if is_batch { format!("[{}]", calls.join(",")) } else { calls[0].clone() };
        let io = self.plan.net.connect(self.plan.port).await.unwrap();
        let asked = Instant::now();
        let answer: Value = if self.plan.rng.u8(..3) == 0 {
            serde_json::from_str(&Ws::open(io, "/").await.ask(body).await).unwrap()
        } else {
            Client::over(io).post(body).await.json()
        };
        if asked.elapsed() > TIMEOUT {
            self.fail(&format!("{calls:?} took {:?}", asked.elapsed()));
        }
        let answers = if is_batch { answer.as_array().cloned().unwrap_or_default() } else { vec![answer.clone()] };
        let ids: Vec<_> = answers.iter().filter_map(|answer| answer["id"].as_u64()).collect();
        if ids != (first..first + calls.len() as u64).collect::<Vec<_>>() {
            self.fail(&format!("{calls:?} was answered with {answer}"));
        }
        // What else came is there to be seen before the next call.
        sleep(Duration::from_millis(1)).await;
        answers
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}", self.plan.name)
    }
}

/// Reads so many bytes within `pause`, if they come.
async fn leave(io: &mut DuplexStream, few: usize, pause: Duration) {
    let mut taken = vec![0; few];
    let _ = timeout(pause, io.read_exact(&mut taken)).await;
}

fn is_not_found(answer: &Value) -> bool {
    answer["error"]["code"] == -32000 && answer["error"]["message"] == "filter not found"
}
