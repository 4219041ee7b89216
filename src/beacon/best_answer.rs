//! The answer that a client has where no node gives a good one.

use super::{Failure, RequestRun, answer::Answer, attempt::kind};
use crate::{
    domain::{beacon_form::Form, refusal::Refusal},
    exchange::next_node::{rest_ends, seconds_to, unserved},
};

impl RequestRun<'_> {
    /// Whether the best answer so far blames the request.
    pub(super) fn is_at_fault(&self) -> bool {
        !self.is_best_foreign && self.best.as_ref().is_some_and(|best| best.status == 400)
    }

    /// Keeps an answer of this form for the client, if no node has a better one. A success that
    /// does not come from a node is never passed on: the client would think that the request was
    /// done. An empty one may be all that the route has to say, and goes before errors of nodes; an
    /// error of a node goes before one in another form, and a demand for another form of the
    /// request, which the client can fulfil, before other errors.
    pub(super) fn keeps(&mut self, answer: Answer, form: Form) {
        match answer.status {
            ..300 if form == Form::Empty => {
                let is_better = |earlier: &Answer| !earlier.is_unproven() && answer.is_unproven();
                if self.empty.as_ref().is_none_or(is_better) {
                    self.empty = Some(answer);
                }
            }
            ..400 => self.foreign = Some(answer.status),
            status => {
                let is_foreign = form != Form::Node;
                let worth = |is_foreign, status: u16| (is_foreign, !matches!(status, 406 | 415));
                let is_better = self
                    .best
                    .as_ref()
                    .is_none_or(|best| worth(is_foreign, status) < worth(self.is_best_foreign, best.status));
                if is_better {
                    (self.best, self.is_best_foreign) = (Some(answer), is_foreign);
                }
            }
        }
    }

    pub(super) fn give_up(&mut self) -> Result<Answer, Failure> {
        let rests = || rest_ends(&self.requests.pool, kind(self.request), "");
        let is_of_the_request = !self.is_best_foreign && self.best.as_ref().is_some_and(|best| best.status < 500);
        let empty = self.empty.take().filter(|_| !is_of_the_request);
        match empty.or_else(|| self.best.take()).or_else(|| self.refused.take()) {
            Some(best) => Ok(best),
            None if let Some(status) = self.foreign => Err(Refusal::Rejected(status).into()),
            None if let Some(until) = rests() => Err(Refusal::Resting(seconds_to(until)).into()),
            None if self.was_late => Err(Refusal::Deadline.into()),
            None => Err(Refusal::Unserved(unserved(&self.requests.pool, self.tries.failure)).into()),
        }
    }
}
