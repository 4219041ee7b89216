//! Logs of new blocks, and of blocks that a reorganisation took out.
//!
//! Nodes are asked for a block's logs once for all subscribers, and only when the block's bloom filter does not rule out that some are
//! wanted. They are told in the order of the blocks, as soon as they can be had; what was told is remembered for as long as the block
//! may go, so that taking it back needs no node.

mod fetch;
mod filter;
mod ledger;
mod log;

use std::{collections::BTreeMap, sync::Arc};

use tokio::task::{AbortHandle, JoinSet};
use tracing::warn;

pub(super) use self::filter::Filter;
use self::{
    ledger::{Ledger, Telling},
    log::Log,
};
use super::{audience::Audience, mailbox::Closing};
use crate::{
    chain::{Block, Change, Follower},
    domain::{bloom::Bloom, hash::Hash},
};

/// Blocks whose logs are asked for at once.
const AT_ONCE: usize = 8;

/// The logs of one network.
pub(super) struct Logs {
    pub(super) audience: Arc<Audience<Filter>>,
    follower: Arc<Follower>,
    ledger: Ledger<Log>,
    fetches: JoinSet<Fetched>,
    /// The blocks whose logs are to be found.
    sought: BTreeMap<Hash, Sought>,
    blooms: Blooms,
}

/// Whether the chain's blocks have bloom filters. On some chains all are empty, and say nothing.
#[derive(Default)]
struct Blooms {
    are_known: bool,
}

impl Blooms {
    /// The filter of the next block, if it says anything.
    fn evidence<'a>(&mut self, bloom: Option<&'a Bloom>) -> Option<&'a Bloom> {
        self.are_known |= bloom.is_some_and(|bloom| !bloom.is_empty());
        bloom.filter(|_| self.are_known)
    }
}

struct Sought {
    block: Arc<Block>,
    /// Asks for them, when it is their turn.
    task: Option<AbortHandle>,
}

/// All logs of a block.
pub(super) struct Fetched {
    block: Hash,
    logs: Arc<[Log]>,
}

impl Logs {
    pub(super) fn new(audience: Arc<Audience<Filter>>, follower: Arc<Follower>, window: usize) -> Self {
        Self {
            audience,
            follower,
            ledger: Ledger::new(window),
            fetches: JoinSet::new(),
            sought: BTreeMap::new(),
            blooms: Blooms::default(),
        }
    }

    /// Takes up how the chain changed, and tells what needs no node.
    pub(super) async fn change(&mut self, change: &Change) {
        self.audience.announce(change.seq);
        if change.skipped {
            // Whoever comes after the announcement has missed nothing.
            self.give_up(change.seq).await;
        }
        for block in &change.removed {
            self.forget(block.hash);
            if let Some(telling) = self.ledger.remove(block.hash) {
                self.tell(telling).await;
            }
        }
        let wishes = self.audience.wishes(change.seq);
        for block in &change.added {
            let bloom = self.blooms.evidence(block.bloom.as_deref());
            let is_wanted = wishes.iter().any(|filter| filter.may_match(block.number, bloom));
            if is_wanted {
                self.sought.insert(block.hash, Sought { block: block.clone(), task: None });
            }
            let entry = ledger::Block { hash: block.hash, number: block.number, change: change.seq };
            self.ledger.add(entry, (!is_wanted).then(Arc::default));
        }
        if self.ledger.is_overfull() {
            let network = self.follower.pool().network.clone();
            warn!(
                network = &*network,
                "no node gave the logs of a block for too long: clients that wait for them are closed"
            );
            self.give_up(change.seq).await;
        }
        if wishes.is_empty() {
            // Nobody is there, so nobody can be told anything of these blocks, now or later.
            self.clear();
        }
        self.go_on().await;
    }

    /// Waits for logs that are under way; for ever if there are none. Cancel-safe.
    pub(super) async fn fetched(&mut self) -> Fetched {
        while let Some(fetched) = self.fetches.join_next().await {
            match fetched {
                Ok(fetched) => return fetched,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => {}
            }
        }
        std::future::pending().await
    }

    /// Takes up the logs of a block, and tells what can be told now.
    pub(super) async fn found(&mut self, Fetched { block: hash, logs }: Fetched) {
        self.forget(hash);
        let block = self.ledger.wanted().find(|block| block.hash == hash);
        if let Some(block) = block {
            let wishes = self.audience.wishes(block.change);
            let is_wanted = |log: &&Log| wishes.iter().any(|filter| filter.matches(log, block.number));
            let logs = logs.iter().filter(is_wanted).cloned().collect();
            self.ledger.found(hash, logs);
        }
        self.go_on().await;
    }
    /// Tells what can be told, and asks for what is to be told next.
    async fn go_on(&mut self) {
        while let Some(telling) = self.ledger.next() {
            self.tell(telling).await;
        }
        for ledger::Block { hash, change, .. } in self.ledger.wanted().take(AT_ONCE) {
            if let Some(Sought { block, task: task @ None }) = self.sought.get_mut(&hash) {
                let (follower, audience, block) = (self.follower.clone(), self.audience.clone(), block.clone());
                let fetch = async move {
                    // Those who leave must not hold back the logs of later blocks from the others.
                    let bloom = block.bloom.as_deref().filter(|bloom| !bloom.is_empty());
                    let may_match = |filter: &Arc<Filter>| filter.may_match(block.number, bloom);
                    let is_wanted = || audience.wishes(change).iter().any(may_match);
                    Fetched { block: hash, logs: fetch::fetch(follower, block.clone(), is_wanted).await }
                };
                *task = Some(self.fetches.spawn(fetch));
            }
        }
    }

    async fn tell(&self, Telling { block, logs, removed }: Telling<Log>) {
        let logs = if removed { logs.iter().rev().map(Log::removed).collect() } else { logs };
        if logs.is_empty() {
            return;
        }
        let wanted = move |filter: &Filter| {
            let logs = logs.iter().filter(|log| filter.matches(log, block.number));
            logs.map(|log| log.text.clone()).collect()
        };
        self.audience.tell(block.change, wanted).await;
    }

    /// The logs of this block need not be found any more.
    fn forget(&mut self, block: Hash) {
        if let Some(Sought { task: Some(task), .. }) = self.sought.remove(&block) {
            task.abort();
        }
    }

    fn clear(&mut self) {
        self.ledger.clear();
        self.sought.clear();
        self.fetches.abort_all();
    }

    /// Logs are missing for whoever hears of the change of this number.
    async fn give_up(&mut self, change: u64) {
        self.clear();
        self.audience.close(change, Closing::Gap).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_bloom_says_nothing_until_the_chain_has_shown_another() {
        let (mut blooms, empty, full) = (Blooms::default(), Bloom([0; 256]), Bloom([1; 256]));
        assert_eq!(blooms.evidence(Some(&empty)), None);
        assert_eq!(blooms.evidence(Some(&full)), Some(&full));
        assert_eq!(blooms.evidence(None), None);
        assert_eq!(blooms.evidence(Some(&empty)), Some(&empty));
    }
}
