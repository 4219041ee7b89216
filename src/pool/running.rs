//! Tasks that run until their owner drops them.

use tokio::task::JoinSet;

/// Running tasks; dropping this ends them.
pub struct Running {
    tasks: JoinSet<()>,
}

impl Running {
    /// Holds `tasks`, of which none ends by itself.
    pub(crate) fn new(tasks: JoinSet<()>) -> Self {
        Self { tasks }
    }

    /// Waits for a task to end, though none ends by itself, and returns how the task ended.
    /// Cancel-safe.
    pub async fn broken(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "a task ended".to_owned(),
        }
    }
}
