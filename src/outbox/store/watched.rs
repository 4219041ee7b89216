//! A backend that remembers its first failure. A database names the first error of its backend to
//! one caller only, and says "previous error" to all others.

use std::{
    io,
    ops::Bound,
    sync::{Arc, OnceLock},
};

use redb::{BackendError, StorageBackend};

use super::error::StoreError;

/// The first failure of a backend.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// Whether a sync failed: the system's cache may then hold pages that are not on the disk.
    pub(super) of_sync: bool,
}

/// Where a failure is noted.
pub(super) type FirstFailure = Arc<OnceLock<Failure>>;

/// A backend whose first failure is noted.
#[derive(Debug)]
pub(super) struct Watched {
    inner: Box<dyn StorageBackend>,
    first: FirstFailure,
}

impl Watched {
    pub(super) fn new(inner: Box<dyn StorageBackend>) -> (Self, FirstFailure) {
        let first = FirstFailure::default();
        (Self { inner, first: Arc::clone(&first) }, first)
    }

    fn note<T>(&self, result: io::Result<T>, of_sync: bool) -> io::Result<T> {
        if let Err(error) = &result {
            _ = self.first.set(Failure { error: StoreError::of_io(error), of_sync });
        }
        result
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.note(self.inner.len(), false)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.note(self.inner.read(offset, out), false)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.note(self.inner.set_len(len), false)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.note(self.inner.sync_data(), true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.note(self.inner.write(offset, data), false)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}
