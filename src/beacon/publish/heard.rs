//! The words of nodes on a signed message, and the answer for the client that follows from them.

use std::{collections::BTreeMap, sync::Arc};

use super::super::{Course, Stop, answer::Answer};
use crate::{
    domain::{
        publication::{Problem, Said},
        refusal::Refusal,
    },
    pool::Pool,
};

/// The words of the nodes so far.
#[derive(Default)]
pub(super) struct Heard {
    /// Nodes that may have the message although they will not answer any more.
    pub(super) lost: usize,
    /// A node may have passed the message on, although the node was lost or failed.
    pub(super) may_have: bool,
    /// The messages of a list that no node has taken so far, by place, with the nodes' complaints.
    open: Option<BTreeMap<u64, String>>,
    /// The first answer in which a node says that it does not know a block, or could not look at a
    /// message, and that node; or an answer that another node can better give.
    of_a_node: Option<(Answer, usize)>,
    /// A node's judgement of the message itself, which counts if no node that has the message takes
    /// it.
    word: Option<Answer>,
    /// The judgement is that the node knows a message of this validator: this very message, if
    /// another node has these bytes.
    is_repeated: bool,
}

/// The sum of the nodes' words on some messages of a list. A single word that blames a node is
/// enough:
/// another node may do better.
fn of_all(open: &BTreeMap<u64, String>) -> Said {
    let is_said = |said: &Said| open.values().any(|text| Said::of(text) == *said);
    [Said::Unknown, Said::Failed].into_iter().find(is_said).unwrap_or(Said::Other)
}

impl Heard {
    /// The words that still count at the nodes of a reload, which have a number of attempts of
    /// their own.
    pub(super) fn go_on(self) -> Self {
        Self { lost: self.lost.min(1), may_have: self.may_have, open: self.open, ..Self::default() }
    }

    /// Whether a node has judged the message itself.
    pub(super) fn has_word(&self) -> bool {
        self.word.is_some()
    }

    /// Whether a node does not know a block that the message refers to, or could not look at the
    /// message.
    pub(super) fn speaks_of_a_node(&self) -> bool {
        self.of_a_node.is_some()
    }

    pub(super) fn is_of_a_node(&mut self, answer: Answer, node: usize) {
        self.of_a_node.get_or_insert((answer, node));
    }

