//! Brings the rows of the bucket to where the records on the disk are: one write at a time for each
//! transaction, always of the newest record, so that transitions behind each other cost one write.

use std::{collections::BTreeSet, hash::Hasher as _, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Duration, Instant};
use tracing::{error, warn};

use super::{
    Known, Link, Row, lock,
    row::Place,
    task::{Outcome, Task},
    told::{told_events, told_here},
};
use crate::{
    cluster::store::{Revision, WriteError},
    outbox::{ownership::May, record::TxId, shard::Shard, store::StoreError},
};

/// Rows that are written at once.
const MAX_WRITES: usize = 32;
/// The pause after a write that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a row stays in the bucket when the life is over and all is told. A replica that was
/// away for longer keeps what it had, and asks by its next row.
const KEPT_ROW: Duration = Duration::from_secs(5 * 60);
/// With fewer rows than this, the row of a transaction that was cancelled or refused stays until
/// its deadline: a replica that was away would have the transaction sent.
const ROOMY: usize = 10_000;
/// From one look for rows that can go to the next.
const SWEEP: Duration = Duration::from_secs(10);
/// Rows of lives that are over whose records one look reads again, in turn.
const LOOKED_AT: usize = 500;

/// The action for the row of a transaction.
enum Due {
    Nothing,
    /// The replica is not sure at this moment that the transaction is its own.
    Later,
    Write {
        row: Box<Row>,
        value: Bytes,
        over: Option<Revision>,
    },
    Delete(Revision),
}

/// The end of a write.
pub(super) enum Written {
    /// The row stands.
    Row(Known),
    /// The row is gone.
    Gone,
    /// Another writer was faster: the row has this revision, or is gone.
    Conflict(Option<Revision>),
    /// The answer was lost, or the bucket is away.
    Failed(String),
    /// No bucket takes the row.
    Never(String),
}

/// Tells values from each other.
pub(super) fn digest(value: &[u8]) -> u64 {
    // This hasher has constant keys.
    let mut hasher = std::hash::DefaultHasher::new();
    hasher.write(value);
    hasher.finish()
}

impl Task {
    /// Begins the writes that are due.
    pub(super) fn write_rows(&mut self, link: &Link) {
        if Instant::now() < self.next_write {
            return;
        }
        let mut later = Vec::new();
        while self.writing.len() < MAX_WRITES {
            let next = lock(&self.replicas.waiting).iter().find(|id| !self.writing.contains(*id)).cloned();
            let Some(id) = next else { break };
            lock(&self.replicas.waiting).remove(&id);
            match self.due(&id) {
                Ok(Due::Nothing) => _ = lock(&self.replicas.dropped).remove(&id),
                Ok(Due::Later) => later.push(id),
                Ok(Due::Write { row, value, over }) => self.begin(id, write(link.clone(), row, value, over)),
                Ok(Due::Delete(over)) => {
                    let shard = self.replicas.known(&id).map(|known| known.shard);
                    let deletion = delete(link.clone(), id.clone(), over, shard);
                    self.begin(id, deletion);
                }
                Err(error) => {
                    warn!(hash = %id.hash, %error, "a record cannot be read, and its row waits");
                    later.push(id);
                }
            }
        }
        if !later.is_empty() {
            self.next_write = Instant::now() + PAUSE;
            self.replicas.publish(later);
        }
    }

    fn begin(&mut self, id: TxId, write: impl Future<Output = Written> + Send + 'static) {
        self.writing.insert(id.clone());
        self.requests.push(Box::pin(async move { Outcome::Row(id, write.await) }));
    }

    /// Notes the end of a write.
    pub(super) fn written(&mut self, id: TxId, written: Written) {
        self.writing.remove(&id);
        match written {
            Written::Row(known) => self.replicas.note(id, known),
            Written::Gone => {
                lock(&self.replicas.rows).remove(&id);
                lock(&self.replicas.dropped).remove(&id);
            }
            Written::Conflict(found) => {
                self.replicas.metrics.cluster_cas_lost();
                let mut rows = lock(&self.replicas.rows);
                match (rows.get_mut(&id), found) {
                    (Some(known), Some(revision)) => known.revision = revision.max(known.revision),
                    (Some(_), None) => _ = rows.remove(&id),
                    // The watch brings the row.
                    (None, _) => {}
                }
                drop(rows);
                self.next_write = Instant::now() + PAUSE;
                self.replicas.publish([id]);
            }
            Written::Failed(why) => {
                if !self.is_told {
                    warn!(why, "rows of the outbox wait for the cluster's bucket");
                    self.is_told = true;
                }
                self.next_write = Instant::now() + PAUSE;
                self.replicas.publish([id]);
                return;
            }
            Written::Never(why) => error!(hash = %id.hash, why, "a row of the outbox cannot be written"),
        }
        self.is_told = false;
    }

