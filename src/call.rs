//! Floor 5, exchanges: one call, from the choice of a node to its answer.
//!
//! A call takes this path whatever door it came through: plan, attempt, classify, and then answer,
//! or try another node, or wait. What may be sent twice is decided here and nowhere else.

pub mod alarm;
pub mod answer;
mod attempt;
mod choice;
mod ending;
pub mod front;
pub mod hold;
pub mod kept;
mod known;
mod late;
mod leaving;
mod promise;
pub mod rest;
mod settle;
mod terms;
mod tries;
pub mod whole;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

pub use self::terms::Terms;
use self::{
    alarm::Alarm,
    answer::Answer,
    attempt::{Ran, Sent},
    choice::{Choice, Wish, choose, rest_ends, seconds_to, unserved},
    ending::{Ending, Refused},
    hold::{Hold, Left, Turn},
    kept::Keeper,
    late::Late,
    leaving::Leaving,
    promise::Null,
    tries::{Begun, Tries},
    whole::{AsItComes, Lack, Take},
};
use crate::{
    config::{Calls as Settings, Policy},
    domain::{
        method::{Class, Method, MethodId},
        refusal::Refusal,
        rpc::Request,
    },
    metrics::{CallMetrics, Metrics},
    pool::{Pool, Scout, resting::Kind},
};

