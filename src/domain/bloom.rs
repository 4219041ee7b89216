//! The bits that an address or a topic sets in the bloom filter of a block's header.

use alloy_primitives::{Bloom, keccak256};

/// Places of the three bits that an address or a topic sets in a [`Bloom`].
///
/// Alloy looks an item up by a hash, or by a whole filter of 256 bytes. A filter for logs is
/// compared with each block, so its items keep these six bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bits([u16; 3]);

impl Bits {
    /// The bits of an address or a topic.
    pub fn of(item: &[u8]) -> Self {
        let hash = keccak256(item);
        Self([0, 2, 4].map(|at| u16::from_be_bytes([hash[at], hash[at + 1]]) & 2047))
    }

    /// Whether all three are set. If not, no log of the block has the item of these bits.
    pub fn are_in(self, bloom: &Bloom) -> bool {
        // Bit 0 is the lowest of the last byte.
        let bytes = bloom.data();
        self.0.iter().all(|&bit| bytes[255 - usize::from(bit / 8)] & (1 << (bit % 8)) != 0)
    }
}

/// Whether all bits are set, so that the filter says nothing.
pub fn is_full(bloom: &Bloom) -> bool {
    *bloom == Bloom::repeat_byte(0xff)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::BloomInput;

    use super::*;

    #[test]
    fn bits_are_where_ethereum_puts_them() {
        // keccak("") = c5d2 4601 86f7…: bits 0x5d2, 0x601, 0x6f7.
        assert_eq!(Bits::of(b""), Bits([0x5d2, 0x601, 0x6f7]));
        // From the tests of go-ethereum's filter.
        let bloom = Bloom::from(BloomInput::Raw(b"testtest"));
        assert!(Bits::of(b"testtest").are_in(&bloom) && !Bits::of(b"other").are_in(&bloom));
        assert!(!is_full(&bloom) && is_full(&Bloom::repeat_byte(0xff)));
    }
}
