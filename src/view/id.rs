//! Ids of clients' subscriptions.

use std::fmt;

/// The id of a client's subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(u128);

impl SubscriptionId {
    /// Draws a random id. Its first hex digit is not 0, so that a client that stores the id as a
    /// number writes the same digits.
    pub(super) fn draw(random: &mut fastrand::Rng) -> Self {
        Self(random.u128(1 << 124..))
    }

    pub(super) fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// Reads an id as a client writes it: a number in `0x`-hex, with any zeros in front. `None` for
    /// texts that are no number of at most 128 bits.
    pub fn read(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("0x")?.trim_start_matches('0');
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        is_hex.then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#034x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_32_digits_and_is_known_in_every_spelling() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let id = SubscriptionId::draw(&mut random);
            let text = id.to_string();
            assert!(text.len() == 34 && !text.starts_with("0x0"), "{text}");
            let digits = &text[2..];
            for again in [text.clone(), format!("0x{:0>64}", digits), format!("0x{}", digits.to_uppercase())] {
                assert_eq!(SubscriptionId::read(&again), Some(id), "{again}");
            }
        }
        for other in ["", "0x", "0x0", "1", "0x+1", "0xg", &format!("0x1{}", "0".repeat(32)), "x", "0X1"] {
            assert_eq!(SubscriptionId::read(other), None, "{other}");
        }
    }
}
