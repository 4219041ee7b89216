//! Earlier snapshots of the chain, for nodes that see blocks later than others.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::view::Snapshot;

/// Snapshots that are kept; a node that lags further behind sees the oldest.
const KEPT_SNAPSHOTS: usize = 256;

/// The chain's latest snapshots, with when each was made, oldest first.
pub(super) struct Past(Mutex<VecDeque<(Instant, Arc<Snapshot>)>>);

impl Past {
    pub(super) fn new(snapshot: Arc<Snapshot>) -> Self {
        Self(Mutex::new(VecDeque::from([(Instant::now(), snapshot)])))
    }

    pub(super) fn push(&self, snapshot: Arc<Snapshot>) {
        let mut kept = self.kept();
        if kept.len() == KEPT_SNAPSHOTS {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), snapshot));
    }

    /// The snapshot that a node sees now if blocks reach the node `late` by so much.
    pub(super) fn seen(&self, late: Duration) -> Option<Arc<Snapshot>> {
        let (now, kept) = (Instant::now(), self.kept());
        let seen = kept.iter().rev().find(|(made, _)| *made + late <= now).or(kept.front());
        seen.map(|(_, snapshot)| snapshot.clone())
    }

    /// When a node that is `late` by so much sees more than now.
    pub(super) fn next(&self, late: Duration) -> Option<Instant> {
        let now = Instant::now();
        self.kept().iter().map(|(made, _)| *made + late).find(|seen| *seen > now)
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Instant, Arc<Snapshot>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
