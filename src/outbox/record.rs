//! The outbox's record of a transaction, written as JSON. A reader ignores fields that it does not
//! know, so a later version may add some.
//!
//! The raw bytes of a transaction are no part of its record: they are written once, and a record at
//! each transition.

use alloy_primitives::{Address, B256, U128};
use serde::{Deserialize, Serialize};

use super::event_ids;
pub use super::{
    delivery::{Delivery, EventKind, Quarantined},
    event_ids::EventIds,
    id::{EventId, Millis, Network, NotATenant, TenantName, TxId, WorkId},
};

/// The most transitions that a record keeps. When there are more, those after the first few are
/// dropped: the beginning and the end tell most.
pub const MAX_HISTORY: usize = 64;

/// The transitions at the beginning of a history that are never dropped.
const KEPT_FIRST: usize = 8;

/// The longest reason that is kept, in bytes; a node's words are cut to this.
pub const LONGEST_REASON: usize = 256;

/// The most nodes whose refusals a record keeps.
pub const MAX_REFUSALS: usize = 8;

/// A block, by its place and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockId {
    /// Height.
    pub number: u64,
    /// Hash.
    pub hash: B256,
}

/// The most that a transaction pays, in wei per gas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fees {
    /// The most in all; the gas price of types that have one price only.
    pub max_fee: U128,
    /// The most for the block's maker; `None` for types that have one price only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_priority_fee: Option<U128>,
    /// The most for blobs; `None` for transactions without blobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_blob_fee: Option<U128>,
}

/// A transaction that was accepted, and all that is known of its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose transaction, where, and its hash.
    #[serde(flatten)]
    pub id: TxId,
    /// Who signed it.
    pub sender: Address,
    /// The sender's counter: of two transactions of one sender and nonce, one is mined at most.
    pub nonce: u64,
    /// The chain that the signature names; `None` for a legacy transaction that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<u64>,
    /// The type byte; 0 for legacy transactions.
    pub kind: u8,
    /// The most that it pays.
    pub fees: Fees,
    /// Blobs that travel with it.
    #[serde(default)]
    pub blobs: usize,
    /// Length of the raw bytes.
    pub bytes: usize,
    /// When it was accepted; anew, where it had expired or was refused before.
    pub accepted_at: Millis,
    /// When it is given up, unless a block has it.
    pub deadline: Millis,
    /// `x-request-id` of the request that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `traceparent` of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Where it is in its life.
    pub state: State,
    /// Why it is not sent any more, also while a block has it nonetheless. A reorganisation that
    /// takes it out of its block leads back to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
    /// The nodes that refused the transaction when it was sent last, with their words; at most
    /// [`MAX_REFUSALS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// Transitions so far; the number of the newest.
    pub seq: u64,
    /// The transitions, oldest first; at most [`MAX_HISTORY`].
    pub history: Vec<Transition>,
    /// When the record may be dropped; `None` while its life is not over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_until: Option<Millis>,
    /// The rule for the ids of its events.
    #[serde(default, skip_serializing_if = "EventIds::is_numbered")]
    pub event_ids: EventIds,
}

impl Record {
    /// Adds a transition to the history, and drops one from the middle where there are too many.
    /// Of all transitions the newest alone keeps the nodes' refusals.
    pub fn note(&mut self, transition: Transition) {
        self.seq = transition.seq;
        self.history.last_mut().into_iter().for_each(|last| last.refusals.clear());
        if self.history.len() >= MAX_HISTORY {
            self.history.remove(KEPT_FIRST);
        }
        // A list that grows by itself takes room for four.
        self.history.reserve_exact(1);
        self.history.push(transition);
    }
}

