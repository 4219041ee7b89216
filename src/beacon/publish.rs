//! Gives a signed message to nodes until one has taken the message.
//!
//! Rule: the message goes to a second node as soon as the first one cannot be reached, refuses, is
//! lost, does not know the block that the message refers to, gives a reason that cannot be read, or
//! has not answered within a quarter of a slot; and so on to a third. When all nodes have been
//! asked, those that failed for a passing reason have the message again after a pause, for as long
//! as exchanges are held. The first node is waited for meanwhile, and the first success goes to the
//! client. A node's judgement of the message itself ends the choice of further nodes. The client
//! may leave; the message still goes to nodes. A refusal in words that are not known is final only
//! when each usable node was given the message, and the last one has had a quarter of a slot.
//! Reason: the bytes mean the same from every node, so a second sending does no harm, and a late
//! message costs the validator a reward. Example: slots take 12 s. An attestation goes to node A at
//! second 4, and A hangs. At second 7 node B gets the message too, and takes it at once: the client
//! has a success, and the silence counts against A.

mod heard;
mod outcome;
mod part;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until, timeout},
};

use self::{
    heard::Heard,
    outcome::{Next, Outcome},
    part::Part,
};
use super::{
    Failure, Request, RequestRun, Requests, Sent, Stop,
    answer::Answer,
    attempt::{attempt_holding, kind},
    maker::is_for_the_maker,
    upload::{Upload, Whole},
};
use crate::{
    config::PublishTo,
    domain::{backoff::Backoff, node_id::NodeId, refusal::Refusal},
    exchange::{next_node::Choice, queue::HeadPermit, tries::Begun},
    pool::{
        Pool, Scout,
        health::{Fault, Trouble},
        resting::RestState,
    },
};

/// A message goes to another node when the first is silent for a quarter of a slot.
pub(super) const ANOTHER_NODE_AFTER: u32 = 4;
/// How long one node may work on the message. By then the message's slot, if there is one, is over.
const TAKING: Duration = Duration::from_secs(60);

/// A node that has the message and has not answered.
struct Given<'a> {
    node: NodeId,
    /// The places of the messages that the node was given of a list, unless the node was given all.
    part: Option<Arc<[u64]>>,
    since: Instant,
    _scout: Option<Scout<'a>>,
}

/// A node of an earlier pool that has the message and has not answered.
struct Left {
    pool: Arc<Pool>,
    node: NodeId,
    part: Option<Arc<[u64]>>,
}

/// The next step.
enum Aim {
    /// Give the message to another node, for this reason; to the first node for none.
    Another(&'static str),
    /// Wait until this moment for the nodes that have the message. Then another node gets the
    /// message, or, if a node has judged the message for good, the client gets that judgement.
    Wait(Instant),
    /// Give the client the judgement of a node: each usable node has had its time.
    End,
}

/// The state that goes along to the nodes that a reload brings.
struct Carried {
    outcomes: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    heard: Heard,
    left: Vec<Left>,
    /// Why another node is to have the message; empty if no node has had the message yet.
    why: &'static str,
}

/// The state of giving one message to nodes.
struct Giving<'a> {
    request: Arc<Request>,
    /// Also of nodes that a reload has taken away since.
    outcomes: (mpsc::Sender<Outcome>, mpsc::Receiver<Outcome>),
    /// Why a node was wanted last.
    why: &'static str,
    left: Vec<Left>,
    /// Whether the reload that replaces these nodes has been noticed.
    is_replaced: bool,
    running: Vec<Given<'a>>,
    heard: Heard,
    /// Nodes that do not know the block which the message names, and have yet to reach the head
    /// that clients have seen. Each is waited for until its moment.
    behind: Vec<(NodeId, Instant)>,
    /// Nodes that did not take the message for a passing reason.
    busy: Vec<NodeId>,
    /// Nodes that were lost over the message. They may have the message again, unless so many are
    /// lost that the message itself may crash the nodes.
    lost_nodes: Vec<NodeId>,
    /// Nodes that have judged the message.
    judges: Vec<NodeId>,
    /// A node took so long over the message that no node has the message again.
    was_late: bool,
    /// Whether a busy node had the message, and would only fail again at once.
    is_failed: bool,
    /// When busy and lost nodes may have the message again, because all nodes have been asked.
    retry: Option<Instant>,
    /// The pauses before these nodes are asked again.
    pauses: Backoff,
    /// At this moment the client gets a refusal in words that are not known. Each node that gets
    /// the message for the first time postpones the moment, also one that gets the message then.
    doubt: Option<Instant>,
    began: Instant,
    /// Whether the first node to have the message shares the message with all other usable ones.
    everybody: bool,
    /// How long one node may take before a second one has the message too.
    late: Duration,
}