    /// Has rows deleted whose life is over and of which all is delivered, after a while. Of others
    /// whose life is over, looks whether all is delivered by now. All rows are looked at again and
    /// again, so that none stays because a moment was missed: a deletion may fail, and the bucket
    /// may be read anew when the last event is delivered.
    pub(super) fn sweep_rows(&mut self, link: &Link) {
        let now = Instant::now();
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP;
        let (done, untold) = self.rows_over();
        let (today, is_roomy) = ((self.shared.clock)(), lock(&self.replicas.rows).len() < ROOMY);
        let since = |id: &TxId| self.done_since.get(id).copied().unwrap_or(now);
        self.done_since = done.iter().map(|(id, _)| (id.clone(), since(id))).collect();
        for (id, known) in done {
            if self.writing.len() >= MAX_WRITES {
                break;
            }
            let is_needed = is_roomy && today < known.outlives;
            if is_needed || self.done_since[&id] + KEPT_ROW > now || self.writing.contains(&id) {
                continue;
            }
            if let May::Begin(_permit) = self.ownership().may(Some(known.shard)) {
                let deletion = delete(link.clone(), id.clone(), known.revision, Some(known.shard));
                self.begin(id, deletion);
            }
        }
        self.swept = untold.get(LOOKED_AT - 1).cloned();
        self.replicas.publish(untold.into_iter().take(LOOKED_AT));
    }

    /// The rows of this replica's shards whose life is over: those of which all is delivered, and
    /// the others behind the last one that was looked at.
    fn rows_over(&self) -> (Vec<(TxId, Known)>, Vec<TxId>) {
        let active = self.ownership().active();
        let rows = lock(&self.replicas.rows);
        let own = || rows.iter().filter(|(_, known)| known.is_over && active.has(known.shard));
        let done = own().filter(|(_, known)| known.is_done).map(|(id, known)| (id.clone(), known.clone()));
        let is_next = |id: &TxId| self.swept.as_ref().is_none_or(|last| id > last);
        let untold = own().filter(|(id, known)| !known.is_done && is_next(id)).map(|(id, _)| id.clone());
        (done.collect(), untold.collect())
    }

    fn due(&self, id: &TxId) -> Result<Due, StoreError> {
        let reader = self.shared.store.read()?;
        let (record, known) = (reader.record(id)?, self.replicas.known(id));
        let Some(shard) = record.as_ref().map(|record| record.shard()).or(known.as_ref().map(|known| known.shard))
        else {
            return Ok(Due::Nothing);
        };
        let may = self.ownership().may_write(shard);
        let is_dropped = lock(&self.replicas.dropped).contains(id);
        let Some(record) = record else {
            return Ok(match (known, may) {
                (Some(_), May::Later) => Due::Later,
                (Some(known), May::Begin(_)) if is_dropped => Due::Delete(known.revision),
                _ => Due::Nothing,
            });
        };
        // Before that, deliveries may be missing that are still to be made.
        let tells = self.ownership().active().has(shard);
        let is_over = record.state.is_over();
        let told = match (&known, may) {
            (Some(known), May::Begin(_)) => known.told.clone(),
            (Some(_), May::Later) => return Ok(Due::Later),
            (Some(_), May::Never(_)) => return Ok(Due::Nothing),
            // The bucket lacks a transaction that is kept here: it was made anew, or this proxy was
            // alone until now. The owner of the shard asks the nodes for the transaction, and tells
            // what waits here.
            (None, _) => match told_here(&reader, &self.shared.webhooks.table(), &record)? {
                // The row has gone with the end of the life.
                (_, false) if is_over => return Ok(Due::Nothing),
                (told, _) => Arc::new(told),
            },
        };
        let told = match tells {
            true => told_events(&reader, &self.shared.webhooks.table(), &record, &told)?,
            false => BTreeSet::clone(&told),
        };
        let raw = if is_over { Bytes::new() } else { reader.raw(id)?.unwrap_or_default().into() };
        if raw.len() != record.bytes && !is_over {
            error!(hash = %id.hash, "the outbox has a record without its transaction");
            return Ok(Due::Nothing);
        }
        let row = Row { record, told, raw };
        let value = row.encode();
        let is_same = known.as_ref().is_some_and(|known| known.digest == digest(&value));
        let over = known.map(|known| known.revision);
        Ok(if is_same { Due::Nothing } else { Due::Write { row: Box::new(row), value, over } })
    }
}

fn write(link: Link, row: Box<Row>, value: Bytes, over: Option<Revision>) -> BoxFuture<'static, Written> {
    Box::pin(async move {
        let Ok(key) = Place::of(&row.record).key() else {
            return Written::Never("a name is too long for a key".to_owned());
        };
        let written = match over {
            Some(revision) => link.store.compare_and_set(&key, revision, value.clone(), None).await,
            None => link.store.create(&key, value.clone(), None).await,
        };
        match written {
            Ok(revision) => Written::Row(Known::new(&row, revision, &value)),
            Err(error) => failed(&link, &key, error).await,
        }
    })
}

fn delete(link: Link, id: TxId, over: Revision, shard: Option<Shard>) -> BoxFuture<'static, Written> {
    Box::pin(async move {
        let Some(shard) = shard else { return Written::Gone };
        let Ok(key) = Place::Transaction(id, shard).key() else { return Written::Gone };
        match link.store.compare_and_delete(&key, over).await {
            Ok(()) => Written::Gone,
            Err(error) => failed(&link, &key, error).await,
        }
    })
}

async fn failed(link: &Link, key: &crate::cluster::store::Key, error: WriteError) -> Written {
    match error {
        WriteError::Malformed(why) => Written::Never(why),
        WriteError::Unavailable(why) => Written::Failed(why),
        // A write whose answer was lost may stand there: the key tells.
        WriteError::Conflict { .. } | WriteError::Ambiguous(_) => match link.store.read(key).await {
            Ok(found) => Written::Conflict(found.map(|entry| entry.revision)),
            Err(error) => Written::Failed(error.to_string()),
        },
    }
}
