//! The ids of a transaction's events.
//!
//! Rule: an id follows from the transaction, its birth, the state that the transition led to, the
//! block and the other transaction that the state speaks of, and the number of earlier transitions
//! with all the same.
//!
//! Reason: the replica that takes a transaction over may have seen fewer transitions than the one
//! before. An event that both of them report has the same id, so a receiver drops the repeat.
//!
//! Example: a replica tells `mined` in block A, `reorged`, and `mined` in block B, and dies with
//! that. The next one saw the transaction `sent`, finds it in block B, and tells `mined` with the
//! same id.

use serde::{Deserialize, Serialize};

use super::{
    id::{EventId, Millis},
    record::{Record, StateName, Transition},
};

/// A rule for the ids of a transaction's events. A record keeps its rule for life, so that an event
/// that is told again has its old id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventIds {
    /// By the number of the transition: the rule of earlier versions.
    #[default]
    Numbered,
    /// By the content of the transition.
    OfContent,
}

impl EventIds {
    /// Whether the rule is that of earlier versions, which wrote none.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
    pub(super) fn is_numbered(&self) -> bool {
        *self == Self::Numbered
    }
}

impl Record {
    /// The id of the event of the transition with that number.
    pub fn event(&self, seq: u64) -> EventId {
        match self.history.iter().find(|transition| transition.seq == seq) {
            Some(transition) if self.event_ids == EventIds::OfContent => self.event_of(transition, transition.repeat),
            _ => EventId::of_transition(&self.id, self.born(), seq),
        }
    }

    /// The ids of all events so far.
    pub fn events(&self) -> Vec<EventId> {
        match self.event_ids {
            EventIds::Numbered => (1..=self.seq).map(|seq| self.event(seq)).collect(),
            EventIds::OfContent => {
                // Of equal transitions, earlier ones may have been dropped from the history.
                let of = |transition: &Transition| {
                    (0..=transition.repeat).map(|repeat| self.event_of(transition, repeat)).collect::<Vec<_>>()
                };
                self.history.iter().flat_map(of).collect()
            }
        }
    }

    /// How many transitions of the history were the same as `transition`, but for their time.
    pub fn repeats(&self, transition: &Transition) -> u32 {
        let last = self.history.iter().rev().find(|other| subject(other) == subject(transition));
        last.map_or(0, |last| last.repeat.saturating_add(1))
    }

    fn event_of(&self, transition: &Transition, repeat: u32) -> EventId {
        let (to, block, other) = subject(transition);
        EventId::of_content(&self.id, self.born(), [to.as_str(), &block, other], repeat)
    }

    /// When the first transition was, which no later one changes.
    fn born(&self) -> Millis {
        self.history.first().map_or(self.accepted_at, |first| first.at)
    }
}

/// The state, the block, and the transaction that took the place.
fn subject(transition: &Transition) -> (StateName, String, &str) {
    let block = transition.block.map(|block| block.hash.to_string()).unwrap_or_default();
    let other = transition.reason.as_deref().filter(|_| transition.to == StateName::Replaced);
    (transition.to, block, other.unwrap_or_default())
}

/// Whether a transition is the first of its kind, as nearly all are.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands in a reference")]
pub(super) fn is_zero(repeat: &u32) -> bool {
    *repeat == 0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use alloy_primitives::B256;

    use super::*;
    use crate::outbox::record::BlockId;

    fn record() -> Record {
        let json = serde_json::json!({
            "tenant": "default", "network": "main", "hash": B256::repeat_byte(1), "sender": alloy_primitives::Address::ZERO,
            "nonce": 0, "kind": 2, "fees": { "max_fee": "0x1" }, "bytes": 110, "accepted_at": 5, "deadline": 9,
            "state": { "name": "accepted" }, "seq": 0, "history": [],
        });
        serde_json::from_value(json).unwrap()
    }

    /// The record goes through these states, each of the block with that number.
    fn through(rule: EventIds, states: &[(StateName, u8)]) -> Record {
        let mut record = Record { event_ids: rule, ..record() };
        for (place, (to, block)) in states.iter().enumerate() {
            let block = (*block > 0).then(|| BlockId { number: 7, hash: B256::repeat_byte(*block) });
            let (seq, at) = (record.seq + 1, Millis(5 + place as u64));
            let (to, node, reason) = (*to, None, None);
            let mut next = Transition { seq, at, to, block, node, reason, refusals: Vec::new(), repeat: 0 };
            next.repeat = record.repeats(&next);
            record.note(next);
        }
        record
    }

    use StateName::{Accepted, Mined, Reorged, Seen, Sent};

    /// U3: a replica that saw fewer transitions tells an event with the same id.
    #[test]
    fn an_event_has_one_id_whoever_tells_it() {
        let all = [(Accepted, 0), (Sent, 0), (Seen, 0), (Mined, 1), (Reorged, 1), (Mined, 2)];
        let (one, other) =
            (through(EventIds::OfContent, &all), through(EventIds::OfContent, &[(Accepted, 0), (Sent, 0), (Mined, 2)]));
        assert_eq!(one.event(6), other.event(3));
        assert_ne!(one.event(4), other.event(3), "another block is another event");
        let numbered = through(EventIds::Numbered, &all);
        assert_eq!(numbered.event(4), EventId::of_transition(&numbered.id, Millis(5), 4), "an old record's ids change");
    }

    #[test]
    fn a_state_that_comes_back_is_another_event() {
        let mut states = vec![(Accepted, 0), (Mined, 1), (Reorged, 1), (Mined, 1)];
        let record = through(EventIds::OfContent, &states);
        let ids: BTreeSet<_> = record.events().into_iter().map(String::from).collect();
        assert_eq!(ids.len(), 4);
        assert!(ids.contains(record.event(4).as_str()));
        // Also when the history is cut: no two transitions share an id.
        (0..50).for_each(|_| states.extend([(Reorged, 1), (Mined, 1)]));
        let long = through(EventIds::OfContent, &states);
        assert!(long.history.len() < states.len());
        let (events, told): (BTreeSet<_>, BTreeSet<_>) = (
            long.events().into_iter().map(String::from).collect(),
            (1..=long.seq)
                .filter(|seq| long.history.iter().any(|of| of.seq == *seq))
                .map(|seq| long.event(seq))
                .collect(),
        );
        assert_eq!(told.len(), long.history.len());
        assert_eq!(events.len(), states.len(), "each mark can be found again");
    }
}
