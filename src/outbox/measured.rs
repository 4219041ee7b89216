//! The outbox's measure: its transitions as metrics, and how late its work is.

use std::sync::Arc;

use tokio::sync::broadcast::{Receiver, error::RecvError};
use tracing::warn;

use super::{
    handle::Outbox,
    record::StateName,
    store::{Kind, Reader, StoreError},
    told::Told,
};
use crate::metrics::Metrics;

/// Counts transitions until there are no more. `told` comes from [`Outbox::transitions`].
pub(super) async fn measure(mut told: Receiver<Told>, metrics: Arc<Metrics>) {
    let states = StateName::ALL.map(StateName::as_str);
    loop {
        match told.recv().await {
            Ok(Told { id, transition, accepted_at }) => {
                let (network, to) = (id.network.as_str(), transition.to);
                metrics.outbox_transition(network, id.tenant.as_str(), to.as_str(), &states);
                // The second transition is the first that nodes make.
                let is_dispatched = transition.seq == 2 && matches!(to, StateName::Sent | StateName::Seen);
                if let Some(at) = accepted_at.filter(|_| is_dispatched) {
                    metrics.outbox_dispatched(network, transition.at.since(at) as f64 / 1000.0);
                }
            }
            Err(RecvError::Lagged(missed)) => warn!(missed, "metrics miss transitions of the outbox"),
            Err(RecvError::Closed) => return,
        }
    }
}

impl Outbox {
    /// How late the work is that is due first, in seconds, by the kind of the work.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn late(&self) -> Result<Vec<(&'static str, u64)>, StoreError> {
        let now = self.now();
        let rows = move |reader: &Reader| {
            let kinds = [("deadline", Kind::Deadline), ("delivery", Kind::Delivery)];
            let late = kinds.map(|(work, kind)| {
                let first = reader.next_due(kind)?;
                Ok((work, first.map_or(0, |first| now.since(first.at) / 1000)))
            });
            late.into_iter().collect()
        };
        self.shared.store.read_long(rows).await
    }
}
