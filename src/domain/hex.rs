//! Hexadecimal quantities and bytes as the execution API writes them.

/// Reads a quantity like `0x1b4`. Leading zeros are tolerated, because some nodes write them.
pub fn quantity(text: impl AsRef<[u8]>) -> Option<u64> {
    let digits = text.as_ref().strip_prefix(b"0x").filter(|digits| !digits.is_empty())?;
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(16)?;
        Some(number.checked_mul(16)? | u64::from(digit))
    })
}

/// Reads bytes like `0x00ff`.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    pairs(text.strip_prefix("0x")?.as_bytes())?.collect()
}

/// Reads so many bytes from twice as many digits, with no prefix.
pub fn array<const LENGTH: usize>(digits: &[u8]) -> Option<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    let mut read = pairs(digits).filter(|read| read.len() == LENGTH)?;
    for byte in &mut bytes {
        *byte = read.next()??;
    }
    Some(bytes)
}

/// The byte of each pair of digits, or `None` where it is no such pair.
fn pairs(digits: &[u8]) -> Option<impl ExactSizeIterator<Item = Option<u8>>> {
    let nibble = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let is_even = digits.len().is_multiple_of(2);
    is_even.then(|| digits.chunks_exact(2).map(move |pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)))
}

/// Writes bytes with the prefix `0x`.
pub fn encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 + bytes.len() * 2);
    text.push_str("0x");
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
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
        assert_eq!(encode(&[0, 255, 0xab]), "0x00ffab");
        assert_eq!(bytes("0x"), Some(Vec::new()));
        assert_eq!(
            [array(b"00FF"), array(b"00ff00"), array(b"0xff"), array(b"00f")],
            [Some([0, 255]), None, None, None]
        );
        for bad in ["0x0", "00", "0xzz", ""] {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }
}
