//! Asks a consensus node for its head and its condition.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use tokio::time::Instant;

use super::MAX_ANSWER;
use crate::{
    domain::{
        block::BlockRef,
        chain::{Chain, Number},
        target::Target,
        verdict::Condition,
    },
    metrics::Payer,
    net::{
        http::{Gate, Upstream},
        node_connections::Rank,
    },
    pool::{
        ask::{failing, is_refusal, read, refusing, says_no, trouble, wait},
        health::Trouble,
        node::Node,
        own_question::OwnQuestion,
        paid::{Paid, afford, spent},
        probe::{Probe, ProbeClock},
    },
};

const HEAD: &str = "/eth/v1/beacon/headers/head";

/// The node's condition beyond its words: by the status of its health route.
const PARTIAL_CONTENT: u16 = 206;
const UNWELL: u16 = 503;

/// Asks for the head, the condition, and, unless the chain is `known`, for the chain.
pub(super) async fn probe(clock: &ProbeClock<'_>, known: Option<&Chain>) -> Result<Probe, Trouble> {
    let node = clock.node;
    let Some(upstream) = &node.upstream else {
        return Err(failing(node, "has no HTTP URL, and there is no beacon API without"));
    };
    let started = Instant::now();
    let chain = async {
        match known.filter(|chain| chain.beacon.is_some()) {
            Some(chain) => Ok(chain.clone()),
            None => ask_chain(clock, upstream).await,
        }
    };
    let head = async {
        let answer = ask(clock, upstream, HEAD).await?;
        Ok((answer, started.elapsed()))
    };
    let condition = ask_condition(clock, upstream);
    let ((head, latency), chain, mut condition) = tokio::try_join!(head, chain, condition)?;
    let Some(beacon) = &chain.beacon else {
        // The node answers, and has no chain yet.
        condition.syncing = true;
        let block = BlockRef { number: 0, hash: String::new(), parent: String::new(), timestamp: 0 };
        return Ok(Probe { block, condition, chain, latency, asked: started, json: None });
    };
    let head = head.must(node, HEAD)?;
    let (block, optimistic) = BlockRef::read_beacon(&head, beacon)
        .map_err(|why| failing(node, &format!("/eth/v1/beacon/headers/head: {why}")))?;
    condition.optimistic |= optimistic;
    Ok(Probe { block, condition, chain, latency, asked: started, json: None })
}

/// Asks for the head alone. Chain and condition are those of the last full probe.
pub(super) async fn look(clock: &ProbeClock<'_>, chain: &Chain, condition: Condition) -> Result<Probe, Trouble> {
    let (node, asked) = (clock.node, Instant::now());
    let (Some(upstream), Some(beacon)) = (&node.upstream, &chain.beacon) else {
        return Err(failing(node, "has no HTTP URL, or no known chain"));
    };
    let head = ask(clock, upstream, HEAD).await?.must(node, HEAD)?;
    let (block, optimistic) =
        BlockRef::read_beacon(&head, beacon).map_err(|why| failing(node, &format!("{HEAD}: {why}")))?;
    let condition = Condition { optimistic, ..condition };
    Ok(Probe { block, condition, chain: chain.clone(), latency: asked.elapsed(), asked, json: None })
}

/// The chain that the node serves.
pub(super) async fn chain(clock: &ProbeClock<'_>) -> Result<Chain, Trouble> {
    match &clock.node.upstream {
        Some(upstream) => ask_chain(clock, upstream).await,
        None => Err(failing(clock.node, "has no HTTP URL")),
    }
}

/// Asks for the head only, to see whether the node answers.
pub(super) async fn test(clock: &ProbeClock<'_>) -> Result<(), Trouble> {
    match &clock.node.upstream {
        Some(upstream) => ask(clock, upstream, HEAD).await.map(drop),
        None => Err(failing(clock.node, "has no HTTP URL")),
    }
}

/// The HTTP status of the answer at this path.
pub(super) async fn status_of(mut question: OwnQuestion<'_>, node: &Node, path: &'static str) -> Result<u16, Trouble> {
    match &node.upstream {
        Some(upstream) => {
            let (rank, question) = (Rank::Own, &mut question);
            let BeaconReply { status, wait, .. } = ask_as(rank, question, node, upstream, path).await?;
            let refused = || refusing(node, &format!("{path}: HTTP status {status}"), wait);
            if is_refusal(status, wait) { Err(refused()) } else { Ok(status) }
        }
        None => Err(failing(node, "has no HTTP URL")),
    }
}

