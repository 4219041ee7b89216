//! How a call ends, for the metrics.

use tokio::time::Instant;

use super::{
    Calls,
    answer::{Answer, Kind},
};
use crate::{
    domain::{method::Method, refusal::Refusal},
    metrics::CallOutcome,
};

/// Counts a call that its client abandons.
pub(super) struct Ending<'a> {
    calls: &'a Calls,
    method: Method,
    arrived: Instant,
    counted: bool,
}

impl<'a> Ending<'a> {
    pub(super) fn new(calls: &'a Calls, method: Method, arrived: Instant) -> Self {
        Self { calls, method, arrived, counted: false }
    }

    /// Counts the call by the kind of its answer, or by its refusal.
    pub(super) fn count(&mut self, outcome: Result<Kind, &Refusal>) {
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
        self.calls.metrics.ended(&self.method, outcome, self.arrived.elapsed().as_secs_f64());
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.ended(CallOutcome::Gone);
        }
    }
}

/// What nodes that refuse for quota said of a call.
#[derive(Default)]
pub(super) struct Refused {
    /// If any did, until when the first of them wants to be left alone.
    pub(super) until: Option<Instant>,
    /// The first answer of one.
    pub(super) answer: Option<Answer>,
}
