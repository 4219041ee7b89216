//! The filter and the log of `src`, and a way out of their visibility.

#[allow(dead_code, reason = "the bench uses a part of the file")]
#[path = "../../../src/view/logs/filter.rs"]
mod filter;
#[allow(dead_code, reason = "the bench uses a part of the file")]
#[path = "../../../src/view/logs/log.rs"]
mod log;

use filter::Filter;
use log::Log;

use crate::domain::{bloom::Bloom, hash::Hash};

/// A filter and a block. Its methods lead out of the files' own visibility.
pub(crate) struct Fixture {
    filter: Filter,
    logs: Vec<Log>,
    bloom: Bloom,
}

impl Fixture {
    /// A filter, and a block with these logs.
    pub(crate) fn new(filter: &str, logs: &[String], block: Hash) -> Self {
        let filter = Filter::read(filter).expect("a filter");
        let logs: Vec<Log> = logs.iter().map(|log| Log::read(log, block).expect("a log")).collect();
        let mut bloom = Bloom([0; 256]);
        for log in &logs {
            let topics = log.topics.iter().flatten().map(|topic| &topic.0[..]);
            for bit in topics.chain(log.address.iter().map(|address| &address[..])).flat_map(Bloom::bits) {
                bloom.0[255 - usize::from(bit / 8)] |= 1 << (bit % 8);
            }
        }
        Self { filter, logs, bloom }
    }

    /// How many logs of the block the filter wants.
    pub(crate) fn wanted(&self) -> usize {
        self.logs.iter().filter(|log| self.filter.matches(log, 19_868_235)).count()
    }

    /// Whether the block may hold a log that the filter wants.
    pub(crate) fn may_match(&self) -> bool {
        self.filter.may_match(19_868_235, Some(&self.bloom))
    }

    /// Whether the params of a subscription are a filter.
    pub(crate) fn reads(params: &str) -> bool {
        Filter::read(params).is_ok()
    }
}
