//! Types of the beacon API: roots, headers, and the events of the chain, which are read and made
//! up.

use std::fmt;

use alloy_primitives::B256;
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

use crate::domain::{chain::Number, hex};

/// A number as nodes write numbers: in decimal, in quotes or without.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal(pub(super) u64);

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Number::deserialize(from)?.0.map(Self).ok_or_else(|| D::Error::custom("not a number"))
    }
}

/// A root as nodes write roots: `0x` and 64 digits. Alloy's own reader takes digits without the
/// prefix too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Root(pub(super) B256);

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Root;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a root")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Root, E> {
                hex::fixed(text).map(Root).ok_or_else(|| E::custom("not a root"))
            }
        }

        from.deserialize_str(Text)
    }
}

/// A block's place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its slot.
    pub slot: u64,
    /// Root of its parent block.
    pub parent: B256,
    /// Root of the state after this block.
    pub state: B256,
    /// Whether the node has the block without the verification of an execution node.
    pub optimistic: bool,
}

/// The dependent roots of a head: the duties of its epoch and of the next one follow from these
/// blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Duties {
    /// The last block before the epoch before the head's.
    pub previous: B256,
    /// The last block before the head's epoch.
    pub current: B256,
}

/// A finalized checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Its epoch.
    pub epoch: u64,
    /// The root of its block.
    pub root: B256,
}

/// The content of an event about the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainEvent {
    /// A block was imported.
    Block {
        /// Its slot.
        slot: u64,
        /// Its root.
        root: B256,
    },
    /// A block became the head.
    Head {
        /// Its slot.
        slot: u64,
        /// Its root.
        root: B256,
        /// The dependent roots, if the event names them.
        duties: Option<Duties>,
    },
    /// The head left its branch.
    Reorg {
        /// The root of the head before.
        old: B256,
    },
    /// A checkpoint became final.
    Finalized {
        /// Its epoch.
        epoch: u64,
    },
}

impl ChainEvent {
    /// Reads an event of one of the four topics about the chain. `None` for another topic, and for
    /// data that cannot be understood.
    pub fn read(topic: &str, data: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Block {
            slot: Decimal,
            block: Root,
        }
        #[derive(Deserialize)]
        struct Head {
            slot: Decimal,
            block: Root,
            previous_duty_dependent_root: Option<Root>,
            current_duty_dependent_root: Option<Root>,
        }
        #[derive(Deserialize)]
        struct Reorg {
            old_head_block: Root,
        }
        #[derive(Deserialize)]
        struct Finalized {
            epoch: Decimal,
        }
        match topic {
            "block" => {
                let Block { slot, block } = serde_json::from_slice(data).ok()?;
                Some(Self::Block { slot: slot.0, root: block.0 })
            }
            "head" => {
                let head: Head = serde_json::from_slice(data).ok()?;
                let duties = head.previous_duty_dependent_root.zip(head.current_duty_dependent_root);
                let duties = duties.map(|(previous, current)| Duties { previous: previous.0, current: current.0 });
                Some(Self::Head { slot: head.slot.0, root: head.block.0, duties })
            }
            "chain_reorg" => {
                let Reorg { old_head_block } = serde_json::from_slice(data).ok()?;
                Some(Self::Reorg { old: old_head_block.0 })
            }
            "finalized_checkpoint" => {
                let Finalized { epoch } = serde_json::from_slice(data).ok()?;
                Some(Self::Finalized { epoch: epoch.0 })
            }
            _ => None,
        }
    }
}

/// Reads the answer of `/eth/v1/beacon/headers/{id}`: the block's root and its header.
pub fn read_header(body: &[u8]) -> Option<(B256, Header)> {
    #[derive(Deserialize)]
    struct Answer {
        execution_optimistic: Option<bool>,
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        root: Root,
        header: Signed,
    }
    #[derive(Deserialize)]
    struct Signed {
        message: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        slot: Decimal,
        parent_root: Root,
        state_root: Root,
    }
    let Answer { execution_optimistic, data } = serde_json::from_slice(body).ok()?;
    let Message { slot, parent_root, state_root } = data.header.message;
    Some((
        data.root.0,
        Header {
            slot: slot.0,
            parent: parent_root.0,
            state: state_root.0,
            optimistic: execution_optimistic.unwrap_or(false),
        },
    ))
}

