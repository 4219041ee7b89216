//! How many connections a node takes, as the operator says and as the node shows. Pure.
//!
//! Rule: when the node closes a new connection at once while others are open, the number of the
//! others becomes the bound. A connection that the proxy closed within the last second counts as
//! open: the node may not have noticed. A node that closes its only connection for requests does so
//! for another reason, which may have closed the others too: the learnt bound is forgotten.
//! An open WebSocket does not change that. So that a mistake heals, the bound is raised by one
//! after a pause (10 s at first), if a request waits. If the raised bound holds for a second, the
//! next step is two, then four, and so on; if not, the next pause is twice as long. There is no
//! pause when the node answers after half a second of refusals without an answer, because a full
//! node answers over other connections meanwhile. Example: with 80 connections open, the 81st is
//! closed at once. The bound is 80; after 10 s the bound becomes 81, and after another second 83.

use std::time::Duration;

use tokio::time::Instant;

use super::Rank;

/// How long a node may take to notice that a connection was closed.
const NOTICED: Duration = Duration::from_secs(1);
/// Before the bound is tried.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How long a raised bound has to hold.
const TRIAL: Duration = Duration::from_secs(1);
/// For how long a node that refuses connections must have answered nothing to be taken for a node
/// that refused for another reason than want of room.
const MUTE: Duration = Duration::from_millis(500);
/// A bound beyond this is none.
const NONE: usize = 4096;

pub(super) struct Bound {
    configured: Option<usize>,
    learnt: Option<Learnt>,
    /// Connections closed since this moment.
    closed: (usize, Instant),
    /// The first refusal since the node last answered.
    refusing: Option<Instant>,
}

struct Learnt {
    bound: usize,
    /// Whether a connection was closed before anything was written, which has no other reason.
    certain: bool,
    /// The next step by which the bound is raised.
    step: usize,
    raise_at: Instant,
    pause: Duration,
}

impl Bound {
    pub(super) fn new(configured: Option<usize>, now: Instant) -> Self {
        Self { configured, learnt: None, closed: (0, now), refusing: None }
    }

    /// The operator says so from now on.
    pub(super) fn configure(&mut self, bound: Option<usize>) {
        self.configured = bound;
    }

    pub(super) fn bound(&self) -> Option<usize> {
        self.learnt.as_ref().map(|learnt| learnt.bound).into_iter().chain(self.configured).min()
    }

    /// Whether the node's word is stricter than the operator's.
    pub(super) fn is_learnt(&self) -> bool {
        self.learnt.as_ref().is_some_and(|learnt| self.configured.is_none_or(|configured| learnt.bound < configured))
    }

    /// Whether the node has not shown yet that it takes as many connections.
    pub(super) fn is_tried(&self) -> bool {
        self.is_learnt() && self.learnt.as_ref().is_some_and(|learnt| learnt.step > 1)
    }

    /// How many connections there are for requests of this rank and of those behind, while so
    /// many of them are `links`. Two permits are the probes', or one, where there are few; of three
    /// and more, another is for other questions of our own. A learnt bound leaves requests one
    /// permit beside the links, or a node that takes more now could never show that.
    pub(super) fn limit(&self, rank: Rank, links: usize) -> usize {
        let Some(bound) = self.bound() else { return usize::MAX };
        let most = self.configured.map_or(usize::MAX, |configured| configured.saturating_sub(links));
        let least = usize::from(self.is_learnt()).min(most);
        let for_requests = bound.saturating_sub(links).max(least);
        let (of_probes, own) = match for_requests {
            0..=1 => (0, 0),
            2 => (1, 0),
            3..=7 => (1, 1),
            _ => (2, 1),
        };
        let kept = match rank {
            Rank::Probe => 0,
            Rank::Own => of_probes,
            Rank::Call => of_probes + own,
        };
        links + for_requests - kept
    }

    /// A connection was closed by us.
    pub(super) fn closed(&mut self, now: Instant) {
        let (count, since) = &mut self.closed;
        if now.saturating_duration_since(*since) > NOTICED {
            (*count, *since) = (0, now);
        }
        *count += 1;
    }

