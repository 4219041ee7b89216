//! The validators that a body names.

use serde::Deserialize;

use super::super::Request;
use crate::domain::chain::Number;

/// The validators that a body names.
#[derive(Debug)]
pub(super) struct About {
    /// Hashes of their names, in ascending order.
    names: Box<[u64]>,
    /// The highest epoch up to which the body counts, where the body says that.
    until: Option<u64>,
}

impl About {
    /// The validators of a body that replaces earlier words on them: of fee recipients,
    /// registrations and subscriptions to sync committees. The last are named with the end of their
    /// committee's period, since a validator may be in the next committee too.
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
        #[derive(Deserialize)]
        struct Subscribed {
            validator_index: Number,
            until_epoch: Number,
        }
        let mut until = None;
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
            "sync_committee_subscriptions" => {
                let list: Vec<Subscribed> = serde_json::from_slice(body).ok()?;
                until = list.iter().filter_map(|subscribed| subscribed.until_epoch.0).max();
                let name = |one: &Subscribed| Some(hash(&format!("{} {}", one.validator_index.0?, one.until_epoch.0?)));
                list.iter().map(name).collect::<Option<_>>()?
            }
            _ => return None,
        };
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| Self { names: names.into(), until })
    }

    /// Whether this names all validators of `earlier`.
    pub(super) fn covers(&self, earlier: &Self) -> bool {
        let has = |name| self.names.binary_search(name).is_ok();
        earlier.names.len() <= self.names.len() && earlier.names.iter().all(has)
    }

    /// Whether both name one validator at least.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (few, many) = if self.names.len() < other.names.len() { (self, other) } else { (other, self) };
        few.names.iter().any(|name| many.names.binary_search(name).is_ok())
    }

    /// For how many epochs from `present` on the body counts, where the body says that.
    pub(super) fn epochs(&self, present: u64) -> Option<u32> {
        Some(u32::try_from(self.until?.saturating_sub(present)).unwrap_or(u32::MAX))
    }

    /// Bytes in memory.
    pub(super) fn weight(&self) -> usize {
        self.names.len() * size_of::<u64>()
    }
}

fn hash(name: &str) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    name.bytes().for_each(|byte| hasher.write_u8(byte.to_ascii_lowercase()));
    hasher.finish()
}
