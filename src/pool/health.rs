//! Whether a node answers as a node should. Rule: `fall` failures in a row take a node out, `rise`
//! successes in a row bring the node back, and a node that flaps needs more successes each time.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::domain::{backoff, verdict::Down};

/// How long an outage counts against the next one.
const FLAP_WINDOW: Duration = Duration::from_secs(600);
/// The most good probes in a row that flapping can come to require, as a multiple of `rise`.
const MAX_PENALTY: u32 = 32;
/// A refused connection, confirmed once, is enough.
const REFUSALS: u32 = 2;

/// The fault that a failure shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection came about.
    Unreachable,
    /// The connection was lost before an answer.
    Dropped,
    /// No answer came in time.
    Silent,
    /// The answer was an error or made no sense.
    Failing,
    /// The answer was an error that may be the call's own fault, though another node did not give
    /// one.
    Erring,
    /// The node refused for quota or for want of room, perhaps for a stated time: the node rests,
    /// which is no failure.
    Resting(Option<Duration>),
    /// The node takes no more connections now: a full node is not lost.
    Full,
    /// This machine lacks a resource, such as file descriptors: the node is not at fault.
    Ours,
}

impl Fault {
    /// Whether the fault is evidence against the node.
    pub fn counts(self) -> bool {
        !matches!(self, Self::Ours | Self::Full | Self::Resting(_))
    }

    fn down(self) -> Down {
        match self {
            Self::Unreachable => Down::Unreachable,
            Self::Dropped => Down::Dropped,
            Self::Silent => Down::Silent,
            Self::Failing | Self::Erring | Self::Resting(_) | Self::Full | Self::Ours => Down::Failing,
        }
    }
}

/// The trouble that a probe or a call ran into, in words without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The kind of fault.
    pub fault: Fault,
    /// For people.
    pub text: String,
}

impl Trouble {
    /// No connection to the node became free.
    pub fn full() -> Self {
        Self { fault: Fault::Full, text: "no connection to the node became free in time".to_owned() }
    }
}

/// The answering side of one node's state.
#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    outages: VecDeque<Instant>,
    fall: u32,
    rise: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Never heard.
    New { failures: u32, why: Down },
    /// Answering; so many failures in a row, so many of them refusals.
    Up { failures: u32, refusals: u32 },
    /// Out; so many good probes in a row since.
    Down { successes: u32, why: Down },
}

impl Health {
    /// A node without reports so far. `fall` failures in a row take the node out, `rise` successes
    /// bring it back.
    pub fn new(fall: u32, rise: u32) -> Self {
        Self { state: State::New { failures: 0, why: Down::Unknown }, outages: VecDeque::new(), fall, rise }
    }

    /// Takes over the node's state from `earlier`, under the rules of this.
    pub fn inherit(&mut self, earlier: &Self) {
        *self = Self { fall: self.fall, rise: self.rise, ..earlier.clone() };
    }

    /// Why the node is out; `None` while it is in.
    pub fn down(&self) -> Option<Down> {
        match self.state {
            State::Up { .. } => None,
            State::New { why, .. } => Some(why),
            State::Down { successes: 0, why } => Some(why),
            State::Down { .. } => Some(Down::Proving),
        }
    }

    /// Whether a probe should follow at once, to confirm a refused connection.
    pub fn is_doubtful(&self) -> bool {
        matches!(self.state, State::Up { refusals: 1.., .. })
    }

    /// Whether the node is in, and failed a probe or a call since the last good one.
    pub fn is_shaken(&self) -> bool {
        matches!(self.state, State::Up { failures: 1.., .. })
    }

    /// A probe was answered well. A node that was never heard is in at once: there is no outage to
    /// recover from.
    pub fn good(&mut self, now: Instant) {
        self.state = match self.state {
            State::New { .. } | State::Up { .. } => State::Up { failures: 0, refusals: 0 },
            State::Down { successes, why } if successes + 1 < self.required(now) => {
                State::Down { successes: successes + 1, why }
            }
            State::Down { .. } => State::Up { failures: 0, refusals: 0 },
        };
    }

