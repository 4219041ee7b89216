//! Reading and writing payloads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use super::revision::Incarnation;

/// The number of the format that this version writes. A payload of a higher number is read as far
/// as this version knows the fields.
pub const FORMAT: u32 = 1;

/// The longest payload that is read, in bytes.
const LONGEST_PAYLOAD: usize = 1024 * 1024;

/// Fields that this version does not know, by name, which are written back unchanged.
pub type Unknown = BTreeMap<String, Value>;

/// The most bytes of unknown fields, as JSON, that are written back: a value that grows too long
/// could not be written at all.
const MOST_CARRIED: usize = 16 * 1024;

/// Whether these unknown fields are few enough to be written back.
pub(super) fn are_carried<'o>(others: impl IntoIterator<Item = &'o Unknown>) -> bool {
    let length = |other: &Unknown| serde_json::to_vec(other).map_or(usize::MAX, |bytes| bytes.len());
    let filled = others.into_iter().filter(|other| !other.is_empty());
    filled.map(length).fold(0, usize::saturating_add) <= MOST_CARRIED
}

/// A value that cannot be read as the payload of its key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Error)]
#[error("the value at {key:?} is malformed: {why}")]
pub struct Malformed {
    /// The key, as the store has it.
    pub key: String,
    /// The fault, without bytes of the value.
    pub why: String,
}

impl Malformed {
    pub(super) fn new(key: &str, why: impl Into<String>) -> Self {
        Self { key: key.into(), why: why.into() }
    }
}

/// A value of the bucket.
pub trait Payload: Serialize + DeserializeOwned {
    /// The format's number that the writer put in.
    fn format(&self) -> u32;

    /// How many fields, words and kinds this version does not know.
    fn unknown(&self) -> usize;
}

/// A payload with the bucket that the payload was written for. A write that a client held back can
/// come to another bucket of the same name, where its epochs and revisions mean nothing.
#[derive(Serialize, Deserialize)]
struct Envelope<P> {
    #[serde(default)]
    bucket: Incarnation,
    #[serde(flatten)]
    payload: P,
}

/// The payload at `key` of `bucket`.
///
/// # Errors
/// The value is not JSON, lacks a field, holds a name or number that is none, is longer than 1 MiB,
/// or was written for another bucket.
pub fn decode<P: Payload>(key: &str, value: &[u8], bucket: Incarnation) -> Result<P, Malformed> {
    if value.len() > LONGEST_PAYLOAD {
        return Err(Malformed::new(key, format!("{} bytes, {LONGEST_PAYLOAD} at most", value.len())));
    }
    let envelope: Envelope<P> =
        serde_json::from_slice(value).map_err(|error| Malformed::new(key, error.to_string()))?;
    if envelope.payload.format() == 0 {
        return Err(Malformed::new(key, "there is no format 0"));
    }
    if envelope.bucket != bucket {
        return Err(Malformed::new(key, format!("written for bucket {}, not {bucket}", envelope.bucket)));
    }
    Ok(envelope.payload)
}

/// The bytes of a payload for `bucket`.
pub fn encode<P: Payload>(payload: &P, bucket: Incarnation) -> Vec<u8> {
    let envelope = Envelope { bucket, payload };
    serde_json::to_vec(&envelope).expect("maps of payloads have keys that are texts")
}

/// Implements [`Payload`] for a struct with the fields `format` and `other`; `also` counts what
/// else is unknown.
macro_rules! payload {
    ($name:ty $(, |$this:ident| $also:expr)?) => {
        impl $crate::domain::fleet::payload::Payload for $name {
            fn format(&self) -> u32 {
                self.format
            }

            fn unknown(&self) -> usize {
                let also = 0 $(+ { let $this = self; $also })?;
                self.other.len() + also
            }
        }
    };
}

pub(super) use payload;
