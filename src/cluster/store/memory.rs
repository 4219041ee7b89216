//! The store in memory: for one replica, and for simulations with several.
//!
//! [`Memory`] is the server, [`MemoryStore`] one replica's way to it. Time is tokio's and chance
//! comes from a seed, so the same calls in the same order have the same outcome. Without faults a
//! call ends at its first poll.

mod bucket;
mod fault;
mod feed;
mod server;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

pub use self::fault::{Chances, Fault};
use self::{
    bucket::Write,
    fault::{Fate, Outcome, Reach},
    feed::MemoryFeed,
    server::Server,
};
use super::{
    Entry, Incarnation, Key, Listing, MAX_LISTED, MAX_VALUE, Prefix, ReadError, Revision, Store, StoreTime, Ttl, Watch,
    WriteError,
};

/// The usual time of a store at its start: 2024-01-01. Far from any clock of a replica.
const DAWN: StoreTime = StoreTime::from_nanos(1_704_067_200_000_000_000);
/// The fault of a client that knows that it is cut off.
const REFUSED: &str = "the client is cut off";
/// The fault of a call without an answer.
const NO_ANSWER: &str = "no answer in time";

/// How a store in memory behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The source of all chance.
    pub seed: u64,
    /// After this time a call without an answer has failed.
    pub timeout: Duration,
    /// The time between two listings of a watch.
    pub relist: Duration,
    /// Whether watchers are told of expiry, as by servers from 2.11 on. Else a listing finds it.
    pub tells_expiry: bool,
    /// The store's time at the start.
    pub dawn: StoreTime,
}

impl Default for Settings {
    fn default() -> Self {
        let (timeout, relist) = (Duration::from_secs(2), Duration::from_secs(5));
        Self { seed: 0, timeout, relist, tells_expiry: true, dawn: DAWN }
    }
}

/// A bucket at an earlier moment.
#[derive(Clone, Debug)]
pub struct Backup(bucket::Bucket);

/// The server: holds the bucket, and the faults of each client. Clones are the same server.
#[derive(Clone)]
pub struct Memory {
    settings: Arc<Settings>,
    server: Arc<Mutex<Server>>,
    /// Rises when a watcher may have something to do.
    changed: watch::Sender<u64>,
}

impl Memory {
    /// An empty bucket. Time begins here, so a call outside a tokio runtime panics.
    pub fn new(settings: Settings) -> Self {
        let server = Server::new(settings.seed, settings.tells_expiry, (Instant::now(), settings.dawn));
        Self { settings: Arc::new(settings), server: Arc::new(Mutex::new(server)), changed: watch::Sender::new(0) }
    }

    /// A way to the server. Faults are by the client's name; two ways of one name share them.
    pub fn client(&self, name: &str) -> MemoryStore {
        MemoryStore { memory: self.clone(), name: name.into() }
    }

    /// Cuts a client off in silence: its calls have no answer, its watches no event.
    pub fn cut(&self, client: &str) {
        self.change(|server| server.client(client).reach = Reach::Cut);
    }

    /// Cuts a client off so that it knows: its calls are [`WriteError::Unavailable`] at once.
    pub fn refuse(&self, client: &str) {
        self.change(|server| server.client(client).reach = Reach::Refused);
    }

    /// Ends [`Memory::cut`] and [`Memory::refuse`]. The client's watches list anew at once.
    pub fn heal(&self, client: &str) {
        self.change(|server| {
            server.client(client).reach = Reach::Open;
            server.relist(client);
        });
    }

    /// Gives a fault to the client's next write that has none yet.
    pub fn inject(&self, client: &str, fault: Fault) {
        self.change(|server| server.client(client).next.push_back(fault));
    }

    /// Takes back the faults that are to come: those of [`Memory::inject`] and of
    /// [`Memory::lose_messages`].
    pub fn spare(&self, client: &str) {
        self.change(|server| {
            let client = server.client(client);
            client.next.clear();
            client.lost_messages = 0;
        });
    }

    /// Gives faults to the client's writes by chance from now on.
    pub fn set_chances(&self, client: &str, chances: Chances) {
        self.change(|server| server.client(client).chances = chances);
    }

    /// Loses the next `count` messages of the client's watches. A listing finds what they told.
    pub fn lose_messages(&self, client: &str, count: u32) {
        self.change(|server| server.client(client).lost_messages += count);
    }

    /// Makes the bucket anew: empty, with another incarnation, and with revisions that may be
    /// higher or lower than those before. Watchers are not told; a listing finds it.
    pub fn recreate(&self) {
        self.change(Server::recreate);
    }

    /// The bucket as it is now, for [`Memory::restore`].
    pub fn backup(&self) -> Backup {
        Backup(self.lock().bucket.clone())
    }

    /// Sets the bucket back, as a restored disk does: the same incarnation, with earlier entries
    /// and revisions. Watchers are not told; a listing finds it.
    pub fn restore(&self, backup: &Backup) {
        self.change(|server| server.replace(backup.0.clone()));
    }

