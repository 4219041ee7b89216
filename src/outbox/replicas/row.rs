//! The rows of the bucket in which replicas share the outbox.
//!
//! - `tx.<shard>.<network>.<tenant>.<hash>` has a [`Row`]. The replica that accepts the transaction
//!   creates the row; then the shard's owner writes.
//! - `clock.<replica>` has the time by that replica's clock. The replica itself writes, to compare.
//! - `chain.<network>` has the chain id of a network. The first replica that knows it writes.
//! - `shard.<shard>` has an [`Owner`]. The replica that takes the shard writes, and the owner that
//!   gives the shard away.
//!
//! A transaction is one row, its bytes included, so it is there as a whole or not at all. Names are
//! escaped, and no two names give the same key.

use std::collections::BTreeSet;

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::placement::MoveReason;
use crate::{
    cluster::store::{Key, KeyError},
    domain::fleet::{Epoch, ReplicaName},
    outbox::{
        record::{EventId, EventKind, Network, Record, TxId},
        shard::Shard,
    },
};

/// The format of the rows. A change that this version cannot read takes the next number.
pub(super) const FORMAT: u32 = 1;

/// Ends the record; JSON has no such byte.
const END: u8 = b'\n';

/// The place of a row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// A transaction.
    Transaction(TxId, Shard),
    /// The owner of a shard.
    Owner(Shard),
    /// The clock of a replica.
    Clock(ReplicaName),
    /// The chain of a network.
    Chain(Network),
}

/// A transaction as replicas share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The record.
    pub record: Record,
    /// The events of which each endpoint was told, or was given up. A replica that takes the
    /// transaction over tells the others.
    pub told: BTreeSet<EventId>,
    /// The signed bytes; empty where the life is over.
    pub raw: Bytes,
}

/// The owner of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) format: u32,
    /// The replica.
    pub(super) replica: ReplicaName,
    /// The replica's life.
    pub(super) epoch: Epoch,
    /// The owner has ended all effects for this reason, and another may begin at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) released: Option<MoveReason>,
}

/// Why a value is no row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotARow {
    /// The key is of no kind that this version knows.
    #[error("the key is of no kind that this version knows")]
    Key,
    /// A later version's.
    #[error("format {0} is of a later version")]
    Format(u32),
    /// The value is no record.
    #[error("{0}")]
    Value(String),
}

/// The part of a transaction's value before the bytes.
#[derive(Serialize, Deserialize)]
struct Head<R> {
    format: u32,
    told: BTreeSet<EventId>,
    record: R,
}

impl Place {
    /// The place of a record.
    pub(super) fn of(record: &Record) -> Self {
        Self::Transaction(record.id.clone(), record.shard())
    }

    /// The key.
    ///
    /// # Errors
    /// A name is too long for a key.
    pub(super) fn key(&self) -> Result<Key, KeyError> {
        match self {
            Self::Owner(shard) => Key::of(&["shard", &shard.to_string()]),
            Self::Clock(replica) => Key::of(&["clock", replica.as_str()]),
            Self::Chain(network) => Key::of(&["chain", network.as_str()]),
            Self::Transaction(TxId { tenant, network, hash }, shard) => {
                Key::of(&["tx", &shard.to_string(), network.as_str(), tenant.as_str(), &hash.to_string()])
            }
        }
    }

    /// The place of a key.
    ///
    /// # Errors
    /// The key is of no known kind.
    pub(super) fn parse(key: &Key) -> Result<Self, NotARow> {
        let names = key.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let shard = |text: &str| text.parse().ok().and_then(Shard::numbered).ok_or(NotARow::Key);
        match names[..] {
            ["shard", of] => Ok(Self::Owner(shard(of)?)),
            ["clock", of] => Ok(Self::Clock(of.parse().map_err(|_| NotARow::Key)?)),
            ["chain", of] => Ok(Self::Chain(of.into())),
            ["tx", of, network, tenant, hash] => {
                let (tenant, hash) =
                    (tenant.parse().map_err(|_| NotARow::Key)?, hash.parse().map_err(|_| NotARow::Key)?);
                Ok(Self::Transaction(TxId { tenant, network: network.into(), hash }, shard(of)?))
            }
            _ => Err(NotARow::Key),
        }
    }
}

impl Row {
    /// Whether nothing is left to be told.
    pub(super) fn is_told(&self) -> bool {
        let mut kinds = self.record.history.iter().filter(|transition| EventKind::of(transition.to).is_some());
        kinds.all(|transition| self.told.contains(&self.record.event(transition.seq)))
    }

    /// The value.
    pub(super) fn encode(&self) -> Bytes {
        let head = Head { format: FORMAT, told: self.told.clone(), record: &self.record };
        let head = serde_json::to_vec(&head).expect("a record has no map and no number that JSON lacks");
        let mut value = BytesMut::with_capacity(head.len() + 1 + self.raw.len());
        value.put_slice(&head);
        value.put_u8(END);
        value.put_slice(&self.raw);
        value.freeze()
    }

