//! The one place that turns refusals into HTTP statuses.

use crate::domain::refusal::{LINK_MESSAGE, Refusal};

/// The seconds after which a client should come again, after a refusal.
pub(super) fn retry_after(refusal: &Refusal) -> Option<u32> {
    match refusal {
        Refusal::Resting(seconds) => Some(*seconds),
        refusal => (status(refusal) == 503).then_some(1),
    }
}

/// The HTTP status of a refusal. Errors that a node would answer with 200 have 200. So has an
/// unknown outcome: some clients repeat a request by themselves on a 5xx, and such a call must not
/// be sent twice.
pub(super) fn status(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::NotJson(_) | Refusal::NotARequest(_) | Refusal::NoSuchNode(_) => 400,
        Refusal::Blocked(_) | Refusal::NotOffered(_) | Refusal::NeedsWebSocket | Refusal::OutcomeUnknown => 200,
        Refusal::NotKept { code: -32002 | -32005, .. } => 503,
        Refusal::Params(_) | Refusal::NoFilter | Refusal::OfNodes { .. } | Refusal::NotKept { .. } => 200,
        // The same call would be refused again.
        Refusal::Limit { name: LINK_MESSAGE, .. } => 200,
        Refusal::Limit {
            name: "filters.max" | "filters.max_per_client" | "filters.max_bytes_per_client" | "filter_params",
            ..
        } => 200,
        Refusal::Unserved(_) | Refusal::ShuttingDown => 503,
        // A page is no node's answer. A node's redirection or demand for credentials is no concern
        // of a client.
        Refusal::Rejected(..=399 | 401 | 407) => 502,
        Refusal::Rejected(status) => *status,
        Refusal::Resting(_) => 429,
        Refusal::Deadline => 504,
        Refusal::Limit { name: "max_body" | "max_batch", .. } => 413,
        Refusal::Limit { .. } => 503,
    }
}
