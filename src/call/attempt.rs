//! An attempt at one node: the outcome, and whether client or node is to blame for a failure.

use std::{
    future::{Future, poll_fn},
    ops::Range,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::{
    sync::futures::Notified,
    time::{Instant, sleep_until},
};

use super::{
    alarm::Alarm,
    answer::{Answer, Kind, Unread},
    leaving::{Leaving, Wanted},
    slow_attempt::{Beside, Next, SlowAttempt},
};
use crate::{
    config::Verify,
    domain::{
        answer::{Blame, Lacked},
        call_id::Outbound,
        method::MethodId,
        node_id::NodeId,
        quota,
    },
    exchange::{attempt_count::Count, queue::Ticket, trace::Trace},
    memory::{Account, Full},
    metrics::{AttemptOutcome, Payer},
    net::{
        BoxFuture,
        http::{Error, Gate, Post, Progress, Sending},
        link,
        node_connections::{Caller, Rank},
    },
    pool::{
        ask::{is_refusal, link_trouble, trouble, wait},
        health::{Fault, Trouble},
        node::Node,
        paid::Paid,
    },
};

/// An attempt at one node.
pub(super) struct Attempt<'a> {
    pub(super) node: &'a Node,
    pub(super) method: MethodId,
    /// The credits that the call costs at the node.
    pub(super) cost: u32,
    /// The request as the client sent it.
    pub(super) body: &'a [u8],
    /// Header lines to send along.
    pub(super) headers: &'a [u8],
    /// The notes on the request, if there are any.
    pub(super) trace: Option<&'a Trace>,
    /// Whether the call may be sent again when its answer was lost.
    pub(super) is_repeatable: bool,
    /// The call's id, a part of the body. Nodes answer a call without an id with an empty body, and
    /// any answer to it is taken as success.
    pub(super) id: Option<&'a [u8]>,
    pub(super) verify: Verify,
    /// Whether the call is still to be sent when its client has closed its side.
    pub(super) leaving: Leaving<'a>,
    /// The account that the answer's bytes count for; none for the proxy's own requests.
    pub(super) memory: Option<&'a Arc<Account>>,
    /// The client, if it may have many calls under way.
    pub(super) caller: Option<&'a Arc<Caller>>,
    /// Whether every node is full, so that the call waits in line at this one.
    pub(super) in_line: bool,
    /// The time before which no second attempt is begun.
    pub(super) second_attempt_from: Instant,
    /// The deadline of the call.
    pub(super) limit: Instant,
}

/// The outcome of an attempt.
pub(super) enum Sent {
    /// A result.
    Answered(Answer),
    /// An error that is about the call.
    OfTheCaller(Answer),
    /// An error that may be about the call or about the node: one answer does not decide which.
    OfNobody(Answer),
    /// A failure of the node: with a JSON-RPC answer, if the node gave one, and evidence against
    /// the node, if the failure is any.
    OfTheNode(Option<Answer>, Option<Trouble>),
    /// The node lacks the method, and did nothing; or the node lacks a block or data of a block,
    /// which only a call that may be repeated has as its outcome.
    Lacking(Lacked, Answer),
    /// The node refused the call for quota or for its load: with a JSON-RPC answer, if the node
    /// gave one, and the time to wait, if the node named one.
    Refused(Option<Answer>, Option<Duration>),
    /// The node refused the call with this HTTP status and no JSON-RPC error. The status is about
    /// the call or about the proxy's credentials, so the node would refuse the call again.
    Rejected(u16),
    /// The client has left, and a call with an effect is not sent then; or others took the node's
    /// last credits.
    Unwanted,
    /// No byte of the call left; with evidence against the node, if there is any.
    Nothing(Option<Trouble>),
    /// The call may have arrived, and no answer came; with evidence against the node, if there is
    /// any.
    Lost(Option<Trouble>),
    /// The node answers with more than a link takes. Over HTTP the answer can be had.
    TooLong,
    /// The node answers, but the memory limit has no room for the answer.
    NoRoom(Full),
}

