//! The filter in a block's header that tells which addresses and topics its logs may have.

use std::fmt;

use super::{hash, hex};

/// 2,048 bits; each address and each topic of the block's logs sets three.
#[derive(Clone, PartialEq, Eq)]
pub struct Bloom(pub [u8; 256]);

/// Places of the three bits that an address or a topic sets.
pub type Bits = [u16; 3];

impl Bloom {
    /// Reads `0x`-hex of 256 bytes.
    pub fn read(text: &str) -> Option<Self> {
        hex::bytes(text).and_then(|bytes| bytes.try_into().ok()).map(Self)
    }

    /// The bits of an address or a topic.
    pub fn bits(item: &[u8]) -> Bits {
        let hash = hash::keccak256(item);
        [0, 2, 4].map(|at| u16::from_be_bytes([hash[at], hash[at + 1]]) & 2047)
    }

    /// Whether all these bits are set. If not, no log of the block has the item of these bits.
    pub fn has(&self, bits: Bits) -> bool {
        // Bit 0 is the lowest of the last byte.
        bits.iter().all(|&bit| self.0[255 - usize::from(bit / 8)] & (1 << (bit % 8)) != 0)
    }

    /// Whether all bits are set, so that the filter says nothing.
    pub fn is_full(&self) -> bool {
        self.0 == [0xff; 256]
    }

    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 256]
    }
}

impl fmt::Debug for Bloom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: u32 = self.0.iter().map(|byte| byte.count_ones()).sum();
        write!(f, "Bloom({set} bits)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_where_ethereum_puts_them() {
        // From the tests of go-ethereum's filter: the bits of the item "testtest".
        let mut bloom = Bloom([0; 256]);
        assert!(bloom.is_empty());
        for bit in Bloom::bits(b"testtest") {
            bloom.0[255 - usize::from(bit / 8)] |= 1 << (bit % 8);
        }
        assert!(bloom.has(Bloom::bits(b"testtest")) && !bloom.has(Bloom::bits(b"other")) && !bloom.is_empty());
        assert_eq!(Bloom::read(&hex::encode(&bloom.0)), Some(bloom));
        assert_eq!(Bloom::read("0x00"), None);
    }
}