impl Requests {
    /// Gives the client's signed message to the network, in a task that goes on when the client
    /// leaves.
    pub(super) async fn publish(self: &Arc<Self>, request: &Request, body: Whole) -> Result<Answer, Failure> {
        let (told, answer) = oneshot::channel();
        {
            let limit = self.settings.max_held.get();
            let Some(place) = self.messages.admit(request.client, 1) else {
                return Err(Refusal::Limit { name: "max_held", limit }.into());
            };
            let mut background = self.background.tasks();
            let (requests, request) = (self.clone(), request.clone());
            background.spawn(async move {
                let outcome = requests.give_out(&request, &body).await;
                drop(place);
                // The client may have left.
                let _ = told.send(outcome);
            });
        }
        // The task is ended early only together with the network, and goes on when the client's
        // time is over.
        match timeout(self.settings.timeout, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(Refusal::OutcomeUnknown.into()),
        }
    }

    /// Gives the message to these nodes, and when all have failed to the nodes of the next reload.
    async fn give_out(self: &Arc<Self>, request: &Request, body: &Whole) -> Result<Answer, Failure> {
        // `self` lives on meanwhile: this task is in its set.
        let (mut requests, mut begun, mut carried) = (self.clone(), Begun::default(), None);
        loop {
            let mut run = RequestRun::new(&requests, request, begun);
            let mut giving = Giving::new(&mut run, carried);
            let (next, turn) = match run.publish(&mut giving, body).await {
                Ok(answer) => return Ok(answer),
                Err(Stop::Failed(failure)) => return Err(failure),
                Err(Stop::Moved(next, turn)) => (next, turn),
            };
            carried = Some(giving.carry(&run));
            begun = run.tries.moved(turn);
            drop(run);
            requests = next;
        }
    }
}

