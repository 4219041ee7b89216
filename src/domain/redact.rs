//! Takes credentials out of texts that others wrote, and nothing else.
//!
//! Gateways like to repeat the URL or the key of a request: unchanged, in other case,
//! percent-encoded, or escaped as JSON and HTML do, also one within another. All of these are
//! found. Hexadecimal data stays unchanged, byte for byte: a key of hexadecimal digits counts as a
//! key only where it stands as a word of its own.

use std::ops::Range;

use memchr::memmem;

/// The text that takes the place of a secret.
const MASK: &[u8] = b"***";
/// Shorter ones would take half of every message with them, and are no secret worth the name.
const SHORTEST: usize = 4;
/// A key of at least so many hexadecimal digits is found wherever no further digits stand beside
/// it.
const LONG: usize = 16;
/// How deep one way of writing within another is looked into.
const MAX_DEPTH: usize = 3;
/// Words of JSON, of JSON-RPC and of `Authorization`, which are no secrets from any source.
const PLAIN: [&str; 16] = [
    "true", "false", "null", "none", "jsonrpc", "error", "code", "message", "data", "result", "bearer", "basic",
    "digest", "token", "apikey", "http",
];

/// The secrets of one node.
#[derive(Default)]
pub struct Secrets(Vec<Secret>);

struct Secret {
    /// In lower case.
    text: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing but decimal digits, and not many.
    Number,
    /// Nothing but hexadecimal digits: so many.
    Hex(usize),
    /// Anything else.
    Word,
}

impl FromIterator<String> for Secrets {
    fn from_iter<I: IntoIterator<Item = String>>(texts: I) -> Self {
        let mut secrets: Vec<Secret> = Vec::new();
        for text in texts {
            let text = text.to_ascii_lowercase().into_bytes();
            let is_plain = PLAIN.iter().any(|plain| plain.as_bytes() == text);
            if text.len() < SHORTEST || is_plain || secrets.iter().any(|secret| secret.text == text) {
                continue;
            }
            let digits = text.strip_prefix(b"0x").unwrap_or(&text);
            let kind = match digits.len() {
                length if length < LONG && text.iter().all(u8::is_ascii_digit) => Kind::Number,
                length if length > 0 && digits.iter().all(u8::is_ascii_hexdigit) => Kind::Hex(length),
                _ => Kind::Word,
            };
            secrets.push(Secret { text, kind });
        }
        Self(secrets)
    }
}

impl Secrets {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `text` without the secrets; `None` where `text` holds none.
    pub fn redact(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.is_empty() {
            return None;
        }
        let mut found: Vec<Range<usize>> = Vec::new();
        let mut layer = Layer { text: text.to_ascii_lowercase(), places: None };
        for depth in 0.. {
            self.find(&layer.text, |range| found.push(layer.place(range)));
            // Only the original has the case that escapes need.
            let Some(next) = (depth < MAX_DEPTH).then(|| layer.decode()).flatten() else { break };
            layer = next;
        }
        if found.is_empty() {
            return None;
        }
        found.sort_by_key(|range| (range.start, range.end));
        let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
        for range in found {
            if range.start >= at {
                out.extend_from_slice(&text[at..range.start]);
                out.extend_from_slice(MASK);
            }
            at = at.max(range.end);
        }
        out.extend_from_slice(&text[at..]);
        Some(out)
    }

    fn find(&self, text: &[u8], mut take: impl FnMut(Range<usize>)) {
        for secret in &self.0 {
            let length = secret.text.len();
            for start in memmem::find_iter(text, &secret.text) {
                let range = start..start + length;
                let is_it = match secret.kind {
                    Kind::Number => stands_alone(text, &range) && !is_json_number(text, &range),
                    Kind::Hex(digits) if digits < LONG => stands_alone(text, &range),
                    Kind::Hex(_) => is_a_run(text, &range),
                    Kind::Word => !cuts_data(text, &range),
                };
                if is_it {
                    take(range);
                }
            }
        }
    }
}

fn before(text: &[u8], range: &Range<usize>) -> Option<u8> {
    range.start.checked_sub(1).map(|at| text[at])
}

fn after(text: &[u8], range: &Range<usize>) -> Option<u8> {
    text.get(range.end).copied()
}

/// Whether neither a letter nor a digit stands beside the range.
fn stands_alone(text: &[u8], range: &Range<usize>) -> bool {
    [before(text, range), after(text, range)].into_iter().flatten().all(|b| !b.is_ascii_alphanumeric())
}

/// Whether the range is a whole run of hexadecimal digits, and no data with `0x` before.
fn is_a_run(text: &[u8], range: &Range<usize>) -> bool {
    let is_part = [before(text, range), after(text, range)].into_iter().flatten().any(|b| b.is_ascii_hexdigit());
    !is_part && !text[..range.start].ends_with(b"0x")
}

