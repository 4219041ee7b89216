//! The medium under the store: a file on a disk, or a pretend one, that can be opened more than
//! once. After a failure the store opens its medium anew, since its database takes no writes then.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    ops::Bound,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, StorageBackend, backends::FileBackend};
use rustix::fs::{Advice, fadvise, statvfs};

use super::{
    database::{CACHE, Open},
    error::OpenError,
};

/// The file of the outbox in its directory.
pub const FILE: &str = "outbox.redb";

/// A file that is being made. A whole one gets its own name.
const NEW_FILE: &str = "outbox.redb.new";

/// A small file, removed at once, that shows whether the disk takes writes again.
const PROBE_FILE: &str = "outbox.probe";

/// Bytes of that file.
const PROBE: usize = 64 * 1024;

/// Bytes of a page of [`Overlay`].
const PAGE: usize = 4096;

/// Where a store lives.
pub trait Medium: fmt::Debug + Send + Sync + 'static {
    /// A new handle to the file, to read and write, that can lock out other processes.
    fn open(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// A new handle where [`open`](Self::open) fails: nothing will be written through it.
    fn open_to_read(&self) -> io::Result<Box<dyn StorageBackend>>;

    /// Bytes that the disk has free; `None` where the system does not say.
    fn free(&self) -> Option<u64>;

    /// Whether the disk takes a write and a sync now.
    fn probe(&self) -> io::Result<()>;

    /// Drops cached pages, which after a failed sync may be other than those on the disk.
    fn forget_cache(&self) -> io::Result<()>;

    /// Whether the file that was opened last is still the one of this name.
    ///
    /// # Errors
    /// When the file was removed or replaced: what is written to it is lost with the process.
    fn is_in_place(&self) -> io::Result<()> {
        Ok(())
    }

    /// Bytes of the file that the database may keep in memory.
    fn cache(&self) -> usize {
        CACHE
    }

    /// The file's name for messages.
    fn name(&self) -> String;
}

/// The file [`FILE`] in a directory.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// Device and number of the file that was opened last.
    opened: Mutex<Option<(u64, u64)>>,
}

/// Tries whether a store could be made and written in the directory `dir`. Leaves nothing behind.
///
/// # Errors
/// When the directory, or the nearest one above that is there, takes no file.
pub fn try_folder(dir: &Path) -> io::Result<()> {
    let here = Path::new(".");
    let above = dir.ancestors().map(|above| if above.as_os_str().is_empty() { here } else { above });
    let there = above.into_iter().find(|above| above.symlink_metadata().is_ok()).unwrap_or(here);
    let file = there.join(format!(".steadfast-check-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
    fs::remove_file(&file)
}

impl Folder {
    /// The directory `dir`, made where it is missing, readable for its owner only.
    pub fn new(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(Self { dir: dir.to_owned(), opened: Mutex::default() })
    }

    /// The path of the file.
    pub fn file(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Makes the file where none is: under another name until its beginning is written, so that a
    /// crash leaves either no file or a whole one.
    pub(super) fn create(&self) -> Result<(), OpenError> {
        let io = |error| OpenError::Io(self.name(), error);
        if self.file().try_exists().map_err(io)? {
            return Ok(());
        }
        let new = self.dir.join(NEW_FILE);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&new);
        let file = file.map_err(io)?;
        // The lock comes first, so that of two processes one makes the file. The other finds this
        // lock, or the finished file.
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(OpenError::InUse(self.name())),
            Err(fs::TryLockError::Error(error)) => return Err(io(error)),
        }
        if self.file().try_exists().map_err(io)? {
            return Ok(());
        }
        file.set_len(0).map_err(io)?;
        drop(Open::over(self, Box::new(Plain(file.try_clone().map_err(io)?)), false, true)?);
        let finish = || {
            file.sync_all()?;
            fs::rename(&new, self.file())?;
            // The name is on the disk only once the directory is.
            File::open(&self.dir)?.sync_all()
        };
        finish().map_err(io)
    }
}

impl Medium for Folder {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        let file = OpenOptions::new().read(true).write(true).open(self.file())?;
        let found = file.metadata()?;
        if found.len() == 0 {
            // A file that is being made has another name until its beginning is written.
            return Err(io::Error::new(ErrorKind::InvalidData, "the file is empty"));
        }
        *self.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some((found.dev(), found.ino()));
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    }

    fn is_in_place(&self) -> io::Result<()> {
        let opened = *self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let there = fs::metadata(self.file()).map(|found| (found.dev(), found.ino()));
        match (opened, there) {
            (Some(opened), Ok(there)) if opened != there => {
                Err(io::Error::other("the file was replaced by another: restart the proxy to use that one"))
            }
            (Some(_), Err(error)) => Err(io::Error::other(format!("the file was removed: {error}"))),
            _ => Ok(()),
        }
    }

    fn open_to_read(&self) -> io::Result<Box<dyn StorageBackend>> {
        match self.open() {
            Ok(backend) => Ok(backend),
            Err(_) => Ok(Box::new(Plain(File::open(self.file())?))),
        }
    }

    fn free(&self) -> Option<u64> {
        let disk = statvfs(&self.dir).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn probe(&self) -> io::Result<()> {
        let path = self.dir.join(PROBE_FILE);
        let write = || {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(&[0; PROBE])?;
            file.sync_all()
        };
        let written = write();
        match fs::remove_file(&path) {
            Err(error) if written.is_ok() => Err(error),
            _ => written,
        }
    }

    fn forget_cache(&self) -> io::Result<()> {
        Ok(fadvise(File::open(self.file())?, 0, None, Advice::DontNeed)?)
    }

    fn name(&self) -> String {
        self.file().display().to_string()
    }
}

/// A file without locks of its own.
#[derive(Debug)]
struct Plain(File);

impl StorageBackend for Plain {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, data, offset)
    }
}

