//! Ids of filters, which no client can guess of another client.

use alloy_primitives::keccak256;

use crate::view::SubscriptionId;

/// Draws ids from a secret.
#[derive(Debug)]
pub(super) struct Ids {
    secret: [u8; 32],
    drawn: u64,
}

impl Ids {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret, drawn: 0 }
    }

    /// 128 bits that tell nothing of other ids. The first digit is not 0, so that a client that
    /// reads the id as a number writes the same digits again.
    pub(super) fn draw(&mut self) -> SubscriptionId {
        loop {
            self.drawn += 1;
            let hash = keccak256([&self.secret[..], &self.drawn.to_be_bytes()].concat());
            let bits = hash.iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte));
            if bits >> 124 != 0 {
                return SubscriptionId::from_bits(bits);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_differ_and_have_32_digits() {
        let [mut ids, mut others] = [[1; 32], [2; 32]].map(Ids::new);
        let drawn: Vec<String> = (0..1000).map(|_| ids.draw().to_string()).collect();
        assert!(drawn.iter().all(|id| id.len() == 34 && !id.starts_with("0x0")));
        assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), 1000);
        assert_ne!(others.draw().to_string(), drawn[0]);
    }
}
