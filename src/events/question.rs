//! Questions to nodes on behalf of the stitcher.
//!
//! Rule: the stream's own node is asked first; if that node does not answer within [`ALONE`], all
//! other usable nodes are asked too, and the first answer counts. Reason: a question holds up
//! clients' heads, and a header by its root is the same from every node. Example: node A reports
//! the head of a block and does not give its header. After 250 ms nodes B and C are asked; B gives
//! the header at once, the head goes to clients, and A has until a second after the question to
//! answer, or the question counts as a failed call of A. Questions about a node's own head are for
//! that node alone.

use std::{sync::Arc, time::Duration};

use alloy_primitives::B256;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Method;
use tokio::time::{Instant, sleep};

use super::{
    beacon::{self, Duties},
    node::{body, send},
    stitch::{ChainAnswer, Question},
};
use crate::{
    domain::{beacon_route::Route, node_id::NodeId},
    net::BoxFuture,
    pool::{
        Pool,
        health::{Fault, Trouble},
        own_question::Clock,
        resting::{Kind, RestState},
    },
};

/// How long a node may take over a question, for which clients wait.
const THINKING: Duration = Duration::from_secs(2);
/// How long the stream's node is asked alone, at most; an eighth of a slot where that is less.
const ALONE: Duration = Duration::from_millis(250);
/// How often a new block's header is asked for, and the pause between: not every node serves a
/// header at the moment of reporting the block.
const TRIES: u32 = 4;
const HEADER_PAUSE: Duration = Duration::from_millis(50);
/// The pause before another node is asked for a header again, while the stream's own is silent.
const AGAIN: Duration = Duration::from_millis(100);
/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// The outcome of a question.
pub(super) struct Asked {
    /// `None` if no node gave an answer.
    pub(super) answer: Option<ChainAnswer>,
    /// Where another node gave the answer: waits a little longer for the stream's own node, and
    /// counts a failure if that node stays silent.
    pub(super) wait: Option<BoxFuture<'static, ()>>,
}

/// Asks the stream's node, and others beside that node if the question is one that others can
/// answer.
pub(super) async fn ask(pool: Arc<Pool>, node: NodeId, question: Question, slots_per_epoch: u64) -> Asked {
    let (slot, started) = (pool.slot(), Instant::now());
    let kind = Kind::of_route(&Route::of("GET", path_of(question)));
    let to = |node: NodeId| One { pool: pool.clone(), node, slots_per_epoch, clock: Clock::new(THINKING) };
    let one = to(node);
    let mut own: BoxFuture<'static, Option<ChainAnswer>> = Box::pin(async move { one.asked(question).await });
    let is_for_others = !matches!(question, Question::Head | Question::Finalized(None));
    // A node that keeps failing these questions is not waited for: others are asked at once.
    let is_failing = pool.nodes[node].resting.state(kind, false, started) == RestState::Last;
    let alone = if is_failing { Duration::ZERO } else { ALONE.min(slot / 8) };
    let alone = if is_for_others { alone } else { THINKING * 2 };
    let mut is_open = true;
    // Both arms are cancel-safe.
    tokio::select! {
        biased;
        answer = &mut own => {
            is_open = false;
            if answer.is_some() {
                pool.call_answered(node, kind);
                return Asked { answer, wait: None };
            }
        }
        () = sleep(alone) => {}
    }
    let others =
        NodeId::all(pool.nodes.len()).filter(|other| is_for_others && *other != node && pool.is_usable(*other));
    let ask_other = |other: NodeId, pause: Duration| {
        let one = to(other);
        async move {
            sleep(pause).await;
            (other, one.asked(question).await)
        }
    };
    let others = others.map(|other| ask_other(other, Duration::ZERO));
    let mut others: FuturesUnordered<_> = others.collect();
    loop {
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            answer = &mut own, if is_open => {
                is_open = false;
                if answer.is_some() {
                    pool.call_answered(node, kind);
                    return Asked { answer, wait: None };
                }
            }
            Some((other, answer)) = others.next(), if !others.is_empty() => {
                // A block may have left the other node's chain and still be of this node's chain.
                if let Some(answer) = answer.filter(|answer| !matches!(answer, ChainAnswer::Left)) {
                    let wait = is_open.then(|| wait(pool.clone(), node, other, kind, own, started + slot / 12));
                    return Asked { answer: Some(answer), wait };
                }
                // Another node may get the block a moment after the stream's node, which has
                // reported the block and does not give its header.
                if is_open && matches!(question, Question::Header(_)) {
                    others.push(ask_other(other, AGAIN));
                }
            }
            else => return Asked { answer: None, wait: None },
        }
    }
}

/// Waits until then for the answer of `node`; `other` has answered already.
fn wait(
    pool: Arc<Pool>,
    node: NodeId,
    other: NodeId,
    kind: Kind,
    own: BoxFuture<'static, Option<ChainAnswer>>,
    until: Instant,
) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        match tokio::time::timeout_at(until, own).await {
            Ok(Some(_)) => pool.call_answered(node, kind),
            // A node that does not have the data has not failed.
            Ok(None) => {}
            // The node was not asked yet.
            Err(_) if pool.nodes[node].keeps_own_waiting() => {}
            Err(_) => {
                let text = "no answer to a question that another node answered".to_owned();
                pool.call_failed(node, kind, Trouble { fault: Fault::Silent, text }, Some(other));
            }
        }
    })
}

