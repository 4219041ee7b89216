//! Clients that take or send a little now and then: each is measured against a least rate, and
//! closed below that rate.

use tokio::time::Instant;

use super::{Event, Session};
use crate::{
    domain::pace::{CLIENT_RATE, Pace},
    door::{ARRIVAL, STALL, ws::frame::Closing},
    metrics::Ended,
};

const LATE: Closing = Closing::new(Closing::POLICY, "too slow: a message did not come in time");

/// A message that has begun to come.
pub(super) struct Begun {
    pace: Pace,
    /// When the message was looked at last, and how many of its bytes had come.
    looked: Instant,
    bytes: usize,
}

impl Session {
    /// Notes that the client does not take the written bytes. `before` is how many waited before
    /// the write.
    pub(super) fn stall(&mut self, before: usize) {
        let taken = before - self.writer.waiting();
        if self.stalled.is_some() && taken == 0 {
            return;
        }
        let now = Instant::now();
        if let Some(since) = self.stalled.replace(now) {
            self.pace.moved(now - since, taken);
            // Bytes that the client takes move the beginning of its idle time forward, by as long
            // as the least rate allows for these bytes.
            self.refreshes(now + self.pace.left() - STALL);
        } else if !self.is_stall_watched {
            self.is_stall_watched = true;
            self.at(now + self.pace.left(), || Event::Stalled);
        }
    }

    /// Closes a client that takes less than the least rate.
    pub(super) fn look_for_stall(&mut self) {
        self.is_stall_watched = false;
        let Some(since) = self.stalled else { return };
        if since.elapsed() >= self.pace.left() {
            self.too_slow();
        } else {
            self.is_stall_watched = true;
            self.at(since + self.pace.left(), || Event::Stalled);
        }
    }

    /// Begins to watch a message that has begun to come.
    pub(super) fn watch_message(&mut self) {
        let Some(bytes) = self.reader.begun() else {
            self.begun = None;
            return;
        };
        if let Some(begun) = &mut self.begun {
            if begun.bytes != bytes {
                let since = begun.moved(bytes);
                self.refreshes(since);
            }
            return;
        }
        let looked = Instant::now();
        self.refreshes(looked);
        self.begun = Some(Begun { pace: Pace::new(ARRIVAL, CLIENT_RATE), looked, bytes });
        if !self.is_message_watched {
            self.is_message_watched = true;
            self.at(looked + ARRIVAL, || Event::Late);
        }
    }

    /// Closes a client whose message comes more slowly than the least rate.
    pub(super) fn look_for_message(&mut self) {
        self.is_message_watched = false;
        let (Some(begun), Some(bytes)) = (&mut self.begun, self.reader.begun()) else {
            self.begun = None;
            return;
        };
        begun.moved(bytes);
        let left = begun.pace.left();
        if left.is_zero() {
            self.metrics.client_ended(Ended::SlowRequest);
            self.close(&LATE);
        } else {
            self.is_message_watched = true;
            let due = begun.looked + left;
            self.at(due, || Event::Late);
        }
    }
}

impl Begun {
    /// Notes how many bytes have come. Returns since when the client counts as idle: bytes move
    /// that moment forward, by as long as the least rate allows for these bytes.
    fn moved(&mut self, bytes: usize) -> Instant {
        let now = Instant::now();
        self.pace.moved(now - self.looked, bytes.saturating_sub(self.bytes));
        (self.looked, self.bytes) = (now, bytes);
        now + self.pace.left() - ARRIVAL
    }
}
