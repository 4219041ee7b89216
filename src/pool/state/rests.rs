//! The state's knowledge of the nodes' rests, which calls and probes begin and end.

use tokio::time::Instant;

use super::PoolState;
use crate::pool::node::Node;

impl PoolState {
    /// Takes note of the nodes that rest now as a whole.
    pub(super) fn note_rests(&mut self, nodes: &[Node], now: Instant) {
        for (known, node) in self.known.iter_mut().zip(nodes) {
            let rested = std::mem::replace(&mut known.resting, node.is_resting(now));
            let is_told = known.last_error.as_ref().is_some_and(|(_, at)| *at == now);
            if known.resting && !rested && !is_told {
                let is_refused = node.resting.is_whole(now);
                let why = if is_refused { "calls were refused for quota" } else { "the budget of the day is spent" };
                known.last_error = Some((why.to_owned(), now));
            }
        }
    }
}