/// Whether the answer of `/eth/v1/beacon/headers/{id}` calls the block canonical.
pub fn is_canonical(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        canonical: bool,
    }
    serde_json::from_slice::<Answer>(body).is_ok_and(|answer| answer.data.canonical)
}

/// Reads the answer of `/eth/v1/beacon/blocks/{id}/root`.
pub fn read_root(body: &[u8]) -> Option<B256> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        root: Root,
    }
    serde_json::from_slice::<Answer>(body).ok().map(|answer| answer.data.root.0)
}

/// Reads `dependent_root` from an answer of `/eth/v1/validator/duties`.
pub fn read_dependent_root(body: &[u8]) -> Option<B256> {
    #[derive(Deserialize)]
    struct Answer {
        dependent_root: Root,
    }
    serde_json::from_slice::<Answer>(body).ok().map(|answer| answer.dependent_root.0)
}

/// Reads the finalized checkpoint from the answer of
/// `/eth/v1/beacon/states/{id}/finality_checkpoints`.
pub fn read_finalized(body: &[u8]) -> Option<Checkpoint> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        finalized: Finalized,
    }
    #[derive(Deserialize)]
    struct Finalized {
        epoch: Decimal,
        root: Root,
    }
    let Finalized { epoch, root } = serde_json::from_slice::<Answer>(body).ok()?.data.finalized;
    Some(Checkpoint { epoch: epoch.0, root: root.0 })
}

/// A `block` event made up from a header.
pub fn block_event(root: B256, header: &Header) -> Bytes {
    let Header { slot, optimistic, .. } = header;
    format!(
        "event: block\ndata: {{\"slot\":\"{slot}\",\"block\":\"{root}\",\"execution_optimistic\":{optimistic}}}\n\n"
    )
    .into()
}

/// A `head` event made up from a header.
pub fn head_event(root: B256, header: &Header, epoch_transition: bool, duties: Duties) -> Bytes {
    let Header { slot, state, optimistic, .. } = header;
    let Duties { previous, current } = duties;
    format!(
        "event: head\ndata: {{\"slot\":\"{slot}\",\"block\":\"{root}\",\"state\":\"{state}\",\
         \"epoch_transition\":{epoch_transition},\"previous_duty_dependent_root\":\"{previous}\",\
         \"current_duty_dependent_root\":\"{current}\",\"execution_optimistic\":{optimistic}}}\n\n"
    )
    .into()
}

/// The state's root, and whether the head is optimistic, by its `head` event; zero and `false`
/// where the event has neither.
pub fn state_of(event: &[u8]) -> (B256, bool) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Head {
        state: Root,
        execution_optimistic: bool,
    }
    let data = memchr::memmem::find(event, b"data:").map_or(event, |at| &event[at + 5..]);
    let head: Head = serde_json::from_slice(data.trim_ascii()).unwrap_or_default();
    (head.state.0, head.execution_optimistic)
}

/// A `chain_reorg` event made up from the heads before and after, `depth` slots from the old one
/// down to their common ancestor.
pub fn reorg_event(old: (B256, &Header), new: (B256, &Header), depth: u64, epoch: u64) -> Bytes {
    let Header { slot, state, optimistic, .. } = new.1;
    format!(
        "event: chain_reorg\ndata: {{\"slot\":\"{slot}\",\"depth\":\"{depth}\",\"old_head_block\":\"{}\",\
         \"new_head_block\":\"{}\",\"old_head_state\":\"{}\",\"new_head_state\":\"{state}\",\"epoch\":\"{epoch}\",\
         \"execution_optimistic\":{optimistic}}}\n\n",
        old.0, new.0, old.1.state,
    )
    .into()
}

