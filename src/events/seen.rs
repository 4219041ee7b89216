//! Recent events, by hash, so that each event passes once.
//!
//! Rule: two events are the same if their topics and their JSON have the same meaning. The order of
//! keys, white space and the case of hexadecimal digits do not count. Reason: kinds of nodes write
//! one event in different ways, and at a change of streams both nodes report the event. Example:
//! `{"slot":"7","root":"0xAB"}` from one node and `{ "root":"0xab", "slot":"7" }` from another are
//! one event. The JSON is hashed while it is read; no tree is built.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Events remembered: about an epoch's worth where every attestation is reported, at 16 bytes each.
const REMEMBERED: usize = 1 << 16;

/// A bounded memory of events.
#[derive(Debug, Default)]
pub(super) struct Seen {
    hashes: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    /// Whether this event is new, and remembers the event.
    pub(super) fn is_new(&mut self, topic: &str, data: &[u8]) -> bool {
        let hash = hash((topic, meaning(data)));
        if !self.hashes.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }
}

/// A hash of the data's meaning; of the bytes themselves where the data is no JSON.
fn meaning(data: &[u8]) -> u64 {
    let mut json = serde_json::Deserializer::from_slice(data);
    let read = Meaning.deserialize(&mut json).and_then(|meaning| json.end().map(|()| meaning));
    read.unwrap_or_else(|_| hash(data))
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Reads any JSON value into a hash of its meaning. The numbers in front keep kinds of values
/// apart.
struct Meaning;

impl<'de> DeserializeSeed<'de> for Meaning {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u64, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Meaning {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<u64, E> {
        Ok(hash(0))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<u64, E> {
        Ok(hash((1, value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(hash((2, value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        Ok(hash((3, value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
        Ok(hash((4, value.to_bits())))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<u64, E> {
        let mut hasher = DefaultHasher::new();
        match value.strip_prefix("0x").or_else(|| value.strip_prefix("0X")) {
            Some(digits) => {
                hasher.write_u8(5);
                digits.bytes().for_each(|b| hasher.write_u8(b.to_ascii_lowercase()));
            }
            None => (6, value).hash(&mut hasher),
        }
        Ok(hasher.finish())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<u64, A::Error> {
        let mut hasher = DefaultHasher::new();
        7.hash(&mut hasher);
        while let Some(item) = items.next_element_seed(Meaning)? {
            hasher.write_u64(item);
        }
        Ok(hasher.finish())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u64, A::Error> {
        // A sum has no order.
        let mut sum = 0_u64;
        while let Some(name) = members.next_key_seed(Meaning)? {
            sum = sum.wrapping_add(hash((name, members.next_value_seed(Meaning)?)));
        }
        Ok(hash((8, sum)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_event_is_remembered_for_a_long_time() {
        let mut seen = Seen::default();
        assert!(seen.is_new("a", b"0"));
        assert!(!seen.is_new("a", b"0"));
        assert!(seen.is_new("b", b"0"));
        for number in 0..REMEMBERED {
            assert!(seen.is_new("c", number.to_string().as_bytes()));
        }
        assert_eq!(seen.hashes.len(), REMEMBERED);
        assert!(seen.is_new("a", b"0"));
    }

    #[test]
    fn an_event_is_the_same_however_a_node_writes_it() {
        let one = br#"{"slot":"7","data":{"root":"0xABcd","bits":[1,-2,0.5,true,null]},"proposer":"x"}"#;
        let mut seen = Seen::default();
        assert!(seen.is_new("a", one));
        for same in [
            br#"{"proposer":"x","data":{"bits":[1,-2,0.5,true,null],"root":"0xabCD"},"slot":"7"}"#.to_vec(),
            b"{ \"slot\": \"\\u0037\",\n\"data\": {\"root\": \"0xabcd\", \"bits\": [1, -2, 0.5, true, null] }, \"proposer\": \"x\" }".to_vec(),
        ] {
            assert!(!seen.is_new("a", &same), "{}", String::from_utf8_lossy(&same));
        }
    }

    #[test]
    fn events_that_say_different_things_are_different() {
        let deep = "[".repeat(1000);
        let mut seen = Seen::default();
        for data in [
            r#"{"a":"1","b":"2"}"#,
            r#"{"a":"2","b":"1"}"#,
            r#"{"a":"1","b":2}"#,
            r#"{"a":{"b":"2"}}"#,
            r#"["a","b"]"#,
            r#"["b","a"]"#,
            r#"[["a"],"b"]"#,
            r#"{"a":"X"}"#,
            r#"{"a":"x"}"#,
            "{}",
            "[]",
            r#""""#,
            "null",
            "0",
            "false",
            "18446744073709551615",
            "18446744073709551614",
            "-1",
            "not JSON",
            "{} {}",
            "",
            &deep,
        ] {
            assert!(seen.is_new("a", data.as_bytes()), "{data}");
        }
    }
}
