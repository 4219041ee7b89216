//! Pretend values, drawn from hashes: the same for the same seed.

use alloy_primitives::{B256, Keccak256};

/// Keccak-256 of a purpose and of `from`: pretend roots of different purposes differ from each
/// other.
#[must_use]
pub(super) fn derived(purpose: &str, from: &[u8]) -> B256 {
    let mut hasher = Keccak256::new();
    hasher.update(purpose);
    hasher.update(from);
    hasher.finalize()
}

/// The hash's first eight bytes as a number, to draw pretend values from.
#[must_use]
pub(super) fn seed(hash: &B256) -> u64 {
    hash[..8].iter().fold(0, |acc, byte| acc << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;

    use super::*;

    #[test]
    fn a_derived_hash_is_keccak_of_the_purpose_and_the_rest() {
        let hash = derived("Transfer", b"(address,address,uint256)");
        assert_eq!(hash, keccak256("Transfer(address,address,uint256)"));
        assert_eq!(hash.to_string(), "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");
        assert_eq!(seed(&hash), 0xddf2_52ad_1be2_c89b);
    }
}
