//! A validator that was told of a head is not answered by a node that does not know it yet: a vote for the head before is lost. Where
//! the node that told it is gone and the others are a little later, what refers to the head waits for them.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Request, Rest};
use crate::domain::rest::Class;

/// Between two looks at a node that is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// Whether what is asked for refers to the head.
pub(super) fn is_of_the_head(request: &Request) -> bool {
    request.route.is_duty && request.route.class == Class::Read
}

impl Rest {
    /// Waits until `node` knows the head that clients were told, for a sixth of a slot at most, where the request refers to it.
    pub(super) async fn reach(&self, request: &Request, node: usize) {
        if !is_of_the_head(request) || !self.pool.owes_head(node) {
            return;
        }
        let until = Instant::now() + self.pool.slot() / 6;
        let mut changes = self.pool.subscribe();
        while self.pool.owes_head(node) && Instant::now() < until {
            self.pool.doubt(node);
            // News may come sooner; none is no reason to wait for longer.
            let _ = timeout(LOOK.min(until - Instant::now()), changes.changed()).await;
        }
    }
}
