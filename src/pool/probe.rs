//! Asks a node for its head and its condition.

mod beacon;
mod clock;
mod misplaced;
mod software;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Pool,
    ask::{NodeRefusal, failing},
    health::{Fault, Trouble},
    lazy::IN_FULL,
    node::Node,
    own_question::OwnQuestion,
};
use crate::{
    domain::{block::BlockRef, chain::Chain, hex, layer::Layer, node_id::NodeId, verdict::Condition},
    net::{http::Gate, node_connections::Rank},
};

pub use self::clock::ProbeClock;
pub(crate) use self::{misplaced::misplaced, software::software};

/// The longest answer that a probe reads, in bytes: a header and the hashes of a very full block.
const MAX_ANSWER: usize = 4 << 20;

/// How often a node is asked for its chain though nothing suggests another chain.
const CHAIN_AGAIN: Duration = Duration::from_secs(60);
/// How often a server that never answered like a node of its layer is checked for the other layer.
const MISPLACED_AGAIN: Duration = Duration::from_secs(10);
/// A head that is so many blocks beyond the one before may be another chain's.
const LEAP: u64 = 64;

/// The findings of a good probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The latest block.
    pub block: BlockRef,
    /// The node's own word on its condition.
    pub condition: Condition,
    /// The node's chain, as the node last answered.
    pub chain: Chain,
    /// How long the node took.
    pub latency: Duration,
    /// When the question for the latest block left.
    pub asked: Instant,
    /// The latest block of an execution node, as the node wrote the block.
    pub json: Option<Bytes>,
}

