//! How a call ends, for the metrics.

use tokio::time::Instant;

use super::{Calls, answer::Answer};
use crate::{domain::method::Method, metrics::CallOutcome};

/// Counts a call that its client abandons.
pub(super) struct Ending<'a> {
    pub(super) calls: &'a Calls,
    pub(super) method: Method,
    pub(super) arrived: Instant,
    pub(super) counted: bool,
}

impl Ending<'_> {
    pub(super) fn count(&mut self, outcome: CallOutcome) {
        self.counted = true;
        self.calls.metrics.ended(&self.method, outcome, self.arrived.elapsed().as_secs_f64());
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.count(CallOutcome::Gone);
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
