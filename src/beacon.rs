//! Floor 6, beacon: one request to the beacon API, from the choice of a node to the beginning of
//! the answer.
//!
//! Answers may take long to come, so only their beginning has a deadline, and that of states and
//! the like has none: a node is waited for as long as the node is alive. A body may not stand
//! still. The [`Route`] of a request decides here to which nodes the request goes, and whether a
//! second sending is allowed.

pub mod answer;
mod attempt;
mod best_answer;
mod blobs;
mod broadcast;
mod choice;
mod failure;
mod idle;
mod maker;
mod missing_data;
mod publish;
mod publish_unkept;
mod race_reads;
mod returning;
mod room;
mod shown_head;
mod time_limit;
mod told_messages;
mod under_way;
pub mod upload;
mod wait_for_head;

use std::sync::Arc;

use http::HeaderValue;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use self::{
    answer::Answer,
    attempt::{Sent, attempt_holding, kind},
    maker::{Makers, makes_a_block},
    room::Room,
    shown_head::Awaited,
    time_limit::{has_a_deadline, may_be_compressed},
    told_messages::ToldMessages,
    under_way::UnderWay,
    upload::{Kept, Upload},
};
pub use self::{attempt::Request, failure::Failure};
use crate::{
    config::{Calls as Settings, PublishTo},
    domain::{beacon_form::Form, beacon_route::Class, node_id::NodeId, refusal::Refusal},
    exchange::{
        background::Background,
        failures::Failures,
        next_node::Choice,
        queue::{Exit, HeadPermit, Queue, Ticket},
        tries::{Begun, Tries},
    },
    metrics::{CallMetrics, CallOutcome, Metrics},
    pool::{Pool, Scout, health::Fault},
};

/// The longest body that is kept to be sent again, in bytes. A longer body is streamed to a single
/// node, or refused if all nodes must have the body.
const MAX_KEPT: usize = 16 << 20;
/// The same for signed messages: a block with 128 blobs and their proofs, in JSON, has some 40 MB.
const MAX_PUBLISHED: usize = 48 << 20;

/// The requests to one network's consensus nodes.
pub struct Requests {
    pool: Arc<Pool>,
    settings: Settings,
    publish_to: PublishTo,
    metrics: CallMetrics,
    counts: Arc<Metrics>,
    failures: Failures,
    /// The requests that all nodes were told lately.
    told: Arc<ToldMessages>,
    makers: Makers,
    awaited: Awaited,
    queue: Queue<Requests>,
    /// Room for the bodies that are kept, of all clients.
    room: Arc<Room>,
    /// The messages that have no answer yet.
    messages: Arc<UnderWay>,
    /// The sendings of signed messages to nodes, which may go on when the client has its answer.
    sendings: Arc<UnderWay>,
    /// Exchanges that go on after their client has its answer; dropping `Requests` ends them.
    background: Background,
    /// The task that tells nodes that return; not counted as a call, and ended with this.
    _returning: JoinSet<()>,
}

/// Counts a request at its end; as abandoned, unless another outcome is set.
struct Ending<'a> {
    requests: &'a Requests,
    request: &'a Request,
    arrived: Instant,
    outcome: CallOutcome,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let Self { requests, request, outcome, .. } = *self;
        let (route, headers) = (&request.route, &request.headers);
        requests.metrics.rest_ended(route, outcome, self.arrived.elapsed().as_secs_f64());
        let value = |name| headers.get(name).map(HeaderValue::as_bytes);
        requests.failures.tell(&requests.pool, route.group, outcome, value);
        if let Some(trace) = &request.trace {
            trace.of_side(&requests.pool.network, requests.pool.layer.as_str());
            trace.ended(route.group, outcome);
        }
    }
}

impl Requests {
    /// Prepares requests to `pool`.
    pub fn new(pool: Arc<Pool>, settings: &Settings, publish_to: PublishTo, metrics: &Arc<Metrics>) -> Self {
        let told = Arc::new(ToldMessages::new(pool.nodes.len()));
        let mut returning = JoinSet::new();
        returning.spawn(returning::watch(pool.clone(), told.clone(), metrics.clone()));
        Self {
            publish_to,
            told,
            makers: Makers::default(),
            awaited: Awaited::default(),
            counts: metrics.clone(),
            failures: Failures::default(),
            metrics: metrics.calls(&pool.network, pool.layer.as_str()),
            queue: Queue::new(pool.clone(), settings, metrics.clone()),
            settings: settings.clone(),
            room: Room::new(settings.max_held_bytes),
            messages: UnderWay::new(settings.max_held.get()),
            sendings: UnderWay::new(settings.max_held.get().saturating_mul(2)),
            background: Background::default(),
            _returning: returning,
            pool,
        }
    }