/// Probes one node, and remembers answers that need not be asked for each time.
#[derive(Default)]
pub(super) struct Prober {
    /// The node's chain, and when the node answered so.
    chain: Option<(Chain, Instant)>,
    /// The node's condition at the last full probe, and when that probe began.
    condition: Option<(Condition, Instant)>,
    /// The head of the last probe.
    head: Option<BlockRef>,
    /// The kind of server that the node turned out to be, and when this was checked; only while no
    /// probe was ever understood.
    misplaced: Option<(Option<&'static str>, Instant)>,
}

impl Prober {
    /// Asks the node for its head and its condition, within the pool's timeout. Asks also for its
    /// chain if that is unknown, old, or may have changed: after an outage another node may answer
    /// at the same address.
    pub(super) async fn probe(&mut self, pool: &Pool, index: NodeId) -> Result<Probe, Trouble> {
        let (node, layer, time_limit) = (&pool.nodes[index], pool.layer, pool.settings.timeout);
        let asked = Instant::now();
        // A consensus node that knew of no genesis may know more now.
        let is_told = |(chain, _): &(Chain, Instant)| layer == Layer::El || chain.beacon.is_some();
        let known = self.chain.take().filter(is_told);
        let is_idle = pool.is_idle(index);
        let again = if is_idle { IN_FULL } else { CHAIN_AGAIN };
        let is_old = |at: Instant| asked.saturating_duration_since(at) >= again;
        // A node that reports itself unwell is asked in full until the report is good.
        let is_well = |(condition, at): &(Condition, Instant)| !is_old(*at) && condition.verdict().is_none();
        let condition = self.condition.take().filter(|condition| is_idle && is_well(condition));
        let mut ask_again = node.recheck.swap(false, Relaxed) || known.as_ref().is_some_and(|(_, at)| is_old(*at));
        let chain = known.as_ref().map(|(chain, _)| chain);
        let clock = ProbeClock::new(node, time_limit).watched();
        let asking = async {
            match (chain, condition) {
                (Some(chain), Some((condition, _))) => look(&clock, layer, chain, condition).await,
                _ => probe(&clock, layer, chain).await,
            }
        };
        let mut probe = clock.limits(asking).await.and_then(|outcome| outcome);
        if let Err(trouble) = &mut probe
            && self.head.is_none()
            && trouble.fault == Fault::Failing
        {
            self.explain(node, layer, trouble).await;
        }
        if matches!(probe, Err(Trouble { fault: Fault::Full, .. })) {
            // A full node is the same node still.
            self.chain = known;
            node.recheck.fetch_or(ask_again, Relaxed);
            return probe;
        }
        let mut probe = probe?;
        self.condition = condition.or(Some((probe.condition, asked)));
        // Between two looks at an idle node, a fast chain makes many blocks.
        let leap = if is_idle { u64::MAX } else { LEAP };
        ask_again |= self.head.as_ref().is_some_and(|head| is_odd(head, &probe.block, leap));
        self.head = Some(probe.block.clone());
        let Some((chain, at)) = known else {
            self.chain = Some((probe.chain.clone(), asked));
            return Ok(probe);
        };
        self.chain = Some((chain, at));
        if ask_again {
            // A node that does not answer is asked again with the next probe. The head counts all
            // the same.
            let clock = ProbeClock::new(node, time_limit).watched();
            match clock.limits(ask_chain(&clock, layer)).await {
                Ok(Ok(chain)) => {
                    self.chain = Some((chain.clone(), asked));
                    probe.chain = chain;
                }
                Ok(Err(_)) | Err(_) => node.recheck.store(true, Relaxed),
            }
        }
        Ok(probe)
    }
}

impl Prober {
    /// Adds to `trouble` that the server is a node of the other layer, if so.
    async fn explain(&mut self, node: &Node, layer: Layer, trouble: &mut Trouble) {
        let now = Instant::now();
        let is_asked = |(_, at): &(_, Instant)| now.saturating_duration_since(*at) < MISPLACED_AGAIN;
        let (what, _) = match self.misplaced.filter(is_asked) {
            Some(known) => known,
            None => *self.misplaced.insert((misplaced(node, layer).await, now)),
        };
        if let Some(what) = what {
            trouble.text = format!("{what} ({})", trouble.text);
        }
    }
}

/// Whether a node with the head `before` and then `now` may serve another chain by now: its head
/// fell, changed, does not join, or leapt. The cause is mostly a reorganisation, but asking costs
/// little.
pub(super) fn may_be_of_another_chain(before: &BlockRef, now: &BlockRef) -> bool {
    is_odd(before, now, LEAP)
}

/// [`may_be_of_another_chain`], where a head may rise by `leap` blocks.
fn is_odd(before: &BlockRef, now: &BlockRef, leap: u64) -> bool {
    match now.number.checked_sub(before.number) {
        None => true,
        Some(0) => now.hash != before.hash,
        Some(1) => now.parent != before.hash,
        Some(blocks) => blocks > leap,
    }
}

/// The HTTP status of a consensus node's answer at this path.
pub(super) async fn status_of(question: OwnQuestion<'_>, node: &Node, path: &'static str) -> Result<u16, Trouble> {
    beacon::status_of(question, node, path).await
}

async fn ask_chain(clock: &ProbeClock<'_>, layer: Layer) -> Result<Chain, Trouble> {
    match layer {
        Layer::El => execution_chain(clock).await,
        Layer::Cl => beacon::chain(clock).await,
    }
}

/// Asks for the head only, to see whether the node answers.
pub(super) async fn test(clock: &ProbeClock<'_>, layer: Layer) -> Result<(), Trouble> {
    match layer {
        Layer::El => ask_head(clock).await.map(drop),
        Layer::Cl => beacon::test(clock).await,
    }
}

/// Asks a node of `layer` for its head and its condition, and, unless its chain is `known`, for the
/// chain. The caller limits the time.
pub async fn probe(clock: &ProbeClock<'_>, layer: Layer, known: Option<&Chain>) -> Result<Probe, Trouble> {
    match layer {
        Layer::El => probe_execution(clock, known).await,
        Layer::Cl => beacon::probe(clock, known).await,
    }
}

/// Asks an idle node for its head alone. Chain and condition are those of the last full probe.
async fn look(clock: &ProbeClock<'_>, layer: Layer, chain: &Chain, condition: Condition) -> Result<Probe, Trouble> {
    match layer {
        Layer::El => {
            let (block, json, latency, asked) = head(clock).await?;
            Ok(Probe { block, condition, chain: chain.clone(), latency, asked, json: Some(json) })
        }
        Layer::Cl => beacon::look(clock, chain, condition).await,
    }
}

/// The head, as read and as written, how long the node took, and when the question left.
async fn head(clock: &ProbeClock<'_>) -> Result<(BlockRef, Bytes, Duration, Instant), Trouble> {
    let asked = Instant::now();
    let text = must(ask_head(clock).await?)?;
    let block = BlockRef::read(&text).map_err(|why| failing(clock.node, &format!("eth_getBlockByNumber: {why}")))?;
    Ok((block, text, asked.elapsed(), asked))
}

async fn probe_execution(clock: &ProbeClock<'_>, known: Option<&Chain>) -> Result<Probe, Trouble> {
    let node = clock.node;
    let syncing = async {
        match ask(clock.question(), node, "eth_syncing", "[]").await {
            Ok(Ok(text)) => Ok(text.starts_with(b"{") || &text[..] == b"true"),
            // Only the head must be known. A provider that does not offer the method, in whatever
            // words, or has no quota left, does not say that it is syncing.
            Ok(Err(_)) | Err(Trouble { fault: Fault::Resting(_), .. }) => Ok(false),
            Err(trouble) => Err(trouble),
        }
    };
    let chain = async {
        match known {
            Some(chain) => Ok(chain.clone()),
            None => execution_chain(clock).await,
        }
    };
    // In this order, where the node takes one at a time.
    let ((block, json, latency, asked), chain, syncing) = tokio::try_join!(head(clock), chain, syncing)?;
    Ok(Probe {
        block,
        condition: Condition { syncing, ..Condition::default() },
        chain,
        latency,
        asked,
        json: Some(json),
    })
}

async fn ask_head(clock: &ProbeClock<'_>) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
    ask(clock.question(), clock.node, "eth_getBlockByNumber", r#"["latest",false]"#).await
}

async fn execution_chain(clock: &ProbeClock<'_>) -> Result<Chain, Trouble> {
    let text = must(ask(clock.question(), clock.node, "eth_chainId", "[]").await?)?;
    let id = serde_json::from_slice::<String>(&text).ok().and_then(|text| hex::quantity(&text));
    id.map(Chain::from).ok_or_else(|| failing(clock.node, "eth_chainId: not a quantity"))
}

async fn ask(
    question: impl Gate,
    node: &Node,
    method: &str,
    params: &str,
) -> Result<Result<Bytes, NodeRefusal>, Trouble> {
    super::ask::ask_as(Rank::Probe, question, node, method, params, MAX_ANSWER).await
}

/// Takes a refusal for a failure: every node must be able to answer this.
fn must<T>(answer: Result<T, NodeRefusal>) -> Result<T, Trouble> {
    answer.map_err(|NodeRefusal { text, .. }| Trouble { fault: Fault::Failing, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_does_not_follow_may_be_of_another_chain() {
        let block = |number: u64, hash: &str, parent: &str| BlockRef {
            number,
            hash: hash.into(),
            parent: parent.into(),
            timestamp: 0,
        };
        let before = block(100, "a", "z");
        for (now, may_be) in [
            (block(100, "a", "z"), false),
            (block(101, "b", "a"), false),
            (block(105, "c", "b"), false),
            (block(100 + LEAP, "c", "b"), false),
            (block(99, "z", "y"), true),
            (block(100, "b", "z"), true),
            (block(101, "b", "x"), true),
            (block(101 + LEAP, "c", "b"), true),
        ] {
            assert_eq!(may_be_of_another_chain(&before, &now), may_be, "{now:?}");
        }
    }
}