/// The node's own report on its condition. If the report is good, the status of the health route
/// decides: nodes have called themselves synced while that status was 206 (syncing, optimistic or
/// without an execution node) or 503 (not well). Other statuses are ignored, and so is a node that
/// does not offer the report.
async fn ask_condition(clock: &ProbeClock<'_>, upstream: &Arc<Upstream>) -> Result<Condition, Trouble> {
    #[derive(Deserialize)]
    struct Told {
        data: Syncing,
    }
    #[derive(Deserialize)]
    struct Syncing {
        sync_distance: Number,
        is_syncing: bool,
        // Not all of these were there from the beginning of the API.
        is_optimistic: Option<bool>,
        el_offline: Option<bool>,
    }
    const SYNCING: &str = "/eth/v1/node/syncing";
    const HEALTH: &str = "/eth/v1/node/health";
    let node = clock.node;
    let (syncing, health) = tokio::try_join!(ask(clock, upstream, SYNCING), ask(clock, upstream, HEALTH))?;
    let mut condition = match (syncing.status, syncing.body) {
        // A fact that is refused for quota stays unknown too, and may: only the head must be known.
        (status, _) if says_no(status) || is_refusal(status, syncing.wait) => Condition::default(),
        (200, answer) => {
            let Told { data } =
                serde_json::from_slice(&answer).map_err(|error| failing(node, &format!("{SYNCING}: {error}")))?;
            let distance = data.sync_distance.0;
            Condition {
                syncing: data.is_syncing,
                optimistic: data.is_optimistic.unwrap_or(false),
                el_offline: data.el_offline.unwrap_or(false),
                sync_distance: distance
                    .ok_or_else(|| failing(node, &format!("{SYNCING}: sync_distance is no number")))?,
            }
        }
        (status, _) => return Err(failing(node, &format!("{SYNCING}: HTTP status {status}"))),
    };
    if condition.verdict().is_none() {
        match health.status {
            PARTIAL_CONTENT => condition.syncing = true,
            UNWELL => return Err(failing(node, &format!("{HEALTH}: HTTP status {UNWELL}"))),
            // Well, or no information.
            _ => {}
        }
    }
    Ok(condition)
}

async fn ask_chain(clock: &ProbeClock<'_>, upstream: &Arc<Upstream>) -> Result<Chain, Trouble> {
    const SPEC: &str = "/eth/v1/config/spec";
    const GENESIS: &str = "/eth/v1/beacon/genesis";
    let (node, genesis) = (clock.node, ask(clock, upstream, GENESIS));
    let (genesis, BeaconReply { status, wait, body }) = tokio::try_join!(genesis, ask(clock, upstream, SPEC))?;
    let spec = match status {
        200 => Some(&body[..]),
        // Not offered, or not to us. Too many requests and the like are another matter.
        400 | 401 | 403..=405 | 410 | 501 => None,
        status if is_refusal(status, wait) => {
            return Err(refusing(node, &format!("{SPEC}: HTTP status {status}"), wait));
        }
        status => return Err(failing(node, &format!("{SPEC}: HTTP status {status}"))),
    };
    if genesis.status == 404 && says_of_genesis(&genesis.body) {
        return Ok(Chain::before_genesis(spec));
    }
    let genesis = genesis.must(node, GENESIS)?;
    Chain::read_beacon(&genesis, spec).map_err(|why| failing(node, &why))
}

/// The body of an answer at this path, which must be 200.
pub(super) async fn body_of(node: &Node, upstream: &Arc<Upstream>, path: &'static str) -> Result<Bytes, Trouble> {
    get(node, upstream, path).await
}

/// The body of an answer that must be 200.
async fn get(node: &Node, upstream: &Arc<Upstream>, path: &'static str) -> Result<Bytes, Trouble> {
    ask_as(Rank::Probe, &mut (), node, upstream, path).await?.must(node, path)
}

/// Whether the body of a 404 is that of a node before genesis: the API's error, which names
/// genesis. A server of another kind answers otherwise.
fn says_of_genesis(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Problem {
        code: Number,
        message: String,
    }
    let problem = serde_json::from_slice::<Problem>(body);
    problem.is_ok_and(|problem| problem.code.0 == Some(404) && problem.message.to_ascii_lowercase().contains("genesis"))
}

struct BeaconReply {
    status: u16,
    /// The time that a refusal asks for.
    wait: Option<Duration>,
    body: Bytes,
}

impl BeaconReply {
    /// The body, if the status is 200.
    fn must(self, node: &Node, path: &str) -> Result<Bytes, Trouble> {
        let Self { status, wait, body } = self;
        let what = || format!("{path}: HTTP status {status}");
        match status {
            200 => Ok(body),
            status if is_refusal(status, wait) => Err(refusing(node, &what(), wait)),
            _ => Err(failing(node, &what())),
        }
    }
}

/// The answer at `path` below the node's URL to a question of a probe.
async fn ask(clock: &ProbeClock<'_>, upstream: &Arc<Upstream>, path: &'static str) -> Result<BeaconReply, Trouble> {
    ask_as(Rank::Probe, &mut clock.question(), clock.node, upstream, path).await
}

async fn ask_as(
    rank: Rank,
    question: &mut impl Gate,
    node: &Node,
    upstream: &Arc<Upstream>,
    path: &'static str,
) -> Result<BeaconReply, Trouble> {
    let target = Target::parse(path).expect("the paths of probes are fit for a request line");
    let cost = afford(node, "").await?;
    let mut question = Paid::new(question, node, cost, Payer::Own);
    let response = upstream.get(&target, rank, &mut question).await;
    if question.is_refused() {
        return Err(spent());
    }
    let mut response = response.map_err(|error| trouble(node, &error))?;
    let (status, wait) = (response.head.status, wait(&response.head));
    Ok(BeaconReply { status, wait, body: read(node, path, &mut response, MAX_ANSWER).await? })
}
