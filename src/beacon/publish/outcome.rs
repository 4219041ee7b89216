//! The outcome of giving a signed message to one node, and the next step.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    super::{Request, RequestRun, Sent, answer::Answer, maker::is_judged_by_the_maker},
    Giving,
};
use crate::{
    domain::{
        beacon_form::Form,
        node_id::NodeId,
        publication::{Problem, PublishVerdict},
    },
    pool::{Pool, health::Fault},
};

/// The outcome of giving a message to one node of `pool`.
pub(super) struct Outcome {
    pub(super) pool: Arc<Pool>,
    pub(super) node: NodeId,
    /// The places of the messages that the node was given of a list, unless the node was given all.
    pub(super) part: Option<Arc<[u64]>>,
    pub(super) sent: Sent,
    /// The words of an answer that is no success.
    pub(super) words: Option<Bytes>,
}

/// The next step after a node is done with a message.
pub(super) enum Next {
    /// The client has this answer.
    Done(Box<Answer>),
    /// Another node is asked, for this reason.
    Another(&'static str),
    /// A node refused the message in words that are not known: each other usable node is asked.
    Confirm,
    /// No other node is asked.
    End,
}

impl<'a> Giving<'a> {
    /// Takes note of the outcome at one node.
    pub(super) fn take(&mut self, run: &mut RequestRun<'a>, outcome: Outcome) -> Next {
        let Outcome { pool, node, part, sent, words } = outcome;
        let part = part.as_deref();
        if !Arc::ptr_eq(&pool, &run.requests.pool) {
            self.left.retain(|left| !(Arc::ptr_eq(&left.pool, &pool) && left.node == node));
            // The same node may be among the present ones, and have waited for this outcome.
            let place = run.requests.pool.place_of(&pool.nodes[node]);
            // After a reload, an earlier node counts only if that node took the message, or may
            // have.
            return match sent {
                Sent::Answered(answer) if answer.status < 300 => self.took(answer, part),
                Sent::Lost(_) | Sent::Late(_) => self.lost(run, place, part),
                sent => {
                    let is_judged = matches!(sent, Sent::Answered(_));
                    self.busy.extend(place.filter(|_| !is_judged));
                    match sent {
                        Sent::OfTheNode(answer, form, _) if form.may_have_passed_on(answer.status) => {
                            self.may_be_given("refused", part)
                        }
                        // The message may have waited for this node alone.
                        _ => Next::Another("refused"),
                    }
                }
            };
        }
        let given_at = self.running.iter().find(|given| given.node == node).map_or(self.began, |given| given.since);
        self.running.retain(|given| given.node != node);
        run.tries.tried.push(node);
        run.tries.failure = if let Sent::Nothing(Some(trouble)) = &sent { Some(trouble.fault) } else { None };
        let (answer, form, of_the_node, trouble) = match sent {
            Sent::Answered(answer) if answer.status < 300 => {
                run.taken(node, self);
                return self.took(answer, part);
            }
            Sent::Answered(answer) => (answer, Form::Node, false, None),
            Sent::OfTheNode(answer, form, trouble) => (answer, form, true, trouble),
            Sent::Refused(answer, _) => {
                run.refused.get_or_insert(answer);
                self.busy.push(node);
                return Next::Another("refused");
            }
            Sent::Nothing(_) | Sent::Unsent(_) => {
                if run.tries.failure == Some(Fault::Full) {
                    run.tries.waits_since(given_at);
                }
                self.busy.push(node);
                return Next::Another("unreachable");
            }
            Sent::Lost(trouble) => {
                run.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
                return self.lost(run, Some(node), part);
            }
            Sent::Late(trouble) => {
                run.tries.charges.push((node, trouble));
                // No node has the message again that long after.
                self.was_late = true;
                return self.lost(run, None, part);
            }
        };
        // Another node may give a reason that can be read, or have the payload of the block.
        let is_open = match answer.status {
            400 | 409 | 422 if words.is_none() => true,
            400 | 422 if is_judged_by_the_maker(run.request) => {
                self.judges.push(node);
                let makers = run.requests.makers.nodes(run.requests.pool.slot());
                match makers.is_empty() {
                    true => !asks_for_equivocations(run.request),
                    false => makers.iter().any(|maker| !self.judges.contains(maker)),
                }
            }
            _ => false,
        };
        let problem = words.filter(|_| answer.speaks_of_messages()).and_then(|words| Problem::read(&words));
        // A node that fails names only the messages that it has looked at, which says nothing of
        // the rest.
        let problem = problem.filter(|problem| !of_the_node || problem.failures.is_empty());
        if answer.was_sent_before() {
            // The first sending may have reached the node.
            self.heard.may_be_given(part);
        }
        match self.heard.read((problem, !of_the_node), answer, (&run.requests.pool, node), part) {
            (known, PublishVerdict::Known) => {
                run.taken(node, self);
                self.took(known, part)
            }
            (answer, PublishVerdict::Slashable) => self.says(answer, PublishVerdict::Slashable, false),
            (answer, said @ (PublishVerdict::Unknown | PublishVerdict::Failed))
                if said == PublishVerdict::Unknown || !of_the_node =>
            {
                let now = Instant::now();
                // A node is waited for to catch up any number of times, but only within a slot.
                if said == PublishVerdict::Unknown
                    && run.requests.pool.owes_head(node)
                    && now < self.began + self.late * 4
                {
                    self.behind.push((node, now + self.late));
                }
                if said == PublishVerdict::Failed || self.heard.has_failed() {
                    self.fails(node);
                }
                self.heard.is_of_a_node(answer, node);
                Next::Another(reason(said))
            }
            (answer, PublishVerdict::Other | PublishVerdict::Wrong | PublishVerdict::Repeated)
                if !of_the_node && is_open =>
            {
                self.heard.is_of_a_node(answer, node);
                Next::Another("refused")
            }
            (answer, said) if !of_the_node => {
                let can_be_doubted = matches!(answer.status, 400 | 422) && !asks_for_equivocations(run.request);
                self.says(answer, said, can_be_doubted)
            }
            (answer, said) => {
                let may_be_given = said != PublishVerdict::Repeated && form.may_have_passed_on(answer.status);
                // Words that no node is known to say do not change.
                if form != Form::Empty && form.is_passing(answer.status) {
                    self.fails(node);
                }
                run.keeps(answer, form);
                run.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
                if may_be_given { self.may_be_given("refused", part) } else { Next::Another("refused") }
            }
        }
    }
}

/// Whether the client wants its block refused if the proposer has made another one. A refusal for
/// that in words that are not known must not be got round.
fn asks_for_equivocations(request: &Request) -> bool {
    let query = request.target.query().unwrap_or_default();
    query.contains("broadcast_validation=consensus_and_equivocation")
}

/// Why another node is to have a message on which a node said `said`.
fn reason(said: PublishVerdict) -> &'static str {
    if said == PublishVerdict::Unknown { "unknown_block" } else { "refused" }
}

