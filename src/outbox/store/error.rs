//! The ways in which a store fails. The text of an error says how an operator can help.

use std::io;

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

/// Why a step was not committed, or a row was not read. Where a commit fails, nothing of the step
/// is in the store, now or later; only [`StoreError::Unsure`] leaves that open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk has no room.
    #[error("the disk of the outbox is full: {0}")]
    Full(String),
    /// The disk takes no writes, or a read failed.
    #[error("the outbox cannot be written: {0}")]
    Unwritable(String),
    /// The disk failed in the middle of the sync, and takes no writes since. Once the disk works
    /// again, the step is in the file whole or not at all.
    #[error("the outbox cannot be written, and may hold the step or not: {0}")]
    Unsure(String),
    /// This version cannot read a row.
    #[error("the outbox holds a row that cannot be read: {0}")]
    Malformed(String),
    /// An earlier step of the same line failed, so this one may rest on missing rows. A
    /// caller with a copy of rows in memory reads them anew and goes on with a new line.
    #[error("an earlier step was not written: {0}")]
    Behind(String),
    /// The store is being opened anew after a failure of its disk.
    #[error("the outbox is being opened anew after a failure of its disk")]
    Reopening,
    /// The store was closed.
    #[error("the outbox is closed")]
    Closed,
}

impl StoreError {
    pub(super) fn of_io(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::Full(error.to_string())
            }
            _ => Self::Unwritable(error.to_string()),
        }
    }
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => Self::of_io(&error),
            StorageError::DatabaseClosed => Self::Reopening,
            error => Self::Unwritable(error.to_string()),
        }
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            error => Self::Malformed(error.to_string()),
        }
    }
}

impl From<TransactionError> for StoreError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            error => Self::Unwritable(error.to_string()),
        }
    }
}

impl From<CommitError> for StoreError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            error => Self::Unwritable(error.to_string()),
        }
    }
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the file.
    #[error("{0} is in use: another process has it open. Stop that one, or give this one an `outbox.dir` of its own")]
    InUse(String),
    /// The file is no outbox.
    #[error("{0} is no outbox of Steadfast ({1}). Move it away, or set `outbox.dir` to another directory")]
    Foreign(String, String),
    /// A later version wrote the file.
    #[error(
        "{file} has format {found}, and this version of Steadfast knows formats up to {known}. Run the version that \
         wrote it, or one after that"
    )]
    Newer {
        /// The file.
        file: String,
        /// Its format.
        found: u64,
        /// The newest format of this version.
        known: u64,
    },
    /// The file is damaged.
    #[error("{0} is damaged ({1}). Restore it, or move it away: what is pending in it is then not sent")]
    Damaged(String, String),
    /// The directory or the file cannot be opened or made.
    #[error("{0} cannot be opened: {1}")]
    Io(String, io::Error),
}

impl OpenError {
    pub(super) fn of(file: &str, error: DatabaseError) -> Self {
        let file = file.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Self::InUse(file),
            // redb says so of a file that does not begin as its files do.
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
                Self::Foreign(file, error.to_string())
            }
            DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Damaged(file, "the end is missing".to_owned())
            }
            DatabaseError::Storage(StorageError::Io(error)) => Self::Io(file, error),
            DatabaseError::UpgradeRequired(format) => {
                Self::Foreign(file, format!("redb's own format {format} is too old"))
            }
            error => Self::Damaged(file, error.to_string()),
        }
    }
}