    /// Removes every entry. Revisions go on. Watchers are not told; a listing finds it.
    pub fn empty(&self) {
        self.change(|server| server.bucket.empty());
    }

    /// The bucket as text, one entry a line, for the report of a test that failed.
    pub fn dump(&self) -> String {
        self.lock().dump()
    }

    fn change(&self, change: impl FnOnce(&mut Server)) {
        change(&mut self.lock());
        self.wake();
    }

    fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    /// The server, after all that is due by now has happened.
    fn lock(&self) -> MutexGuard<'_, Server> {
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if server.settle(Instant::now()) {
            self.wake();
        }
        server
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// One client's way to a [`Memory`].
#[derive(Clone, Debug)]
pub struct MemoryStore {
    memory: Memory,
    name: Arc<str>,
}

impl MemoryStore {
    async fn write(&self, write: Write) -> Result<Revision, WriteError> {
        if write.length() > MAX_VALUE {
            let text = format!("the value has {} bytes, of {MAX_VALUE} at most", write.length());
            return Err(WriteError::Malformed(text));
        }
        let Fate { before, outcome, after } = self.memory.lock().write_fate(&self.name);
        pause(before).await;
        let result = match (outcome, self.reach()) {
            (Outcome::Refused, _) | (_, Reach::Refused) => {
                return Err(WriteError::Unavailable(REFUSED.to_owned()));
            }
            (Outcome::Lost, _) | (_, Reach::Cut) => None,
            (Outcome::Late(by), Reach::Open) => {
                self.memory.change(|server| server.write_later(by, write));
                None
            }
            (Outcome::NoAck, Reach::Open) => {
                let _ = self.apply(write);
                None
            }
            (Outcome::Answered, Reach::Open) => Some(self.apply(write)),
        };
        pause(after).await;
        match result {
            Some(result) if self.reach() == Reach::Open => result.map_err(|found| WriteError::Conflict { found }),
            _ => {
                sleep(self.memory.settings.timeout).await;
                Err(WriteError::Ambiguous(NO_ANSWER.to_owned()))
            }
        }
    }

    fn reach(&self) -> Reach {
        self.memory.lock().reach(&self.name)
    }

    fn apply(&self, write: Write) -> Result<Revision, Option<Revision>> {
        let result = self.memory.lock().apply(write, Instant::now());
        self.memory.wake();
        result
    }

    async fn ask<T>(&self, question: impl FnOnce(&Server) -> T + Send) -> Result<T, ReadError> {
        let Fate { before, outcome, after } = self.memory.lock().read_fate(&self.name);
        pause(before).await;
        let answer = {
            let server = self.memory.lock();
            match (outcome, server.reach(&self.name)) {
                (Outcome::Refused, _) | (_, Reach::Refused) => {
                    return Err(ReadError::Unavailable(REFUSED.to_owned()));
                }
                (Outcome::Answered, Reach::Open) => Some(question(&server)),
                _ => None,
            }
        };
        pause(after).await;
        match answer {
            Some(answer) if self.reach() == Reach::Open => Ok(answer),
            _ => {
                sleep(self.memory.settings.timeout).await;
                Err(ReadError::Unavailable(NO_ANSWER.to_owned()))
            }
        }
    }
}

impl Store for MemoryStore {
    fn create<'a>(
        &'a self,
        key: &'a Key,
        value: Bytes,
        ttl: Option<Ttl>,
    ) -> BoxFuture<'a, Result<Revision, WriteError>> {
        Box::pin(self.write(Write::Create { key: key.clone(), value, ttl }))
    }

    fn compare_and_set<'a>(
        &'a self,
        key: &'a Key,
        seen: Revision,
        value: Bytes,
        ttl: Option<Ttl>,
    ) -> BoxFuture<'a, Result<Revision, WriteError>> {
        Box::pin(self.write(Write::Set { key: key.clone(), seen, value, ttl }))
    }

    fn compare_and_delete<'a>(&'a self, key: &'a Key, seen: Revision) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move { self.write(Write::Delete { key: key.clone(), seen }).await.map(|_| ()) })
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, ReadError>> {
        Box::pin(self.ask(|server| server.bucket.read(key)))
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, ReadError>> {
        Box::pin(async move {
            let listing = self.ask(|server| server.bucket.list(prefix)).await?;
            if listing.entries.len() > MAX_LISTED {
                let text = format!("more than {MAX_LISTED} entries");
                return Err(ReadError::Malformed(text));
            }
            Ok(listing)
        })
    }

    fn watch(&self, prefix: &Prefix) -> Watch {
        Watch::over(MemoryFeed::new(self.memory.clone(), &self.name, prefix.clone()))
    }

    fn incarnation(&self) -> BoxFuture<'_, Result<Incarnation, ReadError>> {
        Box::pin(self.ask(|server| server.bucket.incarnation))
    }

    fn can_expire(&self) -> bool {
        true
    }
}

async fn pause(span: Duration) {
    if !span.is_zero() {
        sleep(span).await;
    }
}
