//! Clients of the fleet: callers that alternate between the replicas, and a subscriber that goes to
//! another replica when its own is gone.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fastrand::Rng;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{client_async, tungstenite::Message};

use super::Trace;
use crate::common::{
    client::{Client, call},
    sim::Net,
};

/// A process that clients know, by its machine and life, and its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    pub place: usize,
    pub life: u64,
    pub port: u16,
}

/// What came of a call.
#[derive(Debug)]
pub enum Outcome {
    Height(u64),
    Error(String),
    /// No response, or not one alone.
    Broken(String),
}

/// A call, and what came of it.
#[derive(Debug)]
pub struct Called {
    pub door: Door,
    pub asked: Instant,
    pub answered: Instant,
    /// The height below which the answer must not be; none where nothing is promised.
    pub floor: Option<u64>,
    pub outcome: Outcome,
}

/// Asks for the block number on a connection of its own.
pub async fn block_number(net: Net, door: Door, id: u64) -> Outcome {
    let Ok(io) = net.connect(door.port).await else { return Outcome::Broken("no connection".to_owned()) };
    let mut client = Client::over(io);
    let body = call(id, "eth_blockNumber", "[]");
    let head = format!("POST / HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    if timeout(FOREVER, tokio::io::AsyncWriteExt::write_all(&mut client.io, (head + &body).as_bytes())).await.is_err() {
        return Outcome::Broken("the write stalls".to_owned());
    }
    let response = match client.try_response().await {
        Ok(response) => response,
        Err(broken) => return Outcome::Broken(format!("{broken:?}")),
    };
    let _ = timeout(FOREVER, client.io.read_to_end(&mut client.read)).await;
    if !client.read.is_empty() {
        return Outcome::Broken(format!("more than a response: {}", String::from_utf8_lossy(&client.read)));
    }
    let answer = response.json();
    if answer["id"] != id {
        return Outcome::Broken(format!("the answer of another call: {answer}"));
    }
    match quantity(&answer["result"]) {
        Some(height) => Outcome::Height(height),
        None => Outcome::Error(answer.to_string()),
    }
}

/// Longer than any process stands still.
const FOREVER: Duration = Duration::from_secs(60);

/// The processes that clients may go to, by their machines.
pub type Doors = Arc<Mutex<Vec<Option<Door>>>>;

/// The news of a subscriber.
#[derive(Default)]
pub struct Heard {
    /// Heads that no check has taken yet: where, when, and the height.
    pub heads: Vec<(Door, Instant, u64)>,
    /// Where a connection ended, when, and how.
    pub lost: Vec<(Door, Instant, String)>,
    /// The newest head of the connection that is open.
    pub newest: Option<u64>,
    pub total: u64,
}

/// Subscribes to heads at one process after the other. Each head must follow the one before.
pub async fn subscriber(net: Net, doors: Doors, heard: Arc<Mutex<Heard>>, mut rng: Rng, trace: Trace) {
    loop {
        let open: Vec<Door> = doors.lock().unwrap().iter().flatten().copied().collect();
        if !open.is_empty() {
            let door = open[rng.usize(..open.len())];
            heard.lock().unwrap().newest = None;
            let why = listen(&net, door, &heard, &trace).await;
            trace.note(format!("the subscriber lost r{}: {why}", door.place));
            heard.lock().unwrap().lost.push((door, Instant::now(), why));
        }
        sleep(Duration::from_millis(rng.u64(20..200))).await;
    }
}

/// Listens for as long as the connection lasts; returns why it ended.
async fn listen(net: &Net, door: Door, heard: &Mutex<Heard>, trace: &Trace) -> String {
    let Ok(io) = net.connect(door.port).await else { return "no connection".to_owned() };
    let Ok(Ok((mut socket, _))) = timeout(FOREVER, client_async("ws://proxy/", io)).await else {
        return "no WebSocket".to_owned();
    };
    if socket.send(Message::text(call(1, "eth_subscribe", "[\"newHeads\"]"))).await.is_err() {
        return "no subscription".to_owned();
    }
    let (mut id, mut last): (Option<Value>, Option<(u64, Value)>) = (None, None);
    loop {
        let text = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(frame))) => return format!("{frame:?}"),
            other => return format!("{other:?}"),
        };
        let value: Value = serde_json::from_str(&text).unwrap();
        let Some(of) = &id else {
            if value["result"].is_null() {
                return format!("no subscription: {value}");
            }
            id = Some(value["result"].clone());
            continue;
        };
        let params = &value["params"];
        let head = &params["result"];
        let height = quantity(&head["number"]);
        let follows = last
            .as_ref()
            .is_none_or(|(height_before, hash)| height == Some(height_before + 1) && head["parentHash"] == *hash);
        let Some(height) = height.filter(|_| follows && params["subscription"] == *of) else {
            trace.fail(&format!("r{} tells {value} after {last:?}", door.place));
            return "a wrong head".to_owned();
        };
        last = Some((height, head["hash"].clone()));
        let mut heard = heard.lock().unwrap();
        heard.heads.push((door, Instant::now(), height));
        (heard.newest, heard.total) = (Some(height), heard.total + 1);
    }
}

fn quantity(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}
