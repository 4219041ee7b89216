//! A validating JSON scanner that borrows: the scanner finds where values begin and end, and builds
//! nothing.
//!
//! The scanner accepts exactly the texts that RFC 8259 allows, nested at most [`MAX_DEPTH`] deep,
//! and does not recurse. Input must be valid UTF-8; the callers that take bytes from outside check
//! that first, once for the whole body.

mod walk;

use std::borrow::Cow;

pub use self::walk::{Passed, Seek, Walk};

/// How deep arrays and objects may nest. A real call needs fewer than ten levels.
pub const MAX_DEPTH: u32 = 128;
/// How deep a node's answer may nest: a trace has two levels for each of up to 1024 calls within
/// calls.
pub const MAX_ANSWER_DEPTH: u32 = 4096;

/// Why a text is not JSON, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    /// The mistake.
    pub what: &'static str,
    /// Offset from the start of the text, in bytes.
    pub at: usize,
}

/// A cursor over JSON text.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    max_depth: u32,
}

/// The inside of a scanned string, quotes excluded and escapes left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Str<'a> {
    /// The bytes between the quotes.
    pub raw: &'a [u8],
    /// Whether the string has a backslash.
    pub escaped: bool,
}

impl<'a> Str<'a> {
    /// The text that the string stands for, or `None` where an escape names half of a surrogate
    /// pair.
    pub fn decode(&self) -> Option<Cow<'a, str>> {
        let text = std::str::from_utf8(self.raw).ok()?;
        if !self.escaped {
            return Some(Cow::Borrowed(text));
        }
        serde_json::from_str::<String>(&format!("\"{text}\"")).ok().map(Cow::Owned)
    }
}

