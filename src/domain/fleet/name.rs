//! Names of the cluster's parts: checked when a name is made, and so when a payload is read.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// The longest name, in bytes: that of a host.
const LONGEST_NAME: usize = 253;
/// The longest text that names an operator, in bytes.
const LONGEST_ASKER: usize = 253;
/// The longest name of a cluster, in bytes: the bucket's name is longer by its prefix.
const LONGEST_CLUSTER: usize = 64;

/// A text that cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[error("{kind} {text:?} {why}")]
pub struct NotAName {
    /// The name's kind, such as `replica`.
    pub kind: &'static str,
    /// The text, cut after 64 characters.
    pub text: String,
    /// The rule that the text breaks.
    pub why: &'static str,
}

impl NotAName {
    fn new(kind: &'static str, text: &str, why: &'static str) -> Self {
        Self { kind, text: text.chars().take(64).collect(), why }
    }
}

/// The rule for all names but those of clusters.
fn check(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > LONGEST_NAME {
        return Err("is longer than 253 bytes");
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("has whitespace or control characters");
    }
    if text.contains(['*', '>']) {
        return Err("has `*` or `>`, which are wildcards of NATS");
    }
    Ok(())
}

/// The rule for the names of clusters: they are part of a bucket's name, which has no dots.
fn check_cluster(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > LONGEST_CLUSTER {
        return Err("is longer than 64 bytes");
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
        return Err("has characters other than letters, digits, `-` and `_`");
    }
    Ok(())
}

/// The rule for texts that name an operator: free, on one line.
fn check_asker(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("is empty");
    }
    if text.len() > LONGEST_ASKER {
        return Err("is longer than 253 bytes");
    }
    if text.contains(char::is_control) {
        return Err("has control characters");
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $kind:literal, $check:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NotAName;

            fn from_str(text: &str) -> Result<Self, NotAName> {
                $check(text).map_err(|why| NotAName::new($kind, text, why))?;
                Ok(Self(text.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

names! {
    /// The name of a replica: `cluster.replica`, often a host's name. Dots are allowed, since keys
    /// hold the name escaped.
    ReplicaName, "replica", check;
    /// The name of a node in the settings.
    NodeName, "node", check;
    /// The name of a network in the settings.
    NetworkName, "network", check;
    /// The name of a cluster: letters, digits, `-` and `_`, at most 64.
    ClusterName, "cluster", check_cluster;
    /// The operator who asked for something, in a free text, or the replica that was asked.
    Asker, "asker", check_asker;
}

impl ClusterName {
    /// The name of the cluster's bucket. Two clusters never have the same.
    pub fn bucket(&self) -> String {
        format!("steadfast-{}", self.0)
    }
}