impl Sent {
    /// Whether the node has given an answer for the client, or would have if memory had room.
    fn is_word(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::OfTheCaller(_) | Self::OfNobody(_) | Self::NoRoom(_))
    }

    /// The outcome of an attempt at `node`: an answer has the node as its source.
    pub(super) fn of(mut self, node: NodeId) -> Self {
        match &mut self {
            Self::Answered(answer)
            | Self::OfTheCaller(answer)
            | Self::OfNobody(answer)
            | Self::Lacking(_, answer)
            | Self::OfTheNode(Some(answer), _)
            | Self::Refused(Some(answer), _) => answer.node = Some(node),
            _ => {}
        }
        self
    }

    /// The evidence against the node in words, if there is any.
    fn words(&self) -> Option<&str> {
        match self {
            Self::OfTheNode(_, trouble) | Self::Nothing(trouble) | Self::Lost(trouble) => {
                trouble.as_ref().map(|trouble| &*trouble.text)
            }
            _ => None,
        }
    }

    fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Answered(_) | Self::OfTheCaller(_) | Self::OfNobody(_) | Self::NoRoom(_) | Self::TooLong => {
                AttemptOutcome::Answered
            }
            Self::OfTheNode(..) | Self::Rejected(_) => AttemptOutcome::NodeFault,
            Self::Lacking(..) => AttemptOutcome::Lacking,
            Self::Refused(..) => AttemptOutcome::Refused,
            Self::Unwanted => AttemptOutcome::Abandoned,
            Self::Nothing(_) => AttemptOutcome::Unreachable,
            Self::Lost(_) => AttemptOutcome::Dropped,
        }
    }
}

/// The course of a second attempt.
#[derive(Default)]
struct Second {
    was_begun: bool,
    in_vain: Option<Box<(NodeId, Sent)>>,
}

