//! Events that wait for a block's head.
//!
//! Rule: an event that refers to a block waits until clients have the block's head, for
//! [`HEAD_TIMEOUT`] at most, and each block is waited for once. Reason: a client that acts upon the
//! event looks for that block. Nodes send both in the right order, but a head may have to wait for
//! its header, and at a change of streams events come from two nodes. Not every such block becomes
//! a head, so waiting has an end. Example: an attestation for block 6 comes 200 ms before the
//! header of 6. The attestation goes to clients right behind the head of 6. An attestation for a
//! block that stays off the chain goes out after a second, and the next one for that block at once.

use std::collections::{HashMap, VecDeque};

use alloy_primitives::B256;
use bytes::Bytes;
use serde::Deserialize;
use tokio::time::{Duration, Instant};

use super::{
    super::beacon::{Decimal, Root},
    WINDOW,
};

/// How long a block's head is waited for.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Blocks that may be awaited at once. Events that name further blocks go out without their heads.
const MAX_AWAITED: usize = 1024;
/// Blocks that are remembered as settled, at most; those of the lowest heads are forgotten first.
const MAX_SETTLED: usize = 8192;
/// Bytes that may wait. Beyond that, the oldest events go out without their heads.
const MAX_BYTES: usize = 4 << 20;

/// Topics that refer to a block whose head nodes have reported before.
const TOPICS: [&str; 12] = [
    "attestation",
    "contribution_and_proof",
    "execution_payload",
    "execution_payload_available",
    "fast_confirmation",
    "head_v2",
    "light_client_finality_update",
    "light_client_optimistic_update",
    "light_client_optimistic_update_v2",
    "payload_attestation_message",
    "payload_attributes",
    "single_attestation",
];
/// The topics among them that are votes, which may name a block of long ago.
const VOTES: [&str; 3] = ["attestation", "contribution_and_proof", "single_attestation"];

/// The block that an event refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum About {
    Hash(B256),
    /// The block at this slot, with any root.
    Slot(u64),
}

#[derive(Debug)]
struct HeldEvent {
    about: About,
    topic: String,
    bytes: Bytes,
}

