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
    /// The places of the messages that the node was given of a list, unless it was given all of it.
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
    /// The outcome changes nothing.
    Wait,
}

impl<'a> Giving<'a> {
    /// Takes note of the outcome at one node.
    pub(super) fn take(&mut self, course: &mut Course<'a>, outcome: Outcome) -> Next {
        let Outcome { pool, node, part, sent, words } = outcome;
        let part = part.as_deref();
        if !Arc::ptr_eq(&pool, &course.rest.pool) {
            let name = &pool.nodes[node].name;
            if let Some(place) = self.left.iter().position(|left| left == name) {
                self.left.swap_remove(place);
            }
            // Of a node that a reload has taken away counts only that it took the message, or may
            // have.
            return match sent {
                Sent::Answered(answer) if answer.status < 300 => self.took(answer, part),
                Sent::Lost(_) | Sent::Late(_) => self.lost(),
                _ => Next::Wait,
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
        // A node that fails names what it has looked at, which tells nothing of the rest.
        let problem = problem.filter(|problem| !of_the_node || problem.failures.is_empty());
        match self.heard.read(problem, answer, (&course.rest.pool, node), part) {
            (known, Said::Known) => {
                course.taken(node, self);
                self.took(known, part)
            }
            (answer, Said::Unknown) => {
                let now = Instant::now();
                // However often it falls behind, that ends with the slot.
                if course.rest.pool.owes_head(node) && now < self.began + self.late * 4 {
                    self.behind.push((node, now + self.late));
                }
                self.heard.names_unknown(answer, node);
                Next::Another("unknown_block")
            }
            (answer, said) if !of_the_node => {
                self.heard.says(answer, said);
                Next::End
            }
            (answer, _) => {
                if answer.status >= 500 || answer.status == 408 {
                    self.busy.push(node);
                }
                course.best.get_or_insert(answer);
                course.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
                Next::Another("refused")
            }
        }
    }
}

impl Giving<'_> {
    /// A node has taken all that it was given.
    fn took(&mut self, answer: Answer, part: Option<&[u64]>) -> Next {
        match self.heard.took(answer, part) {
            (answer, Said::Known) => Next::Done(Box::new(answer)),
            (_, Said::Unknown) => Next::Another("unknown_block"),
            (answer, said) => {
                self.heard.says(answer, said);
                Next::End
            }
        }
    }

    /// A node was lost that may have passed it on: a message that another says is repeated is this
    /// one, then.
    fn lost(&mut self) -> Next {
        self.heard.lost += 1;
        match self.heard.repeated() {
            Some(answer) => Next::Done(Box::new(answer)),
            None => Next::Another("lost"),
        }
    }
}
