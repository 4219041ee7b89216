//! The pretend network: one chain, execution and consensus nodes that speak the real protocols over
//! real frames, faults to switch at any time, and a record of the requests to each node.
//!
//! The network serves newcomers (`steadfast dev`), tests, BDD scenarios and the simulation alike.
//! So the network listens only through [`Listen`], takes the time only from tokio, and draws all
//! random values from one seed.

mod author;
mod block;
mod chain;
mod cl;
mod clock;
mod control;
mod el;
mod eth;
mod fault;
mod filter;
mod gossip;
mod hanging_io;
mod hash;
mod hex;
mod http;
mod ipc;
mod mempool;
mod node;
mod params;
mod past;
mod record;
mod rpc;
mod serve;
mod told;
mod transaction;
mod validator;
mod view;
mod ws;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::task::JoinSet;

pub use self::{
    block::Block,
    chain::{Chain, ChainError, KEPT_BLOCKS, Reorg, Turn},
    control::Replicas,
    fault::{Fault, FaultError, History, Program, Store, is_probe},
    gossip::{Kind as Message, Taken},
    node::{Kind, Node},
    record::{Request, Transport},
    transaction::{Log, Mined, Transaction},
    validator::{Client as ValidatorClient, Earned, Proposals, Tally, Validator},
    view::Snapshot,
};
use crate::{
    domain::address,
    net::{Accept, Listen},
};

/// The settings of a pretend network.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many execution nodes.
    pub execution: usize,
    /// How many consensus nodes.
    pub consensus: usize,
    /// Time between blocks, a slot; none: blocks come only when a caller mines them.
    pub block_time: Option<Duration>,
    /// The chain's id.
    pub chain_id: u64,
    /// The seed of all random values.
    pub seed: u64,
    /// Unix time of block 0; none: as if the first blocks had come at block time (1 s if none), the
    /// last of them now.
    pub genesis_timestamp: Option<u64>,
    /// Blocks that there are at the start, besides genesis.
    pub initial_blocks: u64,
    /// Where the nodes listen.
    pub listen_ip: IpAddr,
    /// A folder in which each execution node has an IPC socket, `NAME.ipc`; none: nowhere.
    pub ipc: Option<PathBuf>,
    /// The first node's port, the others follow, execution nodes first; 0: free ones.
    pub ports: u16,
    /// Where the control server listens; none: nowhere.
    pub control: Option<SocketAddr>,
    /// Unix time now; none: the system's.
    pub now_unix: Option<u64>,
    /// Execution nodes give out small subscription ids, `0x1`, as Besu does; see also
    /// [`Node::set_small_ids`].
    pub small_ids: bool,
    /// Execution nodes do not hand transactions on: each has a mempool of its own, which a restart
    /// empties. A block takes what waits at any node, and a subscription hears of it all.
    pub own_mempools: bool,
    /// Bytes of a consensus node's debug state, if that is not longer anyway.
    pub state_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            execution: 2,
            consensus: 0,
            block_time: None,
            chain_id: 1337,
            seed: 1,
            genesis_timestamp: None,
            initial_blocks: 10,
            listen_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ipc: None,
            ports: 0,
            control: None,
            now_unix: None,
            small_ids: false,
            own_mempools: false,
            state_bytes: 4 << 20,
        }
    }
}

/// A running pretend network. Dropping it stops everything.
pub struct Devnet {
    chain: Arc<Chain>,
    execution: Vec<Arc<Node>>,
    consensus: Vec<Arc<Node>>,
    control: Option<SocketAddr>,
    clients: Arc<control::Clients>,
    replicas: Arc<OnceLock<Arc<dyn Replicas>>>,
    _tasks: JoinSet<()>,
}

