//! Tells nodes that come back, or begin anew, the requests that all nodes were told while they were
//! away.
//!
//! Rule: a node has begun anew after an outage; when it has caught up after it said that it is
//! syncing, as nodes are when they start; or when its answers about itself have changed: another
//! version, another peer id, an earlier number of its record, or less than half of its peers. These
//! answers are asked for once a slot and after every trouble. Reason: a node forgets fee recipients
//! when it restarts. Example: a node had 80 peers and reports 12: the node gets all kept requests
//! again. A restart behind an open address that changes none of this goes unnoticed; but validators
//! tell their nodes anew once an epoch. A node that rests for quota, or is cordoned, has not begun
//! anew: afterwards the node is told the requests that came meanwhile.
//!
//! Rule: requests of different kinds are told beside one another, those of one kind one after the
//! other; one that stays without an answer for a quarter of a slot holds up the next no longer.
//! Where a node cannot take a request, the next ones follow, and that one is told again after a
//! slot, two, four and so on; after a refusal with `Retry-After` no request of the kind is told
//! again before its time. Reason: a node whose relay is away takes no registration, and needs the
//! fee recipients all the same.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    Request, Sent,
    attempt::attempt,
    broadcast::{TELLING, asked_rest, word},
    told_messages::{Due, LANES, TellOutcome, ToldMessages},
};
use crate::{
    domain::{
        node_id::{ByNode, NodeId},
        target::Target,
        verdict::Verdict,
    },
    metrics::{Metrics, Payer},
    net::node_connections::Rank,
    pool::{
        Pool,
        paid::{Paid, afford},
        snapshot::Facts,
    },
};

/// How long a node may take to answer a question about itself, and how much of the answer is read.
const ASKING: Duration = Duration::from_secs(2);
const MAX_ANSWER: usize = 64 * 1024;

/// After so many failures in a row a node is left alone for a slot with requests of that kind.
const FAILURES: u32 = 3;
/// Requests of one kind that a node may be silent over at the same time.
const BESIDE: usize = 4;

/// The state of a node as last seen.
#[derive(Default)]
struct Seen {
    /// The node answers, though perhaps only with a refusal for quota.
    is_there: bool,
    /// The node can be told.
    answers: bool,
    /// The node's last word is that it is syncing, and the node had not begun anew just before.
    is_syncing: bool,
    /// The node has begun anew, and has not been usable since.
    is_new: bool,
    /// The moment of the node's last trouble.
    trouble: Option<Instant>,
    /// Whether a task is telling the node requests of a kind now.
    is_busy: [bool; LANES],
    is_asked: bool,
    traits: Traits,
}

/// A node's answers about itself that change when the node begins anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Traits {
    version: Option<String>,
    peers: Option<u64>,
    /// The node's peer id in the network.
    peer_id: Option<String>,
    /// The number of the node's record in the network, which grows while the node lives.
    record: Option<u64>,
}

impl Traits {
    /// Whether the node has begun anew since it gave `earlier`.
    fn is_anew(&self, earlier: &Self) -> bool {
        let is_other = |(now, then): (&String, &String)| now != then;
        let are_few = |(now, then): (u64, u64)| now.saturating_mul(2) < then;
        let is_earlier = |(now, then): (u64, u64)| now < then;
        self.peer_id.as_ref().zip(earlier.peer_id.as_ref()).is_some_and(is_other)
            || self.record.zip(earlier.record).is_some_and(is_earlier)
            || self.version.as_ref().zip(earlier.version.as_ref()).is_some_and(is_other)
            || self.peers.zip(earlier.peers).is_some_and(are_few)
    }
}

/// The outcome of a task for one node.
enum Found {
    /// No request of this kind is due for the node, or the node takes none now.
    Told(NodeId, usize),
    Says(NodeId, Traits),
}

/// Whether the node can be told. A resting node is told after its rest.
pub(super) fn is_told(facts: &Facts) -> bool {
    !facts.cordoned && facts.verdict.answers() && facts.verdict != Verdict::Resting
}

