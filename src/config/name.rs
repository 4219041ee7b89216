//! Names of nodes and networks.

use std::{fmt, str::FromStr, sync::Arc};

use super::problem::Invalid;

/// First words of the paths that a network's name must leave free.
const RESERVED: [&str; 6] = ["el", "cl", "ws", "eth", "health", "metrics"];

/// A node's name, in metrics, logs, `/status` and admin paths: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if !(1..=64).contains(&text.len()) || !text.bytes().all(good) {
            return Err(Invalid("must be 1 to 64 letters, digits, `.`, `_` or `-`"));
        }
        if matches!(text, "." | "..") {
            return Err(Invalid("must not be `.` or `..`: it stands in paths"));
        }
        Ok(Self(text.into()))
    }
}

/// A network's name, which is also its path: 1 to 32 of `a-z 0-9 -`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkName(Arc<str>);

impl NetworkName {
    /// The network at the top level of the file, served at `/`.
    pub fn default_network() -> Self {
        Self("default".into())
    }

    /// Whether the network is served at `/`; every other network is served under `/<name>`.
    pub fn is_default(&self) -> bool {
        &*self.0 == "default"
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a network beside the default one.
impl FromStr for NetworkName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=32).contains(&text.len()) || !text.bytes().all(good) {
            return Err(Invalid("must have a name of 1 to 32 small letters, digits or `-`"));
        }
        if RESERVED.contains(&text) {
            return Err(Invalid("must have another name: el, cl, ws, eth, health and metrics are paths already"));
        }
        if text == "default" {
            return Err(Invalid(
                "is the network at the top level of the file: write its nodes as [[el.primary]] there",
            ));
        }
        Ok(Self(text.into()))
    }
}

macro_rules! shown_as_written {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{self}\"")
            }
        }
    )*};
}

shown_as_written!(NodeName NetworkName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_name_is_safe_in_a_path_and_a_label() {
        let longest = "a".repeat(64);
        for text in ["geth-1", "A.b_C", "1", "...", &longest] {
            assert_eq!(text.parse::<NodeName>().unwrap().as_str(), text);
        }
        let too_long = "a".repeat(65);
        for text in ["", ".", "..", "a b", "a/b", "é", "a\n", &too_long] {
            assert!(text.parse::<NodeName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_name_is_a_path_that_is_free() {
        let longest = "a".repeat(32);
        for text in ["base", "op-mainnet", "1", &longest] {
            let name: NetworkName = text.parse().unwrap();
            assert_eq!(name.as_str(), text);
            assert!(!name.is_default());
        }
        let too_long = "a".repeat(33);
        for text in ["", "Base", "a_b", "a/b", "default", &too_long].into_iter().chain(RESERVED) {
            assert!(text.parse::<NetworkName>().is_err(), "{text}");
        }
        assert!(NetworkName::default_network().is_default());
    }
}
