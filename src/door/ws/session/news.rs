//! What a session waits for beside messages and letters.

use tokio::time::{Instant, sleep_until};

use super::{Closing, Session, Signals, Standing};

/// What may happen beside messages and letters.
pub(super) enum Event {
    /// A message of so many calls and bytes was served.
    Served(usize, usize, Result<(), Closing>),
    /// It is time to see whether the client is there.
    Tick,
    /// It is time to see whether the client takes what is written.
    Stalled,
    /// It is time to see whether a message that has begun has come.
    Late,
    /// The connection has to go for another.
    Crowded,
    GoingDown,
    Reloaded,
    /// There is no more time for what is under way.
    LastCall,
    /// The client did not close its side.
    Farewell,
}

impl Session {
    /// Waits for another who needs the place, if there is one to give.
    pub(super) fn hear_of_others(&mut self) {
        let Standing::Seated(place) = &self.standing else { return };
        let told = place.told_to_go();
        self.is_work_new = true;
        self.work.push(Box::pin(async move {
            told.await;
            Event::Crowded
        }));
    }

    /// Waits for news of the proxy itself.
    pub(super) fn watch(&mut self) {
        let Signals { mut closing, mut reloads } = self.signals.clone();
        self.is_work_new = true;
        self.work.push(Box::pin(async move {
            // Both arms are cancel-safe. A proxy that is gone goes down.
            tokio::select! {
                biased;
                _ = closing.wait_for(|closing| *closing) => Event::GoingDown,
                changed = reloads.changed() => if changed.is_ok() { Event::Reloaded } else { Event::GoingDown },
            }
        }));
    }

    pub(super) fn at(&mut self, when: Instant, event: fn() -> Event) {
        self.is_work_new = true;
        self.work.push(Box::pin(async move {
            sleep_until(when).await;
            event()
        }));
    }
}
