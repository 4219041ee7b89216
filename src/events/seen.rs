//! What has passed lately, by hash, so that it passes once.

use std::{
    collections::{HashSet, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

/// Events remembered: an epoch's worth where every attestation is told, at 16 bytes each.
const REMEMBERED: usize = 1 << 16;

/// A bounded memory of events.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hashes: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    /// Whether this event is new; from now on it is not.
    pub(super) fn is_new(&mut self, topic: &str, data: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        (topic, data).hash(&mut hasher);
        let hash = hasher.finish();
        if !self.hashes.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_known_until_it_is_long_ago() {
        let mut seen = Seen::default();
        assert!(seen.is_new("a", b"0"));
        assert!(!seen.is_new("a", b"0"));
        assert!(seen.is_new("b", b"0"));
        for number in 0..REMEMBERED {
            assert!(seen.is_new("c", number.to_string().as_bytes()));
        }
        assert_eq!(seen.hashes.len(), REMEMBERED);
        assert!(seen.is_new("a", b"0"));
    }
}
