//! Clients that take or send a little now and then: they are watched by a rate, and closed when they keep less.

use std::time::Duration;

use tokio::time::Instant;

use super::{Event, Session};
use crate::{
    domain::pace::{CLIENT_RATE, Pace},
    door::ws::frame::Closing,
    metrics::Ended,
};

/// How long a message may stand still once it has begun.
const ARRIVAL: Duration = Duration::from_secs(20);
const LATE: Closing = Closing::new(Closing::POLICY, "too slow: a message did not come in time");

/// A message that has begun to come.
pub(super) struct Begun {
    pace: Pace,
    /// When the message was looked at last, and how much of it had come.
    looked: Instant,
    bytes: usize,
}

impl Session {
    /// Notes that the client does not take what is written; `before`, so much was waiting.
    pub(super) fn stall(&mut self, before: usize) {
        let taken = before - self.writer.waiting();
        if self.stalled.is_some() && taken == 0 {
            return;
        }
        let now = Instant::now();
        if let Some(since) = self.stalled.replace(now) {
            self.pace.moved(now - since, taken);
        } else if !self.is_stall_watched {
            self.is_stall_watched = true;
            self.at(now + self.pace.left(), || Event::Stalled);
        }
    }

    /// Closes a client that takes less than any line lets through.
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

    /// Has a message that has begun to come watched.
    pub(super) fn watch_message(&mut self) {
        let Some(bytes) = self.reader.begun() else {
            self.begun = None;
            return;
        };
        if self.begun.is_some() {
            return;
        }
        let looked = Instant::now();
        self.begun = Some(Begun { pace: Pace::new(ARRIVAL, CLIENT_RATE), looked, bytes });
        if !self.is_message_watched {
            self.is_message_watched = true;
            self.at(looked + ARRIVAL, || Event::Late);
        }
    }

    /// Closes a client whose message comes more slowly than any line is.
    pub(super) fn look_for_message(&mut self) {
        self.is_message_watched = false;
        let (Some(begun), Some(bytes)) = (&mut self.begun, self.reader.begun()) else {
            self.begun = None;
            return;
        };
        let now = Instant::now();
        begun.pace.moved(now - begun.looked, bytes.saturating_sub(begun.bytes));
        (begun.looked, begun.bytes) = (now, bytes);
        let left = begun.pace.left();
        if left.is_zero() {
            self.metrics.client_ended(Ended::SlowRequest);
            self.close(&LATE);
        } else {
            self.is_message_watched = true;
            self.at(now + left, || Event::Late);
        }
    }
}
