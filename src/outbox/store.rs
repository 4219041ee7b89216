//! The outbox on disk: one file, one writer, readers beside the writer.
//!
//! [`Store::commit`] is the only way to change a row. Its future ends after the disk has synced
//! the transaction that holds the step, and at no earlier time: the writer sends the answer, behind
//! the commit. Steps that wait together share one transaction and one sync, in their order.
//!
//! After a failed write the database is opened anew, and the steps of that transaction are there
//! either all or none; their callers hear which. Where the disk takes no writes, rows can be read
//! still, and each commit asks the disk again.

mod apply;
mod database;
mod error;
mod given_up;
mod line;
mod medium;
mod pages;
pub mod pretend_disk;
mod reader;
mod retention;
mod tables;
mod traces;
mod watched;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    future::Future,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    thread,
};

use tokio::sync::{mpsc, oneshot, watch};

pub use self::{
    error::{OpenError, StoreError},
    given_up::GivenUpPlace,
    line::Line,
    medium::{FILE, Folder, Medium, try_folder},
    pages::{Filter, MOST_LOOKED_AT, Page, Sums},
    reader::{Due, Reader},
    retention::Overdue,
    tables::{FORMAT, Kind},
    writer::RESERVE,
};

use self::{
    database::Open,
    line::LineState,
    writer::{Message, Queued, Writer},
};

use super::step::Step;

/// Steps that may wait for the writer. A caller with one more waits until there is room.
const QUEUE: usize = 4096;

/// The store. Clones are the same store; when the last is dropped, the writer writes the steps
/// that wait and closes the file.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    way: Way,
}

/// How steps come to the writer.
#[derive(Clone, Debug)]
enum Way {
    /// To a thread of its own.
    Queue(mpsc::Sender<Message>),
    /// At once, in the thread that commits. For simulations, whose order of events must not depend
    /// on threads.
    Inline(Arc<Mutex<Writer>>),
}

/// Whether the store takes steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// As far as is known, yes.
    #[default]
    Writable,
    /// The disk has no room but for the rest of the life of accepted transactions, or none at all.
    Full(String),
    /// The disk takes no writes.
    Unwritable(String),
}

impl Health {
    fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Full(text) => Self::Full(text.clone()),
            StoreError::Unwritable(text) | StoreError::Unsure(text) => Self::Unwritable(text.clone()),
            error => Self::Unwritable(error.to_string()),
        }
    }

    /// A write has not ended for long.
    fn hanging() -> Self {
        Self::Unwritable("the disk does not answer".to_owned())
    }
}

/// The store's parts that the writer and the readers share.
#[derive(Debug)]
struct Shared {
    medium: Box<dyn Medium>,
    /// `None` while the database is opened anew, and after the end.
    open: RwLock<Option<Open>>,
    health: watch::Sender<Health>,
    /// Rises with the begin and with the end of each write: odd while one is under way.
    writes: AtomicU64,
    /// Rises when rows that were read or written may not be in the file any more.
    generation: AtomicU64,
    is_closed: AtomicBool,
}

