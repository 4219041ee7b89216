//! Sends a client's raw transaction to several nodes at once.
//!
//! Rule: the transaction goes to the node that a call would go to and to the other usable nodes, as
//! `calls.send_to` says. The first node that takes the transaction, or has the transaction already,
//! decides: its answer is the client's, and the other sends go on. A refusal goes back only
//! when no node took the transaction; another node is waited for until the node has had
//! `calls.attempt_timeout`, or a second where a node refuses the very bytes. When no node has
//! judged the transaction, the call goes on as any other: to nodes that have not had the call, or
//! after a pause. Reason: a mempool that drops a transaction, or a node that dies with one, must
//! not be the only one with that transaction. Example: node A is out of quota, node B takes the
//! transaction and node C hangs: the client has the answer of B at once.
//!
//! No copies are sent where there is one usable node, where the call has no id, where the
//! transaction cannot be read, or where there is no room for copies: then the call takes the usual
//! way, and the other nodes are sent the transaction once a node has that transaction
//! ([`raw_resend`](super::raw_resend)).

use std::{future::poll_fn, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};

use super::{
    alarm::Alarm,
    answer::{Answer, Kind},
    attempt::Sent,
    leaving::Leaving,
    raw_remembered::{Sends, Transaction},
    raw_sends::{Sender, Signals, Submission, UnderWay, is_target},
    run::CallRun,
    send_outcome::SendOutcome,
};
use crate::{
    config::SendTo,
    domain::{hex, method::Class, node_id::NodeId, rpc::Request, transaction},
    exchange::queue::Ticket,
    net::http::Gate,
    pool::resting::RestState,
};

/// How long other nodes are waited for when a node refuses the transaction's bytes: another
/// client's software may know a type of transaction that this one does not.
const OTHER_JUDGES: Duration = Duration::from_secs(1);
/// How long a call that waited in the queue, and was answered, keeps its turn for the nodes that
/// were not sent the transaction yet.
const ORDER: Duration = Duration::from_millis(50);
/// How often a call that no node was sent yet looks whether its client is still there.
const LOOK: Duration = Duration::from_millis(250);

/// The outcome of sending a transaction to several nodes.
pub(super) enum FanOut {
    /// There is one node to send the transaction to, or no room for copies.
    Alone,
    /// A node has the transaction; its answer.
    Taken(Answer),
    /// No node took the transaction, and this node refused with this answer.
    Refused(NodeId, Answer),
    /// No node took or judged the transaction.
    Failed,
}

/// The transaction of a call.
pub(super) struct CallTransaction {
    pub(super) transaction: Transaction,
    /// The states of the nodes that were sent the transaction, if several were.
    sends: Option<Arc<Sends>>,
}

impl CallTransaction {
    /// Reads the transaction that a call sends.
    pub(super) fn read(request: &Request<'_>) -> Option<Box<Self>> {
        let raw = hex::bytes(&request.text_param(0)?)?;
        let hash = transaction::hash(&raw)?;
        Some(Box::new(Self { transaction: Transaction { hash, raw: raw.into() }, sends: None }))
    }

    /// The node's answer in the place of one that says that the node has the transaction already.
    pub(super) fn known(&self) -> Answer {
        Answer::made(&format!("\"{}\"", self.transaction.hash))
    }
}

/// Shuts the gates of sends that are not written yet, unless their call was answered.
struct Shut(Option<Arc<Signals>>);

impl Drop for Shut {
    fn drop(&mut self) {
        self.0.iter().for_each(|signals| signals.shut());
    }
}

/// The judgements of nodes that did not take the transaction.
#[derive(Default)]
struct Judgements {
    /// The node that refused the very bytes first, or else the first in the order of sending.
    best: Option<(NodeId, Answer)>,
    place: usize,
    of_the_bytes: bool,
}

impl Judgements {
    /// `place` is the node's in the order of sending.
    fn add(&mut self, node: NodeId, place: usize, answer: Answer, of_the_bytes: bool) {
        let is_better = match &self.best {
            None => true,
            Some(_) if of_the_bytes != self.of_the_bytes => of_the_bytes,
            Some(_) => place < self.place,
        };
        if is_better {
            (self.best, self.place, self.of_the_bytes) = (Some((node, answer)), place, of_the_bytes);
        }
    }
}

