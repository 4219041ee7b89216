//! Attempts at several nodes at once, for requests for which a validator waits.
//!
//! Rule: each time that a node's time has passed without an answer, another node is asked beside
//! those that were asked, none is given up, and the first good answer wins. Reason: a slow node may
//! still be the first to answer. Example: node A is asked at second 0 and node B at second 2.4. B
//! answers at second 2.5: the client has this answer, and the silence counts against A.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::{
    Choice, Course,
    attempt::{Sent, attempt_holding},
    reach::is_of_the_head,
    upload::Whole,
};
use crate::pool::health::{Fault, Trouble};

/// The time between two looks at a node that does not know the head yet.
const LOOK: Duration = Duration::from_millis(100);

impl Course<'_> {
    /// Asks `first`, and each time that `patience` has passed without an answer another usable node
    /// beside those that were asked. Returns the first good answer and its node; if there is none,
    /// the outcome at the last node.
    pub(super) async fn race(&mut self, first: usize, body: &Whole, patience: Duration) -> (usize, Sent) {
        let (rest, request) = (self.rest, self.request);
        let one = |node: usize| {
            let mut upload = body.upload();
            async move {
                let limit = rest.settings.attempt_timeout;
                (node, attempt_holding(&rest.pool, node, request, &mut upload, limit, Some(&rest.room)).await)
            }
        };
        let mut running = FuturesUnordered::new();
        running.push(one(first));
        let (mut under_way, mut scouts) = (vec![first], Vec::new());
        let mut due = Instant::now() + patience;
        let most = rest.settings.attempts.get().saturating_sub(self.tries.attempts);
        loop {
            // Both arms are cancel-safe: attempts under way run on.
            let (node, sent) = tokio::select! {
                biased;
                Some(done) = running.next() => done,
                () = sleep_until(due) => {
                    due += patience;
                    let shut: Vec<usize> = self.tries.tried.iter().chain(&under_way).copied().collect();
                    if u32::try_from(under_way.len()).is_ok_and(|count| count < most)
                        && let Choice::Node(node, scout) = rest.choose(request, &shut, self.tries.again)
                        && rest.pool.is_usable(node)
                    {
                        if is_of_the_head(request) && rest.pool.owes_head(node) {
                            // The node would only answer for an earlier head.
                            due = Instant::now() + LOOK.min(patience);
                            continue;
                        }
                        under_way.push(node);
                        scouts.push(scout);
                        running.push(one(node));
                    }
                    continue;
                }
            };
            let before = under_way.iter().position(|other| *other == node).unwrap_or(0);
            under_way.remove(before);
            let is_good = matches!(&sent, Sent::Answered(answer) if answer.status < 400);
            if is_good || running.is_empty() {
                if is_good {
                    // The nodes that were asked before this one are silent still.
                    let text = format!("no answer to a request within {patience:?}, which another node answered");
                    let silent = || Trouble { fault: Fault::Silent, text: text.clone() };
                    self.tries.charges.extend(under_way[..before].iter().map(|&slow| (slow, silent())));
                }
                return (node, sent);
            }
            self.tries.tried.push(node);
            match sent {
                // Nodes that are still at work may do better.
                Sent::Answered(answer) => self.best = self.best.take().or(Some(answer)),
                sent => {
                    // The request may be repeated, so a failure stops nothing, and gives the client
                    // no answer yet.
                    let _ = self.weigh(node, sent).await;
                }
            }
        }
    }
}
