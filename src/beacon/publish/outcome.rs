//! The outcome of giving a signed message to one node, and the next step.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    super::{Course, Sent, answer::Answer, maker::is_blinded},
    Giving,
};
use crate::{
    domain::publication::{Problem, Said},
    pool::Pool,
};

/// The outcome of giving a message to one node of `pool`.
pub(super) struct Outcome {
    pub(super) pool: Arc<Pool>,
    pub(super) node: usize,
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
    /// No other node is asked.
    End,
}

impl<'a> Giving<'a> {
    /// Takes note of the outcome at one node.
    pub(super) fn take(&mut self, course: &mut Course<'a>, outcome: Outcome) -> Next {
        let Outcome { pool, node, part, sent, words } = outcome;
        let part = part.as_deref();
        if !Arc::ptr_eq(&pool, &course.rest.pool) {
            self.left.retain(|(of, at)| !(Arc::ptr_eq(of, &pool) && *at == node));
            // After a reload, an earlier node counts only if that node took the message, or may
            // have.
            return match sent {
                Sent::Answered(answer) if answer.status < 300 => self.took(answer, part),
                Sent::Lost(_) | Sent::Late(_) => self.lost(),
                Sent::OfTheNode(answer, _) if may_have_passed_on(&answer) => self.may_be_given("refused"),
                // The message may have waited for this node alone.
                _ => Next::Another("refused"),
            };
        }
        self.running.retain(|given| given.node != node);
        course.tries.tried.push(node);
        course.tries.failure = if let Sent::Nothing(Some(trouble)) = &sent { Some(trouble.fault) } else { None };
        let (answer, of_the_node, trouble) = match sent {
            Sent::Answered(answer) if answer.status < 300 => {
                course.taken(node, self);
                return self.took(answer, part);
            }
            Sent::Answered(answer) => (answer, false, None),
            Sent::OfTheNode(answer, trouble) => (answer, true, trouble),
            Sent::Refused(answer, _) => {
                course.refused.get_or_insert(answer);
                self.busy.push(node);
                return Next::Another("refused");
            }
            Sent::Nothing(_) | Sent::Unsent(_) => {
                self.busy.push(node);
                return Next::Another("unreachable");
            }
            Sent::Lost(trouble) => {
                course.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
                return self.lost();
            }
            Sent::Late(trouble) => {
                course.tries.charges.push((node, trouble));
                return self.lost();
            }
        };
        // Another node may give a reason that can be read, or have the payload of the block.
        let is_open = match answer.status {
            400 | 409 | 422 if words.is_none() => true,
            400 | 422 => {
                is_blinded(course.request)
                    && course.rest.maker.node(course.rest.pool.slot()).is_some_and(|maker| maker != node)
            }
            _ => false,
        };
        let problem = words.filter(|_| answer.speaks_of_messages()).and_then(|words| Problem::read(&words));
        // A node that fails names only the messages that it has looked at, which says nothing of
        // the rest.
        let problem = problem.filter(|problem| !of_the_node || problem.failures.is_empty());
        match self.heard.read(problem, answer, (&course.rest.pool, node), part) {
            (known, Said::Known) => {
                course.taken(node, self);
                self.took(known, part)
            }
            (answer, said @ (Said::Unknown | Said::Failed)) if said == Said::Unknown || !of_the_node => {
                let now = Instant::now();
                // A node is waited for to catch up any number of times, but only within a slot.
                if said == Said::Unknown && course.rest.pool.owes_head(node) && now < self.began + self.late * 4 {
                    self.behind.push((node, now + self.late));
                }
                if said == Said::Failed || self.heard.has_failed() {
                    self.fails(node);
                }
                self.heard.is_of_a_node(answer, node);
                Next::Another(reason(said))
            }
            (answer, Said::Other) if !of_the_node && is_open => {
                self.heard.is_of_a_node(answer, node);
                Next::Another("refused")
            }
            (answer, said) if !of_the_node => {
                self.heard.says(answer, said);
                Next::End
            }
            (answer, said) => {
                let may_be_given = said != Said::Repeated && may_have_passed_on(&answer);
                if matches!(answer.status, ..300 | 408 | 500..) {
                    self.fails(node);
                }
                course.keeps(answer);
                course.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
                if may_be_given { self.may_be_given("refused") } else { Next::Another("refused") }
            }
        }
    }
}

/// Whether a node's failure leaves open whether the node has passed the message on: a gateway gave
/// the node up, or the node failed in the middle.
fn may_have_passed_on(answer: &Answer) -> bool {
    matches!(answer.status, 200..=299 | 408 | 500 | 502 | 504)
}

/// Why another node is to have a message on which a node said `said`.
fn reason(said: Said) -> &'static str {
    if said == Said::Unknown { "unknown_block" } else { "refused" }
}

impl Giving<'_> {
    /// The node failed over the message, and may take the message a moment later.
    fn fails(&mut self, node: usize) {
        self.busy.push(node);
        self.is_failed = true;
    }

    /// A node has taken all messages that the node was given.
    fn took(&mut self, answer: Answer, part: Option<&[u64]>) -> Next {
        match self.heard.took(answer, part) {
            (answer, Said::Known) => Next::Done(Box::new(answer)),
            (_, said @ (Said::Unknown | Said::Failed)) => Next::Another(reason(said)),
            (answer, said) => {
                self.heard.says(answer, said);
                Next::End
            }
        }
    }

    fn lost(&mut self) -> Next {
        self.heard.lost += 1;
        self.may_be_given("lost")
    }

    /// A node may have passed the message on: if another node calls the message repeated, this very
    /// message is on the network.
    fn may_be_given(&mut self, why: &'static str) -> Next {
        self.heard.may_have = true;
        match self.heard.repeated() {
            Some(answer) => Next::Done(Box::new(answer)),
            None => Next::Another(why),
        }
    }
}
