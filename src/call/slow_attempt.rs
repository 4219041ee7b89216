//! Decides whether an attempt that takes long gets a second one beside it at another node.
//!
//! Rule: for `calls.attempt_timeout` an attempt is left alone. After that, a read or a raw
//! transaction gets a second attempt at another usable node, as soon as the first node is no longer
//! usable or silent to probes, or when a second attempt would otherwise have less than
//! `calls.attempt_timeout` left. The first good answer goes to the client. Reason: a long call does
//! not mean a dead node, and a second attempt doubles the work. Example with the defaults (10 s per
//! attempt, 30 s in all): if the node stops answering probes after 3 s, the second attempt begins
//! at 10 s; if the node keeps answering them, at 20 s.

use std::time::Duration;

use tokio::time::Instant;

use super::{Calls, Terms, attempt::Attempt, leaving::Leaving};
use crate::{
    domain::{asked_blocks::AskedBlocks, method::Method, node_id::NodeId, rpc::Request},
    exchange::next_node::{Choice, NodeQuery, choose},
    pool::{Scout, resting::Kind},
};

/// How often the state of a long attempt's node is checked.
const LOOK: Duration = Duration::from_secs(1);

/// An attempt under way and its call.
#[derive(Clone, Copy)]
pub(super) struct SlowAttempt<'a, 'c> {
    pub(super) calls: &'a Calls,
    pub(super) request: &'a Request<'a>,
    pub(super) method: Method,
    pub(super) terms: &'a Terms<'a>,
    pub(super) kind: Kind,
    /// The blocks that the call needs, if known.
    pub(super) blocks: Option<AskedBlocks>,
    pub(super) deadline: Instant,
    /// How long an attempt is left alone.
    pub(super) attempt_timeout: Duration,
    /// The node of the attempt.
    pub(super) node: NodeId,
    pub(super) started: Instant,
    /// Whether every node is full, so that the call waits in line.
    pub(super) in_line: bool,
    /// Nodes that have failed the call.
    pub(super) tried: &'c [NodeId],
    /// Nodes that the caller did not pick.
    pub(super) shut: &'c [NodeId],
}

/// The next step in a long attempt.
pub(super) enum Next<'a> {
    /// Check again at this time.
    At(Instant),
    /// Begin this attempt beside the first.
    Beside(Box<Beside<'a>>),
}

/// A second attempt.
pub(super) struct Beside<'a> {
    pub(super) node: NodeId,
    pub(super) attempt: Attempt<'a>,
    /// The scout's place, held until the attempt has ended.
    pub(super) scout: Option<Scout<'a>>,
}

impl<'a> SlowAttempt<'a, '_> {
    /// The attempt at `node`.
    pub(super) fn attempt(&self, node: NodeId) -> Attempt<'a> {
        let node = &self.calls.pool.nodes[node];
        Attempt {
            node,
            method: self.method.id,
            cost: node.cost(&self.request.method),
            body: self.request.raw,
            headers: self.terms.headers,
            trace: self.terms.trace,
            verify: self.terms.verify,
            leaving: Leaving::new(self.terms, self.method),
            memory: Some(self.terms.memory),
            caller: self.terms.caller,
            in_line: self.in_line,
            id: self.request.id,
            is_repeatable: self.method.is_repeatable(),
            second_attempt_from: (self.started + self.attempt_timeout).min(self.deadline),
            limit: self.deadline,
        }
    }

    /// The next step now.
    pub(super) fn next(&self) -> Next<'a> {
        let Calls { pool, settings, .. } = self.calls;
        let now = Instant::now();
        if !self.method.may_run_at_two() {
            return Next::At(self.deadline);
        }
        let last = (self.deadline - self.attempt_timeout).max(self.started + self.attempt_timeout);
        if pool.answers_probes(self.node) && now < last {
            return Next::At(last.min(now + LOOK));
        }
        let tried = [self.tried, &[self.node], self.shut].concat();
        let (policy, class, kind, blocks) = (settings.policy, self.method.class, self.kind, self.blocks);
        let (method, tried) = (&*self.request.method, &*tried);
        let query = NodeQuery { policy, class, kind, method, blocks, tried, again: false, is_urgent: false };
        match choose(pool, query) {
            Choice::Node(node, scout) if pool.is_usable(node) => {
                Next::Beside(Box::new(Beside { node, attempt: self.attempt(node), scout }))
            }
            _ => Next::At(now + LOOK),
        }
    }
}
