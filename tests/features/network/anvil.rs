//! Real anvil processes that hold one chain, because each lives through the same history.
//!
//! A node that was killed is started anew, with nothing, and lives through all of it; one that hung
//! or lagged lives through the rest. Transactions that clients send to one node are passed on to
//! the others when the next block is made, as gossip would.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::try_join_all};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};
use steadfast::domain::layer::Layer;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    At, Canonical, Doing, Network, NotHere, Port, Tip, Voice, Wish,
    rpc::Rpc,
    story::{CONTRACTS, GENESIS, Story},
};
use crate::{ports::free_addr, world::soon};

/// A block takes several calls at every node.
const FASTEST: Duration = Duration::from_millis(200);
const BLOCKS_AT_START: u64 = 10;
/// The account that a node lists last is this, and its place.
const TAG: &str = "0x00000000000000000000000000000000000aa";

/// The place of the node that has this account.
pub fn place(account: &str) -> Option<usize> {
    account.strip_prefix(TAG)?.parse().ok()
}

pub struct Anvil {
    inner: Arc<Inner>,
    /// Makes blocks, if they come by themselves.
    _pace: JoinSet<()>,
}

struct Inner {
    nodes: Vec<Node>,
    story: Mutex<Story>,
    /// One change at a time.
    turn: Semaphore,
    height: Arc<AtomicU64>,
    rpc: Rpc,
    /// Why blocks no longer come by themselves.
    broken: Mutex<Option<String>>,
}

struct Node {
    place: usize,
    addr: SocketAddr,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    process: Option<Process>,
    is_hung: bool,
    /// The height up to which the node has lived through the history.
    held: u64,
    /// The height from which its blocks were replaced since.
    common: Option<u64>,
    lag: u64,
    is_frozen: bool,
}

impl Life {
    fn is_up(&self) -> bool {
        self.process.is_some() && !self.is_hung
    }
}

/// A running anvil; killed when dropped.
struct Process {
    child: Child,
    asked: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Process {
    fn run(addr: SocketAddr) -> Self {
        let mut command = Command::new(binary());
        command.args(["--host", "127.0.0.1", "--no-mining", "--chain-id", "1337"]);
        command.args(["--port", &addr.port().to_string(), "--timestamp", &GENESIS.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let asked = Arc::<Mutex<BTreeMap<String, u64>>>::default();
        let (lines, into) = (BufReader::new(child.stdout.take().unwrap()).lines(), asked.clone());
        // It writes a line for each call: the method.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *into.lock().unwrap().entry(line).or_default() += 1;
            }
        });
        Self { child, asked }
    }

    /// Sends a signal. A process that it stops then stands, with all its threads.
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        if signal == Signal::STOP {
            waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Anvil as `tests/install.sh` leaves it.
fn binary() -> PathBuf {
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/node_modules/@foundry-rs");
    let found = std::fs::read_dir(packages).into_iter().flatten().map_while(Result::ok);
    let mut binaries = found.map(|package| package.path().join("bin/anvil"));
    binaries.find(|binary| binary.is_file()).unwrap_or_else(|| panic!("no anvil in {packages}: run tests/install.sh"))
}

impl Node {
    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap()
    }
}

impl Inner {
    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap()
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        let turn = self.turn.acquire().await.unwrap();
        let broken = self.broken.lock().unwrap().clone();
        assert_eq!(broken, None, "blocks no longer come");
        turn
    }

    fn node(&self, at: At) -> Result<&Node, NotHere> {
        match at.layer {
            Layer::El => self.nodes.get(at.place).ok_or_else(|| NotHere::new("there is no node to spare")),
            Layer::Cl => Err(NotHere::new("no node has a beacon API")),
        }
    }

    /// Those that answer.
    fn up(&self) -> Vec<&Node> {
        self.nodes.iter().filter(|node| node.life().is_up()).collect()
    }