impl<'a> RequestRun<'a> {
    /// Gives the client's signed message to the nodes of this pool.
    async fn publish(&mut self, giving: &mut Giving<'a>, body: &Whole) -> Result<Answer, Stop> {
        let requests = self.requests;
        let mut changes = requests.pool.subscribe();
        if giving.why.is_empty() && is_for_the_maker(self.request) {
            self.give_to_gone_makers(giving, body);
        }
        let mut aim = Aim::Another(giving.why);
        loop {
            let until = match aim {
                Aim::Another(why) => {
                    aim = self.give_to_another(giving, body, why).await?;
                    continue;
                }
                Aim::Wait(until) => until,
                Aim::End => return giving.end(self),
            };
            let (is_open, has_word) = (giving.heard.is_open(), giving.heard.has_word());
            let until = giving.doubt.filter(|_| has_word).map_or(until, |doubt| doubt.min(until));
            let may_go_on = is_open && (!giving.behind.is_empty() || giving.retry.is_some());
            if !giving.is_under_way() && !may_go_on {
                return giving.end(self);
            }
            // All arms are cancel-safe.
            let outcome = tokio::select! {
                biased;
                Some(outcome) = giving.outcomes.1.recv() => outcome,
                next = requests.catches_up(&mut giving.behind), if is_open && !giving.behind.is_empty() => {
                    if let Some(node) = next
                        && self.give(giving, body, (node, None), "unknown_block")
                    {
                        aim = Aim::Wait(Instant::now() + giving.late);
                    }
                    continue;
                }
                () = sleep_until(giving.retry.unwrap_or(until)), if is_open && giving.retry.is_some() => {
                    giving.retry = None;
                    self.tries.again = true;
                    self.tries.tried.retain(|node| !giving.busy.contains(node) && !giving.lost_nodes.contains(node));
                    aim = Aim::Another("refused");
                    continue;
                }
                () = sleep_until(until), if giving.is_under_way() || has_word => {
                    aim = if is_open { Aim::Another("late") } else { Aim::End };
                    continue;
                }
                () = requests.queue.moves(), if !has_word && !giving.is_replaced => {
                    giving.is_replaced = true;
                    if giving.are_all_late() {
                        aim = Aim::Another("late");
                    }
                    continue;
                }
                Ok(()) = changes.changed(), if is_open && giving.is_under_way() => {
                    // A node that is out may answer yet, but is not waited for.
                    if giving.running.iter().all(|given| requests.pool.nodes[given.node].is_out()) {
                        aim = Aim::Another("out");
                    }
                    continue;
                }
            };
            match giving.take(self, outcome) {
                Next::Done(answer) => return Ok(*answer),
                Next::Another(why) if giving.heard.is_open() => aim = Aim::Another(why),
                Next::Confirm => {
                    giving.doubt.get_or_insert(Instant::now() + giving.late);
                    aim = Aim::Another("refused");
                }
                Next::Another(_) => {}
                Next::End => aim = Aim::Wait(Instant::now() + giving.late),
            }
        }
    }

    /// Gives the message to the next node, if there is one. Waits for a node only while no other
    /// node has the message.
    async fn give_to_another(&mut self, giving: &mut Giving<'a>, body: &Whole, why: &'static str) -> Result<Aim, Stop> {
        for given in &giving.running {
            if !self.tries.tried.contains(&given.node) {
                self.tries.tried.push(given.node);
            }
        }
        let (requests, most_lost) = (self.requests, self.most_lost());
        giving.why = why;
        let (mut turn, mut rests) = (None, None);
        let has_word = giving.heard.has_word();
        let next = if giving.is_under_way() || giving.heard.speaks_of_a_node() || giving.is_failed || has_word {
            match requests.choose(self.request, &self.tries.tried, self.tries.again) {
                // A refusal is not made good by a node that is not well.
                Choice::Node(node, _) if has_word && !requests.pool.is_usable(node) => None,
                Choice::Node(node, scout) => Some((node, scout)),
                Choice::Rest(end) => {
                    rests = Some(end);
                    None
                }
                Choice::Nowhere => None,
            }
        } else if giving.heard.lost >= most_lost || giving.was_late {
            // The message itself may crash the nodes, or its time is over.
            None
        } else {
            // Cancel-safe: an exchange that leaves the queue gives up its place only.
            self.next_node(body.weight()).await?.map(|(node, its, scout)| {
                turn = its;
                (node, scout)
            })
        };
        let wait = Aim::Wait(Instant::now() + giving.late);
        let Some((node, scout)) = next else {
            if giving.heard.lost < most_lost
                && !has_word
                && let Some(next) = requests.queue.successor()
            {
                return Err(Stop::Moved(next, HeadPermit::default()));
            }
            if has_word && giving.doubt.is_none_or(|doubt| doubt <= Instant::now()) {
                return Ok(Aim::End);
            }
            giving.plan_retry(rests, || self.tries.until(&requests.queue));
            return Ok(wait);
        };
        let is_new = !giving.busy.contains(&node) && !giving.lost_nodes.contains(&node);
        let state = requests.pool.nodes[node].resting.state(kind(self.request), self.tries.again, Instant::now());
        // A node that hung over such messages is tried again, but not waited for.
        let is_doubtful = scout.is_some() || state == RestState::Last;
        let is_given = self.give(giving, body, (node, scout), why);
        drop(turn);
        if has_word && is_given && is_new {
            // No node's time begins before that node has the message.
            giving.doubt = Some(Instant::now() + giving.late);
        } else if giving.doubt.is_some_and(|doubt| doubt <= Instant::now()) {
            return Ok(Aim::End);
        }
        Ok(if is_doubtful && is_given { Aim::Another("doubtful") } else { wait })
    }

