//! The check for clients that are silent.

use std::ops::ControlFlow;

use tokio::time::Instant;

use super::{Opcode, Session, State};

impl Session {
    /// Checks whether the client is there: a silent client is sent a ping, and counts as gone if
    /// the next check finds it silent still.
    pub(super) fn tick(&mut self) -> ControlFlow<()> {
        if !matches!(self.state, State::Open | State::Leaving(_)) {
            // Nothing may follow a close frame.
            return ControlFlow::Continue(());
        }
        let now = Instant::now();
        // A part of a message is a sign of life too. A client that has many bytes to take gets a
        // ping late; the rate at which a client takes bytes is watched elsewhere.
        if self.reader.take_heard() || self.stalled.is_some() {
            self.heard = now;
            self.pinged = false;
        }
        let interval = self.limits.ping_interval;
        if now < self.heard + interval {
            self.tick = self.heard + interval;
        } else if self.pinged {
            return ControlFlow::Break(());
        } else {
            self.pinged = true;
            self.writer.control(Opcode::Ping, &[]);
            self.tick = now + interval;
        }
        ControlFlow::Continue(())
    }
}
