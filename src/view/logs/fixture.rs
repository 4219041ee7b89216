//! A filter beside a block, for the bench of the filter: [`Filter`] itself is no part of the
//! crate's interface.

use super::{filter::Filter, log::Log};
use crate::domain::{bloom::Bloom, hash::Hash};

/// The height of the block.
const HEIGHT: u64 = 19_868_235;

/// A filter and a block's logs.
#[derive(Debug)]
pub struct Fixture {
    filter: Filter,
    logs: Vec<Log>,
    bloom: Bloom,
}

impl Fixture {
    /// A filter with these params, and a block with these logs. `None` where one of them cannot be
    /// read.
    pub fn new(params: &str, logs: &[String], block: Hash) -> Option<Self> {
        let filter = Filter::read(params).ok()?;
        let logs: Vec<Log> = logs.iter().map(|log| Log::read(log, block)).collect::<Option<_>>()?;
        let mut bloom = Bloom([0; 256]);
        for log in &logs {
            let topics = log.topics.iter().flatten().map(|topic| &topic.0[..]);
            for bit in topics.chain(log.address.iter().map(|address| &address[..])).flat_map(Bloom::bits) {
                bloom.0[255 - usize::from(bit / 8)] |= 1 << (bit % 8);
            }
        }
        Some(Self { filter, logs, bloom })
    }

    /// The number of logs in the block that the filter wants.
    pub fn wanted(&self) -> usize {
        self.logs.iter().filter(|log| self.filter.matches(log, HEIGHT)).count()
    }

    /// Whether the block may hold a log that the filter wants.
    pub fn may_match(&self) -> bool {
        self.filter.may_match(HEIGHT, Some(&self.bloom))
    }

    /// Whether the params of a subscription are a filter.
    pub fn reads(params: &str) -> bool {
        Filter::read(params).is_ok()
    }
}
