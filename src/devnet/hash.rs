//! Keccak-256, and the two fixed-width words of the chain: hashes and addresses.

use std::fmt;

use sha3::{Digest, Keccak256};

use super::hex;

/// A 32-byte hash: of a block, a transaction, a topic, a root.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

/// A 20-byte account or contract address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

impl Hash {
    /// Keccak-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Keccak256::digest(bytes).into())
    }

    /// Keccak-256 of a purpose and of `from`: pretend roots of different purposes differ from each
    /// other.
    #[must_use]
    pub(super) fn derived(purpose: &str, from: &[u8]) -> Self {
        let mut hasher = Keccak256::new();
        hasher.update(purpose.as_bytes());
        hasher.update(from);
        Self(hasher.finalize().into())
    }

    /// Reads `0x` and 64 digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode_array(text).map(Self)
    }

    /// The last twenty bytes, as an address is taken from a public key's hash.
    #[must_use]
    pub(super) fn address(&self) -> Address {
        let mut out = [0; 20];
        out.copy_from_slice(&self.0[12..]);
        Address(out)
    }

    /// The first eight bytes as a number, to draw pretend values from.
    #[must_use]
    pub(super) fn seed(&self) -> u64 {
        self.0[..8].iter().fold(0, |acc, byte| acc << 8 | u64::from(*byte))
    }
}

impl Address {
    /// Reads `0x` and 40 digits, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode_array(text).map(Self)
    }

    /// The address as an indexed event argument: left-padded to 32 bytes.
    #[must_use]
    pub(super) fn topic(&self) -> Hash {
        let mut out = [0; 32];
        out[12..].copy_from_slice(&self.0);
        Hash(out)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keccak_is_ethereums_and_not_nists() {
        assert_eq!(Hash::of(b"").to_string(), "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470");
        assert_eq!(
            Hash::of(b"Transfer(address,address,uint256)").to_string(),
            "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
        );
    }

    #[test]
    fn words_of_the_wrong_width_are_refused() {
        assert_eq!(Hash::parse("0x00"), None);
        assert_eq!(Address::parse(&Hash::default().to_string()), None);
        assert_eq!(Address::parse("0x000000000000000000000000000000000000dEaD").map(|a| a.0[19]), Some(0xad));
    }
}
