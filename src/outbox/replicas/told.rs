//! What endpoints were told of a transaction, and what they are still to be told.

use crate::outbox::{
    desk::Endpoints,
    record::{Delivery, EventKind, Record, TxId, WorkId},
    store::{Reader, StoreError},
    webhook::Table,
};

/// The number of the newest transition, from `told` on, with all of whose deliveries, and of those
/// before, this replica is done.
pub(super) fn told_until(reader: &Reader, table: &Table, record: &Record, told: u64) -> Result<u64, StoreError> {
    let mut until = told;
    for transition in record.history.iter().filter(|transition| transition.seq > told) {
        if let Some(kind) = EventKind::of(transition.to) {
            let event = record.event(transition.seq);
            for endpoint in table.wanting(kind, &record.id.tenant) {
                if reader.delivery(&record.id.tenant, &WorkId::of_delivery(&event, endpoint))?.is_some() {
                    return Ok(until);
                }
            }
        }
        until = transition.seq;
    }
    Ok(until)
}

/// The deliveries of the transitions of these transactions behind the number that is told.
pub(super) fn untold(
    reader: &Reader,
    table: &Table,
    rows: impl IntoIterator<Item = (TxId, u64)>,
) -> Result<Vec<Delivery>, StoreError> {
    let mut deliveries = Vec::new();
    for (id, told) in rows {
        let Some(record) = reader.record(&id)? else { continue };
        for transition in record.history.iter().filter(|transition| transition.seq > told) {
            deliveries.extend(Endpoints::deliveries(table, &record, transition));
        }
    }
    Ok(deliveries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{
        record::State,
        relay::test_record,
        step::Step,
        store::{Store, pretend_disk::PretendDisk},
        webhook::test_table,
    };

    /// U38: a number says what endpoints were told, and a delivery that waits holds it back.
    #[tokio::test]
    async fn a_delivery_that_waits_is_not_told() {
        let store = Store::inline(Box::new(PretendDisk::new())).unwrap();
        let table = test_table(&["tx.accepted", "tx.mined"]);
        let record = test_record(7, State::Sent);
        // Accepted, sent, seen, mined, confirmed, sent.
        let mut step = Step::new();
        step.accept(record.clone(), vec![1; 110].into(), Vec::new());
        store.commit(step.take()).await.unwrap();
        let reader = store.read().unwrap();
        let all = untold(&reader, &table, vec![(record.id.clone(), 0)]).unwrap();
        assert_eq!(all.iter().map(|delivery| delivery.kind.as_str()).collect::<Vec<_>>(), ["tx.accepted", "tx.mined"]);
        assert_eq!(untold(&reader, &table, vec![(record.id.clone(), 3)]).unwrap(), all[1..]);
        assert_eq!(told_until(&reader, &table, &record, 0), Ok(record.seq), "nothing waits");
        step.deliver(all[1].clone());
        store.commit(step.take()).await.unwrap();
        assert_eq!(told_until(&store.read().unwrap(), &table, &record, 0), Ok(3));
        step.deliver(all[0].clone());
        store.commit(step.take()).await.unwrap();
        assert_eq!(told_until(&store.read().unwrap(), &table, &record, 0), Ok(0));
        step.delivered(record.id.tenant.clone(), all[0].id.clone());
        step.delivered(record.id.tenant.clone(), all[1].id.clone());
        store.commit(step.take()).await.unwrap();
        assert_eq!(told_until(&store.read().unwrap(), &table, &record, 0), Ok(record.seq));
    }
}