    /// The node closed a new connection at once while `others` for requests and these `links` were
    /// open.
    pub(super) fn refused(&mut self, others: usize, links: usize, certain: bool, now: Instant) {
        self.refusing.get_or_insert(now);
        let (closed, since) = self.closed;
        let unnoticed = if now.saturating_duration_since(since) > NOTICED { 0 } else { closed };
        if others + unnoticed == 0 {
            return self.forget();
        }
        if others == 0 {
            return;
        }
        let seen = others + links + unnoticed;
        let raise_at = now + FIRST_PAUSE;
        let learnt = self.learnt.get_or_insert(Learnt { bound: seen, certain, step: 1, raise_at, pause: FIRST_PAUSE });
        learnt.bound = learnt.bound.min(seen).max(1);
        learnt.certain |= certain;
        if learnt.step > 1 {
            learnt.pause = (learnt.pause * 2).min(LONGEST_PAUSE);
            learnt.step = 1;
        }
        learnt.raise_at = now + learnt.pause;
    }

    /// The node answered a request. After refusals without an answer, the bound is tried at once.
    pub(super) fn answered(&mut self, now: Instant) {
        let is_mute = self.refusing.take().is_some_and(|since| now.saturating_duration_since(since) >= MUTE);
        if let Some(learnt) = self.learnt.as_mut().filter(|_| is_mute) {
            learnt.raise_at = now;
            self.raise(now);
        }
    }

    /// When the bound may be tried; `None` when the node taught none.
    pub(super) fn raise_at(&self) -> Option<Instant> {
        self.learnt.as_ref().map(|learnt| learnt.raise_at)
    }

    /// Raises the bound, if the time has come.
    pub(super) fn raise(&mut self, now: Instant) {
        let Some(learnt) = self.learnt.as_mut().filter(|learnt| learnt.raise_at <= now) else { return };
        learnt.bound += learnt.step;
        learnt.step *= 2;
        learnt.raise_at = now + TRIAL;
        if learnt.bound > NONE {
            self.learnt = None;
        }
    }

    /// Forgets a bound that is not certain: lack of room was not the reason.
    pub(super) fn cleared(&mut self) {
        self.learnt.take_if(|learnt| !learnt.certain);
    }