/// Events that wait, and the heads that need not be waited for.
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: VecDeque<HeldEvent>,
    bytes: usize,
    /// Since when a block has been waited for; `None` until the next [`Held::expire`].
    since: HashMap<About, Option<Instant>>,
    /// Blocks that were heads, or were waited for in vain, each with the head's slot of that
    /// moment.
    settled: HashMap<B256, u64>,
    /// The highest slot that was a head's, or was waited for in vain.
    slot: u64,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Keeps an event that has to wait, and returns any other. No event waits for a slot above
    /// `latest`.
    pub(super) fn take(&mut self, topic: String, data: &[u8], bytes: Bytes, latest: u64) -> Option<(String, Bytes)> {
        let Some(about) = self.blocks(&topic, data, latest) else { return Some((topic, bytes)) };
        if self.since.len() >= MAX_AWAITED && !self.since.contains_key(&about) {
            return Some((topic, bytes));
        }
        self.bytes += bytes.len();
        self.since.entry(about).or_default();
        self.waiting.push_back(HeldEvent { about, topic, bytes });
        None
    }

    /// The block whose head the event has to wait for.
    fn blocks(&self, topic: &str, data: &[u8], latest: u64) -> Option<About> {
        if !TOPICS.contains(&topic) {
            return None;
        }
        let (about, slot) = serde_json::from_slice::<Speech>(data).ok()?.about()?;
        if slot.is_some_and(|slot| slot > latest) {
            return None;
        }
        let is_old = VOTES.contains(&topic) && slot.is_some_and(|slot| slot < self.slot);
        (!is_old && !self.is_settled(about)).then_some(about)
    }

    fn is_settled(&self, about: About) -> bool {
        match about {
            About::Hash(root) => self.settled.contains_key(&root),
            About::Slot(slot) => slot <= self.slot,
        }
    }

    /// Clients have got this block as a head. Returns the events that waited for this head.
    pub(super) fn arrived(&mut self, root: B256, slot: u64) -> Vec<(String, Bytes)> {
        self.slot = slot;
        self.settled.insert(root, slot);
        self.settled.retain(|_, settled| settled.abs_diff(slot) <= WINDOW);
        self.release()
    }

    /// Time passes. Returns the events that have waited for long enough.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<(String, Bytes)> {
        let is_over = |since: Instant| now.saturating_duration_since(since) >= HEAD_TIMEOUT;
        let mut over = Vec::new();
        for (about, since) in &mut self.since {
            if is_over(*since.get_or_insert(now)) {
                over.push(*about);
            }
        }
        over.into_iter().for_each(|about| self.give_up(about));
        let released = self.release();
        self.forget();
        released
    }

    /// Returns the oldest events while too many bytes wait.
    pub(super) fn relieve(&mut self) -> Vec<(String, Bytes)> {
        let mut out = Vec::new();
        while self.bytes > MAX_BYTES
            && let Some(oldest) = self.waiting.front()
        {
            self.give_up(oldest.about);
            out.append(&mut self.release());
        }
        self.forget();
        out
    }

    /// Forgets settled blocks that are too many. No event waits for a settled block then.
    fn forget(&mut self) {
        if self.settled.len() > MAX_SETTLED {
            let mut slots: Vec<u64> = self.settled.values().copied().collect();
            let (_, median, _) = slots.select_nth_unstable(MAX_SETTLED / 2);
            let median = *median;
            let mut spare = self.settled.len() - MAX_SETTLED / 2;
            self.settled.retain(|_, slot| {
                let is_forgotten = *slot <= median && spare > 0;
                spare -= usize::from(is_forgotten);
                !is_forgotten
            });
        }
    }

    fn give_up(&mut self, about: About) {
        self.since.remove(&about);
        match about {
            About::Hash(root) => _ = self.settled.insert(root, self.slot),
            About::Slot(slot) => self.slot = self.slot.max(slot),
        }
    }

    fn release(&mut self) -> Vec<(String, Bytes)> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        let mut since = std::mem::take(&mut self.since);
        since.retain(|about, _| !self.is_settled(*about));
        self.since = since;
        let mut out = Vec::new();
        for held in std::mem::take(&mut self.waiting) {
            if self.is_settled(held.about) {
                self.bytes -= held.bytes.len();
                out.push((held.topic, held.bytes));
            } else {
                self.waiting.push_back(held);
            }
        }
        out
    }
}

/// The members by which an event names a block, at the place of any topic.
#[derive(Deserialize)]
struct Speech {
    slot: Option<Decimal>,
    block: Option<Root>,
    block_root: Option<Root>,
    beacon_block_root: Option<Root>,
    parent_block_root: Option<Root>,
    data: Option<Box<Speech>>,
    message: Option<Box<Speech>>,
    contribution: Option<Box<Speech>>,
    attested_header: Option<Box<Speech>>,
    beacon: Option<Box<Speech>>,
}