    /// The row of a value at `place`.
    ///
    /// # Errors
    /// The value is none, or belongs to another place.
    pub(super) fn decode(place: &Place, value: &Bytes) -> Result<Self, NotARow> {
        let end = value.iter().position(|byte| *byte == END).unwrap_or(value.len());
        let wrong = |error: serde_json::Error| NotARow::Value(error.to_string());
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let Format { format } = serde_json::from_slice(&value[..end]).map_err(wrong)?;
        if format > FORMAT {
            return Err(NotARow::Format(format));
        }
        let Head { told, record, .. } = serde_json::from_slice::<Head<Record>>(&value[..end]).map_err(wrong)?;
        if Place::of(&record) != *place {
            return Err(NotARow::Value("the record belongs to another key".to_owned()));
        }
        let raw = value.slice((end + 1).min(value.len())..);
        if !record.state.is_over() && raw.len() != record.bytes {
            return Err(NotARow::Value(format!("{} bytes of the transaction, of {}", raw.len(), record.bytes)));
        }
        Ok(Self { record, told, raw })
    }
}

impl Owner {
    pub(super) fn new(replica: ReplicaName, epoch: Epoch) -> Self {
        Self { format: FORMAT, replica, epoch, released: None }
    }

    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("names and numbers").into()
    }

    /// The owner of a value.
    ///
    /// # Errors
    /// The value is none.
    pub(super) fn decode(value: &[u8]) -> Result<Self, NotARow> {
        let owner: Self = serde_json::from_slice(value).map_err(|error| NotARow::Value(error.to_string()))?;
        if owner.format > FORMAT { Err(NotARow::Format(owner.format)) } else { Ok(owner) }
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::B256;
    use proptest::prelude::*;

    use super::*;
    use crate::outbox::{record::State, relay::test_record};

    fn row(state: State) -> Row {
        let mut record = test_record(7, state);
        record.bytes = 3;
        let told = BTreeSet::from([record.event(1)]);
        Row { record, told, raw: Bytes::from_static(b"\na\n") }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let row = row(State::Sent);
        let place = Place::of(&row.record);
        assert_eq!(Row::decode(&place, &row.encode()), Ok(row.clone()));
        assert_eq!(Place::parse(&place.key().unwrap()), Ok(place.clone()));
        let over = Row { raw: Bytes::new(), ..self::row(State::Expired) };
        assert_eq!(Row::decode(&Place::of(&over.record), &over.encode()), Ok(over));
        let owner = Owner { released: Some(MoveReason::Leaving), ..Owner::new("r1".parse().unwrap(), Epoch(7)) };
        assert_eq!(Owner::decode(&owner.encode()), Ok(owner));
    }

    /// R24: a value that cannot be read says so, and names the fault.
    #[test]
    fn bytes_that_are_no_row_are_refused() {
        let row = row(State::Sent);
        let (place, value) = (Place::of(&row.record), row.encode());
        let later = String::from_utf8_lossy(&value).replace("\"format\":1", "\"format\":2");
        assert_eq!(Row::decode(&place, &later.into_bytes().into()), Err(NotARow::Format(2)));
        let cut = value.slice(..value.len() - 1);
        assert!(matches!(Row::decode(&place, &cut), Err(NotARow::Value(_))), "bytes are missing");
        let Place::Transaction(id, shard) = place else { panic!("a transaction") };
        let other = Place::Transaction(TxId { hash: B256::ZERO, ..id }, shard);
        assert!(matches!(Row::decode(&other, &value), Err(NotARow::Value(_))), "of another key");
        assert!(
            Owner::decode(b"{}").is_err() && Owner::decode(b"{\"format\":2,\"replica\":\"a\",\"epoch\":1}").is_err()
        );
        for names in [&["tx", "64", "n", "t", "0x00"][..], &["shard", "64"], &["shard", "x"], &["leader"]] {
            assert_eq!(Place::parse(&Key::of(names).unwrap()), Err(NotARow::Key), "{names:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// C1: no two transactions share a key, whatever their names.
        #[test]
        fn a_key_names_one_transaction(network in "[a-z.*> =%]{1,12}", tenant in "[A-Za-z0-9._-]{1,20}", number in 0_u8..64) {
            let Ok(tenant) = tenant.parse() else { return Ok(()) };
            let id = TxId { tenant, network: network.as_str().into(), hash: B256::repeat_byte(number) };
            let place = Place::Transaction(id, Shard::numbered(number).unwrap());
            prop_assert_eq!(Place::parse(&place.key().unwrap()), Ok(place));
        }

        #[test]
        fn any_bytes_are_read_or_refused(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let place = Place::of(&row(State::Sent).record);
            let _ = Row::decode(&place, &value.clone().into());
            let _ = Owner::decode(&value);
        }
    }
}