    /// Starts the node's process, and waits until it answers.
    async fn run(&self, node: &Node) -> Result<(), String> {
        let process = Process::run(node.addr);
        let answers = async {
            while self.rpc.call(node.addr, "eth_chainId", json!([])).await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(soon(), answers).await.map_err(|_| format!("anvil at {} does not start", node.addr))?;
        let tag = format!("{TAG}{:03}", node.place);
        self.rpc.call(node.addr, "anvil_impersonateAccount", json!([tag])).await?;
        *node.life() = Life { process: Some(process), ..Life::default() };
        Ok(())
    }

    /// Has every node live through what it has not.
    async fn catch_up(&self) -> Result<(), String> {
        try_join_all(self.up().into_iter().map(|node| self.live(node))).await.map(|_| ())
    }

    async fn live(&self, node: &Node) -> Result<(), String> {
        let height = self.story().height();
        let (held, target, common) = {
            let life = node.life();
            let target = if life.is_frozen { life.held } else { height.saturating_sub(life.lag) };
            (life.held, target.min(height), life.common.unwrap_or(height))
        };
        let keep = held.min(target).min(common);
        if keep < held {
            self.rpc.call(node.addr, "anvil_rollback", json!([held - keep])).await?;
        }
        (node.life().common, node.life().held) = (None, keep);
        for number in keep + 1..=target {
            self.make(node, number).await?;
            node.life().held = number;
        }
        Ok(())
    }

    /// Has the node make a block, and holds it against what other nodes made.
    async fn make(&self, node: &Node, number: u64) -> Result<(), String> {
        let place = usize::try_from(number - 1).unwrap();
        let block = self.story().blocks[place].clone();
        for (method, params) in block.calls(number) {
            match self.rpc.call(node.addr, method, params).await {
                // A client has sent it to this node.
                Err(error) if method == "eth_sendRawTransaction" && error.contains("already") => {}
                outcome => _ = outcome?,
            }
        }
        let fact = self.rpc.fact(node.addr, number).await?;
        let mut story = self.story();
        let known = story.blocks[place].fact.get_or_insert_with(|| fact.clone());
        if *known == fact {
            Ok(())
        } else {
            Err(format!("{} made {fact:?}, where {known:?} was made before", node.addr))
        }
    }

    async fn mine(&self, blocks: u64) -> Result<(), String> {
        for _ in 0..blocks {
            let raw = self.gossip().await?;
            let height = {
                let mut story = self.story();
                story.add(raw);
                story.height()
            };
            // Before a client can hear of it.
            self.height.store(height, Relaxed);
            self.catch_up().await?;
        }
        Ok(())
    }

    /// Clients' transactions that a node has got.
    async fn gossip(&self) -> Result<Vec<String>, String> {
        let sent = self.story().sent.clone();
        let mut known = Vec::new();
        for raw in sent {
            for node in self.up() {
                let found = self.rpc.call(node.addr, "eth_getTransactionByHash", json!([hash(&raw)])).await?;
                if !found.is_null() {
                    known.push(raw);
                    break;
                }
            }
        }
        Ok(known)
    }
}

/// The hash of a signed transaction.
pub fn hash(raw: &str) -> String {
    let digits = raw.trim_start_matches("0x").as_bytes().chunks(2);
    let bytes: Vec<u8> =
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
    alloy_primitives::keccak256(&bytes).to_string()
}

impl Anvil {
    pub async fn start(wish: &Wish) -> Result<Self, NotHere> {
        if wish.consensus > 0 {
            return Err(NotHere::new("no node has a beacon API"));
        }
        let node = |place| Node { place, addr: free_addr(), life: Mutex::default() };
        let inner = Arc::new(Inner {
            nodes: (0..wish.execution).map(node).collect(),
            story: Mutex::default(),
            turn: Semaphore::new(1),
            height: Arc::default(),
            rpc: Rpc::new(),
            broken: Mutex::default(),
        });
        try_join_all(inner.nodes.iter().map(|node| inner.run(node))).await.unwrap();
        inner.mine(BLOCKS_AT_START).await.unwrap();
        let mut pace = JoinSet::new();
        if let Some(block_time) = wish.options.block_time {
            pace.spawn(go_on(inner.clone(), block_time.max(FASTEST)));
        }
        Ok(Self { inner, _pace: pace })
    }

    /// Changes a node's life, and has it live by it.
    fn change(&self, at: At, change: impl FnOnce(&mut Life) + Send + 'static) -> Doing<'_> {
        let inner = self.inner.clone();
        to_the_end(async move {
            let _turn = inner.turn().await;
            change(&mut inner.node(at)?.life());
            inner.catch_up().await.unwrap();
            Ok(())
        })
    }
}

/// Does what was begun also if nobody waits for it any longer: a node may have half of a block.
fn to_the_end(work: impl Future<Output = Result<(), NotHere>> + Send + 'static) -> Doing<'static> {
    async { tokio::spawn(work).await.unwrap() }.boxed()
}

async fn go_on(inner: Arc<Inner>, pace: Duration) {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let _turn = inner.turn().await;
        if let Err(why) = inner.mine(1).await {
            *inner.broken.lock().unwrap() = Some(why);
            return;
        }
    }
}

impl Network for Anvil {
    fn addr(&self, at: At, _: Port) -> Result<SocketAddr, NotHere> {
        Ok(self.inner.node(at)?.addr)
    }

    fn voice(&self) -> Voice {
        Voice::Account
    }

    fn kill(&self, at: At) -> Doing<'_> {
        self.change(at, |life| *life = Life::default())
    }

    fn hang(&self, at: At) -> Doing<'_> {
        self.change(at, |life| {
            life.process.as_ref().expect("a dead node cannot hang").signal(Signal::STOP);
            life.is_hung = true;
        })
    }

