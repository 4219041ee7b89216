//! Requests that every node must be told: subscriptions to subnets, fee recipients, registrations,
//! preferences.
//!
//! Rule: the request goes to all nodes that answer, whether or not they are usable just then. The
//! client has the first good answer of a usable node, or after a quarter of a slot the best answer
//! so far; all nodes are told to the end, and nodes that are away are told when they return
//! ([`told_messages`](super::told_messages)). Reason: any node may be the one to propose next.
//! Example: slots take 12 s, node A is usable and node B is syncing. Both are told; the client has
//! the answer of A. If A is silent and B has said yes, the client has the answer of B after 3 s.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Failure, Request, Requests, Sent, answer::Answer, attempt::attempt, publish::ANOTHER_NODE_AFTER,
    returning::is_told, told_messages::TellOutcome, upload::Whole,
};
use crate::{
    domain::{beacon_form::Form, node_id::NodeId, refusal::Refusal},
    pool::Pool,
};

/// How long the request to one node may take.
pub(super) const TELLING: Duration = Duration::from_secs(30);

/// The node's word on a request that all nodes are told.
pub(super) fn word(pool: &Pool, node: NodeId, sent: &Sent) -> TellOutcome {
    match sent {
        Sent::Answered(answer) if answer.status < 300 => TellOutcome::Taken { is_usable: pool.is_usable(node) },
        Sent::Answered(answer) if matches!(answer.status, 404 | 405 | 410) => TellOutcome::NotOffered,
        Sent::Answered(_) => TellOutcome::Refused { is_usable: pool.is_usable(node) },
        _ => TellOutcome::Failed,
    }
}

/// How long a refusal for quota asks to be left alone with such requests.
pub(super) fn asked_rest(sent: &Sent) -> Option<Duration> {
    if let Sent::Refused(_, wait) = sent { *wait } else { None }
}

impl Requests {
    /// The epoch of the chain's head; 0 while no node has reported the chain.
    fn present_epoch(&self) -> u64 {
        let snapshot = self.pool.snapshot();
        let slots =
            snapshot.chain.as_ref().and_then(|chain| chain.beacon.as_ref()).map_or(u64::MAX, |beacon| beacon.epoch());
        snapshot.head.unwrap_or(0) / slots.max(1)
    }

    /// Tells all nodes that answer. `None` where no node answers or gave an answer: the request
    /// then takes the usual way.
    pub(super) async fn broadcast(&self, request: &Request, body: &Whole) -> Result<Option<Answer>, Failure> {
        let (nodes, usable) = {
            let snapshot = self.pool.snapshot();
            let told = |node: &NodeId| is_told(&snapshot.nodes[*node]) && !self.pool.nodes[*node].is_out();
            let nodes: Vec<NodeId> = NodeId::all(self.pool.nodes.len()).filter(told).collect();
            let usable: Vec<NodeId> = nodes.iter().copied().filter(|node| self.pool.is_usable(*node)).collect();
            (nodes, usable)
        };
        let request = Arc::new(request.clone());
        let (answers, mut told) = mpsc::channel(nodes.len().max(1));
        {
            let limit = self.settings.max_held.get();
            let Some(places) = self.messages.admit(request.client, nodes.len()) else {
                return Err(Refusal::Limit { name: "max_held", limit }.into());
            };
            let mut background = self.background.tasks();
            let telling = self.told.keep(&request, body, &nodes, (self.pool.epoch(), self.present_epoch()));
            self.told.bell.notify_one();
            for (&node, place) in nodes.iter().zip(places) {
                let (pool, told) = (self.pool.clone(), self.told.clone());
                let (request, answers, telling) = (request.clone(), answers.clone(), telling.clone());
                let mut upload = body.upload();
                background.spawn(async move {
                    let sent = timeout(TELLING, attempt(&pool, node, &request, &mut upload, TELLING)).await;
                    let sent = sent.unwrap_or(Sent::Lost(None));
                    drop(place);
                    told.heard(&telling, node, word(&pool, node, &sent), pool.slot());
                    if let Some(wait) = asked_rest(&sent) {
                        told.rest(node, telling.kind(), wait);
                    }
                    // The client may have its answer already.
                    let _ = answers.send((node, sent)).await;
                });
            }
        }
        drop(answers);
        if nodes.is_empty() {
            return Ok(None);
        }
        let late = Instant::now() + self.pool.slot() / ANOTHER_NODE_AFTER;
        let mut left = usable.clone();
        // Of nodes that are not usable: a good answer, and another. Of usable nodes: an answer that
        // blames the request, and one that blames the node.
        let (mut good, mut poor, mut of_the_caller, mut of_a_node) = (None, None, None, None);
        // An error that does not come from a node, and a success in words that no node is known to
        // say.
        let (mut foreign, mut unclear) = (None, None);
        loop {
            let has_answer = good.is_some() || of_the_caller.is_some() || of_a_node.is_some() || foreign.is_some();
            // All arms are cancel-safe.
            let (node, sent) = tokio::select! {
                biased;
                outcome = told.recv() => match outcome {
                    Some(outcome) => outcome,
                    None => break,
                },
                () = sleep_until(late), if has_answer => break,
            };
            let counts = usable.contains(&node);
            left.retain(|other| *other != node);
            match sent {
                Sent::Answered(answer) if answer.status < 300 && counts => return Ok(Some(answer)),
                Sent::Answered(answer) if answer.status < 300 => good = good.or(Some(answer)),
                Sent::Answered(answer) if counts => of_the_caller = of_the_caller.or(Some(answer)),
                Sent::OfTheNode(answer, Form::Empty, _) => unclear = unclear.or(Some(answer)),
                // A page, or a way to elsewhere: the node was not told.
                Sent::OfTheNode(answer, ..) if answer.status < 400 => {}
                Sent::OfTheNode(answer, Form::Node, _) | Sent::Refused(answer, _) if counts => {
                    of_a_node = of_a_node.or(Some(answer));
                }
                Sent::OfTheNode(answer, ..) if counts => foreign = foreign.or(Some(answer)),
                Sent::Answered(answer) | Sent::OfTheNode(answer, ..) | Sent::Refused(answer, _) => {
                    poor = poor.or(Some(answer));
                }
                Sent::Nothing(_) | Sent::Lost(_) | Sent::Late(_) | Sent::Unsent(_) => {}
            }
            if left.is_empty() && good.is_some() {
                break;
            }
        }
        Ok(good.or(of_the_caller).or(of_a_node).or(foreign).or(poor).or(unclear))
    }
}
