//! The block, state or blobs that a request to the beacon API asks for: data that one node has and
//! another may have pruned.

/// The kinds of data that nodes keep for different lengths of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Blocks and their headers.
    Blocks,
    /// States, and values that are computed from them.
    States,
    /// Blobs, and the columns that are made from blobs.
    Blobs,
}

impl Kept {
    /// The number of kinds.
    pub const COUNT: usize = 3;
}

/// The subject of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The kind of data.
    pub kept: Kept,
    /// The id in the path: a slot, a root, or a name.
    pub id: &'a str,
    /// The slot, where the id names one.
    pub slot: Option<u64>,
}

impl<'a> Subject<'a> {
    /// Of a path that begins with `/eth/v…/`, where an epoch has so many slots.
    pub fn of(path: &'a str, slots_per_epoch: u64) -> Option<Self> {
        let steps: Vec<&str> = path.trim_matches('/').split('/').skip(2).collect();
        let (kept, id, unit) = match steps[..] {
            ["beacon", "blob_sidecars" | "blobs", id] | ["debug", "beacon", "data_column_sidecars", id] => {
                (Kept::Blobs, id, 1)
            }
            ["beacon", "states", id, ..] | ["debug", "beacon", "states", id] => (Kept::States, id, 1),
            ["beacon", "rewards", "attestations", epoch] => (Kept::States, epoch, slots_per_epoch),
            ["beacon", "rewards", "blocks" | "sync_committee", id] => (Kept::States, id, 1),
            ["beacon", "blocks" | "blinded_blocks" | "headers", id, ..] => (Kept::Blocks, id, 1),
            _ => return None,
        };
        let slot =
            if id == "genesis" { Some(0) } else { id.parse().ok().map(|number: u64| number.saturating_mul(unit)) };
        Some(Self { kept, id, slot })
    }

    /// Whether the data is `old` slots old, when the chain is at `head`: all healthy nodes have had
    /// the data for that long.
    pub fn is_old(&self, head: u64, old: u64) -> bool {
        self.slot.is_some_and(|slot| slot.saturating_add(old) <= head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_is_read_from_the_path() {
        for (path, kept, slot) in [
            ("/eth/v1/beacon/blob_sidecars/100", Kept::Blobs, Some(100)),
            ("/eth/v1/beacon/blobs/head", Kept::Blobs, None),
            ("/eth/v1/debug/beacon/data_column_sidecars/7", Kept::Blobs, Some(7)),
            ("/eth/v1/beacon/states/genesis/root", Kept::States, Some(0)),
            ("/eth/v2/debug/beacon/states/100/", Kept::States, Some(100)),
            ("/eth/v1/beacon/rewards/attestations/3", Kept::States, Some(96)),
            ("/eth/v1/beacon/rewards/blocks/0xab", Kept::States, None),
            ("/eth/v1/beacon/headers/12", Kept::Blocks, Some(12)),
            ("/eth/v1/beacon/blocks/12/root", Kept::Blocks, Some(12)),
        ] {
            let subject = Subject::of(path, 32).unwrap();
            assert_eq!((subject.kept, subject.slot), (kept, slot), "{path}");
        }
        for path in ["/eth/v1/beacon/genesis", "/eth/v1/beacon/headers", "/eth/v1/node/version", "/eth/v1/"] {
            assert_eq!(Subject::of(path, 32), None, "{path}");
        }
        let subject = Subject::of("/eth/v1/beacon/headers/12", 32).unwrap();
        assert!(subject.is_old(76, 64) && !subject.is_old(75, 64));
    }
}
