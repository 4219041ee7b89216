//! The nodes that made the latest blocks.
//!
//! Rule: for two slots after a node has made a block for a client, signed blocks and envelopes of
//! payloads go to that node first, the latest maker before earlier ones. Reason: of a blinded
//! block, and of an envelope, only that node has the payload. That node need not be the node of the
//! view, and several clients may have asked for blocks. Example: node A of the view takes long over
//! a block, so node B is asked beside A, and B's block is the client's. Another client asks for a
//! block, and A makes that one. The first client signs B's block: A has the block first, but A's
//! refusal is not final, and then B has the block.
//!
//! Rule: neither a cordon nor a reload that takes the node away counts for these. Reason: an
//! operator who takes a node out of service does not mean to lose a block that the node has made.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use tokio::time::Instant;

use super::Request;
use crate::{
    domain::{beacon_route::Class, node_id::NodeId},
    pool::Pool,
};

/// A block that is not signed in that many slots is too late.
const SLOTS: u32 = 2;

/// The makers of the latest blocks.
#[derive(Default)]
pub(super) struct Makers(Mutex<State>);

#[derive(Default)]
struct State {
    /// Each node that made a block, once, and when it last did. The latest is the last.
    made: Vec<(NodeId, Instant)>,
    /// Nodes that a reload has taken away since, with their pools.
    gone: Vec<Gone>,
}

#[derive(Clone)]
struct Gone {
    pool: Arc<Pool>,
    node: NodeId,
    at: Instant,
}

impl Makers {
    /// The node has made a block.
    pub(super) fn made(&self, node: NodeId) {
        let mut state = self.state();
        state.made.retain(|(other, _)| *other != node);
        state.made.push((node, Instant::now()));
    }

    /// The nodes whose blocks may still be published, the latest first; slots take `slot`.
    pub(super) fn nodes(&self, slot: Duration) -> Vec<NodeId> {
        let state = self.state();
        state.made.iter().rev().filter(|(_, at)| at.elapsed() < slot * SLOTS).map(|(node, _)| *node).collect()
    }

    /// The same of nodes that a reload has taken away, with their pools.
    pub(super) fn gone(&self, slot: Duration) -> Vec<(Arc<Pool>, NodeId)> {
        let mut state = self.state();
        state.gone.retain(|gone| gone.at.elapsed() < slot * SLOTS);
        state.gone.iter().map(|gone| (gone.pool.clone(), gone.node)).collect()
    }

    /// Takes over the nodes of an earlier pool.
    pub(super) fn inherit(&self, pool: &Pool, earlier: &Self, of: &Arc<Pool>) {
        let (made, gone) = {
            let earlier = earlier.state();
            (earlier.made.clone(), earlier.gone.clone())
        };
        let of_pool = made.into_iter().map(|(node, at)| Gone { pool: of.clone(), node, at });
        let limit = of.slot() * SLOTS;
        let mut state = self.state();
        for gone in gone.into_iter().chain(of_pool).filter(|gone| gone.at.elapsed() < limit) {
            match pool.place_of(&gone.pool.nodes[gone.node]) {
                Some(node) => {
                    let is_later = |(other, at): &(NodeId, Instant)| *other == node && *at >= gone.at;
                    if !state.made.iter().any(is_later) {
                        state.made.retain(|(other, _)| *other != node);
                        state.made.push((node, gone.at));
                    }
                }
                None => {
                    let is_same = |other: &Gone| other.pool.nodes[other.node].is_same_as(&gone.pool.nodes[gone.node]);
                    state.gone.retain(|other| !is_same(other));
                    state.gone.push(gone);
                }
            }
        }
        state.made.sort_by_key(|(_, at)| *at);
    }

    fn state(&self) -> MutexGuard<'_, State> {
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
    publishes_a_block(request)
        || matches!(steps(request), ("validator", "execution_payload_envelopes" | "execution_payload_envelope"))
}

/// Whether only the node that made the block can judge the request.
pub(super) fn is_judged_by_the_maker(request: &Request) -> bool {
    publishes_a_block(request)
        && matches!(steps(request).1, "blinded_blocks" | "execution_payload_envelopes" | "execution_payload_envelope")
}
