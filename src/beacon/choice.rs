//! The node that a request goes to next.
//!
//! Rule: a signed block or envelope goes to the node that made the block first. Any other request
//! goes to the active node, unless that node rests or keeps failing such requests; then the best
//! other node gets the request. A read of data that the chain settled long ago goes to any of
//! the best nodes, as `policy` says. Where all nodes rest, a request for which a validator waits is
//! tried all the same, once at each node. Reason: a duty that is refused is lost for certain.
//! Example: both nodes refuse duties for 30 s, and the next attestation data are asked for 6 s
//! later. The request goes to the first node, which answers.

use tokio::time::Instant;

use super::{
    Request, Requests,
    attempt::kind,
    maker::{is_for_the_maker, publishes_a_block},
    time_limit::is_urgent,
};
use crate::{
    domain::{method::Class as CallClass, node_id::NodeId, verdict::Verdict},
    exchange::next_node::{Choice, NodeQuery, choose},
    pool::resting::RestState,
};

impl Requests {
    /// The best node for a request, other than those in `tried`: the node of all clients' view, if
    /// that one may have the data.
    pub(super) fn choose(&self, request: &Request, tried: &[NodeId], again: bool) -> Choice<'_> {
        let with_shut;
        let tried = match &request.pick {
            Some(pick) => {
                with_shut = [tried, &pick.shut(&self.pool).unwrap_or_default()].concat();
                &with_shut
            }
            None => tried,
        };
        let lacking = self.lacking(request);
        if !lacking.is_empty() {
            let shut: Vec<NodeId> = tried.iter().chain(&lacking).copied().collect();
            if let choice @ Choice::Node(..) = self.choose_among(request, &shut, again) {
                return choice;
            }
        }
        self.choose_among(request, tried, again)
    }

    fn choose_among(&self, request: &Request, tried: &[NodeId], again: bool) -> Choice<'_> {
        let (policy, kind) = (self.settings.policy, kind(request));
        // Data that the chain settled long ago is the same on all nodes; any other request refers
        // to earlier answers, and goes to the node that gave them.
        let class = if self.is_settled(request) { CallClass::Read } else { CallClass::NodeLocal };
        let (nodes, query) = (
            &self.pool.nodes,
            NodeQuery { policy, class, kind, method: "", blocks: None, tried, again, is_urgent: false },
        );
        // Only a request can show that a resting node takes requests again.
        if self.pool.is_any_resting()
            && let Choice::Node(node, scout @ Some(_)) = choose(&self.pool, query)
            && self.pool.snapshot().nodes[node].verdict == Verdict::Resting
        {
            return Choice::Node(node, scout);
        }
        // A node that keeps failing such requests is passed over; but not for a block, which may be
        // of use to that node alone.
        let is_block = publishes_a_block(request);
        let fails =
            |view: NodeId| !is_block && nodes[view].resting.state(kind, again, Instant::now()) == RestState::Last;
        let is_free = |view: &NodeId| class == CallClass::NodeLocal && !tried.contains(view) && !fails(*view);
        let makers = if is_for_the_maker(request) { self.makers.nodes(self.pool.slot()) } else { Vec::new() };
        let snapshot = self.pool.snapshot();
        // A cordon is not meant for a block that the node has made.
        let is_cordoned = |node: NodeId| snapshot.nodes[node].cordoned && snapshot.nodes[node].verdict.is_usable();
        if let Some(maker) =
            makers.iter().find(|maker| is_free(maker) && is_cordoned(**maker) && !nodes[**maker].is_out())
        {
            return Choice::Node(*maker, None);
        }
        let makers = makers.into_iter().filter(|maker| self.pool.is_usable(*maker));
        let view = snapshot.active;
        for first in makers.chain(view).filter(is_free) {
            let others: Vec<NodeId> = NodeId::all(nodes.len()).filter(|node| *node != first).collect();
            if let choice @ Choice::Node(..) = choose(&self.pool, NodeQuery { tried: &others, ..query }) {
                return choice;
            }
        }
        choose(&self.pool, NodeQuery { is_urgent: is_urgent(request), ..query })
    }
}
