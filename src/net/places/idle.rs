//! Connections between two requests, each with the worker that opened it: a connection is used by its own runtime only. Any may close it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

use crate::net::{exchange::Conn, upstream::worker};

/// How long an idle connection is kept. Nodes close theirs after anything from 5 s to 2 min; a closed one is noticed when it is taken.
const KEEP: Duration = Duration::from_secs(60);
/// How many idle connections each worker keeps to a node.
const MOST: usize = 256;

/// The idle connections of one worker, each with the moment it became idle: the oldest lie at the bottom.
type Shard = Mutex<Vec<(Conn, Instant)>>;

/// All idle connections to a node. What comes out is dropped by the caller, when no lock is held any more.
pub(super) struct Idle {
    shards: Box<[Shard]>,
}

impl Idle {
    pub(super) fn new(workers: usize) -> Self {
        Self { shards: (0..=workers).map(|_| Mutex::default()).collect() }
    }

    /// One of this worker's that the node has left alone.
    pub(super) fn take(&self) -> Option<Conn> {
        loop {
            let (mut conn, _) = self.own().pop()?;
            if conn.is_quiet() {
                return Some(conn);
            }
        }
    }

    /// Keeps one for this worker. It comes back when it is `wanted`, which is asked when others can find it already, or when there are
    /// too many.
    pub(super) fn put(&self, conn: Conn, wanted: impl FnOnce() -> bool) -> Option<Conn> {
        let mut shard = self.own();
        if shard.len() >= MOST {
            return Some(conn);
        }
        shard.push((conn, Instant::now()));
        if wanted() { shard.pop().map(|(conn, _)| conn) } else { None }
    }

    /// The one that has lain longest, of any worker.
    pub(super) fn oldest(&self) -> Option<Conn> {
        let age = |shard: &Shard| lock(shard).first().map(|(_, since)| *since);
        loop {
            let (_, shard) =
                self.shards.iter().filter_map(|shard| Some((age(shard)?, shard))).min_by_key(|(age, _)| *age)?;
            let mut shard = lock(shard);
            // Its worker may have taken the last one just now, and others have some.
            if !shard.is_empty() {
                return Some(shard.remove(0).0);
            }
        }
    }

    /// Those that nobody has used for a while.
    pub(super) fn stale(&self, now: Instant) -> Vec<(Conn, Instant)> {
        let mut stale = Vec::new();
        for shard in &self.shards {
            let mut shard = lock(shard);
            let count = shard.iter().take_while(|(_, since)| now.saturating_duration_since(*since) > KEEP).count();
            stale.extend(shard.drain(..count));
        }
        stale
    }

    pub(super) fn all(&self) -> Vec<(Conn, Instant)> {
        self.shards.iter().flat_map(|shard| std::mem::take(&mut *lock(shard))).collect()
    }

    /// Keeps everybody from this worker's.
    #[cfg(test)]
    pub(super) fn locked(&self) -> MutexGuard<'_, Vec<(Conn, Instant)>> {
        self.own()
    }

    fn own(&self) -> MutexGuard<'_, Vec<(Conn, Instant)>> {
        lock(&self.shards[worker().min(self.shards.len() - 1)])
    }
}

/// A list of connections is whole at every moment, so a panic elsewhere cannot have spoilt it.
fn lock(shard: &Shard) -> MutexGuard<'_, Vec<(Conn, Instant)>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
