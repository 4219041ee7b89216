//! What is signed is given to nodes until one has taken it. The same bytes say the same whoever passes them on, so they go to a
//! second node as soon as the first may not have them, or takes its time, and go on at the first meanwhile; also when the client has
//! its answer, or has left.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::header;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{Course, Failure, Request, Rest, Sent, Stop, answer::Answer, attempt::attempt, upload::Whole};
use crate::{
    call::{choice::Choice, hold::First},
    config::PublishTo,
    domain::{
        publication::{Problem, Said},
        refusal::Refusal,
    },
    pool::{Pool, Scout},
};

/// How long one node may work on it. By then the slot that it is for has gone by, unless it is for no slot.
const TAKING: Duration = Duration::from_secs(60);

/// What came of giving it to one node.
struct Outcome {
    node: usize,
    sent: Sent,
    /// The words of an answer that is no success.
    words: Option<Bytes>,
}

/// How far it has come.
struct Giving<'a> {
    request: Arc<Request>,
    outcomes: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    /// The nodes that have it now, and have not answered.
    running: Vec<(usize, Option<Scout<'a>>)>,
    /// Nodes that may have it although they will not answer any more.
    lost: usize,
    /// What no node has taken of a list so far, by its places.
    open: Option<BTreeMap<u64, String>>,
    /// Nodes that do not know the block which it names, and have not reached the head that clients were told: they will.
    behind: Vec<usize>,
    /// The first node's answer that names a block which it does not know, and whose it is.
    unknown: Option<(Answer, usize)>,
    /// A node's word on the message itself, which counts if none of those that have it takes it.
    word: Option<Answer>,
    /// Whether it goes to all.
    everybody: bool,
}

/// What is to be done next.
enum Next {
    /// The client has this answer.
    Done(Box<Answer>),
    /// Another node is asked, for this reason.
    Another(&'static str),
    /// No other node is asked.
    End,
}

impl Rest {
    /// Gives what the client has signed to the network, in a task that goes on when the client leaves: clients wait no longer than
    /// it takes to know that a node hangs.
    pub(super) async fn publish(
        self: &Arc<Self>,
        request: &Request,
        body: Whole,
        held_since: Instant,
        first: First,
    ) -> Result<Answer, Stop> {
        let (told, answer) = oneshot::channel();
        {
            let mut background = self.background();
            let limit = self.settings.max_held.get();
            if background.len() >= limit {
                return Err(Refusal::Limit { name: "max_held", limit }.into());
            }
            let (rest, mut request) = (self.clone(), request.clone());
            // What a node says has to be understood.
            request.headers.remove(header::ACCEPT_ENCODING);
            background.spawn(async move {
                let outcome = Course::new(&rest, &request, Some(held_since), first).publish(&body).await;
                // The client may have left.
                let _ = told.send(outcome);
            });
        }
        // It is ended early only with the network itself.
        answer.await.unwrap_or_else(|_| Err(Failure::Refused(Refusal::OutcomeUnknown).into()))
    }

    /// What goes on without a client, but for what has ended.
    pub(super) fn background(&self) -> MutexGuard<'_, JoinSet<()>> {
        let mut background = self.background.lock().unwrap_or_else(PoisonError::into_inner);
        while background.try_join_next().is_some() {}
        background
    }
}

