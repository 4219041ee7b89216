//! One attempt at one node: what came of it, and whom that speaks of.

use std::{future::poll_fn, ops::Range, pin::pin, task::Poll, time::Duration};

use tokio::time::Instant;

use super::{
    alarm::Alarm,
    answer::{Answer, Kind},
    hold::Turn,
};
use crate::{
    config::Verify,
    domain::{answer::Blame, call_id::Outbound, method::Again, quota},
    metrics::AttemptOutcome,
    net::{
        link,
        places::Rank,
        upstream::{Error, Gate, Post, Progress, Sending},
    },
    pool::{
        ask::{is_refusal, link_trouble, trouble, wait},
        board::Trouble,
        health::Fault,
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
    /// Its id, a part of the body. Of one that has none, any answer is that it was taken; nodes send an empty one.
    pub(super) id: Option<&'a [u8]>,
    pub(super) verify: Verify,
    pub(super) limit: Instant,
}

/// What came of an attempt.
pub(super) enum Sent {
    /// A result.
    Answered(Answer),
    /// An error that speaks of the call.
    OfTheCaller(Answer),
    /// Something that speaks of the node: with a JSON-RPC answer, if there is one, and with evidence against it, if it is any.
    OfTheNode(Option<Answer>, Option<Trouble>),
    /// The node refused the call for quota or place, with a JSON-RPC answer, if there is one, and for as long as this, if it said so.
    Refused(Option<Answer>, Option<Duration>),
    /// The node would not take the call at all, with this HTTP status and no JSON-RPC error: it speaks of the call, or of who we are to
    /// the node, and will say the same again.
    Rejected(u16),
    /// No byte of the call left; with evidence against the node, if it is any.
    Nothing(Option<Trouble>),
    /// The call may have arrived, and no answer came; with evidence against the node, if it is any.
    Lost(Option<Trouble>),
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

impl Attempt<'_> {
    /// Makes the attempt, in its turn if it has to wait for one. The flag tells that it took two goes at the node, the first of which may
    /// have arrived.
    pub(super) async fn run(&self, turn: &mut Option<Turn<'_>>, alarm: &mut Alarm) -> (Sent, bool) {
        let started = Instant::now();
        let goes_out = self.node.goes_out();
        if self.again != Again::Never && self.node.is_out() {
            // It went out after it was chosen.
            return (Sent::Nothing(None), false);
        }
        let mut count = Count::new(self.node, started);
        let _owed = self.node.traffic.owes(started);
        let mut progress = Progress::default();
        // All arms are cancel-safe: an exchange given up closes its connection, and the other two only wait.
        let sent = tokio::select! {
            biased;
            sent = self.exchange(turn, &mut progress) => {
                count.outcome = match &sent {
                    Sent::Answered(_) | Sent::OfTheCaller(_) => AttemptOutcome::Answered,
                    Sent::OfTheNode(..) | Sent::Rejected(_) => AttemptOutcome::NodeFault,
                    Sent::Refused(..) => AttemptOutcome::Refused,
                    Sent::Nothing(_) => AttemptOutcome::Unreachable,
                    Sent::Lost(_) => AttemptOutcome::Dropped,
                };
                sent
            }
            () = goes_out, if self.again != Again::Never => if progress.waits { Sent::Nothing(None) } else { Sent::Lost(None) },
            // The node takes no more connections, which is no silence.
            () = alarm.at(self.limit) => if progress.waits { Sent::Nothing(None) } else {
                count.outcome = AttemptOutcome::Timeout;
                let text = format!("no answer to a call within {:?}", self.limit - started);
                Sent::Lost(Some(Trouble { fault: Fault::Silent, text }))
            }
        };
        (sent, progress.again)
    }

    async fn exchange(&self, turn: &mut Option<Turn<'_>>, progress: &mut Progress) -> Sent {
        let Some(upstream) = &self.node.upstream else {
            // In a box, so that calls over HTTP do not carry the room for it.
            return Box::pin(self.over_link(turn)).await;
        };
        let own = upstream.call_id();
        let body = Outbound::new(self.body, self.id.and_then(|id| place(self.body, id)), &own);
        let sending = match self.again {
            Again::Anywhere => Sending::Freely,
            Again::Elsewhere => Sending::Once,
            Again::Never => Sending::Fresh,
        };
        let post = Post { headers: self.headers, body, sending, rank: Rank::Call };
        let response = match upstream.post(post, turn, progress).await {
            Ok(response) => response,
            Err(error) if error.may_have_arrived() => return Sent::Lost(Some(trouble(self.node, &error))),
            Err(error) => return Sent::Nothing(Some(trouble(self.node, &error))),
        };
        let heard = || self.node.traffic.touch(Instant::now());
        heard();
        let wait = wait(&response.head);
        let own = self.id.is_some().then_some(&own);
        match Answer::read(response, own, self.verify, heard).await {
            Ok(answer) => self.classify(answer, wait),
            Err(broken) => Sent::Lost(Some(trouble(self.node, &Error::Broken { broken, reused: false }))),
        }
    }

    async fn over_link(&self, turn: &mut Option<Turn<'_>>) -> Sent {
        let Some(link) = &self.node.link else { return Sent::Nothing(None) };
        poll_fn(|context| turn.poll_open(context)).await;
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
                self.classify(Answer::whole(answer.text, answer.id), None)
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
            answer.conceal(|text| self.node.conceal(text));
        }
        let failing = |what: &str| {
            let text = format!("a call was answered with HTTP status {status}{what}");
            Trouble { fault: Fault::Failing, text }
        };
        if is_refusal(status, wait) {
            return Sent::Refused((answer.kind == Kind::Error).then_some(answer), wait);
        }
        // Who we are to the node, and where it is, another node sees otherwise; what is wrong with the call it does not.
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
                let (blame, code, is_quota) = error.map_or((Blame::Caller, 0, false), |error| {
                    (error.blame(), error.code, quota::is_quota(error.code, &error.message))
                });
                match blame {
                    _ if is_quota => Sent::Refused(Some(answer), wait),
                    _ if of_the_gateway => Sent::OfTheNode(Some(answer), None),
                    _ if of_the_node => Sent::OfTheNode(Some(answer), Some(failing(""))),
                    Blame::Caller => Sent::OfTheCaller(answer),
                    Blame::Node => {
                        // An internal error is the node's, as far as can be told; all others may be the call's.
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
