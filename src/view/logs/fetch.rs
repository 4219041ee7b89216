//! Fetches the logs of one block, from any node that has them and in any form that the node
//! answers.
//!
//! Rule: nodes are asked in rounds, the active node first, then by rank. Each node has a head start
//! of a quarter of the time limit, but at least 0.5 s and at most 2 s, before the next is asked
//! beside it; the first answer with logs counts. Rounds repeat until the time limit is over.
//! Reason: subscribers are closed if a block's logs are not found, so one slow node must not decide
//! that. Example with a time limit of 6 s: node a is asked at once and stays silent; node b is
//! asked after 1.5 s and answers; b's logs are taken.

mod forms;
mod question;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use alloy_primitives::Bloom;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::debug;

pub(super) use self::forms::Forms;
use self::{
    forms::Form,
    question::{Lack, Question},
};
use super::{
    filter::{Filter, union},
    log::NodeLogs,
};
use crate::{
    chain::{Block, Follower},
    domain::{backoff::Backoff, bloom::is_full, node_id::NodeId},
    pool::{Pool, node::Node, snapshot::Facts},
    route,
};

/// The pauses between rounds in which no node gave the logs.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// In rounds before this one, a node that says that a block has no logs is not believed if the
/// block's bloom filter has bits: some nodes answer so for a block that they do not have yet.
const DISBELIEF: u32 = 10;
/// The bounds of the head start of a node: a quarter of the time limit passes before the next node
/// is asked beside it.
const HEAD_START: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// How often the presence of nodes is checked.
const TICK: Duration = Duration::from_millis(100);
/// How often the time limit begins anew because nodes that were all away have returned. Bounded,
/// because nodes may come and go for ever.
const RETURNS: u32 = 2;
/// A node that owes the logs and has sent nothing for longer counts as away.
const SILENCE: Duration = Duration::from_millis(1200);
/// How much time does not count in which every node that has the block keeps questions of ours
/// waiting for a connection.
const FULL: Duration = Duration::from_secs(10);

/// The search for the logs of one block.
pub(super) struct Errand {
    pub(super) follower: Arc<Follower>,
    pub(super) block: Arc<Block>,
    /// Gives the filters of subscribers to the block.
    pub(super) wanted: Box<dyn Fn() -> Vec<Arc<Filter>> + Send + Sync>,
    /// The block's bloom filter, if filters are believed.
    pub(super) bloom: Option<Bloom>,
    /// Whether the logs are fetched only to check the bloom filter, so that one round is enough.
    pub(super) is_sample: bool,
    /// How long to go on while there are nodes that should have the logs.
    pub(super) time_limit: Duration,
    pub(super) forms: Forms,
}

