//! Keys of the bucket, made from typed names and read back.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{
    heartbeat::NodeRef,
    name::{NotAName, ReplicaName},
    wish::WishWord,
    word::LayerWord,
};

/// A key that cannot be read, which is no reason to stop a watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum NotAKey {
    /// The key is of no shape that this version knows.
    #[error("{0:?} is no key of this version")]
    Shape(String),
    /// A token has an escape that no name gives.
    #[error("{0:?} is no escaped name")]
    Token(String),
    /// A token is no name.
    #[error(transparent)]
    Name(#[from] NotAName),
}

/// A name as a token of a key: letters, digits, `-` and `_` are themselves, and each other byte is
/// `=` with two hex digits. Two names never give the same token.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyToken(String);

impl KeyToken {
    /// The token of a name.
    pub fn of(name: &str) -> Self {
        let mut token = String::with_capacity(name.len());
        for byte in name.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => token.push(byte.into()),
                other => token += &format!("={other:02X}"),
            }
        }
        Self(token)
    }

    /// The token as the key holds it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a token.
    ///
    /// # Errors
    /// The text is not the token of a name.
    pub fn name(token: &str) -> Result<String, NotAKey> {
        let wrong = || NotAKey::Token(token.into());
        let mut bytes = Vec::with_capacity(token.len());
        let mut rest = token.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'=' => {
                    let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                    let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
                    u8::try_from(high * 16 + low).map_err(|_| wrong())?
                }
                other => other,
            });
        }
        let name = String::from_utf8(bytes).map_err(|_| wrong())?;
        if Self::of(&name).0 == token { Ok(name) } else { Err(wrong()) }
    }
}

/// A key of the bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The leader's lease.
    Leader,
    /// The view.
    View,
    /// A replica's registration and heartbeats.
    Replica(ReplicaName),
    /// A wish of the operator for all replicas.
    Wish(WishKey),
}

/// The subject of a wish.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WishKey {
    /// A node.
    Node(NodeRef),
    /// The level of the log.
    Log,
}

impl WishKey {
    /// Whether a wish for this subject may be `state`, as far as this version knows.
    pub fn allows(&self, state: &WishWord) -> bool {
        match self {
            Self::Node(_) => matches!(state, WishWord::Cordoned | WishWord::Drained),
            Self::Log => WishWord::LEVELS.contains(state),
        }
    }
}

/// The subject in words, as in `main el geth-1`.
impl fmt::Display for WishKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(NodeRef { network, layer, node }) => write!(f, "{network} {layer} {node}"),
            Self::Log => f.write_str("log"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("leader"),
            Self::View => f.write_str("view"),
            Self::Replica(replica) => write!(f, "replica.{}", KeyToken::of(replica.as_str()).0),
            Self::Wish(WishKey::Log) => f.write_str("wish.log"),
            Self::Wish(WishKey::Node(NodeRef { network, layer, node })) => {
                let [network, layer, node] = [network.as_str(), layer.as_str(), node.as_str()].map(KeyToken::of);
                write!(f, "wish.{}.{}.{}", network.0, layer.0, node.0)
            }
        }
    }
}

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let name = |token: &str| KeyToken::name(token);
        let tokens: Vec<&str> = text.split('.').collect();
        Ok(match tokens[..] {
            ["leader"] => Self::Leader,
            ["view"] => Self::View,
            ["replica", replica] => Self::Replica(name(replica)?.parse()?),
            ["wish", "log"] => Self::Wish(WishKey::Log),
            ["wish", network, layer, node] => {
                let layer = LayerWord::from(&*name(layer)?);
                if !layer.is_known() {
                    return Err(NotAKey::Shape(text.into()));
                }
                let (network, node) = (name(network)?.parse()?, name(node)?.parse()?);
                Self::Wish(WishKey::Node(NodeRef { network, layer, node }))
            }
            _ => return Err(NotAKey::Shape(text.into())),
        })
    }
}
