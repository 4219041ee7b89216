//! Requests that refer to the head, at nodes that have yet to reach the head.
//!
//! Rule: a request that refers to the head waits until its node knows the head that clients have
//! seen, for a sixth of a slot at most. Reason: a validator that has seen a head must not get a
//! vote for the head before, which would be lost. Example: node A reports the head of slot 100 and
//! is lost, and node B knows that head 300 ms later. A request for attestation data that came at
//! once is given to B after 300 ms; after 2 s it would go to B in any case. Clients have seen a
//! head when an event or an answer named the head.
//!
//! Rule: once a node has said that it has no aggregate or contribution, no other node is waited
//! for. Reason: such a request names its block, and a node that is a block behind may have the
//! votes for an older one. Example: the client voted at node A, which is gone for a moment when the
//! client asks for the aggregate. B answers 404, and A, back and still a block behind, is asked at
//! once.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Request, RequestRun, Requests};
use crate::domain::{beacon_route::Class, node_id::NodeId};

/// The time between two looks at a node that is awaited.
const LOOK: Duration = Duration::from_millis(50);

/// Whether a request refers to the head: data to be signed does, and requests that name the
/// head. Duties are those of an epoch, and the block of a moment ago decides nothing about them.
fn is_of_the_head(request: &Request) -> bool {
    if request.route.class != Class::Read {
        return false;
    }
    match steps(request)[..] {
        ["validator", "duties" | "liveness" | "beacon_committee_selections" | "sync_committee_selections", ..] => false,
        ["validator", ..] | ["beacon", "headers"] => true,
        ref steps => steps.contains(&"head"),
    }
}

/// Whether a request names the block whose votes it asks for.
fn names_its_block(request: &Request) -> bool {
    matches!(steps(request)[..], ["validator", "aggregate_attestation" | "sync_committee_contribution"])
}

/// The parts of a path behind `/eth/v1`.
fn steps(request: &Request) -> Vec<&str> {
    request.target.path().trim_matches('/').split('/').skip(2).collect()
}

impl RequestRun<'_> {
    /// Whether nodes that do not know the head are waited for.
    pub(super) fn waits_for_head(&self) -> bool {
        let is_lacking = self.best.as_ref().is_some_and(|answer| answer.status == 404);
        is_of_the_head(self.request) && !(is_lacking && names_its_block(self.request))
    }
}

impl Requests {
    /// Waits until `node` knows the head that clients have seen, for a sixth of a slot at most.
    pub(super) async fn wait_for_head(&self, node: NodeId) {
        if self.pool.owes_head(node) {
            self.catches_up(&mut vec![(node, Instant::now() + self.pool.longest_wait_for_head())]).await;
        }
    }

    /// Waits until one of these nodes knows the head that clients have seen, for each until its
    /// moment. Removes and returns that node; nodes whose moment has passed are removed too. `None`
    /// when no node is left. Cancel-safe.
    pub(super) async fn catches_up(&self, behind: &mut Vec<(NodeId, Instant)>) -> Option<NodeId> {
        let mut changes = self.pool.subscribe();
        loop {
            if let Some(place) = behind.iter().position(|(node, _)| !self.pool.owes_head(*node)) {
                return Some(behind.remove(place).0);
            }
            let now = Instant::now();
            behind.retain(|(_, until)| *until > now);
            let until = behind.iter().map(|(_, until)| *until).min()?;
            behind.iter().for_each(|(node, _)| self.pool.probe_now(*node));
            // News may come sooner; without news the wait is just over.
            let _ = timeout(LOOK.min(until - now), changes.changed()).await;
        }
    }
}
