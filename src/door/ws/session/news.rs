//! What a session waits for beside messages and letters.

use std::future::pending;

use tokio::time::{Instant, sleep_until};

use super::{Closing, Session, Signals, Standing, State};

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
    /// Waits for what may happen at any time. That is one future, since it is most of what an idle
    /// client takes; once something has happened, it is waited for anew. Behind the close frame,
    /// only whoever needs the place is heard.
    pub(super) fn hear(&mut self) {
        let seated = if let Standing::Seated(place) = &self.standing { Some(place.seated()) } else { None };
        let is_open = matches!(self.state, State::Open | State::Leaving(_));
        let (is_up, tick) = (is_open && !self.is_going_down, self.tick);
        let Signals { mut closing, mut reloads } = self.signals.clone();
        self.is_work_new = true;
        self.work.push(Box::pin(async move {
            let crowded = async {
                match &seated {
                    Some(seated) => seated.told_to_go().await,
                    None => pending().await,
                }
            };
            // All arms are cancel-safe. A proxy that is gone goes down.
            tokio::select! {
                biased;
                () = crowded => Event::Crowded,
                _ = closing.wait_for(|closing| *closing), if is_up => Event::GoingDown,
                changed = reloads.changed(), if is_up => {
                    if changed.is_ok() { Event::Reloaded } else { Event::GoingDown }
                }
                () = sleep_until(tick), if is_open => Event::Tick,
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
