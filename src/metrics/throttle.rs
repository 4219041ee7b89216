//! Keeps a log line that clients can bring about from filling the log.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How often such a line is written at most.
const PAUSE: Duration = Duration::from_secs(10);

/// Lets one line pass in a while, and counts the others.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When the last line was written.
    last: Option<Instant>,
    since: u64,
}

impl Throttle {
    /// `None` when nothing is to be written now; otherwise how many lines were not written since
    /// the last one.
    pub fn pass(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < PAUSE) {
            state.since += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.since))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_passes_in_a_while_and_tells_of_the_others() {
        let throttle = Throttle::default();
        assert_eq!(throttle.pass(), Some(0));
        (0..5).for_each(|_| assert_eq!(throttle.pass(), None));
        advance(PAUSE).await;
        assert_eq!(throttle.pass(), Some(5));
        advance(PAUSE).await;
        assert_eq!(throttle.pass(), Some(0));
    }
}
