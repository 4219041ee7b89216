//! Keys: names, escaped so that any name is one token, joined by dots.

use std::{fmt, str, sync::Arc};

/// Longest name, in bytes before the escape.
pub const MAX_NAME: usize = 253;

/// Tokens of a key at most.
pub const MAX_TOKENS: usize = 8;

/// Begins an escaped byte; two upper-case hex digits follow.
const ESCAPE: u8 = b'=';

/// Why a text is no name or no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A name without a byte, or a key with an empty token.
    #[error("a name in a key is empty")]
    Empty,
    /// A name of more than [`MAX_NAME`] bytes.
    #[error("a name in a key has {0} bytes, of {MAX_NAME} at most")]
    TooLong(usize),
    /// A key without a token, or with more than [`MAX_TOKENS`].
    #[error("a key has {0} names, of 1 to {MAX_TOKENS}")]
    Tokens(usize),
    /// A token that no name is escaped to.
    #[error("a name in a key is not escaped as Steadfast escapes names")]
    Escape,
}

/// One name, escaped: letters, digits, `-` and `_` stay, each other byte becomes `=XX`. Different
/// names make different tokens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(Arc<str>);

impl Token {
    /// Escapes `name`.
    ///
    /// # Errors
    /// [`KeyError::Empty`] and [`KeyError::TooLong`].
    pub fn new(name: &str) -> Result<Self, KeyError> {
        match name.len() {
            0 => Err(KeyError::Empty),
            1..=MAX_NAME => Ok(Self(escaped(name).into())),
            length => Err(KeyError::TooLong(length)),
        }
    }

    /// Takes a token as the store has it.
    ///
    /// # Errors
    /// [`KeyError::Escape`] for a text that [`Token::new`] does not make.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let token = Self::new(&unescaped(text)?)?;
        if *token.0 == *text { Ok(token) } else { Err(KeyError::Escape) }
    }

    /// The name, as it was before the escape.
    pub fn name(&self) -> String {
        unescaped(&self.0).expect("a token is made by the escape of a name")
    }

    /// The escaped name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place of an entry: one to [`MAX_TOKENS`] tokens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key of these tokens.
    ///
    /// # Errors
    /// [`KeyError::Tokens`] for none or too many.
    pub fn new(tokens: &[Token]) -> Result<Self, KeyError> {
        match tokens.len() {
            1..=MAX_TOKENS => Ok(Self(joined(tokens))),
            count => Err(KeyError::Tokens(count)),
        }
    }

    /// The key of these names, each escaped.
    ///
    /// # Errors
    /// As [`Token::new`] and [`Key::new`].
    pub fn of(names: &[&str]) -> Result<Self, KeyError> {
        Self::new(&tokens(names)?)
    }

    /// Takes a key as the store has it.
    ///
    /// # Errors
    /// Where no key has this text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let tokens = text.split('.').map(Token::parse).collect::<Result<Vec<_>, _>>()?;
        Self::new(&tokens)
    }

    /// The names, as they were before the escape.
    pub fn names(&self) -> Vec<String> {
        self.0.split('.').map(|token| Token(token.into()).name()).collect()
    }

    /// The escaped names, joined by dots.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first tokens of keys. A prefix holds the keys that are longer by one token or more.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Option<Key>);

impl Prefix {
    /// The prefix of every key.
    pub const ALL: Self = Self(None);

    /// The prefix of these names, each escaped. Without names, that of every key.
    ///
    /// # Errors
    /// As [`Key::of`]; a prefix has one token fewer than a key at most.
    pub fn of(names: &[&str]) -> Result<Self, KeyError> {
        match names.len() {
            0 => Ok(Self::ALL),
            count if count >= MAX_TOKENS => Err(KeyError::Tokens(count)),
            _ => Key::of(names).map(|key| Self(Some(key))),
        }
    }

    /// Whether `key` is under the prefix.
    pub fn holds(&self, key: &Key) -> bool {
        self.0.as_ref().is_none_or(|prefix| key.0.strip_prefix(&*prefix.0).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The escaped names, joined by dots; empty for the prefix of every key.
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Key::as_str)
    }
}

fn tokens(names: &[&str]) -> Result<Vec<Token>, KeyError> {
    names.iter().map(|name| Token::new(name)).collect()
}

fn joined(tokens: &[Token]) -> Arc<str> {
    let texts: Vec<&str> = tokens.iter().map(Token::as_str).collect();
    texts.join(".").into()
}

fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for &byte in name.as_bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("{}{byte:02X}", char::from(ESCAPE)));
        }
    }
    text
}

fn unescaped(text: &str) -> Result<String, KeyError> {
    let mut bytes = text.bytes();
    let mut name = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != ESCAPE {
            name.push(byte);
            continue;
        }
        let digits = [bytes.next(), bytes.next()].map(|digit| digit.unwrap_or_default());
        let digits = str::from_utf8(&digits).map_err(|_| KeyError::Escape)?;
        name.push(u8::from_str_radix(digits, 16).map_err(|_| KeyError::Escape)?);
    }
    String::from_utf8(name).map_err(|_| KeyError::Escape)
}
