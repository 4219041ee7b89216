//! Asking nodes for the logs of a block.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::log::Log;
use crate::{
    chain::{Block, Follower},
    pool::Pool,
};

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 32 << 20;
/// How long a node may take. One that sends nothing at all is out sooner.
const LIMIT: Duration = Duration::from_secs(10);
/// The first pause when no node has the logs; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Rounds after which nodes are believed that a block has no logs although its bloom filter has bits.
const DISBELIEF: u32 = 10;

/// The logs of `block`, all of them, from the first node that has them. It tries for as long as they are wanted; then there are none.
pub(super) async fn fetch(follower: Arc<Follower>, block: Arc<Block>, is_wanted: impl Fn() -> bool) -> Arc<[Log]> {
    let mut pause = PAUSE;
    let mut round = 0_u32;
    while round == 0 || is_wanted() {
        round += 1;
        let pool = follower.pool();
        for node in candidates(&pool, block.number) {
            let name = &*pool.nodes[node].name;
            match ask(&pool, node, &block).await {
                // Some nodes say so of a block that they do not have yet.
                Ok(logs) if !is_credible(&logs, &block, round) => {
                    debug!(node = name, block = %block.hash, "the node has no logs of a block that should have some");
                }
                Ok(logs) => return logs.into(),
                Err(why) if round.is_multiple_of(DISBELIEF) => {
                    warn!(network = &*pool.network, node = name, block = %block.hash, why, "the logs of a block cannot be had");
                }
                Err(why) => debug!(node = name, block = %block.hash, why, "no logs from this node"),
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Arc::default()
}

/// Whether these may be all logs of the block. In the end nodes are believed.
fn is_credible(logs: &[Log], block: &Block, round: u32) -> bool {
    let should_have_some = block.bloom.as_deref().is_some_and(|bloom| !bloom.is_empty());
    !(logs.is_empty() && should_have_some && round < DISBELIEF)
}

/// The nodes to ask, in this order: the one that serves the calls, then those that should have the block.
fn candidates(pool: &Pool, number: u64) -> Vec<usize> {
    let snapshot = pool.snapshot();
    let mut nodes: Vec<_> = (0..snapshot.nodes.len())
        .filter_map(|node| {
            let facts = &snapshot.nodes[node];
            let is_active = snapshot.active == Some(node);
            let has_block = facts.head.as_ref().is_some_and(|head| head.number >= number);
            (is_active || has_block).then_some(())?;
            Some((!is_active, facts.rank(pool.nodes[node].traffic.told(), pool.served())?, node))
        })
        .collect();
    nodes.sort_unstable();
    nodes.into_iter().map(|(.., node)| node).collect()
}

async fn ask(pool: &Pool, index: usize, block: &Block) -> Result<Vec<Log>, String> {
    let node = &pool.nodes[index];
    let params = format!(r#"[{{"blockHash":"{}"}}]"#, block.hash);
    let out = node.goes_out();
    if node.is_out() {
        return Err("the node is out".to_owned());
    }
    // Whoever is owed an answer is watched for its silence.
    let _owed = node.traffic.owes(Instant::now());
    // Both arms are cancel-safe.
    let answer = tokio::select! {
        biased;
        answer = pool.ask_in_time(index, "eth_getLogs", &params, MAX_ANSWER, LIMIT) => answer,
        () = out => return Err("the node went out".to_owned()),
    };
    node.traffic.touch(Instant::now());
    let json = answer.map_err(|trouble| trouble.text)?.map_err(|refused| refused.text)?;
    Log::read_all(&json, block.hash).ok_or_else(|| "eth_getLogs: not the logs of the block".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{bloom::Bloom, hash::Hash};

    #[test]
    fn that_a_block_whose_bloom_has_bits_has_no_logs_is_believed_late() {
        let (hash, parent, header) = (Hash([1; 32]), Hash([0; 32]), bytes::Bytes::new());
        let block = Block { number: 1, hash, parent, timestamp: 1, header, bloom: Some(Box::new(Bloom([1; 256]))) };
        let without = [None, Some(Box::new(Bloom([0; 256])))].map(|bloom| Block { bloom, ..block.clone() });
        let log = Log { address: [0; 20], topics: Vec::new(), text: "{}".into() };
        assert!(!is_credible(&[], &block, 1));
        assert!(is_credible(&[], &block, DISBELIEF));
        assert!(is_credible(&[log], &block, 1));
        assert!(without.iter().all(|block| is_credible(&[], block, 1)));
    }
}
