//! Faults on the way between a client and the store in memory.

use std::{collections::VecDeque, time::Duration};

use fastrand::Rng;

/// A fault of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The write is applied, or conflicts; the client has no answer.
    AppliedAmbiguous,
    /// The write is lost; the client has no answer.
    LostAmbiguous,
    /// The client has no answer; the write is applied after this time, if no other came first.
    LateAmbiguous(Duration),
    /// The write is refused at once.
    Unavailable,
    /// The write arrives after the first time, its answer after the second.
    Delay(Duration, Duration),
}

/// How often faults come by chance: each is 0.0 for never to 1.0 for always.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Chances {
    /// Of a write: [`Fault::AppliedAmbiguous`].
    pub applied_ambiguous: f64,
    /// Of a write: [`Fault::LostAmbiguous`]. Of a read: no answer.
    pub lost_ambiguous: f64,
    /// Of a write: [`Fault::LateAmbiguous`], by up to [`Chances::late`].
    pub late_ambiguous: f64,
    /// Of a write and of a read: refused at once.
    pub unavailable: f64,
    /// Of a message to a watch: lost.
    pub lost_message: f64,
    /// The longest time by which a write is late.
    pub late: Duration,
    /// The longest time of each way: of a call, of its answer, of a message to a watch.
    pub delay: Duration,
}

/// Whether a client and the server hear each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reach {
    #[default]
    Open,
    /// All is lost, both ways.
    Cut,
    /// As cut, and the client knows.
    Refused,
}

/// The end of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answered,
    NoAck,
    Lost,
    Late(Duration),
    Refused,
}

/// The course of one call: the time to the server, the end, the time back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fate {
    pub(super) before: Duration,
    pub(super) outcome: Outcome,
    pub(super) after: Duration,
}

impl Fate {
    const fn without_delay(outcome: Outcome) -> Self {
        Self { before: Duration::ZERO, outcome, after: Duration::ZERO }
    }
}

/// The faults of one client.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) reach: Reach,
    pub(super) next: VecDeque<Fault>,
    pub(super) chances: Chances,
    pub(super) lost_messages: u32,
}

impl Client {
    pub(super) fn write_fate(&mut self, rng: &mut Rng) -> Fate {
        match self.next.pop_front() {
            None => self.chance(rng, true),
            Some(Fault::AppliedAmbiguous) => Fate::without_delay(Outcome::NoAck),
            Some(Fault::LostAmbiguous) => Fate::without_delay(Outcome::Lost),
            Some(Fault::LateAmbiguous(by)) => Fate::without_delay(Outcome::Late(by)),
            Some(Fault::Unavailable) => Fate::without_delay(Outcome::Refused),
            Some(Fault::Delay(before, after)) => Fate { before, outcome: Outcome::Answered, after },
        }
    }

    pub(super) fn read_fate(&self, rng: &mut Rng) -> Fate {
        self.chance(rng, false)
    }

    /// Whether the next message to a watch is lost.
    pub(super) fn loses_message(&mut self, rng: &mut Rng) -> bool {
        if self.reach != Reach::Open {
            return true;
        }
        if self.lost_messages > 0 {
            self.lost_messages -= 1;
            return true;
        }
        rng.f64() < self.chances.lost_message
    }

    /// The time of one way.
    pub(super) fn delay(&self, rng: &mut Rng) -> Duration {
        self.chances.delay.mul_f64(rng.f64())
    }

    fn chance(&self, rng: &mut Rng, is_write: bool) -> Fate {
        let Chances { applied_ambiguous, lost_ambiguous, late_ambiguous, unavailable, .. } = self.chances;
        let late = self.chances.late.mul_f64(rng.f64());
        let mut outcome = Outcome::Answered;
        let mut below = 0.0;
        let drawn = rng.f64();
        for (chance, end, only_writes) in [
            (unavailable, Outcome::Refused, false),
            (lost_ambiguous, Outcome::Lost, false),
            (applied_ambiguous, Outcome::NoAck, true),
            (late_ambiguous, Outcome::Late(late), true),
        ] {
            let is_drawn = (below..below + chance).contains(&drawn);
            if is_drawn && (is_write || !only_writes) {
                outcome = end;
            }
            below += chance;
        }
        Fate { before: self.delay(rng), outcome, after: self.delay(rng) }
    }
}
