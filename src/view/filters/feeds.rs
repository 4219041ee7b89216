//! The feeds of transactions that wait for a block: one of hashes, and one of whole transactions.
//!
//! Rule: a feed runs while a filter wants the feed and for [`IDLE_FEED`] longer; then its source is
//! told to end, and ends its filter at a node. Reason: a client that makes and ends filters in a
//! loop makes one filter at a node, and a filter that is left at a node counts there until its time
//! is over. Example: a client makes a filter, ends the filter, and makes another a second later.
//! The node has one filter all the time, which goes five seconds after the client's last one.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::{runtime::Handle, sync::watch, task::JoinSet, time::timeout};

use super::{Filters, transactions::Source};
use crate::{
    domain::refusal::{Refusal, Unserved},
    view::Topics,
};

/// How long a client waits until a node is known to report transactions, or none to.
const FIRST_FEED_TIMEOUT: Duration = Duration::from_secs(12);
/// How long a feed runs without a filter and a client that waits.
const IDLE_FEED: Duration = Duration::from_secs(5);

/// Whether transactions are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not all nodes have answered yet.
    Asked,
    Told,
    /// No usable node tells of them.
    Refused(Refusal),
}

/// The feeds of one network.
pub(super) struct Feeds {
    filters: Weak<Filters>,
    topics: Arc<Topics>,
    open: Mutex<Open>,
    runtime: Handle,
}

#[derive(Default)]
struct Open {
    /// Of hashes, and of whole transactions.
    feeds: [Option<Feed>; 2],
    /// The tasks behind these feeds, and behind those that are about to end.
    tasks: JoinSet<()>,
}

struct Feed {
    state: watch::Receiver<State>,
    /// Clients that wait for the feed before their filter is made.
    awaited: usize,
    /// Whether a filter reads the feed.
    is_wanted: bool,
    /// Whether no filter wants the feed, and no client waits. The task ends when this is dropped.
    is_idle: watch::Sender<bool>,
}

impl Feed {
    fn note_idleness(&self) {
        let is_idle = self.awaited == 0 && !self.is_wanted;
        self.is_idle.send_if_modified(|known| std::mem::replace(known, is_idle) != is_idle);
    }

    /// Whether the feed ends at once. Nodes that have refused may be asked anew for another filter.
    fn is_useless(&self) -> bool {
        *self.is_idle.borrow() && matches!(*self.state.borrow(), State::Refused(_))
    }
}

/// A client that waits for a feed. The feed runs at least as long.
pub(super) struct FeedWaiter<'a>(&'a Feeds, usize);

impl Drop for FeedWaiter<'_> {
    fn drop(&mut self) {
        let feed = &mut self.0.lock().feeds[self.1];
        if let Some(feed) = feed {
            feed.awaited -= 1;
            feed.note_idleness();
        }
        feed.take_if(|feed| feed.is_useless());
    }
}

impl Feeds {
    pub(super) fn new(filters: Weak<Filters>, topics: Arc<Topics>) -> Self {
        Self { filters, topics, open: Mutex::default(), runtime: Handle::current() }
    }

    /// Notes which feeds filters want, and starts those.
    pub(super) fn want(&self, wanted: [bool; 2]) {
        let mut open = self.lock();
        for (full, wanted) in [false, true].into_iter().zip(wanted) {
            if wanted {
                // The feed may have ended before its first filter was made.
                self.feed(&mut open, full);
            }
            let feed = &mut open.feeds[usize::from(full)];
            if let Some(feed) = feed {
                feed.is_wanted = wanted;
                feed.note_idleness();
            }
            feed.take_if(|feed| feed.is_useless());
        }
    }

    /// Starts the feed and waits until the feed tells transactions. The feed runs while the result
    /// is held, or a filter wants the feed.
    ///
    /// # Errors
    /// When no node reports transactions.
    pub(super) async fn ready(&self, full: bool) -> Result<FeedWaiter<'_>, Refusal> {
        let mut state = {
            let mut open = self.lock();
            let feed = self.feed(&mut open, full);
            feed.awaited += 1;
            feed.note_idleness();
            feed.state.clone()
        };
        let waiting = FeedWaiter(self, usize::from(full));
        let settled = timeout(FIRST_FEED_TIMEOUT, state.wait_for(|state| *state != State::Asked)).await;
        match settled.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(State::Told)) => Ok(waiting),
            Ok(Ok(State::Refused(refusal))) => Err(refusal),
            Ok(Ok(State::Asked) | Err(_)) | Err(_) => Err(Refusal::Unserved(Unserved::NoNode)),
        }
    }

    /// The feed, which is started if there is none.
    fn feed<'a>(&self, open: &'a mut Open, full: bool) -> &'a mut Feed {
        let Open { feeds, tasks } = open;
        feeds[usize::from(full)].get_or_insert_with(|| {
            let (state, seen) = watch::channel(State::Asked);
            let (is_idle, idle) = watch::channel(false);
            let (end, ends) = watch::channel(false);
            let source = Source { filters: self.filters.clone(), topics: self.topics.clone(), full, state, ends };
            // Those that have ended.
            while tasks.try_join_next().is_some() {}
            tasks.spawn_on(run(source, idle, end), &self.runtime);
            Feed { state: seen, awaited: 0, is_wanted: false, is_idle }
        })
    }

    /// Takes out the feed behind `idle`, unless the feed is wanted again.
    fn close(&self, full: bool, idle: &watch::Receiver<bool>) {
        let is_it = |feed: &mut Feed| *feed.is_idle.borrow() && feed.is_idle.subscribe().same_channel(idle);
        self.lock().feeds[usize::from(full)].take_if(is_it);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // The feeds are consistent at every moment, so a panic elsewhere cannot have spoilt them.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the source of a feed until the feed was idle for [`IDLE_FEED`], and the source has ended.
async fn run(source: Source, mut idle: watch::Receiver<bool>, end: watch::Sender<bool>) {
    let (filters, full) = (source.filters.clone(), source.full);
    let mut work = pin!(source.run());
    // All arms are cancel-safe. [`Feeds::close`] drops an idle feed, which ends the second arm.
    while tokio::select! {
        biased;
        () = &mut work => return,
        is_there = deserted(&mut idle) => is_there,
    } {
        filters.upgrade().inspect(|filters| filters.feeds.close(full, &idle));
    }
    end.send_replace(true);
    work.await;
}

/// Completes when the feed was idle for [`IDLE_FEED`], or with `false` when the feed has been taken
/// out.
async fn deserted(idle: &mut watch::Receiver<bool>) -> bool {
    loop {
        if idle.wait_for(|idle| *idle).await.is_err() {
            return false;
        }
        match timeout(IDLE_FEED, idle.wait_for(|idle| !*idle)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return false,
            Err(_) => return true,
        }
    }
}
