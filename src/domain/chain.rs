//! Which chain a node serves.

use std::{fmt, sync::Arc};

use serde::Deserialize;

use super::hex;

/// The chain that a node says it serves. Nodes are of one chain when all of it is equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain {
    /// The chain id of the execution side.
    pub id: u64,
    /// What a consensus node tells of its chain; `None` for an execution node.
    pub beacon: Option<Arc<Beacon>>,
}

/// Where a beacon chain began, and how its time runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Beacon {
    /// The root of the validators at genesis, in lower case: no two chains have the same.
    pub genesis_validators_root: String,
    /// When slot 0 began, in seconds since the Unix epoch.
    pub genesis_time: u64,
    /// A slot's length in milliseconds, at least 1.
    pub slot_millis: u64,
    /// An epoch's length in slots, at least 1.
    pub slots_per_epoch: u64,
}

impl Chain {
    /// Reads the answers to `/eth/v1/beacon/genesis` and `/eth/v1/config/spec`.
    ///
    /// # Errors
    /// Names what is missing or malformed.
    pub fn read_beacon(genesis: &[u8], spec: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Data<T> {
            data: T,
        }
        #[derive(Deserialize)]
        struct Genesis {
            genesis_time: String,
            genesis_validators_root: String,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        struct Spec {
            slot_duration_ms: Option<String>,
            seconds_per_slot: Option<String>,
            slots_per_epoch: String,
            deposit_chain_id: String,
        }
        let Data { data: genesis } = serde_json::from_slice::<Data<Genesis>>(genesis)
            .map_err(|error| format!("the answer tells no genesis: {error}"))?;
        let Data { data: spec } =
            serde_json::from_slice::<Data<Spec>>(spec).map_err(|error| format!("the answer is no spec: {error}"))?;
        let number = |name: &str, text: &str| text.parse::<u64>().map_err(|_| format!("{name} is no number"));
        let positive = |name: &str, text: &str| match number(name, text)? {
            0 => Err(format!("{name} is zero")),
            number => Ok(number),
        };
        // The one replaces the other over time; while both are told, they agree.
        let slot_millis = match (&spec.slot_duration_ms, &spec.seconds_per_slot) {
            (Some(millis), _) => positive("SLOT_DURATION_MS", millis)?,
            (None, Some(seconds)) => positive("SECONDS_PER_SLOT", seconds)?.saturating_mul(1000),
            (None, None) => return Err("the spec tells neither SLOT_DURATION_MS nor SECONDS_PER_SLOT".to_owned()),
        };
        let root = genesis.genesis_validators_root.to_ascii_lowercase();
        if hex::bytes(&root).is_none_or(|bytes| bytes.len() != 32) {
            return Err("genesis_validators_root is no root".to_owned());
        }
        Ok(Self {
            id: number("DEPOSIT_CHAIN_ID", &spec.deposit_chain_id)?,
            beacon: Some(Arc::new(Beacon {
                genesis_validators_root: root,
                genesis_time: number("genesis_time", &genesis.genesis_time)?,
                slot_millis,
                slots_per_epoch: positive("SLOTS_PER_EPOCH", &spec.slots_per_epoch)?,
            })),
        })
    }
}

/// An execution node's chain.
impl From<u64> for Chain {
    fn from(id: u64) -> Self {
        Self { id, beacon: None }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        match &self.beacon {
            Some(beacon) => write!(f, ", genesis {:.10}", beacon.genesis_validators_root),
            None => Ok(()),
        }
    }
}

impl Beacon {
    /// When `slot` begins, in seconds since the Unix epoch.
    pub fn start_of(&self, slot: u64) -> u64 {
        self.genesis_time.saturating_add(slot.saturating_mul(self.slot_millis) / 1000)
    }

    /// The slot at `unix` seconds since the Unix epoch; `None` before genesis.
    pub fn slot_at(&self, unix: u64) -> Option<u64> {
        Some(unix.checked_sub(self.genesis_time)?.saturating_mul(1000) / self.slot_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "0x4B363DB94E286120D76EB905340FDD4E54BFE9F06BF33FF6CF5AD27F511BFE95";

    fn genesis(time: &str, root: &str) -> String {
        format!(
            r#"{{"data":{{"genesis_time":"{time}","genesis_validators_root":"{root}","genesis_fork_version":"0x00"}}}}"#
        )
    }

    fn spec(more: &str) -> String {
        format!(r#"{{"data":{{"CONFIG_NAME":"mainnet","SLOTS_PER_EPOCH":"32","BLOB_SCHEDULE":[]{more}}}}}"#)
    }

    fn read(genesis: &str, spec: &str) -> Result<Chain, String> {
        Chain::read_beacon(genesis.as_bytes(), spec.as_bytes())
    }

    #[test]
    fn a_beacon_chain_is_read_or_the_wrong_field_is_named() {
        let genesis_of = |root| genesis("1606824023", root);
        let whole = r#","SECONDS_PER_SLOT":"12","DEPOSIT_CHAIN_ID":"1""#;
        let chain = read(&genesis_of(ROOT), &spec(whole)).unwrap();
        assert_eq!(chain.to_string(), "1, genesis 0x4b363db9");
        let beacon = chain.beacon.unwrap();
        assert_eq!((beacon.slot_millis, beacon.slots_per_epoch), (12_000, 32));
        assert_eq!(beacon.start_of(10), 1_606_824_143);
        assert_eq!(beacon.slot_at(1_606_824_154), Some(10));
        assert_eq!(beacon.slot_at(1_606_824_155), Some(11));
        assert_eq!(beacon.slot_at(1_606_824_022), None);
        assert_eq!(beacon.start_of(u64::MAX), beacon.start_of(u64::MAX), "no overflow");

        let newer = read(&genesis_of(ROOT), &spec(r#","SLOT_DURATION_MS":"6000","DEPOSIT_CHAIN_ID":"1""#)).unwrap();
        assert_eq!(newer.beacon.unwrap().slot_millis, 6_000);
        for (genesis, spec, named) in [
            (genesis("x", ROOT), spec(whole), "genesis_time"),
            (genesis("1", "0x12"), spec(whole), "genesis_validators_root"),
            ("{}".to_owned(), spec(whole), "genesis"),
            (genesis("1", ROOT), "[]".to_owned(), "spec"),
            (genesis("1", ROOT), spec(r#","SECONDS_PER_SLOT":"12""#), "DEPOSIT_CHAIN_ID"),
            (genesis("1", ROOT), spec(r#","DEPOSIT_CHAIN_ID":"1""#), "SECONDS_PER_SLOT"),
            (genesis("1", ROOT), spec(r#","SECONDS_PER_SLOT":"0","DEPOSIT_CHAIN_ID":"1""#), "SECONDS_PER_SLOT is zero"),
        ] {
            let said = read(&genesis, &spec).unwrap_err();
            assert!(said.contains(named), "{said}");
        }
    }

    #[test]
    fn chains_differ_by_genesis_though_their_id_is_one() {
        let whole = spec(r#","SECONDS_PER_SLOT":"12","DEPOSIT_CHAIN_ID":"1""#);
        let ours = read(&genesis("5", ROOT), &whole).unwrap();
        assert_eq!(read(&genesis("5", &ROOT.to_ascii_lowercase()), &whole).unwrap(), ours);
        assert_ne!(read(&genesis("5", &ROOT.replace('B', "C")), &whole).unwrap(), ours);
    }
}
