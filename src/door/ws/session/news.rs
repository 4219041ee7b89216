//! Events of a session other than messages from and to the client.

use std::future::pending;

use tokio::time::{Instant, sleep_until};

use super::{Closing, SeatState, Session, Signals, State};

/// An event other than a message from or to the client.
pub(super) enum Event {
    /// A message of so many calls and bytes was served.
    Served(usize, usize, Result<(), Closing>),
    /// The client's life is due to be checked.
    Tick,
    /// The client's taking of written bytes is due to be checked.
    Stalled,
    /// A message that has begun is due to be whole.
    Late,
    /// The connection has to go for another.
    Crowded,
    GoingDown,
    Reloaded,
    /// The time of the calls under way is over.
    LastCall,
    /// The client did not close its side.
    Farewell,
}

impl Session {
    /// Waits for events that may come at any time. All are one future, since that future is most of
    /// an idle client's memory; after each event a new future waits. Behind the close frame, only
    /// [`Event::Crowded`] is still waited for.
    pub(super) fn hear(&mut self) {
        let seated = if let SeatState::Seated(place) = &self.standing { Some(place.seated()) } else { None };
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
            // All arms are cancel-safe. A proxy that is gone counts as going down.
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