impl Store {
    /// Opens the store in the directory `dir`, or makes one there. The writer gets a thread.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let folder = Folder::new(dir).map_err(|error| OpenError::Io(dir.display().to_string(), error))?;
        folder.create()?;
        Self::over(Box::new(folder))
    }

    /// Opens the store over `medium`. The writer gets a thread.
    pub fn over(medium: Box<dyn Medium>) -> Result<Self, OpenError> {
        let (shared, writer) = Shared::open(medium)?;
        let (queue, messages) = mpsc::channel(QUEUE);
        let name = shared.medium.name();
        thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || writer.run(messages))
            .map_err(|error| OpenError::Io(name, error))?;
        Ok(Self { shared, way: Way::Queue(queue) })
    }

    /// Opens the store over `medium`, without a thread: a commit is done when the step is handed
    /// in.
    pub fn inline(medium: Box<dyn Medium>) -> Result<Self, OpenError> {
        let (shared, writer) = Shared::open(medium)?;
        Ok(Self { shared, way: Way::Inline(Arc::new(Mutex::new(writer))) })
    }

    /// Commits a step that rests on no other: ends once the step is on the disk. An empty step asks
    /// whether the disk takes writes.
    pub async fn commit(&self, step: Step) -> Result<(), StoreError> {
        self.submit(step).await?.await
    }

    /// Hands a step in that rests on no other, as [`Line::submit`].
    pub async fn submit(&self, step: Step) -> Result<Pending, StoreError> {
        self.enqueue(step, None).await
    }

    /// A new line of steps that rest on each other.
    pub fn line(&self) -> Line {
        Line::new(self.clone())
    }

    /// The store as it is now, without steps whose commit has not ended.
    pub fn read(&self) -> Result<Reader, StoreError> {
        self.shared.reader()
    }

    /// Reads many rows, on a thread that may wait for the disk: a thread that serves clients must
    /// not. In a simulation at once, since its order of events must not depend on threads.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn read_long<T: Send + 'static>(
        &self,
        rows: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        if matches!(self.way, Way::Inline(_)) {
            return rows(&self.read()?);
        }
        let store = self.clone();
        let read = tokio::task::spawn_blocking(move || rows(&store.read()?)).await;
        read.unwrap_or_else(|ended| match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends.
            Err(_) => Err(StoreError::Closed),
        })
    }

    /// Whether the store takes steps, and each change of that.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// The number of the write that is under way.
    pub fn write_under_way(&self) -> Option<u64> {
        Some(self.shared.writes.load(Ordering::SeqCst)).filter(|number| number % 2 == 1)
    }

    /// Has the store count as unwritable until the write that is under way ends: the disk hangs.
    pub fn note_hang(&self) {
        self.shared.set_health(Health::hanging());
    }

    /// Writes the steps that wait, and closes the file. Later steps fail.
    pub async fn close(self) {
        match &self.way {
            Way::Queue(queue) => {
                let (closed, end) = oneshot::channel();
                if queue.send(Message::Close(closed)).await.is_ok() {
                    _ = end.await;
                }
            }
            Way::Inline(_) => self.shared.close(),
        }
    }

    fn generation(&self) -> u64 {
        self.shared.generation()
    }

    async fn enqueue(&self, step: Step, line: Option<Arc<LineState>>) -> Result<Pending, StoreError> {
        let (answer, pending) = oneshot::channel();
        let queued = Queued { step, line, answer };
        match &self.way {
            Way::Queue(queue) => queue.send(Message::Commit(queued)).await.map_err(|_| StoreError::Closed)?,
            Way::Inline(writer) => {
                writer.lock().unwrap_or_else(PoisonError::into_inner).commit(vec![queued]);
            }
        }
        Ok(Pending(pending))
    }
}

/// A step that was handed in. Ends when the step is on the disk, or cannot come there.
#[derive(Debug)]
#[must_use = "only the end of this says that the step is on the disk"]
pub struct Pending(oneshot::Receiver<Result<(), StoreError>>);

impl Future for Pending {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(answer.unwrap_or(Err(StoreError::Closed)))
    }
}

impl Shared {
    fn open(medium: Box<dyn Medium>) -> Result<(Arc<Self>, Writer), OpenError> {
        let (open, health) = match Open::real(&*medium, true) {
            Ok(open) => (open, Health::Writable),
            // A disk that is full or takes no writes today must not keep the proxy from its start.
            Err(OpenError::Io(name, error)) if is_passing(&error) => {
                let health = Health::of(&StoreError::of_io(&error));
                (Open::to_read(&*medium).map_err(|_| OpenError::Io(name, error))?, health)
            }
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Self {
            medium,
            open: RwLock::new(Some(open)),
            health: watch::Sender::new(health),
            writes: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
        });
        let writer = Writer::new(Arc::clone(&shared));
        let writer = writer.map_err(|error| OpenError::Damaged(shared.medium.name(), error.to_string()))?;
        Ok((shared, writer))
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Open>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Open> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, open: Open) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(open);
    }

    fn is_real(&self) -> bool {
        self.database().as_ref().is_some_and(|open| open.is_real)
    }

    fn reader(&self) -> Result<Reader, StoreError> {
        match self.database().as_ref() {
            Some(open) => Ok(open.reader()),
            None if self.is_closed() => Err(StoreError::Closed),
            None => Err(StoreError::Reopening),
        }
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Breaks all lines, and says why no step is taken.
    fn lose(&self, error: &StoreError) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.set_health(Health::of(error));
    }

    fn set_health(&self, health: Health) {
        self.health.send_if_modified(|now| {
            let changes = *now != health;
            *now = health;
            changes
        });
    }

    fn begin_write(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
    }

    fn end_write(&self) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        // A fault that the write met stays.
        self.health.send_if_modified(|now| {
            let hung = *now == Health::hanging();
            if hung {
                *now = Health::Writable;
            }
            hung
        });
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        drop(self.take());
    }
}

/// Whether a disk that fails so may work again without an operator's change of the configuration.
fn is_passing(error: &std::io::Error) -> bool {
    use ErrorKind::{InvalidData, IsADirectory, NotFound, PermissionDenied};
    use std::io::ErrorKind;
    !matches!(error.kind(), PermissionDenied | NotFound | IsADirectory | InvalidData)
}
