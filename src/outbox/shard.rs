//! Shards: all transactions of a sender belong to one shard, and a replica owns whole shards. So
//! the nonces of a sender are in one pair of hands, in their order.

use std::fmt;

use alloy_primitives::Address;
use serde::{Deserialize, Serialize};

use super::record::Record;

/// Shards of a cluster. All replicas must have the same number.
pub const SHARDS: u8 = 64;

/// A shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(u8);

impl Shard {
    /// The shard of a sender. The last byte of an address is the end of a hash, so senders spread
    /// evenly, also those who chose how their addresses begin.
    pub fn of(sender: &Address) -> Self {
        Self(sender.0[19] % SHARDS)
    }

    /// All shards.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// The shard of this number; `None` where no shard has it.
    pub fn numbered(number: u8) -> Option<Self> {
        (number < SHARDS).then_some(Self(number))
    }

    /// The number, from 0.
    pub fn index(self) -> usize {
        self.0.into()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Record {
    /// The shard of the transaction.
    pub fn shard(&self) -> Shard {
        Shard::of(&self.sender)
    }
}

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardSet(u64);

impl ShardSet {
    /// No shard.
    pub const NONE: Self = Self(0);
    /// Each shard.
    pub const ALL: Self = Self(u64::MAX >> (u64::BITS - SHARDS as u32));

    /// The set of these bits.
    pub(super) fn of_bits(bits: u64) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether the shard is in the set.
    pub fn has(self, shard: Shard) -> bool {
        self.0 & bit(shard) != 0
    }

    /// Adds a shard.
    pub fn insert(&mut self, shard: Shard) {
        self.0 |= bit(shard);
    }

    /// Takes a shard out.
    pub fn remove(&mut self, shard: Shard) {
        self.0 &= !bit(shard);
    }

    /// The shards of the set that `other` has not.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many shards.
    pub fn count(self) -> u8 {
        // A set has no more than 64 bits.
        self.0.count_ones() as u8
    }

    /// The shards, in order.
    pub fn iter(self) -> impl Iterator<Item = Shard> {
        Shard::all().filter(move |shard| self.has(*shard))
    }
}

/// The bit of a shard.
pub(super) fn bit(shard: Shard) -> u64 {
    1 << shard.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R19, U53: each sender is of one shard, and each shard has senders.
    #[test]
    fn a_sender_is_of_one_shard() {
        let mut all = ShardSet::NONE;
        for number in 0..=255 {
            let sender = Address::with_last_byte(number);
            assert_eq!(Shard::of(&sender), Shard::of(&sender));
            all.insert(Shard::of(&sender));
        }
        assert_eq!((all, all.count()), (ShardSet::ALL, SHARDS));
        assert!(Shard::numbered(SHARDS).is_none() && Shard::numbered(SHARDS - 1).is_some());
    }

    #[test]
    fn a_set_has_what_was_put_in() {
        let [one, other] = [3, 63].map(|number| Shard::numbered(number).unwrap());
        let mut set = ShardSet::NONE;
        set.insert(one);
        set.insert(other);
        assert_eq!(set.iter().collect::<Vec<_>>(), [one, other]);
        assert_eq!(ShardSet::of_bits(bit(one) | bit(other)), set);
        set.remove(other);
        assert!(set.has(one) && !set.has(other));
        assert_eq!(ShardSet::ALL.without(set).count(), 63);
    }
}
