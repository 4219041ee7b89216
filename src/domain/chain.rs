//! Which chain a node serves.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer};

use super::hex;

/// Slots in an epoch where no node tells: as on nearly all chains.
pub const USUAL_EPOCH: u64 = 32;
const USUAL_SLOT: Duration = Duration::from_secs(12);
/// The most that a chain may have, in milliseconds and in slots: more is a node's mistake, and
/// taken as if not told.
const LONGEST_SLOT: u64 = 3_600_000;
const LONGEST_EPOCH: u64 = 65_536;

/// The chain that a node says it serves. Nodes do not all report the same fields: a field that one
/// node leaves out is no difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The chain id of the execution side; a consensus node need not report one.
    pub id: Option<u64>,
    /// The chain as a consensus node reports it; `None` for an execution node.
    pub beacon: Option<Arc<Beacon>>,
}

/// Where a beacon chain began, and how its time runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// The root of the validators at genesis, in lower case: no two chains have the same.
    pub genesis_validators_root: String,
    /// When slot 0 began, in seconds since the Unix epoch.
    pub genesis_time: u64,
    /// A slot's length in milliseconds, at least 1, where the node reports the length.
    pub slot_millis: Option<u64>,
    /// An epoch's length in slots, at least 1, where the node reports the length.
    pub slots_per_epoch: Option<u64>,
}

impl Chain {
    /// The chain that the nodes of one side must serve. `told` are the chains that the nodes
    /// report, in the order of the configuration. Rule: a chain with the id that the operator
    /// `named` goes first, then the chain that most nodes serve; among equals the chain `before`,
    /// then the first in order. Reason: a single node on a wrong chain must not decide. Fields that
    /// the chosen chain lacks are taken from other nodes on the same chain. Example: of three nodes
    /// that report the ids 1, 5 and 1, with nothing named, the chain is 1.
    pub fn prevailing<'a, T>(told: T, before: Option<&Self>, named: Option<u64>) -> Option<Self>
    where
        T: Iterator<Item = &'a Self> + Clone,
    {
        let told = told.filter(|chain| chain.may_be(named));
        let weight = |chain: &Self| {
            let is_named = named.is_some() && chain.id == named;
            (is_named, told.clone().filter(|other| other.agrees_with(chain)).count())
        };
        let most = told.clone().map(weight).max()?;
        let chosen = before.filter(|before| weight(before) == most);
        let chosen = chosen.or_else(|| told.clone().find(|chain| weight(chain) == most))?;
        Some(told.fold(chosen.clone(), Self::completed_by))
    }

    /// Whether this may be the chain of that id: the node reports no other id.
    pub fn may_be(&self, id: Option<u64>) -> bool {
        agree(self.id, id)
    }

