//! The rests of one node: those of its account, and its own.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Claim, Kind, RestState, Rests};

/// A scout's place at a node, to be given back.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeClaim {
    of_the_account: Claim,
    own: Claim,
}

/// The rests of one node. The cost is two atomic loads while there are none.
#[derive(Debug, Default)]
pub struct Resting {
    /// After refusals for quota.
    of_the_account: Arc<Rests>,
    /// After failures.
    own: Rests,
}

impl Resting {
    /// The rests of a node of an account with these rests.
    pub(in crate::pool) fn beside(of_the_account: Arc<Rests>) -> Self {
        Self { of_the_account, own: Rests::default() }
    }

    /// Whether anything may rest.
    pub fn is_any(&self) -> bool {
        self.of_the_account.is_any() || self.own.is_any()
    }

    /// Whether a call of this kind may go to the node; `again`: every node failed the call before.
    pub fn state(&self, kind: Kind, again: bool, now: Instant) -> RestState {
        self.of_the_account.state(kind, again, now).and(self.own.state(kind, again, now))
    }

    /// Takes a scout's place, if there is one.
    pub fn claim(&self, kind: Kind, again: bool, now: Instant) -> Option<NodeClaim> {
        let of_the_account = self.of_the_account.claim(kind, again, now)?;
        let own = self.own.claim(kind, again, now);
        if own.is_none() {
            self.of_the_account.release(of_the_account);
        }
        own.map(|own| NodeClaim { of_the_account, own })
    }

    /// Gives a scout's place back.
    pub fn release(&self, NodeClaim { of_the_account, own }: NodeClaim) {
        self.of_the_account.release(of_the_account);
        self.own.release(own);
    }

    /// The node refused a call for quota, and asked to be left for `wait`.
    pub fn refused(&self, kind: Kind, wait: Option<Duration>, now: Instant) {
        self.of_the_account.refused(kind, wait, now);
    }

    /// The node refused a probe for quota.
    pub fn probe_refused(&self, wait: Option<Duration>, now: Instant) {
        self.of_the_account.probe_refused(wait, now);
    }

    /// A probe that was sent at `asked` was answered well.
    pub fn probe_answered(&self, asked: Instant) {
        self.of_the_account.probe_answered(asked);
    }

    /// The node fails one call of this kind after the other, which others answer.
    pub fn failed(&self, kind: Kind, now: Instant) {
        self.own.failed(kind, now);
    }

    /// Notes that the node gave no answer to a call, as other nodes may not either.
    pub fn failed_again(&self, now: Instant) {
        self.own.failed_again(now);
    }

    /// A call was answered well. `sent`: when the call was sent, if that may have been in a rest.
    /// Returns whether that changed anything.
    pub fn answered(&self, kind: Kind, sent: Option<Instant>, now: Instant) -> bool {
        let of_the_account = self.of_the_account.answered(kind, sent, now);
        self.own.answered(kind, sent, now) || of_the_account
    }

    /// Whether the whole node rests, or has yet to be found well after a rest.
    pub fn is_whole(&self, now: Instant) -> bool {
        self.of_the_account.is_whole(now)
    }

    /// When the rest of the whole node ends, if the whole node rests.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.of_the_account.until(now)
    }

    /// For how long probes are to be left out.
    pub fn probes_rest_until(&self) -> Option<Instant> {
        self.of_the_account.probes_rest_until()
    }

    /// The kinds that are passed over now, while the node as a whole is not.
    pub fn kinds(&self, now: Instant) -> Vec<Kind> {
        [self.of_the_account.kinds(now), self.own.kinds(now)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::resting::{FIRST_PAUSE, SCOUTING};

    const CALL: Kind = Kind { id: 1, route: 0 };
    const LOGS: Kind = Kind { id: 2, route: 0 };
    const WAIT: Duration = Duration::from_secs(30);

    fn two_of_an_account() -> [Resting; 2] {
        let rests = Arc::new(Rests::default());
        [(); 2].map(|()| Resting::beside(rests.clone()))
    }

    #[test]
    fn nodes_of_one_account_rest_together() {
        let ([one, other], now) = (two_of_an_account(), Instant::now());
        one.refused(CALL, Some(WAIT), now);
        assert_eq!(other.state(CALL, false, now), RestState::Rests(now + WAIT));
        assert_eq!(other.state(LOGS, false, now), RestState::Free);
        one.refused(LOGS, Some(WAIT), now);
        assert!(other.is_whole(now));
        // A single scout for both.
        let then = now + WAIT;
        let scout = one.claim(CALL, false, then).unwrap();
        assert!(other.claim(CALL, false, then).is_none());
        assert_eq!(other.state(CALL, false, then), RestState::Rests(then + SCOUTING));
        one.release(scout);
        assert!(other.answered(CALL, None, then));
        assert!(!one.is_whole(then));
    }

    #[test]
    fn a_failing_node_makes_no_other_of_its_account_rest() {
        let ([one, other], now) = (two_of_an_account(), Instant::now());
        one.failed(CALL, now);
        one.failed_again(now);
        assert_eq!(one.state(CALL, false, now), RestState::Last);
        assert_eq!(other.state(CALL, true, now), RestState::Free);
        assert!(!other.is_any());
    }

    #[test]
    fn a_place_that_one_half_lacks_is_not_taken_of_the_other() {
        let ([one, other], now) = (two_of_an_account(), Instant::now());
        one.refused(CALL, None, now);
        let then = now + FIRST_PAUSE;
        one.failed(CALL, then);
        assert!(one.claim(CALL, false, then).is_none());
        assert!(other.claim(CALL, false, then).is_some());
    }

    #[test]
    fn a_good_probe_ends_no_rest_that_came_after_it() {
        let ([one, other], now) = (two_of_an_account(), Instant::now());
        let later = now + FIRST_PAUSE;
        one.probe_refused(Some(WAIT), later);
        other.probe_answered(now);
        assert_eq!(other.probes_rest_until(), Some(later + WAIT));
        other.probe_answered(later + WAIT);
        assert_eq!(one.probes_rest_until(), None);
    }
}
