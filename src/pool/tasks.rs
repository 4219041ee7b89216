//! The tasks of a pool: one keeps its state, and one for each node probes the node.

use std::{
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until},
};

use super::{
    NOBODY, Pool, Wall, evidence,
    health::{Fault, Trouble},
    node::Node,
    probe::{self, Prober},
    shared_finding::{Finding, Heard, Listening},
    state::{Effect, Input, Served},
};
use crate::{domain::node_id::NodeId, metrics::Metrics};

/// A node that closes new connections at once, gives probes none for so many of their timeouts, and
/// answers nothing in that time, is out. An event stream that stays open is no answer. A bound that
/// the operator has set says nothing of the node.
const FULL_TIMEOUTS: u32 = 2;
/// The least time between two probes of a node.
const PROBE_GAP: Duration = Duration::from_millis(20);

/// Takes the pool's inputs one by one, and publishes a snapshot after each.
pub(super) async fn run_state(pool: Arc<Pool>, mut findings: mpsc::Receiver<Input>, metrics: Arc<Metrics>, wall: Wall) {
    // The pool holds a sender of its own, so this ends by being dropped.
    while let Some(input) = findings.recv().await {
        let now = Instant::now();
        let mut state = pool.state();
        if let Some(height) = state.forget_served(now) {
            pool.served.store(height, Release);
            pool.served_by.store(state.active().map_or(NOBODY, |node| node.0), Relaxed);
        }
        let served = Served { height: pool.served(), by: pool.served_by() };
        state.ties = pool.tied.ties(pool.snapshot().chain.as_ref(), now);
        let effects = state.step(input, &pool.nodes, served, now, wall());
        // A node that is back may be chosen as soon as the snapshot says so.
        for effect in &effects {
            match effect {
                Effect::CameBack(node) => pool.mark(*node, false, &state),
                Effect::WentOut(node) => pool.mark(*node, true, &state),
                _ => {}
            }
        }
        pool.snapshot.store(Arc::new(state.snapshot(&pool.nodes, now)));
        // After the snapshot that tells of the height: see `Pool::served_and_snapshot`.
        if let (Some(node), Some(height)) = (state.active(), state.active_height()) {
            pool.raise(node, height);
        }
        drop(state);
        for effect in effects {
            pool.perform(effect, &metrics);
        }
        pool.changed.send_replace(());
    }
}

/// Probes one node for ever, each probe under its deadline.
pub(super) async fn keep_probing(pool: Arc<Pool>, index: NodeId) {
    let node = &pool.nodes[index];
    let mut prober = Prober::default();
    let mut full_since: Option<Instant> = None;
    let mut others = node.word.listen();
    loop {
        let _turn = match next_turn(&pool, index, &mut others).await {
            Turn::Probe(turn) => turn,
            Turn::Told(finding) => {
                if pool.inbox.send(finding.input(index)).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let started = Instant::now();
        let mut outcome = prober.probe(&pool, index).await;
        if !matches!(outcome, Err(Trouble { fault: Fault::Silent, .. })) {
            node.traffic.probe_settled();
        }
        node.metrics.probed(started.elapsed().as_secs_f64());
        let is_closing = is_closing(node, &outcome);
        full_since = full_since.filter(|_| is_closing).or(is_closing.then_some(started));
        if let Some(since) = full_since.filter(|since| !node.traffic.has_been_heard_since(*since))
            && since.elapsed() >= pool.settings.timeout * FULL_TIMEOUTS
        {
            let text = format!("no connection for a probe, and no answer, for {:?}", since.elapsed());
            if !pool.tell_out(index, Trouble { fault: Fault::Silent, text }).await {
                return;
            }
        }
        outcome.as_ref().into_iter().for_each(|probe| pool.found(index, probe));
        if outcome.is_ok()
            && let Some(trouble) = evidence::examine_again(&pool, index).await
        {
            outcome = Err(trouble);
        }
        let is_well = outcome.is_ok();
        let said = outcome.as_ref().map_or_else(|trouble| trouble.fault.counts().then_some(false), |_| Some(true));
        node.word.tell(Finding::Probed(outcome.clone()), &pool.is_retired);
        others.pass_over();
        if pool.inbox.send(Input::Probed(index, outcome)).await.is_err() {
            return;
        }
        if is_well
            && let Some(trouble) = evidence::examine(&pool, index).await
            && !pool.tell_out(index, trouble).await
        {
            return;
        }
        if let Some(upstream) = &node.upstream {
            upstream.sweep();
        }
        sleep_until(Instant::now() + PROBE_GAP).await;
        // Both arms are cancel-safe.
        tokio::select! {
            () = sleep_until(started + pool.pace_after(index, said)) => {}
            () = node.probe_now.notified() => {}
        }
        // A node that asks to be left alone is not probed, even if a probe is wanted now. Another
        // node of its account may ask for that meanwhile.
        while let Some(until) = node.resting.probes_rest_until().filter(|until| *until > Instant::now()) {
            sleep_until(until).await;
        }
    }
}

/// The next thing for a prober to do.
enum Turn {
    /// To probe. A pool that was replaced has a permit for that.
    Probe(Option<OwnedSemaphorePermit>),
    /// To take the word of another pool.
    Told(Finding),
}

/// In a pool that was replaced, waits for the word of others; for a probe that is wanted now, as
/// after a lost call; or for the turn to probe where others tell nothing.
async fn next_turn(pool: &Pool, index: NodeId, others: &mut Listening) -> Turn {
    let node = &pool.nodes[index];
    if !pool.is_retired() {
        return Turn::Probe(None);
    }
    // Both arms are cancel-safe.
    tokio::select! {
        biased;
        () = node.probe_now.notified() => Turn::Probe(None),
        heard = others.next(pool.word_timeout(index)) => match heard {
            Heard::Finding(finding) => Turn::Told(finding),
            Heard::Nothing(turn) => Turn::Probe(Some(turn)),
        },
    }
}

impl Pool {
    /// A pool that tells nothing of a node for this long has the node no more, or is gone.
    pub(super) fn word_timeout(&self, node: NodeId) -> Duration {
        2 * self.pace(node) + self.settings.timeout
    }

    /// Tells the state, and the pools that this one has replaced, that a node is out. `false` when
    /// the state's task is gone.
    pub(super) async fn tell_out(&self, node: NodeId, trouble: Trouble) -> bool {
        self.nodes[node].word.tell(Finding::Out(trouble.clone()), &self.is_retired);
        self.inbox.send(Input::Out(node, trouble)).await.is_ok()
    }
}

/// Whether a probe got no connection because the node has closed new ones at once.
fn is_closing(node: &Node, outcome: &Result<probe::Probe, Trouble>) -> bool {
    let has_closed_some = || node.upstream.as_ref().is_some_and(|upstream| upstream.connections().is_learnt());
    matches!(outcome, Err(Trouble { fault: Fault::Full, .. })) && has_closed_some()
}
