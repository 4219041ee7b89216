//! Watches: the entries under a prefix and their changes, as events.

use std::fmt;

use futures_util::future::BoxFuture;

use super::{Entry, Incarnation, Key, Malformed, Revision};

/// A message to a watcher.
///
/// For one key, revisions of entries rise within an incarnation. Of several writes of a key only
/// the last may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An entry is there, or has a new value.
    Entry(Entry),
    /// An entry that the watcher was told of is gone: deleted, or expired.
    Deleted {
        /// The entry's key.
        key: Key,
        /// The number of the deletion; that of the entry itself where the store tells of no
        /// deletion.
        revision: Revision,
    },
    /// All that the store had at some moment since the last such event is told. Comes first after
    /// the entries that were there from the start, and again after each look at the store: the time
    /// since the last one is the age of the watcher's copy.
    Synced {
        /// The bucket that was read.
        incarnation: Incarnation,
    },
    /// Another bucket is there under the same name, or the same one was set back to an earlier
    /// state. All that was told is void; the entries that are there follow, then [`Event::Synced`].
    Reset {
        /// The bucket that is there now; the one before where that was set back.
        incarnation: Incarnation,
    },
    /// An entry is there that is not read. Told once for each revision.
    Malformed(Malformed),
    /// The store cannot be watched now, for this reason. The watch tries again by itself, and the
    /// next [`Event::Synced`] tells of success. May be left out where the watcher is slow.
    Failed(String),
}

/// A running watch, which ends when this is dropped.
pub struct Watch {
    feed: Box<dyn Feed>,
}

impl Watch {
    pub(super) fn over(feed: impl Feed + 'static) -> Self {
        Self { feed: Box::new(feed) }
    }

    /// The next event. Cancel-safe. `None` if the watch's own task has ended, which is a fault of
    /// the program: the watcher's copy grows old from here on.
    pub async fn next(&mut self) -> Option<Event> {
        self.feed.next().await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// The source of a watch's events.
pub(super) trait Feed: Send {
    /// The next event. Dropping the future loses none.
    fn next(&mut self) -> BoxFuture<'_, Option<Event>>;
}