impl Devnet {
    /// Binds all ports and starts the nodes on the current runtime.
    ///
    /// # Errors
    /// When a port cannot be bound.
    pub async fn start(options: Options, listen: Arc<dyn Listen>) -> io::Result<Self> {
        let clock = options.now_unix.map_or_else(clock::Clock::system, clock::Clock::fixed);
        let spacing = options.block_time.unwrap_or(Duration::from_secs(1));
        let Options { chain_id, seed, initial_blocks, genesis_timestamp, .. } = options;
        let chain = Chain::new(chain_id, seed, clock, initial_blocks, spacing, genesis_timestamp);
        chain.set_nodes(options.execution);
        let settings = node::Settings {
            place: 0,
            small_ids: options.small_ids,
            own_mempools: options.own_mempools,
            slot: spacing,
            state_bytes: options.state_bytes,
        };
        let mut tasks = JoinSet::new();
        let mut port = options.ports;
        let mut nodes = [Vec::new(), Vec::new()];
        let kinds = [(Kind::Execution, "el", options.execution), (Kind::Consensus, "cl", options.consensus)];
        for (list, (kind, prefix, count)) in nodes.iter_mut().zip(kinds) {
            for i in 1..=count {
                let accept = listen.bind(SocketAddr::new(options.listen_ip, port).into()).await?;
                if port != 0 {
                    port = port.checked_add(1).ok_or(io::ErrorKind::AddrNotAvailable)?;
                }
                let name = format!("{prefix}-{i}");
                let settings = node::Settings { place: i - 1, ..settings };
                let node = Node::new(name, kind, at(options.listen_ip, &*accept), chain.clone(), settings, seed);
                let node = Arc::new(node);
                if let Some(folder) = options.ipc.as_ref().filter(|_| kind == Kind::Execution) {
                    let path = folder.join(format!("{}.ipc", node.name())).into();
                    let accept = listen.bind(address::Address::Unix { path, mode: address::Address::MODE }).await?;
                    tasks.spawn(serve::run(node.clone(), listen.clone(), accept));
                }
                tasks.spawn(serve::run(node.clone(), listen.clone(), accept));
                list.push(node);
            }
        }
        let [execution, consensus] = nodes;
        let (mut control, clients) = (None, Arc::<control::Clients>::default());
        let replicas = Arc::<OnceLock<Arc<dyn Replicas>>>::default();
        if let Some(addr) = options.control {
            let accept = listen.bind(addr.into()).await?;
            control = Some(at(addr.ip(), &*accept));
            let nodes = execution.iter().chain(&consensus).cloned().collect();
            let (chain, clients, replicas) = (chain.clone(), clients.clone(), replicas.clone());
            tasks.spawn(control::run(Arc::new(control::Control { chain, nodes, clients, replicas }), accept));
        }
        if let Some(time) = options.block_time.filter(|time| !time.is_zero()) {
            tasks.spawn(chain::beat(chain.clone(), chain.next_slot(time), time));
        }
        Ok(Self { chain, execution, consensus, control, clients, replicas, _tasks: tasks })
    }

    /// The execution node `index`, from 0.
    ///
    /// # Panics
    /// When there are not so many execution nodes.
    #[must_use]
    pub fn el(&self, index: usize) -> &Arc<Node> {
        &self.execution[index]
    }

    /// The consensus node `index`, from 0.
    ///
    /// # Panics
    /// When there are not so many consensus nodes.
    #[must_use]
    pub fn cl(&self, index: usize) -> &Arc<Node> {
        &self.consensus[index]
    }

    /// All nodes, execution first.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.execution.iter().chain(&self.consensus)
    }

    /// The chain that all nodes share.
    #[must_use]
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// Starts a validator client, whose earnings the control server shows. From now on only the
    /// client makes the blocks of its validators: a slot for which the client publishes none stays
    /// empty.
    #[must_use]
    pub fn validate(&self, client: ValidatorClient) -> Validator {
        let name = client.name.clone();
        self.chain.leave_to_client(&client.validators);
        let validator = Validator::start(self.chain.clone(), client);
        self.clients.add(name, validator.watch());
        validator
    }

    /// Has the control server kill and start these proxies. A second call changes nothing.
    pub fn control_replicas(&self, replicas: Arc<dyn Replicas>) {
        let _ = self.replicas.set(replicas);
    }

    /// Where the control server listens.
    #[must_use]
    pub fn control_addr(&self) -> Option<SocketAddr> {
        self.control
    }
}

/// The address of a socket that was bound at `ip`, with its real port.
fn at(ip: IpAddr, accept: &dyn Accept) -> SocketAddr {
    SocketAddr::new(ip, accept.local_addr().port())
}
