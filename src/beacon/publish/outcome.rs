//! The outcome of giving a signed message to one node, and the next step.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    super::{Course, Sent, answer::Answer},
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
            (answer, said) if !of_the_node => {
                self.heard.says(answer, said);
                Next::End
            }
            (answer, _) => {
                if matches!(answer.status, ..300 | 408 | 500..) {
                    self.fails(node);
                }
                course.keeps(answer);
                course.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
                Next::Another("refused")
            }
        }
    }
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

    /// A lost node may have passed the message on: if another node calls the message repeated, this
    /// very message is on the network.
    fn lost(&mut self) -> Next {
        self.heard.lost += 1;
        match self.heard.repeated() {
            Some(answer) => Next::Done(Box::new(answer)),
            None => Next::Another("lost"),
        }
    }
}
