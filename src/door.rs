//! Floor 7, doors: framing and limits, and the one place that turns refusals into HTTP responses.

pub mod admin;
pub mod http;
pub mod site;

use crate::domain::refusal::Refusal;

/// The HTTP status beside a refusal. What a node would answer with 200 has 200. So has an unknown outcome: some clients repeat a
/// request by themselves on a 5xx, and that one must not be sent twice.
pub fn status(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::NotJson(_) | Refusal::NotARequest(_) => 400,
        Refusal::Blocked(_) | Refusal::NeedsWebSocket | Refusal::OutcomeUnknown => 200,
        Refusal::NoNode | Refusal::ShuttingDown => 503,
        Refusal::Rejected(status) => *status,
        Refusal::Deadline => 504,
        Refusal::Limit { name: "max_body" | "max_batch", .. } => 413,
        Refusal::Limit { .. } => 503,
    }
}
