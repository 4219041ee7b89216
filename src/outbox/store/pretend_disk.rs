//! A pretend disk that holds one file, for tests and the simulation.
//!
//! Writes go into a cache, as in a kernel; only a sync brings them to the platter. The disk can
//! fail a chosen operation and all later ones, hold back syncs, and lose its power: then each write
//! since the last sync is kept whole, kept in part or lost, sector by sector, as the seed says.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use fastrand::Rng;
use redb::StorageBackend;

use super::medium::Medium;

/// The bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// One change of the file.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Arc<[u8]> },
    Resize(usize),
    Sync,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct PretendDisk(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    sync_released: Condvar,
    /// Rises with each loss of power. A handle of an earlier number is dead.
    boot: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The file as programs see it.
    cache: Vec<u8>,
    /// The file as a loss of power would leave it without `unsynced`.
    platter: Vec<u8>,
    unsynced: Vec<Change>,
    /// All changes since the recording began, with the platter of that moment.
    record: Option<(Vec<u8>, Vec<Change>)>,
    fault: Option<Fault>,
    /// The count of changes from which on one fails.
    fail_once: Option<(u64, io::ErrorKind)>,
    /// Changes so far, failed ones included.
    changes: u64,
    hold_syncs: bool,
    waiting_syncs: usize,
    syncs: u64,
    free: Option<u64>,
    read: u64,
    cache_limit: Option<usize>,
}

#[derive(Debug)]
struct Fault {
    /// The count of changes from which on all fail.
    from: u64,
    kind: io::ErrorKind,
    /// Only syncs fail.
    only_syncs: bool,
    rng: Rng,
}

/// An open file of the disk.
#[derive(Debug)]
struct Handle {
    disk: PretendDisk,
    boot: u64,
}

impl PretendDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file as programs see it.
    pub fn bytes(&self) -> Vec<u8> {
        self.state().cache.clone()
    }

    /// How many changes (writes, resizes, syncs) the disk was asked for.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// Lets the change after `more` further ones fail, and all later ones, until
    /// [`mend`](Self::mend). A failed write may leave some of its sectors.
    pub fn fail_after(&self, more: u64, kind: io::ErrorKind, seed: u64) {
        let mut state = self.state();
        let from = state.changes + more;
        state.fault = Some(Fault { from, kind, only_syncs: false, rng: Rng::with_seed(seed) });
    }

    /// Lets all syncs fail until [`mend`](Self::mend). After a failed sync the cache holds bytes
    /// that no later sync brings to the platter, as on Linux.
    pub fn fail_syncs(&self, kind: io::ErrorKind, seed: u64) {
        let mut state = self.state();
        let from = state.changes;
        state.fault = Some(Fault { from, kind, only_syncs: true, rng: Rng::with_seed(seed) });
    }

    /// Lets the next change fail, and only that one.
    pub fn fail_once(&self, kind: io::ErrorKind) {
        self.fail_once_after(0, kind);
    }

    /// Lets the change after `more` further ones fail, and only that one.
    pub fn fail_once_after(&self, more: u64, kind: io::ErrorKind) {
        let mut state = self.state();
        state.fail_once = Some((state.changes + more, kind));
    }

    /// Ends a fault, also one that is to come.
    pub fn mend(&self) {
        let mut state = self.state();
        (state.fault, state.fail_once) = (None, None);
    }

    /// Sets the room that the disk reports, in bytes; `None` is "unknown".
    pub fn set_free(&self, free: Option<u64>) {
        self.state().free = free;
    }

    /// Sets the bytes that a database may keep in memory, from its next opening on.
    pub fn set_cache(&self, bytes: usize) {
        self.state().cache_limit = Some(bytes);
    }

    /// How many bytes were read.
    pub fn bytes_read(&self) -> u64 {
        self.state().read
    }

    /// Holds back all syncs until [`release_syncs`](Self::release_syncs).
    pub fn hold_syncs(&self) {
        self.state().hold_syncs = true;
    }

    /// Lets the syncs that were held back go on.
    pub fn release_syncs(&self) {
        self.state().hold_syncs = false;
        self.0.sync_released.notify_all();
    }

    /// How many syncs succeeded.
    pub fn syncs(&self) -> u64 {
        self.state().syncs
    }

    /// How many syncs are held back now.
    pub fn waiting_syncs(&self) -> usize {
        self.state().waiting_syncs
    }

    /// Cuts the power and gives it back: open handles are dead, and of the changes since the last
    /// sync those stay that `seed` chooses.
    pub fn cut_power(&self, seed: u64) {
        let mut state = self.state();
        self.0.boot.fetch_add(1, Ordering::SeqCst);
        let unsynced = std::mem::take(&mut state.unsynced);
        tear(&mut state.platter, &unsynced, &mut Rng::with_seed(seed));
        state.cache = state.platter.clone();
        state.fault = None;
        state.hold_syncs = false;
        self.0.sync_released.notify_all();
    }

    /// Remembers all changes from now on, for [`crashes`](Self::crashes). What is not synced yet
    /// counts as synced.
    pub fn record(&self) {
        let mut state = self.state();
        state.platter = state.cache.clone();
        state.unsynced.clear();
        state.record = Some((state.cache.clone(), Vec::new()));
        state.changes = 0;
    }

    /// For each change since [`record`](Self::record): the number of changes made until then, and
    /// the disk that a loss of power would leave at that moment.
    pub fn crashes(&self, seed: u64) -> impl Iterator<Item = (u64, PretendDisk)> {
        let (mut platter, changes) = self.state().record.clone().unwrap_or_default();
        let mut unsynced = Vec::new();
        let mut rng = Rng::with_seed(seed);
        changes.into_iter().enumerate().map(move |(index, change)| {
            if let Change::Sync = change {
                unsynced.drain(..).for_each(|change| apply(&mut platter, &change));
            } else {
                unsynced.push(change);
            }
            let mut torn = platter.clone();
            tear(&mut torn, &unsynced, &mut rng);
            let state = State { cache: torn.clone(), platter: torn, ..State::default() };
            (index as u64 + 1, PretendDisk(Arc::new(Inner { state: Mutex::new(state), ..Inner::default() })))
        })
    }
}