/// How long a node may pause within an answer that no other node may be asked for.
const STALL: Duration = Duration::from_secs(30);
/// The bounds of the pauses once a node got a call and gave no answer: each try is work for it.
const SLOW_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The calls to one network's execution nodes.
pub struct Calls {
    pool: Arc<Pool>,
    settings: Settings,
    /// Whether each method of the table is refused: the rules are many, and asked for every call.
    blocked: Box<[bool]>,
    metrics: CallMetrics,
    hold: Hold<Calls>,
    /// Who answers calls about filters.
    keeper: OnceLock<Arc<dyn Keeper>>,
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Outcome {
    /// A node's answer, with the client's id.
    Answered(Answer),
    /// An error of the proxy's own.
    Refused(Refusal),
}

impl Calls {
    /// Prepares calls to `pool`.
    pub fn new(pool: Arc<Pool>, settings: &Settings, metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: metrics.calls(&pool.network, pool.layer.as_str()),
            hold: Hold::new(pool.clone(), settings, metrics.clone()),
            blocked: (0..Method::COUNT).map(|index| settings.blocks(Method::label_of(MethodId(index)))).collect(),
            keeper: OnceLock::new(),
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

    /// Lets the calls that wait for a node go on at the nodes that have taken their place.
    pub fn move_to(&self, calls: Arc<Self>) {
        self.hold.move_to(calls);
    }

    /// Gives up on the calls that wait for a node.
    pub fn close(&self) {
        self.hold.close();
    }

    /// Runs one call to the beginning of its answer. `alarm` is the client's timer.
    pub async fn run(&self, request: &Request<'_>, terms: Terms<'_>, alarm: &mut Alarm) -> Outcome {
        match self.taken(request, &terms, alarm, &AsItComes, |answer: &Answer| answer.kind).await {
            Ok(answer) => Outcome::Answered(answer),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Runs one call until its answer is taken, and counts it.
    async fn taken<T: Take>(
        &self,
        request: &Request<'_>,
        terms: &Terms<'_>,
        alarm: &mut Alarm,
        take: &T,
        kind: impl FnOnce(&T::Taken) -> answer::Kind,
    ) -> Result<T::Taken, Refusal> {
        let method = Method::of(&request.method);
        let mut ending = Ending::new(self, method, terms.arrived);
        let outcome = match method.class {
            // In a box, so that other calls do not pay for its size.
            Class::Filter => Box::pin(self.kept(request, method, terms, alarm, take)).await,
            _ => self.exchange(request, method, terms, alarm, take).await,
        };
        ending.count(outcome.as_ref().map(kind));
        outcome
    }

    async fn exchange<T: Take>(
        &self,
        request: &Request<'_>,
        method: Method,
        terms: &Terms<'_>,
        alarm: &mut Alarm,
        take: &T,
    ) -> Result<T::Taken, Refusal> {
        if self.is_blocked(request, method) {
            return Err(Refusal::Blocked(request.method.to_string()));
        }
        if method.class == Class::Subscription {
            return Err(Refusal::NeedsWebSocket);
        }
        if let Some(answer) = self.known(request, method) {
            return self.take_own(answer, alarm, take).await;
        }
        let stall = if method.is_repeatable() { self.settings.attempt_timeout.min(STALL) } else { STALL };
        let mut moved: Option<Arc<Self>> = None;
        let (mut may_have_arrived, mut lost, mut begun) = (false, 0, Begun::default());
        let deadline = terms.arrived + self.settings.timeout;
        loop {
            let mut course = Course {
                calls: moved.as_deref().unwrap_or(self),
                request,
                method,
                terms,
                deadline,
                tries: Tries::new(Kind::of_method(method.id, &request.method), Some(deadline), begun),
                lost,
                may_have_arrived,
                unsure: may_have_arrived,
                best: None,
                doubtful: None,
                null: None,
                rejected: None,
                refused: Refused::default(),
            };
            let (next, turn) = loop {
                let mut answer = match course.run(alarm).await {
                    Ok(answer) => answer,
                    Err(Left::Refused(refusal)) => return Err(refusal),
                    Err(Left::Moved(next, turn)) => break (next, turn),
                };
                if let Some(id) = request.id {
                    answer.set_id(id);
                }
                let node = answer.node;
                match take.take(answer, stall, alarm).await {
                    Ok(taken) => return Ok(taken),
                    Err(lack) => course.lacks(node, lack)?,
                }
            };
            (may_have_arrived, lost, begun) = (course.may_have_arrived, course.lost, course.tries.moved(turn));
            drop(course);
            moved = Some(next);
        }
    }

    /// Takes an answer of the proxy's own, which is in memory.
    async fn take_own<T: Take>(&self, answer: Answer, alarm: &mut Alarm, take: &T) -> Result<T::Taken, Refusal> {
        take.take(answer, STALL, alarm).await.map_err(|lack| match lack {
            Lack::TooLong(refusal) => refusal,
            Lack::NoRoom(full) => full.into(),
            Lack::Lost => Refusal::OutcomeUnknown,
        })
    }
}

/// One call under way.
struct Course<'a> {
    calls: &'a Calls,
    request: &'a Request<'a>,
    method: Method,
    terms: &'a Terms<'a>,
    deadline: Instant,
    tries: Tries,
    /// Attempts of all rounds, also from before a reload, whose connection or answer was lost: it may be the call that does
    /// that to nodes.
    lost: u32,
    /// Whether some node may have it.
    may_have_arrived: bool,
    /// Whether some node may have it and did not say what became of it.
    unsure: bool,
    /// The best answer that a node gave, though it speaks of the node.
    best: Option<Answer>,
    /// An error that one node gave, and that may be the call's or the node's.
    doubtful: Option<Answer>,
    /// A `null` for what clients were told of.
    null: Option<Null>,
    /// The HTTP status with which a node would not take the call.
    rejected: Option<u16>,
    refused: Refused,
}

impl<'a> Course<'a> {
    async fn run(&mut self, alarm: &mut Alarm) -> Result<Answer, Left<Calls>> {
        let mut turn = None;
        let (node, answer) = loop {
            // A scout's place is kept until it is known what became of the scout.
            let (node, _scout) = match self.next_node(&mut turn).await {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(self.give_up(None)?),
                Err(Left::Refused(refusal)) => return Ok(self.give_up(Some(refusal))?),
                Err(moved) => return Err(moved),
            };
            let late = self.late(node);
            let Ran { sent, again, beside, in_vain, had_second } =
                late.attempt(node).run(&mut turn, alarm, &late).await;
            self.may_have_arrived |= again || had_second;
            self.unsure |= again || had_second;
            if let Some((other, sent)) = in_vain.map(|in_vain| *in_vain) {
                self.had_no_word(other, sent);
                self.tries.tried.push(other);
            }
            let node = match beside {
                Some((other, trouble)) => {
                    self.tries.charges.push((node, trouble));
                    self.tries.tried.push(node);
                    other
                }
                None => node,
            };
            match sent {
                Sent::Answered(mut answer) => {
                    answer.node = Some(node);
                    self.calls.pool.call_answered(node, self.tries.kind);
                    if let Some(promise) = self.broken_promise(&answer) {
                        self.null.get_or_insert(Null::new(answer, promise, Instant::now()));
                        self.tries.attempts += 1;
                        self.tries.tried.push(node);
                        continue;
                    }
                    self.charge(node, true);
                    if let Some(height) = answer.height(self.tells()) {
                        self.calls.pool.shown(node, height);
                    }
                    return Ok(answer);
                }
                Sent::NoRoom(full) => {
                    // What it says is not known, but that it answers is.
                    self.calls.pool.call_answered(node, self.tries.kind);
                    let is_repeatable = self.method.is_repeatable();
                    let refusal = if is_repeatable { full.into() } else { Refusal::OutcomeUnknown };
                    return Ok(self.give_up(Some(refusal))?);
                }
                Sent::OfTheCaller(answer) => {
                    self.calls.pool.call_answered(node, self.tries.kind);
                    self.charge(node, false);
                    break (node, answer);
                }
                Sent::OfNobody(answer) if self.method.class != Class::Read => {
                    self.calls.pool.call_answered(node, self.tries.kind);
                    self.charge(node, false);
                    break (node, answer);
                }
                Sent::OfNobody(answer) => {
                    self.calls.pool.call_answered(node, self.tries.kind);
                    if let Some(first) = self.doubtful.take() {
                        // Two nodes will not have the call: it is the call.
                        self.charge(node, false);
                        return Ok(first);
                    }
                    self.doubtful = Some(answer);
                    self.may_have_arrived = true;
                    self.tries.attempts += 1;
                }
                sent => {
                    let is_over = matches!(sent, Sent::Refused(..) | Sent::Rejected(_)) && !self.method.is_repeatable();
                    self.had_no_word(node, sent);
                    if is_over {
                        return Ok(self.give_up(None)?);
                    }
                }
            }
            if self.may_have_arrived && !self.method.is_repeatable() {
                return Ok(self.best.take().ok_or(Refusal::OutcomeUnknown)?);
            }
            self.tries.tried.push(node);
        };
        Ok(self.settle(node, answer).await?)
    }

    /// The answer of `node` cannot be taken. A call that may be sent again goes on.
    ///
    /// # Errors
    /// With what the client is told, where the call is over.
    fn lacks(&mut self, node: Option<usize>, lack: Lack) -> Result<(), Refusal> {
        match lack {
            Lack::TooLong(refusal) => Err(refusal),
            Lack::NoRoom(full) if self.method.is_repeatable() => Err(full.into()),
            Lack::Lost if self.method.is_repeatable() => {
                self.may_have_arrived = true;
                self.unsure = true;
                self.lost += 1;
                self.tries.attempts += 1;
                if let Some(node) = node {
                    self.calls.pool.probe_now(node);
                    self.tries.tried.push(node);
                }
                Ok(())
            }
            Lack::NoRoom(_) | Lack::Lost => Err(Refusal::OutcomeUnknown),
        }
    }

    /// Takes note of an attempt at `node` that brought no word for the client.
    fn had_no_word(&mut self, node: usize, sent: Sent) {
        let pool = &self.calls.pool;
        self.tries.failure = if let Sent::Nothing(Some(trouble)) = &sent { Some(trouble.fault) } else { None };
        match sent {
            Sent::Answered(_) | Sent::OfTheCaller(_) | Sent::OfNobody(_) | Sent::NoRoom(_) | Sent::Unwanted => {}
            Sent::OfTheNode(answer, trouble) => {
                if answer.is_none() {
                    pool.nodes[node].resting.failed_again(Instant::now());
                    self.tries.pauses.slow_down(SLOW_PAUSES.0, SLOW_PAUSES.1);
                }
                self.unsure |= answer.is_none();
                self.best = self.best.take().or(answer);
                self.may_have_arrived = true;
                self.tries.attempts += 1;
                self.tries.charges.extend(trouble.map(|trouble| (node, trouble)));
            }
            Sent::Refused(answer, wait) => {
                pool.call_refused(node, self.tries.kind, wait);
                let end = Instant::now() + wait.unwrap_or_default();
                self.refused.until = Some(self.refused.until.map_or(end, |until| until.min(end)));
                self.refused.answer = self.refused.answer.take().or(answer);
                self.tries.attempts += 1;
            }
            Sent::Rejected(status) => {
                self.rejected = Some(status);
                self.tries.attempts += 1;
            }
            Sent::Nothing(trouble) => {
                if let Some(trouble) = trouble {
                    pool.call_failed(node, self.tries.kind, trouble, None);
                }
            }
            Sent::Lost(trouble) => {
                self.may_have_arrived = true;
                self.tries.attempts += 1;
                self.lost += 1;
                self.unsure = true;
                if let Some(trouble) = trouble {
                    pool.probe_now(node);
                    self.tries.charges.push((node, trouble));
                }
            }
        }
    }

    fn charge(&mut self, node: usize, result: bool) {
        self.tries.charge(&self.calls.pool, node, result);
    }

    fn late(&self, node: usize) -> Late<'a, '_> {
        let Self { calls, request, method, terms, deadline, .. } = *self;
        let Tries { kind, ref tried, .. } = self.tries;
        Late { calls, request, method, terms, kind, deadline, node, started: Instant::now(), tried }
    }

    /// The node to try next. `turn` is its place among the calls that waited, if it had to wait:
    /// kept over the attempts of a round, so that none that came later is written before it. `None`
    /// when it has had all its chances.
    async fn next_node(
        &mut self,
        turn: &mut Option<Turn<'a>>,
    ) -> Result<Option<(usize, Option<Scout<'a>>)>, Left<Calls>> {
        let Calls { pool, hold, settings, .. } = self.calls;
        loop {
            let now = Instant::now();
            let is_unwanted = Leaving::new(self.terms, self.method).is_unwanted();
            if is_unwanted || self.lost >= settings.attempts.get() || now >= self.deadline {
                return Ok(None);
            }
            let bytes = self.request.raw.len();
            if let Some(queued) = self.tries.queue(hold, bytes).await? {
                *turn = Some(queued);
                if Leaving::new(self.terms, self.method).is_unwanted() {
                    return Ok(None);
                }
            }
            let mut rest = None;
            let has_word = self.doubtful.is_some() || self.null.is_some();
            if self.tries.attempts < settings.attempts.get() {
                let Tries { kind, again, ref tried, .. } = self.tries;
                let (policy, class) = (settings.policy, self.method.class);
                match choose(pool, Wish { policy, class, kind, tried, again }) {
                    // What is only a second opinion is not asked of a node that is not well.
                    Choice::Node(node, _) if has_word && !pool.is_usable(node) => {}
                    Choice::Node(node, scout) => {
                        if settings.policy == Policy::Spread {
                            pool.catch_up(node);
                        }
                        return Ok(Some((node, scout)));
                    }
                    Choice::Rest(end) => rest = Some(end),
                    Choice::Nowhere => {}
                }
            }
            // The round is over, and others need not wait for the next. What a node said of the
            // call is better than waiting for another to say it.
            *turn = None;
            if let Some(null) = &mut self.null {
                let Some(pause) = null.pause(now) else { return Ok(None) };
                hold.pause(pause.min(self.deadline - now), bytes).await?;
                self.tries.tried.clear();
                self.tries.attempts = 0;
                continue;
            }
            if self.doubtful.is_some() || self.best.is_some() || self.rejected.is_some() {
                return Ok(None);
            }
            if self.method.class == Class::RawTransaction && self.unsure && self.refused.until.is_some() {
                // No node can say more of it than that it may be there.
                return Ok(None);
            }
            if !self.tries.pause(hold, rest, bytes).await? {
                return Ok(None);
            }
            self.tries.attempts = 0;
        }
    }

    /// What the client gets when there is no more to try: what nodes said comes before the
    /// `refusal` of the queue.
    fn give_up(&mut self, refusal: Option<Refusal>) -> Result<Answer, Refusal> {
        if self.method.class == Class::RawTransaction && self.unsure {
            // What another node said of itself is no word on the one that may have it.
            return Err(Refusal::OutcomeUnknown);
        }
        let word =
            self.doubtful.take().or_else(|| self.null.take().map(Null::into_answer)).or_else(|| self.best.take());
        if let Some(word) = word {
            return Ok(word);
        }
        let rests = || rest_ends(&self.calls.pool, self.tries.kind).or(self.refused.until);
        if let Some(mut answer) = self.refused.answer.take() {
            answer.retry_after = rests().map(seconds_to);
            return Ok(answer);
        }
        Err(match (self.rejected, refusal) {
            (Some(status), _) => Refusal::Rejected(status),
            // A read has no outcome to be unsure of.
            _ if self.may_have_arrived && self.method.class == Class::RawTransaction => Refusal::OutcomeUnknown,
            (None, None | Some(Refusal::Unserved(_))) if let Some(until) = rests() => {
                Refusal::Resting(seconds_to(until))
            }
            (None, Some(refusal)) => refusal,
            (None, None) if Instant::now() >= self.deadline => Refusal::Deadline,
            (None, None) => Refusal::Unserved(unserved(&self.calls.pool, self.tries.failure)),
        })
    }
}
