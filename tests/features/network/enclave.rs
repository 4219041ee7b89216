//! An enclave that `kurtosis/run.sh` has started: nodes are its containers, and its chain goes on
//! by itself.
//!
//! The proxy is this test's own, before the enclave's nodes: the first execution node of a scenario
//! is that of the first pair, and so on. Each node has a port here that lasts, since a container's
//! may change when it starts again.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::json;
use steadfast::domain::layer::Layer;
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep},
};

use super::{
    At, Canonical, Doing, Network, NotHere, Port, Tip, Voice, Wish,
    cli::{Cli, pairs, services},
    relay::Relay,
    rpc::Rpc,
};
use crate::{ports::free_addr, world::soon};

const PARAMETERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kurtosis/network_params.yaml");
/// Between two looks at a node.
const LOOK: Duration = Duration::from_millis(250);

pub struct Enclave {
    cli: Cli,
    nodes: Vec<Node>,
    height: Arc<AtomicU64>,
    rpc: Rpc,
    /// Follows the height.
    _watch: JoinSet<()>,
}

struct Node {
    at: At,
    service: String,
    ports: Vec<Door>,
    is_stopped: Mutex<bool>,
}

/// A port that lasts.
struct Door {
    port: Port,
    id: &'static str,
    addr: SocketAddr,
    relay: Mutex<Option<Relay>>,
}

impl Enclave {
    pub async fn open(wish: &Wish) -> Result<Self, NotHere> {
        let name = std::env::var("ENCLAVE").unwrap_or_else(|_| "steadfast".to_owned());
        let cli = Cli { program: "kurtosis".to_owned(), enclave: name };
        let pairs = pairs(&std::fs::read_to_string(PARAMETERS).unwrap());
        if wish.execution.max(wish.consensus) > pairs.len() {
            return Err(NotHere::new(format!("there are {} pairs", pairs.len())));
        }
        let mut nodes = Vec::new();
        for (place, pair) in pairs.iter().enumerate() {
            let (el, cl) = services(place + 1, pair);
            let door = |port, id| Door { port, id, addr: free_addr(), relay: Mutex::default() };
            // Those that the scenario does not need still tell of the chain.
            if wish.execution > 0 {
                let ports = vec![door(Port::Http, "rpc"), door(Port::Ws, "ws")];
                let at = At { layer: Layer::El, place };
                nodes.push(Node { at, service: el, ports, is_stopped: Mutex::default() });
            }
            if wish.consensus > 0 {
                let ports = vec![door(Port::Http, "http")];
                let at = At { layer: Layer::Cl, place };
                nodes.push(Node { at, service: cl, ports, is_stopped: Mutex::default() });
            }
        }
        let mut enclave = Self { cli, nodes, height: Arc::default(), rpc: Rpc::new(), _watch: JoinSet::new() };
        for node in &enclave.nodes {
            enclave.connect(node).await;
        }
        enclave.watch().await;
        Ok(enclave)
    }

    fn node(&self, at: At) -> Result<&Node, NotHere> {
        let node = self.nodes.iter().find(|node| node.at == at);
        node.ok_or_else(|| NotHere::new("there is no node to spare"))
    }

    /// Runs a command line of Kurtosis, off this thread.
    async fn order<T: Send + 'static>(&self, order: impl FnOnce(&Cli) -> Result<T, String> + Send + 'static) -> T {
        let cli = self.cli.clone();
        spawn_blocking(move || order(&cli)).await.unwrap().unwrap_or_else(|why| panic!("{why}"))
    }

    /// Opens the node's doors before where its ports are now.
    async fn connect(&self, node: &Node) {
        for door in &node.ports {
            let (service, id) = (node.service.clone(), door.id);
            let target = self.order(move |cli| cli.port(&service, id)).await;
            let relay = Relay::open(door.addr, target).await;
            *door.relay.lock().unwrap() = Some(relay);
        }
    }

    /// The ports of nodes that run, and by which the chain is seen.
    fn running(&self) -> Vec<(Layer, SocketAddr)> {
        let running = self.nodes.iter().filter(|node| !*node.is_stopped.lock().unwrap());
        running.map(|node| (node.at.layer, node.ports[0].addr)).collect()
    }

    /// Keeps the height of the first node that tells one.
    async fn watch(&mut self) {
        let nodes: Vec<_> = self.nodes.iter().map(|node| (node.at.layer, node.ports[0].addr)).collect();
        let height = self.height.clone();
        let look = async move |rpc: &Rpc| {
            for (layer, addr) in &nodes {
                if let Ok(seen) = head(rpc, *layer, *addr).await {
                    height.fetch_max(seen, Relaxed);
                }
            }
        };
        look(&self.rpc).await;
        assert!(self.height.load(Relaxed) > 0, "no node of the enclave tells its head");
        self._watch.spawn(async move {
            let rpc = Rpc::new();
            loop {
                sleep(LOOK).await;
                look(&rpc).await;
            }
        });
    }
}

/// A node's height, or its slot.
async fn head(rpc: &Rpc, layer: Layer, addr: SocketAddr) -> Result<u64, String> {
    match layer {
        Layer::El => rpc.height(addr).await,
        Layer::Cl => {
            let (_, answer) = rpc.beacon(addr, "/eth/v1/beacon/headers/head").await?;
            let slot = answer["data"]["header"]["message"]["slot"].as_str().and_then(|slot| slot.parse().ok());
            slot.ok_or_else(|| format!("no head: {answer}"))
        }
    }
}

