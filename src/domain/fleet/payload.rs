//! Reading and writing payloads.

use std::collections::BTreeMap;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

/// The number of the format that this version writes. A payload of a higher number is read as far
/// as this version knows the fields.
pub const FORMAT: u32 = 1;

/// The longest payload that is read, in bytes.
const LONGEST_PAYLOAD: usize = 1024 * 1024;

/// Fields that this version does not know, by name. They are written back unchanged.
pub type Unknown = BTreeMap<String, Value>;

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

/// The payload at `key`.
///
/// # Errors
/// The value is not JSON, lacks a field, holds a name or number that is none, or is longer than
/// 1 MiB.
pub fn decode<P: Payload>(key: &str, value: &[u8]) -> Result<P, Malformed> {
    if value.len() > LONGEST_PAYLOAD {
        return Err(Malformed::new(key, format!("{} bytes, {LONGEST_PAYLOAD} at most", value.len())));
    }
    let payload: P = serde_json::from_slice(value).map_err(|error| Malformed::new(key, error.to_string()))?;
    match payload.format() {
        0 => Err(Malformed::new(key, "there is no format 0")),
        _ => Ok(payload),
    }
}

/// The bytes of a payload.
pub fn encode<P: Payload>(payload: &P) -> Vec<u8> {
    serde_json::to_vec(payload).expect("maps of payloads have keys that are texts")
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