    /// Whether this is the same chain as `other`, as far as both report fields.
    pub fn agrees_with(&self, other: &Self) -> bool {
        let is_of_one_genesis = match (&self.beacon, &other.beacon) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => {
                ours.genesis_validators_root == theirs.genesis_validators_root
                    && ours.genesis_time == theirs.genesis_time
                    && agree(ours.slot_millis, theirs.slot_millis)
                    && agree(ours.slots_per_epoch, theirs.slots_per_epoch)
            }
            // A node before genesis knows nothing of the genesis yet.
            _ => true,
        };
        is_of_one_genesis && agree(self.id, other.id)
    }

    /// Takes unknown fields from `other`, if that is the same chain.
    fn completed_by(mut self, other: &Self) -> Self {
        if !self.agrees_with(other) {
            return self;
        }
        self.id = self.id.or(other.id);
        self.beacon = self.beacon.or_else(|| other.beacon.clone());
        if let (Some(ours), Some(theirs)) = (&mut self.beacon, &other.beacon)
            && (ours.slot_millis.or(theirs.slot_millis) != ours.slot_millis
                || ours.slots_per_epoch.or(theirs.slots_per_epoch) != ours.slots_per_epoch)
        {
            let ours = Arc::make_mut(ours);
            ours.slot_millis = ours.slot_millis.or(theirs.slot_millis);
            ours.slots_per_epoch = ours.slots_per_epoch.or(theirs.slots_per_epoch);
        }
        self
    }

    /// A slot of this consensus chain, or the usual slot while no node reports the length.
    pub fn slot(chain: Option<&Self>) -> Duration {
        chain.and_then(Self::block_time).unwrap_or(USUAL_SLOT)
    }

    /// An epoch of this consensus chain, or the usual one likewise.
    pub fn epoch(chain: Option<&Self>) -> Duration {
        let slots = chain.and_then(|chain| chain.beacon.as_ref()).map_or(USUAL_EPOCH, |beacon| beacon.epoch());
        Self::slot(chain).saturating_mul(u32::try_from(slots).unwrap_or(u32::MAX))
    }

    /// The time from block to block by the chain's own rules, where these are known.
    pub fn block_time(&self) -> Option<Duration> {
        if let Some(beacon) = &self.beacon {
            return beacon.slot_millis.map(Duration::from_millis);
        }
        let millis = match self.id? {
            // Ethereum and its public test networks.
            1 | 17_000 | 560_048 | 11_155_111 => 12_000,
            // Gnosis and Chiado.
            100 | 10_200 => 5_000,
            // The OP stack's usual time (OP, Base, Unichain), Polygon.
            10 | 130 | 137 | 8_453 => 2_000,
            // Arbitrum One and Nova.
            42_161 | 42_170 => 250,
            _ => return None,
        };
        Some(Duration::from_millis(millis))
    }

    /// Reads the answer to `/eth/v1/config/spec`, if the node offers that, of a chain whose genesis
    /// is not known yet.
    pub fn before_genesis(spec: Option<&[u8]>) -> Self {
        #[derive(Deserialize)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        struct Spec {
            #[serde(default)]
            deposit_chain_id: Number,
        }
        #[derive(Deserialize)]
        struct Answer {
            data: Spec,
        }
        let spec = spec.and_then(|spec| serde_json::from_slice::<Answer>(spec).ok());
        Self { id: spec.and_then(|spec| spec.data.deposit_chain_id.0).filter(|id| *id > 0), beacon: None }
    }

    /// Reads the answers to `/eth/v1/beacon/genesis` and `/eth/v1/config/spec`, if the node offers
    /// that. The genesis must be there; of the spec nothing needs to be, and a value that makes no
    /// sense counts as not told.
    ///
    /// # Errors
    /// Names the missing or malformed field.
    pub fn read_beacon(genesis: &[u8], spec: Option<&[u8]>) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Data<T> {
            data: T,
        }
        #[derive(Deserialize)]
        struct Genesis {
            genesis_time: Number,
            genesis_validators_root: String,
        }
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
        struct Spec {
            slot_duration_ms: Number,
            seconds_per_slot: Number,
            slots_per_epoch: Number,
            deposit_chain_id: Number,
        }
        let Data { data: genesis } = serde_json::from_slice::<Data<Genesis>>(genesis)
            .map_err(|error| format!("the answer tells no genesis: {error}"))?;
        let spec = match spec {
            Some(spec) => {
                serde_json::from_slice::<Data<Spec>>(spec)
                    .map_err(|error| format!("the answer is no spec: {error}"))?
                    .data
            }
            None => Spec::default(),
        };
        let root = genesis.genesis_validators_root.to_ascii_lowercase();
        if hex::fixed::<32>(&root).is_none() {
            return Err("genesis_validators_root is no root".to_owned());
        }
        let positive = |number: Number| number.0.filter(|number| *number > 0);
        // `SLOT_DURATION_MS` replaces `SECONDS_PER_SLOT` over time; while nodes report both, these
        // agree.
        let seconds = || positive(spec.seconds_per_slot).map(|seconds| seconds.saturating_mul(1000));
        let sane = |number: Option<u64>, most: u64| number.filter(|number| *number <= most);
        Ok(Self {
            id: positive(spec.deposit_chain_id),
            beacon: Some(Arc::new(Beacon {
                genesis_validators_root: root,
                genesis_time: genesis.genesis_time.0.ok_or("genesis_time is no number")?,
                slot_millis: sane(positive(spec.slot_duration_ms).or_else(seconds), LONGEST_SLOT),
                slots_per_epoch: sane(positive(spec.slots_per_epoch), LONGEST_EPOCH),
            })),
        })
    }
}

/// Whether two say the same, or one says nothing.
fn agree(ours: Option<u64>, theirs: Option<u64>) -> bool {
    ours.is_none() || theirs.is_none() || ours == theirs
}