impl Speech {
    /// The block, and the slot beside its name.
    fn about(self) -> Option<(About, Option<u64>)> {
        let root = self.block.or(self.block_root).or(self.beacon_block_root).or(self.parent_block_root);
        let slot = self.slot.map(|slot| slot.0);
        if let Some(root) = root {
            return Some((About::Hash(root.0), slot));
        }
        let inner = self.data.or(self.message).or(self.contribution).or(self.attested_header).or(self.beacon);
        inner.and_then(|inner| inner.about()).or_else(|| slot.map(|slot| (About::Slot(slot), Some(slot))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::events::topics;

    fn root(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    fn about(data: &Value) -> Option<(About, Option<u64>)> {
        serde_json::from_str::<Speech>(&data.to_string()).unwrap().about()
    }

    #[test]
    fn each_topic_names_its_block_in_its_own_place() {
        let (one, name) = (root(1), root(1).to_string());
        let other = root(2).to_string();
        let vote =
            json!({"slot": "7", "index": "0", "beacon_block_root": name, "source": {}, "target": {"root": other}});
        let header = json!({"beacon": {"slot": "7", "parent_root": other, "state_root": other}, "execution": {}});
        let block = Some((About::Hash(one), Some(7)));
        for (data, expected) in [
            (json!({"aggregation_bits": "0x", "data": vote, "signature": "0x"}), block),
            (json!({"message": {"contribution": vote, "aggregator_index": "1"}, "signature": "0x"}), block),
            (json!({"version": "gloas", "data": {"slot": "7", "block": name, "state": other}}), block),
            (json!({"slot": "7", "block_root": name, "block_hash": other}), block),
            (json!({"version": "gloas", "data": {"validator_index": "1", "data": vote}}), block),
            (
                json!({"version": "x", "data": {"proposal_slot": "8", "parent_block_root": name, "parent_block_hash": other}}),
                Some((About::Hash(one), None)),
            ),
            (
                json!({"version": "x", "data": {"attested_header": header, "signature_slot": "8"}}),
                Some((About::Slot(7), Some(7))),
            ),
            (json!({}), None),
        ] {
            assert_eq!(about(&data), expected, "{data}");
        }
    }

    #[test]
    fn each_topic_waits_for_its_block_or_has_none() {
        // These come before their block, or name none that clients were told.
        const OTHERS: [&str; 11] = [
            "attester_slashing",
            "blob_sidecar",
            "block_gossip",
            "bls_to_execution_change",
            "data_column_sidecar",
            "execution_payload_bid",
            "execution_payload_gossip",
            "inclusion_list",
            "proposer_preferences",
            "proposer_slashing",
            "voluntary_exit",
        ];
        let is_of_the_chain = |topic: &&str| topics::CHAIN.contains(topic) || *topic == "other";
        for topic in topics::labels().filter(|topic| !is_of_the_chain(topic)) {
            assert_ne!(TOPICS.contains(&topic), OTHERS.contains(&topic), "{topic} is in one list");
        }
    }

    #[test]
    fn votes_for_ever_new_blocks_are_bounded() {
        let mut held = Held::default();
        let (mut now, mut told, rounds) = (Instant::now(), 0, 20);
        for round in 0..rounds {
            for number in 0..2000 {
                let root = B256::left_padding_from(&(round * 2000 + number as u64 + 1).to_be_bytes());
                let data = json!({"slot": "7", "block": root.to_string()}).to_string();
                told += usize::from(held.take("head_v2".to_owned(), data.as_bytes(), Bytes::new(), u64::MAX).is_some());
            }
            assert_eq!(held.since.len(), MAX_AWAITED);
            told += held.expire(now).len();
            now += HEAD_TIMEOUT;
            told += held.expire(now).len();
            assert!(held.settled.len() <= MAX_SETTLED && held.since.is_empty() && held.is_empty());
        }
        assert_eq!(told, 2000 * rounds as usize, "each goes out");
    }

    #[test]
    fn waiting_events_are_bounded_and_none_is_lost() {
        let mut held = Held::default();
        let (mut told, count) = (0, 3 * (MAX_BYTES >> 10));
        for number in 0..count {
            let data = json!({"slot": "7", "block": root((number % 3) as u8 + 1).to_string()}).to_string();
            // Each block is waited for once: later events pass.
            told += usize::from(
                held.take("head_v2".to_owned(), data.as_bytes(), vec![0; 1 << 10].into(), u64::MAX).is_some(),
            );
            told += held.relieve().len();
            assert!(held.bytes <= MAX_BYTES);
        }
        told += held.expire(Instant::now()).len();
        told += held.expire(Instant::now() + HEAD_TIMEOUT * 2).len();
        assert_eq!((told, held.bytes, held.is_empty(), held.since.len()), (count, 0, true, 0));
    }
}
