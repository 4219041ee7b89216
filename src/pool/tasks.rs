//! The tasks of a pool: one keeps its state, one for each node probes the node, one looks for nodes
//! that fall silent.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};

use super::{
    NOBODY, Pool, SILENCE, Wall, evidence,
    health::{Fault, Trouble},
    probe::{self, Prober},
    state::{Effect, Input, Served},
};
use crate::metrics::Metrics;

/// A node that owes answers and has been silent for this long is probed at once.
const OWED_SILENCE: Duration = Duration::from_millis(500);
/// And has this long to send a byte. Both together are two seconds, and leave most of them to a
/// node that is slow with probes.
const SILENT_PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often silence is looked for.
const WATCH: Duration = Duration::from_millis(100);
/// The least time between two probes of a node.
const PROBE_GAP: Duration = Duration::from_millis(20);

/// Takes the pool's inputs one by one, and publishes a snapshot after each.
pub(super) async fn run_state(pool: Arc<Pool>, mut findings: mpsc::Receiver<Input>, metrics: Arc<Metrics>, wall: Wall) {
    // The pool holds a sender of its own, so this ends by being dropped.
    while let Some(input) = findings.recv().await {
        let now = Instant::now();
        let mut state = pool.state();
        if let Some(height) = state.forget_served(now) {
            pool.served.store(height, Relaxed);
            pool.served_by.store(state.active().unwrap_or(NOBODY), Relaxed);
        }
        let served = Served { height: pool.served(), by: pool.served_by() };
        state.ties = pool.tied.ties(pool.snapshot().chain.as_ref(), now);
        let effects = state.step(input, &pool.nodes, served, now, wall());
        if let (Some(node), Some(height)) = (state.active(), state.active_height()) {
            pool.raise(node, height);
        }
        // A node that is back may be chosen as soon as the snapshot says so.
        for effect in &effects {
            match effect {
                Effect::CameBack(node) => pool.mark(*node, false, &state),
                Effect::WentOut(node) => pool.mark(*node, true, &state),
                _ => {}
            }
        }
        pool.snapshot.store(Arc::new(state.snapshot(&pool.nodes, now)));
        drop(state);
        for effect in effects {
            pool.perform(effect, &metrics);
        }
        pool.changed.send_replace(());
    }
}

/// Probes one node for ever, each probe under its deadline.
pub(super) async fn keep_probing(pool: Arc<Pool>, index: usize) {
    let node = &pool.nodes[index];
    let mut prober = Prober::default();
    loop {
        let started = Instant::now();
        node.traffic.probe_sent(started);
        let mut outcome = prober.probe(&pool, index).await;
        if !matches!(outcome, Err(Trouble { fault: Fault::Silent, .. })) {
            node.traffic.probe_settled();
        }
        node.metrics.probed(started.elapsed().as_secs_f64());
        outcome.as_ref().into_iter().for_each(|probe| pool.found(index, probe));
        if outcome.is_ok()
            && let Some(trouble) = evidence::examine_again(&pool, index).await
        {
            outcome = Err(trouble);
        }
        let is_well = outcome.is_ok();
        if pool.inbox.send(Input::Probed(index, outcome)).await.is_err() {
            return;
        }
        if is_well
            && let Some(trouble) = evidence::examine(&pool, index).await
            && pool.inbox.send(Input::Out(index, trouble)).await.is_err()
        {
            return;
        }
        if let Some(upstream) = &node.upstream {
            upstream.sweep();
        }
        sleep_until(Instant::now() + PROBE_GAP).await;
        // A node that asks to be left alone is not probed, even if a probe is wanted now.
        sleep_until(node.resting.probes_rest_until().unwrap_or(started)).await;
        // Both arms are cancel-safe.
        tokio::select! {
            () = sleep_until(started + pool.settings.interval) => {}
            () = node.probe_now.notified() => {}
        }
    }
}

/// Looks for nodes that owe answers and send nothing, or nothing to a probe, and probes each at
/// once. A node that is known to be slow with probes has as long as its last good probe took.
pub(super) async fn watch_silence(pool: Arc<Pool>) {
    let mut tests: JoinSet<(usize, Option<Input>)> = JoinSet::new();
    let mut under_test = vec![false; pool.nodes.len()];
    let patience = SILENCE.max(pool.settings.timeout / 2);
    let mut ticks = interval(WATCH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both arms are cancel-safe; an empty set is not a closed channel but nothing to wait for.
        tokio::select! {
            biased;
            Some(done) = tests.join_next(), if !tests.is_empty() => {
                let Ok((node, finding)) = done else { continue };
                under_test[node] = false;
                if let Some(finding) = finding && pool.inbox.send(finding).await.is_err() {
                    return;
                }
            }
            now = ticks.tick() => {
                for (index, node) in pool.nodes.iter().enumerate() {
                    let snapshot = pool.snapshot();
                    let known = &snapshot.nodes[index];
                    if under_test[index] || !known.verdict.answers() {
                        continue;
                    }
                    let owes = node.silence(now) > OWED_SILENCE;
                    if owes || node.traffic.probe_silence(now) > patience {
                        under_test[index] = true;
                        let trial = SILENT_PROBE_TIMEOUT.max(known.latency.unwrap_or_default());
                        let (pool, limit) = (pool.clone(), if owes { trial } else { patience });
                        tests.spawn(async move { (index, probe_silent(&pool, index, owes, limit).await) });
                    }
                }
            }
        }
    }
}

/// Probes a silent node. If unanswered calls hold all its connections, bytes for those calls
/// decide.
async fn probe_silent(pool: &Pool, index: usize, owes: bool, limit: Duration) -> Option<Input> {
    let node = &pool.nodes[index];
    let chain = pool.snapshot().nodes[index].chain.clone();
    let end = Instant::now() + limit;
    let mut probed = timeout_at(end, probe::probe(node, pool.layer, chain.as_ref())).await;
    if owes && matches!(probed, Ok(Err(Trouble { fault: Fault::Full, .. }))) {
        sleep_until(end).await;
        if node.silence(Instant::now()).is_zero() {
            return None;
        }
        probed = timeout_at(end, std::future::pending()).await;
    }
    match probed {
        Ok(Ok(_)) => {
            node.traffic.touch(Instant::now());
            None
        }
        Ok(Err(trouble)) => Some(Input::Probed(index, Err(trouble))),
        // A byte may have come in the meantime, to a call or to another probe.
        Err(_) if owes && node.traffic.silence(Instant::now()) < limit => None,
        Err(_) if !owes && node.traffic.probe_silence(Instant::now()) < limit => None,
        Err(_) => {
            let (what, before) = if owes { ("answers", OWED_SILENCE) } else { ("an answer to a probe", limit) };
            let text = format!("owes {what}, and has been silent for {:?}", before + limit);
            Some(Input::Out(index, Trouble { fault: Fault::Silent, text }))
        }
    }
}
