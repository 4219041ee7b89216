//! Whose turn it is: how many calls of one client are under way, which of them wait, and which are
//! refused.
//!
//! The client is read all the while, since its pings and its close must not wait for its calls.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::{CROWDED, Event, FAREWELL, GONE, Session, Standing, State};
use crate::{
    domain::refusal::Refusal,
    door::ws::{
        frame::{Closing, NO_ROOM},
        message::{Message, Network},
        reader::Reader,
    },
    memory::{CALL, Claim},
    metrics::Ended,
};

/// Calls that wait for their turn at once, at most; further ones are refused.
const MAX_QUEUED: usize = 1024;

/// A message that waits for its turn.
pub(super) struct Queued {
    message: Message,
    calls: usize,
    arrived: Instant,
    /// What the message takes until its calls are answered.
    claim: Claim,
}

impl Session {
    /// Serves a message, has it wait for its turn, or refuses its calls.
    pub(super) fn admit(&mut self, message: Message) {
        self.metrics.messages_in(1);
        let Some(network) = self.behind() else { return self.leave(GONE) };
        let max_batch = network.calls.settings().max_batch.get();
        let calls = message.calls(max_batch);
        let arrived = self.heard;
        let mut claim = self.mailbox.memory().incoming();
        let weight = message.text.len() + CALL;
        if claim.resize(weight).is_err() {
            // One at a time each client may have served.
            if self.served > 0 || !self.queue.is_empty() {
                return self.close(&Closing::new(Closing::TRY_AGAIN, NO_ROOM));
            }
            claim.set(weight);
        }
        let queued = Queued { message, calls, arrived, claim };
        if self.queue.is_empty() && self.has_turn(calls) {
            return self.serve(network, queued);
        }
        let bytes = self.served_bytes + self.queued_bytes;
        let is_full = self.queued_calls > 0 && self.queued_calls + calls > MAX_QUEUED;
        if is_full || bytes > self.limits.max_message {
            let refusal = Refusal::Limit { name: "max_calls", limit: self.limits.max_calls };
            return self.client.refuse(&queued.message, max_batch, &refusal);
        }
        self.queued_calls += calls;
        self.queued_bytes += queued.message.text.len();
        self.queue.push_back(queued);
    }

    /// Whether so many more calls may begin: not while many are under way, or the client takes
    /// little of what it gets.
    fn has_turn(&self, calls: usize) -> bool {
        (self.calls == 0 || self.calls + calls <= self.limits.max_calls)
            && self.served_bytes <= self.limits.max_message
            && self.mailbox.waiting_bytes() + self.writer.waiting() <= self.limits.max_outbound / 4
    }

    /// Begins to serve those whose turn has come.
    pub(super) fn take_turns(&mut self) {
        while matches!(self.state, State::Open | State::Leaving(_))
            && self.queue.front().is_some_and(|first| self.has_turn(first.calls))
        {
            let (Some(network), Some(first)) = (self.behind(), self.queue.pop_front()) else {
                return self.leave(GONE);
            };
            if self.queue.is_empty() {
                self.queue = VecDeque::new();
            }
            self.queued_calls -= first.calls;
            self.queued_bytes -= first.message.text.len();
            self.serve(network, first);
            self.is_work_new = true;
        }
    }

    /// Begins to serve a message.
    fn serve(&mut self, network: Network, queued: Queued) {
        let Queued { message, calls, arrived, claim } = queued;
        let (client, bytes) = (self.client.clone(), message.text.len());
        self.served += 1;
        self.calls += calls;
        self.served_bytes += bytes;
        self.note_idleness();
        self.work.push(Box::pin(async move {
            let outcome = client.serve(&network, &message, arrived).await;
            drop(claim);
            Event::Served(calls, bytes, outcome)
        }));
    }

    /// Leaves its place to another. The client is told behind what waits for it, if it takes that
    /// at once, or soon and few others do so now.
    pub(super) fn make_room(&mut self) {
        let standing = std::mem::replace(&mut self.standing, Standing::Left);
        let Standing::Seated(place) = standing else { return };
        if let Some(linger) = place.lingers(self.writer.waiting() + self.mailbox.waiting_bytes()) {
            self.standing = Standing::Lingers(linger);
        }
        match self.state {
            // Something may have begun in the same moment.
            State::Open | State::Leaving(_) if self.served > 0 || !self.queue.is_empty() => self.close(&CROWDED),
            State::Open | State::Leaving(_) => {
                self.state = State::Leaving(CROWDED);
                self.at(Instant::now() + FAREWELL, || Event::Farewell);
            }
            // Its own close is not waited for any longer.
            State::Closing | State::Answering => self.state = State::Answering,
        }
    }

    /// Gives up all that the client makes the proxy hold, which is needed for others.
    pub(super) fn cut(&mut self) {
        self.metrics.client_ended(Ended::Memory);
        // What it does not take at once is not kept for it.
        self.standing = Standing::Left;
        self.close(&Closing::new(Closing::TRY_AGAIN, NO_ROOM));
        self.reader = Reader::new(Bytes::new(), self.limits.max_message);
        if matches!(self.state, State::Closing) {
            self.state = State::Answering;
        }
    }

    /// Says at the connection's place whether it has anything that its end would cost.
    pub(super) fn note_idleness(&mut self) {
        let is_idle = self.served == 0 && self.queue.is_empty() && self.client.subscriptions.is_empty();
        let Standing::Seated(place) = &self.standing else { return };
        match (self.is_idle, is_idle) {
            // One that has to go already hears of it.
            (true, false) => self.is_idle = !place.begins(),
            (false, true) => {
                self.is_idle = true;
                place.rests(Instant::now());
            }
            _ => {}
        }
    }

    /// Says at the connection's place that the client moves bytes, and is idle only since then.
    pub(super) fn refreshes(&self, since: Instant) {
        if let (true, Standing::Seated(place)) = (self.is_idle, &self.standing) {
            place.refreshes(since);
        }
    }
}