    /// The pool that the requests go to.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// Whether clients are told which node gave an answer.
    pub fn names_nodes(&self) -> bool {
        self.settings.name_nodes
    }

    /// Gives up on the requests that wait for a node.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Lets the requests that wait for a node go on at the nodes of `next`.
    pub fn move_to(&self, next: Arc<Self>) {
        self.queue.move_to(next);
    }

    /// Takes over the requests that all nodes were told before a reload, and the makers of the
    /// latest blocks.
    pub fn inherit(&self, earlier: &Self) {
        self.told.inherit(&self.pool, &earlier.told, &earlier.pool);
        self.inherit_makers(earlier);
    }

    fn inherit_makers(&self, earlier: &Self) {
        self.makers.inherit(&self.pool, &earlier.makers, &earlier.pool);
    }

    /// `node` has made a block for a client.
    fn has_made_a_block(&self, node: NodeId) {
        self.makers.made(node);
        if let Some(next) = self.newest() {
            next.inherit_makers(self);
        }
    }

    /// Runs one request up to the beginning of its answer.
    ///
    /// # Errors
    /// When no node gives an answer.
    pub async fn run(
        self: &Arc<Self>,
        request: &Request,
        upload: &mut Upload,
        arrived: Instant,
    ) -> Result<Answer, Failure> {
        let mut ending = Ending { requests: self, request, arrived, outcome: CallOutcome::Gone };
        let readable = (!may_be_compressed(request)).then(|| request.readable());
        let request = readable.as_ref().unwrap_or(request);
        let exchange = self.exchange(request, upload);
        let outcome = match has_a_deadline(request) {
            true => timeout_at(arrived + self.settings.timeout, exchange).await,
            false => Ok(exchange.await),
        };
        let outcome = outcome.unwrap_or_else(|_| Err(Refusal::Deadline.into()));
        if let (Some(trace), Err(Failure::Refused(refusal))) = (&request.trace, &outcome) {
            trace.refused(|| refusal.message());
        }
        ending.outcome = match &outcome {
            Ok(answer) if answer.status < 400 => CallOutcome::Result,
            Ok(_) => CallOutcome::NodeError,
            Err(Failure::Refused(Refusal::Unserved(why))) => (*why).into(),
            Err(Failure::Refused(Refusal::Deadline)) => CallOutcome::Deadline,
            Err(Failure::Refused(Refusal::OutcomeUnknown)) => CallOutcome::OutcomeUnknown,
            Err(Failure::Refused(_) | Failure::TooLong(_)) => CallOutcome::Refused,
            Err(Failure::Unsent(_)) => CallOutcome::Gone,
        };
        outcome
    }

