//! A consensus node in memory, with habits of its own.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use steadfast::net::{BoxIo, Listen};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    sync::watch,
    task::JoinSet,
    time::sleep,
};

use super::{
    Genesis,
    chain::{EPOCH, Tree, name, root, state},
};
use crate::common::sim::Net;

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Connections are cut and refused.
    Down,
    /// Connections are taken, and not one byte comes.
    Hang,
    /// Streams tell nothing.
    Mute,
    Syncing,
    /// It stays where it is.
    Stuck,
    Slow(u64),
    /// It finds no block by its root.
    Forgetful,
    /// It does not find this one.
    Lacks(usize),
}

/// How a node is.
#[derive(Clone, Copy, Debug)]
struct Now {
    tip: usize,
    /// The latest block that it has ever had.
    most: usize,
    fault: Fault,
    /// How often its streams were cut.
    cuts: u64,
}

/// How it writes and what it tells.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Upper case, white space, and keys in the other order.
    pub odd: bool,
    /// Of several new heads only the last.
    pub only_last: bool,
    /// Reorganisations: before the head, behind it, or not.
    pub reorg: u8,
    /// No blocks, only heads.
    pub no_blocks: bool,
    /// It knows the topic `novelty`.
    pub knows: bool,
}

struct Shared {
    tree: Arc<Mutex<Tree>>,
    genesis: Genesis,
    habits: Habits,
    now: watch::Sender<Now>,
}

/// A node. It ends when this is dropped.
pub struct Node {
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl Node {
    pub fn start(net: &Net, port: u16, tree: Arc<Mutex<Tree>>, genesis: Genesis, habits: Habits) -> Self {
        let tip = tree.lock().unwrap().len() - 1;
        let (now, mut changes) = watch::channel(Now { tip, most: tip, fault: Fault::None, cuts: 0 });
        let shared = Arc::new(Shared { tree, genesis, habits, now });
        let (net, serving, mut task) = (net.clone(), shared.clone(), JoinSet::new());
        task.spawn(async move {
            loop {
                _ = changes.wait_for(|now| now.fault != Fault::Down).await.unwrap();
                let addr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
                let mut accept = net.bind(addr.into()).await.unwrap();
                let mut connections = JoinSet::new();
                loop {
                    tokio::select! {
                        biased;
                        _ = changes.wait_for(|now| now.fault == Fault::Down) => break,
                        accepted = accept.accept() => {
                            let io = accepted.unwrap().0.open().unwrap();
                            let shared = serving.clone();
                            connections.spawn(async move { _ = serve(io, &shared).await });
                        }
                    }
                }
            }
        });
        Self { shared, _task: task }
    }

    pub fn set_fault(&self, fault: Fault) {
        self.shared.now.send_modify(|now| now.fault = fault);
    }

    /// Ends the streams that there are.
    pub fn cut(&self) {
        self.shared.now.send_modify(|now| now.cuts += 1);
    }

    /// Its head is this block, unless it is stuck.
    pub fn set_tip(&self, tip: usize) {
        self.shared.now.send_if_modified(|now| {
            if now.fault == Fault::Stuck || now.tip == tip {
                return false;
            }
            (now.tip, now.most) = (tip, now.most.max(tip));
            true
        });
    }
}

async fn serve(mut io: BoxIo, shared: &Shared) -> Option<()> {
    let mut read = Vec::new();
    let mut changes = shared.now.subscribe();
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            if io.read_buf(&mut read).await.ok()? == 0 {
                return None;
            }
        }
        let head = String::from_utf8(std::mem::take(&mut read)).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        _ = changes.wait_for(|now| now.fault != Fault::Hang).await.ok()?;
        let fault = shared.now.borrow().fault;
        if let Fault::Slow(millis) = fault {
            sleep(Duration::from_millis(millis)).await;
        }
        let (status, body) = match target.strip_prefix("/eth/v1/events?topics=") {
            Some(topics) if shared.habits.knows || !topics.contains("novelty") => {
                return tell(io, shared, topics).await;
            }
            Some(_) => (400, json!({ "code": 400, "message": "Invalid topic: novelty" })),
            None => answer(shared, target.split('?').next().unwrap()).map_or_else(
                || (404, json!({ "code": 404, "message": "not here" })),
                |(status, data)| (status, json!({ "execution_optimistic": false, "finalized": false, "data": data })),
            ),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        io.write_all((head + &body).as_bytes()).await.ok()?;
    }
}

/// A stream, until its end.
async fn tell(io: BoxIo, shared: &Shared, topics: &str) -> Option<()> {
    let mut changes = shared.now.subscribe();
    let Now { tip: mut seen, cuts, .. } = *changes.borrow_and_update();
    let (mut from, mut to) = split(io);
    to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut end = [0];
    loop {
        tokio::select! {
            biased;
            _ = from.read(&mut end) => return None,
            changed = changes.changed() => changed.ok()?,
        }
        let now = *changes.borrow_and_update();
        if now.cuts != cuts {
            return None;
        }
        if now.fault == Fault::Hang {
            continue;
        }
        if let Fault::Slow(millis) = now.fault {
            sleep(Duration::from_millis(millis)).await;
        }
        let news = events(shared, seen, now.tip);
        seen = now.tip;
        if now.fault != Fault::Mute {
            let wanted = news.into_iter().filter(|(topic, _)| topics.split(',').any(|wanted| wanted == *topic));
            let text: String = wanted.map(|(topic, data)| write(shared.habits, topic, &data)).collect();
            to.write_all(text.as_bytes()).await.ok()?;
        }
    }
}

