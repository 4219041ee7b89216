//! A look at JSON that passes in pieces: whether all pieces together are one value in UTF-8.

mod seek;

use super::{MAX_ANSWER_DEPTH, Open, skip_plain};

pub use self::seek::Seek;

/// Where in a text of one JSON value the pieces so far end.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    open: Open,
    next: Next,
    utf8: Utf8,
}

/// How far a piece goes in one object or array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    /// To the end of the value, after so many bytes of the piece.
    Ends(usize),
    /// All of the piece belongs to the value, and more is to come.
    GoesOn,
    /// The text is no object and no array, or not UTF-8.
    Wrong,
}

/// The bytes that may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    #[default]
    Value,
    /// An array has just been opened.
    ValueOrClose,
    /// An object has just been opened.
    KeyOrClose,
    Key,
    Colon,
    /// A value has ended.
    CommaOrClose,
    String {
        is_key: bool,
        escape: Escape,
    },
    Number(Number),
    Literal {
        word: &'static [u8],
        at: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    /// So many hexadecimal digits are to come.
    Digits(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

impl Number {
    fn is_whole(self) -> bool {
        matches!(self, Self::Zero | Self::Digits | Self::Fraction | Self::Power)
    }

    /// The number with one more byte; `None` where the byte does not go on with the number.
    fn with(self, byte: u8) -> Option<Self> {
        Some(match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Digits, b'0'..=b'9') => Self::Digits,
            (Self::Zero | Self::Digits, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::Sign,
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Self::Power,
            _ => return None,
        })
    }
}

impl Walk {
    /// Takes the next piece. `false` when the text can be no JSON any more.
    pub fn pass(&mut self, piece: &[u8]) -> bool {
        self.utf8.pass(piece) && self.walk(piece).is_some()
    }

    /// Takes of the next piece as much as belongs to one object or array.
    pub fn pass_value(&mut self, piece: &[u8]) -> Passed {
        let mut at = 0;
        while at < piece.len() {
            if let Next::String { escape: Escape::None, .. } = self.next {
                at = skip_plain(piece, at);
            }
            let Some(&byte) = piece.get(at) else { break };
            if self.step(byte).is_none() {
                return Passed::Wrong;
            }
            at += 1;
            if self.open.depth == 0 && self.next != Next::Value {
                // A text that begins with another kind of value is within that value now.
                let ends = self.next == Next::CommaOrClose && self.utf8.pass(&piece[..at]);
                return if ends { Passed::Ends(at) } else { Passed::Wrong };
            }
        }
        if self.utf8.pass(piece) { Passed::GoesOn } else { Passed::Wrong }
    }

    /// Whether the text may end here: one value has come, and no more.
    pub fn is_whole(&self) -> bool {
        let ended = match self.next {
            Next::CommaOrClose => true,
            Next::Number(number) => number.is_whole(),
            _ => false,
        };
        ended && self.open.depth == 0 && self.utf8.is_whole()
    }

    fn walk(&mut self, piece: &[u8]) -> Option<()> {
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            if let Next::String { escape: Escape::None, .. } = self.next {
                at = skip_plain(piece, at);
                let Some(&byte) = piece.get(at) else { break };
                self.step(byte)?;
            } else {
                self.step(byte)?;
            }
            at += 1;
        }
        Some(())
    }

    fn step(&mut self, byte: u8) -> Option<()> {
        self.next = match (self.next, byte) {
            (Next::String { is_key, escape }, _) => self.in_string(is_key, escape, byte)?,
            (Next::Number(number), _) => match number.with(byte) {
                Some(number) => Next::Number(number),
                None if number.is_whole() => {
                    self.next = Next::CommaOrClose;
                    return self.step(byte);
                }
                None => return None,
            },
            (Next::Literal { word, at }, _) if word[at] == byte && at + 1 == word.len() => Next::CommaOrClose,
            (Next::Literal { word, at }, _) if word[at] == byte => Next::Literal { word, at: at + 1 },
            (Next::Literal { .. }, _) => return None,
            (next, b' ' | b'\t' | b'\r' | b'\n') => next,
            (Next::Value | Next::ValueOrClose, b'{') => self.open(true)?,
            (Next::Value | Next::ValueOrClose, b'[') => self.open(false)?,
            (Next::Value | Next::ValueOrClose, b'"') => Next::String { is_key: false, escape: Escape::None },
            (Next::Value | Next::ValueOrClose, b'-') => Next::Number(Number::Minus),
            (Next::Value | Next::ValueOrClose, b'0') => Next::Number(Number::Zero),
            (Next::Value | Next::ValueOrClose, b'1'..=b'9') => Next::Number(Number::Digits),
            (Next::Value | Next::ValueOrClose, b't') => Next::Literal { word: b"true", at: 1 },
            (Next::Value | Next::ValueOrClose, b'f') => Next::Literal { word: b"false", at: 1 },
            (Next::Value | Next::ValueOrClose, b'n') => Next::Literal { word: b"null", at: 1 },
            (Next::Key | Next::KeyOrClose, b'"') => Next::String { is_key: true, escape: Escape::None },
            (Next::Colon, b':') => Next::Value,
            (Next::CommaOrClose, b',') if self.open.depth > 0 => {
                if self.open.is_object() {
                    Next::Key
                } else {
                    Next::Value
                }
            }
            (Next::CommaOrClose | Next::KeyOrClose, b'}') if self.open.depth > 0 && self.open.is_object() => {
                self.close()
            }
            (Next::CommaOrClose | Next::ValueOrClose, b']') if self.open.depth > 0 && !self.open.is_object() => {
                self.close()
            }
            _ => return None,
        };
        Some(())
    }

    fn in_string(&mut self, is_key: bool, escape: Escape, byte: u8) -> Option<Next> {
        let escape = match (escape, byte) {
            (Escape::None, b'"') => return Some(if is_key { Next::Colon } else { Next::CommaOrClose }),
            (Escape::None, b'\\') => Escape::Begun,
            (Escape::None, 0x20..) => Escape::None,
            (Escape::Begun, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Escape::None,
            (Escape::Begun, b'u') => Escape::Digits(4),
            (Escape::Digits(1), digit) if digit.is_ascii_hexdigit() => Escape::None,
            (Escape::Digits(left), digit) if digit.is_ascii_hexdigit() => Escape::Digits(left - 1),
            _ => return None,
        };
        Some(Next::String { is_key, escape })
    }

    fn open(&mut self, object: bool) -> Option<Next> {
        if self.open.depth == MAX_ANSWER_DEPTH {
            return None;
        }
        self.open.push(object);
        Some(if object { Next::KeyOrClose } else { Next::ValueOrClose })
    }

    fn close(&mut self) -> Next {
        self.open.pop();
        Next::CommaOrClose
    }
}

/// Whether pieces are UTF-8 together: a character may be cut in two.
#[derive(Clone, Copy, Debug, Default)]
struct Utf8 {
    begun: [u8; 4],
    length: usize,
}

impl Utf8 {
    fn pass(&mut self, mut piece: &[u8]) -> bool {
        while self.length > 0 {
            let Some((&byte, left)) = piece.split_first() else { return true };
            piece = left;
            self.begun[self.length] = byte;
            self.length += 1;
            match std::str::from_utf8(&self.begun[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                let begun = &piece[error.valid_up_to()..];
                self.begun[..begun.len()].copy_from_slice(begun);
                self.length = begun.len();
                true
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.length == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::is_whole, *};

    fn accepts(text: &[u8], step: usize) -> bool {
        let mut walk = Walk::default();
        text.chunks(step.max(1)).all(|piece| walk.pass(piece)) && walk.is_whole()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_are_judged_as_the_whole_is(text in "[\\[\\]{}\",:0-9eE.+\\-truefalsn\\\\ a\u{1}é]{0,24}", step in 1usize..9) {
            prop_assert_eq!(accepts(text.as_bytes(), step), is_whole(text.as_bytes()), "{:?} by {}", text, step);
        }

        #[test]
        fn mutated_json_is_judged_as_the_whole_is(at in 0usize..90, byte in 0x20u8..0x7f, step in 1usize..9) {
            let mut text =
                br#"{"jsonrpc":"2.0","id":[1,{"a":-1.5e+3}],"method":"eth_\u0063all","params":[true,null,"x\n",[],{}]} "#.to_vec();
            let at = at % text.len();
            text[at] = byte;
            prop_assert_eq!(accepts(&text, step), is_whole(&text), "{}", String::from_utf8_lossy(&text));
        }

        #[test]
        fn bytes_are_judged_as_utf8(bytes in proptest::collection::vec(any::<u8>(), 0..12), step in 1usize..5) {
            let text = [b"\"", &bytes[..], b"\""].concat();
            let expected = std::str::from_utf8(&text).is_ok() && is_whole(&text);
            prop_assert_eq!(accepts(&text, step), expected);
        }
    }

    #[test]
    fn characters_may_be_cut_anywhere_and_nesting_is_bounded() {
        let text = "[\"é😀\",{\"ключ\":\"\\u00e9\"}]".as_bytes();
        assert!((1..=text.len()).all(|step| accepts(text, step)));
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(accepts(nested(MAX_ANSWER_DEPTH as usize).as_bytes(), 7));
        assert!(!accepts(nested(MAX_ANSWER_DEPTH as usize + 1).as_bytes(), 7));
    }
}
