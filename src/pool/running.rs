//! Tasks that run until their owner drops them.

use tokio::task::JoinSet;

/// The tasks behind something that runs; they end when this is dropped.
pub struct Running {
    tasks: JoinSet<()>,
}

impl Running {
    /// Holds `tasks`, of which none ends by itself.
    pub(crate) fn new(tasks: JoinSet<()>) -> Self {
        Self { tasks }
    }

    /// Waits for a task to end, which none does by itself: the text says how it came about.
    /// Cancel-safe.
    pub async fn broken(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "a task ended".to_owned(),
        }
    }
}
