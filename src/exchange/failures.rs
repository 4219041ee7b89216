//! Lines in the log for requests that no node answered: one at once, then one in a while, so that
//! an outage under load does not fill the log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::{trace::MAX_TRACE, tries::Tries};
use crate::{
    metrics::{CallOutcome, Throttle},
    pool::Pool,
};

/// The failures of one side of a network.
#[derive(Debug, Default)]
pub struct Failures {
    failed: Throttle,
    /// Requests whose outcome is unknown have lines of their own, because their clients have to
    /// look after them.
    unknown: Throttle,
    /// The latest trouble that a failed request had with a node.
    trouble: Mutex<Option<String>>,
}

impl Failures {
    /// A request failed at the nodes of `pool` after these tries: notes its last trouble with a
    /// node, if there was any.
    pub fn note(&self, pool: &Pool, tries: &Tries) {
        if let Some((node, trouble)) = tries.charges.last() {
            *self.lock() = Some(format!("{}: {}", pool.nodes[*node].name, trouble.text));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request ended so. `header` gives the value of a header of the client.
    pub fn tell<'h>(
        &self,
        pool: &Pool,
        method: &str,
        outcome: CallOutcome,
        header: impl Fn(&'static str) -> Option<&'h [u8]>,
    ) {
        let throttle = match outcome {
            CallOutcome::OutcomeUnknown => &self.unknown,
            CallOutcome::NoNode | CallOutcome::Failed | CallOutcome::Deadline => &self.failed,
            CallOutcome::Result | CallOutcome::NodeError | CallOutcome::Refused | CallOutcome::Gone => return,
        };
        let Some(before) = throttle.pass() else { return };
        let value = |name| header(name).filter(|value| value.len() <= MAX_TRACE).map(String::from_utf8_lossy);
        let (request_id, traceparent) = (value("x-request-id"), value("traceparent"));
        warn!(
            network = &*pool.network,
            layer = pool.layer.as_str(),
            method,
            outcome = outcome.as_str(),
            request_id = request_id.as_deref(),
            traceparent = traceparent.as_deref(),
            why = self.lock().take(),
            before,
            "no node answered a request"
        );
    }
}