impl<'a> Course<'a> {
    /// Gives what the client has signed to the network.
    async fn publish(&mut self, body: &Whole) -> Result<Answer, Stop> {
        let pool = &self.rest.pool;
        // How long one node may take before a second has it too.
        let late = pool.slot() / 4;
        let mut changes = pool.subscribe();
        let mut giving = Giving::new(self.request, pool.nodes.len(), self.rest.publish_to == PublishTo::All);
        let most_lost = pool.nodes.len().max(self.rest.settings.attempts.get() as usize);
        let mut wanted = Some("");
        let began = Instant::now();
        let mut late_at = began + late;
        loop {
            for (node, _) in &giving.running {
                if !self.tried.contains(node) {
                    self.tried.push(*node);
                }
            }
            if wanted.is_some() && (giving.is_under_way() || giving.unknown.is_some()) {
                // Only whoever has nothing to wait for waits for a node.
                match self.rest.choose(self.request, &self.tried, self.again) {
                    Choice::Node(node, scout) => self.give(&mut giving, body, (node, scout), &mut wanted)?,
                    Choice::Rest(_) | Choice::Nowhere => wanted = None,
                }
                late_at = Instant::now() + late;
                continue;
            }
            if giving.lost >= most_lost {
                // It may be the message that does that to nodes.
                wanted = None;
            }
            if wanted.is_none() && !giving.is_under_way() {
                let Some(node) = self.rest.catches_up(&mut giving.behind, began + late).await else {
                    return giving.end(self);
                };
                self.give(&mut giving, body, (node, None), &mut Some("unknown_block"))?;
                late_at = Instant::now() + late;
                continue;
            }
            // All arms are cancel-safe: whoever leaves the queue gives up its place only.
            let outcome = tokio::select! {
                biased;
                Some(outcome) = giving.outcomes.1.recv(), if giving.is_under_way() => outcome,
                next = self.next_node(body.weight()), if wanted.is_some() => {
                    match next? {
                        Some((node, turn, scout)) => {
                            self.give(&mut giving, body, (node, scout), &mut wanted)?;
                            drop(turn);
                        }
                        None => wanted = None,
                    }
                    late_at = Instant::now() + late;
                    continue;
                }
                () = sleep_until(late_at), if giving.is_under_way() => {
                    if giving.word.is_some() {
                        return giving.end(self);
                    }
                    wanted = Some("late");
                    continue;
                }
                Ok(()) = changes.changed(), if giving.is_under_way() && giving.word.is_none() => {
                    // Whoever is out may answer yet, but is not waited for.
                    if giving.running.iter().all(|(node, _)| pool.nodes[*node].is_out()) {
                        wanted = Some("out");
                    }
                    continue;
                }
            };
            match giving.take(self, outcome) {
                Next::Done(answer) => return Ok(*answer),
                Next::Another(why) if giving.word.is_none() => wanted = wanted.or(Some(why)),
                Next::Another(_) => {}
                Next::End => {
                    (wanted, late_at) = (None, Instant::now() + late);
                }
            }
        }
    }

    /// Gives it to this node, and at the first time to all others that are usable if they are to have it too.
    fn give(
        &mut self,
        giving: &mut Giving<'a>,
        body: &Whole,
        (node, scout): (usize, Option<Scout<'a>>),
        wanted: &mut Option<&'static str>,
    ) -> Result<(), Stop> {
        let rest = self.rest;
        if let Some(why) = wanted.take().filter(|why| !why.is_empty()) {
            rest.counts.given_again(&rest.pool.network, why);
        }
        let mut nodes = vec![(node, scout)];
        if giving.everybody && !giving.is_under_way() && giving.lost == 0 {
            let others = (0..rest.pool.nodes.len()).filter(|other| *other != node && rest.pool.is_usable(*other));
            nodes.extend(others.filter(|other| !self.tried.contains(other)).map(|other| (other, None)));
        }
        let mut background = rest.background();
        let limit = rest.settings.max_held.get();
        for (node, scout) in nodes {
            // What was let in is given to one node at least.
            if background.len() >= limit && giving.is_under_way() {
                return Ok(());
            }
            let (pool, request, outcomes) = (rest.pool.clone(), giving.request.clone(), giving.outcomes.0.clone());
            let mut upload = body.upload();
            background.spawn(async move {
                let attempt = attempt(&pool, node, &request, &mut upload, TAKING);
                let mut sent = timeout(TAKING, attempt).await.unwrap_or(Sent::Lost(None));
                let words = match &mut sent {
                    Sent::Answered(answer) if answer.status < 300 => None,
                    Sent::Answered(answer) | Sent::OfTheNode(answer, _) => answer.words().await,
                    _ => None,
                };
                // The client may have its answer already.
                let _ = outcomes.send(Outcome { node, sent, words }).await;
            });
            giving.running.push((node, scout));
        }
        Ok(())
    }
}

impl<'a> Giving<'a> {
    fn new(request: &Request, nodes: usize, everybody: bool) -> Self {
        Self {
            request: Arc::new(request.clone()),
            outcomes: mpsc::channel(nodes.max(1)),
            running: Vec::new(),
            lost: 0,
            behind: Vec::new(),
            open: None,
            unknown: None,
            word: None,
            everybody,
        }
    }

