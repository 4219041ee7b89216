//! Floor 5, exchanges: one call, from the choice of a node to its answer.
//!
//! A call takes this path whatever door it came through: plan, attempt, classify, and then answer, or try another node, or wait. What
//! may be sent twice is decided here and nowhere else.

pub mod alarm;
pub mod answer;
mod attempt;
pub mod hold;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use self::{
    alarm::Alarm,
    answer::Answer,
    attempt::{Attempt, Sent},
    hold::{Hold, Turn},
};
use crate::{
    config::Calls as Settings,
    domain::{
        hex,
        method::{Class, Method},
        refusal::Refusal,
        rpc::Request,
    },
    metrics::{CallMetrics, CallOutcome, Metrics},
    pool::Pool,
    route::{self, Load},
};

/// How long a call pauses when every node that seemed to serve failed it; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The calls to one network's execution nodes.
pub struct Calls {
    pool: Arc<Pool>,
    settings: Settings,
    metrics: CallMetrics,
    hold: Hold,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Outcome {
    /// A node's answer, with the client's id.
    Answered(Answer),
    /// An error of the proxy's own.
    Refused(Refusal),
}

/// Counts a call that its client abandons.
struct Ending<'a> {
    calls: &'a Calls,
    method: Method,
    arrived: Instant,
    counted: bool,
}

impl Ending<'_> {
    fn count(&mut self, outcome: CallOutcome) {
        self.counted = true;
        self.calls.metrics.ended(&self.method, outcome, self.arrived.elapsed().as_secs_f64());
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.counted {
            self.count(CallOutcome::Gone);
        }
    }
}

impl Calls {
    /// Prepares calls to `pool`.
    pub fn new(pool: Arc<Pool>, settings: &Settings, metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: metrics.calls(&pool.network, pool.layer.as_str()),
            hold: Hold::new(pool.clone(), settings, metrics.clone()),
            settings: settings.clone(),
            pool,
        }
    }

    /// Where the calls go.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The limits and deadlines of calls.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Gives up on the calls that wait for a node.
    pub fn close(&self) {
        self.hold.close();
    }

    /// Runs one call to its end. `headers` are lines to send along; `alarm` is the timer of whoever waits.
    pub async fn run(&self, request: &Request<'_>, headers: &[u8], arrived: Instant, alarm: &mut Alarm) -> Outcome {
        let method = Method::of(&request.method);
        let mut ending = Ending { calls: self, method, arrived, counted: false };
        let outcome = self.exchange(request, method, headers, arrived, alarm).await;
        ending.count(match &outcome {
            Outcome::Answered(answer) if answer.kind == answer::Kind::Result => CallOutcome::Result,
            Outcome::Answered(_) => CallOutcome::NodeError,
            Outcome::Refused(Refusal::NoNode) => CallOutcome::NoNode,
            Outcome::Refused(Refusal::Deadline) => CallOutcome::Deadline,
            Outcome::Refused(Refusal::OutcomeUnknown) => CallOutcome::OutcomeUnknown,
            Outcome::Refused(_) => CallOutcome::Refused,
        });
        outcome
    }

    async fn exchange(
        &self,
        request: &Request<'_>,
        method: Method,
        headers: &[u8],
        arrived: Instant,
        alarm: &mut Alarm,
    ) -> Outcome {
        if self.settings.blocks(&request.method) {
            return Outcome::Refused(Refusal::Blocked(request.method.to_string()));
        }
        if method.class == Class::Subscription {
            return Outcome::Refused(Refusal::NeedsWebSocket);
        }
        let mut course = Course {
            calls: self,
            request,
            method,
            headers,
            deadline: arrived + self.settings.timeout,
            tried: Vec::new(),
            attempts: 0,
            may_have_arrived: false,
            best: None,
            held_since: None,
            pause: FIRST_PAUSE,
        };
        match course.run(alarm).await {
            Ok(mut answer) => {
                if let Some(id) = request.id {
                    answer.set_id(id);
                }
                Outcome::Answered(answer)
            }
            Err(refusal) => Outcome::Refused(refusal),
        }
    }
}

/// One call under way.
struct Course<'a> {
    calls: &'a Calls,
    request: &'a Request<'a>,
    method: Method,
    headers: &'a [u8],
    deadline: Instant,
    /// The nodes that failed it since it last waited.
    tried: Vec<usize>,
    /// Attempts that reached a node.
    attempts: u32,
    /// Whether some node may have it although it gave no answer.
    may_have_arrived: bool,
    /// The best answer that a node gave, though it speaks of the node.
    best: Option<Answer>,
    held_since: Option<Instant>,
    pause: Duration,
}

impl Course<'_> {
    async fn run(&mut self, alarm: &mut Alarm) -> Result<Answer, Refusal> {
        let mut turn = None;
        loop {
            let Some(node) = self.next_node(&mut turn).await? else { return self.give_up() };
            // Whoever waits behind us comes next as soon as we set out.
            drop(turn.take());
            let attempt = Attempt {
                node: &self.calls.pool.nodes[node],
                body: self.request.raw,
                headers: self.headers,
                repeatable: self.method.is_repeatable(),
                limit: self.attempt_limit(),
            };
            match attempt.run(alarm).await {
                Sent::Answered(answer) => {
                    if let Some(height) = answer.height(self.method.tells) {
                        self.calls.pool.shown(node, height);
                    }
                    return Ok(answer);
                }
                Sent::OfTheCaller(answer) => return self.of_the_caller(node, answer, alarm).await,
                Sent::OfTheNode(answer, trouble) => {
                    if let Some(trouble) = trouble {
                        self.calls.pool.call_failed(node, trouble);
                    }
                    self.best = self.best.take().or(answer);
                    self.attempts += 1;
                }
                Sent::Nothing(trouble) => self.calls.pool.call_failed(node, trouble),
                Sent::Lost(trouble) => {
                    if let Some(trouble) = trouble {
                        self.calls.pool.call_failed(node, trouble);
                    }
                    self.may_have_arrived = true;
                    self.attempts += 1;
                }
            }
            if self.may_have_arrived && !self.method.is_repeatable() {
                return Err(Refusal::OutcomeUnknown);
            }
            if Instant::now() >= self.deadline {
                return self.give_up();
            }
            self.tried.push(node);
        }
    }

    /// The node to try next, waiting for one if need be. `None` when the call has had all its attempts.
    async fn next_node<'t>(&mut self, turn: &mut Option<Turn<'t>>) -> Result<Option<usize>, Refusal>
    where
        Self: 't,
    {
        let _ = &turn;
        unreachable!()
    }

    fn give_up(&mut self) -> Result<Answer, Refusal> {
        if let Some(best) = self.best.take() {
            return Ok(best);
        }
        Err(match (self.method.class, self.may_have_arrived) {
            // A read has no outcome to be unsure of.
            (Class::RawTransaction, true) => Refusal::OutcomeUnknown,
            _ if Instant::now() >= self.deadline => Refusal::Deadline,
            _ => Refusal::NoNode,
        })
    }
}