/// Whether the range is a number in JSON: a mask in its place would make the JSON invalid.
fn is_json_number(text: &[u8], range: &Range<usize>) -> bool {
    let before = text[..range.start].trim_ascii_end();
    let before = before.strip_suffix(b"-").unwrap_or(before);
    let after = text[range.end..].trim_ascii_start();
    matches!(before.trim_ascii_end().last(), Some(b':' | b',' | b'['))
        && matches!(after.first(), Some(b',' | b']' | b'}'))
}

/// Whether the range begins or ends within hexadecimal data with `0x` before.
fn cuts_data(text: &[u8], range: &Range<usize>) -> bool {
    let is_data = |at: usize| {
        let digits = text[..at].iter().rev().take_while(|b| b.is_ascii_hexdigit()).count();
        text[..at - digits].ends_with(b"0x")
    };
    let begins = text[range.start].is_ascii_hexdigit() && is_data(range.start);
    let splits = text[range.start] == b'x' && before(text, range) == Some(b'0');
    let ends = after(text, range).is_some_and(|b| b.is_ascii_hexdigit()) && is_data(range.end);
    begins || splits || ends
}

/// A text with some ways of writing undone.
struct Layer {
    text: Vec<u8>,
    /// Where each byte comes from in the original; `None` in the original itself.
    places: Option<Vec<Range<u32>>>,
}

impl Layer {
    fn place(&self, range: Range<usize>) -> Range<usize> {
        match &self.places {
            None => range,
            Some(places) => places[range.start].start as usize..places[range.end - 1].end as usize,
        }
    }

    /// The text with escapes written plainly; `None` where nothing is escaped.
    fn decode(&self) -> Option<Self> {
        let mut next = memchr::memchr3(b'%', b'\\', b'&', &self.text)?;
        u32::try_from(self.text.len()).ok()?;
        let mut decoded = Self { text: Vec::with_capacity(self.text.len()), places: Some(Vec::new()) };
        let (mut at, mut changed) = (0, false);
        while at < self.text.len() {
            if at < next {
                (at..next).for_each(|i| decoded.push(&[self.text[i]], self.place(i..i + 1)));
                at = next;
            }
            if let Some((char, length)) = escaped(&self.text[at..]) {
                changed = true;
                let mut bytes = [0; 4];
                let written = match char {
                    Char::Byte(byte) => {
                        bytes[0] = byte.to_ascii_lowercase();
                        &bytes[..1]
                    }
                    Char::Text(char) => char.to_ascii_lowercase().encode_utf8(&mut bytes).as_bytes(),
                };
                decoded.push(written, self.place(at..at + length));
                at += length;
            } else if at < self.text.len() {
                decoded.push(&[self.text[at]], self.place(at..at + 1));
                at += 1;
            }
            next = memchr::memchr3(b'%', b'\\', b'&', &self.text[at..]).map_or(self.text.len(), |found| at + found);
        }
        changed.then_some(decoded)
    }

    fn push(&mut self, bytes: &[u8], from: Range<usize>) {
        let from = u32::try_from(from.start).unwrap_or(u32::MAX)..u32::try_from(from.end).unwrap_or(u32::MAX);
        self.text.extend_from_slice(bytes);
        self.places.iter_mut().for_each(|places| places.extend(std::iter::repeat_n(from.clone(), bytes.len())));
    }
}

enum Char {
    Byte(u8),
    Text(char),
}

