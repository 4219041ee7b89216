//! Opens streams, and makes one of them the current one.
//!
//! Rule: a stream that is opened for other topics at the same node changes nothing but the topics:
//! questions, and heads that wait, go on. The new stream carries the known topics of the one before
//! too, is not begun anew for further topics, and is opened once in [`RENEWAL`] at most. Reason:
//! each client brings topics and takes them along, and must not disturb the others. Example: one
//! client connects for `attestation` and for `block_gossip` in turn, four times a second. The
//! second stream carries both, and is not replaced for 10 s.
//!
//! Rule: the first stream of a node carries known topics only, and where a stream with more topics
//! than the one before does not last, the one before goes on without these. Reason: a node may
//! break over a topic that one client asks for, and the others need their heads.
//!
//! Rule: a stream that is lost while its node is well is opened again at that node. Another node is
//! asked only if a header was awaited then, or if the new stream does not open within
//! [`REOPENING`], is lost before it told a head, or waits as long for a header. Reason: all
//! requests go where the stream is, and gateways end streams, which is no reason to move validators
//! in the middle of an epoch. Example: a gateway ends each stream after a minute. Every minute
//! there is a new one of the same node, and the node's head is asked for, so no head is missed.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    super::{
        node,
        stitch::{Input, Stitcher},
        topics::{self, Names},
    },
    FIRST_PAUSE, Hub, LINGER, OVERLAP,
    stream::Stream,
};
use crate::{
    domain::node_id::NodeId,
    pool::health::{Fault, Trouble},
};

/// The time between two streams of one node that are opened for other topics.
const RENEWAL: Duration = Duration::from_secs(1);
/// How long a node may take to open a stream again that was lost.
const REOPENING: Duration = Duration::from_secs(1);

impl Hub {
    /// Whether the current stream has the right node and topics.
    pub(super) fn fits(&mut self, node: NodeId, topics: &Names, now: Instant) -> bool {
        let Some(current) = &self.current else { return false };
        if !current.is_of(&self.pool, node) || !topics.is_subset(&current.topics) {
            return false;
        }
        if current.topics.len() == topics.len() {
            self.excess = None;
            return true;
        }
        now.saturating_duration_since(*self.excess.get_or_insert(now)) < LINGER
    }

    /// Opens a stream of this node, if none is on its way and the time has come.
    pub(super) fn open(&mut self, node: NodeId, mut topics: Names, now: Instant) {
        if self.next.as_ref().is_some_and(|next| next.is_of(&self.pool, node)) {
            return;
        }
        if let Some(current) = self.current.as_ref().filter(|current| current.is_of(&self.pool, node)) {
            if self.renewed.is_some_and(|at| now.saturating_duration_since(at) < RENEWAL) {
                return;
            }
            if !topics.is_subset(&current.topics) {
                let known = current.topics.iter().filter(|topic| topics::label(topic) != "other");
                topics.extend(known.filter(|topic| self.trials.may_ask(node, topic)).cloned());
            }
            self.renewed = Some(now);
        } else {
            topics.retain(|topic| topics::label(topic) != "other");
        }
        self.opened += 1;
        let id = self.opened;
        let task = self.streams.spawn(node::stream(self.pool.clone(), node, topics.clone(), id, self.news.clone()));
        let slot = self.pool.snapshot().head.unwrap_or(0);
        let pool = self.pool.clone();
        self.next =
            Some(Stream { id, pool, node, topics, running: false, behind: None, slot, unheard: None, ahead: 0, task });
    }

    /// Makes the next stream the current one, if the next one runs. A good stream of another node
    /// stays until the next one has proved itself.
    pub(super) fn go_over(&mut self, has_proved_itself: bool) {
        let Some(mut next) = self.next.take_if(|next| next.running) else { return };
        let old = self.current.as_ref();
        let is_renewal = old.is_some_and(|current| current.is_of(&next.pool, next.node));
        if old.is_some_and(Stream::is_well) && !is_renewal && !has_proved_itself {
            self.next = Some(next);
            return;
        }
        if let Some(current) = old.filter(|_| is_renewal) {
            // The node's silence and its errors count on.
            (next.slot, next.behind, next.ahead) = (current.slot, current.behind, current.ahead);
        } else {
            let from = old.map_or("none", Stream::name);
            info!(network = self.network(), from, to = next.name(), "events come from another node");
        }
        self.excess = None;
        let old = self.current.replace(next);
        let input = match (&old, is_renewal) {
            (Some(_), true) => Input::Renewed,
            (Some(_), false) => Input::Switched,
            (None, _) => Input::Opened,
        };
        self.leaving = old.filter(Stream::is_well).map(|old| (old, Instant::now() + OVERLAP));
        if !is_renewal {
            self.drop_questions();
        }
        if let Some(current) = self.current.as_ref().filter(|current| Arc::ptr_eq(&current.pool, &self.pool)) {
            // Calls go to the node whose events clients get.
            self.pool.streams_from(Some(current.node));
        }
        // Heads that another node's stream has reported so far are not needed: the stitcher asks
        // for the node's head and fills the way there.
        self.step(input);
    }

