//! The copy of the key `leader`, kept by the watch.

use super::super::moment::Moment;
use crate::domain::fleet::{Lease, StoreRevision};

/// The newest entry that was seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub(super) revision: StoreRevision,
    /// The lease; none where the value cannot be read.
    pub(super) lease: Option<Lease>,
    /// When this replica first saw this revision.
    pub(super) since: Moment,
}

/// The copy of the key, with the moments of its news.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct LeaseCopy {
    pub(super) entry: Option<Seen>,
    /// Since when the key is known to be absent.
    pub(super) absent_since: Option<Moment>,
    /// The watch has listed all entries that there were when the watch began.
    pub(super) is_synced: bool,
    /// The entry was listed since the watch began.
    is_listed: bool,
}

impl LeaseCopy {
    /// Takes an entry, unless a newer one is known. Whether the entry is new.
    pub(super) fn saw(&mut self, revision: StoreRevision, lease: Option<Lease>, now: Moment) -> bool {
        self.is_listed = true;
        let is_new = self.entry.as_ref().is_none_or(|seen| seen.revision < revision);
        if is_new {
            self.entry = Some(Seen { revision, lease, since: now });
            self.absent_since = None;
        }
        is_new
    }

    /// The key was deleted at `revision`.
    pub(super) fn gone(&mut self, revision: StoreRevision, now: Moment) {
        if self.entry.as_ref().is_some_and(|seen| seen.revision < revision) {
            self.forget(now);
        }
    }

    /// The key is absent.
    pub(super) fn forget(&mut self, now: Moment) {
        self.entry = None;
        self.absent_since.get_or_insert(now);
    }

    /// The watch begins anew.
    pub(super) fn reset(&mut self) {
        (self.is_synced, self.is_listed) = (false, false);
    }

    /// The watch has listed all entries: any other entry is gone.
    pub(super) fn synced(&mut self, now: Moment) {
        self.is_synced = true;
        if !self.is_listed {
            self.forget(now);
        }
    }
}
