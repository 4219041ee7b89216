//! The nodes that made the latest blocks.
//!
//! Rule: for two slots after a node has made a block for a client, signed blocks and envelopes of
//! payloads go to that node first, the latest maker before earlier ones. Reason: of a blinded
//! block, and of an envelope, only that node has the payload. That node need not be the node of the
//! view, and several clients may have asked for blocks. Example: node A of the view takes long over
//! a block, so node B is asked beside A, and B's block is the client's. Another client asks for a
//! block, and A makes that one. The first client signs B's block: A has the block first, but A's
//! refusal is not final, and then B has the block.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use tokio::time::Instant;

use super::Request;
use crate::domain::{beacon_route::Class, node_id::NodeId};

/// A block that is not signed in that many slots is too late.
const SLOTS: u32 = 2;

/// Each node that made a block, once, and when it last did. The latest is the last.
#[derive(Default)]
pub(super) struct Makers(Mutex<Vec<(NodeId, Instant)>>);

impl Makers {
    /// The node has made a block.
    pub(super) fn made(&self, node: NodeId) {
        let mut made = self.get();
        made.retain(|(other, _)| *other != node);
        made.push((node, Instant::now()));
    }

    /// The nodes whose blocks may still be published, the latest first; slots take `slot`.
    pub(super) fn nodes(&self, slot: Duration) -> Vec<NodeId> {
        let made = self.get();
        made.iter().rev().filter(|(_, at)| at.elapsed() < slot * SLOTS).map(|(node, _)| *node).collect()
    }

    /// Takes over the nodes of an earlier pool that have a place here.
    pub(super) fn inherit(&self, earlier: &Self, place: impl Fn(NodeId) -> Option<NodeId>) {
        let earlier = earlier.get().clone();
        let mut made = self.get();
        for (node, at) in earlier.into_iter().filter_map(|(node, at)| Some((place(node)?, at))) {
            if !made.iter().any(|(other, other_at)| *other == node && *other_at >= at) {
                made.retain(|(other, _)| *other != node);
                made.push((node, at));
            }
        }
        made.sort_by_key(|(_, at)| *at);
    }

    fn get(&self) -> MutexGuard<'_, Vec<(NodeId, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first two steps behind `/eth/v…/`.
fn steps(request: &Request) -> (&str, &str) {
    let mut steps = request.target.path().trim_matches('/').split('/').skip(2);
    (steps.next().unwrap_or_default(), steps.next().unwrap_or_default())
}

/// Whether the answer is a block to be signed.
pub(super) fn makes_a_block(request: &Request) -> bool {
    request.method == Method::GET && matches!(steps(request), ("validator", "blocks" | "blinded_blocks"))
}

/// Whether a signed block, or the envelope of a payload, is published.
pub(super) fn publishes_a_block(request: &Request) -> bool {
    request.route.class == Class::Publish && request.route.is_duty && request.route.group != "validator"
}

/// Whether the request is of use to the node that made the block in the first place.
pub(super) fn is_for_the_maker(request: &Request) -> bool {
    publishes_a_block(request) || steps(request) == ("validator", "execution_payload_envelopes")
}

/// Whether only the node that made the block can judge the request.
pub(super) fn is_judged_by_the_maker(request: &Request) -> bool {
    publishes_a_block(request) && matches!(steps(request).1, "blinded_blocks" | "execution_payload_envelopes")
}
