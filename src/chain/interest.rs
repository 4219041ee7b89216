//! Interest in the chain: of subscriptions and filters, and of listeners beside them.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::sync::mpsc;

use super::{Change, Follower};

/// Changes that may wait for one listener. A full backlog means that further changes go untold,
/// and the next one says so: the follower does not wait for listeners.
const LISTENER_BACKLOG: usize = 64;

/// Counts the interests in the chain. While there is none, the follower rests.
pub struct Interest {
    follower: Arc<Follower>,
    count: Mutex<usize>,
}

/// Counted in [`Interest`] until it is dropped.
pub struct Interested(Arc<Interest>);

/// The changes of the chain for one listener. Dropping this ends them.
pub struct Listening {
    changes: mpsc::Receiver<Change>,
    missed: Arc<AtomicBool>,
    _interested: Interested,
}

/// The listeners of a follower.
#[derive(Clone, Default)]
pub(super) struct Listeners(Arc<Mutex<Vec<Listener>>>);

struct Listener {
    changes: mpsc::Sender<Change>,
    /// Whether a change went untold.
    missed: Arc<AtomicBool>,
}

impl Interest {
    /// No interest yet in the chain of `follower`.
    pub fn new(follower: Arc<Follower>) -> Arc<Self> {
        Arc::new(Self { follower, count: Mutex::new(0) })
    }

    /// The follower.
    pub fn follower(&self) -> &Arc<Follower> {
        &self.follower
    }

    /// The changes of the chain from now on. Changes that the listener has no room for are left
    /// out, and the next one is as one that skips blocks.
    pub fn listen(self: &Arc<Self>) -> Listening {
        let (sender, changes) = mpsc::channel(LISTENER_BACKLOG);
        let missed = Arc::new(AtomicBool::new(false));
        self.follower.listeners.lock().push(Listener { changes: sender, missed: missed.clone() });
        Listening { changes, missed, _interested: Interested::new(self) }
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *count;
        *count = change(before);
        if (before == 0) != (*count == 0) {
            self.follower.want(before == 0);
        }
    }
}

impl Interested {
    /// A further interest in the chain.
    pub fn new(interest: &Arc<Interest>) -> Self {
        interest.change(|count| count + 1);
        Self(interest.clone())
    }
}

impl Drop for Interested {
    fn drop(&mut self) {
        self.0.change(|count| count - 1);
    }
}

impl Listening {
    /// The next change; `None` when the follower is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Change> {
        let mut change = self.changes.recv().await?;
        // With a full backlog the mark may come early. A listener then looks once too often.
        change.skipped |= self.missed.swap(false, Relaxed);
        Some(change)
    }
}

impl Listeners {
    pub(super) fn tell(&self, change: &Change) {
        self.lock().retain(|listener| match listener.changes.try_send(change.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                listener.missed.store(true, Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }

    /// Each change is whole, so a panic elsewhere cannot have spoilt the list.
    fn lock(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