/// Runs as long as the network.
pub(super) async fn watch(pool: Arc<Pool>, told: Arc<ToldMessages>, metrics: Arc<Metrics>) {
    let mut changes = pool.subscribe();
    let mut nodes: Vec<Seen> = pool.snapshot().nodes.iter().map(Seen::first).collect();
    let mut tasks: JoinSet<Found> = JoinSet::new();
    let mut pace = pool.slot();
    let mut slots = every(pace);
    loop {
        // The length of a slot is known once a node has reported the chain.
        let known = pool.slot();
        if known != pace {
            (pace, slots) = (known, every(known));
        }
        for ((index, facts), seen) in pool.snapshot().nodes.by_node().zip(&mut nodes) {
            let is_there = facts.verdict.answers() && !pool.nodes[index].is_out();
            let answers = is_there && is_told(facts);
            // A node that has just started says that it is syncing: after that, it may have begun
            // anew, unless that was seen already.
            let has_caught_up = seen.is_syncing && facts.verdict.is_usable();
            if is_there && (!seen.is_there || has_caught_up) {
                begins_anew(&pool, index, &told);
                // Its answers about itself may have changed, which is no second beginning.
                seen.traits = Traits::default();
                seen.is_new = !has_caught_up;
            }
            (seen.is_there, seen.answers) = (is_there, answers);
            seen.is_new &= is_there && !facts.verdict.is_usable();
            let is_syncing = facts.verdict == Verdict::Syncing && !seen.is_new;
            seen.is_syncing = is_syncing || (seen.is_syncing && !has_caught_up);
            let trouble = facts.last_error.as_ref().map(|(_, at)| *at);
            if std::mem::replace(&mut seen.trouble, trouble) != trouble && answers {
                ask(&pool, index, seen, &told, &mut tasks);
            }
            // Until the node has confirmed all, clients' requests do not move back to the node.
            let open = told.open(index);
            pool.nodes[index].traffic.set_informed(open.knows_all);
            for kind in (0..LANES).filter(|_| answers) {
                if !seen.is_busy[kind] && open.due[kind] {
                    seen.is_busy[kind] = true;
                    tasks.spawn(tell(pool.clone(), index, kind, told.clone(), metrics.clone()));
                }
            }
        }
        metrics.kept(&pool.network, told.bytes());
        // All arms are cancel-safe.
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            () = told.bell.notified() => {}
            Some(found) = tasks.join_next(), if !tasks.is_empty() => match found {
                Ok(Found::Told(node, kind)) => nodes[node].is_busy[kind] = false,
                Ok(Found::Says(node, traits)) => {
                    let seen = &mut nodes[node];
                    seen.is_asked = false;
                    if traits.is_anew(&seen.traits) {
                        begins_anew(&pool, node, &told);
                    }
                    let earlier = std::mem::take(&mut seen.traits);
                    seen.traits = Traits {
                        version: traits.version.or(earlier.version),
                        peers: traits.peers.or(earlier.peers),
                        peer_id: traits.peer_id.or(earlier.peer_id),
                        record: traits.record.or(earlier.record),
                    };
                }
                // A task has no code that panics, and no task is aborted.
                Err(_) => {}
            },
            _ = slots.tick() => {
                for (index, seen) in NodeId::all(pool.nodes.len()).zip(&mut nodes) {
                    if seen.answers {
                        ask(&pool, index, seen, &told, &mut tasks);
                    }
                }
            }
        }
    }
}

impl Seen {
    /// A node that is there at the start has begun before.
    fn first(facts: &Facts) -> Self {
        Self { is_there: facts.verdict.answers(), ..Self::default() }
    }
}

/// The node has forgotten the requests that it was told before, and may have other data.
fn begins_anew(pool: &Pool, node: NodeId, told: &ToldMessages) {
    told.begins_anew(node);
    pool.nodes[node].bounds.forget();
}

fn every(pace: Duration) -> tokio::time::Interval {
    let mut slots = interval(pace.max(Duration::from_millis(100)));
    slots.set_missed_tick_behavior(MissedTickBehavior::Delay);
    slots
}

/// Asks the node about itself, if requests are kept that would have to be told again.
fn ask(pool: &Arc<Pool>, index: NodeId, seen: &mut Seen, told: &ToldMessages, tasks: &mut JoinSet<Found>) {
    if !seen.is_asked && !told.is_empty() && !pool.is_idle(index) {
        seen.is_asked = true;
        let pool = pool.clone();
        tasks.spawn(async move { Found::Says(index, traits(&pool, index).await) });
    }
}

