//! Reads values that clients write in params, and says what is wrong with them: in go-ethereum's
//! words where a text is read, and in its own where a value is of another type.

use std::fmt;

use alloy_primitives::{FixedBytes, hex};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

/// A JSON text. Half a surrogate pair in the text is replaced, as go-ethereum does.
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: de::Error>(self, text: &[u8]) -> Result<Text, E> {
                Ok(Text(String::from_utf8_lossy(text).into_owned()))
            }
        }

        json.deserialize_bytes(Bytes)
    }
}

/// Reads a JSON text; `None` when the value is of another type.
pub(super) fn text(json: &str) -> Option<String> {
    serde_json::from_str::<Text>(json).ok().map(|text| text.0)
}

/// Names the kind of a JSON value, as in "expected a string, not a number".
pub(super) fn kind(json: &str) -> &'static str {
    match json.trim_start().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// Reads a quantity, for example a block number. Go-ethereum refuses leading zeros, which other
/// nodes and [`crate::domain::hex::quantity`] accept.
///
/// # Errors
/// When the text is no quantity; the error is part of a message to the client.
pub(super) fn quantity(text: &str) -> Result<u64, &'static str> {
    let digits = digits(text)?;
    match digits.as_bytes() {
        [] => return Err("hex string \"0x\""),
        [b'0', _, ..] => return Err("hex number with leading zero digits"),
        digits if !digits.iter().all(u8::is_ascii_hexdigit) => return Err("invalid hex string"),
        _ => {}
    }
    let number = u64::from_str_radix(digits, 16).map_err(|_| "hex number > 64 bits")?;
    if number > i64::MAX.unsigned_abs() { Err("block number larger than int64") } else { Ok(number) }
}

/// Reads bytes of a fixed length, which `noun` names in errors.
///
/// # Errors
/// When the text has another form or length; the error is part of a message to the client.
pub(super) fn bytes<const LENGTH: usize>(text: &str, noun: &str) -> Result<FixedBytes<LENGTH>, String> {
    let digits = digits(text)?.as_bytes();
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err("invalid hex string".to_owned());
    }
    if !digits.len().is_multiple_of(2) {
        return Err("hex string of odd length".to_owned());
    }
    let length = digits.len() / 2;
    let bytes = Some(()).filter(|()| length == LENGTH).and_then(|()| hex::decode_to_array(digits).ok());
    bytes
        .map(FixedBytes)
        .ok_or_else(|| format!("hex has invalid length {length} after decoding; expected {LENGTH} for {noun}"))
}

fn digits(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() {
        return Err("empty hex string");
    }
    text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or("hex string without 0x prefix")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_go_ethereum_reads_them() {
        for (text, expected) in [
            ("0x0", Ok(0)),
            ("0xaB", Ok(171)),
            ("0X1", Ok(1)),
            ("0x7fffffffffffffff", Ok(i64::MAX.unsigned_abs())),
            ("0x8000000000000000", Err("block number larger than int64")),
            ("0x10000000000000000", Err("hex number > 64 bits")),
            ("0x05", Err("hex number with leading zero digits")),
            ("0x00", Err("hex number with leading zero digits")),
            ("0x", Err("hex string \"0x\"")),
            ("0x+1", Err("invalid hex string")),
            ("0xg", Err("invalid hex string")),
            ("0xé", Err("invalid hex string")),
            ("5", Err("hex string without 0x prefix")),
            ("", Err("empty hex string")),
        ] {
            assert_eq!(quantity(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_is_read_whatever_is_in_it_and_nothing_else_is_one() {
        let texts = [r#""0x1""#, r#""a\n\u00e9""#, r#""""#, " \"x\" "].map(|json| text(json).unwrap());
        assert_eq!(texts, ["0x1", "a\né", "", "x"]);
        assert!(text(r#""x\ud800""#).unwrap().starts_with('x'));
        for json in ["1", "null", "[1]", "[]", "{}", "true"] {
            assert_eq!(text(json), None, "{json}");
        }
    }

    #[test]
    fn bytes_have_their_length_and_whole_pairs_of_digits() {
        assert_eq!(bytes("0x00Ff", "x"), Ok(FixedBytes([0, 255])));
        for (text, expected) in [
            ("0x00", "hex has invalid length 1 after decoding; expected 2 for word"),
            ("0x", "hex has invalid length 0 after decoding; expected 2 for word"),
            ("0x000000", "hex has invalid length 3 after decoding; expected 2 for word"),
            ("0x000", "hex string of odd length"),
            ("0x00zz", "invalid hex string"),
            ("0000", "hex string without 0x prefix"),
            ("", "empty hex string"),
        ] {
            assert_eq!(bytes::<2>(text, "word"), Err(expected.to_owned()), "{text}");
        }
    }
}