/// A number as nodes write numbers: in decimal, in quotes or without; `None` for any other value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Number(pub Option<u64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(match serde_json::Value::deserialize(from)? {
            serde_json::Value::String(text) => text.parse().ok(),
            serde_json::Value::Number(number) => number.as_u64(),
            _ => None,
        }))
    }
}

/// An execution node's chain.
impl From<u64> for Chain {
    fn from(id: u64) -> Self {
        Self { id: Some(id), beacon: None }
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "{id}")?,
            None => f.write_str("unnamed")?,
        }
        match &self.beacon {
            Some(beacon) => write!(f, ", genesis {:.10}", beacon.genesis_validators_root),
            None => Ok(()),
        }
    }
}

impl Beacon {
    /// When `slot` begins, in seconds since the Unix epoch; `None` while the length of slots is not
    /// known.
    pub fn start_of(&self, slot: u64) -> Option<u64> {
        Some(self.genesis_time.saturating_add(slot.saturating_mul(self.slot_millis?) / 1000))
    }

    /// The slot at `unix` seconds since the Unix epoch; `None` before genesis, and while the length
    /// of slots is not known.
    pub fn slot_at(&self, unix: u64) -> Option<u64> {
        Some(unix.checked_sub(self.genesis_time)?.saturating_mul(1000) / self.slot_millis?)
    }

