//! A watch of the bucket: one task that listens to the stream and lists now and then.
//!
//! The stream tells neither of a purge nor, before 2.11, of expiry, and a consumer that is resumed
//! does not tell that the bucket is another. So the task lists the bucket after each connection and
//! in between, and the copy turns the difference into events.

use std::{convert::Infallible, sync::Arc, sync::PoisonError, time::Duration};

use async_nats::jetstream::{Message, consumer::DeliverPolicy};
use futures_util::{StreamExt, future::BoxFuture};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    bucket::Look,
    link::Link,
    read::{Parsed, stored},
};
use crate::cluster::store::{Event, Listing, Prefix, ReadError, Revision, copy::Copy, watch::Feed};

/// Events that wait for the watcher.
const WAITING_EVENTS: usize = 256;
/// The first and the longest pause after a session that failed.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A listing is followed by a rest of so many times its length.
const REST: u32 = 20;
/// The longest such rest.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// The watcher's end of the task, which ends when this is dropped.
pub(super) struct NatsFeed {
    events: mpsc::Receiver<Event>,
    _task: JoinSet<()>,
}

impl NatsFeed {
    pub(super) fn start(link: Arc<Link>, prefix: Prefix) -> Self {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let mut task = JoinSet::new();
        let watcher = Watcher { link, prefix, events: sender, copy: Copy::default(), listed: None };
        task.spawn(watcher.run());
        Self { events, _task: task }
    }
}

impl Feed for NatsFeed {
    fn next(&mut self) -> BoxFuture<'_, Option<Event>> {
        Box::pin(self.events.recv())
    }
}

/// Why a session ended.
enum End {
    /// The watcher is gone.
    Unwatched,
    Failed(ReadError),
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

/// A listing that has ended.
struct Listed {
    /// The greatest revision that the copy had at the beginning.
    last: Option<Revision>,
    began: Instant,
    /// The bucket at the beginning, and what it has: none where the bucket is as when last listed.
    outcome: Result<(Look, Option<Listing>), ReadError>,
}

struct Watcher {
    link: Arc<Link>,
    prefix: Prefix,
    events: mpsc::Sender<Event>,
    copy: Copy,
    /// The bucket as it was when last listed.
    listed: Option<Look>,
}

impl Watcher {
    async fn run(mut self) {
        let mut pause = PAUSES.0;
        loop {
            let began = Instant::now();
            let Err(end) = self.session().await;
            let End::Failed(error) = end else { return };
            tracing::debug!(bucket = self.link.bucket, %error, "a watch begins anew");
            // A watcher with many events to come learns of the next failure.
            let _ = self.events.try_send(Event::Failed(error.to_string()));
            if began.elapsed() > PAUSES.1 {
                pause = PAUSES.0;
            }
            let part = self.link.rng.lock().unwrap_or_else(PoisonError::into_inner).f64();
            sleep(pause.mul_f64(0.5 + part / 2.0)).await;
            pause = pause.saturating_mul(2).min(PAUSES.1);
        }
    }

    /// Listens through one connection to one bucket. The consumer begins before the listing, so all
    /// is in one of them.
    async fn session(&mut self) -> Result<Infallible, End> {
        let link = self.link.clone();
        let mut connections = link.connections.clone();
        connections.mark_unchanged();
        let incarnation = link.found_or_made().await?.incarnation;
        let mut messages = link.consume(&self.prefix, DeliverPolicy::New).await?.messages;
        let first = self.begin_listing(true).await;
        let mut next_listing = self.take_listing(first).await?;
        // A listing goes on beside the messages: many entries, or a long way, hold up none.
        let mut listing: Option<BoxFuture<'static, Listed>> = None;
        while self.copy.incarnation() == Some(incarnation) {
            // All arms are cancel-safe. The clock comes before messages, for those may be many.
            tokio::select! {
                biased;
                _ = connections.changed() => {
                    return Err(End::Failed(ReadError::Unavailable("another connection".to_owned())));
                }
                listed = async { Some(listing.as_mut()?.as_mut().await) }, if listing.is_some() => {
                    listing = None;
                    if let Some(listed) = listed {
                        next_listing = self.take_listing(listed).await?;
                    }
                }
                () = sleep_until(next_listing), if listing.is_none() => {
                    listing = Some(self.begin_listing(false));
                }
                message = messages.next() => {
                    let fault = |text: String| End::Failed(ReadError::Unavailable(text));
                    let message = message
                        .ok_or_else(|| fault("the consumer ended".to_owned()))?
                        .map_err(|error| fault(error.to_string()))?;
                    self.take(&message).await?;
                }
            }
        }
        Err(End::Failed(ReadError::Unavailable("another bucket".to_owned())))
    }

    /// Begins to list the bucket. A bucket that is as when last listed is not listed again.
    fn begin_listing(&self, is_first: bool) -> BoxFuture<'static, Listed> {
        let (link, prefix, before) = (self.link.clone(), self.prefix.clone(), self.listed);
        let (last, began) = (self.copy.last(), Instant::now());
        Box::pin(async move {
            let outcome = async {
                let look = link.found_or_made().await?;
                let is_known = !is_first && before == Some(look);
                let listing = if is_known { None } else { Some(link.list(&prefix).await?) };
                Ok((look, listing))
            };
            Listed { last, began, outcome: outcome.await }
        })
    }

    /// Takes a listing: tells the difference, and returns when to list again.
    async fn take_listing(&mut self, Listed { last, began, outcome }: Listed) -> Result<Instant, End> {
        let relist = self.link.options.relist;
        let (look, listing) = outcome?;
        let Some(listing) = listing else {
            self.tell(Event::Synced { incarnation: look.incarnation }).await?;
            return Ok(Instant::now() + relist);
        };
        let next = Instant::now() + rest(relist, began.elapsed());
        let is_of_look = listing.incarnation == look.incarnation;
        let events = self.copy.listed_since(Instant::now(), last, listing);
        // A listing that the copy left aside is looked at again, though the bucket may not change.
        self.listed = (is_of_look && !events.is_empty()).then_some(look);
        for event in events {
            self.tell(event).await?;
        }
        Ok(next)
    }

    async fn take(&mut self, message: &Message) -> Result<(), End> {
        let event = match stored(message)?.parsed(&self.link.subjects) {
            Parsed::Entry(entry) => self.copy.written(entry),
            Parsed::Deletion(key, revision) => self.copy.deleted(key, revision),
            Parsed::Strange(malformed) => self.copy.strange(malformed),
            Parsed::StrangeDeletion => None,
        };
        match event {
            Some(event) => self.tell(event).await,
            None => Ok(()),
        }
    }

    async fn tell(&self, event: Event) -> Result<(), End> {
        self.events.send(event).await.map_err(|_| End::Unwatched)
    }
}

/// The time from a listing that took so long to the next one: a listing reads each entry, so a
/// bucket of many entries is listed seldom.
fn rest(relist: Duration, took: Duration) -> Duration {
    relist.max(took.saturating_mul(REST).min(LONGEST_REST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_of_many_entries_is_listed_seldom() {
        let rest_after = |millis| rest(Duration::from_secs(5), Duration::from_millis(millis)).as_secs();
        assert_eq!([0, 100, 500, 2000, 60_000].map(rest_after), [5, 5, 10, 40, 60]);
    }
}
