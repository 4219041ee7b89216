//! Keys of the bucket, made from typed names and read back.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::{
    name::{NetworkName, NodeName, NotAName, QueueName, ReplicaName},
    word::LayerWord,
};

/// A key that cannot be read. Such a key is counted, and is no reason to stop a watch.
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

/// A node of the fleet, whichever replica looks at the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeRef {
    /// The network.
    pub network: NetworkName,
    /// The layer: the two layers of a network may use the same name.
    pub layer: LayerWord,
    /// The node.
    pub node: NodeName,
}

/// A node as one replica sees the node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey {
    /// The replica.
    pub replica: ReplicaName,
    /// The node.
    pub node: NodeRef,
}

/// The subject of a wish.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WishKey {
    /// A node.
    Node(NodeRef),
    /// The log.
    LogLevel,
}

/// A piece of work that one replica owns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShardKey {
    /// Transactions of those senders whose addresses fall to this number.
    Senders(u16),
    /// A queue of webhooks.
    Webhooks(QueueName),
}

impl ShardKey {
    /// The number of shards of senders. All replicas must agree on the number, so a change is a new
    /// format.
    pub const SENDERS: u16 = 64;

    /// The shard of a sender, by the address's last bytes.
    pub fn of_sender(address: &[u8; 20]) -> Self {
        Self::Senders(u16::from_be_bytes([address[18], address[19]]) % Self::SENDERS)
    }

    /// All shards of senders.
    pub fn all_senders() -> impl Iterator<Item = Self> {
        (0..Self::SENDERS).map(Self::Senders)
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
    /// A replica's verdict on a node.
    Node(NodeKey),
    /// A wish.
    Wish(WishKey),
    /// A shard's owner.
    Shard(ShardKey),
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = |text: &str| KeyToken::of(text).0;
        let (network, layer) = (token(self.network.as_str()), token(self.layer.as_str()));
        write!(f, "{network}.{layer}.{}", token(self.node.as_str()))
    }
}

impl fmt::Display for WishKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "wish.node.{node}"),
            Self::LogLevel => f.write_str("wish.log_level"),
        }
    }
}

impl fmt::Display for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Senders(number) => write!(f, "shard.senders.{number}"),
            Self::Webhooks(queue) => write!(f, "shard.webhooks.{}", KeyToken::of(queue.as_str()).0),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leader => f.write_str("leader"),
            Self::View => f.write_str("view"),
            Self::Replica(replica) => write!(f, "replica.{}", KeyToken::of(replica.as_str()).0),
            Self::Node(NodeKey { replica, node }) => {
                write!(f, "node.{}.{node}", KeyToken::of(replica.as_str()).0)
            }
            Self::Wish(wish) => wish.fmt(f),
            Self::Shard(shard) => shard.fmt(f),
        }
    }
}

impl FromStr for Key {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let name = |token: &str| KeyToken::name(token);
        let node = |network: &str, layer: &str, node: &str| {
            let layer = LayerWord::from(&*name(layer)?);
            Ok::<_, NotAKey>(NodeRef { network: name(network)?.parse()?, layer, node: name(node)?.parse()? })
        };
        let tokens: Vec<&str> = text.split('.').collect();
        Ok(match tokens[..] {
            ["leader"] => Self::Leader,
            ["view"] => Self::View,
            ["replica", replica] => Self::Replica(name(replica)?.parse()?),
            ["node", replica, network, layer, of] => {
                Self::Node(NodeKey { replica: name(replica)?.parse()?, node: node(network, layer, of)? })
            }
            ["wish", "node", network, layer, of] => Self::Wish(WishKey::Node(node(network, layer, of)?)),
            ["wish", "log_level"] => Self::Wish(WishKey::LogLevel),
            ["shard", "senders", number] => match number.parse() {
                Ok(senders) if senders < ShardKey::SENDERS && format!("{senders}") == number => {
                    Self::Shard(ShardKey::Senders(senders))
                }
                _ => return Err(NotAKey::Shape(text.into())),
            },
            ["shard", "webhooks", queue] => Self::Shard(ShardKey::Webhooks(name(queue)?.parse()?)),
            _ => return Err(NotAKey::Shape(text.into())),
        })
    }
}
