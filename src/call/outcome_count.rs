//! The end of a call, for the metrics and the log.

use tokio::time::Instant;

use super::{
    Calls, Terms,
    answer::{Answer, Kind},
};
use crate::{
    domain::{method::Method, refusal::Refusal, rpc::Request},
    exchange::trace::value_of,
    metrics::CallOutcome,
};

/// Counts a call, also one that its client abandons.
pub(super) struct OutcomeCount<'a> {
    calls: &'a Calls,
    /// The client's own name of the method, for the log; metrics have the name of the table.
    name: &'a str,
    method: Method,
    terms: &'a Terms<'a>,
    counted: bool,
}

impl<'a> OutcomeCount<'a> {
    pub(super) fn new(calls: &'a Calls, request: &'a Request<'_>, method: Method, terms: &'a Terms<'a>) -> Self {
        Self { calls, name: &request.method, method, terms, counted: false }
    }

    /// Counts the call by the kind of its answer, or by its refusal.
    pub(super) fn count(&mut self, outcome: Result<Kind, &Refusal>) {
        if let (Some(trace), Err(refusal)) = (self.terms.trace, outcome) {
            trace.refused(|| refusal.message());
        }
        self.ended(match outcome {
            Ok(Kind::Result) => CallOutcome::Result,
            Ok(_) => CallOutcome::NodeError,
            Err(Refusal::Unserved(why)) => (*why).into(),
            Err(Refusal::Deadline) => CallOutcome::Deadline,
            Err(Refusal::OutcomeUnknown) => CallOutcome::OutcomeUnknown,
            Err(_) => CallOutcome::Refused,
        });
    }

    fn ended(&mut self, outcome: CallOutcome) {
        self.counted = true;
        let Self { calls, name, method, terms, .. } = self;
        calls.metrics.ended(method, outcome, terms.arrived.elapsed().as_secs_f64());
        calls.failures.tell(&calls.pool, name, outcome, |name| value_of(terms.headers, name));
        if let Some(trace) = terms.trace {
            trace.of_side(&calls.pool.network, calls.pool.layer.as_str());
            trace.ended(method.label, outcome);
        }
    }
}

impl Drop for OutcomeCount<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.ended(CallOutcome::Gone);
        }
    }
}

/// The refusals of nodes for quota.
#[derive(Default)]
pub(super) struct QuotaRefusals {
    /// The earliest end of the pauses that refusing nodes named, if any node refused.
    pub(super) until: Option<Instant>,
    /// The first refusing node's answer.
    pub(super) answer: Option<Answer>,
}