    fn is_under_way(&self) -> bool {
        !self.running.is_empty()
    }

    /// One node is done with it.
    fn take(&mut self, course: &mut Course<'a>, Outcome { node, sent, words }: Outcome) -> Next {
        self.running.retain(|(other, _)| *other != node);
        course.tried.push(node);
        course.failure = if let Sent::Nothing(Some(trouble)) = &sent { Some(trouble.fault) } else { None };
        let (answer, of_the_node, trouble) = match sent {
            Sent::Answered(answer) if answer.status < 300 => {
                course.charge(node, true);
                return Next::Done(Box::new(answer));
            }
            Sent::Answered(answer) => (answer, false, None),
            Sent::OfTheNode(answer, trouble) => (answer, true, trouble),
            Sent::Refused(answer, _) => {
                course.refused.get_or_insert(answer);
                return Next::Another("refused");
            }
            Sent::Nothing(_) | Sent::Unsent(_) => return Next::Another("unreachable"),
            Sent::Lost(trouble) => {
                self.lost += 1;
                course.charges.extend(trouble.map(|trouble| (node, trouble)));
                return Next::Another("lost");
            }
            Sent::Late(trouble) => {
                self.lost += 1;
                course.charges.push((node, trouble));
                return Next::Another("lost");
            }
        };
        let source = (&course.rest.pool, node);
        // A node that fails names what it has looked at, which tells nothing of the rest.
        let problem = words.as_deref().and_then(Problem::read);
        let problem = problem.filter(|problem| !of_the_node || problem.failures.is_empty());
        match self.read(problem, answer, source) {
            (known, Said::Known) => {
                course.charge(node, true);
                Next::Done(Box::new(known))
            }
            (answer, Said::Unknown) => {
                if course.rest.pool.owes_head(node) {
                    self.behind.push(node);
                }
                self.unknown.get_or_insert((answer, node));
                Next::Another("unknown_block")
            }
            (answer, _) if !of_the_node => {
                if self.word.is_none() || self.open.is_some() {
                    self.word = Some(answer);
                }
                Next::End
            }
            (answer, _) => {
                course.best.get_or_insert(answer);
                course.charges.extend(trouble.map(|trouble| (node, trouble)));
                Next::Another("refused")
            }
        }
    }

    /// What a node's words mean: that the network has it all, which is a success. Else the answer is without what it has of a list.
    fn read(&mut self, problem: Option<Problem>, answer: Answer, source: (&Arc<Pool>, usize)) -> (Answer, Said) {
        let was_given = self.lost > 0 || self.is_under_way();
        let Some(problem) = problem else { return (answer, Said::Other) };
        let status = answer.status;
        if problem.failures.is_empty() {
            return match Said::of(&problem.message) {
                said if said.is_known(was_given) => (Answer::own(200, Vec::new(), source), Said::Known),
                Said::Unknown => (answer, Said::Unknown),
                _ => (answer, Said::Other),
            };
        }
        let is_new = |text: &str| !Said::of(text).is_known(was_given);
        let mut left: BTreeMap<u64, String> =
            problem.failures.iter().filter(|(_, text)| is_new(text)).map(|(at, text)| (*at, text.clone())).collect();
        if let Some(before) = &self.open {
            // The others have taken the rest.
            left.retain(|at, _| before.contains_key(at));
        }
        self.open = Some(left.clone());
        if left.is_empty() {
            return (Answer::own(200, Vec::new(), source), Said::Known);
        }
        let lacks = left.values().any(|text| Said::of(text) == Said::Unknown);
        let said = if lacks { Said::Unknown } else { Said::Other };
        if left == problem.failures {
            return (answer, said);
        }
        (Answer::own(status, Problem { failures: left, ..problem }.write(status), source), said)
    }

    /// No node has taken it.
    fn end(self, course: &mut Course<'a>) -> Result<Answer, Stop> {
        let source = |node: usize| (&course.rest.pool, node);
        if let Some(word) = self.word {
            return Ok(word);
        }
        if let (Some((answer, node)), 0) = (self.unknown, self.lost) {
            // Others may have taken some of a list after this answer.
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