impl<'a> CallRun<'a> {
    /// Sends the transaction to `first` and to the other nodes that `calls.send_to` names. `turn`
    /// is the call's place in the order of writing.
    pub(super) async fn fan_out(&mut self, first: NodeId, turn: &mut Option<Ticket<'a>>, alarm: &mut Alarm) -> FanOut {
        let nodes = self.nodes_beside(first);
        if nodes.len() < 2 || !self.has_transaction() {
            return FanOut::Alone;
        }
        let Ok(Some(submission)) = Submission::of_call(self.request, self.terms) else { return FanOut::Alone };
        let Some(transaction) = &mut self.transaction else { return FanOut::Alone };
        let (deadline, waits) = (self.deadline, turn.is_some());
        let started =
            self.calls.start_sends(&nodes, &submission, deadline, waits, Sender::Call(&mut transaction.sends));
        let Some(mut under_way) = started else { return FanOut::Alone };
        nodes.iter().for_each(|node| self.note(*node));
        let mut shut = Shut(Some(under_way.signals.clone()));
        let spread = self.hear(&nodes, &mut under_way, turn, alarm).await;
        if matches!(spread, FanOut::Taken(_)) {
            // The other sends go on.
            under_way.open();
            shut.0 = None;
            if turn.is_some() {
                // At the other nodes too, no later call is to be written before this one.
                let _ = timeout(ORDER, under_way.signals.written()).await;
            }
        }
        under_way.words.leave();
        spread
    }

    /// Waits for the words of the nodes until one has the transaction, or none is waited for.
    async fn hear(
        &mut self,
        nodes: &[NodeId],
        under_way: &mut UnderWay,
        turn: &mut Option<Ticket<'a>>,
        alarm: &mut Alarm,
    ) -> FanOut {
        let (attempts, lost) = (self.tries.attempts, self.lost);
        let time_limit = Instant::now() + self.patience.attempt_timeout;
        let leaving = Leaving::new(self.terms, self.method);
        let signals = under_way.signals.clone();
        let (mut judgements, mut until) = (Judgements::default(), self.deadline);
        let (mut left, mut is_open) = (nodes.to_vec(), turn.is_none());
        while !left.is_empty() {
            if leaving.is_unwanted() {
                signals.shut();
            }
            let look = if signals.was_written() { until } else { until.min(Instant::now() + LOOK) };
            // All arms are cancel-safe.
            let (node, mut sent) = tokio::select! {
                biased;
                outcome = under_way.words.outcome() => match outcome {
                    Some(outcome) => outcome,
                    None => break,
                },
                () = signals.written(), if turn.is_some() => {
                    turn.written();
                    continue;
                }
                () = poll_fn(|context| turn.poll_open(context)), if !is_open => {
                    is_open = true;
                    under_way.open();
                    continue;
                }
                () = alarm.at(look) => {
                    if Instant::now() >= until {
                        break;
                    }
                    continue;
                }
            };
            left.retain(|other| *other != node);
            sent = sent.of(node);
            match SendOutcome::of(&mut sent) {
                SendOutcome::Took | SendOutcome::AlreadyKnown => return FanOut::Taken(self.taken_by(node, sent)),
                SendOutcome::Refused { for_good, .. } => {
                    let place = nodes.iter().position(|other| *other == node).unwrap_or(nodes.len());
                    match sent {
                        Sent::OfTheCaller(answer) | Sent::OfNobody(answer) => {
                            self.calls.pool.call_answered(node, self.tries.kind);
                            judgements.add(node, place, answer, for_good);
                            let now = Instant::now();
                            until = until.min(if for_good { now + OTHER_JUDGES } else { time_limit.max(now) });
                        }
                        sent => self.record_failed_attempt(node, sent),
                    }
                }
                // An answer for which there is no room is one that is not known.
                SendOutcome::Lost if matches!(sent, Sent::NoRoom(_) | Sent::TooLong) => {
                    self.record_failed_attempt(node, Sent::Lost(None))
                }
                SendOutcome::Busy { .. } | SendOutcome::Lost => self.record_failed_attempt(node, sent),
            }
        }
        for node in left {
            self.record_failed_attempt(node, Sent::Lost(None));
        }
        // All sends are one attempt of the call.
        self.tries.attempts = attempts + 1;
        self.lost = lost + u32::from(self.lost > lost);
        self.tries.tried.extend_from_slice(nodes);
        match judgements.best {
            Some((node, answer)) => {
                self.charge(node, false);
                FanOut::Refused(node, answer)
            }
            None => FanOut::Failed,
        }
    }