    fn start(&self, at: At) -> Doing<'_> {
        let inner = self.inner.clone();
        to_the_end(async move {
            let _turn = inner.turn().await;
            let node = inner.node(at)?;
            let is_dead = node.life().process.is_none();
            if is_dead {
                inner.run(node).await.unwrap();
            }
            {
                let mut life = node.life();
                if std::mem::take(&mut life.is_hung) {
                    life.process.as_ref().unwrap().signal(Signal::CONT);
                }
                (life.lag, life.is_frozen) = (0, false);
                life.process.as_ref().unwrap().asked.lock().unwrap().clear();
            }
            inner.catch_up().await.unwrap();
            Ok(())
        })
    }

    fn lag(&self, at: At, blocks: u64) -> Doing<'_> {
        self.change(at, move |life| life.lag = blocks)
    }

    fn freeze(&self, at: At) -> Doing<'_> {
        self.change(at, |life| life.is_frozen = true)
    }

    fn mine(&self, blocks: u64) -> Doing<'_> {
        let inner = self.inner.clone();
        to_the_end(async move {
            let _turn = inner.turn().await;
            inner.mine(blocks).await.unwrap();
            Ok(())
        })
    }

    fn reorganise(&self, depth: u64, length: u64) -> Doing<'_> {
        let inner = self.inner.clone();
        to_the_end(async move {
            let _turn = inner.turn().await;
            let keep = {
                let mut story = inner.story();
                story.cut(depth);
                story.height()
            };
            for node in &inner.nodes {
                let mut life = node.life();
                life.common = Some(life.common.unwrap_or(keep).min(keep));
            }
            // All at once: no node is left at a lower height than it had.
            for _ in 0..length {
                inner.story().add(Vec::new());
            }
            inner.height.store(keep + length, Relaxed);
            inner.catch_up().await.unwrap();
            Ok(())
        })
    }

    fn news(&self) -> Doing<'_> {
        // Every block has transactions and logs.
        self.mine(1)
    }

    fn height(&self) -> u64 {
        self.inner.height.load(Relaxed)
    }

    fn tip(&self) -> Tip {
        let height = self.inner.height.clone();
        Arc::new(move || height.load(Relaxed))
    }

    fn canonical(&self, from: u64) -> Doing<'_, Canonical> {
        // What no node has lived through yet is not there.
        let story = self.inner.story();
        let facts = story.blocks.iter().map_while(|block| block.fact.clone());
        let blocks = facts.filter(|fact| fact.number >= from).collect();
        std::future::ready(Ok(Canonical { blocks })).boxed()
    }

    fn slots(&self, _: u64, _: u64) -> Doing<'_, Vec<u64>> {
        std::future::ready(Err(NotHere::new("no node has a beacon API"))).boxed()
    }

    fn contract(&self, number: usize) -> Result<String, NotHere> {
        Ok(CONTRACTS[number - 1].to_owned())
    }

    fn asked(&self, at: At, method: &str) -> Result<u64, NotHere> {
        let life = self.inner.node(at)?.life();
        let asked = life.process.as_ref().map(|process| process.asked.lock().unwrap().get(method).copied());
        Ok(asked.flatten().unwrap_or_default())
    }

    fn signed(&self) -> Doing<'_, String> {
        async move {
            let _turn = self.inner.turn().await;
            let wish = self.inner.story().wish();
            let node = *self.inner.up().first().ok_or_else(|| NotHere::new("no node signs now"))?;
            let raw = self.inner.rpc.call(node.addr, "eth_signTransaction", json!([wish])).await.unwrap();
            let raw = raw.as_str().unwrap().to_owned();
            self.inner.story().sent.push(raw.clone());
            Ok(raw)
        }
        .boxed()
    }

    fn waiting(&self) -> Doing<'_, Vec<String>> {
        async move {
            let _turn = self.inner.turn().await;
            let mut most = Vec::new();
            for node in self.inner.up() {
                let pool = self.inner.rpc.call(node.addr, "txpool_content", json!([])).await.unwrap();
                let accounts = ["pending", "queued"].into_iter().filter_map(|kind| pool[kind].as_object());
                let waiting = accounts.flat_map(|accounts| accounts.values()).filter_map(Value::as_object);
                let waiting = waiting.flat_map(|by_nonce| by_nonce.values());
                let waiting: Vec<_> = waiting.filter_map(|one| Some(one["hash"].as_str()?.to_owned())).collect();
                most = if waiting.len() > most.len() { waiting } else { most };
            }
            Ok(most)
        }
        .boxed()
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn close(&self) -> Doing<'_> {
        async move {
            let _turn = self.inner.turn.acquire().await.unwrap();
            for node in &self.inner.nodes {
                *node.life() = Life::default();
            }
            Ok(())
        }
        .boxed()
    }
}