/// Where a transaction is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum State {
    /// On disk; no node took it yet.
    Accepted,
    /// A node took it.
    Sent,
    /// A node that was asked later shows it among the waiting transactions.
    Seen,
    /// A canonical block has it.
    Mined {
        /// That block.
        block: BlockId,
    },
    /// Its block has `outbox.confirmations` blocks, counted from its own.
    Confirmed {
        /// Its block.
        block: BlockId,
    },
    /// Its block is final by the chain's own rule. Nothing follows.
    Final {
        /// Its block.
        block: BlockId,
    },
    /// The block that had it, or had another in its place, is canonical no more. It is sent again.
    Reorged {
        /// The block that went.
        block: BlockId,
    },
    /// A block has another transaction of this sender and nonce.
    Replaced {
        /// The other transaction.
        by: B256,
        /// Its block.
        block: BlockId,
        /// Whether that block is final. Then nothing follows.
        is_final: bool,
    },
    /// No node can ever take it.
    Refused {
        /// Why, in a node's words.
        reason: String,
    },
    /// The deadline passed, and no block had it.
    Expired,
    /// An operator had it given up. Nodes that know it may still have it mined.
    Cancelled,
}

impl State {
    /// The state's name.
    pub fn name(&self) -> StateName {
        match self {
            Self::Accepted => StateName::Accepted,
            Self::Sent => StateName::Sent,
            Self::Seen => StateName::Seen,
            Self::Mined { .. } => StateName::Mined,
            Self::Confirmed { .. } => StateName::Confirmed,
            Self::Final { .. } => StateName::Final,
            Self::Reorged { .. } => StateName::Reorged,
            Self::Replaced { .. } => StateName::Replaced,
            Self::Refused { .. } => StateName::Refused,
            Self::Expired => StateName::Expired,
            Self::Cancelled => StateName::Cancelled,
        }
    }

    /// The block that the state speaks of.
    pub fn block(&self) -> Option<BlockId> {
        match self {
            Self::Mined { block }
            | Self::Confirmed { block }
            | Self::Final { block }
            | Self::Reorged { block }
            | Self::Replaced { block, .. } => Some(*block),
            Self::Accepted | Self::Sent | Self::Seen | Self::Refused { .. } | Self::Expired | Self::Cancelled => None,
        }
    }

    /// Whether it is to be sent while no node knows it.
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Accepted | Self::Sent | Self::Seen | Self::Reorged { .. })
    }

    /// Whether a block has it, or has another in its place, and that block is not final yet.
    pub fn is_in_block(&self) -> bool {
        matches!(self, Self::Mined { .. } | Self::Confirmed { .. } | Self::Replaced { is_final: false, .. })
    }

    /// Whether it was given up, without a block that has decided.
    pub fn is_given_up(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Expired | Self::Cancelled)
    }

    /// Whether its life is over: the record is kept for a while and then dropped. A block may still
    /// bring one that is over without being final.
    pub fn is_over(&self) -> bool {
        !self.is_pending() && !self.is_in_block()
    }
}

/// The name of a state, and of the transition into that state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "`State` says what each means")]
pub enum StateName {
    Accepted,
    Sent,
    Seen,
    Mined,
    Confirmed,
    Final,
    Reorged,
    Replaced,
    Refused,
    Expired,
    Cancelled,
}

impl StateName {
    /// All states, in the order of a usual life.
    pub const ALL: [Self; 11] = [
        Self::Accepted,
        Self::Sent,
        Self::Seen,
        Self::Mined,
        Self::Confirmed,
        Self::Final,
        Self::Reorged,
        Self::Replaced,
        Self::Refused,
        Self::Expired,
        Self::Cancelled,
    ];

