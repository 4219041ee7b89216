//! The validators that a body names.

use serde::Deserialize;

use super::super::Request;
use crate::domain::chain::Number;

/// The validators, in ascending order, by hashes of their names.
#[derive(Debug)]
pub(super) struct About(Box<[u64]>);

impl About {
    /// The validators of a body that replaces earlier words on them: of fee recipients and
    /// registrations.
    pub(super) fn of(request: &Request, body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Prepared {
            validator_index: Number,
        }
        #[derive(Deserialize)]
        struct Registered<'a> {
            #[serde(borrow)]
            message: Message<'a>,
        }
        #[derive(Deserialize)]
        struct Message<'a> {
            pubkey: &'a str,
        }
        let path = request.target.path();
        let mut names: Vec<u64> = match path.trim_end_matches('/').rsplit('/').next()? {
            "prepare_beacon_proposer" => {
                let list: Vec<Prepared> = serde_json::from_slice(body).ok()?;
                list.into_iter().map(|prepared| prepared.validator_index.0).collect::<Option<_>>()?
            }
            "register_validator" => {
                let list: Vec<Registered<'_>> = serde_json::from_slice(body).ok()?;
                list.iter().map(|registered| hash(registered.message.pubkey)).collect()
            }
            _ => return None,
        };
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| Self(names.into()))
    }

    /// Whether this names all validators of `earlier`.
    pub(super) fn covers(&self, earlier: &Self) -> bool {
        earlier.0.len() <= self.0.len() && earlier.0.iter().all(|name| self.0.binary_search(name).is_ok())
    }

    /// Bytes in memory.
    pub(super) fn weight(&self) -> usize {
        self.0.len() * size_of::<u64>()
    }
}

fn hash(pubkey: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    pubkey.bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
    hasher.finish()
}
