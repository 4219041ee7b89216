//! A call under way: its next node, and its end.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Calls, Terms,
    alarm::Alarm,
    answer::Answer,
    attempt::{Ran, Sent, erring},
    leaving::Leaving,
    null_answer::Null,
    outcome_count::QuotaRefusals,
    raw_fan_out::{CallTransaction, FanOut},
    slow_attempt::SlowAttempt,
    whole::Lack,
};
use crate::{
    config::{Patience, Policy},
    domain::{
        answer::Lacked,
        asked_blocks::AskedBlocks,
        method::{Class, Method},
        node_id::{ByNode, NodeId},
        refusal::Refusal,
        rpc::Request,
    },
    exchange::{
        next_node::{Choice, NodeQuery, choose, shortest_line},
        queue::{Exit, HeadPermit, Ticket},
        tries::{Begun, Tries},
    },
    pool::{Scout, resting::Kind},
};

/// The bounds of the pauses after a node got the call and gave no answer: each try costs a node
/// work.
const SLOW_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A call under way.
pub(super) struct CallRun<'a> {
    pub(super) calls: &'a Calls,
    pub(super) request: &'a Request<'a>,
    pub(super) method: Method,
    pub(super) terms: &'a Terms<'a>,
    /// The nodes that the caller did not pick.
    pub(super) shut: Vec<NodeId>,
    /// The blocks that the call needs, if known. Not read where there is one node alone.
    pub(super) blocks: Option<AskedBlocks>,
    pub(super) deadline: Instant,
    pub(super) patience: Patience,
    pub(super) tries: Tries,
    /// Attempts of all rounds, also before a reload, whose connection or answer was lost. Counted,
    /// because the call itself may be what breaks the nodes.
    pub(super) lost: u32,
    /// Whether some node may have got the call.
    pub(super) may_have_arrived: bool,
    /// Whether some node may have got the call and has not answered.
    pub(super) unsure: bool,
    /// The best answer that a node gave, though its error is about the node.
    pub(super) best: Option<Answer>,
    /// The answer of the first node that lacks the method or the blocks.
    pub(super) lacking: Option<Answer>,
    /// All nodes that gave such an answer.
    lacking_nodes: Vec<NodeId>,
    /// The nodes that lack the blocks, if another has them.
    pub(super) without_blocks: Vec<NodeId>,
    /// An error that one node gave, and that may be about the call or about the node.
    pub(super) doubtful: Option<Answer>,
    /// A `null` for a block or transaction that clients know of.
    pub(super) null: Option<Null>,
    /// Whether a node's answer was longer than a link takes.
    pub(super) is_too_long: bool,
    /// The HTTP status with which a node would not take the call.
    pub(super) rejected: Option<u16>,
    pub(super) refused: QuotaRefusals,
    /// The transaction, once it was read; only for calls that send one.
    pub(super) transaction: Option<Box<CallTransaction>>,
}

/// The part of a call under way that goes along when a reload moves it to other nodes.
#[derive(Default)]
pub(super) struct Carried {
    may_have_arrived: bool,
    lost: u32,
    begun: Begun,
}

impl<'a> CallRun<'a> {
    /// The run of `request` at the nodes of `calls`.
    ///
    /// # Errors
    /// Where the caller picked a node that there is not.
    pub(super) fn new(
        calls: &'a Calls,
        request: &'a Request<'a>,
        method: Method,
        terms: &'a Terms<'a>,
        carried: Carried,
    ) -> Result<Self, Refusal> {
        let shut = terms.pick.map_or(Ok(Vec::new()), |pick| pick.shut(&calls.pool))?;
        let Carried { may_have_arrived, lost, begun } = carried;
        let patience = calls.patience(request, method);
        let deadline = terms.arrived + patience.timeout;
        let asks = method.asks.filter(|_| calls.pool.nodes.len() > 1);
        Ok(Self {
            calls,
            request,
            method,
            terms,
            shut,
            blocks: AskedBlocks::of(asks, request),
            deadline,
            patience,
            tries: Tries::new(Kind::of_method(method.id, &request.method), Some(deadline), begun),
            lost,
            may_have_arrived,
            unsure: may_have_arrived,
            best: None,
            lacking: None,
            lacking_nodes: Vec::new(),
            without_blocks: Vec::new(),
            doubtful: None,
            null: None,
            is_too_long: false,
            rejected: None,
            refused: QuotaRefusals::default(),
            transaction: None,
        })
    }

