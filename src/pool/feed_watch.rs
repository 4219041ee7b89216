//! Whether a node's feed of heads is alive. Rule: a feed is mute if it is still below a height that
//! a probe found 2 s (`GRACE`) or more before; a feed that was found mute before has twice as long
//! each time, up to five minutes. A mute feed is stopped. Reason: a link may be open and answer
//! calls, and yet bring no notification. Example: the feed is at 100, a probe finds 101, and a
//! probe 2 s later finds that the feed has pushed nothing: mute.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::backoff::doubled;

/// How long a block that a probe found may take to come over the feed.
const GRACE: Duration = Duration::from_secs(2);
/// The longest grace time of a feed that was found mute again and again.
const LONGEST_GRACE: Duration = Duration::from_secs(300);

/// The liveness of one node's feed.
#[derive(Clone, Debug, Default)]
pub(super) struct FeedLiveness {
    feed: Option<Feed>,
    /// How often in a row the feed was found mute, with no block pushed in between.
    muted: u32,
}

#[derive(Clone, Debug)]
struct Feed {
    since: Instant,
    /// The height that was last pushed; before that, the one that the first probe found since the
    /// feed runs.
    height: Option<u64>,
    /// Whether the feed has pushed a block since it runs.
    tells: bool,
    /// A height above the feed's that a probe found, and when the probe was sent.
    missing: Option<(u64, Instant)>,
}

impl FeedLiveness {
    /// The feed runs from `now` on.
    pub(super) fn started(&mut self, now: Instant) {
        self.feed = Some(Feed { since: now, height: None, tells: false, missing: None });
    }

    /// The feed does not run.
    pub(super) fn stopped(&mut self) {
        self.feed = None;
    }

    /// The feed told of a block.
    pub(super) fn told(&mut self, height: u64) {
        if let Some(feed) = &mut self.feed {
            feed.height = Some(height);
            feed.tells = true;
            self.muted = 0;
        }
    }

    /// Whether the feed has told of a block since it runs.
    pub(super) fn is_telling(&self) -> bool {
        self.feed.as_ref().is_some_and(|feed| feed.tells)
    }

    /// Whether the feed is mute, now that a probe that was `asked` then found `height`: true if the
    /// feed is still behind a height that a probe found more than the grace time earlier. A mute
    /// feed is stopped.
    pub(super) fn is_mute(&mut self, height: u64, asked: Instant) -> bool {
        let grace = doubled(GRACE, self.muted, LONGEST_GRACE);
        let Some(feed) = self.feed.as_mut().filter(|feed| feed.since <= asked) else { return false };
        let told = *feed.height.get_or_insert(height);
        let owed = feed.missing.filter(|(missing, _)| *missing > told);
        if owed.is_some_and(|(_, found)| asked.saturating_duration_since(found) >= grace) {
            self.muted += 1;
            self.feed = None;
            return true;
        }
        feed.missing = owed.or((height > told).then_some((height, asked)));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts the feed and probes once a second: probe n finds height `found[n]`, and then the feed
    /// pushes `told[n]`. Returns the seconds at which the feed is found mute.
    fn mute_at(liveness: &mut FeedLiveness, found: &[u64], told: &[u64]) -> Vec<usize> {
        let start = Instant::now();
        liveness.started(start);
        let mut mute = Vec::new();
        for (second, height) in found.iter().enumerate() {
            if liveness.is_mute(*height, start + Duration::from_secs(second as u64)) {
                mute.push(second);
            }
            told.get(second).filter(|told| **told > 0).into_iter().for_each(|told| liveness.told(*told));
        }
        mute
    }

    #[test]
    fn a_feed_is_mute_when_probes_find_more_than_it_tells() {
        for (found, told, expected) in [
            // Nothing happens.
            (vec![5, 5, 5, 5, 5], vec![], vec![]),
            // Nothing is told.
            (vec![5, 6, 6, 6, 7], vec![], vec![3]),
            (vec![5, 6, 7, 8, 9], vec![], vec![3]),
            // The feed told of blocks, and does so no more.
            (vec![5, 6, 7, 7, 7], vec![6, 6, 0, 0, 0], vec![4]),
            // All is told, a little late.
            (vec![5, 6, 7, 8, 9, 10], vec![0, 6, 7, 8, 9, 10], vec![]),
            (vec![5, 6, 6, 6, 7], vec![0, 0, 6, 0, 0], vec![]),
            // A fast chain is always a few blocks ahead of the pushed height.
            (vec![10, 20, 30, 40, 50], vec![8, 18, 28, 38, 48], vec![]),
            // The chain is reorganised to a lower height, and goes on.
            (vec![9, 8, 9, 9, 9], vec![9, 7, 8, 9, 0], vec![]),
        ] {
            assert_eq!(mute_at(&mut FeedLiveness::default(), &found, &told), expected, "{found:?} {told:?}");
        }
    }

    #[test]
    fn a_probe_from_before_the_feed_does_not_count_against_it() {
        let (start, mut liveness) = (Instant::now(), FeedLiveness::default());
        liveness.started(start + Duration::from_secs(1));
        assert!(!liveness.is_mute(5, start));
        assert_eq!(mute_at(&mut liveness, &[9, 9, 9, 9], &[]), Vec::<usize>::new());
    }

    #[test]
    fn a_feed_mute_again_and_again_is_left_alone_for_longer() {
        let mut liveness = FeedLiveness::default();
        let found: Vec<u64> = (0..1000).collect();
        for expected in [3, 5, 9, 17, 33, 65, 129, 257, 301, 301] {
            assert_eq!(mute_at(&mut liveness, &found, &[]), [expected]);
        }
        liveness.started(Instant::now());
        liveness.told(7);
        assert_eq!(mute_at(&mut liveness, &found, &[]), [3]);
        assert!(!liveness.is_telling());
    }
}