    /// An epoch's length in slots, or the usual length while no node reports one.
    pub fn epoch(&self) -> u64 {
        self.slots_per_epoch.unwrap_or(USUAL_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "0x4B363DB94E286120D76EB905340FDD4E54BFE9F06BF33FF6CF5AD27F511BFE95";
    const WHOLE: &str = r#""SECONDS_PER_SLOT":"12","SLOTS_PER_EPOCH":"32","DEPOSIT_CHAIN_ID":"1""#;

    fn genesis(time: &str, root: &str) -> String {
        format!(
            r#"{{"data":{{"genesis_time":{time},"genesis_validators_root":"{root}","genesis_fork_version":"0x00"}}}}"#
        )
    }

    fn spec(fields: &str) -> String {
        format!(
            r#"{{"data":{{"CONFIG_NAME":"mainnet","BLOB_SCHEDULE":[],"X":{{}}{}{fields}}}}}"#,
            if fields.is_empty() { "" } else { "," }
        )
    }

    fn read(genesis: &str, spec: &str) -> Result<Chain, String> {
        Chain::read_beacon(genesis.as_bytes(), Some(spec.as_bytes()))
    }

    /// A chain that began at this time, of whose spec this is told.
    fn chain(time: &str, fields: &str) -> Chain {
        read(&genesis(time, ROOT), &spec(fields)).unwrap()
    }

    #[test]
    fn a_beacon_chain_is_read_or_the_wrong_field_is_named() {
        let chain = chain("\"1606824023\"", WHOLE);
        assert_eq!(chain.to_string(), "1, genesis 0x4b363db9");
        let beacon = chain.beacon.unwrap();
        assert_eq!((beacon.slot_millis, beacon.slots_per_epoch, beacon.epoch()), (Some(12_000), Some(32), 32));
        assert_eq!(beacon.start_of(10), Some(1_606_824_143));
        assert_eq!(beacon.slot_at(1_606_824_154), Some(10));
        assert_eq!(beacon.slot_at(1_606_824_155), Some(11));
        assert_eq!(beacon.slot_at(1_606_824_022), None);
        assert!(beacon.start_of(u64::MAX).is_some(), "no overflow");
        for (genesis, spec, named) in [
            (genesis("\"x\"", ROOT), spec(WHOLE), "genesis_time"),
            (genesis("1", "0x12"), spec(WHOLE), "genesis_validators_root"),
            ("{}".to_owned(), spec(WHOLE), "genesis"),
            (genesis("1", ROOT), "[]".to_owned(), "spec"),
            (genesis("1", ROOT), "<html>".to_owned(), "spec"),
        ] {
            let said = read(&genesis, &spec).unwrap_err();
            assert!(said.contains(named), "{said}");
        }
    }

    #[test]
    fn a_spec_that_leaves_facts_out_spoils_nothing() {
        let told = |fields: &str| {
            let Chain { id, beacon } = chain("5", fields);
            let beacon = beacon.unwrap();
            (id, beacon.slot_millis, beacon.slots_per_epoch)
        };
        for (fields, expected) in [
            (WHOLE, (Some(1), Some(12_000), Some(32))),
            (
                r#""SECONDS_PER_SLOT":12,"SLOTS_PER_EPOCH":16,"DEPOSIT_CHAIN_ID":100"#,
                (Some(100), Some(12_000), Some(16)),
            ),
            (r#""SLOT_DURATION_MS":"6000","SECONDS_PER_SLOT":"6""#, (None, Some(6_000), None)),
            (r#""SLOT_DURATION_MS":null,"SECONDS_PER_SLOT":"6""#, (None, Some(6_000), None)),
            (r#""SECONDS_PER_SLOT":"0","DEPOSIT_CHAIN_ID":"0x1","SLOTS_PER_EPOCH":-1"#, (None, None, None)),
            (r#""SLOT_DURATION_MS":"18446744073709551615","SLOTS_PER_EPOCH":4294967295"#, (None, None, None)),
            ("", (None, None, None)),
        ] {
            assert_eq!(told(fields), expected, "{fields}");
        }
        let bare = Chain::read_beacon(genesis("5", ROOT).as_bytes(), None).unwrap();
        assert_eq!(bare.to_string(), "unnamed, genesis 0x4b363db9");
        let beacon = bare.beacon.unwrap();
        assert_eq!((beacon.start_of(5), beacon.slot_at(50), beacon.epoch()), (None, None, 32));
    }

    #[test]
    fn chains_of_one_id_differ_by_genesis_and_not_by_omissions() {
        let ours = chain("5", WHOLE);
        let other = |root: &str| read(&genesis("5", root), &spec(WHOLE)).unwrap();
        assert!(ours.agrees_with(&other(&ROOT.to_ascii_lowercase())));
        for (other, same) in [
            (chain("5", ""), true),
            (chain("5", r#""DEPOSIT_CHAIN_ID":"1""#), true),
            (chain("5", r#""DEPOSIT_CHAIN_ID":"2""#), false),
            (chain("5", r#""SECONDS_PER_SLOT":"6""#), false),
            (chain("6", WHOLE), false),
            (other(&ROOT.replace('B', "C")), false),
            // Before genesis a node has no more to say than this.
            (Chain::before_genesis(Some(br#"{"data":{"DEPOSIT_CHAIN_ID":1}}"#)), true),
            (Chain::before_genesis(Some(br#"{"data":{"DEPOSIT_CHAIN_ID":"2"}}"#)), false),
            (Chain::before_genesis(None), true),
        ] {
            assert_eq!((ours.agrees_with(&other), other.agrees_with(&ours)), (same, same), "{other:?}");
        }
        assert!(Chain::from(1).agrees_with(&1.into()) && !Chain::from(1).agrees_with(&2.into()));
    }

    #[test]
    fn other_nodes_complete_a_chain_known_before_genesis() {
        let (early, ours) = (Chain::before_genesis(None), chain("5", WHOLE));
        assert_eq!(Chain::prevailing([&early, &ours].into_iter(), None, None), Some(ours.clone()));
        assert_eq!(Chain::prevailing([&early, &ours].into_iter(), Some(&early), None), Some(ours));
    }

    #[test]
    fn the_chain_is_the_named_one_or_else_that_of_most_nodes() {
        let (bare, slots, named) = (chain("5", ""), chain("5", r#""SECONDS_PER_SLOT":"12""#), chain("5", WHOLE));
        let other = chain("6", r#""DEPOSIT_CHAIN_ID":"2""#);
        let prevailing =
            |told: &[&Chain], before: Option<&Chain>, id| Chain::prevailing(told.iter().copied(), before, id);
        assert_eq!(prevailing(&[], Some(&named), None), None);
        assert_eq!(prevailing(&[&bare], None, Some(7)), Some(bare.clone()), "it does not say another");
        assert_eq!(prevailing(&[&bare, &slots, &named], None, Some(1)), Some(named.clone()));
        // A node that leaves out the id votes for the chain all the same.
        assert_eq!(prevailing(&[&other, &bare, &named], None, None), Some(named.clone()));
        assert_eq!(prevailing(&[&other, &named], None, None), Some(other.clone()));
        assert_eq!(prevailing(&[&other, &bare], Some(&named), None), Some(named.clone()), "the one before");
        // A node that reports the operator's id is right, also where others leave the id out.
        assert_eq!(prevailing(&[&bare, &bare, &other], None, Some(2)), Some(other.clone()));
        assert_eq!(prevailing(&[&named, &other], None, Some(2)), Some(other));
    }
}