/// The text that an escape at the beginning of `text`, in lower case, stands for, and the length of
/// the escape.
fn escaped(text: &[u8]) -> Option<(Char, usize)> {
    let hex = |range: Range<usize>| {
        let digits = text.get(range).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let byte = |range| Some(Char::Byte(u8::try_from(hex(range)?).ok()?));
    match text {
        [b'%', ..] => Some((byte(1..3)?, 3)),
        [b'\\', b'x', ..] => Some((byte(2..4)?, 4)),
        [b'\\', b'u', ..] => match hex(2..6)? {
            high @ 0xd800..0xdc00 if text.get(6..8) == Some(b"\\u") => {
                let low = hex(8..12).filter(|low| (0xdc00..0xe000).contains(low))?;
                Some((Char::Text(char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?), 12))
            }
            code => Some((Char::Text(char::from_u32(code)?), 6)),
        },
        [b'\\', what @ (b'"' | b'\'' | b'\\' | b'/'), ..] => Some((Char::Byte(*what), 2)),
        [b'&', b'#', rest @ ..] => {
            let end = rest.iter().take(9).position(|&b| b == b';')?;
            let digits = std::str::from_utf8(&rest[..end]).ok()?;
            let code = match digits.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => digits.parse(),
            };
            Some((Char::Text(char::from_u32(code.ok()?)?), end + 3))
        }
        [b'&', ..] => [("&amp;", b'&'), ("&lt;", b'<'), ("&gt;", b'>'), ("&quot;", b'"'), ("&apos;", b'\'')]
            .into_iter()
            .find(|(name, _)| text.starts_with(name.as_bytes()))
            .map(|(name, what)| (Char::Byte(what), name.len())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn redacted(secrets: &[&str], text: &str) -> String {
        let secrets: Secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        let text = secrets.redact(text.as_bytes()).unwrap_or_else(|| text.as_bytes().to_vec());
        String::from_utf8(text).unwrap()
    }

    const HEX_KEY: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        for (secret, text, expected) in [
            ("s3cret", "no s3cret here", "no *** here"),
            ("s3cret", "is as3cretb", "is a***b"),
            ("s3cret", "S3CRET, S3Cret", "***, ***"),
            ("a/b+c=9", "%61%2Fb%2bc%3D9", "***"),
            ("a/b+c=9", r"a\/b+c=9 a\u002fb\u002Bc=9", "*** ***"),
            ("a/b+c=9", r#""a\\\/b+c=9""#, r#""***""#),
            ("a/b+c=9", "a&#47;b&#x2B;c&#61;9", "***"),
            ("a/b+c=9", r"a%252Fb%252Bc=9", "***"),
            ("a/b+c=9", r"\u0025\u0032Fb a%5cu002fb+c=9", r"\u0025\u0032Fb ***"),
            ("a&b\"c", r"a&amp;b&quot;c a\x26b\x22c", "*** ***"),
            ("schlüssel", r"schl\u00fcssel schl%C3%BCssel schlüssel", "*** *** ***"),
            ("k😀y1", r"k\ud83d\ude00y1", "***"),
            (HEX_KEY, &format!("https://a/v2/{HEX_KEY}?x"), "https://a/v2/***?x"),
            (HEX_KEY, &format!("key={}", HEX_KEY.to_uppercase()), "key=***"),
            ("0020", "shard 0020, 0020x", "shard ***, 0020x"),
        ] {
            assert_eq!(redacted(&[secret], text), expected, "{secret} in {text}");
        }
        assert_eq!(redacted(&["user:pass", "pass1", "user:pass1"], "user:pass1!"), "***!");
    }

    #[test]
    fn data_numbers_and_plain_words_stay_as_they_are() {
        let data = format!("0x08c379a0{}20{HEX_KEY}{}", "0".repeat(62), HEX_KEY.to_uppercase());
        for text in [
            format!(r#"{{"error":{{"code":-32000,"message":"execution reverted","data":"{data}"}}}}"#),
            format!("0x{HEX_KEY} {HEX_KEY}0 f{HEX_KEY}"),
            r#"{"code": 3000 ,"list":[3000,-3000]}"#.to_owned(),
        ] {
            let secrets =
                ["0020", "20", HEX_KEY, "32000", "3000", "error", "DATA", "Bearer", "0x08c3", "x08c3", "yz0x08"];
            assert_eq!(redacted(&secrets, &text), text);
        }
        assert_eq!(redacted(&["3000"], "user 3000, port"), "user ***, port");
    }

    /// A way of writing a byte.
    fn write(byte: u8, how: u8) -> String {
        match how {
            1 => format!("%{byte:02X}"),
            2 => format!("%{byte:02x}"),
            3 => format!("\\u{byte:04x}"),
            4 => format!("&#{byte};"),
            5 => format!("%25{byte:02x}"),
            6 => char::from(byte).to_ascii_uppercase().to_string(),
            _ => char::from(byte).to_string(),
        }
    }

    proptest! {
        #[test]
        fn no_secret_survives_in_any_coat_and_no_data_is_touched(
            secret in "[a-z0-9][A-Za-z0-9_./+=~-]{2,30}[g-z][0-9a-f]{0,3}|[0-9a-f]{16,40}",
            ways in prop::collection::vec(0u8..8, 50),
            hex in "[0-9a-f]{64,400}",
            at in 0usize..60,
            words in "[ -~&&[^0-9A-Za-z%&\\\\]]{0,20}",
        ) {
            prop_assume!(!PLAIN.contains(&&*secret.to_lowercase()));
            let coat: String = secret.bytes().zip(&ways).map(|(byte, way)| write(byte, *way)).collect();
            let data = format!("0x{}{secret}{}", &hex[..at], &hex[at..]);
            let is_hex = secret.bytes().all(|b| b.is_ascii_hexdigit());
            let data = if is_hex { data } else { format!("0x{hex}") };
            let text = format!("{words} {coat} {words}\"{data}\"");
            prop_assert_eq!(redacted(&[&secret], &text), format!("{words} *** {words}\"{data}\""), "{}", text);
        }

        #[test]
        fn no_text_is_too_odd(secret in "\\PC{4,10}", text in "(%|\\\\u|\\\\|&#|&|[0-9a-fx;]|\\PC){0,60}") {
            let _ = redacted(&[&secret], &text);
        }
    }
}
