//! Which web pages may talk to us.

use std::{fmt, str::FromStr};

use super::{problem::Invalid, reader::Reader};

/// `[cors]`: which web pages may read answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cors {
    /// The pages; none by default, and then no CORS header is sent.
    pub origins: Origins,
}

impl Cors {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        Self { origins: Origins::read(&mut r, "origins") }
    }
}

/// A set of origins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// No page.
    #[default]
    None,
    /// Every page: `["*"]`.
    Any,
    /// These pages.
    List(Vec<Origin>),
}

impl Origins {
    /// Whether a page with this `Origin` header may.
    pub fn allow(&self, origin: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::List(origins) => origins.iter().any(|allowed| allowed.0.as_bytes() == origin),
        }
    }

    pub(super) fn read(r: &mut Reader<'_>, key: &'static str) -> Self {
        let entries =
            r.list(key, |text| if text == "*" { Ok(None) } else { text.parse().map(Some) }).unwrap_or_default();
        let any = entries.contains(&None);
        r.check(!any || entries.len() == 1, key, &[], "must hold either \"*\" alone or single origins");
        let origins: Vec<Origin> = entries.into_iter().flatten().collect();
        match (any, origins.is_empty()) {
            (true, _) => Self::Any,
            (false, true) => Self::None,
            (false, false) => Self::List(origins),
        }
    }
}

/// Scheme, host and port of a page, in the form that browsers write in `Origin`: lower case, no
/// path, no default port.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Origin(Box<str>);

impl FromStr for Origin {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = Invalid("must be a scheme, a host and at most a port, such as \"https://app.example\", or \"*\"");
        let (scheme, rest) = text.split_once("://").ok_or(wrong)?;
        let scheme_is_good = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let host_is_good =
            !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
        if !scheme_is_good || !host_is_good {
            return Err(wrong);
        }
        let lower = text.to_ascii_lowercase();
        let default_port = match scheme.to_ascii_lowercase().as_str() {
            "http" => ":80",
            "https" => ":443",
            _ => "",
        };
        Ok(Self(lower.strip_suffix(default_port).unwrap_or(&lower).into()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_write_it() {
        for (text, kept) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443", "https://app.example"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().to_string(), kept);
        }
        for text in [
            "",
            "null",
            "app.example",
            "https://",
            "https://app.example/",
            "https://u@app.example",
            "https://*.a",
            "://a",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_listed_pages_are_allowed() {
        let list = Origins::List(vec!["https://app.example".parse().unwrap()]);
        assert!(list.allow(b"https://app.example"));
        assert!(!list.allow(b"https://app.example.evil"));
        assert!(!list.allow(b"http://app.example"));
        assert!(!Origins::None.allow(b"https://app.example"));
        assert!(Origins::Any.allow(b"null"));
    }
}