/// Waits for the outcome of the second attempt; for ever if there is none.
async fn second(beside: &mut Option<(NodeId, BoxFuture<'_, Sent>)>) -> Sent {
    match beside {
        Some((_, running)) => running.as_mut().await,
        None => std::future::pending().await,
    }
}

/// How an attempt ended.
enum End {
    Sent(Sent),
    WentOut,
    Overdue,
    /// The second attempt, at the node of this index, had an answer for the client first.
    Beside(NodeId, Sent),
}

/// The outcome of an attempt and of a second one beside it.
pub(super) struct Ran {
    pub(super) sent: Sent,
    /// Whether the request was sent again on a fresh connection; the first sending may have
    /// arrived.
    pub(super) again: bool,
    /// If `sent` is the second attempt's: its node, and the evidence against the first node.
    pub(super) beside: Option<(NodeId, Trouble)>,
    /// The node and outcome of a second attempt that brought no answer for the client.
    pub(super) in_vain: Option<Box<(NodeId, Sent)>>,
    /// Whether a second attempt was begun.
    pub(super) had_second: bool,
}

impl Attempt<'_> {
    /// Makes the attempt, in its turn if the call waited in the queue. When the attempt takes long,
    /// `late` decides about a second one beside it.
    pub(super) async fn run(
        &self,
        turn: &mut Option<Ticket<'_>>,
        alarm: &mut Alarm,
        late: &SlowAttempt<'_, '_>,
    ) -> Ran {
        let started = late.started;
        let goes_out = self.node.goes_out();
        if self.is_over() {
            return Ran { sent: Sent::Nothing(None), again: false, beside: None, in_vain: None, had_second: false };
        }
        let mut count = Count::new(self.node, self.method, started, self.trace);
        let lines = count.lines(self.headers);
        let owed = self.node.traffic.track(started);
        let mut progress = Progress::default();
        let mut second = Second::default();
        let end = {
            let mut gate = Wanted { turn, leaving: self.leaving };
            let mut exchange = pin!(self.exchange(lines.as_deref(), &mut gate, &mut progress));
            let mut goes_out = pin!(goes_out);
            // All arms are cancel-safe: an exchange given up closes its connection, and the other
            // two only wait.
            let soon = tokio::select! {
                biased;
                sent = exchange.as_mut() => Some(End::Sent(sent)),
                () = goes_out.as_mut(), if self.is_repeatable => Some(End::WentOut),
                () = alarm.at(self.second_attempt_from) => None,
            };
            match soon {
                Some(end) => end,
                None => Box::pin(self.go_on(exchange, goes_out, late, &mut second)).await,
            }
        };
        drop(owed);
        let text = || format!("no answer to a call within {:?}", Instant::now() - started);
        let silent = || Trouble { fault: Fault::Silent, text: text() };
        let sent = match end {
            End::Sent(sent) => {
                count.outcome = sent.outcome();
                count.failed(sent.words());
                sent
            }
            End::Beside(node, sent) => {
                count.outcome = AttemptOutcome::Timeout;
                let beside = Some((node, silent()));
                return Ran { sent, again: progress.again, beside, in_vain: None, had_second: true };
            }
            // The node takes no more connections, which does not mean that the node is silent.
            End::WentOut | End::Overdue if progress.waits => Sent::Nothing(Some(Trouble::full())),
            End::WentOut => Sent::Lost(None),
            End::Overdue => {
                count.outcome = AttemptOutcome::Timeout;
                Sent::Lost(Some(silent()))
            }
        };
        let Second { in_vain, was_begun: had_second } = second;
        Ran { sent, again: progress.again, beside: None, in_vain, had_second }
    }

    /// Waits on for an attempt that takes long, beside a second one if `late` begins one.
    async fn go_on<'p>(
        &self,
        mut exchange: Pin<&'p mut (impl Future<Output = Sent> + Send)>,
        mut goes_out: Pin<&'p mut Notified<'_>>,
        late: &SlowAttempt<'_, '_>,
        second_one: &mut Second,
    ) -> End {
        let mut look = Instant::now();
        let mut beside: Option<(NodeId, BoxFuture<'_, Sent>)> = None;
        let mut may_have_another = true;
        loop {
            let due = if may_have_another { look.min(self.limit) } else { self.limit };
            // All arms are cancel-safe.
            let end = tokio::select! {
                biased;
                sent = exchange.as_mut() => End::Sent(sent),
                () = goes_out.as_mut(), if self.is_repeatable => End::WentOut,
                sent = second(&mut beside) => {
                    let node = beside.take().map_or(late.node, |(node, _)| node);
                    if sent.is_word() {
                        return End::Beside(node, sent);
                    }
                    second_one.in_vain = Some(Box::new((node, sent)));
                    continue;
                }
                () = sleep_until(due) => {
                    if Instant::now() >= self.limit {
                        return End::Overdue;
                    }
                    match late.next() {
                        Next::At(then) => look = then,
                        Next::Beside(another) => {
                            may_have_another = false;
                            second_one.was_begun = true;
                            let Beside { node, attempt, scout } = *another;
                            beside = Some((node, Box::pin(async move {
                                let _scout = scout;
                                attempt.alone().await
                            })));
                        }
                    }
                    continue;
                }
            };
            let has_word = matches!(&end, End::Sent(sent) if sent.is_word());
            let Some((node, running)) = beside.filter(|_| !has_word) else { return end };
            // The first attempt has failed, and the second may succeed.
            let sent = running.await;
            if sent.is_word() {
                return End::Beside(node, sent);
            }
            second_one.in_vain = Some(Box::new((node, sent)));
            return end;
        }
    }

    /// Makes the attempt at once, without a turn and without a second attempt.
    pub(super) async fn alone(&self) -> Sent {
        self.behind(&mut Wanted { turn: &mut None, leaving: self.leaving }).await
    }

    /// Makes the attempt without a second one; `gate` decides when the call is written.
    pub(super) async fn behind(&self, gate: &mut impl Gate) -> Sent {
        let started = Instant::now();
        let goes_out = self.node.goes_out();
        if self.is_over() {
            return Sent::Nothing(None);
        }
        let mut count = Count::new(self.node, self.method, started, self.trace);
        let lines = count.lines(self.headers);
        let _owed = self.node.traffic.track(started);
        let mut progress = Progress::default();
        // All arms are cancel-safe.
        let outcome = tokio::select! {
            biased;
            sent = self.exchange(lines.as_deref(), gate, &mut progress) => {
                count.outcome = sent.outcome();
                count.failed(sent.words());
                return sent;
            }
            () = goes_out => AttemptOutcome::Abandoned,
            () = sleep_until(self.limit) => AttemptOutcome::Timeout,
        };
        // Nothing is written before there is a connection.
        if progress.waits {
            return Sent::Nothing(Some(Trouble::full()));
        }
        count.outcome = outcome;
        Sent::Lost(None)
    }

    /// Whether the node went out after the call chose it.
    fn is_over(&self) -> bool {
        self.is_repeatable && self.node.is_out()
    }

    /// Sends the call with `lines`, or with the client's own where there are none, and reads the
    /// answer.
    async fn exchange(&self, lines: Option<&[u8]>, gate: &mut impl Gate, progress: &mut Progress) -> Sent {
        let gate = &mut Paid::new(gate, self.node, self.cost, Payer::Call);
        let Some(upstream) = &self.node.upstream else {
            // In a box, so that the futures of calls over HTTP are no larger.
            return Box::pin(self.over_link(gate)).await;
        };
        let own = upstream.call_id();
        let body = Outbound::new(self.body, self.id.and_then(|id| place(self.body, id)), &own);
        let sending = if self.is_repeatable { Sending::Repeatable } else { Sending::Once };
        let Self { headers, caller, in_line, .. } = *self;
        let headers = lines.unwrap_or(headers);
        let post = Post { headers, body, sending, rank: Rank::Call, caller, in_line };
        let response = match upstream.post(post, gate, progress).await {
            Ok(response) => response,
            Err(Error::Unwanted) => return Sent::Unwanted,
            Err(error) if error.may_have_arrived() => return Sent::Lost(Some(trouble(self.node, &error))),
            Err(error) => return Sent::Nothing(Some(trouble(self.node, &error))),
        };
        let heard = || self.node.traffic.touch(Instant::now());
        heard();
        let wait = wait(&response.head);
        let own = self.id.is_some().then_some(&own);
        match Answer::read(response, own, self.verify, self.memory, heard).await {
            Ok(answer) => self.classify(answer, wait),
            Err(Unread::Broken(broken)) => Sent::Lost(Some(trouble(self.node, &Error::Broken { broken }))),
            Err(Unread::NoRoom(full)) => Sent::NoRoom(full),
        }
    }

    async fn over_link(&self, gate: &mut impl Gate) -> Sent {
        let Some(link) = &self.node.link else { return Sent::Nothing(None) };
        poll_fn(|context| gate.poll_open(context)).await;
        if gate.is_shut() {
            return Sent::Unwanted;
        }
        let mut call = pin!(link.call(self.body, self.id.and_then(|id| place(self.body, id))));
        // The link writes calls in the order in which they are first polled.
        let first = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        gate.written();
        let outcome = match first {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => call.await,
        };
        match outcome {
            Ok(answer) => {
                self.node.traffic.touch(Instant::now());
                let mut answer = Answer::whole(answer.text, answer.id);
                match self.memory.map_or(Ok(()), |memory| answer.charge_to(memory)) {
                    Ok(()) => self.classify(answer, None),
                    Err(full) => Sent::NoRoom(full),
                }
            }
            // The link is up, so its queue was full, which is no evidence against the node.
            Err(link::Error::NotSent) if link.is_up() => Sent::Nothing(None),
            Err(error @ link::Error::NotSent) => Sent::Nothing(Some(link_trouble(self.node, link, error))),
            Err(link::Error::TooLong) => {
                self.node.traffic.touch(Instant::now());
                Sent::TooLong
            }
            Err(error @ link::Error::Lost) => Sent::Lost(Some(link_trouble(self.node, link, error))),
        }
    }

    /// Decides from an answer whether call or node is to blame. `wait` is the pause that a refusal
    /// names.
    fn classify(&self, mut answer: Answer, wait: Option<Duration>) -> Sent {
        let status = answer.status;
        // Gateways often repeat the request's URL, which may hold a key.
        if answer.kind != Kind::Result && self.node.has_secrets() {
            answer.redact(|text| self.node.redact(text));
        }
        let failing = |what: &str| {
            let text = format!("a call was answered with HTTP status {status}{what}");
            Trouble { fault: Fault::Failing, text }
        };
        // A result may speak of anything: beside a result only a header names a wait.
        let wait_in = |answer: &mut Answer| match answer.kind {
            Kind::Result => wait,
            _ => wait.or_else(|| quota::wait_in_words(answer.beginning())),
        };
        if is_refusal(status, wait) {
            let wait = wait_in(&mut answer);
            return Sent::Refused((answer.kind == Kind::Error).then_some(answer), wait);
        }
        // Another node may have other credentials and another place, so these statuses are not
        // about the call.
        let of_the_gateway = matches!(status, 300..=399 | 401 | 403 | 404 | 407);
        let of_the_node = matches!(status, 408 | 500..);
        let is_readable = answer.kind == Kind::Result || (answer.kind == Kind::Error && answer.error().is_some());
        let is_quota = !is_readable && quota::is_quota_in_words(answer.beginning());
        match answer.kind {
            _ if self.id.is_none() && status < 300 => Sent::Answered(answer),
            Kind::Alien(_) | Kind::Error if is_quota => Sent::Refused(None, wait_in(&mut answer)),
            Kind::Alien(_) if (300..500).contains(&status) && !of_the_node => Sent::Rejected(status),
            Kind::Alien(why) => Sent::OfTheNode(None, Some(failing(&format!(": {why}")))),
            Kind::Result if of_the_gateway => Sent::OfTheNode(Some(answer), None),
            Kind::Result if of_the_node => Sent::OfTheNode(Some(answer), Some(failing(""))),
            Kind::Result => Sent::Answered(answer),
            Kind::Error => {
                let error = answer.error();
                let (blame, code, is_quota) = error.map_or((Blame::Unknown, 0, false), |error| {
                    (error.blame(), error.code, quota::is_quota(error.code, &error.message))
                });
                match blame {
                    _ if is_quota => {
                        let wait = wait_in(&mut answer);
                        Sent::Refused(Some(answer), wait)
                    }
                    // Providers say with HTTP 403 that a plan has no old blocks.
                    Blame::Lacking(Lacked::Data) if of_the_gateway && self.is_repeatable => {
                        Sent::Lacking(Lacked::Data, answer)
                    }
                    _ if of_the_gateway => Sent::OfTheNode(Some(answer), None),
                    _ if of_the_node => Sent::OfTheNode(Some(answer), Some(failing(""))),
                    Blame::Caller => Sent::OfTheCaller(answer),
                    Blame::Unknown => Sent::OfNobody(answer),
                    Blame::Lacking(lacked) if lacked == Lacked::Method || self.is_repeatable => {
                        Sent::Lacking(lacked, answer)
                    }
                    Blame::Lacking(_) | Blame::Node => Sent::OfTheNode(Some(answer), Some(erring(code))),
                }
            }
        }
    }
}

/// The evidence of an error with this code that may be the node's fault.
pub(super) fn erring(code: i64) -> Trouble {
    // An internal error is taken as the node's; all other errors may be the call's.
    let fault = if code == -32603 { Fault::Failing } else { Fault::Erring };
    Trouble { fault, text: format!("a call was answered with error {code}, which another node did not give") }
}

/// The range of `part` in `whole`, if `part` is a slice of `whole`.
pub(super) fn place(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (start + part.len() <= whole.len()).then_some(start..start + part.len())
}
