//! The turns of one client's calls: how many are under way, which wait, and which are refused.
//!
//! The client's frames are read all the while, since pings and the close frame must not wait for
//! calls.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::{CLOSE_TIMEOUT, CROWDED, Event, GONE, SeatState, Session, State};
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
    /// The memory of the message until its calls are answered.
    claim: Claim,
}

impl Session {
    /// Serves a message, has it wait for its turn, or refuses its calls.
    pub(super) fn admit(&mut self, message: Message) {
        self.metrics.messages_in(1);
        let Some(network) = self.behind() else {
            drop(self.reader.take_claim());
            return self.leave(GONE);
        };
        let max_batch = network.calls.settings().max_batch.get();
        let calls = message.calls(max_batch);
        let arrived = self.heard;
        // The bytes stay counted all the while.
        let mut claim = self.reader.take_claim().map_or_else(|| self.mailbox.memory().incoming(), |claim| *claim);
        let weight = message.text.len() + CALL;
        if claim.resize(weight).is_err() {
            // Each client may have one message served at a time, also without memory.
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
        let refusal = match () {
            () if is_full => Some(Refusal::Limit { name: "max_calls", limit: self.limits.max_calls }),
            () if bytes > self.limits.max_message => {
                Some(Refusal::Limit { name: "max_message", limit: self.limits.max_message })
            }
            () => None,
        };
        if let Some(refusal) = refusal {
            return self.client.refuse(&queued.message, max_batch, &refusal);
        }
        self.queued_calls += calls;
        self.queued_bytes += queued.message.text.len();
        self.queue.push_back(queued);
    }

    /// Whether `calls` more calls may begin: not while many are under way, or while the client
    /// takes few of its bytes.
    fn has_turn(&self, calls: usize) -> bool {
        (self.calls == 0 || self.calls + calls <= self.limits.max_calls)
            && self.served_bytes <= self.limits.max_message
            && self.mailbox.waiting_bytes() + self.writer.waiting() <= self.limits.max_outbound / 4
    }

    /// Begins to serve the messages whose turn has come.
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

    /// Leaves its place to another connection. The client is sent a close frame behind its waiting
    /// messages, if the client takes them at once, or soon while few others do so.
    pub(super) fn make_room(&mut self) {
        let standing = std::mem::replace(&mut self.standing, SeatState::Left);
        let SeatState::Seated(place) = standing else { return };
        if let Some(linger) = place.lingers(self.writer.waiting() + self.mailbox.waiting_bytes()) {
            self.standing = SeatState::Lingers(linger);
        }
        match self.state {
            // A call may have begun in the same moment.
            State::Open | State::Leaving(_) if self.served > 0 || !self.queue.is_empty() => self.close(&CROWDED),
            State::Open | State::Leaving(_) => {
                self.state = State::Leaving(CROWDED);
                self.at(Instant::now() + CLOSE_TIMEOUT, || Event::Farewell);
            }
            // The client's close frame is not waited for any longer.
            State::Closing | State::Answering => self.state = State::Answering,
        }
    }

    /// Gives up all memory that the client makes the proxy hold, because others need the memory.
    pub(super) fn cut(&mut self) {
        self.metrics.client_ended(Ended::Memory);
        // Bytes that the client does not take at once are dropped.
        self.standing = SeatState::Left;
        self.close(&Closing::new(Closing::TRY_AGAIN, NO_ROOM));
        self.reader = Reader::new(Bytes::new(), self.limits.max_message);
        if matches!(self.state, State::Closing) {
            self.state = State::Answering;
        }
    }

    /// Notes at the connection's place whether the connection has calls or subscriptions, which its
    /// end would cost.
    pub(super) fn note_idleness(&mut self) {
        let is_idle = self.served == 0 && self.queue.is_empty() && self.client.subscriptions.is_empty();
        let SeatState::Seated(place) = &self.standing else { return };
        match (self.is_idle, is_idle) {
            // A connection that has to go already will see [`Event::Crowded`].
            (true, false) => self.is_idle = !place.begins(),
            (false, true) => {
                self.is_idle = true;
                place.rests(Instant::now());
            }
            _ => {}
        }
    }

    /// Notes at the connection's place that the client moves bytes, and counts as idle only since
    /// then.
    pub(super) fn refreshes(&self, since: Instant) {
        if let (true, SeatState::Seated(place)) = (self.is_idle, &self.standing) {
            place.refreshes(since);
        }
    }
}