impl<'a> Scanner<'a> {
    /// Starts at the first byte of `text`.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, max_depth: MAX_DEPTH }
    }

    /// Starts at the first byte of `text`, which may nest as deep as a node's answer.
    pub fn of_answer(text: &'a [u8]) -> Self {
        Self { text, at: 0, max_depth: MAX_ANSWER_DEPTH }
    }

    /// The offset of the next byte.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The next byte, not consumed.
    pub fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Whether all of the text has been consumed. A [`Malformed`] at the end may only mean that
    /// more bytes are to come.
    pub fn is_at_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Consumes white space.
    pub fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    /// Consumes `byte` if that is the next byte.
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Consumes `byte`.
    ///
    /// # Errors
    /// When something else is next.
    pub fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), Malformed> {
        if self.take(byte) { Ok(()) } else { Err(self.malformed(what)) }
    }

    /// Consumes white space to the end of the text.
    ///
    /// # Errors
    /// When anything else follows.
    pub fn end(&mut self) -> Result<(), Malformed> {
        self.space();
        if self.is_at_end() { Ok(()) } else { Err(self.malformed("trailing characters")) }
    }

    /// Consumes a string.
    ///
    /// # Errors
    /// When no well-formed string is next.
    pub fn string(&mut self) -> Result<Str<'a>, Malformed> {
        self.expect(b'"', "expected a string")?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at = skip_plain(self.text, self.at);
            match self.peek() {
                Some(b'"') => {
                    let raw = &self.text[start..self.at];
                    self.at += 1;
                    return Ok(Str { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.malformed("control character in a string")),
                None => return Err(self.malformed("unterminated string")),
            }
        }
    }

    /// Consumes one value of any kind and returns its bytes.
    ///
    /// # Errors
    /// When the value is malformed or nests too deep.
    pub fn value(&mut self) -> Result<&'a [u8], Malformed> {
        let start = self.at;
        // Most values have no others in them.
        match self.peek() {
            Some(b'"') => return self.string().map(|_| &self.text[start..self.at]),
            Some(b'-' | b'0'..=b'9') => return self.number().map(|()| &self.text[start..self.at]),
            _ => {}
        }
        let mut open_ones = Open::default();
        'value: loop {
            self.space();
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if open_ones.depth == self.max_depth {
                        return Err(self.malformed("nested too deep"));
                    }
                    self.at += 1;
                    self.space();
                    let object = open == b'{';
                    if !self.take(open + 2) {
                        open_ones.push(object);
                        if object {
                            self.key()?;
                        }
                        continue 'value;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.malformed("expected a value")),
            }
            // A value has just ended: close the arrays and objects that end with it, or go on to
            // the next sibling.
            while open_ones.depth > 0 {
                self.space();
                let object = open_ones.is_object();
                if self.take(b',') {
                    if object {
                        self.space();
                        self.key()?;
                    }
                    continue 'value;
                }
                self.expect(if object { b'}' } else { b']' }, "expected a comma or a closing bracket")?;
                open_ones.pop();
            }
            return Ok(&self.text[start..self.at]);
        }
    }

    /// Consumes a key and its colon.
    fn key(&mut self) -> Result<Str<'a>, Malformed> {
        let key = self.string()?;
        self.space();
        self.expect(b':', "expected a colon")?;
        Ok(key)
    }

    /// Steps to the next member of an object whose opening brace has been consumed. Returns the
    /// key, with the cursor at the value, or `None` where the object ends. `first` says that no
    /// member came before.
    ///
    /// # Errors
    /// When neither a member nor the closing brace is next.
    pub fn member(&mut self, first: bool) -> Result<Option<Str<'a>>, Malformed> {
        self.space();
        if self.take(b'}') {
            return Ok(None);
        }
        if !first {
            self.expect(b',', "expected a comma or a closing brace")?;
            self.space();
        }
        let key = self.key()?;
        self.space();
        Ok(Some(key))
    }

    fn escape(&mut self) -> Result<(), Malformed> {
        let Some(&kind) = self.text.get(self.at + 1) else {
            self.at = self.text.len();
            return Err(self.malformed("unterminated string"));
        };
        let length = match kind {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' => 6,
            _ => return Err(self.malformed("unknown escape")),
        };
        let Some(escape) = self.text.get(self.at..self.at + length) else {
            self.at = self.text.len();
            return Err(self.malformed("unterminated string"));
        };
        if !escape[2..].iter().all(u8::is_ascii_hexdigit) {
            return Err(self.malformed("malformed unicode escape"));
        }
        self.at += length;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Malformed> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { Err(self.malformed("expected a digit")) } else { Ok(()) }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), Malformed> {
        if self.text[self.at..].starts_with(word) {
            self.at += word.len();
            return Ok(());
        }
        if word.starts_with(&self.text[self.at..]) {
            self.at = self.text.len();
        }
        Err(self.malformed("expected a value"))
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }
}

/// The containers that are open.
#[derive(Clone, Debug, Default)]
struct Open {
    depth: u32,
    /// A bit for each of the innermost, up to 128, innermost lowest: set for an object.
    objects: u128,
    /// Those further out, 128 each.
    outer: Vec<u128>,
}

impl Open {
    const BITS: u32 = 128;