    pub(super) fn forget(&mut self) {
        self.learnt = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_count_open_when_a_new_one_was_closed() {
        let now = Instant::now();
        let mut bound = Bound::new(None, now);
        assert_eq!((bound.bound(), bound.limit(Rank::Call, 0)), (None, usize::MAX));
        // In a burst, most connections that seem open are not.
        for others in (80..120).rev() {
            bound.refused(others, 0, false, now);
        }
        assert_eq!((bound.bound(), bound.is_learnt()), (Some(80), true));
        assert_eq!([Rank::Probe, Rank::Own, Rank::Call].map(|rank| bound.limit(rank, 0)), [80, 78, 77]);
    }

    #[test]
    fn probes_and_other_questions_of_ours_have_permits_kept() {
        let now = Instant::now();
        for limits in [[1, 1, 1], [2, 1, 1], [3, 2, 1], [7, 6, 5], [8, 6, 5], [80, 78, 77]] {
            let bound = Bound::new(Some(limits[0]), now);
            assert_eq!([Rank::Probe, Rank::Own, Rank::Call].map(|rank| bound.limit(rank, 0)), limits);
        }
    }

    #[test]
    fn a_connection_that_was_just_closed_counts_as_open() {
        let now = Instant::now();
        let mut bound = Bound::new(None, now);
        bound.closed(now);
        bound.closed(now);
        bound.refused(6, 0, true, now + NOTICED);
        assert_eq!(bound.bound(), Some(8));
        bound.refused(6, 0, true, now + NOTICED * 2);
        assert_eq!(bound.bound(), Some(6));
    }

    #[test]
    fn a_bound_is_raised_in_growing_steps_after_longer_pauses() {
        let mut now = Instant::now();
        let mut bound = Bound::new(None, now);
        bound.refused(5, 0, true, now);
        bound.raise(now + FIRST_PAUSE / 2);
        assert_eq!(bound.bound(), Some(5));
        now += FIRST_PAUSE;
        for expected in [6, 8, 12, 20] {
            bound.raise(now);
            assert_eq!(bound.bound(), Some(expected));
            now += TRIAL;
        }
        bound.refused(5, 0, true, now);
        assert_eq!((bound.bound(), bound.raise_at()), (Some(5), Some(now + FIRST_PAUSE * 2)));
        // A second refusal of the same burst is no second lesson.
        bound.refused(5, 0, true, now);
        assert_eq!(bound.raise_at(), Some(now + FIRST_PAUSE * 2));
        while let Some(at) = bound.raise_at() {
            assert!(at < now + FIRST_PAUSE * 4, "a node that takes more is held to {:?} for ever", bound.bound());
            bound.raise(at);
        }
        assert_eq!(bound.bound(), None);
    }

    #[test]
    fn the_operators_bound_holds_and_a_suspected_one_is_undone() {
        let now = Instant::now();
        let mut bound = Bound::new(Some(10), now);
        bound.refused(50, 0, false, now);
        assert_eq!((bound.bound(), bound.is_learnt()), (Some(10), false));
        bound.refused(4, 0, false, now);
        assert_eq!((bound.bound(), bound.is_learnt()), (Some(4), true));
        bound.cleared();
        assert_eq!(bound.bound(), Some(10));
        bound.refused(4, 0, true, now);
        bound.cleared();
        assert_eq!(bound.bound(), Some(4));
        bound.forget();
        assert_eq!(bound.bound(), Some(10));
    }

    #[test]
    fn a_node_that_closes_the_only_connection_is_not_full() {
        let now = Instant::now();
        let mut bound = Bound::new(None, now);
        for others in [4, 3, 2, 1] {
            bound.refused(others, 0, true, now);
        }
        assert_eq!(bound.bound(), Some(1));
        bound.closed(now);
        bound.refused(0, 0, true, now);
        assert_eq!(bound.bound(), Some(1), "the node may not have noticed that the other was closed");
        bound.refused(0, 0, true, now + NOTICED * 2);
        assert_eq!(bound.bound(), None);
    }

    #[test]
    fn a_link_that_stays_open_does_not_make_a_node_full() {
        let now = Instant::now();
        let mut bound = Bound::new(None, now);
        bound.refused(2, 1, true, now);
        assert_eq!(bound.bound(), Some(3));
        bound.refused(1, 1, true, now);
        assert_eq!([Rank::Probe, Rank::Own, Rank::Call].map(|rank| bound.limit(rank, 1)), [2; 3]);
        // The only permit is the link's by now.
        assert_eq!([Rank::Probe, Rank::Own, Rank::Call].map(|rank| bound.limit(rank, 2)), [3; 3]);
        bound.refused(0, 1, true, now);
        assert_eq!(bound.bound(), None);
        let bound = Bound::new(Some(1), now);
        assert_eq!(bound.limit(Rank::Probe, 1), 1, "the operator's word holds");
    }

    #[test]
    fn a_silent_nodes_first_answer_has_the_bound_tried_at_once() {
        let now = Instant::now();
        let mut bound = Bound::new(None, now);
        bound.refused(5, 0, true, now);
        bound.answered(now + MUTE / 2);
        bound.refused(5, 0, true, now + MUTE);
        bound.answered(now + MUTE);
        assert_eq!(bound.bound(), Some(5), "it answers, and is full");
        bound.refused(5, 0, true, now + MUTE);
        bound.refused(5, 0, true, now + MUTE * 2);
        bound.answered(now + MUTE * 2);
        assert_eq!((bound.bound(), bound.raise_at()), (Some(6), Some(now + MUTE * 2 + TRIAL)));
        bound.raise(now + MUTE * 2 + TRIAL);
        assert_eq!(bound.bound(), Some(8));
        bound.answered(now + MUTE * 4);
        assert_eq!(bound.bound(), Some(8), "one lesson");
    }
}
