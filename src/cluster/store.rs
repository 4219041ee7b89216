//! The store through which replicas agree: entries under keys, each with a revision.
//!
//! Every write is compare-and-set, so of many writers that saw the same revision one wins. There
//! is no unconditional write. Order comes from revisions and age from the store's own clock;
//! nothing here reads a wall clock.
//!
//! Rules that callers must keep, for both implementations behave so:
//! - [`WriteError::Ambiguous`] is not a refusal. The write may have been applied, or may be applied
//!   later, even after a read showed the old revision. Read again; a foreign value there is the
//!   proof of a loss, and the next compare-and-set settles the rest.
//! - A read may be old: a server that was replaced may answer for some seconds. A successful write
//!   proves that the named revision was the last one until then.
//! - Revisions of two incarnations of a bucket do not compare. After [`Event::Reset`] everything
//!   that was known is void.

mod copy;
mod entry;
mod error;
mod key;
pub mod memory;
pub mod nats;
mod watch;

#[cfg(test)]
mod tests;

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::BoxFuture;

pub use self::{
    entry::{Entry, Incarnation, Listing, Malformed, Revision, StoreTime, Ttl},
    error::{ReadError, WriteError},
    key::{Key, KeyError, MAX_NAME, MAX_TOKENS, Prefix, Token},
    watch::{Event, Watch},
};

/// Longest value, in bytes.
pub const MAX_VALUE: usize = 960 * 1024;

/// Entries that one listing holds at most.
pub const MAX_LISTED: usize = 65_536;

/// A bucket of entries that several replicas share.
///
/// Each future ends within the implementation's deadline. Dropping the future of a write before its
/// end leaves the outcome unknown, as [`WriteError::Ambiguous`] does.
pub trait Store: Debug + Send + Sync {
    /// Writes an entry where none is: one of many callers wins.
    ///
    /// `ttl` is the time after which the server removes the entry, if [`Store::can_expire`].
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if the key has an entry.
    fn create<'a>(
        &'a self,
        key: &'a Key,
        value: Bytes,
        ttl: Option<Ttl>,
    ) -> BoxFuture<'a, Result<Revision, WriteError>>;

    /// Replaces the entry whose revision is `seen`. Its time to live begins anew, with `ttl`.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if the key's last revision is another, or the key has none.
    fn compare_and_set<'a>(
        &'a self,
        key: &'a Key,
        seen: Revision,
        value: Bytes,
        ttl: Option<Ttl>,
    ) -> BoxFuture<'a, Result<Revision, WriteError>>;

    /// Removes the entry whose revision is `seen`.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] if the key's last revision is another, or the key has none.
    fn compare_and_delete<'a>(&'a self, key: &'a Key, seen: Revision) -> BoxFuture<'a, Result<(), WriteError>>;

    /// The entry under `key`, or `None`.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] if the store cannot be asked.
    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, ReadError>>;

    /// All entries under `prefix`: each entry that was there from the call to its end is listed.
    ///
    /// # Errors
    /// [`ReadError::Malformed`] if there are more than [`MAX_LISTED`].
    fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, ReadError>>;

    /// Watches the entries under `prefix`: first those that are there, then each change. Failures
    /// of the store are retried inside; [`Event::Synced`] tells how fresh the watcher's copy is.
    fn watch(&self, prefix: &Prefix) -> Watch;

    /// The bucket's identity. A bucket that is gone is made anew first.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] if the store cannot be asked or the bucket cannot be made.
    fn incarnation(&self) -> BoxFuture<'_, Result<Incarnation, ReadError>>;

    /// Whether entries vanish after their time to live. A store that cannot ignores the time.
    fn can_expire(&self) -> bool;
}