    fn push(&mut self, object: bool) {
        if self.depth > 0 && self.depth.is_multiple_of(Self::BITS) {
            self.outer.push(std::mem::take(&mut self.objects));
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        if self.depth > 0 && self.depth.is_multiple_of(Self::BITS) {
            self.objects = self.outer.pop().unwrap_or_default();
        }
    }

    /// Whether the innermost is an object; an array otherwise.
    fn is_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// Whether `text`, an answer, is one complete value.
pub fn is_whole(text: &[u8]) -> bool {
    let mut scanner = Scanner::of_answer(text);
    scanner.space();
    scanner.value().is_ok() && scanner.end().is_ok()
}

/// The offset of the first byte at or after `from` that is a quote, a backslash or a control
/// character, eight bytes a step.
fn skip_plain(text: &[u8], from: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // The high bit of each byte that is below `limit` (at most 0x80); a borrow can only flag bytes
    // above a true one.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let mut at = from;
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().expect("a chunk of eight"));
        let quote = below(word ^ (ONES * u64::from(b'"')), 1);
        let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
        let stops = below(word, 0x20) | quote | backslash;
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|&b| b >= 0x20 && b != b'"' && b != b'\\') {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepts(text: &str) -> bool {
        let mut scanner = Scanner::new(text.as_bytes());
        scanner.space();
        scanner.value().is_ok() && scanner.end().is_ok()
    }

    /// `serde_json` as the referee: values as raw slices, so that numbers of any size count as
    /// numbers.
    fn is_json(text: &str) -> bool {
        serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok()
    }

    #[test]
    fn odd_texts_are_judged_as_the_standard_does() {
        let cases = [
            "",
            " ",
            "{}",
            "[]",
            "[[]]",
            "[{}]",
            "{\"a\":[]}",
            "[1,]",
            "{\"a\":1,}",
            "{,}",
            "[,]",
            "{\"a\"}",
            "{\"a\":}",
            "{1:2}",
            "01",
            "-",
            "-0",
            "-01",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1E-9",
            "+1",
            "123456789012345678901234567890",
            "1.5e400",
            "nul",
            "null",
            "nulll",
            "tru",
            "truefalse",
            "\"",
            "\"\\\"",
            "\"\\",
            "\"\\u12\"",
            "\"\\u12G4\"",
            "\"\\uD800\"",
            "\"\\x\"",
            "\"\n\"",
            "\"\u{7f}\"",
            "\"é😀\"",
            "\"}{][,:\"",
            "[1 2]",
            "{\"a\":1 \"b\":2}",
            "[1}",
            "{]",
            "]",
            "\u{feff}{}",
            "{}x",
            " \t\r\n{} \n",
            "\u{b}{}",
            "NaN",
            "'a'",
            "[true,false,null]",
        ];
        for text in cases {
            assert_eq!(accepts(text), is_json(text), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_bounded_without_recursion() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(accepts(&nested(MAX_DEPTH as usize)));
        assert!(!accepts(&nested(MAX_DEPTH as usize + 1)));
        assert!(!accepts(&"[".repeat(10_000_000)));
        for depth in [127, 128, 129, 255, 256, 257, 2050, MAX_ANSWER_DEPTH as usize] {
            assert!(is_whole(nested(depth).as_bytes()), "{depth}");
            let mixed = "[{\"a\":".repeat(depth / 2) + "1" + &"}]".repeat(depth / 2);
            assert!(is_whole(mixed.as_bytes()), "{depth}");
            assert!(!is_whole(mixed.replacen("}]", "]}", 1).as_bytes()), "{depth}");
        }
        assert!(!is_whole(nested(MAX_ANSWER_DEPTH as usize + 1).as_bytes()));
        let objects = "{\"a\":".repeat(64) + "[[1]]" + &"}".repeat(64);
        assert!(accepts(&objects));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_scanner_accepts_exactly_the_texts_of_serde(text in "[\\[\\]{}\",:0-9eE.+\\-tfn\\\\u a\u{1}é]{0,24}") {
            prop_assert_eq!(accepts(&text), is_json(&text), "{:?}", text);
        }

        #[test]
        fn mutated_json_is_judged_as_serde_does(at in 0usize..90, byte in 0x20u8..0x7f) {
            let mut text = br#"{"jsonrpc":"2.0","id":[1,{"a":-1.5e+3}],"method":"eth_\u0063all","params":[true,null,"x\n"]}"#.to_vec();
            let at = at % text.len();
            text[at] = byte;
            let text = String::from_utf8(text).unwrap();
            prop_assert_eq!(accepts(&text), is_json(&text), "{}", text);
        }

        #[test]
        fn plain_runs_end_at_the_first_special_byte(text in proptest::collection::vec(any::<u8>(), 0..64), from in 0usize..64) {
            let from = from.min(text.len());
            let expected = text[from..].iter().position(|&b| b < 0x20 || b == b'"' || b == b'\\').map_or(text.len(), |n| n + from);
            prop_assert_eq!(skip_plain(&text, from), expected);
        }
    }
}