    /// The part that goes along to other nodes.
    pub(super) fn carry(&self, permit: HeadPermit) -> Carried {
        Carried { may_have_arrived: self.may_have_arrived, lost: self.lost, begun: self.tries.moved(permit) }
    }

    /// Tries nodes until one has an answer for the client.
    ///
    /// # Errors
    /// With a refusal where no node has, or with the nodes of a reload.
    pub(super) async fn run(&mut self, alarm: &mut Alarm) -> Result<Answer, Exit<Calls>> {
        let mut turn = None;
        let (node, answer) = loop {
            // The scout's place is held until its attempt has ended.
            let (node, scout) = match self.next_node(&mut turn).await {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(self.give_up(None)?),
                Err(Exit::Refused(refusal)) => return Ok(self.give_up(Some(refusal))?),
                Err(moved) => return Err(moved),
            };
            if self.method.class == Class::RawTransaction && scout.is_none() {
                // In a box, so that other calls do not pay for its size.
                match Box::pin(self.fan_out(node, &mut turn, alarm)).await {
                    FanOut::Alone => {}
                    FanOut::Taken(answer) => return Ok(answer),
                    FanOut::Refused(node, answer) => break (node, answer),
                    FanOut::Failed => continue,
                }
            }
            self.note(node);
            let height = self.height_before(node);
            let slow = self.slow_attempt(node);
            let Ran { sent, again, beside, in_vain, had_second } =
                slow.attempt(node).run(&mut turn, alarm, &slow).await;
            self.may_have_arrived |= again || had_second;
            self.unsure |= again || had_second;
            if let Some((other, sent)) = in_vain.map(|in_vain| *in_vain) {
                self.note(other);
                self.record_failed_attempt(other, sent.of(other));
                self.tries.tried.push(other);
            }
            let (node, height) = match beside {
                Some((other, trouble)) => {
                    self.note(other);
                    self.tries.charges.push((node, trouble));
                    self.tries.tried.push(node);
                    (other, self.height_before(other))
                }
                None => (node, height),
            };
            let sent = sent.of(node);
            match sent {
                Sent::Answered(answer) => {
                    self.answered(node);
                    // A caller that picks a node wants that node's own word.
                    if self.shut.is_empty()
                        && let Some(promise) = self.broken_promise(&answer, node, height)
                    {
                        self.lacks_blocks(node, Lacked::Block);
                        self.null.get_or_insert(Null::new(answer, promise, Instant::now()));
                        self.tries.attempts += 1;
                        self.tries.tried.push(node);
                        continue;
                    }
                    self.charge(node, true);
                    self.learn_ranges(node, &answer);
                    if let Some(height) = answer.height(self.tells()) {
                        self.calls.pool.shown(node, height);
                    }
                    return Ok(answer);
                }
                Sent::NoRoom(full) => {
                    // The node's answer is not read, but shows that the node answers.
                    self.calls.pool.call_answered(node, self.tries.kind);
                    let is_repeatable = self.method.is_repeatable();
                    let refusal = if is_repeatable { full.into() } else { Refusal::OutcomeUnknown };
                    return Ok(self.give_up(Some(refusal))?);
                }
                Sent::OfTheCaller(answer) => {
                    self.answered(node);
                    self.charge(node, false);
                    self.learn_ranges(node, &answer);
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
                        // Two nodes refuse the call, so the error is about the call.
                        self.charge(node, false);
                        return Ok(first);
                    }
                    self.doubtful = Some(answer);
                    self.may_have_arrived = true;
                    self.tries.attempts += 1;
                }
                sent => {
                    let is_over = matches!(sent, Sent::Refused(..) | Sent::Rejected(_)) && !self.method.is_repeatable();
                    self.record_failed_attempt(node, sent);
                    if is_over {
                        return Ok(self.give_up(None)?);
                    }
                }
            }
            if !self.may_be_sent_again() {
                let word = self.best.take().or_else(|| self.lacking.take());
                return Ok(word.ok_or(Refusal::OutcomeUnknown)?);
            }
            self.tries.tried.push(node);
        };
        Ok(self.settle(node, answer).await?)
    }

    /// Handles an answer of `node` that cannot be taken. A call that may be sent again goes on.
    ///
    /// # Errors
    /// With the client's answer, if the call is over.
    pub(super) fn lacks(&mut self, node: Option<NodeId>, lack: Lack) -> Result<(), Refusal> {
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

    /// Records an attempt at `node` that brought no answer for the client.
    pub(super) fn record_failed_attempt(&mut self, node: NodeId, sent: Sent) {
        let pool = &self.calls.pool;
        self.tries.failed(if let Sent::Nothing(Some(trouble)) = &sent { Some(trouble.fault) } else { None });
        match sent {
            Sent::Answered(_) | Sent::OfTheCaller(_) | Sent::OfNobody(_) | Sent::NoRoom(_) | Sent::Unwanted => {}
            Sent::TooLong => {
                // The answer would be as long over any other link.
                let links = pool.nodes.by_node().filter(|(_, node)| node.upstream.is_none()).map(|(index, _)| index);
                self.tries.tried.extend(links.filter(|other| *other != node));
                self.is_too_long = true;
                self.may_have_arrived = true;
                self.tries.attempts += 1;
                pool.call_answered(node, self.tries.kind);
            }
            Sent::Lacking(Lacked::Method, answer) => {
                pool.nodes[node].missing_methods.learn(self.method.id, &self.request.method, Instant::now());
                self.lacking.get_or_insert(answer);
                self.lacking_nodes.push(node);
            }
            Sent::Lacking(lacked, answer) if self.may_lack_blocks(node) => {
                self.lacks_blocks(node, lacked);
                self.lacking.get_or_insert(answer);
                self.lacking_nodes.push(node);
            }
            // Every node has the newest blocks, so this one may be at fault.
            Sent::Lacking(lacked, mut answer) => {
                self.lacks_blocks(node, lacked);
                let code = answer.error().map_or(0, |error| error.code);
                self.record_failed_attempt(node, Sent::OfTheNode(Some(answer), Some(erring(code))));
            }
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

    /// `node` gave an answer that shows that it has the method.
    fn answered(&self, node: NodeId) {
        self.calls.pool.call_answered(node, self.tries.kind);
        self.calls.pool.nodes[node].missing_methods.answered(self.method.id, &self.request.method);
    }

    /// Notes a node that is asked.
    pub(super) fn note(&self, node: NodeId) {
        if let Some(trace) = self.terms.trace {
            trace.asked(&self.calls.pool.nodes[node].name);
        }
    }

    /// Whether one more node may have the call: not if the call has an effect and a node may have
    /// it.
    fn may_be_sent_again(&self) -> bool {
        self.method.is_repeatable() || !self.may_have_arrived
    }

    pub(super) fn charge(&mut self, node: NodeId, result: bool) {
        self.tries.charge(&self.calls.pool, node, result);
    }

    /// An attempt at `node`, with the means to try another node beside it when it is slow.
    pub(super) fn slow_attempt(&self, node: NodeId) -> SlowAttempt<'a, '_> {
        let Self { calls, request, method, terms, blocks, deadline, patience, ref shut, .. } = *self;
        let Tries { kind, ref tried, .. } = self.tries;
        let (started, in_line) = (Instant::now(), self.tries.is_in_line());
        let attempt_timeout = patience.attempt_timeout;
        SlowAttempt {
            calls,
            request,
            method,
            terms,
            kind,
            blocks,
            deadline,
            attempt_timeout,
            node,
            started,
            in_line,
            tried,
            shut,
        }
    }

    /// Chooses the node to try next. `turn` is the call's ticket of the queue, if the call had to
    /// wait. The ticket is held over the attempts of a round, so that no later call is written
    /// before this one. `None` when no further attempt is allowed or worth it.
    async fn next_node(
        &mut self,
        turn: &mut Option<Ticket<'a>>,
    ) -> Result<Option<(NodeId, Option<Scout<'a>>)>, Exit<Calls>> {
        let Calls { pool, queue, settings, .. } = self.calls;
        loop {
            let now = Instant::now();
            let is_unwanted = Leaving::new(self.terms, self.method).is_unwanted();
            if is_unwanted || self.lost >= self.patience.attempts.get() || now >= self.deadline {
                return Ok(None);
            }
            let bytes = self.request.raw.len();
            if let Some(queued) = self.tries.wait_in(queue, bytes).await? {
                *turn = Some(queued);
                if Leaving::new(self.terms, self.method).is_unwanted() {
                    return Ok(None);
                }
            }
            let mut rest = None;
            let has_word = self.doubtful.is_some() || self.null.is_some();
            if self.tries.attempts < self.patience.attempts.get() {
                let Tries { kind, again, .. } = self.tries;
                // A round begins anew, but a node does not get the method or the blocks meanwhile.
                let mut tried = [&self.tries.tried[..], &self.lacking_nodes, &self.shut].concat();
                if has_word {
                    // A second opinion is not worth asking of a node that is unwell.
                    tried.extend(NodeId::all(pool.nodes.len()).filter(|node| !pool.is_usable(*node)));
                }
                let (policy, class, blocks) = (settings.policy, self.method.class, self.blocks_to_ask_for());
                let choose = if self.tries.is_in_line() { shortest_line } else { choose };
                let method = &self.request.method;
                let tried = &tried;
                let query = NodeQuery { policy, class, kind, method, blocks, tried, again, is_urgent: false };
                match choose(pool, query) {
                    Choice::Node(node, scout) => {
                        if settings.policy != Policy::First {
                            pool.catch_up(node);
                        }
                        return Ok(Some((node, scout)));
                    }
                    Choice::Rest(end) => rest = Some(end),
                    Choice::Nowhere if pool.no_node_is_for(self.method.id, method) => {
                        return Err(Refusal::NotOffered(method.to_string()).into());
                    }
                    Choice::Nowhere => {}
                }
            }
            // The round is over, and other calls need not wait for the next round. An answer that a
            // node gave is better than a wait for another node.
            *turn = None;
            if let Some(null) = &mut self.null {
                let Some(pause) = null.pause(now) else { return Ok(None) };
                queue.pause(pause.min(self.deadline - now), bytes).await?;
                self.tries.tried.clear();
                self.tries.attempts = 0;
                continue;
            }
            // A node that rests, or refused this call for quota, may have the method.
            let lacks_all = self.lacking.is_some() && rest.is_none() && self.refused.until.is_none();
            let has_answer = self.doubtful.is_some() || self.best.is_some() || lacks_all;
            if has_answer || self.rejected.is_some() || self.is_too_long {
                return Ok(None);
            }
            if self.method.class == Class::RawTransaction && self.unsure && self.refused.until.is_some() {
                // Other nodes can say no more than that the transaction may have arrived.
                return Ok(None);
            }
            if !self.tries.gets_in_line() && !self.tries.pause(queue, rest, bytes).await? {
                return Ok(None);
            }
            self.tries.attempts = 0;
        }
    }
}
