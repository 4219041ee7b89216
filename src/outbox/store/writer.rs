//! The only writer of the file. The writer takes all steps that wait, makes one transaction of
//! them, and answers when the disk has taken that transaction.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::outbox::step::Step;

use super::{
    Health, Shared,
    apply::Tables,
    database::Open,
    error::{OpenError, StoreError},
    line::LineState,
    tables::GROUP_KEY,
};

/// The most steps of one transaction.
const MOST_STEPS: usize = 1024;

/// A group that is this long, in bytes, takes no more steps.
const MOST_BYTES: usize = 8 << 20;

/// A disk with less room than this takes no step that accepts a transaction: the room is kept for
/// the steps of those that were accepted, and for removals, which need room too.
pub const RESERVE: u64 = 32 << 20;

/// A message to the writer.
#[derive(Debug)]
pub(super) enum Message {
    Commit(Queued),
    Close(oneshot::Sender<()>),
}

/// A step that waits for the writer.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) step: Step,
    /// The line of the step; `None` for a step that rests on no other.
    pub(super) line: Option<Arc<LineState>>,
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
}

impl Queued {
    fn fail(self, error: &StoreError) {
        if let Some(line) = &self.line {
            line.fail(error);
        }
        _ = self.answer.send(Err(error.clone()));
    }
}

/// Why a group was not written.
enum Fault {
    /// The step with that index cannot be written; the others can.
    Step(usize, StoreError),
    /// The database takes no more writes until the store opens the file anew.
    Disk(StoreError),
}

