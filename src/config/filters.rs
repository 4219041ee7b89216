//! `[filters]`: limits of the filters that clients poll.

use std::{num::NonZeroUsize, time::Duration};

use super::reader::Reader;

/// The fewest and the most blocks that a backlog may be bounded to.
const BLOCKS: std::ops::RangeInclusive<u64> = 16..=1_000_000;
/// The default of `max_bytes_per_client`: bytes for each filter that a client address may have, and
/// the least number.
const BYTES: (usize, usize) = (4 << 10, 4 << 20);

/// Limits of the filters that clients poll, for each network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filters {
    /// Filters at once, at most.
    pub max: NonZeroUsize,
    /// Filters of one client address, at most.
    pub max_per_client: NonZeroUsize,
    /// Bytes that the filters of one client address take, at most.
    pub max_bytes_per_client: usize,
    /// How long a filter lasts that is not polled.
    pub timeout: Duration,
    /// Blocks, and as many transactions for each, that are kept for filters that were not polled
    /// since; a filter that is further behind is dropped.
    pub max_backlog_blocks: usize,
    /// The same in bytes.
    pub max_backlog: usize,
}

impl Default for Filters {
    fn default() -> Self {
        Self {
            max: const { NonZeroUsize::new(10_000).expect("not zero") },
            max_per_client: const { NonZeroUsize::new(1_000).expect("not zero") },
            max_bytes_per_client: BYTES.1,
            timeout: Duration::from_secs(300),
            max_backlog_blocks: 8192,
            max_backlog: 64 << 20,
        }
    }
}

impl Filters {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        let max_per_client = r.count("max_per_client", default.max_per_client);
        let bytes = max_per_client.get().saturating_mul(BYTES.0).max(BYTES.1);
        let blocks = r.integer("max_backlog_blocks", BLOCKS).and_then(|blocks| usize::try_from(blocks).ok());
        Self {
            max: r.count("max", default.max),
            max_per_client,
            max_bytes_per_client: r.size("max_bytes_per_client", bytes),
            timeout: r.duration("timeout", default.timeout),
            max_backlog_blocks: blocks.unwrap_or(default.max_backlog_blocks),
            max_backlog: r.size("max_backlog", default.max_backlog),
        }
    }
}
