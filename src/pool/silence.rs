//! The task that finds silent nodes between two probes: a node that hangs is out after two seconds,
//! and not after the deadline of its next probe.
//!
//! A node is silent when it owes answers to calls and has sent nothing for half a second, or when a
//! probe waits for an answer for longer than usual. The node is probed at once then. No byte within
//! the probe's time puts the node out.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    PROBE_SILENCE, Pool,
    health::{Fault, Trouble},
    probe::{self, ProbeClock},
    shared_finding::Finding,
};
use crate::domain::node_id::{ByNode, NodeId};

/// A node that owes answers and has been silent for this long is probed at once.
const OWED_SILENCE: Duration = Duration::from_millis(500);
/// And has this long to send a byte. Both together are two seconds, and leave most of them to a
/// node that is slow with probes.
const SILENT_PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often silence is looked for.
const WATCH: Duration = Duration::from_millis(100);

/// Looks for nodes that owe answers and send nothing, or nothing to a probe, and probes each at
/// once. A node that is known to be slow with probes has as long as its last good probe took.
pub(super) async fn watch_silence(pool: Arc<Pool>) {
    let mut tests: JoinSet<(NodeId, Option<Finding>)> = JoinSet::new();
    let mut under_test = vec![false; pool.nodes.len()];
    let time_limit = PROBE_SILENCE.max(pool.settings.timeout / 2);
    let mut ticks = interval(WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both arms are cancel-safe; an empty set is not a closed channel but nothing to wait for.
        tokio::select! {
            biased;
            Some(done) = tests.join_next(), if !tests.is_empty() => {
                let Ok((node, finding)) = done else { continue };
                under_test[node] = false;
                let goes_on = match finding {
                    Some(Finding::Out(trouble)) => pool.tell_out(node, trouble).await,
                    Some(finding) => pool.inbox.send(finding.input(node)).await.is_ok(),
                    None => true,
                };
                if !goes_on {
                    return;
                }
            }
            now = ticks.tick() => {
                for (index, node) in pool.nodes.by_node() {
                    let snapshot = pool.snapshot();
                    let known = &snapshot.nodes[index];
                    if under_test[index] || !known.verdict.answers() {
                        continue;
                    }
                    if pool.is_retired() && node.word.is_current(pool.word_timeout(index)) {
                        // The pool that has taken this one's place looks, and tells.
                        continue;
                    }
                    let owes = node.silence(now) > OWED_SILENCE;
                    if owes || node.probe_silence(now) > time_limit {
                        under_test[index] = true;
                        let trial = SILENT_PROBE_TIMEOUT.max(known.latency.unwrap_or_default());
                        let (pool, limit) = (pool.clone(), if owes { trial } else { time_limit });
                        tests.spawn(async move { (index, probe_silent(&pool, index, owes, limit).await) });
                    }
                }
            }
        }
    }
}

/// Asks a silent node for its head. If calls hold all its connections, bytes for those calls
/// decide.
async fn probe_silent(pool: &Pool, index: NodeId, owes: bool, limit: Duration) -> Option<Finding> {
    let node = &pool.nodes[index];
    let clock = ProbeClock::new(node, limit);
    let overdue = match clock.limits(probe::test(&clock, pool.layer)).await {
        Ok(Ok(())) => {
            node.traffic.touch(Instant::now());
            return None;
        }
        Ok(Err(trouble)) => return Some(Finding::Probed(Err(trouble))),
        Err(trouble) => trouble.fault,
    };
    let now = Instant::now();
    if overdue == Fault::Full {
        // The only connection may be a slow call's; the call's own time is the limit then.
        let keeps_none = || node.upstream.as_ref().is_some_and(|to| to.connections().keeps_none_for_probes());
        if !owes || keeps_none() || node.silence(now).is_zero() {
            return None;
        }
    }
    // A byte may have come in the meantime, to a call or to another probe.
    let silence = if owes { node.traffic.silence(now) } else { node.traffic.probe_silence(now) };
    if silence < limit {
        return None;
    }
    let (what, before) = if owes { ("answers", OWED_SILENCE) } else { ("an answer to a probe", limit) };
    let text = format!("owes {what}, and has been silent for {:?}", before + limit);
    Some(Finding::Out(Trouble { fault: Fault::Silent, text }))
}
