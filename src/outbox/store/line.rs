//! Lines of steps. A task that keeps rows in memory commits steps that rest on each other. When one
//! of them fails, the later ones must fail too, though they were handed in before the failure.

use std::sync::{Arc, OnceLock};

use crate::outbox::step::Step;

use super::{Pending, Store, error::StoreError};

/// Steps that rest on each other: after one that failed, all later ones fail. Take the line first
/// and read the rows then, so that no failure comes between.
#[derive(Debug)]
pub struct Line {
    store: Store,
    state: Arc<LineState>,
}

/// The writer's part of a line.
#[derive(Debug)]
pub(super) struct LineState {
    /// The store's generation when the line began. With a later one, the file may lack rows that
    /// were read before.
    generation: u64,
    failed: OnceLock<StoreError>,
}

impl LineState {
    /// Notes that a step of the line failed.
    pub(super) fn fail(&self, error: &StoreError) {
        _ = self.failed.set(error.clone());
    }

    /// The error for further steps, where there is one.
    pub(super) fn behind(&self, generation: u64) -> Option<StoreError> {
        match self.failed.get() {
            Some(error) => Some(StoreError::Behind(error.to_string())),
            None if self.generation != generation => Some(StoreError::Behind("the outbox was opened anew".to_owned())),
            None => None,
        }
    }
}

impl Line {
    pub(super) fn new(store: Store) -> Self {
        let generation = store.generation();
        Self { store, state: Arc::new(LineState { generation, failed: OnceLock::new() }) }
    }

    /// Hands a step in, and waits while the writer has too many. Steps are written in the order in
    /// which this returns. The answer comes when the step is on the disk.
    pub async fn submit(&self, step: Step) -> Result<Pending, StoreError> {
        self.store.enqueue(step, Some(Arc::clone(&self.state))).await
    }

    /// Commits a step: ends once the step is on the disk.
    pub async fn commit(&self, step: Step) -> Result<(), StoreError> {
        self.submit(step).await?.await
    }

    /// Whether a step of the line failed, so that a new line is needed.
    pub fn is_broken(&self) -> bool {
        self.state.behind(self.store.generation()).is_some()
    }
}
