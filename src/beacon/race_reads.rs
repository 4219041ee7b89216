//! Attempts at several nodes at once, for requests for which a validator waits.
//!
//! Rule: each time that a node's time has passed without an answer, another node is asked beside
//! those that were asked, none is given up, and the first good answer wins. When no other is left,
//! nodes that failed for a passing reason are asked again after a pause, while a node is at work
//! and exchanges are held. Reason: a slow node may still be the first to answer, and a busy one
//! may be free a moment later. Example: node A is asked at second 0 and node B at second 2.4. B
//! answers 503 at once, is asked again 10 ms later, and answers: the client has this answer, and
//! the silence counts against A. Silence does not count against a node whose connections are all
//! in use, since the request may wait for one.
//!
//! Rule: a node that does not know the head that clients have seen is passed over for a sixth of a
//! slot from the moment at which its turn came, if the request refers to the head, and is asked all
//! the same then. Reason: an answer for an earlier head is worth little, but more than none.
//! Example: A hangs over attestation data, and B has not seen the block of the slot. B is asked
//! 2.4 s later if B has the block by then, and 4.4 s later in any case.
//!
//! Rule: when a node has said in the API's form that the request is at fault, or that the data is
//! not there, the nodes at work have that time once more to do better. Reason: a client that asks
//! for a thing that does not exist must not wait for a node that hangs. Example: A hangs over the
//! validators of a state, and B answers 404 at once. The client has the 404 of B 4 s later.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::{
    Choice, RequestRun,
    attempt::{Sent, attempt_holding},
    upload::Whole,
};
use crate::{
    domain::node_id::NodeId,
    pool::health::{Fault, Trouble},
};

/// The time between two looks at a node that does not know the head yet.
const LOOK: Duration = Duration::from_millis(100);

impl RequestRun<'_> {
    /// Asks `first`, and each time that `time_limit` has passed without an answer, or a node has
    /// failed, another usable node beside those that were asked. Returns the first good answer and
    /// its node; if there is none, the outcome at the last node.
    pub(super) async fn race(&mut self, first: NodeId, body: &Whole, time_limit: Duration) -> (NodeId, Sent) {
        let (requests, request) = (self.requests, self.request);
        let one = |node: NodeId| {
            let mut upload = body.upload();
            async move {
                let limit = requests.settings.attempt_timeout;
                (node, attempt_holding(&requests.pool, node, request, &mut upload, limit, Some(&requests.room)).await)
            }
        };
        let mut running = FuturesUnordered::new();
        running.push(one(first));
        let (mut under_way, mut scouts) = (vec![first], Vec::new());
        let began = Instant::now();
        let mut due = began + time_limit;
        // Until when nodes that do not know the head are passed over, since one's turn came.
        let mut passed_over: Option<Instant> = None;
        // When the best word of a node so far goes to the client.
        let mut end: Option<(Instant, NodeId)> = None;
        let most = requests.settings.attempts.get().saturating_sub(self.tries.attempts);
        loop {
            // Both arms are cancel-safe: attempts under way run on.
            let (node, sent) = tokio::select! {
                biased;
                Some(done) = running.next() => done,
                () = sleep_until(end.map_or(due, |(at, _)| at)), if end.is_some() => match (self.best.take(), end) {
                    (Some(best), Some((_, node))) => return (node, Sent::Answered(best)),
                    (best, _) => {
                        (self.best, end) = (best, None);
                        continue;
                    }
                },
                () = sleep_until(due) => {
                    let now = Instant::now();
                    let shut: Vec<NodeId> = self.tries.tried.iter().chain(&under_way).copied().collect();
                    if u32::try_from(under_way.len()).is_ok_and(|count| count >= most) {
                        due = now + time_limit;
                        continue;
                    }
                    due = match requests.choose(request, &shut, self.tries.again) {
                        Choice::Node(node, _) if !requests.pool.is_usable(node) => now + self.new_round(time_limit),
                        // The node would only answer for an earlier head.
                        Choice::Node(node, _)
                            if self.waits_for_head()
                                && requests.pool.owes_head(node)
                                && now < *passed_over.get_or_insert(now + requests.pool.longest_wait_for_head()) =>
                        {
                            requests.pool.probe_now(node);
                            now + LOOK.min(time_limit)
                        }
                        Choice::Node(node, scout) => {
                            passed_over = None;
                            self.passing.retain(|other| *other != node);
                            under_way.push(node);
                            scouts.push(scout);
                            running.push(one(node));
                            end = end.map(|(at, node)| (at.max(now + time_limit), node));
                            now + time_limit
                        }
                        Choice::Rest(Some(end)) if self.passing.is_empty() => end.max(now + LOOK).min(now + time_limit),
                        Choice::Rest(_) | Choice::Nowhere => now + self.new_round(time_limit),
                    };
                    continue;
                }
            };
            let before = under_way.iter().position(|other| *other == node).unwrap_or(0);
            under_way.remove(before);
            let is_good = matches!(&sent, Sent::Answered(answer) if answer.status < 400);
            if is_good || running.is_empty() {
                if is_good {
                    // The nodes that were asked before this one are silent still.
                    let text = format!("no answer to a request within {time_limit:?}, which another node answered");
                    let silent = || Trouble { fault: Fault::Silent, text: text.clone() };
                    let slow =
                        under_way[..before].iter().filter(|node| !requests.pool.nodes[**node].keeps_calls_waiting());
                    self.tries.charges.extend(slow.map(|&slow| (slow, silent())));
                }
                return (node, sent);
            }
            self.notes_wait(&sent, began);
            self.tries.tried.push(node);
            // The time of a node that has failed is over.
            due = due.min(Instant::now());
            if sent.blames_the_request() && requests.pool.is_usable(node) {
                end = Some((Instant::now() + time_limit, node));
            }
            match sent {
                // Nodes that are still at work may do better.
                Sent::Answered(answer) if self.best.is_none() || self.is_best_foreign => {
                    (self.best, self.is_best_foreign) = (Some(answer), false);
                }
                Sent::Answered(_) => {}
                sent => {
                    // The request may be repeated, so a failure stops nothing, and gives the client
                    // no answer yet.
                    let _ = self.weigh(node, sent).await;
                }
            }
        }
    }

    /// Begins a new round, if all other usable nodes were tried and some failed for a passing
    /// reason: these may be asked again, while exchanges are held. Returns the time until another
    /// node is chosen.
    fn new_round(&mut self, time_limit: Duration) -> Duration {
        if self.passing.is_empty() || Instant::now() >= self.tries.until(&self.requests.queue) {
            return time_limit;
        }
        let passing = std::mem::take(&mut self.passing);
        self.tries.tried.retain(|node| !passing.contains(node));
        self.tries.again = true;
        self.tries.pauses.pause().min(time_limit)
    }
}