    /// The name as clients, metrics and the store write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Sent => "sent",
            Self::Seen => "seen",
            Self::Mined => "mined",
            Self::Confirmed => "confirmed",
            Self::Final => "final",
            Self::Reorged => "reorged",
            Self::Replaced => "replaced",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a transaction is not sent any more, though no block decided that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum Stopped {
    /// No node can ever take it.
    Refused {
        /// Why, in a node's words.
        reason: String,
    },
    /// The deadline passed.
    Expired,
    /// An operator had it given up.
    Cancelled,
}

/// One step of a transaction's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// Counts the transaction's transitions, from 1.
    pub seq: u64,
    /// When.
    pub at: Millis,
    /// The state that it led to.
    pub to: StateName,
    /// The block that the new state speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<BlockId>,
    /// The name of the node whose word it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Why: a node's words, or for a replaced transaction the other's hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a transition into `refused`, each node's refusal; kept until the next transition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// How many earlier transitions led to the same state with the same block.
    #[serde(default, skip_serializing_if = "event_ids::is_zero")]
    pub repeat: u32,
}

/// A node's refusal of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The node's name.
    pub node: String,
    /// The JSON-RPC error code.
    pub code: i64,
    /// The node's message, cut to [`LONGEST_REASON`].
    pub message: String,
}

/// The words, cut to [`LONGEST_REASON`] at the end of a character.
pub fn reason(words: &str) -> String {
    words[..words.floor_char_boundary(LONGEST_REASON)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            id: TxId { tenant: TenantName::default(), network: "main".into(), hash: B256::repeat_byte(1) },
            sender: Address::repeat_byte(2),
            nonce: 3,
            chain_id: Some(1),
            kind: 2,
            fees: Fees { max_fee: U128::MAX, max_priority_fee: Some(U128::from(1)), max_blob_fee: None },
            blobs: 0,
            bytes: 110,
            accepted_at: Millis(5),
            deadline: Millis(6),
            request_id: Some("r".to_owned()),
            traceparent: None,
            state: State::Accepted,
            stopped: None,
            refusals: Vec::new(),
            seq: 0,
            history: Vec::new(),
            keep_until: None,
            event_ids: EventIds::OfContent,
        }
    }

    fn block() -> BlockId {
        BlockId { number: 7, hash: B256::repeat_byte(8) }
    }

    fn transition(seq: u64) -> Transition {
        Transition {
            seq,
            at: Millis(seq),
            to: StateName::Mined,
            block: Some(block()),
            node: None,
            reason: None,
            refusals: Vec::new(),
            repeat: 0,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut record = record();
        record.note(transition(1));
        for state in [
            State::Accepted,
            State::Mined { block: block() },
            State::Reorged { block: block() },
            State::Replaced { by: B256::repeat_byte(9), block: block(), is_final: true },
            State::Refused { reason: "no".to_owned() },
            State::Cancelled,
        ] {
            record.stopped = Some(Stopped::Expired);
            record.state = state;
            let json = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&json).unwrap(), record, "{json}");
        }
    }

    #[test]
    fn fields_of_a_later_version_are_ignored() {
        let mut json = serde_json::to_value(record()).unwrap();
        json["colour"] = "red".into();
        json["state"]["shade"] = 1.into();
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record());
    }

    #[test]
    fn a_history_keeps_its_beginning_and_its_end() {
        let mut record = record();
        for seq in 1..=100 {
            record.note(transition(seq));
        }
        let kept: Vec<u64> = record.history.iter().map(|transition| transition.seq).collect();
        assert_eq!((kept.len(), record.seq), (MAX_HISTORY, 100));
        assert_eq!(kept[..KEPT_FIRST], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!((kept[KEPT_FIRST], kept[MAX_HISTORY - 1]), (45, 100));
        let first = record.event(1);
        record.accepted_at = Millis(77);
        assert_eq!(record.event(1), first, "accepted anew, and still the same life");
    }

    #[test]
    fn names_are_written_as_they_are_called() {
        for state in StateName::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn a_nodes_words_are_cut_between_characters() {
        assert_eq!(reason("short"), "short");
        assert_eq!(reason(&"ü".repeat(200)).len(), LONGEST_REASON);
        assert_eq!(reason(&format!("a{}", "ü".repeat(200))).len(), LONGEST_REASON - 1);
    }
}