    /// Goes back to the stream before the current one, if both are of one node and the current one,
    /// which is lost, had more topics. Returns whether that was so.
    pub(super) fn goes_back(&mut self, trouble: &Trouble) -> bool {
        let Some(current) = &self.current else { return false };
        let is_before = |(leaving, _): &mut (Stream, Instant)| leaving.is_of(&current.pool, current.node);
        let Some((mut leaving, until)) = self.leaving.take_if(is_before) else { return false };
        let more: Names = current.topics.difference(&leaving.topics).cloned().collect();
        if more.is_empty() || leaving.task.is_finished() {
            self.leaving = Some((leaving, until));
            return false;
        }
        let (slot, behind, ahead) = (current.slot, current.behind, current.ahead);
        (leaving.slot, leaving.behind, leaving.ahead) = (slot, behind, ahead);
        let topics = leaving.topics.clone();
        // A node of an earlier pool has another index in this one.
        if Arc::ptr_eq(&leaving.pool, &self.pool) {
            self.fails_with(leaving.node, more, topics, trouble);
        }
        self.current = Some(leaving);
        self.step(Input::Renewed);
        true
    }

    /// Notes that a stream failed with these topics, beside one `without` them: because of the
    /// unknown ones, if there are any.
    pub(super) fn fails_with(&mut self, node: NodeId, mut topics: Names, without: Names, trouble: &Trouble) {
        let name = &self.pool.nodes[node].name;
        warn!(network = self.network(), node = &**name, why = trouble.text, "node refused additional event topics");
        if topics.iter().any(|topic| topics::label(topic) == "other") {
            topics.retain(|topic| topics::label(topic) == "other");
        }
        self.trials.failed(&self.pool, node, topics, without);
    }

    /// Whether a head or an event waits for an answer of a node.
    fn owes(&self) -> bool {
        self.stitcher.as_ref().is_some_and(Stitcher::holds)
    }

    /// Leaves the current stream, which is lost, to be opened again at the same node. `false` if
    /// the node is not well, or if no head was told since a stream was lost before.
    pub(super) fn opens_again(&mut self, trouble: &Trouble) -> bool {
        let is_first = self.reopened.is_none();
        // The node has owed a block's header until now, and another may give the block at once.
        let owes = self.owes();
        let may = |current: &Stream| is_first && !owes && Arc::ptr_eq(&current.pool, &self.pool) && current.is_well();
        let Some(lost) = self.current.take_if(|current| may(current)) else { return false };
        let (node, why) = (lost.name(), &trouble.text);
        info!(network = self.network(), node, why, "a stream of events is lost, and is opened again");
        self.pool.probe_now(lost.node);
        self.reopened = Some((lost.node, Instant::now()));
        self.is_without_stream();
        true
    }

    /// Gives up the node of a lost stream that does not open another, or opens one and then owes a
    /// block's header.
    pub(super) fn watch_reopening(&mut self, now: Instant) {
        let owes = self.reopened.is_some() && self.current.is_some() && self.owes();
        self.owes_since = owes.then(|| self.owes_since.unwrap_or(now));
        if self.owes_since.is_some_and(|since| now.saturating_duration_since(since) >= REOPENING) {
            let text = format!("it opened its stream again and owes a header for {REOPENING:?}");
            return self.lost(false, Trouble { fault: Fault::Silent, text }, FIRST_PAUSE);
        }
        let Some((node, since)) = self.reopened.filter(|_| self.current.is_none()) else { return };
        let is_awaited = self.next.as_ref().is_some_and(|next| next.is_of(&self.pool, node) && !next.running);
        if is_awaited && now.saturating_duration_since(since) >= REOPENING {
            let text = format!("it did not open its stream again within {REOPENING:?}");
            self.lost(true, Trouble { fault: Fault::Silent, text }, FIRST_PAUSE);
        }
    }

    /// Whether the next stream may take over from a good one. A stream of the node to which calls
    /// are about to move must have come to the slot that clients have seen.
    pub(super) fn may_go_over(&self) -> bool {
        let is_home = |next: &Stream| self.pool.snapshot().moving == Some(next.node);
        self.next.as_ref().is_none_or(|next| !is_home(next) || next.slot >= self.pool.served())
    }
}
