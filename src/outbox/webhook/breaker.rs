//! Leaves an endpoint alone that fails again and again, so that its deliveries do not use up their
//! attempts on it. Pure: the time comes with the input.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::backoff::Backoff;

/// Failures in a row that open the breaker.
const FAILURES: u32 = 5;
/// How long it stays open before an attempt: the first time, and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(5 * 60)];

/// The breaker of one endpoint.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    pauses: Backoff,
    /// Until when the endpoint asked to be left alone.
    hold: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Attempts are made; so many in a row have failed.
    Closed(u32),
    /// No attempt before this time.
    Open(Instant),
    /// One attempt is under way, and no other.
    Trying,
}

/// Whether an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// It may.
    Begin,
    /// Not before this time.
    NotBefore(Instant),
    /// Not before the attempt under way has ended.
    AfterTheOneUnderWay,
}

impl Breaker {
    /// A closed breaker. The lengths of its pauses follow from `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let [first, longest] = PAUSES;
        Self { state: State::Closed(0), pauses: Backoff::jittered(first, longest, seed), hold: None }
    }

    /// Whether an attempt may begin at `now`.
    pub(super) fn may(&self, now: Instant) -> May {
        match (self.state, self.hold) {
            (_, Some(hold)) if now < hold => May::NotBefore(hold),
            (State::Open(until), _) if now < until => May::NotBefore(until),
            (State::Trying, _) => May::AfterTheOneUnderWay,
            _ => May::Begin,
        }
    }

    /// An attempt begins: the first after a pause is the only one.
    pub(super) fn begins(&mut self) {
        if matches!(self.state, State::Open(_)) {
            self.state = State::Trying;
        }
    }

    /// The endpoint answered so that nothing speaks against it. Whether the breaker was open.
    pub(super) fn answered(&mut self) -> bool {
        let was_open = self.is_open();
        self.state = State::Closed(0);
        self.pauses.reset();
        was_open
    }

    /// An attempt failed for the endpoint's sake. Whether that opened the breaker anew.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed(failures) if failures + 1 < FAILURES => {
                self.state = State::Closed(failures + 1);
                false
            }
            State::Closed(_) => {
                self.state = State::Open(now + self.pauses.pause());
                true
            }
            State::Trying => {
                self.state = State::Open(now + self.pauses.pause());
                false
            }
            // One that had begun before the breaker opened.
            State::Open(_) => false,
        }
    }

    /// The attempt under way ended without an outcome.
    pub(super) fn dropped(&mut self, now: Instant) {
        if self.state == State::Trying {
            self.state = State::Open(now);
        }
    }

    /// An operator wants an attempt now: the pause and the endpoint's own wish count no more.
    pub(super) fn urge(&mut self, now: Instant) {
        self.hold = None;
        if let State::Open(until) = &mut self.state {
            *until = now.min(*until);
        }
    }

    /// Until when the endpoint asked to be left alone, if that is after `now`.
    pub(super) fn held_until(&self, now: Instant) -> Option<Instant> {
        self.hold.filter(|hold| *hold > now)
    }

    /// The endpoint asked to be left alone.
    pub(super) fn hold(&mut self, until: Instant) {
        self.hold = self.hold.max(Some(until));
    }

    /// Whether the endpoint counts as failing.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_operator_ends_a_pause_and_a_hold() {
        let start = Instant::now();
        let (mut breaker, _) = opened(start);
        breaker.hold(start + 3600 * SECOND);
        assert_eq!(breaker.held_until(start), Some(start + 3600 * SECOND));
        breaker.urge(start);
        assert_eq!((breaker.may(start), breaker.held_until(start)), (May::Begin, None));
        breaker.begins();
        assert_eq!(breaker.may(start), May::AfterTheOneUnderWay, "one attempt alone");
    }

    /// A breaker that has opened, and when it lets an attempt through.
    fn opened(start: Instant) -> (Breaker, Instant) {
        let mut breaker = Breaker::new(3);
        for n in 1..=FAILURES {
            assert_eq!(breaker.may(start), May::Begin, "{n}");
            breaker.begins();
            assert_eq!(breaker.failed(start), n == FAILURES, "{n}");
        }
        match breaker.may(start) {
            May::NotBefore(until) => (breaker, until),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_between_does_not() {
        let now = Instant::now();
        let (breaker, until) = opened(now);
        assert!(breaker.is_open() && until - now >= PAUSES[0] / 2 && until - now <= PAUSES[0]);
        let mut breaker = Breaker::new(3);
        for _ in 0..10 {
            (1..FAILURES).for_each(|_| assert!(!breaker.failed(now)));
            assert!(!breaker.answered(), "it was not open");
        }
        assert_eq!(breaker.may(now), May::Begin);
    }

    #[test]
    fn one_attempt_goes_out_after_the_pause_and_decides() {
        let (mut breaker, until) = opened(Instant::now());
        assert_eq!(breaker.may(until), May::Begin);
        breaker.begins();
        assert_eq!(breaker.may(until + SECOND), May::AfterTheOneUnderWay);
        assert!(!breaker.failed(until), "told of once");
        let May::NotBefore(later) = breaker.may(until) else { panic!("{breaker:?}") };
        assert!(later - until > PAUSES[0] / 2, "the pause grows");
        breaker.begins();
        assert!(breaker.answered(), "it was open");
        assert_eq!(breaker.may(later), May::Begin);
        breaker.begins();
        assert_eq!(breaker.may(later), May::Begin, "more than one again");
    }

    #[test]
    fn pauses_grow_to_the_longest_and_begin_anew_after_a_success() {
        let (mut breaker, mut until) = opened(Instant::now());
        let mut last = Duration::ZERO;
        for _ in 0..12 {
            breaker.begins();
            breaker.failed(until);
            let May::NotBefore(next) = breaker.may(until) else { panic!("{breaker:?}") };
            last = next - until;
            assert!(last <= PAUSES[1]);
            until = next;
        }
        assert!(last >= PAUSES[1] / 2);
        breaker.begins();
        breaker.answered();
        let (_, again) = opened(until);
        assert!(again - until <= PAUSES[0]);
    }

    #[test]
    fn the_endpoints_wish_holds_everything_until_its_time() {
        let now = Instant::now();
        let mut breaker = Breaker::new(3);
        breaker.hold(now + 10 * SECOND);
        breaker.hold(now + 5 * SECOND);
        assert_eq!(breaker.may(now), May::NotBefore(now + 10 * SECOND), "the longer one counts");
        breaker.answered();
        assert_eq!(breaker.may(now + 9 * SECOND), May::NotBefore(now + 10 * SECOND));
        assert_eq!(breaker.may(now + 10 * SECOND), May::Begin);
    }

    #[test]
    fn an_attempt_without_an_outcome_lets_another_through() {
        let (mut breaker, until) = opened(Instant::now());
        breaker.begins();
        breaker.dropped(until);
        assert_eq!(breaker.may(until), May::Begin);
    }
}