fn not<T>(what: &str) -> Doing<'static, T>
where
    T: Send + 'static,
{
    std::future::ready(Err(NotHere::new(what))).boxed()
}

impl Network for Enclave {
    fn addr(&self, at: At, port: Port) -> Result<SocketAddr, NotHere> {
        let door = self.node(at)?.ports.iter().find(|door| door.port == port);
        door.map(|door| door.addr).ok_or_else(|| NotHere::new("the node has no such port"))
    }

    fn voice(&self) -> Voice {
        Voice::Silent
    }

    fn kill(&self, at: At) -> Doing<'_> {
        async move {
            let node = self.node(at)?;
            let service = node.service.clone();
            *node.is_stopped.lock().unwrap() = true;
            self.order(move |cli| cli.stop(&service)).await;
            node.ports.iter().for_each(|door| *door.relay.lock().unwrap() = None);
            Ok(())
        }
        .boxed()
    }

    fn hang(&self, _: At) -> Doing<'_> {
        not("a container is stopped and started, and nothing else")
    }

    fn start(&self, at: At) -> Doing<'_> {
        async move {
            let node = self.node(at)?;
            if std::mem::take(&mut *node.is_stopped.lock().unwrap()) {
                let service = node.service.clone();
                self.order(move |cli| cli.start(&service)).await;
                self.connect(node).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn lag(&self, _: At, _: u64) -> Doing<'_> {
        not("no node can be held back")
    }

    fn freeze(&self, _: At) -> Doing<'_> {
        not("no node can be held back")
    }

    fn mine(&self, blocks: u64) -> Doing<'_> {
        async move {
            let target = self.height.load(Relaxed) + blocks;
            let until = Instant::now() + soon();
            while self.height.load(Relaxed) < target {
                assert!(Instant::now() < until, "the enclave's chain stands still below {target}");
                sleep(LOOK).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn reorganise(&self, _: u64, _: u64) -> Doing<'_> {
        not("the chain is not ours to reorganise")
    }

    fn news(&self) -> Doing<'_> {
        // Blocks come by themselves.
        std::future::ready(Ok(())).boxed()
    }

    fn height(&self) -> u64 {
        self.height.load(Relaxed)
    }

    fn tip(&self) -> Tip {
        let height = self.height.clone();
        // A block may have come since the last look.
        Arc::new(move || height.load(Relaxed) + 1)
    }

    fn canonical(&self, from: u64) -> Doing<'_, Canonical> {
        async move {
            let running = self.running().into_iter().filter(|(layer, _)| *layer == Layer::El);
            let mut heights = BTreeMap::new();
            for (_, addr) in running {
                if let Ok(height) = self.rpc.height(addr).await {
                    heights.insert(height, addr);
                }
            }
            let (height, addr) = heights.pop_last().expect("an execution node runs");
            let mut blocks = Vec::new();
            for number in from..=height {
                blocks.push(self.rpc.fact(addr, number).await.unwrap_or_else(|why| panic!("{why}")));
            }
            Ok(Canonical { blocks })
        }
        .boxed()
    }

    fn slots(&self, from: u64, to: u64) -> Doing<'_, Vec<u64>> {
        async move {
            let addr = self.running().into_iter().find(|(layer, _)| *layer == Layer::Cl);
            let (_, addr) = addr.expect("a consensus node runs");
            let mut slots = Vec::new();
            for slot in from..=to {
                // A slot that was missed is not found.
                match self.rpc.beacon(addr, &format!("/eth/v1/beacon/headers/{slot}")).await.unwrap() {
                    (200, _) => slots.push(slot),
                    (404, _) => {}
                    other => panic!("slot {slot}: {other:?}"),
                }
            }
            Ok(slots)
        }
        .boxed()
    }

    fn contract(&self, _: usize) -> Result<String, NotHere> {
        Err(NotHere::new("no contract logs"))
    }

    fn asked(&self, _: At, _: &str) -> Result<u64, NotHere> {
        Err(NotHere::new("nodes do not tell what they are asked"))
    }

    fn signed(&self) -> Doing<'_, String> {
        not("there is no key here to sign with")
    }

    fn waiting(&self) -> Doing<'_, Vec<String>> {
        not("there is no key here to sign with")
    }

    fn is_ours(&self) -> bool {
        false
    }

    fn close(&self) -> Doing<'_> {
        async move {
            for node in &self.nodes {
                self.start(node.at).await?;
            }
            // The next scenario finds them all at the head.
            let until = Instant::now() + soon();
            for node in &self.nodes {
                while !self.is_well(node).await {
                    assert!(Instant::now() < until, "{} does not come back", node.service);
                    sleep(LOOK).await;
                }
            }
            Ok(())
        }
        .boxed()
    }
}

impl Enclave {
    /// Whether a node is at the head, or a block behind it.
    async fn is_well(&self, node: &Node) -> bool {
        let addr = node.ports[0].addr;
        let syncs = match node.at.layer {
            Layer::El => self.rpc.call(addr, "eth_syncing", json!([])).await.map(|syncing| syncing != false),
            Layer::Cl => self.rpc.beacon(addr, "/eth/v1/node/syncing").await.map(|(_, answer)| {
                ["is_syncing", "is_optimistic", "el_offline"].iter().any(|key| answer["data"][key] == true)
            }),
        };
        let head = head(&self.rpc, node.at.layer, addr).await;
        syncs == Ok(false) && head.is_ok_and(|head| head + 1 >= self.height.load(Relaxed))
    }
}