/// The node's answers about itself; `None` for routes that the node does not offer.
async fn traits(pool: &Pool, node: NodeId) -> Traits {
    #[derive(Deserialize)]
    struct Answer<T> {
        data: T,
    }
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    #[derive(Deserialize)]
    struct Peers {
        connected: serde_json::Value,
    }
    #[derive(Deserialize)]
    struct Identity {
        peer_id: Option<String>,
        metadata: Option<Metadata>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        seq_number: serde_json::Value,
    }
    let (version, peers, identity) = tokio::join!(
        body(pool, node, "/eth/v1/node/version"),
        body(pool, node, "/eth/v1/node/peer_count"),
        body(pool, node, "/eth/v1/node/identity"),
    );
    let identity = identity.and_then(|body| serde_json::from_slice::<Answer<Identity>>(&body).ok());
    let (peer_id, metadata) = identity.map_or((None, None), |answer| (answer.data.peer_id, answer.data.metadata));
    let version = version.and_then(|body| serde_json::from_slice::<Answer<Version>>(&body).ok());
    let peers = peers.and_then(|body| serde_json::from_slice::<Answer<Peers>>(&body).ok());
    let number = |value: serde_json::Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    Traits {
        version: version.map(|answer| answer.data.version),
        peers: peers.and_then(|answer| number(answer.data.connected)),
        peer_id,
        record: metadata.and_then(|metadata| number(metadata.seq_number)),
    }
}

async fn body(pool: &Pool, node: NodeId, path: &'static str) -> Option<Bytes> {
    let node = &pool.nodes[node];
    let upstream = node.upstream.as_ref()?;
    let target = Target::parse(path).expect("the paths are fit for a request line");
    let read = async {
        let cost = afford(node, "").await.ok()?;
        let mut open = ();
        let mut gate = Paid::new(&mut open, node, cost, Payer::Own);
        let mut response = upstream.get(&target, Rank::Probe, &mut gate).await.ok()?;
        if response.head.status != 200 {
            return None;
        }
        response.whole(MAX_ANSWER, || {}).await.ok()
    };
    timeout(ASKING, read).await.ok()?
}

/// Tells the node the requests of a kind that are due, one after the other; the next one also when
/// the node has been silent for a while.
async fn tell(pool: Arc<Pool>, node: NodeId, kind: usize, told: Arc<ToldMessages>, metrics: Arc<Metrics>) -> Found {
    let mut under_way = JoinSet::new();
    let mut failures = 0;
    loop {
        let may_begin = under_way.len() < BESIDE && failures < FAILURES && !told.is_left_alone(node, kind);
        let due = if may_begin { told.next(node, kind, pool.epoch()) } else { None };
        match due {
            Some(due) => {
                let (pool, told, metrics) = (pool.clone(), told.clone(), metrics.clone());
                under_way.spawn(async move { tell_one(&pool, node, due, &told, &metrics).await });
            }
            None if under_way.is_empty() => break,
            None => {}
        }
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            Some(is_taken) = under_way.join_next() => {
                failures = if is_taken.unwrap_or(false) { 0 } else { failures + 1 };
            }
            () = sleep(pool.slot() / 4) => {}
        }
    }
    if failures >= FAILURES {
        told.rest(node, kind, pool.slot());
    }
    Found::Told(node, kind)
}

/// Whether the node needs not be told the request again.
async fn tell_one(pool: &Arc<Pool>, node: NodeId, mut due: Due, told: &ToldMessages, metrics: &Metrics) -> bool {
    // The client had its answer long ago, and its calls do not pay for this.
    let request = Request { caller: None, client: None, trace: None, ..(*due.request).clone() };
    let sent = timeout(TELLING, attempt(pool, node, &request, &mut due.upload, TELLING)).await;
    let sent = sent.unwrap_or(Sent::Lost(None));
    let word = word(pool, node, &sent);
    told.heard(&due.telling, node, word, pool.slot());
    if let Some(wait) = asked_rest(&sent) {
        told.rest(node, due.telling.kind(), wait);
    }
    if word != TellOutcome::Failed {
        metrics.told_again(&pool.network);
    }
    word != TellOutcome::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_or_few_peers_are_a_new_beginning() {
        let says = |version: &str, peers| Traits { version: Some(version.to_owned()), peers, ..Traits::default() };
        let is = |peer_id: &str, record| Traits { peer_id: Some(peer_id.to_owned()), record, ..Traits::default() };
        for (earlier, now, is_anew) in [
            (says("a", Some(100)), says("a", Some(51)), false),
            (says("a", Some(100)), says("a", Some(49)), true),
            (says("a", Some(100)), says("b", Some(100)), true),
            (says("a", Some(1)), says("a", Some(0)), true),
            (says("a", Some(0)), says("a", Some(0)), false),
            (says("a", None), says("a", Some(0)), false),
            (Traits::default(), says("a", Some(0)), false),
            (says("a", Some(50)), Traits::default(), false),
            (is("a", Some(7)), is("a", Some(8)), false),
            (is("a", Some(7)), is("a", Some(0)), true),
            (is("a", Some(7)), is("b", Some(7)), true),
            (is("a", Some(7)), says("a", None), false),
        ] {
            assert_eq!(now.is_anew(&earlier), is_anew, "{earlier:?} {now:?}");
        }
    }
}
