//! Floor 6, calls: one JSON-RPC call, from the choice of a node to its answer.
//!
//! Calls of every door take this path: plan, attempt, classify, and then answer, try another node,
//! or wait ([`run`]). `Method::is_repeatable` decides whether a call may be sent twice.

pub mod alarm;
pub mod answer;
mod attempt;
mod block_ranges;
pub mod client_message;
pub mod filter_calls;
mod known;
mod last_word;
mod leaving;
mod null_answer;
pub mod outbox_calls;
mod outcome_count;
mod raw_fan_out;
mod raw_remembered;
mod raw_resend;
pub mod raw_sends;
mod run;
pub mod send_outcome;
mod settle_transaction;
mod slow_attempt;
mod terms;
pub mod whole;

use std::{
    sync::{Arc, OnceLock, atomic::AtomicUsize},
    time::Duration,
};

use tokio::task::JoinSet;

pub use self::terms::Terms;
use self::{
    alarm::Alarm,
    answer::Answer,
    filter_calls::Keeper,
    outbox_calls::TransactionKeeper,
    outcome_count::OutcomeCount,
    raw_remembered::Remembered,
    raw_resend::RawResend,
    run::{CallRun, Carried},
    whole::{AsItComes, Lack, Take},
};
use crate::{
    config::{Calls as Settings, Patience},
    domain::{
        method::{Class, Method, MethodId},
        refusal::Refusal,
        rpc::Request,
    },
    exchange::{
        background::Background,
        failures::Failures,
        queue::{Exit, Queue},
    },
    metrics::{CallMetrics, Metrics},
    pool::Pool,
};

/// How long a node may pause within the answer to a call that must not be sent to another node.
const STALL: Duration = Duration::from_secs(30);

/// The calls to one network's execution nodes.
pub struct Calls {
    pool: Arc<Pool>,
    settings: Settings,
    /// For each method of the table, whether the settings refuse it. Worked out once, because the
    /// rules are many and every call is checked.
    blocked: Box<[bool]>,
    /// For each method of the table, the patience with its calls.
    patience: Box<[Patience]>,
    metrics: CallMetrics,
    failures: Failures,
    queue: Queue<Calls>,
    counts: Arc<Metrics>,
    /// The raw transactions that nodes took lately.
    remembered: Arc<Remembered>,
    /// Sends of raw transactions, which go on after their client has its answer.
    background: Background,
    /// Sends of the outbox under way, by node.
    outbox_sends: Arc<[AtomicUsize]>,
    /// The task that sends the remembered transactions to nodes; ended with this.
    _raw_resend: JoinSet<()>,
    /// Answers calls about filters.
    keeper: OnceLock<Arc<dyn Keeper>>,
    /// Keeps transactions, if the network has an outbox.
    outbox: OnceLock<Arc<dyn TransactionKeeper>>,
}

