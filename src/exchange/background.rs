//! Tasks of a network's own, which go on when their client leaves.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

/// The tasks of one side of a network that run without a client. Dropping the set ends them.
#[derive(Debug, Default)]
pub struct Background(Mutex<JoinSet<()>>);

impl Background {
    /// The tasks that run now; those that have ended are removed first.
    pub fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        // A set has no state that a panic elsewhere could have spoilt.
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks
    }
}
