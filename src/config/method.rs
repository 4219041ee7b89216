//! A method name, or the beginning of one.

use std::{fmt, str::FromStr};

use super::problem::Invalid;

/// A whole method name (`admin_peers`), or its beginning and a star (`admin_*`).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MethodPattern {
    text: Box<str>,
    /// Whether `text` is a beginning.
    open: bool,
}

impl MethodPattern {
    /// Whether `method` is meant, to the letter.
    pub fn matches(&self, method: &str) -> bool {
        method == &*self.text || (self.open && method.starts_with(&*self.text))
    }

    /// Whether `method` is meant, upper and lower case being the same.
    pub fn matches_any_case(&self, method: &str) -> bool {
        let length = if self.open { self.text.len() } else { method.len() };
        method.as_bytes().get(..length).is_some_and(|start| start.eq_ignore_ascii_case(self.text.as_bytes()))
    }
}

impl FromStr for MethodPattern {
    type Err = Invalid;

    fn from_str(pattern: &str) -> Result<Self, Invalid> {
        let (text, open) = pattern.strip_suffix('*').map_or((pattern, false), |start| (start, true));
        if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'*') || pattern.is_empty() {
            return Err(Invalid("must be a method name, or its beginning and a `*` at the end, such as \"admin_*\""));
        }
        Ok(Self { text: text.into(), open })
    }
}

impl fmt::Display for MethodPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.open { "*" } else { "" })
    }
}

impl fmt::Debug for MethodPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_name_or_a_beginning() {
        for (pattern, method, exactly, in_any_case) in [
            ("admin_*", "admin_peers", true, true),
            ("admin_*", "admin_", true, true),
            ("admin_*", "ADMIN_peers", false, true),
            ("admin_*", "admin", false, false),
            ("admin_peers", "admin_peers", true, true),
            ("admin_peers", "admin_Peers", false, true),
            ("admin_peers", "admin_peers2", false, false),
            ("admin_peers", "admin_peer", false, false),
            ("*", "anything", true, true),
            ("*", "", true, true),
            ("a*", "é", false, false),
        ] {
            let parsed: MethodPattern = pattern.parse().unwrap();
            assert_eq!(parsed.to_string(), pattern);
            assert_eq!(parsed.matches(method), exactly, "{pattern} {method}");
            assert_eq!(parsed.matches_any_case(method), in_any_case, "{pattern} {method}");
        }
        for pattern in ["", "a*b", "**", "eth call", "*_call", "é_*"] {
            assert!(pattern.parse::<MethodPattern>().is_err(), "{pattern}");
        }
    }
}
