//! Idle connections, each with the worker that opened it. Only the runtime of that worker may use
//! the connection; any thread may close it.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::time::{Duration, Instant};

use crate::net::{http::Conn, worker::worker};

/// How long an idle connection is kept. Nodes close theirs after 5 s to 2 min; a closed connection
/// is noticed when taken.
const KEEP: Duration = Duration::from_secs(60);
/// How many idle connections each worker keeps to a node.
const MAX_IDLE: usize = 256;

/// The idle connections of one worker.
#[derive(Default)]
struct Shard {
    /// Each with the moment when it became idle, oldest first.
    conns: Mutex<Vec<(Box<Conn>, Instant)>>,
    /// How many there are, to be read without the lock.
    count: AtomicUsize,
}

impl Shard {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<(Box<Conn>, Instant)>) -> T) -> T {
        let mut conns = lock(&self.conns);
        let outcome = act(&mut conns);
        self.count.store(conns.len(), SeqCst);
        outcome
    }
}

/// All idle connections to a node. Callers drop the connections that these functions return after
/// the lock is released.
pub(super) struct Idle {
    shards: Box<[Shard]>,
}

impl Idle {
    pub(super) fn new(workers: usize) -> Self {
        Self { shards: (0..=workers).map(|_| Shard::default()).collect() }
    }

    /// Takes an idle connection of this worker that the node has left alone.
    pub(super) fn take(&self) -> Option<Box<Conn>> {
        loop {
            let (mut conn, _) = self.own().with(Vec::pop)?;
            if conn.is_quiet() {
                return Some(conn);
            }
        }
    }

    /// Keeps a connection for this worker. Returns the connection if too many are kept, or if
    /// `wanted` says so, which is called after other threads can see the connection.
    pub(super) fn put(&self, conn: Box<Conn>, wanted: impl FnOnce() -> bool) -> Option<Box<Conn>> {
        self.own().with(|conns| {
            if conns.len() >= MAX_IDLE {
                return Some(conn);
            }
            conns.push((conn, Instant::now()));
            // A request that begins to wait is counted first and then reads this count. So either
            // the request sees this connection, or `wanted` sees the request.
            self.own().count.store(conns.len(), SeqCst);
            if wanted() { conns.pop().map(|(conn, _)| conn) } else { None }
        })
    }

    /// Whether there are more than so many. This worker's are looked at first: others' counts lie
    /// in the caches of other cores.
    pub(super) fn is_more_than(&self, most: usize) -> bool {
        let mut count = self.own().count.load(SeqCst);
        let others = || self.shards.iter().filter(|shard| !std::ptr::eq(*shard, self.own()));
        count > most
            || others().any(|shard| {
                count += shard.count.load(SeqCst);
                count > most
            })
    }

    /// The one that has lain longest, of any worker.
    pub(super) fn oldest(&self) -> Option<Box<Conn>> {
        let age = |shard: &Shard| lock(&shard.conns).first().map(|(_, since)| *since);
        loop {
            let (_, shard) =
                self.shards.iter().filter_map(|shard| Some((age(shard)?, shard))).min_by_key(|(age, _)| *age)?;
            // Its worker may have taken the last one just now, and others have some.
            let oldest = shard.with(|conns| if conns.is_empty() { None } else { Some(conns.remove(0).0) });
            if oldest.is_some() {
                return oldest;
            }
        }
    }

    /// Takes out the connections that were idle for too long.
    pub(super) fn stale(&self, now: Instant) -> Vec<(Box<Conn>, Instant)> {
        let mut stale = Vec::new();
        for shard in &self.shards {
            shard.with(|conns| {
                let count = conns.iter().take_while(|(_, since)| now.saturating_duration_since(*since) > KEEP).count();
                stale.extend(conns.drain(..count));
            });
        }
        stale
    }

    pub(super) fn all(&self) -> Vec<(Box<Conn>, Instant)> {
        self.shards.iter().flat_map(|shard| shard.with(std::mem::take)).collect()
    }

    /// Keeps everybody from this worker's.
    #[cfg(test)]
    pub(super) fn locked(&self) -> MutexGuard<'_, Vec<(Box<Conn>, Instant)>> {
        lock(&self.own().conns)
    }

    fn own(&self) -> &Shard {
        &self.shards[worker().min(self.shards.len() - 1)]
    }
}

/// Every change is made whole under the lock, so a panic elsewhere cannot have spoilt the list.
fn lock(conns: &Mutex<Vec<(Box<Conn>, Instant)>>) -> MutexGuard<'_, Vec<(Box<Conn>, Instant)>> {
    conns.lock().unwrap_or_else(PoisonError::into_inner)
}