/// Makes `change` in `file`.
fn apply(file: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes } => {
            let end = offset + bytes.len();
            if file.len() < end {
                file.resize(end, 0);
            }
            file[*offset..end].copy_from_slice(bytes);
        }
        Change::Resize(length) => file.resize(*length, 0),
        Change::Sync => {}
    }
}

/// Makes a choice of `changes` in `file`: a disk writes its cache in any order, sector by sector.
/// The length of the file is in the file system's journal, so lengths are kept up to some moment.
fn tear(file: &mut Vec<u8>, changes: &[Change], rng: &mut Rng) {
    let resizes = rng.usize(0..=changes.len());
    let (lost, torn) = (rng.f64(), rng.f64());
    for (index, change) in changes.iter().enumerate() {
        match change {
            Change::Resize(_) if index < resizes => apply(file, change),
            Change::Write { offset, bytes } if rng.f64() >= lost => {
                let is_torn = rng.f64() < torn;
                for (index, sector) in bytes.chunks(SECTOR).enumerate() {
                    if !is_torn || rng.bool() {
                        let start = (offset + index * SECTOR).min(file.len());
                        let end = (start + sector.len()).min(file.len());
                        file[start..end].copy_from_slice(&sector[..end - start]);
                    }
                }
            }
            _ => {}
        }
    }
}

impl State {
    /// Makes `change`, or fails as the fault says.
    fn make(&mut self, change: Change) -> io::Result<()> {
        let number = self.changes;
        self.changes += 1;
        if let Some((_, kind)) = self.fail_once.take_if(|(from, _)| number >= *from) {
            self.fault = Some(Fault { from: number, kind, only_syncs: false, rng: Rng::with_seed(number) });
            let result = self.make_or_fail(number, change);
            self.fault = None;
            return result;
        }
        self.make_or_fail(number, change)
    }

    fn make_or_fail(&mut self, number: u64, change: Change) -> io::Result<()> {
        let is_sync = matches!(change, Change::Sync);
        if let Some(fault) = &mut self.fault
            && number >= fault.from
            && (is_sync || !fault.only_syncs)
        {
            let error = io::Error::new(fault.kind, "the pretend disk fails");
            match change {
                // The kernel has taken the pages off its list: some were written, and no later
                // sync looks at the others.
                Change::Sync => {
                    let unsynced = std::mem::take(&mut self.unsynced);
                    tear(&mut self.platter, &unsynced, &mut fault.rng);
                }
                Change::Write { offset, bytes } => {
                    let kept = fault.rng.usize(0..=bytes.len() / SECTOR) * SECTOR;
                    let part = Change::Write { offset, bytes: bytes[..kept].into() };
                    if offset + kept <= self.cache.len() {
                        apply(&mut self.cache, &part);
                        self.unsynced.push(part);
                    }
                }
                Change::Resize(_) => {}
            }
            return Err(error);
        }
        if let Some((_, changes)) = &mut self.record {
            changes.push(change.clone());
        }
        if is_sync {
            self.syncs += 1;
            let Self { unsynced, platter, .. } = self;
            unsynced.drain(..).for_each(|change| apply(platter, &change));
        } else {
            apply(&mut self.cache, &change);
            self.unsynced.push(change);
        }
        Ok(())
    }
}

impl Handle {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if self.boot != self.disk.0.boot.load(Ordering::SeqCst) {
            return Err(io::Error::other("the pretend disk has lost its power"));
        }
        Ok(state)
    }
}

/// The disk's file, open.
#[cfg(test)]
pub(super) fn handle(disk: &PretendDisk) -> impl StorageBackend {
    Handle { disk: disk.clone(), boot: disk.0.boot.load(Ordering::SeqCst) }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state()?;
        state.read += out.len() as u64;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let from = state.cache.get(start..start + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.state()?.make(Change::Resize(usize::try_from(len).map_err(io::Error::other)?))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.waiting_syncs += 1;
        while state.hold_syncs {
            state = self.disk.0.sync_released.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting_syncs -= 1;
        drop(state);
        self.state()?.make(Change::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        self.state()?.make(Change::Write { offset, bytes: data.into() })
    }
}

impl Medium for PretendDisk {
    fn open(&self) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(Handle { disk: self.clone(), boot: self.0.boot.load(Ordering::SeqCst) }))
    }

    fn open_to_read(&self) -> io::Result<Box<dyn StorageBackend>> {
        self.open()
    }

    fn free(&self) -> Option<u64> {
        self.state().free
    }

    fn probe(&self) -> io::Result<()> {
        let state = self.state();
        match &state.fault {
            Some(fault) if state.changes >= fault.from => Err(fault.kind.into()),
            _ => Ok(()),
        }
    }

    fn forget_cache(&self) -> io::Result<()> {
        // As in a kernel, only pages that no sync would write any more are dropped.
        let mut state = self.state();
        let mut cache = state.platter.clone();
        state.unsynced.iter().for_each(|change| apply(&mut cache, change));
        state.cache = cache;
        Ok(())
    }

    fn cache(&self) -> usize {
        self.state().cache_limit.unwrap_or(super::database::CACHE)
    }

    fn name(&self) -> String {
        "the pretend disk".to_owned()
    }
}