    async fn exchange(self: &Arc<Self>, request: &Request, upload: &mut Upload) -> Result<Answer, Failure> {
        if request.route.is_duty {
            self.pool.validators_are_there();
        }
        if request.route.class != Class::Once {
            let most = if request.route.class == Class::Publish { MAX_PUBLISHED } else { MAX_KEPT };
            let kept = upload.keep(most, &self.room).await.map_err(Failure::Unsent)?;
            match (request.route.class, kept) {
                // The body could go to a single node only, and the client would not know.
                (Class::Everywhere, Kept::TooLong) => return Err(Failure::TooLong(MAX_KEPT)),
                (Class::Everywhere, Kept::NoRoom) => {
                    return Err(Refusal::Limit { name: "max_held_bytes", limit: self.settings.max_held_bytes }.into());
                }
                // The body is passed on piece by piece, and sent once; a signed message to all.
                (_, Kept::TooLong | Kept::NoRoom) | (_, Kept::Whole) => {}
            }
        }
        // A reload may have replaced the nodes while the client sent the body.
        let mut moved = self.newest();
        let mut begun = Begun::default();
        loop {
            let requests = moved.as_ref().unwrap_or(self);
            if request.route.class == Class::Publish
                && let Some(body) = upload.in_memory()
            {
                return requests.publish(request, body).await;
            }
            if request.route.class == Class::Everywhere && requests.pool.snapshot().serves() {
                // All nodes are told at once, which takes time: the exchanges behind do not wait
                // for that.
                begun.goes_ahead();
            }
            if request.route.class == Class::Everywhere
                && let Some(body) = upload.in_memory()
                && let Some(answer) = requests.broadcast(request, &body).await?
            {
                return Ok(answer);
            }
            if let Some(pick) = &request.pick {
                pick.shut(&requests.pool)?;
            }
            let mut run = RequestRun::new(requests, request, begun);
            let outcome = match request.route.class {
                Class::Publish => run.publish_unkept(upload).await,
                _ => run.run(upload).await,
            };
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(Stop::Failed(failure)) => {
                    self.failures.note(&requests.pool, &run.tries);
                    return Err(failure);
                }
                Err(Stop::Moved(next, turn)) => {
                    begun = run.tries.moved(turn);
                    drop(run);
                    moved = Some(next);
                }
            }
        }
    }

    /// The newest `Requests` that reloads have put in the place of this one.
    fn newest(&self) -> Option<Arc<Self>> {
        let mut newest = self.queue.successor()?;
        while let Some(next) = newest.queue.successor() {
            newest = next;
        }
        Some(newest)
    }
}

/// A request under way.
struct RequestRun<'a> {
    requests: &'a Requests,
    request: &'a Request,
    tries: Tries,
    was_late: bool,
    /// The best answer so far that is bad because of its node.
    best: Option<Answer>,
    /// The best answer is in another form than the API's.
    is_best_foreign: bool,
    /// The status of an answer that does not come from a node: a web page, or a redirect.
    foreign: Option<u16>,
    /// A success of a node with nothing in it.
    empty: Option<Answer>,
    /// The first answer of a node that refused it for quota.
    refused: Option<Answer>,
    /// The nodes that did not have the data.
    lacking: Vec<NodeId>,
    /// The nodes that failed it for a passing reason, of those tried.
    passing: Vec<NodeId>,
}

/// How a request's run ends without an answer.
enum Stop {
    Failed(Failure),
    /// A reload replaced the nodes while the request waited: the request goes on at the new ones.
    Moved(Arc<Requests>, HeadPermit),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(failure: E) -> Self {
        Self::Failed(failure.into())
    }
}

impl Stop {
    fn left(left: Exit<Requests>) -> Self {
        match left {
            Exit::Refused(refusal) => refusal.into(),
            Exit::Moved(next, turn) => Self::Moved(next, turn),
        }
    }
}

impl<'a> RequestRun<'a> {
    fn new(requests: &'a Requests, request: &'a Request, begun: Begun) -> Self {
        Self {
            requests,
            request,
            tries: Tries::new(kind(request), None, begun),
            was_late: false,
            best: None,
            is_best_foreign: false,
            foreign: None,
            empty: None,
            refused: None,
            lacking: Vec::new(),
            passing: Vec::new(),
        }
    }

    async fn run(&mut self, upload: &mut Upload) -> Result<Answer, Stop> {
        loop {
            // A scout keeps its place until its outcome is known.
            let Some((node, turn, _scout)) = self.next_node(upload.weight()).await? else { return Ok(self.give_up()?) };
            // The exchange behind this one may set out as soon as this one does.
            drop(turn);
            if self.waits_for_head() {
                self.requests.wait_for_head(node).await;
            }
            let began = Instant::now();
            let (node, sent) = match (self.requests.time_before_second_node(self.request), upload.in_memory()) {
                (Some(time_limit), Some(body)) => self.race(node, &body, time_limit).await,
                _ => {
                    let Requests { pool, settings, room, .. } = self.requests;
                    let time_limit = settings.attempt_timeout;
                    (node, attempt_holding(pool, node, self.request, upload, time_limit, Some(room)).await)
                }
            };
            self.notes_wait(&sent, began);
            if let Some(answer) = self.weigh(node, sent).await? {
                if answer.status < 300 && makes_a_block(self.request) {
                    self.requests.has_made_a_block(node);
                }
                if let Some(head) = shown_head::told(self.request, &answer) {
                    self.requests.shows_head(node, head).await;
                }
                return Ok(answer);
            }
            if !upload.is_there() {
                return Ok(self.give_up()?);
            }
            self.tries.tried.push(node);
        }
    }