    /// The client's answer, since `node` has the transaction.
    fn taken_by(&mut self, node: NodeId, sent: Sent) -> Answer {
        self.calls.pool.call_answered(node, self.tries.kind);
        self.charge(node, true);
        let known = self.transaction.as_ref().map(|transaction| transaction.known());
        let mut answer = match (sent, known) {
            (Sent::Answered(answer), _) => answer,
            (
                Sent::OfTheCaller(answer)
                | Sent::OfNobody(answer)
                | Sent::OfTheNode(Some(answer), _)
                | Sent::Lacking(_, answer),
                None,
            ) => answer,
            (_, known) => known.unwrap_or_else(|| Answer::made("null")),
        };
        answer.node = Some(node);
        answer
    }

    /// The nodes that the transaction goes to at once: `first`, and those beside.
    fn nodes_beside(&self, first: NodeId) -> Vec<NodeId> {
        let (pool, to) = (&self.calls.pool, self.patience.send_to);
        // A call that waits in line at full nodes has its place at one of them.
        if to == SendTo::First || self.tries.is_in_line() || !pool.is_usable(first) {
            return vec![first];
        }
        let (tier, now) = (pool.snapshot().nodes[first].tier, Instant::now());
        let is_wanted = |node: &NodeId| {
            *node != first
                && !self.tries.tried.contains(node)
                && !self.shut.contains(node)
                && is_target(pool, *node, SendTo::All)
                && (to == SendTo::All || pool.snapshot().nodes[*node].tier == tier)
                && pool.nodes[*node].resting.state(self.tries.kind, false, now) == RestState::Free
                && pool.nodes[*node].credits_wait(&self.request.method, now).is_none()
        };
        [first].into_iter().chain(NodeId::all(pool.nodes.len()).filter(is_wanted)).collect()
    }

    /// Reads the call's transaction, if that was not done yet.
    pub(super) fn has_transaction(&mut self) -> bool {
        if self.transaction.is_none() {
            self.transaction = CallTransaction::read(self.request);
        }
        self.transaction.is_some()
    }

    /// Has the transaction remembered that a node took with `answer`. Where the caller picked
    /// nodes, the others are not sent the transaction later either.
    pub(super) fn remember(&mut self, answer: &Answer) {
        let is_taken = answer.kind == Kind::Result && !answer.is_null && self.request.id.is_some();
        if self.method.class != Class::RawTransaction || !is_taken || !self.shut.is_empty() || !self.has_transaction() {
            return;
        }
        let Some(CallTransaction { transaction, sends }) = self.transaction.take().map(|transaction| *transaction)
        else {
            return;
        };
        match self.calls.newest() {
            None => {
                let nodes = (answer.node, &*self.tries.tried);
                self.calls.remembered.keep(transaction, nodes, sends, self.terms.memory);
            }
            // A reload gave the nodes new places.
            Some(newest) => newest.remembered.keep(transaction, (None, &[]), None, self.terms.memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_refusal_of_the_bytes_comes_before_the_first_nodes_word() {
        let answer = || Answer::whole(Bytes::from_static(br#"{"id":0,"error":{}}"#), 6..7);
        let mut judgements = Judgements::default();
        for (node, place, of_the_bytes, best) in
            [(3, 2, false, 3), (1, 1, false, 1), (4, 3, false, 1), (5, 3, true, 5), (0, 0, false, 5), (6, 2, true, 6)]
        {
            judgements.add(NodeId(node), place, answer(), of_the_bytes);
            assert_eq!(judgements.best.as_ref().map(|best| best.0), Some(NodeId(best)));
        }
    }
}
