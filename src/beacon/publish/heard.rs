//! The words of nodes on a signed message, and the answer for the client that follows from them.

use std::{collections::BTreeSet, sync::Arc};

use super::super::{
    RequestRun, Stop,
    answer::{Answer, SOME},
};
use crate::{
    domain::{
        node_id::NodeId,
        publication::{Complaint, Complaints, Problem, PublishVerdict},
        refusal::Refusal,
    },
    pool::Pool,
};

/// The messages that a node may have passed on without saying so.
#[derive(Default)]
struct Perhaps {
    /// All of the messages, or the single one.
    all: bool,
    /// These of a list, by place.
    places: BTreeSet<u64>,
}

impl Perhaps {
    /// A node was given all messages, or this `part` of a list, and may have passed them on.
    fn add(&mut self, part: Option<&[u64]>) {
        match part {
            Some(part) => self.places.extend(part),
            None => self.all = true,
        }
    }

    /// Whether a node may have passed on the message at this place.
    fn has(&self, at: u64) -> bool {
        self.all || self.places.contains(&at)
    }

    /// Whether a node may have passed on all messages, or each of this `part` of a list.
    fn has_all(&self, part: Option<&[u64]>) -> bool {
        self.all || part.is_some_and(|part| part.iter().all(|at| self.has(*at)))
    }
}

/// The words of the nodes so far.
#[derive(Default)]
pub(super) struct Heard {
    /// Nodes that may have the message although they will not answer any more.
    pub(super) lost: usize,
    /// The messages of nodes that were lost or failed in the middle.
    perhaps: Perhaps,
    /// The messages of a list that no node has taken so far, by place, with the nodes' complaints.
    open: Option<Complaints>,
    /// The first answer in which a node says that it does not know a block, or could not look at a
    /// message, and that node; or an answer that another node can better give.
    of_a_node: Option<(Answer, NodeId)>,
    /// A node's judgement of the message itself, which counts if no node that has the message takes
    /// it.
    word: Option<Answer>,
    /// The judgement is in words that are not known, and another node may still judge otherwise.
    is_doubtful: bool,
    /// The judgement is that the node knows a message of this validator: this very message, if
    /// another node has these bytes.
    is_repeated: bool,
}

/// The words after which another node may take a message: those that blame a node, and those that
/// are not known. The first count most.
const OPEN: [PublishVerdict; 3] = [PublishVerdict::Unknown, PublishVerdict::Failed, PublishVerdict::Other];

/// The sum of the nodes' words on some messages of a list. A single word after which another node
/// may take its message is enough.
fn of_all(open: &Complaints) -> PublishVerdict {
    let is_said = |said: &PublishVerdict| open.values().any(|complaint| complaint.said() == *said);
    OPEN.into_iter().find(is_said).unwrap_or(PublishVerdict::Wrong)
}

impl Heard {
    /// The words that still count at the nodes of a reload, which have a number of attempts of
    /// their own.
    pub(super) fn go_on(self) -> Self {
        Self { lost: self.lost.min(1), perhaps: self.perhaps, open: self.open, ..Self::default() }
    }

    /// A node that was given all messages, or a `part` of the list, was lost or has failed, and may
    /// have passed them on.
    pub(super) fn may_be_given(&mut self, part: Option<&[u64]>) {
        self.perhaps.add(part);
    }

    /// Whether a node has judged the message itself.
    pub(super) fn has_word(&self) -> bool {
        self.word.is_some()
    }

    /// Whether another node may have the message: no node has judged the message, or in words that
    /// are not known.
    pub(super) fn is_open(&self) -> bool {
        self.word.is_none() || self.is_doubtful
    }

    /// Whether a node does not know a block that the message refers to, or could not look at the
    /// message.
    pub(super) fn speaks_of_a_node(&self) -> bool {
        self.of_a_node.is_some()
    }

    pub(super) fn is_of_a_node(&mut self, answer: Answer, node: NodeId) {
        self.of_a_node.get_or_insert((answer, node));
    }

