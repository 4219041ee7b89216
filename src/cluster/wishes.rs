//! The operator's wishes for all replicas, as a replica knows them. No I/O and no clock.
//!
//! Rule: the bucket's entries are the wishes. A replica that the store tells nothing keeps the last
//! ones. A listing takes their place when it is whole, and not before: a node that is to be out
//! must not come back because the store is half read. An entry that cannot be read, or that has a
//! state of a newer version, changes nothing of the state that the replica keeps to. Example: a
//! replica is cut off, and the operator ends the wish for `geth-2` meanwhile. The node stays out at
//! that replica until its next listing, which does not name the wish.

mod progress;

use std::{collections::BTreeMap, sync::Arc};

pub use self::progress::{Progress, Reached, progress};
use crate::domain::fleet::{StoreRevision, Wish, WishKey, WishWord};

/// Wishes that replicas keep to at most: each heartbeat tells of all.
pub(super) const MAX_WISHES: usize = 64;
/// Wishes that are kept at most, those that are ignored included. All that a listing names beyond
/// these are counted.
const MAX_KEPT: usize = 1024;

/// A wish, as the bucket has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The number of the write.
    pub revision: StoreRevision,
    /// The moment of the write by the store's clock, in nanoseconds since 1970.
    pub created: u64,
    /// The wish, or why the entry cannot be read.
    pub wish: Result<Wish, String>,
    /// The state that replicas keep to: that of the newest entry which this version understands.
    pub state: Option<WishWord>,
}

/// All wishes at one moment.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    all: Arc<BTreeMap<WishKey, Standing>>,
    /// Entries that are not even kept, since there are too many.
    pub left_out: usize,
    /// The bucket was read, or the store was not reached at the first attempt: whoever waits for
    /// the wishes need not wait longer.
    pub is_settled: bool,
}

impl Wishes {
    /// The wish for this subject.
    pub fn get(&self, key: &WishKey) -> Option<&Standing> {
        self.all.get(key)
    }

    /// All wishes that are kept, in the order of their subjects.
    pub fn iter(&self) -> impl Iterator<Item = (&WishKey, &Standing)> {
        self.all.iter()
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The wishes that replicas keep to: the oldest, so that no later one takes a wish out that is
    /// applied.
    pub fn obeyed(&self) -> BTreeMap<&WishKey, &Standing> {
        if self.all.len() <= MAX_WISHES {
            return self.all.iter().collect();
        }
        let mut by_age: Vec<_> = self.all.iter().collect();
        by_age.sort_unstable_by_key(|(_, standing)| standing.revision);
        by_age.truncate(MAX_WISHES);
        by_age.into_iter().collect()
    }

    /// How many wishes no replica keeps to, since there are too many.
    pub fn ignored(&self) -> usize {
        self.all.len().saturating_sub(MAX_WISHES) + self.left_out
    }
}

/// The wishes that a listing has named so far.
#[derive(Debug, Default)]
struct Listed {
    all: BTreeMap<WishKey, Standing>,
    left_out: usize,
    /// The bucket is another one, or was set back: nothing of the wishes before counts in it.
    is_anew: bool,
}

/// The wishes, kept up to date by the news of the watch.
#[derive(Debug)]
pub(super) struct Table {
    known: Wishes,
    /// The listing under way.
    listed: Option<Listed>,
    is_changed: bool,
}

impl Table {
    /// The table before the first listing.
    pub(super) fn new() -> Self {
        Self { known: Wishes::default(), listed: Some(Listed::default()), is_changed: false }
    }

    /// The wishes that count.
    pub(super) fn known(&self) -> &Wishes {
        &self.known
    }

    /// The wishes, if these are others than at the last call.
    pub(super) fn news(&mut self) -> Option<Wishes> {
        std::mem::take(&mut self.is_changed).then(|| self.known.clone())
    }

    /// A listing begins.
    pub(super) fn reset(&mut self) {
        let is_anew = self.listed.as_ref().is_some_and(|listed| listed.is_anew);
        self.listed = Some(Listed { is_anew, ..Listed::default() });
    }

    /// The bucket is another, or was set back: a listing begins, and nothing before counts in it.
    pub(super) fn recreated(&mut self) {
        self.listed = Some(Listed { is_anew: true, ..Listed::default() });
    }

    /// An entry is there.
    pub(super) fn entry(&mut self, key: WishKey, revision: StoreRevision, created: u64, wish: Result<Wish, String>) {
        let kept = |all: &BTreeMap<WishKey, Standing>| all.get(&key).and_then(|known| known.state.clone());
        let (before, is_news, is_room) = match &self.listed {
            Some(Listed { all, is_anew, .. }) => {
                // A listing that begins with the same bucket goes on from the state of before.
                let before = kept(all).or_else(|| kept(&self.known.all).filter(|_| !is_anew));
                (before, is_newer(all, &key, revision), is_room(all, &key))
            }
            None => {
                let all = &self.known.all;
                (kept(all), is_newer(all, &key, revision), is_room(all, &key))
            }
        };
        if !is_news {
            return;
        }
        let understood = wish.as_ref().ok().map(|wish| &wish.state).filter(|state| key.allows(state));
        let standing = Standing { revision, created, state: understood.cloned().or(before), wish };
        match (&mut self.listed, is_room) {
            (Some(listed), true) => _ = listed.all.insert(key, standing),
            (Some(listed), false) => listed.left_out += 1,
            (None, true) => {
                Arc::make_mut(&mut self.known.all).insert(key, standing);
                self.is_changed = true;
            }
            (None, false) => {
                self.known.left_out += 1;
                self.is_changed = true;
            }
        }
    }

    /// An entry is gone since this revision.
    pub(super) fn deleted(&mut self, key: &WishKey, revision: StoreRevision) {
        let is_older = |standing: &Standing| standing.revision < revision;
        if let Some(listed) = &mut self.listed {
            if listed.all.get(key).is_some_and(is_older) {
                listed.all.remove(key);
            }
        } else if self.known.all.get(key).is_some_and(is_older) {
            Arc::make_mut(&mut self.known.all).remove(key);
            self.is_changed = true;
        }
    }

    /// All entries that are there were told. Returns the wishes that the bucket took along: those
    /// that counted, and are not in a bucket which is another one or was set back.
    pub(super) fn synced(&mut self) -> Vec<(WishKey, Standing)> {
        let Some(Listed { all, left_out, is_anew }) = self.listed.take() else { return Vec::new() };
        let before = std::mem::replace(&mut self.known.all, Arc::new(all));
        (self.known.left_out, self.known.is_settled, self.is_changed) = (left_out, true, true);
        let is_lost = |(key, _): &(&WishKey, &Standing)| is_anew && !self.known.all.contains_key(*key);
        before.iter().filter(is_lost).map(|(key, standing)| (key.clone(), standing.clone())).collect()
    }
}

fn is_newer(all: &BTreeMap<WishKey, Standing>, key: &WishKey, revision: StoreRevision) -> bool {
    all.get(key).is_none_or(|known| known.revision < revision)
}

fn is_room(all: &BTreeMap<WishKey, Standing>, key: &WishKey) -> bool {
    all.len() < MAX_KEPT || all.contains_key(key)
}

#[cfg(test)]
mod tests;
