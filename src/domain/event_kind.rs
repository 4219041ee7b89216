//! The kinds of events that webhooks can ask for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A kind of event. Each `tx` kind is the transition of a transaction into that state; the others
/// are changes of a node or of the node in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants are named as the events are")]
pub enum EventKind {
    #[serde(rename = "tx.accepted")]
    TxAccepted,
    #[serde(rename = "tx.mined")]
    TxMined,
    #[serde(rename = "tx.confirmed")]
    TxConfirmed,
    #[serde(rename = "tx.final")]
    TxFinal,
    #[serde(rename = "tx.reorged")]
    TxReorged,
    #[serde(rename = "tx.replaced")]
    TxReplaced,
    #[serde(rename = "tx.refused")]
    TxRefused,
    #[serde(rename = "tx.expired")]
    TxExpired,
    #[serde(rename = "node.down")]
    NodeDown,
    #[serde(rename = "node.up")]
    NodeUp,
    #[serde(rename = "switch")]
    Switch,
}

/// The text names no kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{CHOICES}")]
pub struct NotAnEvent;

/// The choices, as an error names them.
pub const CHOICES: &str = "must be tx.accepted, tx.mined, tx.confirmed, tx.final, tx.reorged, tx.replaced, \
     tx.refused, tx.expired, node.down, node.up or switch";

impl EventKind {
    /// All kinds, in the order of the documentation.
    pub const ALL: [Self; 11] = [
        Self::TxAccepted,
        Self::TxMined,
        Self::TxConfirmed,
        Self::TxFinal,
        Self::TxReorged,
        Self::TxReplaced,
        Self::TxRefused,
        Self::TxExpired,
        Self::NodeDown,
        Self::NodeUp,
        Self::Switch,
    ];

    /// The kind as the settings and the body of a webhook write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TxAccepted => "tx.accepted",
            Self::TxMined => "tx.mined",
            Self::TxConfirmed => "tx.confirmed",
            Self::TxFinal => "tx.final",
            Self::TxReorged => "tx.reorged",
            Self::TxReplaced => "tx.replaced",
            Self::TxRefused => "tx.refused",
            Self::TxExpired => "tx.expired",
            Self::NodeDown => "node.down",
            Self::NodeUp => "node.up",
            Self::Switch => "switch",
        }
    }

    /// Whether the event belongs to a transaction, and so to a tenant.
    pub fn is_of_a_transaction(self) -> bool {
        !matches!(self, Self::NodeDown | Self::NodeUp | Self::Switch)
    }
}

impl FromStr for EventKind {
    type Err = NotAnEvent;

    fn from_str(text: &str) -> Result<Self, NotAnEvent> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(NotAnEvent)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_and_written_by_its_name() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(kind.is_of_a_transaction(), kind.as_str().starts_with("tx."));
            let mut words = CHOICES.split([' ', ',']);
            assert!(words.any(|word| word == kind.as_str()), "{kind} is no choice of: {CHOICES}");
        }
        assert_eq!("tx.lost".parse::<EventKind>(), Err(NotAnEvent));
    }
}