/// The writer.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    /// The number of the last group that is in the file.
    group: u64,
    /// A write failed, and none has succeeded since.
    is_suspect: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let group = shared.reader()?.meta(GROUP_KEY)?;
        let is_suspect = !shared.is_real();
        Ok(Self { shared, group, is_suspect })
    }

    /// Writes the steps that come out of `queue`, until the queue is closed.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut carried = None;
        while let Some(message) = carried.take().or_else(|| queue.blocking_recv()) {
            let first = match message {
                Message::Commit(first) => first,
                Message::Close(closed) => {
                    self.shared.close();
                    _ = closed.send(());
                    return;
                }
            };
            let mut bytes = first.step.bytes();
            let mut group = vec![first];
            while group.len() < MOST_STEPS && bytes < MOST_BYTES {
                match queue.try_recv() {
                    Ok(Message::Commit(next)) => {
                        bytes += next.step.bytes();
                        group.push(next);
                    }
                    Ok(close) => {
                        carried = Some(close);
                        break;
                    }
                    Err(_) => break,
                }
            }
            self.commit(group);
        }
    }

    /// Commits the steps of `group`, in order, and answers each.
    pub(super) fn commit(&mut self, group: Vec<Queued>) {
        self.shared.begin_write();
        self.commit_group(group);
        self.shared.end_write();
    }

    fn commit_group(&mut self, group: Vec<Queued>) {
        if let Err(error) = self.make_ready() {
            group.into_iter().for_each(|queued| queued.fail(&error));
            return;
        }
        let is_low = self.is_low_on_room();
        let admit = |writer: &Self, queued| writer.admit(queued, is_low.as_ref());
        let mut group: Vec<Queued> = group.into_iter().filter_map(|queued| admit(self, queued)).collect();
        while !group.iter().all(|queued| queued.step.is_empty()) {
            match self.write(&group) {
                Ok(()) => break,
                Err(Fault::Step(index, error)) => {
                    // Later steps of its line rest on the failed one; earlier ones do not.
                    let mut rest = group.split_off(index).into_iter();
                    if let Some(queued) = rest.next() {
                        queued.fail(&error);
                    }
                    group.extend(rest.filter_map(|queued| admit(self, queued)));
                }
                Err(Fault::Disk(error)) => match self.recover(error) {
                    Ok(()) => break,
                    Err(error) => {
                        group.into_iter().for_each(|queued| queued.fail(&error));
                        return;
                    }
                },
            }
        }
        // The file may be gone, and with it what was written.
        if let Err(error) = self.shared.medium.is_in_place() {
            let error = StoreError::Unsure(error.to_string());
            self.is_suspect = true;
            self.shared.lose(&error);
            group.into_iter().for_each(|queued| queued.fail(&error));
            return;
        }
        group.into_iter().for_each(|queued| _ = queued.answer.send(Ok(())));
    }

    /// The step; `None` for one that must not be written now and has its answer already.
    fn admit(&self, queued: Queued, is_low: Option<&StoreError>) -> Option<Queued> {
        let behind = queued.line.as_ref().and_then(|line| line.behind(self.shared.generation()));
        if let Some(error) = behind {
            queued.fail(&error);
            return None;
        }
        match is_low {
            Some(error) if queued.step.accepts() => {
                queued.fail(error);
                None
            }
            _ => Some(queued),
        }
    }

    /// Makes one transaction of the group, and waits for the disk.
    fn write(&mut self, group: &[Queued]) -> Result<(), Fault> {
        let database = self.shared.database();
        let Some(open) = database.as_ref() else { return Err(Fault::Disk(StoreError::Closed)) };
        let disk = |error: StoreError| Fault::Disk(error);
        let txn = open.database.begin_write().map_err(|error| disk(error.into()))?;
        {
            let mut tables = Tables::open(&txn).map_err(disk)?;
            for (index, queued) in group.iter().enumerate() {
                tables.apply(&queued.step).map_err(|error| match error {
                    StoreError::Malformed(_) => Fault::Step(index, error),
                    error => disk(error),
                })?;
            }
            tables.set_meta(GROUP_KEY, self.group + 1).map_err(disk)?;
        }
        txn.commit().map_err(|error| disk(error.into()))?;
        open.renew_view().map_err(disk)?;
        self.group += 1;
        Ok(())
    }

    /// After a failure: opens the database anew. `Ok` where the group turns out to be on the disk
    /// nonetheless.
    fn recover(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.is_suspect = true;
        let Some(broken) = self.shared.take() else { return Err(error) };
        let failure = broken.first_failure.get();
        let of_sync = failure.is_some_and(|failure| failure.of_sync);
        let error = failure.map_or(error, |failure| failure.error.clone());
        drop(broken);
        tracing::warn!(%error, "the outbox is opened anew");
        if of_sync {
            self.forget_cache();
        }
        match self.open_settled() {
            Ok((open, group)) => {
                self.shared.put(open);
                if group == self.group + 1 {
                    self.group = group;
                    return Ok(());
                }
            }
            Err(again) => {
                tracing::warn!(error = %again, "the outbox is read only");
                self.fall_back();
                self.shared.lose(&error);
                // Where the cache has the group, the disk may have the group or not.
                let seen = self.shared.reader().and_then(|reader| reader.meta(GROUP_KEY));
                let is_sure = seen == Ok(self.group);
                return Err(if is_sure { error } else { StoreError::Unsure(error.to_string()) });
            }
        }
        self.shared.lose(&error);
        Err(error)
    }

    /// Makes the database writable again, if the disk lets the store write.
    fn make_ready(&mut self) -> Result<(), StoreError> {
        if !self.is_suspect {
            return Ok(());
        }
        if self.shared.is_closed() {
            return Err(StoreError::Closed);
        }
        let medium = &self.shared.medium;
        if let Err(error) = medium.is_in_place().and_then(|()| medium.probe()) {
            let error = StoreError::of_io(&error);
            self.shared.set_health(Health::of(&error));
            return Err(error);
        }
        if !self.shared.is_real() {
            // The lock of the handle that reads goes before the new one comes.
            drop(self.shared.take());
            // The disk may have failed in any sync since, also in that of a reopening.
            self.forget_cache();
            match self.open_settled() {
                Ok((open, group)) => {
                    self.shared.put(open);
                    // Readers may have seen rows that the disk did not keep.
                    self.shared.lose(&StoreError::Unwritable("the disk was away".to_owned()));
                    self.group = group;
                }
                Err(error) => {
                    self.fall_back();
                    self.shared.set_health(Health::of(&error));
                    return Err(error);
                }
            }
        }
        tracing::info!("the outbox can be written again");
        self.is_suspect = false;
        self.shared.set_health(Health::Writable);
        Ok(())
    }

    /// Drops pages that the cache may hold other than the disk does.
    fn forget_cache(&self) {
        if let Err(error) = self.shared.medium.forget_cache() {
            tracing::warn!(%error, "the cached pages of the outbox could not be dropped");
        }
    }

    /// Opens the database to read and write, and has the disk sync all that is read.
    fn open_settled(&self) -> Result<(Open, u64), StoreError> {
        let open = Open::real(&*self.shared.medium, true).map_err(|error| match error {
            OpenError::Io(_, error) => StoreError::of_io(&error),
            error => StoreError::Unwritable(error.to_string()),
        })?;
        let group = open.settle()?;
        Ok((open, group))
    }

    /// Opens the database to read only.
    fn fall_back(&self) {
        match Open::to_read(&*self.shared.medium) {
            Ok(open) => self.shared.put(open),
            Err(error) => tracing::error!(%error, "the outbox cannot even be read"),
        }
    }

    /// The error for steps that accept, where the disk is nearly full.
    fn is_low_on_room(&self) -> Option<StoreError> {
        let free = self.shared.medium.free()?;
        let error = (free < RESERVE)
            .then(|| StoreError::Full(format!("{} MiB are free, and {} MiB are kept back", free >> 20, RESERVE >> 20)));
        self.shared.set_health(error.as_ref().map_or(Health::Writable, Health::of));
        error
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.set_health(Health::Unwritable("the writer ended unexpectedly".to_owned()));
        }
    }
}
