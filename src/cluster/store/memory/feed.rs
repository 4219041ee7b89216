//! A watch of the store in memory. Has no task: all happens when the watcher waits.

use std::collections::VecDeque;

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    super::{Event, Prefix, copy::Copy, watch::Feed},
    Memory,
    bucket::Message,
    fault::Reach,
};

pub(super) struct MemoryFeed {
    memory: Memory,
    changed: watch::Receiver<u64>,
    /// The number of the watch's queue at the server.
    queue: u64,
    copy: Copy,
    /// Events that the watcher has not taken yet.
    events: VecDeque<Event>,
    next_listing: Instant,
}

impl MemoryFeed {
    pub(super) fn new(memory: Memory, client: &str, prefix: Prefix) -> Self {
        let queue = memory.lock().open_queue(client, prefix);
        Self {
            changed: memory.changed.subscribe(),
            queue,
            copy: Copy::default(),
            events: VecDeque::new(),
            next_listing: Instant::now(),
            memory,
        }
    }

    /// Takes all that has arrived. Returns the moment at which to look again, at the latest.
    fn advance(&mut self) -> Instant {
        let now = Instant::now();
        let mut server = self.memory.lock();
        let next_change = server.next_change();
        let server = &mut *server;
        let queue = server.queues.get_mut(&self.queue).expect("the queue ends with its feed");
        let far = now + self.memory.settings.relist;
        let reach = server.clients.get(&queue.client).map(|client| client.reach);
        if reach.unwrap_or_default() != Reach::Open {
            return next_change.map_or(far, |change| change.min(far));
        }
        if queue.must_list || now >= self.next_listing {
            queue.must_list = false;
            queue.is_deaf = false;
            self.next_listing = far;
            self.events.extend(self.copy.listed(now, server.bucket.list(&queue.prefix)));
        }
        while let Some((_, message)) = queue.messages.pop_front_if(|(arrival, _)| *arrival <= now) {
            self.events.extend(match message {
                Message::Written(entry) => self.copy.written(entry),
                Message::Deleted(key, revision) => self.copy.deleted(key, revision),
            });
        }
        let arrival = queue.messages.front().map(|(arrival, _)| *arrival);
        [arrival, next_change].into_iter().flatten().fold(self.next_listing, Instant::min)
    }
}

impl Feed for MemoryFeed {
    fn next(&mut self) -> BoxFuture<'_, Option<Event>> {
        Box::pin(async {
            loop {
                if let Some(event) = self.events.pop_front() {
                    return Some(event);
                }
                self.changed.mark_unchanged();
                let wake = self.advance();
                if self.events.is_empty() {
                    // Both arms are cancel-safe, and neither carries an event.
                    tokio::select! {
                        biased;
                        _ = self.changed.changed() => {}
                        () = sleep_until(wake) => {}
                    }
                }
            }
        })
    }
}

impl Drop for MemoryFeed {
    fn drop(&mut self) {
        self.memory.lock().queues.remove(&self.queue);
    }
}
