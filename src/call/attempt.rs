//! One attempt at one node: what came of it, and whom that speaks of.

use std::{future::poll_fn, ops::Range, pin::pin, task::Poll};

use tokio::time::Instant;

use super::{
    alarm::Alarm,
    answer::{Answer, Kind},
    hold::Turn,
};
use crate::{
    config::Verify,
    domain::{answer::Blame, call_id::Outbound, method::Again},
    metrics::AttemptOutcome,
    net::{
        link,
        places::Rank,
        upstream::{Error, Gate, Post, Progress, Sending},
    },
    pool::{
        ask::{link_trouble, trouble},
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
    /// The method's place in the table.
    pub(super) place: usize,
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
    /// The node would not take the call at all, with this HTTP status and no JSON-RPC error: it may be the call's doing or the node's.
    Rejected(u16, Trouble),
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
                    Sent::OfTheNode(..) | Sent::Rejected(..) => AttemptOutcome::NodeFault,
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
        let own = self.id.is_some().then_some(&own);
        match Answer::read(response, own, self.verify, heard).await {
            Ok(answer) => self.classify(answer),
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
                self.classify(Answer::whole(answer.text, answer.id))
            }
            // That more came at once than can wait says nothing of the node.
            Err(link::Error::NotSent) if link.is_up() => Sent::Nothing(None),
            Err(error @ link::Error::NotSent) => Sent::Nothing(Some(link_trouble(self.node, link, error))),
            Err(error @ link::Error::Lost) => Sent::Lost(Some(link_trouble(self.node, link, error))),
        }
    }

    fn classify(&self, mut answer: Answer) -> Sent {
        let status = answer.status;
        // Gateways like to repeat the URL they were asked for, and a key may be in it.
        if answer.kind != Kind::Result && self.node.has_secrets() {
            answer.conceal(|text| self.node.conceal(text));
        }
        // What a gateway or a provider says of itself and not of the call.
        let of_the_node = matches!(status, 300..=399 | 401 | 403 | 404 | 407 | 408 | 429 | 500..);
        let failing = |what: &str| {
            let text = format!("a call was answered with HTTP status {status}{what}");
            Trouble { fault: Fault::Failing, text }
        };
        match answer.kind {
            _ if self.id.is_none() && status < 300 => {
                self.node.traffic.answered(self.place);
                Sent::Answered(answer)
            }
            Kind::Alien(_) if (400..500).contains(&status) && !of_the_node => Sent::Rejected(status, failing("")),
            Kind::Alien(why) => Sent::OfTheNode(None, Some(failing(&format!(": {why}")))),
            _ if of_the_node => Sent::OfTheNode(Some(answer), Some(failing(""))),
            Kind::Result => {
                self.node.traffic.answered(self.place);
                Sent::Answered(answer)
            }
            Kind::Error => {
                self.node.traffic.answered(self.place);
                match answer.error().map_or(Blame::Caller, |error| error.blame()) {
                    Blame::Caller => Sent::OfTheCaller(answer),
                    Blame::Node => Sent::OfTheNode(Some(answer), None),
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
