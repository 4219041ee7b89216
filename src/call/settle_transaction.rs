//! The final answer about a transaction that an earlier attempt may have brought to a node.

use tokio::time::Instant;

use super::{
    answer::Answer,
    attempt::{Attempt, Sent},
    leaving::Leaving,
    run::CallRun,
};
use crate::{
    config::{SendTo, Verify},
    domain::{
        method::{Class, Method},
        node_id::NodeId,
        refusal::Refusal,
    },
    pool::ask::ID,
};

/// The question for a transaction.
const BY_HASH: &str = "eth_getTransactionByHash";

impl CallRun<'_> {
    /// Rule: the client gets an error about the call unchanged. Exception: a raw transaction that
    /// an earlier attempt may have brought to a node. Then "already known" is success; an error
    /// about the transaction's bytes is final; after any other error the node is asked for the
    /// transaction. Where transactions go to more than one node (`calls.send_to`), "already known"
    /// is success in any case. Reason: the pool of one node may refuse what another's has accepted,
    /// and nodes hand transactions on to each other. Example: node a's answer is lost, node b says
    /// "nonce too low" and has the transaction in a block: the client gets the hash.
    pub(super) async fn settle(&mut self, node: NodeId, mut answer: Answer) -> Result<Answer, Refusal> {
        let goes_to_many = self.patience.send_to != SendTo::First;
        if self.method.class != Class::RawTransaction || !(self.may_have_arrived || goes_to_many) {
            return Ok(answer);
        }
        if !self.has_transaction() {
            return Ok(answer);
        }
        let Some(transaction) = self.transaction.as_deref() else { return Ok(answer) };
        let (mut made, hash) = (transaction.known(), transaction.transaction.hash.to_string());
        let (known, malformed) = answer.error().map_or((false, false), |e| (e.is_already_known(), e.is_of_the_bytes()));
        // In a box, so that other calls do not pay for its size.
        if known || (self.may_have_arrived && !malformed && Box::pin(self.is_there(node, &hash)).await) {
            made.node = Some(node);
            return Ok(made);
        }
        if self.unsure && !malformed { Err(Refusal::OutcomeUnknown) } else { Ok(answer) }
    }

    /// Whether the node has the transaction, in a block or waiting.
    async fn is_there(&mut self, node: NodeId, hash: &str) -> bool {
        let ask = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{BY_HASH}","params":["{hash}"]}}"#);
        let node = &self.calls.pool.nodes[node];
        let attempt = Attempt {
            node,
            method: Method::of(BY_HASH).id,
            cost: node.cost(BY_HASH),
            body: ask.as_bytes(),
            headers: &[],
            // A question of the proxy's own is no step of the client's request.
            trace: None,
            verify: Verify::All,
            leaving: Leaving::default(),
            memory: None,
            caller: None,
            in_line: false,
            id: Some(&ask.as_bytes()[ID]),
            is_repeatable: true,
            second_attempt_from: self.deadline,
            limit: (Instant::now() + self.patience.attempt_timeout).min(self.deadline),
        };
        match attempt.alone().await {
            Sent::Answered(answer) => answer.shows(hash),
            _ => false,
        }
    }
}
