//! Messages of a list as a list of their own. A node that took some of a list, and refused some for
//! good, leaves those whose blocks it does not know: these alone go to another node. A refusal for
//! good must not be got round, and messages that were taken need not be sent again.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::value::RawValue;

/// A longer list goes to other nodes whole, so that no second one of its size is held.
const LONGEST: usize = 1 << 20;

/// Some messages of a list.
pub(super) struct Part {
    /// The list of these.
    pub(super) bytes: Bytes,
    /// The place of each in the whole list.
    pub(super) places: Arc<[u64]>,
}

impl Part {
    /// The messages at `places` of a `list` in JSON. `None` if it is another form, has no such
    /// places, or has no others.
    pub(super) fn of(list: &[u8], places: &[u64]) -> Option<Self> {
        if list.len() > LONGEST || places.is_empty() {
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
        assert!(Part::of(&[b"[1, 2".to_vec(), vec![b' '; LONGEST], b"]".to_vec()].concat(), &[0]).is_none());
    }
}
