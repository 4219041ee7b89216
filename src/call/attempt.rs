//! One attempt at one node: what came of it, and whom that speaks of.

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
    hold::Turn,
    late::{Beside, Late, Next},
    leaving::{Leaving, Wanted},
};
use crate::{
    config::Verify,
    domain::{answer::Blame, call_id::Outbound, method::Again, quota},
    memory::{Account, Full},
    metrics::AttemptOutcome,
    net::{
        BoxFuture,
        http::{Error, Gate, Post, Progress, Sending},
        link,
        places::{Caller, Rank},
    },
    pool::{
        ask::{is_refusal, link_trouble, trouble, wait},
        health::{Fault, Trouble},
        node::Node,
    },
};

/// An attempt to be made.
pub(super) struct Attempt<'a> {
    pub(super) node: &'a Node,
    /// The request as the client sent it.
    pub(super) body: &'a [u8],
    /// Lines to send along.
    pub(super) headers: &'a [u8],
    /// Where the call may be sent again.
    pub(super) again: Again,
    /// Its id, a part of the body. Of one that has none, any answer is that it was taken; nodes
    /// send an empty one.
    pub(super) id: Option<&'a [u8]>,
    pub(super) verify: Verify,
    /// Whether it is still to be sent when its client has closed its side.
    pub(super) leaving: Leaving<'a>,
    /// Whose bytes the answer is; nobody's if it is for ourselves.
    pub(super) memory: Option<&'a Arc<Account>>,
    /// The client, where it may have many calls under way.
    pub(super) caller: Option<&'a Arc<Caller>>,
    /// Until then nothing is begun beside the attempt.
    pub(super) patience: Instant,
    /// The call's own end.
    pub(super) limit: Instant,
}

/// What came of an attempt.
pub(super) enum Sent {
    /// A result.
    Answered(Answer),
    /// An error that speaks of the call.
    OfTheCaller(Answer),
    /// An error of which nobody can tell from one node's word whom it speaks of.
    OfNobody(Answer),
    /// Something that speaks of the node: with a JSON-RPC answer, if there is one, and with
    /// evidence against it, if it is any.
    OfTheNode(Option<Answer>, Option<Trouble>),
    /// The node refused the call for quota or place, with a JSON-RPC answer, if there is one, and
    /// for as long as this, if it said so.
    Refused(Option<Answer>, Option<Duration>),
    /// The node would not take the call at all, with this HTTP status and no JSON-RPC error: it
    /// speaks of the call, or of who we are to the node, and will say the same again.
    Rejected(u16),
    /// The client has left, and the call is one that is not sent then.
    Unwanted,
    /// No byte of the call left; with evidence against the node, if it is any.
    Nothing(Option<Trouble>),
    /// The call may have arrived, and no answer came; with evidence against the node, if it is any.
    Lost(Option<Trouble>),
    /// The node answers, and there is no room for it here.
    NoRoom(Full),
}

impl Sent {
    /// Whether the node has said something that the client may be told, or would be if there were
    /// room for it.
    fn is_word(&self) -> bool {
        matches!(self, Self::Answered(_) | Self::OfTheCaller(_) | Self::OfNobody(_) | Self::NoRoom(_))
    }

    fn outcome(&self) -> AttemptOutcome {
        match self {
            Self::Answered(_) | Self::OfTheCaller(_) | Self::OfNobody(_) | Self::NoRoom(_) => AttemptOutcome::Answered,
            Self::OfTheNode(..) | Self::Rejected(_) => AttemptOutcome::NodeFault,
            Self::Refused(..) => AttemptOutcome::Refused,
            Self::Unwanted => AttemptOutcome::Abandoned,
            Self::Nothing(_) => AttemptOutcome::Unreachable,
            Self::Lost(_) => AttemptOutcome::Dropped,
        }
    }
}

/// What is known of a second attempt.
#[derive(Default)]
struct Second {
    was_begun: bool,
    in_vain: Option<Box<(usize, Sent)>>,
}

/// What comes of a second attempt, if there is one.
async fn second(beside: &mut Option<(usize, BoxFuture<'_, Sent>)>) -> Sent {
    match beside {
        Some((_, running)) => running.as_mut().await,
        None => std::future::pending().await,
    }
}

/// Counts an attempt, also one that is dropped.
pub(super) struct Count<'a> {
    node: &'a Node,
    started: Instant,
    pub(super) outcome: AttemptOutcome,
}