    /// At so many lost nodes the message itself may crash the nodes.
    fn most_lost(&self) -> usize {
        self.requests.pool.nodes.len().max(self.requests.settings.attempts.get() as usize)
    }

    /// Gives the message to this node, and at the first time to all other usable nodes, if all are
    /// to have messages. `false` if there is no room for the sending.
    fn give(
        &mut self,
        giving: &mut Giving<'a>,
        body: &Whole,
        (node, scout): (NodeId, Option<Scout<'a>>),
        why: &'static str,
    ) -> bool {
        let requests = self.requests;
        let mut nodes = vec![(node, scout)];
        if std::mem::take(&mut giving.everybody) {
            let others = NodeId::all(requests.pool.nodes.len())
                .filter(|other| *other != node && requests.pool.is_usable(*other));
            nodes.extend(others.filter(|other| !self.tries.tried.contains(other)).map(|other| (other, None)));
        }
        // No other node needs the messages of a list that a node has taken, or refused for good.
        let part = giving.heard.lacking().and_then(|places| Part::of(body.bytes(), &places));
        let mut background = requests.background.tasks();
        let mut is_given = false;
        for (node, scout) in nodes {
            // An accepted message is given to one node at least.
            let place = match requests.sendings.admit(self.request.client, 1) {
                None if giving.is_under_way() => return is_given,
                Some(places) => places,
                None => vec![requests.sendings.place(self.request.client)],
            };
            if !is_given && !why.is_empty() {
                requests.counts.given_again(&requests.pool.network, why);
            }
            is_given = true;
            giving.busy.retain(|other| *other != node);
            giving.lost_nodes.retain(|other| *other != node);
            let (upload, part) = match &part {
                Some(part) => (body.upload_part(part.bytes.clone()), Some(part.places.clone())),
                None => (body.upload(), None),
            };
            giving.running.push(Given { node, part: part.clone(), since: Instant::now(), _scout: scout });
            let sending = self.sending(giving, requests.pool.clone(), node, (upload, part));
            background.spawn(async move {
                sending.await;
                drop(place);
            });
        }
        is_given
    }

    /// Gives the message to makers of blocks that a reload has taken away, beside the first node.
    fn give_to_gone_makers(&self, giving: &mut Giving<'a>, body: &Whole) {
        for (pool, node) in self.requests.makers.gone(self.requests.pool.slot()) {
            giving.left.push(Left { pool: pool.clone(), node, part: None });
            let sending = self.sending(giving, pool, node, (body.upload(), None));
            self.requests.background.tasks().spawn(sending);
        }
    }

    /// Sends the message to a node of `pool`, and tells the outcome.
    fn sending(
        &self,
        giving: &Giving<'a>,
        pool: Arc<Pool>,
        node: NodeId,
        (mut upload, part): (Upload, Option<Arc<[u64]>>),
    ) -> impl Future<Output = ()> + Send + 'static {
        let (request, outcomes) = (giving.request.clone(), giving.outcomes.0.clone());
        let room = self.requests.room.clone();
        async move {
            let attempt = attempt_holding(&pool, node, &request, &mut upload, TAKING, Some(&room));
            let mut sent = timeout(TAKING, attempt).await.unwrap_or_else(|_| Sent::Late(silent(TAKING)));
            let words = match &mut sent {
                Sent::Answered(answer) if answer.status < 300 => None,
                Sent::Answered(answer) | Sent::OfTheNode(answer, ..) => answer.words().await,
                _ => None,
            };
            // The client may have its answer already.
            let _ = outcomes.send(Outcome { pool, node, part, sent, words }).await;
        }
    }

