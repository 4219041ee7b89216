//! What is signed is given to nodes until one has taken it. The same bytes say the same whoever passes them on, so they go to a
//! second node as soon as the first may not have them, or takes its time, and go on at the first meanwhile; also when the client has
//! its answer, or has left.

mod heard;

use std::{
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

use self::heard::Heard;
use super::{
    Course, Failure, Request, Rest, Sent, Stop,
    answer::Answer,
    attempt::{attempt, kind},
    upload::Whole,
};
use crate::{
    call::{choice::Choice, hold::First},
    config::PublishTo,
    domain::{
        backoff::Backoff,
        publication::{Problem, Said},
        refusal::Refusal,
    },
    pool::{
        Scout,
        health::{Fault, Trouble},
        resting::Standing,
    },
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

/// A node that has it and has not answered.
struct Given<'a> {
    node: usize,
    since: Instant,
    _scout: Option<Scout<'a>>,
}

/// What is to be done next.
enum Aim {
    /// Another node is to have it, for this reason; the first for none.
    Another(&'static str),
    /// Those that have it are waited for. At this moment another node is to have it, unless a node has said its word by then: that
    /// counts.
    Wait(Instant),
}

/// How far it has come.
struct Giving<'a> {
    request: Arc<Request>,
    outcomes: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    running: Vec<Given<'a>>,
    heard: Heard,
    /// Nodes that do not know the block which it names, and have not reached the head that clients
    /// were told: they will. Each is waited for until its moment.
    behind: Vec<(usize, Instant)>,
    /// Nodes that did not take it for what passes.
    busy: Vec<usize>,
    /// When these may have it again, as none is left that was not asked.
    retry: Option<Instant>,
    /// Between such times, and how many of them are left.
    pauses: (Backoff, u32),
    began: Instant,
    /// Whether it goes to all.
    everybody: bool,
    /// How long one node may take before a second has it too.
    late: Duration,
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
        let rest = self.rest;
        let mut changes = rest.pool.subscribe();
        let mut giving = Giving::new(self);
        let mut aim = Aim::Another("");
        loop {
            let until = match aim {
                Aim::Another(why) => {
                    aim = self.give_to_another(&mut giving, body, why).await?;
                    continue;
                }
                Aim::Wait(until) => until,
            };
            let is_open = !giving.heard.has_word();
            if !giving.is_under_way() && (!is_open || giving.behind.is_empty()) {
                return giving.heard.end(self, false);
            }
            // All arms are cancel-safe.
            let outcome = tokio::select! {
                biased;
                Some(outcome) = giving.outcomes.1.recv() => outcome,
                next = rest.catches_up(&mut giving.behind), if is_open && !giving.behind.is_empty() => {
                    if let Some(node) = next
                        && self.give(&mut giving, body, (node, None), "unknown_block")
                    {
                        aim = Aim::Wait(Instant::now() + giving.late);
                    }
                    continue;
                }
                () = sleep_until(giving.retry.unwrap_or(until)), if is_open && giving.retry.is_some() => {
                    giving.retry = None;
                    self.tried.retain(|node| !giving.busy.contains(node));
                    aim = Aim::Another("refused");
                    continue;
                }
                () = sleep_until(until), if giving.is_under_way() => {
                    if !is_open {
                        return giving.heard.end(self, true);
                    }
                    aim = Aim::Another("late");
                    continue;
                }
                Ok(()) = changes.changed(), if is_open && giving.is_under_way() => {
                    // Whoever is out may answer yet, but is not waited for.
                    if giving.running.iter().all(|given| rest.pool.nodes[given.node].is_out()) {
                        aim = Aim::Another("out");
                    }
                    continue;
                }
            };
            match giving.take(self, outcome) {
                Next::Done(answer) => return Ok(*answer),
                Next::Another(why) if !giving.heard.has_word() => aim = Aim::Another(why),
                Next::Another(_) => {}
                Next::End => aim = Aim::Wait(Instant::now() + giving.late),
            }
        }
    }

    /// Gives it to the next node, if there is one. Only whoever has nothing to wait for waits for a node.
    async fn give_to_another(&mut self, giving: &mut Giving<'a>, body: &Whole, why: &'static str) -> Result<Aim, Stop> {
        for given in &giving.running {
            if !self.tried.contains(&given.node) {
                self.tried.push(given.node);
            }
        }
        let (rest, most_lost) = (self.rest, self.rest.pool.nodes.len().max(self.rest.settings.attempts.get() as usize));
        let mut turn = None;
        let next = if giving.is_under_way() || giving.heard.names_unknown_block() {
            match rest.choose(self.request, &self.tried, self.again) {
                Choice::Node(node, scout) => Some((node, scout)),
                Choice::Rest(_) | Choice::Nowhere => None,
            }
        } else if giving.heard.lost >= most_lost {
            // It may be the message that does that to nodes.
            None
        } else {
            // Cancel-safe: whoever leaves the queue gives up its place only.
            self.next_node(body.weight()).await?.map(|(node, its, scout)| {
                turn = its;
                (node, scout)
            })
        };
        let wait = Aim::Wait(Instant::now() + giving.late);
        let Some((node, scout)) = next else {
            giving.plan_retry();
            return Ok(wait);
        };
        let standing = rest.pool.nodes[node].resting.standing(kind(self.request), self.again, Instant::now());
        // One that hung over such messages is tried again, but is not waited for.
        let is_doubtful = scout.is_some() || standing == Standing::Last;
        let is_given = self.give(giving, body, (node, scout), why);
        drop(turn);
        Ok(if is_doubtful && is_given { Aim::Another("doubtful") } else { wait })
    }

    /// Gives it to this node, and at the first time to all others that are usable if they are to have it too. `false` if there is no
    /// room for that.
    fn give(
        &mut self,
        giving: &mut Giving<'a>,
        body: &Whole,
        (node, scout): (usize, Option<Scout<'a>>),
        why: &'static str,
    ) -> bool {
        let rest = self.rest;
        let mut nodes = vec![(node, scout)];
        if giving.everybody && !giving.is_under_way() && giving.heard.lost == 0 {
            let others = (0..rest.pool.nodes.len()).filter(|other| *other != node && rest.pool.is_usable(*other));
            nodes.extend(others.filter(|other| !self.tried.contains(other)).map(|other| (other, None)));
        }
        let mut background = rest.background();
        // Half of the room is for further nodes of what was let in.
        let limit = rest.settings.max_held.get().saturating_mul(2);
        let mut is_given = false;
        for (node, scout) in nodes {
            // What was let in is given to one node at least.
            if background.len() >= limit && giving.is_under_way() {
                return is_given;
            }
            if !is_given && !why.is_empty() {
                rest.counts.given_again(&rest.pool.network, why);
            }
            is_given = true;
            giving.busy.retain(|other| *other != node);
            let (pool, request, outcomes) = (rest.pool.clone(), giving.request.clone(), giving.outcomes.0.clone());
            let mut upload = body.upload();
            background.spawn(async move {
                let attempt = attempt(&pool, node, &request, &mut upload, TAKING);
                let mut sent = timeout(TAKING, attempt).await.unwrap_or_else(|_| Sent::Late(silent(TAKING)));
                let words = match &mut sent {
                    Sent::Answered(answer) if answer.status < 300 => None,
                    Sent::Answered(answer) | Sent::OfTheNode(answer, _) => answer.words().await,
                    _ => None,
                };
                // The client may have its answer already.
                let _ = outcomes.send(Outcome { node, sent, words }).await;
            });
            giving.running.push(Given { node, since: Instant::now(), _scout: scout });
        }
        is_given
    }

    /// `node` took it. Those that have had it for long and are silent still have failed it.
    fn taken(&mut self, node: usize, giving: &Giving<'a>) {
        let now = Instant::now();
        let are_late = giving.running.iter().filter(|given| now.saturating_duration_since(given.since) >= giving.late);
        self.charges.extend(are_late.map(|given| (given.node, silent(giving.late))));
        self.charge(node, true);
    }
}

fn silent(limit: Duration) -> Trouble {
    Trouble { fault: Fault::Silent, text: format!("no answer to something signed within {limit:?}") }
}

impl<'a> Giving<'a> {
    fn new(course: &Course<'a>) -> Self {
        let Rest { pool, publish_to, settings, .. } = course.rest;
        let late = pool.slot() / 4;
        Self {
            request: Arc::new(course.request.clone()),
            outcomes: mpsc::channel(pool.nodes.len().max(1)),
            running: Vec::new(),
            heard: Heard::default(),
            behind: Vec::new(),
            everybody: *publish_to == PublishTo::All,
            late,
            busy: Vec::new(),
            retry: None,
            pauses: (Backoff::new(late / 8, late), settings.attempts.get()),
            began: Instant::now(),
        }
    }

    fn is_under_way(&self) -> bool {
        !self.running.is_empty()
    }

    /// All nodes were asked: those that did not take it for what passes have it again after a pause.
    fn plan_retry(&mut self) {
        let (pauses, left) = &mut self.pauses;
        if self.retry.is_none() && !self.running.is_empty() && !self.busy.is_empty() && *left > 0 {
            *left -= 1;
            self.retry = Some(Instant::now() + pauses.pause());
        }
    }

    /// One node is done with it.
    fn take(&mut self, course: &mut Course<'a>, Outcome { node, sent, words }: Outcome) -> Next {
        self.running.retain(|given| given.node != node);
        course.tried.push(node);
        course.failure = if let Sent::Nothing(Some(trouble)) = &sent { Some(trouble.fault) } else { None };
        let (answer, of_the_node, trouble) = match sent {
            Sent::Answered(answer) if answer.status < 300 => {
                course.taken(node, self);
                return Next::Done(Box::new(answer));
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
                course.charges.extend(trouble.map(|trouble| (node, trouble)));
                return self.lost();
            }
            Sent::Late(trouble) => {
                course.charges.push((node, trouble));
                return self.lost();
            }
        };
        let problem = words.filter(|_| answer.speaks_of_messages()).and_then(|words| Problem::read(&words));
        // A node that fails names what it has looked at, which tells nothing of the rest.
        let problem = problem.filter(|problem| !of_the_node || problem.failures.is_empty());
        match self.heard.read(problem, answer, (&course.rest.pool, node)) {
            (known, Said::Known) => {
                course.taken(node, self);
                Next::Done(Box::new(known))
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
                course.charges.extend(trouble.map(|trouble| (node, trouble)));
                Next::Another("refused")
            }
        }
    }
}

impl Giving<'_> {
    /// A node was lost that may have passed it on: a message that another says is repeated is this one, then.
    fn lost(&mut self) -> Next {
        self.heard.lost += 1;
        match self.heard.repeated() {
            Some(answer) => Next::Done(Box::new(answer)),
            None => Next::Another("lost"),
        }
    }
}

/// What follows from a node's being done with it.
enum Next {
    /// The client has this answer.
    Done(Box<Answer>),
    /// Another node is asked, for this reason.
    Another(&'static str),
    /// No other node is asked.
    End,
}