/// A path of the group of routes that answers the question.
fn path_of(question: Question) -> &'static str {
    match question {
        Question::Head | Question::Header(_) => "/eth/v1/beacon/headers/head",
        Question::Finalized(_) => "/eth/v1/beacon/states/head/finality_checkpoints",
        Question::Duties { .. } => "/eth/v1/beacon/blocks/head/root",
    }
}

/// A node that is asked.
struct One {
    pool: Arc<Pool>,
    node: NodeId,
    slots_per_epoch: u64,
    clock: Clock,
}

impl One {
    /// The answer, if the node gives it in time.
    async fn asked(&self, question: Question) -> Option<ChainAnswer> {
        self.clock.limits(self.answer(question)).await?
    }

    async fn answer(&self, question: Question) -> Option<ChainAnswer> {
        match question {
            Question::Head => self.header("head").await,
            Question::Header(root) => {
                for attempt in 0..TRIES {
                    if attempt > 0 {
                        sleep(HEADER_PAUSE).await;
                    }
                    if let Some(answer) = self.header(&root.to_string()).await {
                        return Some(answer);
                    }
                }
                // A node that does not find blocks by their roots may still give the header of its
                // head.
                self.header("head")
                    .await
                    .filter(|answer| matches!(answer, ChainAnswer::Header(head, _) if *head == root))
            }
            Question::Finalized(state) => {
                let state = state.map_or_else(|| "head".to_owned(), |state| state.to_string());
                let body = self.fetch(&format!("/eth/v1/beacon/states/{state}/finality_checkpoints")).await?;
                beacon::read_finalized(&body).map(ChainAnswer::Finalized)
            }
            Question::Duties { root, epoch } => {
                let duties = match self.duties_by_slot(epoch).await {
                    Some(duties) => duties,
                    None => self.duties_by_themselves(epoch).await?,
                };
                // This comes last: the node then counted the block as canonical after all the
                // answers above.
                let body = self.fetch(&format!("/eth/v1/beacon/headers/{root}")).await?;
                Some(if beacon::is_canonical(&body) { ChainAnswer::Duties(duties) } else { ChainAnswer::Left })
            }
        }
    }

    async fn header(&self, id: &str) -> Option<ChainAnswer> {
        let (root, header) = beacon::read_header(&self.fetch(&format!("/eth/v1/beacon/headers/{id}")).await?)?;
        Some(ChainAnswer::Header(root, header))
    }

    async fn root(&self, id: &str) -> Option<B256> {
        beacon::read_root(&self.fetch(&format!("/eth/v1/beacon/blocks/{id}/root")).await?)
    }

    /// The dependent roots of an epoch's heads, by the blocks that the node has.
    async fn duties_by_slot(&self, epoch: u64) -> Option<Duties> {
        let previous = self.last_before(epoch.saturating_sub(1)).await?;
        Some(Duties { previous, current: self.last_before(epoch).await? })
    }

    /// The same by answers about duties, which name the roots of blocks that the node may have
    /// pruned.
    async fn duties_by_themselves(&self, epoch: u64) -> Option<Duties> {
        let previous = self.dependent_root(&Method::POST, "attester", epoch).await?;
        let current = match self.dependent_root(&Method::POST, "attester", epoch.saturating_add(1)).await {
            Some(current) => current,
            None => self.dependent_root(&Method::GET, "proposer", epoch).await?,
        };
        Some(Duties { previous, current })
    }

    async fn dependent_root(&self, method: &Method, of: &str, epoch: u64) -> Option<B256> {
        let path = format!("/eth/v1/validator/duties/{of}/{epoch}");
        // The request must name a validator; whether that one has duties makes no difference.
        let asks: &[u8] = if *method == Method::POST { br#"["0"]"# } else { b"" };
        beacon::read_dependent_root(&self.exchange(method, &path, asks).await?)
    }

    /// The root of the last block before an epoch; the first block's root if there is none before.
    async fn last_before(&self, epoch: u64) -> Option<B256> {
        let slot = epoch.saturating_mul(self.slots_per_epoch);
        // A slot may be empty; a run of more than an epoch of empty slots is not searched.
        let lowest = slot.saturating_sub(self.slots_per_epoch + 1);
        for slot in (lowest.max(1)..slot).rev() {
            if let Some(root) = self.root(&slot.to_string()).await {
                return Some(root);
            }
        }
        if lowest == 0 { self.root("genesis").await } else { None }
    }

    /// The body of an answer of 200.
    async fn fetch(&self, path: &str) -> Option<Bytes> {
        self.exchange(&Method::GET, path, b"").await
    }

    async fn exchange(&self, method: &Method, path: &str, asks: &[u8]) -> Option<Bytes> {
        let sent = send(&self.pool, self.node, (method, path, asks), "application/json", &self.clock);
        let response = sent.await.ok()?;
        let status = response.head.status;
        let body = body(&self.pool, self.node, response, MAX_ANSWER).await.ok()?;
        (status == 200).then_some(body)
    }
}