impl Giving<'_> {
    /// The node failed over the message, and may take the message a moment later.
    fn fails(&mut self, node: NodeId) {
        self.busy.push(node);
        self.is_failed = true;
    }

    /// A node has taken all messages that the node was given.
    fn took(&mut self, answer: Answer, part: Option<&[u64]>) -> Next {
        match self.heard.took(answer, part) {
            (answer, PublishVerdict::Known) => Next::Done(Box::new(answer)),
            (_, said @ (PublishVerdict::Unknown | PublishVerdict::Failed)) => Next::Another(reason(said)),
            (answer, said) => self.says(answer, said, true),
        }
    }

    /// A node has judged the message, or what is left of a list.
    fn says(&mut self, answer: Answer, said: PublishVerdict, can_be_doubted: bool) -> Next {
        let is_doubtful = can_be_doubted && said == PublishVerdict::Other;
        self.heard.says(answer, said, is_doubtful);
        if is_doubtful { Next::Confirm } else { Next::End }
    }

    /// A node was lost that had the messages, or a `part` of the list. `again`: that node may have
    /// the message again.
    fn lost(&mut self, run: &RequestRun<'_>, again: Option<NodeId>, part: Option<&[u64]>) -> Next {
        self.heard.lost += 1;
        if self.heard.lost < run.most_lost() {
            self.lost_nodes.extend(again);
        } else {
            self.lost_nodes.clear();
        }
        self.may_be_given("lost", part)
    }

    /// A node may have passed the messages on, or a `part` of the list: if another node calls a
    /// message repeated, this very message is on the network.
    fn may_be_given(&mut self, why: &'static str, part: Option<&[u64]>) -> Next {
        self.heard.may_be_given(part);
        match self.heard.repeated() {
            Some(answer) => Next::Done(Box::new(answer)),
            None => Next::Another(why),
        }
    }
}