    /// Whether no node could look at some message of a list.
    pub(super) fn has_failed(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.values().any(|text| Said::of(text) == Said::Failed))
    }

    /// Keeps a node's judgement of the message. The first one counts; of a list the last one,
    /// because other nodes may have taken more of the list.
    pub(super) fn says(&mut self, answer: Answer, said: Said) {
        if self.word.is_none() || self.open.is_some() {
            self.word = Some(answer);
            self.is_repeated = said == Said::Repeated;
        }
    }

    /// The success that a node's judgement amounts to, if another node may have these bytes.
    pub(super) fn repeated(&self) -> Option<Answer> {
        let is_repeated = match &self.open {
            Some(open) => open.values().all(|text| Said::of(text).is_known(true)),
            None => self.is_repeated,
        };
        self.word.as_ref().filter(|_| is_repeated).map(Answer::as_success)
    }

    /// The places of the messages of a list that another node may take: those whose blocks a node
    /// did not know, and those that a node could not look at. `None` where no node has judged the
    /// messages one by one.
    pub(super) fn lacking(&self) -> Option<Vec<u64>> {
        let lacks = |text: &str| Said::of(text).is_of_the_node();
        let open = self.open.as_ref()?;
        Some(open.iter().filter(|(_, text)| lacks(text)).map(|(at, _)| *at).collect())
    }

    /// A node has taken all messages, or those at these places of the list. The outcome is success,
    /// or an error of the others.
    pub(super) fn took(&mut self, answer: Answer, part: Option<&[u64]>) -> (Answer, Said) {
        let (Some(open), Some(part)) = (&mut self.open, part) else { return (answer, Said::Known) };
        open.retain(|at, _| !part.contains(at));
        if open.is_empty() {
            return (answer, Said::Known);
        }
        (answer.as_error(400, open), of_all(open))
    }

    /// The meaning of a node's words: [`Said::Known`] where the network has all messages that the
    /// node was given, which is the whole list or a `part` of the list. Otherwise the returned
    /// answer names only the messages of the list that the network lacks. A repeated message is
    /// known if a node that was lost or failed may have passed these bytes on.
    pub(super) fn read(
        &mut self,
        problem: Option<Problem>,
        answer: Answer,
        source: (&Arc<Pool>, usize),
        part: Option<&[u64]>,
    ) -> (Answer, Said) {
        let was_given = self.may_have;
        let Some(problem) = problem else { return (answer, Said::Other) };
        let status = answer.status;
        if problem.failures.is_empty() {
            return match Said::of(&problem.message) {
                said if said.is_known(was_given) => (Answer::own(200, Vec::new(), source), Said::Known),
                said => match (&self.open, part) {
                    // The answer speaks of the part only.
                    (Some(open), Some(_)) => (answer.as_error(status, open), said),
                    _ => (answer, said),
                },
            };
        }
        let is_new = |text: &str| !Said::of(text).is_known(was_given);
        let place = |at: u64| match part {
            Some(part) => usize::try_from(at).ok().and_then(|at| part.get(at).copied()),
            None => Some(at),
        };
        if let (Some(open), true) = (&self.open, problem.failures.keys().any(|at| place(*at).is_none())) {
            // The answer names messages that the node was not given: no message counts as taken for
            // certain.
            return (answer.as_error(status, open), Said::Other);
        }
        let failures = problem.failures.iter().filter(|(_, text)| is_new(text));
        let mut left: BTreeMap<u64, String> =
            failures.filter_map(|(at, text)| Some((place(*at)?, text.clone()))).collect();
        if let Some(before) = &self.open {
            // Other nodes have taken the rest, or refused messages that this node was not given.
            left.retain(|at, _| before.contains_key(at));
            let others = before.iter().filter(|(at, _)| part.is_some_and(|part| !part.contains(at)));
            left.extend(others.map(|(at, text)| (*at, text.clone())));
        }
        self.open = Some(left.clone());
        if left.is_empty() {
            return (Answer::own(200, Vec::new(), source), Said::Known);
        }
        let said = of_all(&left);
        if part.is_none() && left == problem.failures {
            return (answer, said);
        }
        (Answer::own(status, Problem { failures: left, ..problem }.write(status), source), said)
    }

    /// The answer when no node has taken the message. `is_under_way`: nodes that have the message
    /// were waited for in vain.
    pub(super) fn end(mut self, course: &mut Course<'_>, is_under_way: bool) -> Result<Answer, Stop> {
        let source = |node: usize| (&course.rest.pool, node);
        let may_be_given = self.may_have || is_under_way;
        if let Some(word) = self.word {
            if may_be_given && self.is_repeated && self.open.is_none() {
                return Ok(word.as_success());
            }
            let Some(open) = self.open.filter(|_| may_be_given) else { return Ok(word) };
            let mut left = open.clone();
            left.retain(|_, text| !Said::of(text).is_known(true));
            return Ok(match () {
                () if left.is_empty() => word.as_success(),
                () if left == open => word,
                () => word.as_error(word.status, &left),
            });
        }
        if let (Some((answer, node)), 0) = (self.of_a_node.take(), self.lost) {
            // Other nodes may have taken some of a list after this answer.
            let status = answer.status;
            return Ok(match self.open {
                Some(left) => {
                    let message = "some messages were not taken by any node".to_owned();
                    Answer::own(status, Problem { message, failures: left }.write(status), source(node))
                }
                None => answer,
            });
        }
        if self.lost > 0 {
            return Err(Refusal::OutcomeUnknown.into());
        }
        Ok(course.give_up()?)
    }
}
