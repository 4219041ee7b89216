//! Attempts at several nodes at once, for what a validator waits for: one node after the other is
//! asked, none is given up before another has answered, and the first good answer wins.

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

/// Between two looks at a node that does not know the head yet.
const LOOK: Duration = Duration::from_millis(100);

impl Course<'_> {
    /// Asks `first`, and each time that `patience` has passed without an answer another usable node
    /// beside those that were asked. Returns the first good answer and its node; if there is none,
    /// what came of the last of them.
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
            // Both arms are cancel-safe: what runs goes on running.
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
                            // It would only tell of an earlier head.
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
                    // Those that were asked before it are silent still.
                    let text = format!("no answer to a request within {patience:?}, which another node answered");
                    let silent = || Trouble { fault: Fault::Silent, text: text.clone() };
                    self.tries.charges.extend(under_way[..before].iter().map(|&slow| (slow, silent())));
                }
                return (node, sent);
            }
            self.tries.tried.push(node);
            match sent {
                // Whoever is still at it may do better.
                Sent::Answered(answer) => self.best = self.best.take().or(Some(answer)),
                sent => {
                    // What may be repeated stops nothing, and is nobody's answer yet.
                    let _ = self.weigh(node, sent).await;
                }
            }
        }
    }
}
