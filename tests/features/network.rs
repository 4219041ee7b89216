//! The networks that scenarios run on: the pretend network, real anvils, an enclave of Kurtosis.
//!
//! A step says what befalls a node. The network does that to a pretend node, a process or a
//! container, or answers [`NotHere`]: then the scenario ends, and counts as not on this network, if
//! the table in `excused.rs` has it; if not, it has failed.

pub mod anvil;
pub mod cli;
pub mod enclave;
pub mod excused;
mod facts;
mod pretend;
mod relay;
mod rpc;
mod story;

use std::{
    fmt,
    net::SocketAddr,
    panic::panic_any,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::future::BoxFuture;
use serde_json::Value;
use steadfast::{
    devnet::{Devnet, Options},
    domain::layer::Layer,
};

pub use facts::{Canonical, Fact};

/// A kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The pretend network, in this process.
    Devnet,
    /// Real anvil processes that hold one chain.
    Anvil,
    /// Containers that `kurtosis/run.sh` has started.
    Kurtosis,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Devnet => "devnet",
            Self::Anvil => "anvil",
            Self::Kurtosis => "kurtosis",
        }
    }

    /// By how much real nodes may be slower than pretend ones.
    const fn slowness(self) -> u32 {
        match self {
            Self::Devnet => 1,
            Self::Anvil => 3,
            // A client that starts again takes a minute to follow the chain.
            Self::Kurtosis => 16,
        }
    }

    /// How many scenarios run at once.
    pub const fn at_once(self) -> usize {
        match self {
            Self::Devnet => 4,
            Self::Anvil => 2,
            // There is one enclave.
            Self::Kurtosis => 1,
        }
    }

    /// How the proxy probes, unless the scenario says: fast enough for a test, and slow enough for
    /// nodes of this kind on a loaded machine.
    pub fn health(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Devnet => &[("health.interval", r#""100ms""#), ("health.timeout", r#""300ms""#)],
            Self::Anvil => &[("health.interval", r#""200ms""#), ("health.timeout", r#""1500ms""#)],
            Self::Kurtosis => &[],
        }
    }
}

/// The network that `STEADFAST_NETWORK` names.
pub fn chosen() -> Kind {
    static CHOSEN: OnceLock<Kind> = OnceLock::new();
    *CHOSEN.get_or_init(|| match std::env::var("STEADFAST_NETWORK").as_deref() {
        Err(_) | Ok("devnet") => Kind::Devnet,
        Ok("anvil") => Kind::Anvil,
        Ok("kurtosis") => Kind::Kurtosis,
        Ok(other) => panic!("STEADFAST_NETWORK={other} is not one of devnet, anvil, kurtosis"),
    })
}

/// Time on this network that would be `pretend` on the pretend network, where it is an upper bound.
pub fn stretch(pretend: Duration) -> Duration {
    pretend * chosen().slowness()
}

/// What a network cannot do or show.
#[derive(Clone, Debug)]
pub struct NotHere(pub String);

impl NotHere {
    pub fn new(what: impl fmt::Display) -> Self {
        Self(format!("{}: {what}", chosen().as_str()))
    }
}

/// Ends the scenario as not on this network.
pub fn here<T>(outcome: Result<T, NotHere>) -> T {
    outcome.unwrap_or_else(|not| panic_any(not))
}

/// A node of the network: the one at that place among those of its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct At {
    pub layer: Layer,
    pub place: usize,
}

/// Which of a node's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Http,
    Ws,
}

/// How answers tell which node gave them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// By the last number of the version: pretend nodes.
    Version,
    /// By the last of its accounts: anvils, each of which was given one of its own.
    Account,
    /// Not at all. The status and the proxy's counters of calls at each node tell.
    Silent,
}

