//! Sees that a file was written, or replaced by another, by a look each second.
//!
//! A look follows symbolic links, and so sees the swap of a folder behind the path too, by which
//! Kubernetes changes a ConfigMap. Notices of the kernel would be about the link's place, and
//! do not exist on every file system.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::aside::Aside;

/// The time between two looks.
const ROUND: Duration = Duration::from_secs(1);

/// The features by which a file that was written, or replaced, differs from the file of before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds of the last change to the content.
    written: (i64, i64),
    /// The same of the last change to the file's properties: a program that writes may set the time
    /// of its writing, and not this one.
    changed: (i64, i64),
}

impl From<Metadata> for Identity {
    fn from(file: Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            length: file.len(),
            written: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// A watch of a file.
#[derive(Clone, Debug)]
pub struct FileWatch {
    path: PathBuf,
    /// The file at the last reading.
    read: Option<Identity>,
    /// The file at the last look, if that found another file than was read.
    seen: Option<Identity>,
    /// When the next look is due.
    next: Instant,
    /// Whether the log says that the file is gone.
    is_gone: bool,
    aside: Aside,
}

impl FileWatch {
    /// Watches `path` for changes since now. So the file is to be read after this.
    pub fn new(path: PathBuf) -> Self {
        let read = std::fs::metadata(&path).ok().map(Identity::from);
        Self { path, read, seen: None, next: Instant::now(), is_gone: false, aside: Aside::default() }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes the present file as the file that is read.
    pub(super) async fn look(&mut self) {
        self.read = self.identity().await.or(self.read);
        self.seen = None;
    }

    /// Waits until there is another file than was read, or another content, that has stayed for two
    /// looks: a file may be written in pieces. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        loop {
            sleep_until(self.next).await;
            let now = self.identity().await;
            self.next = Instant::now() + ROUND;
            if self.is_settled(now) {
                return;
            }
        }
    }

    /// Whether the file at this look is another than was read, and the same as at the look before.
    fn is_settled(&mut self, now: Option<Identity>) -> bool {
        if now.is_none() && !self.is_gone {
            warn!(file = %self.path.display(), "the file of the settings is gone, or cannot be looked at; the settings stay");
        }
        self.is_gone = now.is_none();
        if self.read.is_none() {
            self.read = now;
        }
        let is_settled = now.is_some() && now != self.read && now == self.seen;
        self.seen = now;
        is_settled
    }

    /// The present file; `None` where there is none, or where the look takes too long, as on a file
    /// system that is far away.
    async fn identity(&self) -> Option<Identity> {
        let path = self.path.clone();
        self.aside.run(move || std::fs::metadata(path).ok().map(Identity::from)).await.flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64) -> Option<Identity> {
        Some(Identity { device: 1, inode, length: 9, written: (5, 0), changed: (5, 0) })
    }

    #[tokio::test]
    async fn a_change_counts_once_it_has_stayed_for_two_looks() {
        let mut watch = FileWatch::new(PathBuf::from("none"));
        for (now, settled) in [
            (file(1), false),
            (file(1), false),
            (file(2), false),
            (file(3), false),
            (None, false),
            (file(3), false),
            (file(3), true),
        ] {
            assert_eq!(watch.is_settled(now), settled, "{now:?}");
        }
        (watch.read, watch.seen) = (file(3), None);
        for _ in 0..3 {
            assert!(!watch.is_settled(file(3)), "the file was read");
        }
        assert!(!watch.is_settled(file(1)) && watch.is_settled(file(1)), "the file of before is another one again");
    }

    #[tokio::test]
    async fn a_file_that_was_gone_at_the_start_is_no_change() {
        let mut watch = FileWatch::new(PathBuf::from("none"));
        for now in [None, None, file(1), file(1)] {
            assert!(!watch.is_settled(now), "{now:?}");
        }
        assert!(!watch.is_settled(file(2)) && watch.is_settled(file(2)));
    }
}
