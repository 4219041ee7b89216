//! Whether the bloom filters of headers are believed.

use std::collections::BTreeSet;

use alloy_primitives::{B256, Bloom};

use super::log::Log;
use crate::{
    config::TrustBloom,
    domain::bloom::{Bits, is_full},
};

/// A block that no filter seems to want is fetched all the same with a chance of one in `SAMPLE`.
const SAMPLE: u8 = 8;
/// Of the first blocks that no filter seems to want, so many are all fetched, or fewer if one of
/// them has logs.
const AT_FIRST: u8 = 8;

/// Decides how far the bloom filters of a chain's headers are believed. On some chains all filters
/// are empty and prove nothing; on others nodes give logs that the filters lack.
#[derive(Debug)]
pub(super) struct Blooms {
    trust: TrustBloom,
    /// Whether the chain has shown a filter that is not empty.
    are_known: bool,
    /// How many more blocks that no filter seems to want are all fetched.
    to_try: u8,
    /// The last change with a block that was passed over because of its filter.
    passed: Option<u64>,
}

impl Blooms {
    pub(super) fn new(trust: TrustBloom) -> Self {
        Self { trust, are_known: false, to_try: AT_FIRST, passed: None }
    }

    /// The bloom filter of the next block, if filters are believed.
    pub(super) fn evidence<'a>(&mut self, bloom: Option<&'a Bloom>) -> Option<&'a Bloom> {
        self.are_known |= bloom.is_some_and(|bloom| !bloom.is_zero());
        let is_believed = match self.trust {
            TrustBloom::Auto => self.are_known,
            TrustBloom::Always => true,
            TrustBloom::Never => false,
        };
        bloom.filter(|_| is_believed)
    }

    /// Whether to fetch this block's logs to check its bloom filter, which says that they are
    /// unwanted.
    pub(super) fn doubts(&mut self, block: B256, change: u64) -> bool {
        let doubts = self.trust == TrustBloom::Auto && (self.to_try > 0 || block.0[31].is_multiple_of(SAMPLE));
        self.to_try = self.to_try.saturating_sub(1);
        if !doubts {
            self.passed_over(change);
        }
        doubts
    }

    /// Notes that a block of this change was not fetched because of its bloom filter.
    pub(super) fn passed_over(&mut self, change: u64) {
        self.passed = self.passed.max(Some(change));
    }

    /// Checks the logs of a block against its bloom filter. If the filter lacks one of the logs, no
    /// filter is believed from now on, and subscribers to the returned change, if any, may have
    /// missed logs.
    pub(super) fn compare(&mut self, bloom: Option<&Bloom>, logs: &[Log]) -> Option<Contradiction> {
        let bloom = bloom.filter(|bloom| self.trust == TrustBloom::Auto && !is_full(bloom))?;
        if bloom.is_zero() && !self.are_known {
            return None;
        }
        if !logs.is_empty() {
            self.to_try = 0;
        }
        let marks: BTreeSet<&[u8]> = logs.iter().flat_map(Log::marks).collect();
        if marks.into_iter().all(|mark| Bits::of(mark).are_in(bloom)) {
            return None;
        }
        self.trust = TrustBloom::Never;
        Some(Contradiction { passed: self.passed.take() })
    }
}

/// A block's bloom filter lacks one of the block's logs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contradiction {
    /// The last change with a block whose filter was believed.
    pub(super) passed: Option<u64>,
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{Address, BloomInput};

    use super::*;

    fn log(address: u8) -> Log {
        Log {
            address: Some(Address::repeat_byte(address)),
            topics: vec![Some(B256::repeat_byte(7)), None],
            text: "{}".into(),
        }
    }

    fn bloom(logs: &[Log]) -> Bloom {
        let mut bloom = Bloom::ZERO;
        logs.iter().flat_map(Log::marks).for_each(|mark| bloom.accrue(BloomInput::Raw(mark)));
        bloom
    }

    #[test]
    fn an_empty_bloom_says_nothing_before_a_full_one_was_seen() {
        let (mut blooms, empty, full) = (Blooms::new(TrustBloom::Auto), Bloom::ZERO, Bloom::repeat_byte(1));
        assert_eq!(blooms.evidence(Some(&empty)), None);
        assert_eq!(blooms.compare(Some(&empty), &[log(1)]), None);
        assert_eq!(blooms.evidence(Some(&full)), Some(&full));
        assert_eq!(blooms.evidence(None), None);
        assert_eq!(blooms.evidence(Some(&empty)), Some(&empty));
        assert!(blooms.compare(Some(&empty), &[log(1)]).is_some());
        assert_eq!(blooms.evidence(Some(&full)), None);
    }

    #[test]
    fn a_bloom_is_believed_until_a_log_contradicts_one() {
        let mut blooms = Blooms::new(TrustBloom::Auto);
        let honest = bloom(&[log(1), log(2)]);
        let [passes, sampled] = [9, 8].map(B256::repeat_byte);
        assert_eq!(blooms.evidence(Some(&honest)), Some(&honest));
        assert!(blooms.doubts(passes, 3), "the first is looked at");
        assert_eq!(blooms.compare(Some(&honest), &[]), None);
        assert!(blooms.doubts(passes, 4), "the other had no logs");
        assert_eq!(blooms.compare(Some(&honest), &[log(1)]), None);
        assert!(!blooms.doubts(passes, 4) && blooms.doubts(sampled, 5) && !blooms.doubts(passes, 6));
        assert_eq!(blooms.compare(Some(&honest), &[log(1), log(2), log(1)]), None);
        assert_eq!(blooms.compare(Some(&Bloom::repeat_byte(0xff)), &[log(3)]), None);
        assert_eq!(blooms.compare(Some(&honest), &[log(1), log(3)]), Some(Contradiction { passed: Some(6) }));
        assert_eq!(blooms.evidence(Some(&honest)), None);
        assert_eq!(blooms.compare(Some(&honest), &[log(3)]), None, "it is said once");
        let mut quiet = Blooms::new(TrustBloom::Auto);
        assert_eq!((0..20).filter(|change| quiet.doubts(passes, *change)).count(), usize::from(AT_FIRST));
    }

    #[test]
    fn trust_bloom_setting_is_obeyed() {
        let (honest, empty) = (bloom(&[log(1)]), Bloom::ZERO);
        let mut always = Blooms::new(TrustBloom::Always);
        assert_eq!(always.evidence(Some(&empty)), Some(&empty));
        assert!(!always.doubts(B256::repeat_byte(8), 1));
        assert_eq!(always.compare(Some(&honest), &[log(2)]), None);
        assert_eq!(always.evidence(Some(&honest)), Some(&honest));
        assert_eq!(Blooms::new(TrustBloom::Never).evidence(Some(&honest)), None);
    }
}
