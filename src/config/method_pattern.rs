//! A method name, or the beginning of a name, and a rule about the method.

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

    /// The weight of the pattern: a longer text weighs more, and a whole name more than a
    /// beginning.
    pub(super) fn length(&self) -> usize {
        2 * self.text.len() + usize::from(!self.open)
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

/// An entry of a list of refused methods: the methods that are refused, or, behind a `!`, those
/// that are not.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MethodRule {
    pattern: MethodPattern,
    blocks: bool,
}

/// Whether `method` is refused by `rules`.
pub(super) fn is_refused(rules: &[MethodRule], method: &str) -> bool {
    decided(rules.iter().map(|rule| (&rule.pattern, rule.blocks)), method) == Some(true)
}

/// Whether the patterns refuse `method`, if any fits; `true` beside a pattern that refuses.
/// The longest decides, in any order. Refusals do not look at upper and lower case, because some
/// nodes do not; exceptions do.
pub(super) fn decided<'p>(patterns: impl Iterator<Item = (&'p MethodPattern, bool)>, method: &str) -> Option<bool> {
    let first = method.as_bytes().first().map(u8::to_ascii_lowercase);
    // Most patterns are ruled out by their first letter.
    let may_match = |(pattern, _): &(&MethodPattern, bool)| {
        let letter = pattern.text.as_bytes().first();
        letter.is_none_or(|letter| Some(letter.to_ascii_lowercase()) == first)
    };
    let matches = |(pattern, blocks): &(&MethodPattern, bool)| {
        if *blocks { pattern.matches_any_case(method) } else { pattern.matches(method) }
    };
    let decisive =
        patterns.filter(may_match).filter(matches).max_by_key(|(pattern, blocks)| (pattern.length(), *blocks));
    decisive.map(|(_, blocks)| blocks)
}

impl FromStr for MethodRule {
    type Err = Invalid;

    fn from_str(rule: &str) -> Result<Self, Invalid> {
        let (pattern, blocks) = rule.strip_prefix('!').map_or((rule, true), |pattern| (pattern, false));
        Ok(Self { pattern: pattern.parse()?, blocks })
    }
}

impl fmt::Display for MethodRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.blocks { "" } else { "!" }, self.pattern)
    }
}

impl fmt::Debug for MethodRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_rules_the_one_that_says_most_decides() {
        let rules: Vec<MethodRule> =
            ["!debug_trace*", "debug_*", "debug_traceBlockFromFile", "!debug_get", "debug_get*"]
                .map(|rule| rule.parse().unwrap())
                .to_vec();
        assert_eq!(rules[0].to_string(), "!debug_trace*");
        for (method, refused) in [
            ("debug_traceCall", false),
            ("debug_TraceCall", true),
            ("DEBUG_traceCall", true),
            ("debug_traceBlockFromFile", true),
            ("debug_traceblockFROMfile", true),
            ("debug_setHead", true),
            ("debug_get", false),
            ("debug_getX", true),
            ("eth_call", false),
            ("", false),
        ] {
            assert_eq!(is_refused(&rules, method), refused, "{method}");
        }
        let all = ["*".parse().unwrap(), "!eth_*".parse().unwrap()];
        assert!(is_refused(&all, "") && is_refused(&all, "é") && !is_refused(&all, "eth_x"));
        assert!("!!a".parse::<MethodRule>().is_ok_and(|rule| !is_refused(&[rule], "a")));
        for rule in ["!", "", "!a*b"] {
            assert!(rule.parse::<MethodRule>().is_err(), "{rule}");
        }
    }

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