impl Errand {
    /// Fetches the wanted logs of the block from the first node that has them. Returns no logs when
    /// no filter wants them any more, and `None` when no node gave the logs in time.
    pub(super) async fn run(self) -> Option<NodeLogs> {
        let said_none = AtomicBool::new(false);
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            told = self.hunt(&said_none) => told,
            // The time limit is over: if nodes said that the block has no logs, they are believed
            // now.
            () = self.time_limit_passes() => said_none.load(Relaxed).then(NodeLogs::default),
        }
    }

    /// Waits until the time limit is over. Only time counts in which a node is there that should
    /// have the block and has a connection for the question, or [`FULL`] has passed without. When
    /// nodes return after all were away, the time limit begins anew, at most [`RETURNS`] times. For
    /// example with a time limit of 10 s: all nodes go away after 8 s and one returns after a
    /// minute; that node has the full 10 s again.
    async fn time_limit_passes(&self) {
        let (mut spent, mut waited) = (Duration::ZERO, Duration::ZERO);
        let (mut returns, mut are_away) = (0, false);
        while spent < self.time_limit {
            let tick = TICK.min(self.time_limit - spent);
            sleep(tick).await;
            let pool = self.follower.pool();
            let (now, snapshot) = (Instant::now(), pool.snapshot());
            let is_there = |(facts, node): &(&Facts, &Node)| {
                facts.has(self.block.number) && facts.preference(0, 0).is_some() && node.traffic.silence(now) <= SILENCE
            };
            let mut there = snapshot.nodes.iter().zip(&pool.nodes).filter(is_there).peekable();
            if there.peek().is_none() {
                are_away = true;
                continue;
            }
            if waited < FULL && there.all(|(_, node)| node.keeps_own_waiting()) {
                waited += tick;
                continue;
            }
            if std::mem::take(&mut are_away) && returns < RETURNS {
                returns += 1;
                spent = Duration::ZERO;
            }
            spent += tick;
        }
    }

    async fn hunt(&self, said_none: &AtomicBool) -> Option<NodeLogs> {
        let mut pauses = PAUSES;
        let mut round = 0_u32;
        // Subscribers that have left must not hold back the logs of later blocks for the others.
        while round == 0 || (self.wanted)().iter().any(|filter| self.may_concern(filter)) {
            if !self.is_sample && sources(&self.follower.pool(), self.block.number).is_empty() {
                // The first node to return is asked at once, without a pause left over from earlier
                // rounds.
                pauses.reset();
                sleep(TICK).await;
                continue;
            }
            round += 1;
            let told = self.ask_all(round, said_none).await;
            if told.is_some() || self.is_sample {
                return told;
            }
            sleep(pauses.pause()).await;
        }
        Some(NodeLogs::default())
    }

    fn may_concern(&self, filter: &Filter) -> bool {
        filter.may_match(self.block.number, self.bloom.as_ref())
    }

    /// A round: asks the nodes one after the other. A node that fails is followed by the next at
    /// once; beside a node that is slow, the next is asked after its head start. A node that turns
    /// out to have the block only during the round is asked too.
    async fn ask_all(&self, round: u32, said_none: &AtomicBool) -> Option<NodeLogs> {
        let pool = self.follower.pool();
        let mut asked = FuturesUnordered::new();
        let mut had_its_turn = Vec::new();
        let head_start = (self.time_limit / 4).clamp(HEAD_START.0, HEAD_START.1);
        let mut next_at = Instant::now();
        loop {
            let now = Instant::now();
            let next = sources(&pool, self.block.number).into_iter().find(|node| !had_its_turn.contains(node));
            match next {
                Some(node) if now >= next_at => {
                    had_its_turn.push(node);
                    asked.push(self.ask(&pool, node, round, said_none));
                    next_at = now + head_start;
                }
                None if asked.is_empty() => return None,
                _ => {}
            }
            // Both arms are cancel-safe.
            tokio::select! {
                biased;
                Some(answer) = asked.next() => match answer {
                    None => next_at = now,
                    answer => return answer,
                },
                () = sleep_until(next_at.max(now + TICK)) => {}
            }
        }
    }

    /// Asks one node in one form after the other, for as long as the node answers.
    async fn ask(&self, pool: &Pool, node: NodeId, round: u32, said_none: &AtomicBool) -> Option<NodeLogs> {
        let name = &pool.nodes[node].name;
        let (network, block) = (&*pool.network, self.block.hash);
        let wanted = (self.wanted)();
        let concerned = wanted.iter().map(|filter| &**filter);
        let question = Question {
            pool,
            node,
            block: &self.block,
            union: union(concerned.filter(|filter| self.may_concern(filter))),
            limit: self.time_limit,
        };
        let mut refused = false;
        for form in self.forms.of(name, round) {
            match question.ask(form).await {
                // Some nodes answer so for a block that they do not have yet.
                Ok(told) if !is_credible(&told, &self.block, round) => {
                    debug!(network, node = &**name, %block, "the node has no logs of a block that should have some");
                    said_none.store(true, Relaxed);
                }
                Ok(told) => {
                    self.forms.answered(name, form, refused);
                    return Some(told);
                }
                Err(Lack::Empty) => said_none.store(true, Relaxed),
                Err(Lack::Inapplicable) => {}
                Err(Lack::Refused(why)) => {
                    debug!(network, node = &**name, %block, ?form, why, "no logs from this node in this form");
                    refused |= form == Form::Hash;
                }
                Err(Lack::Away(why)) => {
                    debug!(network, node = &**name, %block, ?form, why, "no logs from this node");
                    return None;
                }
            }
        }
        None
    }
}

/// Whether these may be all logs of the block. From round [`DISBELIEF`] on, every answer is
/// believed.
fn is_credible(told: &NodeLogs, block: &Block, round: u32) -> bool {
    let should_have_some = block.bloom.as_deref().is_some_and(|bloom| !bloom.is_zero() && !is_full(bloom));
    !told.logs.is_empty() || told.receipts > 0 || !should_have_some || round >= DISBELIEF
}

/// The nodes to ask now for the logs of the block at `number`.
fn sources(pool: &Pool, number: u64) -> Vec<NodeId> {
    let height = |node: NodeId| pool.nodes[node].traffic.max_height();
    let (served, snapshot) = pool.served_and_snapshot();
    route::sources(&snapshot, height, served, number)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;
    use crate::view::logs::log::Log;

    #[test]
    fn no_logs_for_a_bloom_with_bits_is_believed_late() {
        let (hash, parent, header) = (B256::repeat_byte(1), B256::repeat_byte(0), bytes::Bytes::new());
        let block =
            Block { number: 1, hash, parent, timestamp: 1, header, bloom: Some(Box::new(Bloom::repeat_byte(1))) };
        let silent = [None, Some(Box::new(Bloom::ZERO)), Some(Box::new(Bloom::repeat_byte(0xff)))];
        let without = silent.map(|bloom| Block { bloom, ..block.clone() });
        let log = Log { address: None, topics: Vec::new(), text: "{}".into() };
        assert!(!is_credible(&NodeLogs::default(), &block, 1));
        assert!(is_credible(&NodeLogs::default(), &block, DISBELIEF));
        assert!(is_credible(&NodeLogs { logs: vec![log], ..NodeLogs::default() }, &block, 1));
        assert!(is_credible(&NodeLogs { receipts: 1, ..NodeLogs::default() }, &block, 1), "its transactions have none");
        assert!(without.iter().all(|block| is_credible(&NodeLogs::default(), block, 1)));
    }
}