    /// Takes note of an attempt that waited for a connection since `began`, and got none.
    fn notes_wait(&mut self, sent: &Sent, began: Instant) {
        if matches!(sent, Sent::Nothing(Some(trouble)) if trouble.fault == Fault::Full) {
            self.tries.waits_since(began);
        }
    }

    /// Takes note of an attempt's outcome. Returns the answer for the client, if this is one.
    async fn weigh(&mut self, node: NodeId, sent: Sent) -> Result<Option<Answer>, Stop> {
        let is_repeatable = self.request.route.is_repeatable();
        self.tries.failure = if let Sent::Nothing(Some(trouble)) = &sent { Some(trouble.fault) } else { None };
        // The request itself may crash the nodes.
        let may_crash =
            matches!(sent, Sent::Lost(_)) && self.tries.attempts + 1 >= self.requests.settings.attempts.get();
        if sent.is_passing() && !may_crash {
            self.passing.push(node);
        }
        match sent {
            Sent::Answered(answer) => {
                let doubtful = self.doubtful(node, &answer);
                if let Some(blobs) = doubtful
                    && self.requests.is_partial(node, self.request, blobs).await
                {
                    self.lacks(node, answer);
                    return Ok(None);
                }
                self.charge(node, answer.status < 300);
                self.learn(node, &answer);
                return Ok(Some(answer));
            }
            Sent::Unsent(error) => return Err(Failure::Unsent(error).into()),
            // This node is not asked again, so the answer does not use up an attempt.
            Sent::OfTheNode(answer, Form::Node, _) if matches!(answer.status, 400 | 404 | 405 | 410) => {
                self.lacks(node, answer);
            }
            Sent::OfTheNode(answer, form, trouble) => {
                self.keeps(answer, form);
                self.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
                self.tries.attempts += 1;
            }
            Sent::Refused(answer, _) => {
                self.refused = self.refused.take().or(Some(answer));
                self.tries.attempts += 1;
            }
            Sent::Nothing(_) => {}
            Sent::Lost(_) | Sent::Late(_) if !is_repeatable => return Err(Refusal::OutcomeUnknown.into()),
            Sent::Lost(trouble) => {
                self.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
                self.tries.attempts += 1;
            }
            Sent::Late(trouble) => {
                self.was_late = true;
                self.tries.charges.push((node, trouble));
                self.tries.attempts += 1;
            }
        }
        Ok(None)
    }

    /// `node` served the request, which counts against the nodes that did not. `result`: the answer
    /// has the data asked for.
    fn charge(&mut self, node: NodeId, result: bool) {
        self.tries.charge(&self.requests.pool, node, result);
    }

    /// The node to try next, for a request with `weight` bytes in memory, and a place in the order
    /// of writing if the request had to wait. `None` when all tries are used up.
    async fn next_node(
        &mut self,
        weight: usize,
    ) -> Result<Option<(NodeId, Option<Ticket<'a>>, Option<Scout<'a>>)>, Stop> {
        let Requests { queue, settings, .. } = self.requests;
        loop {
            if self.tries.attempts >= settings.attempts.get() {
                return Ok(None);
            }
            let turn = self.tries.wait_in(queue, weight).await.map_err(Stop::left)?;
            let rest = match self.requests.choose(self.request, &self.tries.tried, self.tries.again) {
                // A 400 is most likely the client's fault: only well nodes are asked after that.
                Choice::Node(node, _) if self.is_at_fault() && !self.requests.pool.is_usable(node) => return Ok(None),
                Choice::Node(node, scout) => return Ok(Some((node, turn, scout))),
                Choice::Rest(end) => Some(end),
                Choice::Nowhere => None,
            };
            drop(turn);
            // Every node has failed the request. An answer from one of them is better than waiting.
            if self.best.is_some()
                || self.empty.is_some()
                || !self.tries.pause(queue, rest, weight).await.map_err(Stop::left)?
            {
                return Ok(None);
            }
        }
    }
}
