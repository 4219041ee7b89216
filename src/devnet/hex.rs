//! The `0x` notation of JSON-RPC as the pretend chain writes it.

pub(super) use crate::domain::hex::{bytes as decode, encode, quantity as decode_quantity};

/// Exactly `N` bytes.
pub(super) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

/// A number as JSON-RPC writes it: `0x0`, `0xff`.
pub(super) fn quantity(number: u64) -> String {
    format!("0x{number:x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_round_trip() {
        for bytes in [&[][..], &[0], &[0xde, 0xad, 0xbe, 0xef]] {
            assert_eq!(decode(&encode(bytes)).as_deref(), Some(bytes));
        }
        assert_eq!(encode(&[0xde, 0xad]), "0xdead");
        assert_eq!(decode("0xDEad"), Some(vec![0xde, 0xad]));
    }

    #[test]
    fn malformed_hex_is_refused() {
        for text in ["", "12", "0x1", "0xzz", "0x é"] {
            assert_eq!(decode(text), None, "{text}");
        }
        for text in ["", "12", "0x", "0x+1", "0xg", "0x10000000000000000"] {
            assert_eq!(decode_quantity(text), None, "{text}");
        }
    }

    #[test]
    fn quantities_have_no_leading_zeros() {
        assert_eq!(quantity(0), "0x0");
        assert_eq!(quantity(255), "0xff");
        assert_eq!(decode_quantity("0xff"), Some(255));
    }
}