/// The outcome of a call.
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
        let (remembered, sends) = (Arc::new(Remembered::new(pool.nodes.len())), settings.patience(raw_sends::METHOD));
        let raw_resend = RawResend {
            pool: pool.clone(),
            remembered: remembered.clone(),
            send_to: sends.send_to,
            time_limit: sends.attempt_timeout,
            metrics: metrics.clone(),
        };
        let mut running = JoinSet::new();
        running.spawn(raw_resend.run());
        Self {
            counts: metrics.clone(),
            remembered,
            background: Background::default(),
            outbox_sends: pool.nodes.iter().map(|_| AtomicUsize::new(0)).collect(),
            _raw_resend: running,
            metrics: metrics.calls(&pool.network, pool.layer.as_str()),
            queue: Queue::new(pool.clone(), settings, metrics.clone()),
            blocked: (0..Method::COUNT).map(|index| settings.blocks(Method::label_of(MethodId(index)))).collect(),
            patience: (0..Method::COUNT).map(|index| settings.patience(Method::label_of(MethodId(index)))).collect(),
            keeper: OnceLock::new(),
            outbox: OnceLock::new(),
            failures: Failures::default(),
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

    /// The longest time of this call, its attempts, and its nodes.
    fn patience(&self, request: &Request<'_>, method: Method) -> Patience {
        let known = self.patience.get(method.id.0).copied();
        known.unwrap_or_else(|| self.settings.patience(&request.method))
    }

    /// The newest `Calls` that reloads have put in the place of this one.
    fn newest(&self) -> Option<Arc<Self>> {
        let mut newest = self.queue.successor()?;
        while let Some(next) = newest.queue.successor() {
            newest = next;
        }
        Some(newest)
    }

    /// Takes over the raw transactions that nodes took before a reload.
    pub fn inherit(&self, earlier: &Self) {
        self.remembered.inherit(&self.pool, &earlier.remembered, &earlier.pool);
    }

    /// Lets the calls that wait for a node go on at the nodes that have taken their place.
    pub fn move_to(&self, calls: Arc<Self>) {
        self.queue.move_to(calls);
    }

    /// Gives up on the calls that wait for a node.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Runs one call to the beginning of its answer. `alarm` is the client's timer.
    pub async fn run(&self, request: &Request<'_>, terms: Terms<'_>, alarm: &mut Alarm) -> Outcome {
        match self.taken(request, &terms, alarm, &AsItComes, |answer: &Answer| answer.kind).await {
            Ok(answer) => Outcome::Answered(answer),
            Err(refusal) => Outcome::Refused(refusal),
        }
    }

    /// Runs one call until `take` has taken its answer, and counts the call.
    async fn taken<T: Take>(
        &self,
        request: &Request<'_>,
        terms: &Terms<'_>,
        alarm: &mut Alarm,
        take: &T,
        kind: impl FnOnce(&T::Taken) -> answer::Kind,
    ) -> Result<T::Taken, Refusal> {
        let method = Method::of(&request.method);
        let mut ending = OutcomeCount::new(self, request, method, terms);
        let outcome = match method.class {
            // In a box, so that the futures of other calls are no larger.
            Class::Filter => Box::pin(self.ask_keeper(request, method, terms, alarm, take)).await,
            Class::RawTransaction if self.keeps_transactions() => {
                Box::pin(self.ask_outbox(request, method, terms, alarm, take)).await
            }
            Class::Outbox => Box::pin(self.ask_outbox(request, method, terms, alarm, take)).await,
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
        if terms.pick.is_none()
            && let Some(answer) = self.known(request, method)
        {
            return self.take_own(answer, request, terms, alarm, take).await;
        }
        let attempt_timeout = self.patience(request, method).attempt_timeout;
        let stall = if method.is_repeatable() { attempt_timeout.min(STALL) } else { STALL };
        let (mut moved, mut carried) = (None::<Arc<Self>>, Carried::default());
        loop {
            let calls = moved.as_deref().unwrap_or(self);
            let mut run = CallRun::new(calls, request, method, terms, carried)?;
            let (next, permit) = loop {
                let mut answer = match run.run(alarm).await {
                    Ok(answer) => {
                        run.remember(&answer);
                        answer
                    }
                    Err(Exit::Refused(refusal)) => {
                        self.failures.note(&calls.pool, &run.tries);
                        // Without a node the outbox still knows its own transactions.
                        let Some(kept) = self.kept_transaction(request, method, terms) else { return Err(refusal) };
                        return self.take_own(kept, request, terms, alarm, take).await;
                    }
                    Err(Exit::Moved(next, permit)) => break (next, permit),
                };
                if let Some(kept) = self.kept_answer(&mut answer, request, method, terms).await {
                    answer = kept;
                }
                if let Some(id) = request.id {
                    answer.set_id(id);
                }
                let node = answer.node;
                if calls.settings.name_nodes {
                    answer.giver = node.map(|node| calls.pool.nodes[node].name.clone());
                }
                match take.take(answer, stall, alarm).await {
                    Ok(taken) => return Ok(taken),
                    Err(lack) => run.lacks(node, lack)?,
                }
            };
            carried = run.carry(permit);
            moved = Some(next);
        }
    }

    /// Takes an answer of the proxy's own, which is in memory and has no id yet.
    async fn take_own<T: Take>(
        &self,
        mut answer: Answer,
        request: &Request<'_>,
        terms: &Terms<'_>,
        alarm: &mut Alarm,
        take: &T,
    ) -> Result<T::Taken, Refusal> {
        if let Some(id) = request.id {
            answer.set_id(id);
        }
        answer.charge_to(terms.memory)?;
        take.take(answer, STALL, alarm).await.map_err(|lack| match lack {
            Lack::TooLong(refusal) => refusal,
            Lack::NoRoom(full) => full.into(),
            Lack::Lost => Refusal::OutcomeUnknown,
        })
    }
}
