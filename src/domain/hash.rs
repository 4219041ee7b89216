//! Keccak-256, and the hashes that name blocks, transactions and topics.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, de::Error};
use sha3::{Digest, Keccak256};

use super::hex;

/// Names a block, a transaction or a topic: the Keccak-256 hash of its bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl FromStr for Hash {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.strip_prefix("0x").and_then(|digits| hex::array(digits.as_bytes()));
        bytes.map(Self).ok_or("not a hash")
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <Cow<'_, str>>::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Keccak-256, which names transactions, blocks and topics.
pub fn keccak256(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_in_any_case_and_written_in_lower_case() {
        let text = format!("0x{}", "Ab".repeat(32));
        assert_eq!(text.parse::<Hash>().unwrap().to_string(), text.to_lowercase());
        for bad in ["0xab", "", "ab", &format!("{text}00"), &text.replace('b', "g")] {
            assert!(bad.parse::<Hash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn keccak_is_the_one_that_ethereum_uses() {
        let empty = "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470";
        assert_eq!(hex::encode(&keccak256(b"")), empty);
    }
}