/// A file that is read, with changes that stay in memory. A database can be opened over a disk that
/// takes no writes, though the database writes a few pages when it is opened.
#[derive(Debug)]
pub(super) struct Overlay {
    below: Box<dyn StorageBackend>,
    above: Mutex<Above>,
}

#[derive(Debug)]
struct Above {
    length: u64,
    /// The least length since the beginning: beyond it, `below` counts as zeros.
    least: u64,
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    pub(super) fn over(below: Box<dyn StorageBackend>) -> io::Result<Self> {
        let length = below.len()?;
        Ok(Self { below, above: Mutex::new(Above { length, least: length, pages: BTreeMap::new() }) })
    }

    fn above(&self) -> MutexGuard<'_, Above> {
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The page at `offset` as `below` has it.
    fn page_below(&self, offset: u64, least: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE].into_boxed_slice();
        let there = least.saturating_sub(offset).min(PAGE as u64) as usize;
        if there > 0 {
            self.below.read(offset, &mut page[..there])?;
        }
        Ok(page)
    }
}

/// For each page that `length` bytes at `offset` touch: the page's offset, the part of the page,
/// and the part of the bytes.
fn parts(offset: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let count = (PAGE - within).min(length - done);
        let part = (at - within as u64, within..within + count, done..done + count);
        done += count;
        (count > 0).then_some(part)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.above().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let above = self.above();
        if offset + out.len() as u64 > above.length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        for (page, within, bytes) in parts(offset, out.len()) {
            match above.pages.get(&page) {
                Some(changed) => out[bytes].copy_from_slice(&changed[within]),
                None => out[bytes].copy_from_slice(&self.page_below(page, above.least)?[within]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut above = self.above();
        above.length = len;
        above.least = above.least.min(len);
        // Bytes beyond the end are zeros when the file grows again.
        above.pages.retain(|&page, _| page < len);
        if let Some((&page, bytes)) = above.pages.range_mut(..len).next_back() {
            let kept = (len - page).min(PAGE as u64) as usize;
            bytes[kept..].fill(0);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut above = self.above();
        let least = above.least;
        for (page, within, bytes) in parts(offset, data.len()) {
            let changed = match above.pages.entry(page) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(self.page_below(page, least)?),
            };
            changed[within].copy_from_slice(&data[bytes]);
        }
        above.length = above.length.max(offset + data.len() as u64);
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.unlock_range(start, end)
    }
}
