//! A validator that was told of a head is not answered by a node that does not know it yet: a vote
//! for the head before is lost. Where the node that told it is gone and the others are a little
//! later, what refers to the head waits for them.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Request, Rest};
use crate::domain::beacon_route::Class;

/// Between two looks at a node that is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// Whether what is asked for refers to the head: what validators ask, and whatever is asked of the
/// head by its name.
pub(super) fn is_of_the_head(request: &Request) -> bool {
    let names_the_head = || {
        let path = request.target.path();
        path.split('/').any(|step| step == "head") || path.trim_end_matches('/').ends_with("/beacon/headers")
    };
    request.route.class == Class::Read && (request.route.is_duty || names_the_head())
}

impl Rest {
    /// Waits until `node` knows the head that clients were told, for a sixth of a slot at most,
    /// where the request refers to it.
    pub(super) async fn reach(&self, request: &Request, node: usize) {
        if !is_of_the_head(request) || !self.pool.owes_head(node) {
            return;
        }
        self.catches_up(&mut vec![(node, Instant::now() + self.pool.slot() / 6)]).await;
    }

    /// Waits until one of these nodes knows the head that clients were told, for each until its
    /// moment. Takes away that one, and those whose moment has passed; none if none is left.
    /// Cancel-safe.
    pub(super) async fn catches_up(&self, behind: &mut Vec<(usize, Instant)>) -> Option<usize> {
        let mut changes = self.pool.subscribe();
        loop {
            if let Some(place) = behind.iter().position(|(node, _)| !self.pool.owes_head(*node)) {
                return Some(behind.remove(place).0);
            }
            let now = Instant::now();
            behind.retain(|(_, until)| *until > now);
            let until = behind.iter().map(|(_, until)| *until).min()?;
            behind.iter().for_each(|(node, _)| self.pool.probe_now(*node));
            // News may come sooner; none is no reason to wait for longer.
            let _ = timeout(LOOK.min(until - now), changes.changed()).await;
        }
    }
}
