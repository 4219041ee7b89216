//! Nodes that come back, or begin anew, are told again what all nodes were told while they were
//! away.
//!
//! That a node began anew is seen by an outage, by its word that it catches up, as nodes do after
//! they started, or by what it says of itself once a slot and after every trouble: another version,
//! another name in the network, an earlier number of its record there, or less than half of the
//! peers that it had. Behind an address that stays open, a restart that changes none of this is not
//! seen; validators tell their nodes anew once an epoch.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{
    attempt::{Sent, attempt},
    everywhere::TELLING,
    kept::Kept,
};
use crate::{
    domain::{target::Target, verdict::Verdict},
    metrics::Metrics,
    pool::{Pool, snapshot::Facts},
};

/// How long a node has to say how it is, and how much of that is read.
const ASKING: Duration = Duration::from_secs(2);
const LONGEST: usize = 64 * 1024;

/// What is known of a node.
#[derive(Default)]
struct Seen {
    answers: bool,
    /// It said last that it catches up.
    is_syncing: bool,
    /// When something went wrong with it last.
    trouble: Option<Instant>,
    /// It is told something now.
    is_busy: bool,
    is_asked: bool,
    traits: Traits,
}

/// What a node says of itself that changes when it begins anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Traits {
    version: Option<String>,
    peers: Option<u64>,
    /// Its name in the network.
    peer_id: Option<String>,
    /// The number of its record there, which grows while it lives.
    record: Option<u64>,
}

impl Traits {
    /// Whether the node has begun anew since it said `earlier`.
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

/// What a task of this one found.
enum Found {
    /// The node was told all, or would not be.
    Told(usize),
    Says(usize, Traits),
}

/// Whether the node is one to tell. One that rests is told when it has rested.
pub(super) fn is_told(facts: &Facts) -> bool {
    !facts.cordoned && facts.verdict.answers() && facts.verdict != Verdict::Resting
}

/// Runs as long as the network.
pub(super) async fn watch(pool: Arc<Pool>, kept: Arc<Kept>, metrics: Arc<Metrics>) {
    let mut changes = pool.subscribe();
    let mut nodes: Vec<Seen> = pool.snapshot().nodes.iter().map(Seen::first).collect();
    let mut tasks: JoinSet<Found> = JoinSet::new();
    let mut pace = pool.slot();
    let mut slots = every(pace);
    loop {
        // It is known once a node has told.
        let known = pool.slot();
        if known != pace {
            (pace, slots) = (known, every(known));
        }
        for (index, (facts, seen)) in pool.snapshot().nodes.iter().zip(&mut nodes).enumerate() {
            let answers = is_told(facts) && !pool.nodes[index].is_out();
            // What a node says of itself a moment after it started is that it catches up.
            let has_caught_up = seen.is_syncing && facts.verdict.is_usable();
            if answers && (!seen.answers || has_caught_up) {
                begins_anew(&pool, index, &kept);
            }
            seen.answers = answers;
            seen.is_syncing = facts.verdict == Verdict::Syncing || (seen.is_syncing && !has_caught_up);
            let trouble = facts.last_error.as_ref().map(|(_, at)| *at);
            if std::mem::replace(&mut seen.trouble, trouble) != trouble && answers {
                ask(&pool, index, seen, &kept, &mut tasks);
            }
            // Nobody's requests go home to it before it has been told.
            pool.nodes[index].traffic.set_informed(!kept.has_due(index));
            if answers && !seen.is_busy && kept.has_due(index) {
                seen.is_busy = true;
                tasks.spawn(tell(pool.clone(), index, kept.clone(), metrics.clone()));
            }
        }
        metrics.kept(&pool.network, kept.bytes());
        // All arms are cancel-safe.
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            () = kept.bell.notified() => {}
            Some(found) = tasks.join_next(), if !tasks.is_empty() => match found {
                Ok(Found::Told(node)) => nodes[node].is_busy = false,
                Ok(Found::Says(node, traits)) => {
                    let seen = &mut nodes[node];
                    seen.is_asked = false;
                    if traits.is_anew(&seen.traits) {
                        begins_anew(&pool, node, &kept);
                    }
                    let earlier = std::mem::take(&mut seen.traits);
                    seen.traits = Traits {
                        version: traits.version.or(earlier.version),
                        peers: traits.peers.or(earlier.peers),
                        peer_id: traits.peer_id.or(earlier.peer_id),
                        record: traits.record.or(earlier.record),
                    };
                }
                // It cannot panic, and nobody ends it.
                Err(_) => {}
            },
            _ = slots.tick() => {
                for (index, seen) in nodes.iter_mut().enumerate() {
                    if seen.answers {
                        ask(&pool, index, seen, &kept, &mut tasks);
                    }
                }
            }
        }
    }
}

impl Seen {
    /// What is there already has begun before.
    fn first(facts: &Facts) -> Self {
        Self { answers: is_told(facts), ..Self::default() }
    }
}

/// The node knows nothing of what it was told before, and may have other data.
fn begins_anew(pool: &Pool, node: usize, kept: &Kept) {
    kept.begins_anew(node);
    pool.nodes[node].bounds.forget();
}

fn every(pace: Duration) -> tokio::time::Interval {
    let mut slots = interval(pace.max(Duration::from_millis(100)));
    slots.set_missed_tick_behavior(MissedTickBehavior::Delay);
    slots
}

/// Has the node say how it is, if anything depends on that.
fn ask(pool: &Arc<Pool>, index: usize, seen: &mut Seen, kept: &Kept, tasks: &mut JoinSet<Found>) {
    if !seen.is_asked && !kept.is_empty() {
        seen.is_asked = true;
        let pool = pool.clone();
        tasks.spawn(async move { Found::Says(index, traits(&pool, index).await) });
    }
}

/// What the node says of itself; nothing of what it does not offer.
async fn traits(pool: &Pool, node: usize) -> Traits {
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

async fn body(pool: &Pool, node: usize, path: &'static str) -> Option<Bytes> {
    let upstream = pool.nodes[node].upstream.as_ref()?;
    let target = Target::parse(path).expect("the paths are fit for a request line");
    let read = async {
        let mut response = upstream.get(&target).await.ok()?;
        if response.head.status != 200 {
            return None;
        }
        response.whole(LONGEST, || {}).await.ok()
    };
    timeout(ASKING, read).await.ok()?
}

/// Tells the node what it does not know, one thing after the other.
async fn tell(pool: Arc<Pool>, node: usize, kept: Arc<Kept>, metrics: Arc<Metrics>) -> Found {
    let mut after = 0;
    while let Some(mut due) = kept.next(node, after, pool.epoch()) {
        after = due.id;
        let sent = attempt(&pool, node, &due.request, &mut due.upload, TELLING);
        match timeout(TELLING, sent).await.unwrap_or(Sent::Lost(None)) {
            // What it does not want to know, it need not be told again.
            Sent::Answered(_) => {
                kept.confirmed(due.id, node);
                metrics.told_again(&pool.network);
            }
            _ => {
                kept.failed(due.id, node, pool.slot());
                return Found::Told(node);
            }
        }
    }
    Found::Told(node)
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
