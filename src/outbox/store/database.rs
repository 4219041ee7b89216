//! Opens the database over a medium: makes a new one, refuses those of others, and falls back to
//! reading where the disk takes no writes.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use redb::{Database, ReadableDatabase as _, StorageBackend, TableError, TableHandle as _};

use super::{
    apply::Tables,
    error::{OpenError, StoreError},
    medium::{Medium, Overlay},
    reader::{Reader, View},
    tables::{FORMAT, FORMAT_KEY, GROUP_KEY, LAST_BY_HASH, META, OLD_RAW, OLD_STATE},
    watched::{FirstFailure, Watched},
};

/// Bytes of the file that the database keeps in memory.
pub(super) const CACHE: usize = 32 << 20;

/// An open database.
#[derive(Debug)]
pub(super) struct Open {
    /// The rows as the last commit left them. All readers share this: to begin a view of one's own
    /// may take as long as a sync of the disk, and readers serve clients.
    view: ArcSwap<View>,
    pub(super) database: Database,
    pub(super) first_failure: FirstFailure,
    /// Whether writes reach the disk; else they stay in memory, and none is acknowledged.
    pub(super) is_real: bool,
}

impl Open {
    /// Opens the database to read and write. `check` has each page compared with its checksum.
    pub(super) fn real(medium: &dyn Medium, check: bool) -> Result<Self, OpenError> {
        let backend = medium.open().map_err(|error| OpenError::Io(medium.name(), error))?;
        Self::over(medium, backend, check, true)
    }

    /// Opens the database to read, over a disk that takes no writes.
    pub(super) fn to_read(medium: &dyn Medium) -> Result<Self, OpenError> {
        let io = |error| OpenError::Io(medium.name(), error);
        let backend = Overlay::over(medium.open_to_read().map_err(io)?).map_err(io)?;
        Self::over(medium, Box::new(backend), false, false)
    }

    /// Opens the database over `backend`, a handle to the file of `medium`.
    pub(super) fn over(
        medium: &dyn Medium,
        backend: Box<dyn StorageBackend>,
        check: bool,
        is_real: bool,
    ) -> Result<Self, OpenError> {
        let name = &*medium.name();
        let is_new = backend.len().map_err(|error| OpenError::Io(name.to_owned(), error))? == 0;
        let (backend, first_failure) = Watched::new(backend);
        let opened = Database::builder()
            .set_cache_size(medium.cache())
            .set_check_integrity_on_open(check && !is_new)
            .create_with_backend(backend);
        let database = opened.map_err(|error| OpenError::of(name, error))?;
        check_format(&database, name)?;
        let view = View::of(&database).map_err(|error| OpenError::Damaged(name.to_owned(), error.to_string()))?;
        Ok(Self { view: ArcSwap::from_pointee(view), database, first_failure, is_real })
    }

    /// Has the disk sync all that was read out of its cache, and returns the number of the last
    /// group of steps.
    pub(super) fn settle(&self) -> Result<u64, StoreError> {
        let group = self.reader().meta(GROUP_KEY)?;
        let txn = self.database.begin_write()?;
        Tables::open(&txn)?.set_meta(GROUP_KEY, group)?;
        txn.commit()?;
        self.renew_view()?;
        Ok(group)
    }

    /// Shows readers the rows of the newest commit. The writer alone calls this, behind each
    /// commit.
    pub(super) fn renew_view(&self) -> Result<(), StoreError> {
        self.view.store(Arc::new(View::of(&self.database)?));
        Ok(())
    }

    pub(super) fn reader(&self) -> Reader {
        Reader::new(self.view.load_full())
    }
}

/// Makes the tables of a new file, and refuses the file of another program or version.
fn check_format(database: &Database, name: &str) -> Result<(), OpenError> {
    let damaged = |error: StoreError| OpenError::Damaged(name.to_owned(), error.to_string());
    let foreign = |reason: &str| OpenError::Foreign(name.to_owned(), reason.to_owned());
    let found = {
        let txn = database.begin_read().map_err(|error| damaged(error.into()))?;
        let mut tables = txn.list_tables().map_err(|error| damaged(error.into()))?;
        match txn.open_table(META) {
            Ok(meta) => meta.get(FORMAT_KEY).map_err(|error| damaged(error.into()))?.map(|row| row.value()),
            Err(TableError::TableDoesNotExist(_)) => match tables.next() {
                None => Some(0),
                Some(table) => return Err(foreign(&format!("it has a table {:?}", table.name()))),
            },
            Err(TableError::Storage(error)) => return Err(damaged(error.into())),
            Err(error) => return Err(foreign(&error.to_string())),
        }
    };
    match found {
        // No table at all: the file was made, and a crash came before its first commit.
        Some(found @ 0..=LAST_BY_HASH) => make_tables(database, found).map_err(|error| match error {
            StoreError::Full(text) => OpenError::Io(name.to_owned(), io::Error::new(io::ErrorKind::StorageFull, text)),
            error @ StoreError::Malformed(_) => damaged(error),
            error => OpenError::Io(name.to_owned(), io::Error::other(error)),
        }),
        Some(FORMAT) => Ok(()),
        Some(found) => Err(OpenError::Newer { file: name.to_owned(), found, known: FORMAT }),
        None => Err(foreign("it has no format")),
    }
}

/// Makes the tables of this format in a file of an earlier one, or in a new one, whose format is 0:
/// in one transaction.
fn make_tables(database: &Database, format: u64) -> Result<(), StoreError> {
    let txn = database.begin_write()?;
    let mut tables = Tables::open(&txn)?;
    if format > 0 {
        tables.take_over(&txn)?;
    }
    tables.set_meta(FORMAT_KEY, FORMAT)?;
    drop(tables);
    txn.delete_table(OLD_STATE)?;
    txn.delete_table(OLD_RAW)?;
    Ok(txn.commit()?)
}
