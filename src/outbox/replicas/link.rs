//! The write that a client's hash rests on.

use std::sync::Arc;

use tracing::warn;

use super::{Known, Link, Replicas, Row, lock, row::Place, writing::digest};
use crate::{
    cluster::store::{Entry, MAX_VALUE, Revision, WriteError},
    outbox::{
        desk::NotDone,
        record::{Millis, State, TxId},
        shard::Shard,
    },
};

/// Rows of the bucket, with which no further transaction is taken: a replica that starts reads all.
pub(in crate::outbox) const MAX_ROWS: usize = 20_000;

impl Known {
    /// A row that was written, or has come by the watch.
    pub(super) fn new(row: &Row, revision: Revision, value: &[u8]) -> Self {
        Self {
            revision,
            shard: row.record.shard(),
            told: Arc::new(row.told.clone()),
            is_over: row.record.state.is_over(),
            is_done: row.record.state.is_over() && row.is_told(),
            outlives: match row.record.state {
                State::Cancelled | State::Refused { .. } => row.record.deadline,
                _ => Millis(0),
            },
            digest: digest(value),
        }
    }
}

impl Replicas {
    /// Why no transaction is taken now; `None` where the bucket is there, as far as is known.
    pub(in crate::outbox) fn why_closed(&self) -> Option<NotDone> {
        if let Some(why) = self.clock.why().or_else(|| self.chains.why()) {
            return Some(why);
        }
        let is_open = self.link.load().is_some()
            && self.is_synced.load(std::sync::atomic::Ordering::SeqCst)
            && self.clock.is_passed()
            && self.chains.is_passed()
            && self.ownership.is_sure();
        (!is_open).then_some(NotDone::BucketAway)
    }

    /// Writes a client's transaction into the bucket. Returns the row that stands there: another
    /// replica may have been faster with the same bytes.
    ///
    /// # Errors
    /// The row was not written, or the answer was lost.
    pub(in crate::outbox) async fn share(&self, mut row: Row) -> Result<Row, NotDone> {
        if let Some(why) = self.why_closed() {
            return Err(why);
        }
        if lock(&self.rows).len() >= MAX_ROWS {
            return Err(NotDone::Full { key: "rows of the bucket that replicas share", limit: MAX_ROWS });
        }
        let link = self.link.load_full().ok_or(NotDone::BucketAway)?;
        if let Some(known) = self.known(&row.record.id) {
            row.told = std::collections::BTreeSet::clone(&known.told);
        }
        let (place, value) = (Place::of(&row.record), row.encode());
        if value.len() > MAX_VALUE {
            return Err(NotDone::TooLong { bytes: value.len(), limit: MAX_VALUE });
        }
        let id = row.record.id.clone();
        let key = place.key().map_err(|_| NotDone::BucketAway)?;
        let written = match self.known(&id) {
            Some(known) => link.store.compare_and_set(&key, known.revision, value.clone(), None).await,
            None => link.store.create(&key, value.clone(), None).await,
        };
        match written {
            Ok(revision) => {
                self.note(id, Known::new(&row, revision, &value));
                Ok(row)
            }
            Err(WriteError::Conflict { .. }) => self.standing(&link, &place, &id).await.ok_or(NotDone::BucketAway),
            // The write may be made still, so its loss cannot be told.
            Err(WriteError::Ambiguous(_)) => self.standing(&link, &place, &id).await.ok_or(NotDone::BucketUnsure),
            Err(WriteError::Unavailable(why)) => {
                warn!(why, "a transaction is not taken: the cluster's bucket is away");
                Err(NotDone::BucketAway)
            }
            Err(WriteError::Malformed(_)) => Err(NotDone::TooLong { bytes: value.len(), limit: MAX_VALUE }),
        }
    }

    /// Whether the bucket has a transaction that was shared: it may have been made anew since.
    pub(in crate::outbox) async fn has(&self, id: &TxId, shard: Shard) -> bool {
        let Some(link) = self.link.load_full() else { return false };
        let Ok(key) = Place::Transaction(id.clone(), shard).key() else { return false };
        link.store.read(&key).await.is_ok_and(|entry| entry.is_some())
    }

    /// The row of a transaction that is to be seen through, as the bucket has it.
    async fn standing(&self, link: &Link, place: &Place, id: &TxId) -> Option<Row> {
        let key = place.key().ok()?;
        let Entry { value, revision, .. } = link.store.read(&key).await.ok()??;
        let row = Row::decode(place, &value).ok()?;
        self.note(id.clone(), Known::new(&row, revision, &value));
        (!row.record.state.is_over()).then_some(row)
    }
}
