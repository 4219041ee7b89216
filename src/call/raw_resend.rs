//! Sends remembered raw transactions to nodes that take over or come back.
//!
//! Rule: a node that becomes one of those which transactions go to (`calls.send_to`), or becomes
//! the active one, is sent the transactions that are due there, one after the other in the order of
//! their acknowledgement, with a pause between. A node that is busy is left alone for as long as
//! the node asks, or for a pause that doubles. Reason: a node that comes back to thousands of
//! transactions must still serve, and a provider counts each one. Example: node B takes over with
//! 200 transactions due and answers each in 1 ms: B has them all after little more than a second.
//!
//! A transaction that a block has by now is sent too: the node says "already known" or "nonce too
//! low", which costs no more than a question first. No client hears of these sends, and none of
//! them counts as evidence against a node: the client's call was answered long ago, and a node that
//! has just come back may have its reasons.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    raw_remembered::Remembered,
    raw_sends::{METHOD, Submission, count, is_target, kind},
    send_outcome::SendOutcome,
};
use crate::{
    config::SendTo,
    domain::{
        backoff::Backoff,
        node_id::NodeId,
        verdict::{Down, Verdict},
    },
    metrics::{Metrics, SendReason},
    pool::{Pool, resting::RestState},
};

/// The pause between two transactions for one node.
const SEND_PAUSE: Duration = Duration::from_millis(5);
/// The pauses before a busy node is sent a transaction again.
const BUSY: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// The state of a node as last seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Transactions go to the node.
    is_target: bool,
    is_active: bool,
    /// The node had an outage, and no transaction has gone there since.
    was_out: bool,
    /// A task is sending the node transactions.
    is_busy: bool,
}

/// The parts that sending needs.
#[derive(Clone)]
pub(super) struct RawResend {
    pub(super) pool: Arc<Pool>,
    pub(super) remembered: Arc<Remembered>,
    pub(super) send_to: SendTo,
    /// The time of one attempt.
    pub(super) time_limit: Duration,
    pub(super) metrics: Arc<Metrics>,
}

impl RawResend {
    /// Runs as long as the network.
    pub(super) async fn run(self) {
        let Self { pool, remembered, .. } = &self;
        let mut changes = pool.subscribe();
        let mut nodes = vec![Seen::default(); pool.nodes.len()];
        let mut tasks: JoinSet<NodeId> = JoinSet::new();
        loop {
            for (node, seen) in NodeId::all(nodes.len()).zip(&mut nodes) {
                self.look(node, seen);
                if seen.is_target && !seen.is_busy && remembered.has_due(node) {
                    seen.is_busy = true;
                    let resend = self.clone();
                    tasks.spawn(async move { resend.send_due(node).await });
                }
            }
            if let Some((count, bytes)) = remembered.tidy() {
                self.metrics.raw_transactions_remembered(&pool.network, count, bytes);
            }
            // All arms are cancel-safe.
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                () = remembered.bell.notified() => {}
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    // A task has no code that panics, and no task is aborted.
                    ended.iter().for_each(|node| nodes[*node].is_busy = false);
                }
            }
        }
    }

    /// Notes the changes at the node since the last look.
    fn look(&self, node: NodeId, seen: &mut Seen) {
        let snapshot = self.pool.snapshot();
        // At the start all nodes are unknown, which is no outage.
        let verdict = snapshot.nodes[node].verdict;
        seen.was_out |= matches!(verdict, Verdict::Down(why) if why != Down::Unknown);
        let is_active = snapshot.active == Some(node);
        let is_target = is_target(&self.pool, node, self.send_to);
        let takes_over = is_target && (!seen.is_target || (is_active && !seen.is_active));
        (seen.is_target, seen.is_active) = (is_target, is_active);
        if takes_over {
            if std::mem::take(&mut seen.was_out) {
                self.remembered.begins_anew(node);
            }
            self.remembered.try_again(node);
        }
    }

    /// Sends the node the transactions that are due there. Returns the node.
    async fn send_due(self, node: NodeId) -> NodeId {
        let Self { pool, remembered, send_to, time_limit, metrics } = &self;
        let mut pauses = BUSY;
        while is_target(pool, node, *send_to) {
            // Calls of clients with raw transactions pass the node over now, and so do these.
            let (to, now) = (&pool.nodes[node], Instant::now());
            if to.resting.state(kind(), false, now) != RestState::Free || to.credits_wait(METHOD, now).is_some() {
                sleep(pauses.pause()).await;
                continue;
            }
            let Some(due) = remembered.next(node) else { break };
            let submission = Submission::new(&due.transaction.raw, &[]);
            let mut sent = submission.send(&pool.nodes[node], Instant::now() + *time_limit, &mut ()).await;
            let word = SendOutcome::of(&mut sent);
            count(metrics, pool, SendReason::Again, &word);
            if let SendOutcome::Busy { wait } = word {
                remembered.put_back(node, &due);
                let pause = pauses.pause();
                sleep(wait.unwrap_or(pause).max(pause)).await;
            } else {
                due.sends.heard(node, &word);
                pauses = BUSY;
                sleep(SEND_PAUSE).await;
            }
        }
        node
    }
}