fn write(habits: Habits, topic: &str, data: &Value) -> String {
    if !habits.odd {
        return format!("event: {topic}\ndata: {data}\n\n");
    }
    let fields = data.as_object().unwrap().iter().rev();
    let fields = fields.map(|(key, value)| match value.as_str().and_then(|text| text.strip_prefix("0x")) {
        Some(digits) => format!("{key:?}: \"0x{}\"", digits.to_uppercase()),
        None => format!("{key:?}: {value}"),
    });
    format!("event:{topic}\r\ndata:{{ {} }}\r\n\r\n", fields.collect::<Vec<_>>().join(", "))
}

fn events(shared: &Shared, old: usize, new: usize) -> Vec<(&'static str, Value)> {
    let (tree, habits) = (shared.tree.lock().unwrap(), shared.habits);
    let (added, left) = tree.change(old, new);
    let mut events = Vec::new();
    let reorg = || {
        let slot = tree.block(new).slot;
        let data = json!({
            "slot": slot.to_string(), "depth": "1", "epoch": (slot / EPOCH).to_string(), "execution_optimistic": false,
            "old_head_block": root(old), "new_head_block": root(new), "old_head_state": state(old), "new_head_state": state(new),
        });
        ("chain_reorg", data)
    };
    if left && !added.is_empty() && habits.reorg == 0 {
        events.push(reorg());
    }
    for &at in &added {
        let slot = tree.block(at).slot.to_string();
        if !habits.no_blocks {
            events.push(("block", json!({ "slot": slot, "block": root(at), "execution_optimistic": false })));
        }
        if at == new || !habits.only_last {
            let (previous, current) = tree.duties(at);
            events.push((
                "head",
                json!({
                    "slot": slot, "block": root(at), "state": state(at), "epoch_transition": false,
                    "previous_duty_dependent_root": root(previous), "current_duty_dependent_root": root(current),
                    "execution_optimistic": false,
                }),
            ));
        }
        for topic in ["attestation", "novelty"] {
            events.push((topic, json!({ "slot": slot, "beacon_block_root": root(at) })));
        }
        events.push(("bulk", json!({ "slot": slot, "more": "x".repeat(4 << 10) })));
    }
    if left && !added.is_empty() && habits.reorg == 1 {
        events.push(reorg());
    }
    let ((was, _), (epoch, block)) = (tree.finalized(old), tree.finalized(new));
    if epoch > was {
        events.push((
            "finalized_checkpoint",
            json!({ "epoch": epoch.to_string(), "block": root(block), "state": state(block) }),
        ));
    }
    events
}

fn answer(shared: &Shared, path: &str) -> Option<(u16, Value)> {
    let Now { tip, most, fault, .. } = *shared.now.borrow();
    let tree = shared.tree.lock().unwrap();
    let syncing = fault == Fault::Syncing;
    let steps: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
    let data = match steps[..] {
        ["node", "health"] => return Some((if syncing { 206 } else { 200 }, Value::Null)),
        ["node", "syncing"] => {
            let slot = tree.block(tip).slot;
            json!({
                "head_slot": slot.to_string(), "sync_distance": shared.genesis.slot().saturating_sub(slot).to_string(),
                "is_syncing": syncing, "is_optimistic": false, "el_offline": false,
            })
        }
        ["beacon", "genesis"] => json!({
            "genesis_time": shared.genesis.unix.to_string(), "genesis_validators_root": root(7),
            "genesis_fork_version": "0x00000001",
        }),
        ["config", "spec"] => {
            json!({ "SECONDS_PER_SLOT": "1", "SLOTS_PER_EPOCH": EPOCH.to_string(), "DEPOSIT_CHAIN_ID": "1337" })
        }
        ["beacon", "headers", id] => {
            let at = if id == "head" { tip } else { name(id) };
            let is_found = at <= most && (id == "head" || ![Fault::Forgetful, Fault::Lacks(at)].contains(&fault));
            let block = is_found.then(|| tree.block(at))?;
            json!({
                "root": root(at), "canonical": tree.line(tip).any(|other| other == at), "header": {
                    "message": {
                        "slot": block.slot.to_string(), "proposer_index": "1", "parent_root": root(block.parent),
                        "state_root": state(at), "body_root": root(0),
                    },
                    "signature": "0x",
                },
            })
        }
        ["beacon", "states", id, "finality_checkpoints"] => {
            let at = if id == "head" { tip } else { name(id) };
            let (epoch, block) = (at <= most).then(|| tree.finalized(at))?;
            json!({ "finalized": { "epoch": epoch.to_string(), "root": root(block) } })
        }
        ["beacon", "blocks", "genesis", "root"] => json!({ "root": root(0) }),
        ["beacon", "blocks", slot, "root"] => {
            let slot: u64 = slot.parse().ok()?;
            json!({ "root": root(tree.line(tip).find(|&at| tree.block(at).slot == slot)?) })
        }
        _ => return None,
    };
    Some((200, data))
}
