//! A watcher's copy of the bucket, and waits for events with a deadline.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::timeout;

use crate::cluster::store::{Event, Key, Listing, Revision, Watch};

/// The longest wait for an event.
const PATIENCE: Duration = Duration::from_secs(30);

/// The next event.
pub(super) async fn next(watch: &mut Watch) -> Event {
    timeout(PATIENCE, watch.next()).await.expect("an event in time").expect("the watch goes on")
}

/// The next event that tells of more than the copy's age.
pub(super) async fn next_news(watch: &mut Watch) -> Event {
    let news = async {
        loop {
            match next(watch).await {
                Event::Synced { .. } | Event::Failed(_) => {}
                event => return event,
            }
        }
    };
    timeout(PATIENCE, news).await.expect("news in time")
}

/// Takes events up to and with the next [`Event::Synced`].
pub(super) async fn until_synced(watch: &mut Watch) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        events.push(next(watch).await);
        if matches!(events.last(), Some(Event::Synced { .. })) {
            return events;
        }
    }
}

/// The keys and revisions that a watcher was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) entries: BTreeMap<Key, Revision>,
    pub(super) resets: usize,
    pub(super) synced: usize,
}

impl Told {
    /// Takes an event, and checks that revisions of a key rise.
    pub(super) fn take(&mut self, event: &Event) {
        match event {
            Event::Entry(entry) => {
                let before = self.entries.insert(entry.key.clone(), entry.revision);
                assert!(before.is_none_or(|before| before < entry.revision), "{entry:?}");
            }
            Event::Deleted { key, revision } => {
                let before = self.entries.remove(key);
                assert!(before.is_some_and(|before| before <= *revision), "{key} was not told");
            }
            Event::Reset { .. } => {
                self.entries.clear();
                self.resets += 1;
            }
            Event::Synced { .. } => self.synced += 1,
            Event::Failed(_) => {}
            Event::Malformed(malformed) => panic!("{malformed:?}"),
        }
    }

    /// Takes events until the copy equals the listing.
    pub(super) async fn until_equal(&mut self, watch: &mut Watch, listing: &Listing) {
        let wanted: BTreeMap<_, _> = listing.entries.iter().map(|entry| (entry.key.clone(), entry.revision)).collect();
        let wait = async {
            while self.entries != wanted || self.synced == 0 {
                let event = watch.next().await.expect("the watch goes on");
                self.take(&event);
            }
        };
        let in_time = timeout(PATIENCE, wait).await;
        in_time.unwrap_or_else(|_| panic!("{:?} is not {wanted:?}", self.entries));
    }
}
