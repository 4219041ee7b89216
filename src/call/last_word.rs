//! The client's answer where no further attempt is allowed or worth a try.

use tokio::time::Instant;

use super::{answer::Answer, null_answer::Null, run::CallRun};
use crate::{
    domain::{
        method::Class,
        refusal::{LINK_MESSAGE, Refusal},
    },
    exchange::next_node::{rest_ends, seconds_to, unserved},
    net::link::MAX_MESSAGE,
    pool::health::Fault,
};

impl CallRun<'_> {
    /// The client's answer when there is no more to try: answers of nodes come before the `refusal`
    /// of the queue.
    pub(super) fn give_up(&mut self, refusal: Option<Refusal>) -> Result<Answer, Refusal> {
        if self.method.class == Class::RawTransaction && self.unsure {
            // An error about another node says nothing about the node that may have the
            // transaction.
            return Err(Refusal::OutcomeUnknown);
        }
        let word = self.doubtful.take().or_else(|| self.null.take().map(Null::into_answer));
        let word = word.or_else(|| self.best.take()).or_else(|| self.lacking.take());
        if let Some(word) = word {
            return Ok(word);
        }
        let rests = || rest_ends(&self.calls.pool, self.tries.kind, &self.request.method).or(self.refused.until);
        if let Some(mut answer) = self.refused.answer.take() {
            answer.retry_after = rests().map(seconds_to);
            return Ok(answer);
        }
        if self.is_too_long {
            return Err(Refusal::Limit { name: LINK_MESSAGE, limit: MAX_MESSAGE });
        }
        Err(match (self.rejected, refusal) {
            (Some(status), _) => Refusal::Rejected(status),
            // A read has no effect whose outcome could be unknown.
            _ if self.may_have_arrived && self.method.class == Class::RawTransaction => Refusal::OutcomeUnknown,
            (None, None | Some(Refusal::Unserved(_))) if let Some(until) = rests() => {
                Refusal::Resting(seconds_to(until))
            }
            (None, Some(refusal)) => refusal,
            // A call that waited in line to the end was not sent.
            (None, None) if Instant::now() >= self.deadline && self.tries.failure != Some(Fault::Full) => {
                Refusal::Deadline
            }
            (None, None) => Refusal::Unserved(unserved(&self.calls.pool, self.tries.failure)),
        })
    }
}
