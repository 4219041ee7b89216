//! The start of a proxy that was one of several replicas and is alone now: the events that no
//! replica has delivered, as far as this one knows, are delivered from here.
//!
//! A replica marks the events of other replicas' transactions as delivered when the bucket says so.
//! An event without a mark may have been delivered in the last moment: then the endpoint gets the
//! event twice, with one id.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    desk::Endpoints,
    handle::Shared,
    operator::MOST_TENANTS,
    record::{Delivery, TenantName, TxId},
    step::Step,
    store::{Filter, Reader, StoreError},
    webhook::Table,
};

/// The records that are looked at between two commits.
const LOOKED_AT: usize = 200;
/// The pause after a failure of the disk.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes the deliveries of all events without a mark.
pub(super) async fn tell_untold(shared: Arc<Shared>) {
    while let Err(error) = told(&shared).await {
        warn!(%error, "events that other replicas have not delivered wait for the disk");
        sleep(PAUSE).await;
    }
}

async fn told(shared: &Shared) -> Result<(), StoreError> {
    if !shared.store.read()?.is_shared()? {
        return Ok(());
    }
    let (table, mut count) = (shared.webhooks.table(), 0);
    for tenant in shared.store.read()?.tenants(None, MOST_TENANTS)? {
        let mut after = None;
        loop {
            let (table, tenant, from) = (table.clone(), tenant.clone(), after.clone());
            let look = move |reader: &Reader| untold(reader, &table, &tenant, from.as_ref());
            let (step, deliveries, next) = shared.store.read_long(look).await?;
            if !step.is_empty() {
                shared.store.commit(step).await?;
                count += deliveries.len();
                shared.webhooks.added(&deliveries);
            }
            if next.is_none() {
                break;
            }
            after = next;
        }
    }
    info!(count, "this proxy was one of several replicas: events that those have not delivered are delivered");
    shared.store.commit(Step::new().shared(false).take()).await
}

/// The step for some records of a tenant's, its deliveries, and the record that it ends with.
fn untold(
    reader: &Reader,
    table: &Table,
    tenant: &TenantName,
    after: Option<&TxId>,
) -> Result<(Step, Vec<Delivery>, Option<TxId>), StoreError> {
    let page = reader.page(tenant, &Filter::default(), after, LOOKED_AT)?;
    let (mut step, mut all) = (Step::new(), Vec::new());
    for record in &page.records {
        for transition in &record.history {
            let event = record.event(transition.seq);
            let deliveries = Endpoints::deliveries(table, record, transition);
            if !deliveries.is_empty() && !reader.was_told(tenant, &event)? {
                all.extend(deliveries.iter().cloned());
                step.untold(tenant.clone(), event, deliveries);
            }
        }
    }
    Ok((step, all, page.next))
}
