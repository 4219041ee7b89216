//! Finds the oldest blocks of which a node has data, by few questions of our own.
//!
//! Rule: once a node has lacked data that another node had, its bound is searched between that
//! block and its head, by halving: some 25 questions on a long chain. After that, as long as the
//! bound counts, one question a minute looks whether the bound still holds. Where the node has
//! dropped more since, the bound is searched anew, and moves with the head from then on if the node
//! has as many blocks as before. Reason: a lack is about one block, and each call between that
//! block and the bound would have to fail first. A node that never lacked anything is asked
//! nothing, so an archive that counts credits costs nothing. Example: geth lacks the state of
//! the first block. A moment later its states are known to begin 127 blocks below its head, and all
//! calls for older ones go to an archive.

use std::{sync::Arc, time::Duration};

use tokio::{
    select,
    time::{Instant, sleep_until},
};

use super::{Pool, block_range::Found};
use crate::domain::{asked_blocks::Data, node_id::NodeId};

/// The data that are searched for: traces cost too much.
const SEARCHED: [Data; 3] = [Data::Blocks, Data::State, Data::Receipts];
/// How often a bound is looked at again.
const AGAIN: Duration = Duration::from_secs(60);
/// How long a node may take over a question.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes: a header with its transactions' hashes.
const MAX_ANSWER: usize = 1024 * 1024;
/// Blocks by which a bound that moves is kept above the bound that was found: the node drops some
/// during the search.
const SLACK: u64 = 2;

/// Searches for as long as the pool runs.
pub(super) async fn tend(pool: Arc<Pool>) {
    let mut next = Instant::now() + AGAIN;
    loop {
        // Both arms are cancel-safe.
        let is_due = select! {
            biased;
            () = pool.lacks_news.notified() => false,
            () = sleep_until(next) => true,
        };
        if is_due {
            next = Instant::now() + AGAIN;
        }
        if pool.is_retired() {
            continue;
        }
        for node in NodeId::all(pool.nodes.len()) {
            for data in SEARCHED {
                // Without an answer the bound stays, and is looked at a minute later.
                let _ = pool.look(node, data, is_due).await;
            }
        }
    }
}

impl Pool {
    /// A node lacks these data of the block at `height`, which another node has.
    pub fn lacks_data(&self, node: NodeId, data: Data, height: u64) {
        if self.nodes[node].block_range.learn(data, height, Instant::now()) {
            self.lacks_news.notify_one();
        }
    }

    /// Searches a node's bound that was not searched yet, or looks whether the one that was found
    /// still holds. `None` without an answer, or where there is nothing to look for.
    async fn look(&self, node: NodeId, data: Data, is_due: bool) -> Option<()> {
        if !self.is_usable(node) || self.is_idle(node) {
            return None;
        }
        let (range, head) = (&self.nodes[node].block_range, self.height(node));
        let oldest = range.oldest(data, head, Instant::now())?;
        let before = range.found_before(data);
        if before.is_some() && (!is_due || self.has(node, data, oldest).await?) {
            return Some(());
        }
        let lowest = if before.is_some() { oldest } else { oldest.checked_sub(1)? };
        let found = self.halve(node, data, lowest).await?;
        let moves = before.is_some_and(|before| before.is_as_deep_as(&found));
        let oldest = if moves { found.oldest + SLACK } else { found.oldest };
        range.found(data, Found { oldest, ..found }, moves, Instant::now());
        Some(())
    }

    /// The oldest block above `lacking` of which the node has these data.
    async fn halve(&self, node: NodeId, data: Data, mut lacking: u64) -> Option<Found> {
        let head = self.height(node);
        let mut oldest = head;
        while oldest.checked_sub(lacking)? > 1 {
            let middle = lacking + (oldest - lacking) / 2;
            if self.has(node, data, middle).await? {
                oldest = middle;
            } else {
                lacking = middle;
            }
        }
        // A node without any of these data is another matter.
        (oldest < head).then_some(Found { oldest, head })
    }

    /// Whether a node has these data of the block at `height`; `None` if the node does not say.
    async fn has(&self, node: NodeId, data: Data, height: u64) -> Option<bool> {
        const NOBODY: &str = "0x0000000000000000000000000000000000000000";
        let (method, params) = match data {
            Data::State => ("eth_getBalance", format!("[\"{NOBODY}\",\"0x{height:x}\"]")),
            Data::Receipts => (
                "eth_getLogs",
                format!(r#"[{{"fromBlock":"0x{height:x}","toBlock":"0x{height:x}","address":"{NOBODY}"}}]"#),
            ),
            Data::Blocks | Data::Traces => ("eth_getBlockByNumber", format!("[\"0x{height:x}\",false]")),
        };
        match self.ask_in_time(node, method, &params, MAX_ANSWER, ASK_TIMEOUT).await.ok()? {
            Ok(result) => Some(*result != *b"null"),
            Err(refusal) => refusal.lacks_data.then_some(false),
        }
    }
}
