//! Writes down what became of a delivery.

use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use super::deliveries::Deliveries;
use crate::{
    domain::backoff::Backoff,
    outbox::{step::Step, store::StoreError},
};

/// The pauses between attempts to write an outcome down: the first, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// Commits `step`, again and again while the disk takes nothing: until an outcome is written down,
/// its delivery keeps its place among those under way, so that an endpoint is not sent without end
/// what cannot be recorded.
///
/// # Errors
/// When the store is closed or holds what cannot be read: trying again is of no use.
pub(super) async fn until_written(deliveries: &dyn Deliveries, step: Step, seed: u64) -> Result<(), StoreError> {
    let [first, longest] = PAUSES;
    let mut pauses = Backoff::jittered(first, longest, seed);
    let mut is_told = false;
    loop {
        match deliveries.commit(step.clone()).await {
            Ok(()) => return Ok(()),
            Err(error @ (StoreError::Closed | StoreError::Malformed(_))) => return Err(error),
            Err(error) => {
                if !is_told {
                    warn!(%error, "the outcome of a delivery cannot be written down yet");
                    is_told = true;
                }
                sleep(pauses.pause()).await;
            }
        }
    }
}
