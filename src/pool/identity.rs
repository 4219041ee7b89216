//! A network's identity: its chain id, and the number that `net_version` answers.
//!
//! The two are nearly always the same, but no rule says so. So a node is asked once for each chain.
//! If the node answers another number, or none, the pool does not know the number, and calls for it
//! go to nodes.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::time::sleep;

use super::Pool;

/// How long a node may take to tell.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Before a node is asked again, when none told.
const ASK_PAUSE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4096;

impl Pool {
    /// The id of the chain, once it is known.
    pub fn chain_id(&self) -> Option<u64> {
        self.snapshot().chain.as_ref().and_then(|chain| chain.id)
    }

    /// The network's number, once a node has told it for this chain.
    pub fn network_id(&self) -> Option<u64> {
        let told = self.version.load(Relaxed);
        self.chain_id().filter(|id| *id == told && told != 0)
    }
}

/// Asks the active node for the number of the network whose chain this is, and after a pause the
/// node that is active then, until one answers.
pub(super) async fn learn(pool: Arc<Pool>, chain: u64) {
    while pool.chain_id() == Some(chain) {
        let active = pool.snapshot().active;
        if let Some(node) = active
            && let Ok(told) = pool.ask_in_time(node, "net_version", "[]", MAX_ANSWER, ASK_TIMEOUT).await
        {
            if told.is_ok_and(|text| *text == *format!("\"{chain}\"").as_bytes()) {
                pool.version.store(chain, Relaxed);
            }
            return;
        }
        sleep(ASK_PAUSE).await;
    }
}
