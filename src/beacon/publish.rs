//! What is signed is given to nodes until one has taken it. The same bytes say the same whoever
//! passes them on, so they go to a second node as soon as the first may not have them, or takes its
//! time, and go on at the first meanwhile; also when the client has its answer, or has left.

mod heard;
mod outcome;
mod part;

use std::{
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use http::header;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use self::{
    heard::Heard,
    outcome::{Next, Outcome},
    part::Part,
};
use super::{
    Course, Failure, Request, Rest, Sent, Stop,
    answer::Answer,
    attempt::{attempt, kind},
    upload::Whole,
};
use crate::{
    config::PublishTo,
    domain::{backoff::Backoff, refusal::Refusal},
    exchange::{choice::Choice, queue::HeadPermit, tries::Begun},
    pool::{
        Pool, Scout,
        health::{Fault, Trouble},
        resting::Standing,
    },
};

/// How long one node may work on it. By then the slot that it is for has gone by, unless it is for
/// no slot.
const TAKING: Duration = Duration::from_secs(60);

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
    /// Those that have it are waited for. At this moment another node is to have it, unless a node
    /// has said its word by then: that counts.
    Wait(Instant),
}

/// The state that goes along to the nodes that a reload brings.
struct Carried {
    outcomes: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    heard: Heard,
    /// The nodes that have it and have not answered.
    left: Vec<(Arc<Pool>, usize)>,
    /// Why another node is to have it; empty if no node had it yet.
    why: &'static str,
    /// The end of the time in which nodes that failed may have the message again.
    held: Option<Instant>,
}

/// How far it has come.
struct Giving<'a> {
    request: Arc<Request>,
    /// Also of nodes that a reload has taken away since.
    outcomes: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    /// Why a node was wanted last.
    why: &'static str,
    /// Nodes of earlier pools that have it and have not answered.
    left: Vec<(Arc<Pool>, usize)>,
    /// Whether the reload that replaces these nodes has been noticed.
    is_replaced: bool,
    running: Vec<Given<'a>>,
    heard: Heard,
    /// Nodes that do not know the block which it names, and have not reached the head that clients
    /// were told: they will. Each is waited for until its moment.
    behind: Vec<(usize, Instant)>,
    /// Nodes that did not take it for what passes.
    busy: Vec<usize>,
    /// Whether one of these had the message, and would only fail again at once.
    is_failed: bool,
    /// When nodes may have it again, as none is left that was not asked.
    retry: Option<Instant>,
    /// Between such times.
    pauses: Backoff,
    /// No node has the message again after this moment.
    held: Option<Instant>,
    began: Instant,
    /// Whether the first node to have the message shares the message with all other usable ones.
    everybody: bool,
    /// How long one node may take before a second has it too.
    late: Duration,
}

