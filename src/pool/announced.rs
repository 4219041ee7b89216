//! Hashes that clients were told of: blocks, and the transactions of logs.

use std::collections::{HashSet, VecDeque};

use alloy_primitives::B256;

/// How many are remembered: those of the last minutes of a busy chain. 64 bytes each.
const MAX_ANNOUNCED: usize = 8192;

/// The latest hashes that clients were told of.
#[derive(Clone, Debug, Default)]
pub(super) struct Announced {
    order: VecDeque<B256>,
    known: HashSet<B256>,
}

impl Announced {
    pub(super) fn add(&mut self, hash: B256) {
        if !self.known.insert(hash) {
            return;
        }
        if self.order.len() == MAX_ANNOUNCED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(hash);
    }

    pub(super) fn has(&self, hash: &B256) -> bool {
        self.known.contains(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_hashes_are_known_and_the_oldest_are_forgotten() {
        let hash = |number: usize| B256::new(std::array::from_fn(|place| (number >> (8 * (place % 8))) as u8));
        let mut announced = Announced::default();
        (0..MAX_ANNOUNCED + 10).for_each(|number| announced.add(hash(number)));
        announced.add(hash(MAX_ANNOUNCED));
        assert!(!announced.has(&hash(9)) && announced.has(&hash(10)) && announced.has(&hash(MAX_ANNOUNCED + 9)));
        assert_eq!((announced.order.len(), announced.known.len()), (MAX_ANNOUNCED, MAX_ANNOUNCED));
    }
}
