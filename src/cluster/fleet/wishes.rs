//! Wishes of the operator: applied here, and reported by every replica.

use std::collections::BTreeMap;

use crate::domain::fleet::{Applied, Key, ReplicaName, StoreRevision, Wish, WishKey, WishKind};

/// An event that concerns wishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WishInput {
    /// The store has this wish.
    Wished {
        /// The subject.
        key: WishKey,
        /// The entry's revision.
        revision: StoreRevision,
        /// The wish; none where the value cannot be read.
        wish: Option<Wish>,
    },
    /// The wish was deleted.
    Deleted {
        /// The subject.
        key: WishKey,
    },
    /// The watch begins anew.
    Reset,
    /// All entries of the store have come.
    Synced,
    /// The bucket is another: the wishes stay, and are not in the store.
    Recreated,
    /// This replica has tried to apply a wish.
    Tried {
        /// The subject.
        key: WishKey,
        /// The revision that was tried.
        revision: StoreRevision,
        /// The error, redacted.
        result: Result<(), String>,
    },
    /// A heartbeat of a replica reports these revisions as applied.
    Reported {
        /// The replica.
        replica: ReplicaName,
        /// The report.
        applied: BTreeMap<String, Applied>,
    },
    /// A replica has left the view.
    Gone {
        /// The replica.
        replica: ReplicaName,
    },
}

/// An action outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WishEffect {
    /// Apply a wish on top of the local file, which is the floor: a wish narrows and never widens.
    /// [`WishInput::Tried`] comes back.
    Apply {
        /// The subject.
        key: WishKey,
        /// The revision.
        revision: StoreRevision,
        /// The wish.
        wish: Wish,
    },
    /// A wish is gone: the local file alone counts.
    Lift {
        /// The subject.
        key: WishKey,
    },
}

/// The state of a replica with a wish, for status and alerts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The replica.
    pub replica: ReplicaName,
    /// The subject.
    pub key: WishKey,
    /// The revision that is wished.
    pub wished: StoreRevision,
    /// The revision that the replica has tried last.
    pub applied: Option<StoreRevision>,
    /// The error of that try.
    pub last_error: Option<String>,
}

impl Report {
    /// Whether the replica does what is wished.
    pub fn is_met(&self) -> bool {
        self.applied >= Some(self.wished) && self.last_error.is_none()
    }
}

#[derive(Clone, Debug)]
struct Wished {
    revision: StoreRevision,
    wish: Wish,
    is_listed: bool,
    is_stored: bool,
}

/// All wishes, and how far each replica is.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    wished: BTreeMap<WishKey, Wished>,
    own: BTreeMap<WishKey, Applied>,
    reports: BTreeMap<ReplicaName, BTreeMap<String, Applied>>,
    unreadable: u64,
}

impl Wishes {
    /// Takes an input.
    #[must_use]
    pub fn input(&mut self, input: WishInput) -> Vec<WishEffect> {
        match input {
            WishInput::Wished { key, revision, wish } => return self.wished(key, revision, wish),
            WishInput::Deleted { key } => return self.lift(&key).into_iter().collect(),
            WishInput::Reset => self.wished.values_mut().for_each(|wished| wished.is_listed = false),
            WishInput::Synced => {
                // A wish that was in this bucket and is not any more was taken back meanwhile. One
                // that was never in this bucket stays, until an operator says otherwise.
                let is_gone = |(_, wished): &(&WishKey, &Wished)| wished.is_stored && !wished.is_listed;
                let gone: Vec<_> = self.wished.iter().filter(is_gone).map(|(key, _)| key.clone()).collect();
                return gone.iter().filter_map(|key| self.lift(key)).collect();
            }
            WishInput::Recreated => {
                for wished in self.wished.values_mut() {
                    (wished.is_listed, wished.is_stored, wished.revision) = (false, false, StoreRevision(0));
                }
                self.own.values_mut().for_each(|applied| applied.revision = StoreRevision(0));
                self.reports.clear();
            }
            WishInput::Tried { key, revision, result } => {
                self.own.insert(key, Applied { revision, last_error: result.err() });
            }
            WishInput::Reported { replica, applied } => _ = self.reports.insert(replica, applied),
            WishInput::Gone { replica } => _ = self.reports.remove(&replica),
        }
        Vec::new()
    }

    fn wished(&mut self, key: WishKey, revision: StoreRevision, wish: Option<Wish>) -> Vec<WishEffect> {
        let known = self.wished.get_mut(&key);
        if let Some(known) = known {
            known.is_listed = true;
            if known.is_stored && known.revision >= revision {
                return Vec::new();
            }
        }
        let Some(wish) = wish else {
            // The last wish that could be read stays.
            self.unreadable += 1;
            return Vec::new();
        };
        let fresh = Wished { revision, wish: wish.clone(), is_listed: true, is_stored: true };
        self.wished.insert(key.clone(), fresh);
        if matches!(wish.kind, WishKind::Other(_)) {
            let last_error = Some(format!("this version does not know the wish `{}`", wish.kind));
            self.own.insert(key, Applied { revision, last_error });
            return Vec::new();
        }
        vec![WishEffect::Apply { key, revision, wish }]
    }

    fn lift(&mut self, key: &WishKey) -> Option<WishEffect> {
        self.wished.remove(key)?;
        self.own.remove(key);
        Some(WishEffect::Lift { key: key.clone() })
    }

    /// The wishes that count here, with their revisions.
    pub fn current(&self) -> impl Iterator<Item = (&WishKey, StoreRevision, &Wish)> {
        self.wished.iter().map(|(key, wished)| (key, wished.revision, &wished.wish))
    }

    /// Wishes that count here and are not in the store, since the bucket is another: the leader
    /// writes them again with `create`.
    pub fn unstored(&self) -> impl Iterator<Item = (&WishKey, &Wish)> {
        self.wished.iter().filter(|(_, wished)| !wished.is_stored).map(|(key, wished)| (key, &wished.wish))
    }

    /// This replica's report, for the heartbeat.
    pub fn own_report(&self) -> BTreeMap<String, Applied> {
        self.own.iter().map(|(key, applied)| (Key::Wish(key.clone()).to_string(), applied.clone())).collect()
    }

    /// Every replica's state with every wish.
    pub fn reports(&self) -> Vec<Report> {
        let mut all = Vec::new();
        for (replica, applied) in &self.reports {
            for (key, wished) in &self.wished {
                let report = applied.get(&key.to_string());
                all.push(Report {
                    replica: replica.clone(),
                    key: key.clone(),
                    wished: wished.revision,
                    applied: report.map(|report| report.revision),
                    last_error: report.and_then(|report| report.last_error.clone()),
                });
            }
        }
        all
    }

    /// How many wishes could not be read.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }
}