    /// A probe or a call failed.
    pub fn bad(&mut self, fault: Fault, now: Instant) {
        if !fault.counts() {
            return;
        }
        match self.state {
            State::New { failures, .. } => {
                self.state = State::New { failures: failures.saturating_add(1), why: fault.down() };
            }
            State::Down { .. } => self.state = State::Down { successes: 0, why: fault.down() },
            State::Up { failures, refusals } => {
                let failures = failures + 1;
                let refusals = if fault == Fault::Unreachable { refusals + 1 } else { 0 };
                if failures >= self.fall || refusals >= REFUSALS {
                    self.out(fault, now);
                } else {
                    self.state = State::Up { failures, refusals };
                }
            }
        }
    }

    /// Takes the node out whatever the count, on evidence that needs no repetition.
    pub fn out(&mut self, fault: Fault, now: Instant) {
        if matches!(self.state, State::Up { .. }) {
            self.outages.push_back(now);
            if self.outages.len() > 32 {
                self.outages.pop_front();
            }
        }
        self.state = match self.state {
            State::New { failures, .. } => State::New { failures, why: fault.down() },
            _ => State::Down { successes: 0, why: fault.down() },
        };
    }

    /// How many more good probes in a row bring the node back now.
    pub fn missing(&self, now: Instant) -> u32 {
        match self.state {
            State::Down { successes, .. } => self.required(now).saturating_sub(successes),
            State::New { .. } => 1,
            State::Up { .. } => 0,
        }
    }

    /// How many good probes in a row bring the node back now: twice as many for each outage that
    /// came soon after another.
    pub fn required(&self, now: Instant) -> u32 {
        let recent = self.outages.iter().filter(|&&at| now.saturating_duration_since(at) < FLAP_WINDOW).count();
        let doublings = u32::try_from(recent.saturating_sub(1)).unwrap_or(u32::MAX);
        self.rise.saturating_mul(backoff::factor(doublings, MAX_PENALTY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Counts the good probes that a node needs to return.
    fn probes_to_return(health: &mut Health, now: Instant) -> u32 {
        (1..1000)
            .find(|_| {
                health.good(now);
                health.down().is_none()
            })
            .unwrap()
    }

    #[test]
    fn failures_in_a_row_take_a_node_out_and_successes_back() {
        let now = Instant::now();
        let mut health = Health::new(3, 2);
        assert_eq!(health.down(), Some(Down::Unknown));
        health.good(now);
        assert_eq!(health.down(), None);
        for _ in 0..5 {
            health.bad(Fault::Silent, now);
            health.bad(Fault::Failing, now);
            assert_eq!(health.down(), None);
            health.good(now);
        }
        for _ in 0..3 {
            assert_eq!(health.down(), None);
            health.bad(Fault::Silent, now);
        }
        assert_eq!(health.down(), Some(Down::Silent));
        health.good(now);
        assert_eq!(health.down(), Some(Down::Proving));
        health.bad(Fault::Failing, now);
        assert_eq!(health.down(), Some(Down::Failing));
        assert_eq!(probes_to_return(&mut health, now), 2);
    }

    #[test]
    fn a_refused_connection_confirmed_once_is_enough() {
        let now = Instant::now();
        let mut health = Health::new(3, 2);
        health.good(now);
        health.bad(Fault::Unreachable, now);
        assert!(health.down().is_none() && health.is_doubtful());
        health.bad(Fault::Unreachable, now);
        assert_eq!(health.down(), Some(Down::Unreachable));
    }

    #[test]
    fn a_flapping_node_waits_longer_each_time_and_is_forgiven() {
        let start = Instant::now();
        let mut health = Health::new(3, 2);
        health.good(start);
        let mut waits = Vec::new();
        for round in 0..7 {
            health.out(Fault::Silent, after(start, round));
            waits.push(probes_to_return(&mut health, after(start, round)));
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 64]);
        health.out(Fault::Silent, after(start, 1000));
        assert_eq!(probes_to_return(&mut health, after(start, 1000)), 2);
    }
}
