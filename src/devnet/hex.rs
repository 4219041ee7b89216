//! The `0x` notation of JSON-RPC: bytes, and quantities without leading zeros.

/// `0x` and two digits a byte.
pub(super) fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(2 + bytes.len() * 2);
    out.push_str("0x");
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

/// The bytes of `0x…` with an even number of digits, in either case.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?.as_bytes();
    if digits.len() % 2 != 0 {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// Exactly `N` bytes.
pub(super) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode(text)?.try_into().ok()
}

/// A number as JSON-RPC writes it: `0x0`, `0xff`.
pub(super) fn quantity(number: u64) -> String {
    format!("0x{number:x}")
}

/// The number in a JSON-RPC quantity.
pub(super) fn decode_quantity(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|n| u8::try_from(n).ok())
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
