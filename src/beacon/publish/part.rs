//! Some messages of a list as a list of their own.
//!
//! Rule: when a node has taken some messages of a list and refused some for good, only the messages
//! whose blocks the node does not know go to another node. Reason: a refusal for good must not be
//! got round, and messages that were taken need not be sent again. Example: of four attestations
//! node A takes two, calls one invalid, and does not know the block of the fourth: node B gets a
//! list of the fourth alone.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

/// A longer list goes to other nodes whole, so that memory holds no second list of its size.
const MAX_LIST: usize = 1 << 20;

/// Some messages of a list.
pub(super) struct Part {
    /// The list of these messages.
    pub(super) bytes: Bytes,
    /// The place of each in the whole list.
    pub(super) places: Arc<[u64]>,
}

impl Part {
    /// The messages at `places` of a `list` in JSON. `None` where the list has another form, lacks
    /// one of the places, or has no other places.
    pub(super) fn of(list: &[u8], places: &[u64]) -> Option<Self> {
        if list.len() > MAX_LIST || places.is_empty() {
            return None;
        }
        let messages: Vec<&RawValue> = serde_json::from_slice(list).ok()?;
        if places.len() == messages.len() {
            return None;
        }
        let mut bytes = vec![b'['];
        for (count, place) in places.iter().enumerate() {
            if count > 0 {
                bytes.push(b',');
            }
            bytes.extend_from_slice(messages.get(usize::try_from(*place).ok()?)?.get().as_bytes());
        }
        bytes.push(b']');
        Some(Self { bytes: bytes.into(), places: places.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_messages_of_a_list_are_a_list() {
        let list = br#" [ {"a": 1.50}, [2 , 3], "x,]" ] "#;
        let part = |places: &[u64]| Part::of(list, places).map(|part| String::from_utf8(part.bytes.to_vec()).unwrap());
        assert_eq!(part(&[0, 2]).as_deref(), Some(r#"[{"a": 1.50},"x,]"]"#));
        assert_eq!(part(&[1]).as_deref(), Some("[[2 , 3]]"));
        for places in [&[][..], &[3], &[0, 1, 2]] {
            assert_eq!(part(places), None, "{places:?}");
        }
        for list in [&b"\x01\x02\x03"[..], b"", b"{}", b"[]", b"[1"] {
            assert!(Part::of(list, &[0]).is_none(), "{list:?}");
        }
        assert!(Part::of(&[b"[1, 2".to_vec(), vec![b' '; MAX_LIST], b"]".to_vec()].concat(), &[0]).is_none());
    }
}
