//! The last word on a transaction of which an earlier attempt may have reached a node.

use tokio::time::Instant;

use super::{
    Course,
    answer::Answer,
    attempt::{Attempt, Sent},
    leaving::Leaving,
};
use crate::{
    config::Verify,
    domain::{
        hex,
        method::{Again, Class},
        refusal::Refusal,
        transaction,
    },
    pool::ask::ID,
};

impl Course<'_> {
    /// An error that speaks of the call goes back as it is, but not that of a transaction which an
    /// earlier attempt of ours may have brought to a node: 'already known' is then the good news,
    /// and of any other error only what speaks of its very bytes is the last word, for what one
    /// node's pool does not take another's may have taken.
    pub(super) async fn settle(&mut self, node: usize, mut answer: Answer) -> Result<Answer, Refusal> {
        if self.method.class != Class::RawTransaction || !self.may_have_arrived {
            return Ok(answer);
        }
        let Some(hash) = self.request.text_param(0).and_then(|raw| transaction::hash(&hex::bytes(&raw)?)) else {
            return Ok(answer);
        };
        let hash = hex::encode(&hash);
        let (known, malformed) = answer.error().map_or((false, false), |e| (e.is_already_known(), e.is_of_the_bytes()));
        // In a box, so that other calls do not pay for its size.
        if known || (!malformed && Box::pin(self.is_there(node, &hash)).await) {
            return Ok(Answer::made(&format!("\"{hash}\"")));
        }
        if self.unsure && !malformed { Err(Refusal::OutcomeUnknown) } else { Ok(answer) }
    }

    /// Whether the node has the transaction, in a block or waiting.
    async fn is_there(&mut self, node: usize, hash: &str) -> bool {
        let ask = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"eth_getTransactionByHash","params":["{hash}"]}}"#);
        let attempt = Attempt {
            node: &self.calls.pool.nodes[node],
            body: ask.as_bytes(),
            headers: &[],
            verify: Verify::All,
            leaving: Leaving::default(),
            memory: None,
            caller: None,
            id: Some(&ask.as_bytes()[ID]),
            again: Again::Anywhere,
            patience: self.deadline,
            limit: (Instant::now() + self.calls.settings.attempt_timeout).min(self.deadline),
        };
        match attempt.alone().await {
            Sent::Answered(answer) => answer.shows(hash),
            _ => false,
        }
    }
}
