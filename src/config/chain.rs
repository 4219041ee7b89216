//! `[chain]`: how much of the chain is kept for subscribers, and how long subscribers wait for data
//! that no node gives.

use std::time::Duration;

use super::reader::Reader;

/// The largest window: more than a reorganisation can reach back on any chain, and still small in
/// memory.
const MAX_WINDOW: u64 = 65_536;

/// The least and the most time for data that no node gives, when the chain's pace decides.
const DATA_TIMEOUT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// In block times, the same.
const BLOCKS: u32 = 4;

/// How much of the chain is kept for subscribers, and how long subscribers are made to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The latest blocks that are kept: as deep as a reorganisation can be and still be told block
    /// by block.
    pub window: usize,
    /// The longest gap that is filled block by block; at least 1 and less than `window`. A longer
    /// one is skipped.
    pub max_backfill: usize,
    /// For how long a block's logs, or a header, that no node gives may hold up subscribers.
    /// `None`: see [`Chain::data_timeout`].
    pub timeout: Option<Duration>,
    /// Whether a block's bloom filter is believed that rules out logs for the subscribers.
    pub trust_bloom: TrustBloom,
}

/// Whether bloom filters are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrustBloom {
    /// Until one is found that its block's logs contradict; some blocks are looked at for that
    /// alone.
    #[default]
    Auto,
    /// Filters are always believed.
    Always,
    /// Filters are never believed: every block's logs are asked for while clients subscribe to
    /// logs.
    Never,
}

impl Default for Chain {
    fn default() -> Self {
        Self { window: 256, max_backfill: 128, timeout: None, trust_bloom: TrustBloom::Auto }
    }
}

impl Chain {
    /// For how long something that no node gives may hold up subscribers, at the chain's pace.
    pub fn data_timeout(&self, block_time: Option<Duration>) -> Duration {
        let (least, most) = DATA_TIMEOUT;
        self.timeout.unwrap_or_else(|| block_time.map_or(most, |time| time.saturating_mul(BLOCKS).clamp(least, most)))
    }

    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        let mut blocks = |key, range| r.integer(key, range).and_then(|n| usize::try_from(n).ok());
        let window = blocks("window", 2..=MAX_WINDOW).unwrap_or(default.window);
        // With a small `window`, the default of `max_backfill` shrinks too.
        let max_backfill = blocks("max_backfill", 1..=MAX_WINDOW).unwrap_or(default.max_backfill.min(window / 2));
        r.check(max_backfill < window, "max_backfill", &["window"], "must be less than `window`");
        let timeout = r.duration("timeout", Duration::ZERO);
        let words = [("auto", TrustBloom::Auto), ("always", TrustBloom::Always), ("never", TrustBloom::Never)];
        let trust_bloom = r.choice("trust_bloom", &words, default.trust_bloom);
        Self { window, max_backfill, timeout: Some(timeout).filter(|timeout| !timeout.is_zero()), trust_bloom }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_time_follows_the_chains_pace() {
        let time_limit = |millis| Chain::default().data_timeout(Some(Duration::from_millis(millis))).as_millis();
        assert_eq!([0, 100, 1000, 12_000].map(time_limit), [2000, 2000, 4000, 10_000]);
        assert_eq!(Chain::default().data_timeout(None), Duration::from_secs(10));
        let set = Chain { timeout: Some(Duration::from_secs(60)), ..Chain::default() };
        assert_eq!(set.data_timeout(Some(Duration::from_millis(100))), Duration::from_secs(60));
    }
}