impl Voice {
    /// The call whose answer tells.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Version => "web3_clientVersion",
            Self::Account => "eth_accounts",
            Self::Silent => "eth_blockNumber",
        }
    }

    /// The place of the node that gave this answer, if that can be told.
    pub fn place(self, answer: &Value) -> Result<Option<usize>, String> {
        let result = answer.get("result").or_else(|| answer.get("data"));
        let result = result.filter(|result| !result.is_null()).ok_or("no result")?;
        let version = result.as_str().or_else(|| result["version"].as_str());
        let place = match self {
            Self::Silent => return Ok(None),
            Self::Version => version
                .and_then(|version| version.rsplit('-').next()?.parse::<usize>().ok())
                .and_then(|number| number.checked_sub(1)),
            Self::Account => result.as_array().and_then(|accounts| anvil::place(accounts.last()?.as_str()?)),
        };
        place.map(Some).ok_or_else(|| "it does not name a node".to_owned())
    }
}

/// The network's height.
pub type Tip = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Something that a network does, or cannot.
pub type Doing<'a, T = ()> = BoxFuture<'a, Result<T, NotHere>>;

/// A network of nodes that hold one chain, and what can befall them.
pub trait Network: Send + Sync {
    /// The pretend network, for steps that look into pretend nodes.
    fn pretend(&self) -> Result<&Devnet, NotHere> {
        Err(NotHere::new("nodes cannot be looked into, nor told to err"))
    }

    /// Where a node listens. The address lasts while the node is away.
    fn addr(&self, at: At, port: Port) -> Result<SocketAddr, NotHere>;

    fn voice(&self) -> Voice;

    /// The node dies, without a word, and what it had in memory is lost.
    fn kill(&self, at: At) -> Doing<'_>;

    /// The node stands still: its connections stay, and nothing is answered.
    fn hang(&self, at: At) -> Doing<'_>;

    /// The node is well again, and has the whole chain.
    fn start(&self, at: At) -> Doing<'_>;

    /// The node stays that many blocks behind.
    fn lag(&self, at: At, blocks: u64) -> Doing<'_>;

    /// The node gets no more blocks.
    fn freeze(&self, at: At) -> Doing<'_>;

    /// The chain grows by that many blocks.
    fn mine(&self, blocks: u64) -> Doing<'_>;

    /// The last `depth` blocks are replaced by `length` others.
    fn reorganise(&self, depth: u64, length: u64) -> Doing<'_>;

    /// Something happens for each kind of subscription; a block is mined only if none come by
    /// themselves.
    fn news(&self) -> Doing<'_>;

    /// The network's height, or the slot of its head.
    fn height(&self) -> u64;

    /// The same from wherever it is needed, and never less than a node may have told.
    fn tip(&self) -> Tip;

    /// The canonical chain as plain facts, from that block on.
    fn canonical(&self, from: u64) -> Doing<'_, Canonical>;

    /// Which of these slots have a block.
    fn slots(&self, from: u64, to: u64) -> Doing<'_, Vec<u64>>;

    /// The address of a contract that logs: 1 or 2.
    fn contract(&self, number: usize) -> Result<String, NotHere>;

    /// How often a node was asked for a method since it was well.
    fn asked(&self, at: At, method: &str) -> Result<u64, NotHere>;

    /// A signed transaction that the network has not seen.
    fn signed(&self) -> Doing<'_, String>;

    /// Hashes of clients' transactions that wait for a block.
    fn waiting(&self) -> Doing<'_, Vec<String>>;

    /// Whether the chain is the scenario's own: it begins at block 10, and has no blocks but those
    /// that the scenario asks for.
    fn is_ours(&self) -> bool;

    /// Puts back what lasts longer than the scenario.
    fn close(&self) -> Doing<'_>;
}

/// What a scenario needs.
pub struct Wish {
    pub options: Options,
    /// One of each layer to spare is counted in `options`, and not here.
    pub execution: usize,
    pub consensus: usize,
}

/// Starts a network of the chosen kind.
pub async fn start(wish: Wish) -> Result<Arc<dyn Network>, NotHere> {
    Ok(match chosen() {
        Kind::Devnet => Arc::new(pretend::Pretend::start(wish.options).await),
        Kind::Anvil => Arc::new(anvil::Anvil::start(&wish).await?),
        Kind::Kurtosis => Arc::new(enclave::Enclave::open(&wish).await?),
    })
}
