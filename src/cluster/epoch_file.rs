//! The file by which a process knows that the process before, of the same replica, is dead.
//!
//! The file holds the last life's bucket and epoch, and a mark of the place of writing: this start
//! of the machine, and the number of the file. A copy, a backup that was put back and a file that
//! another machine wrote have another mark, and tell of no life. The process that holds the file's
//! lock wrote them, or follows a process that has ended: the system drops the lock with the
//! process, and a process that is frozen keeps the lock.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use crate::domain::fleet::{Epoch, Incarnation};

/// The file in `cluster.dir`.
const NAME: &str = "cluster.epoch";
/// The most bytes that are read: two numbers and the mark.
const MAX_READ: u64 = 128;
/// Where Linux tells which start of the machine this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file, locked for as long as this lives. Clones are the same file.
#[derive(Clone, Debug)]
pub(super) struct EpochFile {
    file: Arc<File>,
    /// The mark of this file on this machine, until the machine starts again.
    mark: Arc<str>,
    previous: Option<(Incarnation, Epoch)>,
}

impl EpochFile {
    /// Makes the folder if there is none, locks the file in it, and reads the life before.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let path = dir.join(NAME);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let why = format!("another process has locked {NAME}: each replica needs a folder of its own");
                return Err(io::Error::new(io::ErrorKind::WouldBlock, why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let mark = format!("{}/{}", boot.trim(), file.metadata()?.ino());
        let mut bytes = Vec::new();
        (&mut file).take(MAX_READ).read_to_end(&mut bytes)?;
        // A file that a crash left torn tells of no life, and costs one failover's wait.
        let previous = read(&String::from_utf8_lossy(&bytes), &mark);
        Ok(Self { file: Arc::new(file), mark: mark.into(), previous })
    }

    /// The life of the process before, if that life was in this bucket.
    pub(super) fn previous(&self, bucket: Incarnation) -> Option<Epoch> {
        self.previous.filter(|(of, _)| *of == bucket).map(|(_, epoch)| epoch)
    }

    /// Writes this process's life. Blocks for the disk.
    pub(super) fn write(&self, bucket: Incarnation, epoch: Epoch) -> io::Result<()> {
        let mut file = &*self.file;
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(format!("{bucket} {epoch} {}\n", self.mark).as_bytes())?;
        file.sync_data()
    }
}

/// A line without its end was torn, and one with another mark was written elsewhere.
fn read(text: &str, mark: &str) -> Option<(Incarnation, Epoch)> {
    let (life, written) = text.strip_suffix('\n')?.rsplit_once(' ')?;
    let (bucket, epoch) = life.split_once(' ').filter(|_| written == mark)?;
    Some((Incarnation(bucket.parse().ok()?), Epoch(epoch.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A22: the life before is known, in its bucket alone.
    #[test]
    fn the_life_before_is_read_by_the_next_process() {
        let dir = std::env::temp_dir().join(format!("steadfast-epoch-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let first = EpochFile::open(&dir).unwrap();
        assert_eq!(first.previous(Incarnation(7)), None);
        first.write(Incarnation(7), Epoch(12)).unwrap();
        let refused = EpochFile::open(&dir).unwrap_err().to_string();
        assert!(refused.contains("another process"), "{refused}");
        drop(first);
        // A child that another test is about to run holds all files of this process for a moment.
        let open = || EpochFile::open(&dir).ok();
        let second = std::iter::repeat_with(open).take(1_000_000).flatten().next().unwrap();
        assert_eq!((second.previous(Incarnation(7)), second.previous(Incarnation(8))), (Some(Epoch(12)), None));
        drop(second);
        let twin = dir.join("twin");
        fs::create_dir(&twin).unwrap();
        fs::copy(dir.join(NAME), twin.join(NAME)).unwrap();
        assert_eq!(EpochFile::open(&twin).unwrap().previous(Incarnation(7)), None, "a copy tells of no life");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_torn_line_tells_of_no_life() {
        assert_eq!(read("7 12 boot/1\n", "boot/1"), Some((Incarnation(7), Epoch(12))));
        for torn in ["", "7", "7 1", "7 \n", "x 12 boot/1\n", "7 12 boot/1", "7 12\n", "7 12 other/1\n"] {
            assert_eq!(read(torn, "boot/1"), None, "{torn:?}");
        }
    }
}
