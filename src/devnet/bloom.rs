//! The logs bloom of a header: 2048 bits, three per address and topic (yellow paper, section
//! 4.3.1).

use super::hash::Hash;

/// A 2048-bit bloom filter.
#[derive(Clone, PartialEq, Eq)]
pub struct Bloom(pub [u8; 256]);

impl Default for Bloom {
    fn default() -> Self {
        Self([0; 256])
    }
}

impl Bloom {
    /// Sets the three bits of `item`.
    pub fn insert(&mut self, item: &[u8]) {
        for (byte, mask) in bits(item) {
            self.0[byte] |= mask;
        }
    }

    /// False when `item` is certainly absent.
    #[must_use]
    pub fn may_contain(&self, item: &[u8]) -> bool {
        bits(item).iter().all(|(byte, mask)| self.0[*byte] & mask != 0)
    }
}

/// The low 11 bits of each of the hash's first three 16-bit words name a bit, counted from the end
/// of the array.
fn bits(item: &[u8]) -> [(usize, u8); 3] {
    let hash = Hash::of(item).0;
    [0, 2, 4].map(|i| {
        let bit = (usize::from(hash[i]) << 8 | usize::from(hash[i + 1])) & 0x7ff;
        (255 - bit / 8, 1 << (bit % 8))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::hex, *};

    /// go-ethereum, `core/types/bloom9_test.go`: the items are the text's bytes.
    #[test]
    fn go_ethereums_members_are_in_and_the_others_are_out() {
        let mut bloom = Bloom::default();
        let inside = ["testtest", "test", "hallo", "other"];
        inside.iter().for_each(|item| bloom.insert(item.as_bytes()));
        for item in inside {
            assert!(bloom.may_contain(item.as_bytes()), "{item}");
        }
        for item in ["tes", "lo"] {
            assert!(!bloom.may_contain(item.as_bytes()), "{item}");
        }
    }

    /// go-ethereum, `TestBloomExtensively`: the hash of the filter after a hundred known items.
    #[test]
    fn a_hundred_items_give_go_ethereums_filter() {
        let mut bloom = Bloom::default();
        for i in 0..100 {
            bloom.insert(format!("xxxxxxxxxx data {i} yyyyyyyyyyyyyy").as_bytes());
        }
        let hash = Hash::of(&bloom.0).to_string();
        assert_eq!(hash, "0xc8d3ca65cdb4874300a9e39475508f23ed6da09fdbc487f89a2dcf50b09eb263");
    }

    #[test]
    fn the_bits_stand_where_the_yellow_paper_puts_them() {
        // keccak("") = c5d2 4601 86f7…: bits 0x5d2, 0x601, 0x6f7.
        let mut bloom = Bloom::default();
        bloom.insert(b"");
        let set: u32 = bloom.0.iter().map(|b| b.count_ones()).sum();
        assert_eq!(set, 3);
        for bit in [0x5d2_usize, 0x601, 0x6f7] {
            assert_ne!(bloom.0[255 - bit / 8] & 1 << (bit % 8), 0, "{bit:x} in {}", hex::encode(&bloom.0));
        }
    }
}