/// A `finalized_checkpoint` event made up from the checkpoint and its block's header.
pub fn finalized_event(Checkpoint { epoch, root }: Checkpoint, header: &Header) -> Bytes {
    let Header { state, optimistic, .. } = header;
    format!(
        "event: finalized_checkpoint\ndata: {{\"block\":\"{root}\",\"state\":\"{state}\",\"epoch\":\"{epoch}\",\
         \"execution_optimistic\":{optimistic}}}\n\n"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn root(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    fn data(event: &Bytes) -> (String, Value) {
        let text = std::str::from_utf8(event).unwrap();
        let (topic, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        (topic.to_owned(), serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap())
    }

    #[test]
    fn made_up_events_have_the_fields_of_the_description() {
        let header = Header { slot: 70, parent: root(1), state: root(2), optimistic: true };
        let (topic, head) = data(&head_event(root(3), &header, false, Duties { previous: root(4), current: root(5) }));
        let expected = json!({
            "slot": "70", "block": root(3).to_string(), "state": root(2).to_string(), "epoch_transition": false,
            "previous_duty_dependent_root": root(4).to_string(), "current_duty_dependent_root": root(5).to_string(),
            "execution_optimistic": true,
        });
        assert_eq!((topic.as_str(), head), ("head", expected));
        let expected = json!({"slot": "70", "block": root(3).to_string(), "execution_optimistic": true});
        assert_eq!(data(&block_event(root(3), &header)), ("block".to_owned(), expected));
        let old = Header { slot: 69, state: root(7), ..header };
        let expected = json!({
            "slot": "70", "depth": "2", "old_head_block": root(6).to_string(), "new_head_block": root(3).to_string(),
            "old_head_state": root(7).to_string(), "new_head_state": root(2).to_string(), "epoch": "2",
            "execution_optimistic": true,
        });
        assert_eq!(data(&reorg_event((root(6), &old), (root(3), &header), 2, 2)), ("chain_reorg".to_owned(), expected));
        let expected = json!({
            "block": root(8).to_string(), "state": root(2).to_string(), "epoch": "1", "execution_optimistic": true,
        });
        let event = finalized_event(Checkpoint { epoch: 1, root: root(8) }, &header);
        assert_eq!(data(&event), ("finalized_checkpoint".to_owned(), expected));
    }

    #[test]
    fn events_are_read_and_nonsense_is_left_alone() {
        let read = |topic, data: Value| ChainEvent::read(topic, data.to_string().as_bytes());
        let (a, b) = (root(1), root(2));
        assert_eq!(
            read("block", json!({"slot": "7", "block": a.to_string(), "more": []})),
            Some(ChainEvent::Block { slot: 7, root: a })
        );
        assert_eq!(
            read("head", json!({"slot": "7", "block": a.to_string()})),
            Some(ChainEvent::Head { slot: 7, root: a, duties: None })
        );
        let head = json!({
            "slot": "7", "block": a.to_string(), "previous_duty_dependent_root": a.to_string(),
            "current_duty_dependent_root": b.to_string(),
        });
        let duties = Some(Duties { previous: a, current: b });
        assert_eq!(read("head", head), Some(ChainEvent::Head { slot: 7, root: a, duties }));
        assert_eq!(read("chain_reorg", json!({"old_head_block": b.to_string()})), Some(ChainEvent::Reorg { old: b }));
        assert_eq!(read("finalized_checkpoint", json!({"epoch": "3"})), Some(ChainEvent::Finalized { epoch: 3 }));
        let head = json!({"slot": 7, "block": a.to_string(), "previous_duty_dependent_root": null});
        assert_eq!(read("head", head), Some(ChainEvent::Head { slot: 7, root: a, duties: None }));
        assert_eq!(read("head", json!({"slot": "x", "block": a.to_string()})), None);
        assert_eq!(read("block", json!({"slot": "7", "block": "0x12"})), None);
        let bare = &a.to_string()[2..];
        assert_eq!(read("block", json!({"slot": "7", "block": bare})), None);
        assert_eq!(read("attestation", json!({})), None);
    }
}
