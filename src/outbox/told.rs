//! Who is told of transitions while the proxy runs: clients that subscribed to a transaction, and
//! the metrics.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{broadcast, mpsc};

use super::record::{Millis, Record, Transition, TxId};

/// Transitions that may wait for one watcher. A transaction has few; one that is reorganised
/// without end loses its watcher.
const WATCH_BACKLOG: usize = 128;
/// Transitions of all transactions that may wait for the metrics.
const ALL_BACKLOG: usize = 4096;

/// A transition that is on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The transaction.
    pub id: TxId,
    /// What happened.
    pub transition: Transition,
    /// When the transaction was accepted; `None` where its record is gone already.
    pub accepted_at: Option<Millis>,
}

/// Brings transitions to those who watch.
#[derive(Debug)]
pub(super) struct Hub {
    watchers: Mutex<HashMap<TxId, Vec<mpsc::Sender<Transition>>>>,
    all: broadcast::Sender<Told>,
}

/// The transitions of one transaction, each once, in their order.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    id: TxId,
    /// Transitions that the record has already, oldest first.
    past: std::vec::IntoIter<Transition>,
    /// The number of the newest transition that was told.
    seen: u64,
    /// When the life began whose transitions were told last.
    born: Option<Millis>,
    news: mpsc::Receiver<Transition>,
}

impl Hub {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { watchers: Mutex::default(), all: broadcast::channel(ALL_BACKLOG).0 })
    }

    /// A watch from now on.
    pub(super) fn watch(self: &Arc<Self>, id: &TxId) -> Watch {
        let (watcher, news) = mpsc::channel(WATCH_BACKLOG);
        self.lock().entry(id.clone()).or_default().push(watcher);
        Watch { hub: self.clone(), id: id.clone(), past: Vec::new().into_iter(), seen: 0, born: None, news }
    }

    pub(super) fn all(&self) -> broadcast::Receiver<Told> {
        self.all.subscribe()
    }

    pub(super) fn tell(&self, told: Told) {
        self.tell_watchers(&told);
        // Nobody need listen.
        _ = self.all.send(told);
    }

    /// Tells clients that subscribed, and no metrics: another replica counts the transition.
    pub(super) fn tell_watchers(&self, told: &Told) {
        if let Some(watchers) = self.lock().get_mut(&told.id) {
            // A watcher without room is behind by a whole backlog, and ends.
            watchers.retain(|watcher| watcher.try_send(told.transition.clone()).is_ok());
        }
    }

    /// How many transactions are watched.
    #[cfg(test)]
    fn watched(&self) -> usize {
        self.lock().len()
    }

    /// Each change is whole, so a panic elsewhere cannot have spoilt the map.
    fn lock(&self) -> MutexGuard<'_, HashMap<TxId, Vec<mpsc::Sender<Transition>>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// The same watch, with what the record tells first.
    pub(super) fn behind(mut self, record: &Record) -> Self {
        self.past = record.history.clone().into_iter();
        self
    }

    /// The next transition. `None` when the watcher has not kept up. Cancel-safe.
    pub async fn next(&mut self) -> Option<Transition> {
        loop {
            let next = match self.past.next() {
                Some(past) => past,
                None => self.news.recv().await?,
            };
            // The record was dropped, and the same transaction begins a new life.
            if next.seq == 1 && self.born != Some(next.at) {
                (self.born, self.seen) = (Some(next.at), 0);
            }
            // The record may have had a transition that is told as news too.
            if next.seq > self.seen {
                self.seen = next.seq;
                return Some(next);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.news.close();
        let mut watchers = self.hub.lock();
        if let Some(of_this) = watchers.get_mut(&self.id) {
            of_this.retain(|watcher| !watcher.is_closed());
            if of_this.is_empty() {
                watchers.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::record::{StateName, TenantName};

    fn transition(seq: u64) -> Transition {
        Transition {
            seq,
            at: Millis(seq),
            to: StateName::Sent,
            block: None,
            node: None,
            reason: None,
            refusals: Vec::new(),
            repeat: 0,
        }
    }

    fn id() -> TxId {
        TxId { tenant: TenantName::default(), network: "main".into(), hash: alloy_primitives::B256::ZERO }
    }

    fn told(seq: u64) -> Told {
        Told { id: id(), transition: transition(seq), accepted_at: None }
    }

    #[tokio::test]
    async fn a_watcher_is_told_of_a_new_life_from_its_start() {
        let hub = Hub::new();
        let mut watch = hub.watch(&id());
        watch.past = vec![transition(1), transition(2)].into_iter();
        // The first is told as news too.
        hub.tell(told(1));
        let anew = |seq| Told { transition: Transition { at: Millis(70 + seq), ..transition(seq) }, ..told(seq) };
        hub.tell(anew(1));
        hub.tell(anew(2));
        let mut times = Vec::new();
        for _ in 0..4 {
            times.push(watch.next().await.unwrap().at.0);
        }
        assert_eq!(times, [1, 2, 71, 72]);
    }

    #[tokio::test]
    async fn a_watcher_is_told_of_each_transition_once() {
        let hub = Hub::new();
        let mut watch = hub.watch(&id());
        hub.tell(told(1));
        hub.tell(told(2));
        hub.tell(told(3));
        watch.past = vec![transition(1), transition(2)].into_iter();
        for seq in 1..=3 {
            assert_eq!(watch.next().await.unwrap().seq, seq);
        }
        let mut other = hub.watch(&TxId { network: "other".into(), ..id() });
        assert!(futures_util::FutureExt::now_or_never(other.next()).is_none());
        drop((watch, other));
        assert_eq!(hub.watched(), 0, "a watch that ends leaves nothing");
    }
}
