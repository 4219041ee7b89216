//! A filter beside a block, for the bench of the filter: [`Filter`] itself is no part of the
//! crate's interface.

use alloy_primitives::{B256, Bloom, BloomInput};

use super::{filter::Filter, log::Log};

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
    pub fn new(params: &str, logs: &[String], block: B256) -> Option<Self> {
        let filter = Filter::read(params).ok()?;
        let logs: Vec<Log> = logs.iter().map(|log| Log::read(log, block)).collect::<Option<_>>()?;
        let mut bloom = Bloom::ZERO;
        for log in &logs {
            log.address.iter().for_each(|address| bloom.accrue(BloomInput::Raw(&address[..])));
            log.topics.iter().flatten().for_each(|topic| bloom.accrue(BloomInput::Raw(&topic[..])));
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