    /// `node` took the message. Nodes that have had the message for long and are silent have
    /// failed.
    fn taken(&mut self, node: NodeId, giving: &Giving<'a>) {
        let now = Instant::now();
        let is_late = |since| now.saturating_duration_since(since) >= giving.late;
        // A message that waits for a connection says nothing of the node.
        let may_wait = |node: NodeId| self.requests.pool.nodes[node].keeps_calls_waiting();
        let are_late = giving.running.iter().filter(|given| is_late(given.since) && !may_wait(given.node));
        self.tries.charges.extend(are_late.map(|given| (given.node, silent(giving.late))));
        self.charge(node, true);
    }
}

fn silent(limit: Duration) -> Trouble {
    Trouble { fault: Fault::Silent, text: format!("no answer to something signed within {limit:?}") }
}

impl<'a> Giving<'a> {
    fn new(run: &mut RequestRun<'a>, carried: Option<Carried>) -> Self {
        let Requests { pool, publish_to, .. } = run.requests;
        let late = pool.slot() / ANOTHER_NODE_AFTER;
        let carried = carried.unwrap_or_else(|| Carried {
            outcomes: mpsc::channel(pool.nodes.len().max(1)),
            heard: Heard::default(),
            left: Vec::new(),
            why: "",
        });
        let has_it =
            |node: &NodeId| carried.left.iter().any(|left| left.pool.nodes[left.node].is_same_as(&pool.nodes[*node]));
        run.tries.tried.extend(NodeId::all(pool.nodes.len()).filter(has_it));
        Self {
            request: Arc::new(run.request.clone()),
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
            lost_nodes: Vec::new(),
            judges: Vec::new(),
            was_late: false,
            is_failed: false,
            retry: None,
            pauses: Backoff::new(late / 8, late),
            doubt: None,
            began: Instant::now(),
        }
    }

    /// The state that goes along to the nodes of a reload.
    fn carry(self, run: &RequestRun<'a>) -> Carried {
        let pool = &run.requests.pool;
        let nodes = self.running.iter();
        let nodes = nodes.map(|given| Left { pool: pool.clone(), node: given.node, part: given.part.clone() });
        Carried {
            left: self.left.into_iter().chain(nodes).collect(),
            heard: self.heard.go_on(),
            outcomes: self.outcomes,
            why: self.why,
        }
    }

    /// The answer when no other node is asked or waited for.
    fn end(&mut self, run: &mut RequestRun<'a>) -> Result<Answer, Stop> {
        let parts = self.left.iter().map(|left| &left.part).chain(self.running.iter().map(|given| &given.part));
        std::mem::take(&mut self.heard).end(run, parts.map(Option::as_deref))
    }

    fn is_under_way(&self) -> bool {
        !self.left.is_empty() || !self.running.is_empty()
    }

    /// Whether all nodes that have the message are late.
    fn are_all_late(&self) -> bool {
        let now = Instant::now();
        self.running.iter().all(|given| now >= given.since + self.late)
    }

    /// Plans another try when all nodes were asked: nodes that failed for a passing reason have the
    /// message again after a pause, and a node that `rests` after its rest, but none after the
    /// moment `held`.
    fn plan_retry(&mut self, rests: Option<Option<Instant>>, held: impl FnOnce() -> Instant) {
        let has_failed = !self.busy.is_empty() || !self.lost_nodes.is_empty();
        if self.retry.is_some() || (!has_failed && rests.is_none()) {
            return;
        }
        let pause = (has_failed || rests == Some(None)).then(|| Instant::now() + self.pauses.pause());
        let held = held();
        self.retry = [pause, rests.flatten()].into_iter().flatten().min().filter(|at| *at <= held);
    }
}