impl<'a> Count<'a> {
    pub(super) fn new(node: &'a Node, started: Instant) -> Self {
        Self { node, started, outcome: AttemptOutcome::Abandoned }
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.node.metrics.ended(self.outcome, self.started.elapsed().as_secs_f64());
    }
}

/// How an attempt ended.
enum End {
    Sent(Sent),
    WentOut,
    Overdue,
    /// A second attempt, at the node of this index, had a word for the client first.
    Beside(usize, Sent),
}

/// What came of an attempt, or of one that was begun beside it.
pub(super) struct Ran {
    pub(super) sent: Sent,
    /// Whether the attempt took two goes at the node, the first of which may have arrived.
    pub(super) again: bool,
    /// The node that `sent` is of, if it is another one's: what to hold against the first is beside
    /// it.
    pub(super) beside: Option<(usize, Trouble)>,
    /// What came of a second attempt that brought no word: its node, and how it ended.
    pub(super) in_vain: Option<Box<(usize, Sent)>>,
    /// Whether a second attempt was begun.
    pub(super) had_second: bool,
}

impl Attempt<'_> {
    /// Makes the attempt, in its turn if it has to wait for one. When it has taken long, `late` is
    /// asked for another to make beside it.
    pub(super) async fn run(&self, turn: &mut Option<Turn<'_>>, alarm: &mut Alarm, late: &Late<'_, '_>) -> Ran {
        let started = Instant::now();
        let goes_out = self.node.goes_out();
        if self.is_over() {
            return Ran { sent: Sent::Nothing(None), again: false, beside: None, in_vain: None, had_second: false };
        }
        let mut count = Count::new(self.node, started);
        let owed = self.node.traffic.track(started);
        let mut progress = Progress::default();
        let mut second = Second::default();
        let end = {
            let mut exchange = pin!(self.exchange(turn, &mut progress));
            let mut goes_out = pin!(goes_out);
            // All arms are cancel-safe: an exchange given up closes its connection, and the other
            // two only wait.
            let soon = tokio::select! {
                biased;
                sent = exchange.as_mut() => Some(End::Sent(sent)),
                () = goes_out.as_mut(), if self.again != Again::Never => Some(End::WentOut),
                () = alarm.at(self.patience) => None,
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
                sent
            }
            End::Beside(node, sent) => {
                count.outcome = AttemptOutcome::Timeout;
                let beside = Some((node, silent()));
                return Ran { sent, again: progress.again, beside, in_vain: None, had_second: true };
            }
            // The node takes no more connections, which is no silence.
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

    /// Waits on for what takes long, beside another attempt if `late` has one.
    async fn go_on<'p>(
        &self,
        mut exchange: Pin<&'p mut (impl Future<Output = Sent> + Send)>,
        mut goes_out: Pin<&'p mut Notified<'_>>,
        late: &Late<'_, '_>,
        second_one: &mut Second,
    ) -> End {
        let mut look = Instant::now();
        let mut beside: Option<(usize, BoxFuture<'_, Sent>)> = None;
        let mut may_have_another = true;
        loop {
            let due = if may_have_another { look.min(self.limit) } else { self.limit };
            // All arms are cancel-safe.
            let end = tokio::select! {
                biased;
                sent = exchange.as_mut() => End::Sent(sent),
                () = goes_out.as_mut(), if self.again != Again::Never => End::WentOut,
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
                            let Beside { node, attempt, scout } = another;
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
            // The first has failed, and the second may not.
            let sent = running.await;
            if sent.is_word() {
                return End::Beside(node, sent);
            }
            second_one.in_vain = Some(Box::new((node, sent)));
            return end;
        }
    }

    /// Makes the attempt at once, with nothing beside it.
    pub(super) async fn alone(&self) -> Sent {
        let started = Instant::now();
        let goes_out = self.node.goes_out();
        if self.is_over() {
            return Sent::Nothing(None);
        }
        let mut count = Count::new(self.node, started);
        let _owed = self.node.traffic.track(started);
        let (mut turn, mut progress) = (None, Progress::default());
        // All arms are cancel-safe.
        tokio::select! {
            biased;
            sent = self.exchange(&mut turn, &mut progress) => {
                count.outcome = sent.outcome();
                sent
            }
            () = goes_out => Sent::Lost(None),
            () = sleep_until(self.limit) => {
                count.outcome = AttemptOutcome::Timeout;
                Sent::Lost(None)
            }
        }
    }

    /// Whether the node went out after it was chosen.
    fn is_over(&self) -> bool {
        self.again != Again::Never && self.node.is_out()
    }

    async fn exchange(&self, turn: &mut Option<Turn<'_>>, progress: &mut Progress) -> Sent {
        let Some(upstream) = &self.node.upstream else {
            // In a box, so that calls over HTTP do not carry the room for it.
            return Box::pin(self.over_link(turn)).await;
        };
        let own = upstream.call_id();
        let body = Outbound::new(self.body, self.id.and_then(|id| place(self.body, id)), &own);
        let sending = match self.again {
            Again::Anywhere => Sending::Repeatable,
            Again::Never => Sending::Once,
        };
        let post = Post { headers: self.headers, body, sending, rank: Rank::Call, caller: self.caller };
        let mut gate = Wanted { turn, leaving: self.leaving };
        let response = match upstream.post(post, &mut gate, progress).await {
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

    async fn over_link(&self, turn: &mut Option<Turn<'_>>) -> Sent {
        let Some(link) = &self.node.link else { return Sent::Nothing(None) };
        poll_fn(|context| turn.poll_open(context)).await;
        if self.leaving.is_unwanted() {
            return Sent::Unwanted;
        }
        let mut call = pin!(link.call(self.body, self.id.and_then(|id| place(self.body, id))));
        // The link writes calls in the order in which they are first asked about.
        let first = poll_fn(|context| Poll::Ready(call.as_mut().poll(context))).await;
        turn.written();
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
            // That more came at once than can wait says nothing of the node.
            Err(link::Error::NotSent) if link.is_up() => Sent::Nothing(None),
            Err(error @ link::Error::NotSent) => Sent::Nothing(Some(link_trouble(self.node, link, error))),
            Err(error @ link::Error::Lost) => Sent::Lost(Some(link_trouble(self.node, link, error))),
        }
    }

    /// Whom an answer speaks of; a refusal asks to `wait` for so long.
    fn classify(&self, mut answer: Answer, wait: Option<Duration>) -> Sent {
        let status = answer.status;
        // Gateways like to repeat the URL they were asked for, and a key may be in it.
        if answer.kind != Kind::Result && self.node.has_secrets() {
            answer.conceal(|text| self.node.redact(text));
        }
        let failing = |what: &str| {
            let text = format!("a call was answered with HTTP status {status}{what}");
            Trouble { fault: Fault::Failing, text }
        };
        if is_refusal(status, wait) {
            return Sent::Refused((answer.kind == Kind::Error).then_some(answer), wait);
        }
        // Who we are to the node, and where it is, another node sees otherwise; what is wrong with
        // the call it does not.
        let of_the_gateway = matches!(status, 300..=399 | 401 | 403 | 404 | 407);
        let of_the_node = matches!(status, 408 | 500..);
        let is_readable = answer.kind == Kind::Result || (answer.kind == Kind::Error && answer.error().is_some());
        let is_quota = !is_readable && quota::is_quota_in_words(answer.beginning());
        match answer.kind {
            _ if self.id.is_none() && status < 300 => Sent::Answered(answer),
            Kind::Alien(_) | Kind::Error if is_quota => Sent::Refused(None, wait),
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
                    _ if is_quota => Sent::Refused(Some(answer), wait),
                    _ if of_the_gateway => Sent::OfTheNode(Some(answer), None),
                    _ if of_the_node => Sent::OfTheNode(Some(answer), Some(failing(""))),
                    Blame::Caller => Sent::OfTheCaller(answer),
                    Blame::Unknown => Sent::OfNobody(answer),
                    Blame::Node => {
                        // An internal error is the node's, as far as can be told; all others may be
                        // the call's.
                        let fault = if code == -32603 { Fault::Failing } else { Fault::Erring };
                        let text = format!("a call was answered with error {code}, which another node did not give");
                        Sent::OfTheNode(Some(answer), Some(Trouble { fault, text }))
                    }
                }
            }
        }
    }
}

/// Where `part` stands in `whole`, if it is a part of it.
fn place(whole: &[u8], part: &[u8]) -> Option<Range<usize>> {
    let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
    (start + part.len() <= whole.len()).then_some(start..start + part.len())
}