    /// Whether no node could look at some message of a list.
    pub(super) fn has_failed(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.values().any(|complaint| complaint.said() == PublishVerdict::Failed))
    }

    /// Keeps a node's judgement of the message. The first one counts; of a list the last one,
    /// because other nodes may have taken more of the list. `is_doubtful`: another node is asked.
    pub(super) fn says(&mut self, answer: Answer, said: PublishVerdict, is_doubtful: bool) {
        if self.word.is_none() || self.open.is_some() {
            self.word = Some(answer);
            self.is_repeated = said == PublishVerdict::Repeated;
        }
        self.is_doubtful = is_doubtful;
    }

    /// The meaning of a node's refusal of all messages that the node was given: of a list, other
    /// messages may be left to another node.
    fn refused(&self, said: PublishVerdict) -> PublishVerdict {
        match self.open.as_ref().map(of_all) {
            None | Some(PublishVerdict::Other | PublishVerdict::Wrong) => said,
            Some(others) => others,
        }
    }

    /// The success that a node's judgement amounts to, if other nodes may have these bytes.
    pub(super) fn repeated(&self) -> Option<Answer> {
        let is_repeated = match &self.open {
            Some(open) => open.iter().all(|(at, complaint)| complaint.said().is_known(self.perhaps.has(*at))),
            None => self.is_repeated && self.perhaps.all,
        };
        self.word.as_ref().filter(|_| is_repeated).map(Answer::as_success)
    }

    /// The places of the messages of a list that another node may take: those whose blocks a node
    /// did not know, those that a node could not look at, and those that were refused in words that
    /// are not known. `None` where no node has judged the messages one by one.
    pub(super) fn lacking(&self) -> Option<Vec<u64>> {
        let open = self.open.as_ref()?;
        Some(open.iter().filter(|(_, complaint)| OPEN.contains(&complaint.said())).map(|(at, _)| *at).collect())
    }

    /// A node has taken all messages, or those at these places of the list. The outcome is success,
    /// or an error of the others.
    pub(super) fn took(&mut self, answer: Answer, part: Option<&[u64]>) -> (Answer, PublishVerdict) {
        let (Some(open), Some(part)) = (&mut self.open, part) else { return (answer, PublishVerdict::Known) };
        open.retain(|at, _| !part.contains(at));
        if open.is_empty() {
            return (answer, PublishVerdict::Known);
        }
        (answer.as_error(400, open), of_all(open))
    }

    /// The meaning of a node's words: [`PublishVerdict::Known`] where the network has all messages
    /// that the node was given, which is the whole list or a `part` of the list. Otherwise the
    /// returned answer names only the messages of the list that the network lacks. A repeated
    /// message is known if a node that was lost or failed may have passed these bytes on.
    /// `is_judged`: the words are not those of a node that failed.
    pub(super) fn read(
        &mut self,
        (problem, is_judged): (Option<Problem>, bool),
        answer: Answer,
        source: (&Arc<Pool>, NodeId),
        part: Option<&[u64]>,
    ) -> (Answer, PublishVerdict) {
        let Some(problem) = problem else {
            let said = if is_judged { self.refused(PublishVerdict::Other) } else { PublishVerdict::Other };
            return (answer, said);
        };
        let perhaps = &self.perhaps;
        let status = answer.status;
        if problem.failures.is_empty() {
            return match problem.message.said() {
                said if said.is_known(perhaps.has_all(part)) => {
                    (Answer::own(200, Vec::new(), source), PublishVerdict::Known)
                }
                said => {
                    // The answer may speak of a part only.
                    let answer = match (&self.open, part) {
                        (Some(open), Some(_)) => answer.as_error(status, open),
                        _ => answer,
                    };
                    let is_refusal = is_judged
                        && matches!(said, PublishVerdict::Other | PublishVerdict::Wrong | PublishVerdict::Slashable);
                    (answer, if is_refusal { self.refused(said) } else { said })
                }
            };
        }
        let place = |at: u64| match part {
            Some(part) => usize::try_from(at).ok().and_then(|at| part.get(at).copied()),
            None => Some(at),
        };
        if let (Some(open), true) = (&self.open, problem.failures.keys().any(|at| place(*at).is_none())) {
            // The answer names messages that the node was not given: no message counts as taken for
            // certain.
            return (answer.as_error(status, open), of_all(open));
        }
        let failures = problem.failures.iter().filter_map(|(at, complaint)| Some((place(*at)?, complaint)));
        let failures = failures.filter(|(at, complaint)| !complaint.said().is_known(perhaps.has(*at)));
        let mut left: Complaints = failures.map(|(at, complaint)| (at, complaint.clone())).collect();
        if let Some(before) = &self.open {
            // Other nodes have taken the rest, or refused messages that this node was not given.
            left.retain(|at, _| before.contains_key(at));
            let others = before.iter().filter(|(at, _)| part.is_some_and(|part| !part.contains(at)));
            left.extend(others.map(|(at, complaint)| (*at, complaint.clone())));
        }
        self.open = Some(left.clone());
        if left.is_empty() {
            return (Answer::own(200, Vec::new(), source), PublishVerdict::Known);
        }
        let said = of_all(&left);
        if part.is_none() && left == problem.failures {
            return (answer, said);
        }
        (Answer::own(status, Problem { failures: left, ..problem }.write(status), source), said)
    }

    /// The answer when no node has taken the message. `silent`: the messages of nodes that were
    /// waited for in vain, for each node.
    pub(super) fn end<'p>(
        mut self,
        run: &mut RequestRun<'_>,
        silent: impl Iterator<Item = Option<&'p [u64]>>,
    ) -> Result<Answer, Stop> {
        let source = |node: NodeId| (&run.requests.pool, node);
        silent.for_each(|part| self.perhaps.add(part));
        if let Some(word) = self.word {
            let Some(open) = self.open else {
                return Ok(if self.is_repeated && self.perhaps.all { word.as_success() } else { word });
            };
            let mut left = open.clone();
            left.retain(|at, complaint| !complaint.said().is_known(self.perhaps.has(*at)));
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
                    let message = Complaint::of(SOME);
                    Answer::own(status, Problem { message, failures: left }.write(status), source(node))
                }
                None => answer,
            });
        }
        if self.lost > 0 {
            return Err(Refusal::OutcomeUnknown.into());
        }
        Ok(run.give_up()?)
    }
}
