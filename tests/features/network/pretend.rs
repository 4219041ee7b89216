//! The pretend network: what befalls a node is a fault of the devnet's.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use futures_util::FutureExt;
use steadfast::{
    devnet::{Block, Devnet, Fault, Node, Options},
    domain::layer::Layer,
    net::system::System,
};
use tokio::time::timeout;

use super::{At, Canonical, Doing, Fact, Network, NotHere, Port, Tip, Voice};
use crate::world::soon;

/// Transactions that were ever sent in.
static TRANSACTIONS: AtomicU32 = AtomicU32::new(0);
/// The devnet takes any two bytes or more for a signed transaction.
const RAW: &str = "0x02f870123456";

pub struct Pretend {
    net: Devnet,
    /// Whether blocks come by themselves.
    is_paced: bool,
}

impl Pretend {
    pub async fn start(options: Options) -> Self {
        let is_paced = options.block_time.is_some();
        Self { net: Devnet::start(options, Arc::new(System)).await.unwrap(), is_paced }
    }

    fn node(&self, at: At) -> &Arc<Node> {
        match at.layer {
            Layer::El => self.net.el(at.place),
            Layer::Cl => self.net.cl(at.place),
        }
    }

    fn befalls(&self, at: At, fault: Fault) -> Doing<'_> {
        let node = self.node(at);
        node.set_fault(fault);
        settled(node)
    }
}

fn settled(node: &Arc<Node>) -> Doing<'_> {
    async {
        timeout(soon(), node.settled()).await.expect("the fault is felt");
        Ok(())
    }
    .boxed()
}

fn done<T: Send + 'static>(value: T) -> Doing<'static, T> {
    std::future::ready(Ok(value)).boxed()
}

fn fact(block: &Block) -> Fact {
    Fact {
        number: block.number,
        hash: block.hash.to_string(),
        logs: block.logs().map(|(_, place, log)| (format!("{:#x}", log.address), place as u64)).collect(),
        transactions: block.transactions.iter().map(|mined| mined.transaction.hash.to_string()).collect(),
    }
}

impl Network for Pretend {
    fn pretend(&self) -> Result<&Devnet, NotHere> {
        Ok(&self.net)
    }

    fn addr(&self, at: At, _: Port) -> Result<SocketAddr, NotHere> {
        Ok(self.node(at).addr())
    }

    fn voice(&self) -> Voice {
        Voice::Version
    }

    fn kill(&self, at: At) -> Doing<'_> {
        self.befalls(at, Fault::Down)
    }

    fn hang(&self, at: At) -> Doing<'_> {
        self.befalls(at, Fault::Hang)
    }

    fn start(&self, at: At) -> Doing<'_> {
        let node = self.node(at);
        node.clear_records();
        node.clear_faults();
        settled(node)
    }

    fn lag(&self, at: At, blocks: u64) -> Doing<'_> {
        self.befalls(at, Fault::lag(blocks))
    }

    fn freeze(&self, at: At) -> Doing<'_> {
        self.befalls(at, Fault::Freeze)
    }

    fn mine(&self, blocks: u64) -> Doing<'_> {
        self.net.chain().mine(blocks);
        done(())
    }

    fn reorganise(&self, depth: u64, length: u64) -> Doing<'_> {
        self.net.chain().reorg_to(depth, length).unwrap();
        done(())
    }

    fn news(&self) -> Doing<'_> {
        let number = TRANSACTIONS.fetch_add(1, Relaxed);
        self.net.chain().submit([&b"a transaction"[..], &number.to_be_bytes()].concat()).unwrap();
        if !self.is_paced {
            self.net.chain().mine(1);
        }
        done(())
    }

    fn height(&self) -> u64 {
        self.net.chain().head().number
    }

    fn tip(&self) -> Tip {
        let chain = self.net.chain().clone();
        Arc::new(move || chain.head().number)
    }

    fn canonical(&self, from: u64) -> Doing<'_, Canonical> {
        let now = self.net.chain().snapshot();
        let blocks = (from..=now.head().number).filter_map(|number| now.block(number));
        done(Canonical { blocks: blocks.map(|block| fact(block)).collect() })
    }

    fn slots(&self, from: u64, to: u64) -> Doing<'_, Vec<u64>> {
        let chain = self.net.chain();
        done((from..=to).filter(|slot| chain.as_of(*slot).slot == *slot).collect())
    }

    fn contract(&self, number: usize) -> Result<String, NotHere> {
        Ok(format!("{:#x}", self.net.chain().contracts()[number - 1]))
    }

    fn asked(&self, at: At, method: &str) -> Result<u64, NotHere> {
        Ok(self.node(at).count(method))
    }

    fn signed(&self) -> Doing<'_, String> {
        done(RAW.to_owned())
    }

    fn waiting(&self) -> Doing<'_, Vec<String>> {
        done(self.net.chain().mempool().iter().map(ToString::to_string).collect())
    }

    fn is_ours(&self) -> bool {
        true
    }

    fn close(&self) -> Doing<'_> {
        done(())
    }
}