impl Rest {
    /// Gives what the client has signed to the network, in a task that goes on when the client
    /// leaves: clients wait no longer than it takes to know that a node hangs.
    pub(super) async fn publish(self: &Arc<Self>, request: &Request, body: Whole) -> Result<Answer, Failure> {
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
                let outcome = rest.give_out(&request, &body).await;
                // The client may have left.
                let _ = told.send(outcome);
            });
        }
        // It is ended early only with the network itself.
        answer.await.unwrap_or_else(|_| Err(Refusal::OutcomeUnknown.into()))
    }

    /// Gives it to these nodes, and when they have all failed it to those that reloads have put in
    /// their place.
    async fn give_out(self: &Arc<Self>, request: &Request, body: &Whole) -> Result<Answer, Failure> {
        // This one lives on meanwhile: the task is of its set.
        let (mut rest, mut begun, mut carried) = (self.clone(), Begun::default(), None);
        loop {
            let mut course = Course::new(&rest, request, begun);
            let mut giving = Giving::new(&mut course, carried);
            let (next, turn) = match course.publish(&mut giving, body).await {
                Ok(answer) => return Ok(answer),
                Err(Stop::Failed(failure)) => return Err(failure),
                Err(Stop::Moved(next, turn)) => (next, turn),
            };
            carried = Some(giving.carry(&course));
            begun = course.tries.moved(turn);
            drop(course);
            rest = next;
        }
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
    async fn publish(&mut self, giving: &mut Giving<'a>, body: &Whole) -> Result<Answer, Stop> {
        let rest = self.rest;
        let mut changes = rest.pool.subscribe();
        let mut aim = Aim::Another(giving.why);
        loop {
            let until = match aim {
                Aim::Another(why) => {
                    aim = self.give_to_another(giving, body, why).await?;
                    continue;
                }
                Aim::Wait(until) => until,
            };
            let is_open = !giving.heard.has_word();
            let is_awaited = !giving.behind.is_empty() || giving.retry.is_some();
            if !giving.is_under_way() && !(is_open && is_awaited) {
                return std::mem::take(&mut giving.heard).end(self, false);
            }
            // All arms are cancel-safe.
            let outcome = tokio::select! {
                biased;
                Some(outcome) = giving.outcomes.1.recv() => outcome,
                next = rest.catches_up(&mut giving.behind), if is_open && !giving.behind.is_empty() => {
                    if let Some(node) = next
                        && self.give(giving, body, (node, None), "unknown_block")
                    {
                        aim = Aim::Wait(Instant::now() + giving.late);
                    }
                    continue;
                }
                () = sleep_until(giving.retry.unwrap_or(until)), if is_open && giving.retry.is_some() => {
                    giving.retry = None;
                    self.tries.tried.retain(|node| !giving.busy.contains(node));
                    aim = Aim::Another("refused");
                    continue;
                }
                () = sleep_until(until), if giving.is_under_way() => {
                    if !is_open {
                        return std::mem::take(&mut giving.heard).end(self, true);
                    }
                    aim = Aim::Another("late");
                    continue;
                }
                () = rest.queue.moves(), if is_open && !giving.is_replaced => {
                    giving.is_replaced = true;
                    if giving.are_all_late() {
                        aim = Aim::Another("late");
                    }
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

    /// Gives it to the next node, if there is one. Only whoever has nothing to wait for waits for a
    /// node.
    async fn give_to_another(&mut self, giving: &mut Giving<'a>, body: &Whole, why: &'static str) -> Result<Aim, Stop> {
        for given in &giving.running {
            if !self.tries.tried.contains(&given.node) {
                self.tries.tried.push(given.node);
            }
        }
        let (rest, most_lost) = (self.rest, self.rest.pool.nodes.len().max(self.rest.settings.attempts.get() as usize));
        giving.why = why;
        let (mut turn, mut rests) = (None, None);
        let next = if giving.is_under_way() || giving.heard.speaks_of_a_node() || giving.is_failed {
            match rest.choose(self.request, &self.tries.tried, self.tries.again) {
                Choice::Node(node, scout) => Some((node, scout)),
                Choice::Rest(end) => {
                    rests = Some(end);
                    None
                }
                Choice::Nowhere => None,
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
            if giving.heard.lost < most_lost
                && let Some(next) = rest.queue.successor()
            {
                return Err(Stop::Moved(next, HeadPermit::default()));
            }
            giving.plan_retry(rests, rest.queue.longest());
            return Ok(wait);
        };
        let standing = rest.pool.nodes[node].resting.standing(kind(self.request), self.tries.again, Instant::now());
        // One that hung over such messages is tried again, but is not waited for.
        let is_doubtful = scout.is_some() || standing == Standing::Last;
        let is_given = self.give(giving, body, (node, scout), why);
        drop(turn);
        Ok(if is_doubtful && is_given { Aim::Another("doubtful") } else { wait })
    }

    /// Gives it to this node, and at the first time to all others that are usable if they are to
    /// have it too. `false` if there is no room for that.
    fn give(
        &mut self,
        giving: &mut Giving<'a>,
        body: &Whole,
        (node, scout): (usize, Option<Scout<'a>>),
        why: &'static str,
    ) -> bool {
        let rest = self.rest;
        let mut nodes = vec![(node, scout)];
        if std::mem::take(&mut giving.everybody) {
            let others = (0..rest.pool.nodes.len()).filter(|other| *other != node && rest.pool.is_usable(*other));
            nodes.extend(others.filter(|other| !self.tries.tried.contains(other)).map(|other| (other, None)));
        }
        // No other node needs the messages that a node has taken, or refused for good.
        let part = giving.heard.lacking().and_then(|places| Part::of(body.bytes(), &places));
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
            let (mut upload, part) = match &part {
                Some(part) => (body.upload_part(part.bytes.clone()), Some(part.places.clone())),
                None => (body.upload(), None),
            };
            background.spawn(async move {
                let attempt = attempt(&pool, node, &request, &mut upload, TAKING);
                let mut sent = timeout(TAKING, attempt).await.unwrap_or_else(|_| Sent::Late(silent(TAKING)));
                let words = match &mut sent {
                    Sent::Answered(answer) if answer.status < 300 => None,
                    Sent::Answered(answer) | Sent::OfTheNode(answer, _) => answer.words().await,
                    _ => None,
                };
                // The client may have its answer already.
                let _ = outcomes.send(Outcome { pool, node, part, sent, words }).await;
            });
            giving.running.push(Given { node, since: Instant::now(), _scout: scout });
        }
        is_given
    }

    /// `node` took it. Those that have had it for long and are silent still have failed it.
    fn taken(&mut self, node: usize, giving: &Giving<'a>) {
        let now = Instant::now();
        let are_late = giving.running.iter().filter(|given| now.saturating_duration_since(given.since) >= giving.late);
        self.tries.charges.extend(are_late.map(|given| (given.node, silent(giving.late))));
        self.charge(node, true);
    }
}

fn silent(limit: Duration) -> Trouble {
    Trouble { fault: Fault::Silent, text: format!("no answer to something signed within {limit:?}") }
}

impl<'a> Giving<'a> {
    fn new(course: &mut Course<'a>, carried: Option<Carried>) -> Self {
        let Rest { pool, publish_to, .. } = course.rest;
        let late = pool.slot() / 4;
        let carried = carried.unwrap_or_else(|| Carried {
            outcomes: mpsc::channel(pool.nodes.len().max(1)),
            heard: Heard::default(),
            left: Vec::new(),
            why: "",
            held: None,
        });
        let has_it = |node: &usize| carried.left.iter().any(|(of, at)| of.nodes[*at].is_same_as(&pool.nodes[*node]));
        course.tries.tried.extend((0..pool.nodes.len()).filter(has_it));
        Self {
            request: Arc::new(course.request.clone()),
            outcomes: carried.outcomes,
            why: carried.why,
            left: carried.left,
            is_replaced: false,
            running: Vec::new(),
            heard: carried.heard,
            behind: Vec::new(),
            everybody: *publish_to == PublishTo::All,
            late,
            busy: Vec::new(),
            is_failed: false,
            retry: None,
            pauses: Backoff::new(late / 8, late),
            held: carried.held,
            began: Instant::now(),
        }
    }

    /// The state that goes along to other nodes.
    fn carry(self, course: &Course<'a>) -> Carried {
        let nodes = self.running.iter().map(|given| (course.rest.pool.clone(), given.node));
        Carried {
            left: self.left.into_iter().chain(nodes).collect(),
            held: self.held,
            heard: self.heard.go_on(),
            outcomes: self.outcomes,
            why: self.why,
        }
    }

    fn is_under_way(&self) -> bool {
        !self.left.is_empty() || !self.running.is_empty()
    }

    /// Whether all that have it have had it for longer than is waited for.
    fn are_all_late(&self) -> bool {
        let now = Instant::now();
        self.running.iter().all(|given| now >= given.since + self.late)
    }

    /// All nodes were asked: those that failed for a passing reason have the message again after a
    /// pause, and a node that `rests` at the end of that, for as long as exchanges are held.
    fn plan_retry(&mut self, rests: Option<Option<Instant>>, longest: Duration) {
        if self.retry.is_some() || (self.busy.is_empty() && rests.is_none()) {
            return;
        }
        let now = Instant::now();
        let held = *self.held.get_or_insert(now + longest);
        let pause = (!self.busy.is_empty() || rests == Some(None)).then(|| now + self.pauses.pause());
        self.retry = [pause, rests.flatten()].into_iter().flatten().min().filter(|at| *at <= held);
    }
}
