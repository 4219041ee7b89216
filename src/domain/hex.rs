//! Hexadecimal quantities and bytes as the execution API writes them.
//!
//! Bytes are read by const-hex, which alloy-primitives re-exports. That crate also reads digits
//! without a prefix; the execution API knows none, so the functions here refuse them.

use alloy_primitives::FixedBytes;
pub use alloy_primitives::hex::encode_prefixed as encode;

/// Reads a quantity like `0x1b4`. Leading zeros are tolerated, because some nodes write them.
pub fn quantity(text: impl AsRef<[u8]>) -> Option<u64> {
    let digits = text.as_ref().strip_prefix(b"0x").filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(number.checked_mul(16)? | u64::from(digit))
    })
}

/// Reads bytes like `0x00ff`, in either case.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    alloy_primitives::hex::decode(prefixed(text)?).ok()
}

/// Reads `0x` and exactly `LENGTH` bytes, in either case: a hash, an address, a bloom filter.
pub fn fixed<const LENGTH: usize>(text: &str) -> Option<FixedBytes<LENGTH>> {
    alloy_primitives::hex::decode_to_array(prefixed(text)?).ok().map(FixedBytes)
}

/// The whole text if its beginning is `0x`. The prefix stays, because const-hex strips one anyway.
fn prefixed(text: &str) -> Option<&str> {
    text.starts_with("0x").then_some(text)
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;

    use super::*;

    #[test]
    fn quantities_are_read_strictly_but_for_leading_zeros() {
        for (text, expected) in [
            ("0x0", Some(0)),
            ("0x1b4", Some(0x1b4)),
            ("0x00ff", Some(255)),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("0x10000000000000000", None),
            ("0x", None),
            ("0x+1", None),
            ("1b4", None),
            ("0xg", None),
            ("", None),
        ] {
            assert_eq!(quantity(text), expected, "{text}");
        }
    }

    #[test]
    fn bytes_survive_the_round_trip() {
        assert_eq!(bytes("0x00FFab"), Some(vec![0, 255, 0xab]));
        assert_eq!(encode([0, 255, 0xab]), "0x00ffab");
        assert_eq!(bytes("0x"), Some(Vec::new()));
        for bad in ["0x0", "00", "0xzz", "", "0X00", "0x0x00", "0x0X00", "0x é"] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hash_is_read_in_any_case_and_written_in_lower_case() {
        let text = format!("0x{}", "Ab".repeat(32));
        assert_eq!(fixed::<32>(&text).unwrap().to_string(), text.to_lowercase());
        let bare = &text[2..];
        let (upper, twice) = (format!("0X{bare}"), format!("0x0x{}", &bare[2..]));
        for bad in ["0xab", "", "ab", bare, &upper, &twice, &format!("{text}00"), &text.replace('b', "g")] {
            assert_eq!(fixed::<32>(bad), None, "{bad}");
        }
        assert_eq!(fixed("0x00fF"), Some(FixedBytes([0, 255])));
        assert_eq!(format!("{:?}", B256::ZERO), format!("0x{}", "00".repeat(32)));
    }
}
