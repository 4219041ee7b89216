//! The events of a transaction that endpoints were told of, and those that are still to be told.

use std::{collections::BTreeSet, sync::Arc};

use crate::outbox::{
    desk::Endpoints,
    record::{Delivery, EventId, EventKind, Record, TxId, WorkId},
    store::{Reader, StoreError},
    webhook::Table,
};

/// The events of a record with all of whose deliveries this replica, or one before, is done.
pub(super) fn told_events(
    reader: &Reader,
    table: &Table,
    record: &Record,
    told: &BTreeSet<EventId>,
) -> Result<BTreeSet<EventId>, StoreError> {
    let (mut all, tenant) = (BTreeSet::new(), &record.id.tenant);
    for transition in &record.history {
        let Some(kind) = EventKind::of(transition.to) else { continue };
        let event = record.event(transition.seq);
        let mut is_told = true;
        for endpoint in table.wanting(kind, tenant).filter(|_| !told.contains(&event)) {
            is_told &= reader.delivery(tenant, &WorkId::of_delivery(&event, endpoint))?.is_none();
        }
        if is_told {
            all.insert(event);
        }
    }
    Ok(all)
}

/// The events of a record that this replica has delivered, or given up, and whether deliveries of
/// others wait here.
pub(super) fn told_here(
    reader: &Reader,
    table: &Table,
    record: &Record,
) -> Result<(BTreeSet<EventId>, bool), StoreError> {
    let (mut told, mut is_waiting, tenant) = (BTreeSet::new(), false, &record.id.tenant);
    for transition in &record.history {
        let Some(kind) = EventKind::of(transition.to) else { continue };
        let event = record.event(transition.seq);
        let mut waits = false;
        for endpoint in table.wanting(kind, tenant) {
            waits |= reader.delivery(tenant, &WorkId::of_delivery(&event, endpoint))?.is_some();
        }
        is_waiting |= waits;
        if !waits && reader.was_told(tenant, &event)? {
            told.insert(event);
        }
    }
    Ok((told, is_waiting))
}

/// The deliveries of the events of these transactions that are not among those told.
pub(super) fn untold(
    reader: &Reader,
    table: &Table,
    rows: impl IntoIterator<Item = (TxId, Arc<BTreeSet<EventId>>)>,
) -> Result<Vec<Delivery>, StoreError> {
    let mut deliveries = Vec::new();
    for (id, told) in rows {
        let Some(record) = reader.record(&id)? else { continue };
        for transition in record.history.iter().filter(|transition| !told.contains(&record.event(transition.seq))) {
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

    /// U38: a row says what endpoints were told, and a delivery that waits is not told.
    #[tokio::test]
    async fn a_delivery_that_waits_is_not_told() {
        let store = Store::inline(Box::new(PretendDisk::new())).unwrap();
        let table = test_table(&["tx.accepted", "tx.mined"]);
        // Accepted, sent, seen, mined, confirmed, sent.
        let record = test_record(7, State::Sent);
        let [accepted, mined, confirmed] = [1, 4, 5].map(|seq| record.event(seq));
        let set = |events: &[&EventId]| events.iter().copied().cloned().collect::<BTreeSet<_>>();
        let mut step = Step::new();
        step.accept(record.clone(), vec![1; 110].into(), Vec::new());
        store.commit(step.take()).await.unwrap();
        let untold = |told: &[&EventId]| {
            let rows = [(record.id.clone(), Arc::new(set(told)))];
            let made = untold(&store.read().unwrap(), &table, rows).unwrap();
            made.into_iter().map(|delivery| (delivery.event.clone(), delivery)).collect::<Vec<_>>()
        };
        let told = |told: &[&EventId]| told_events(&store.read().unwrap(), &table, &record, &set(told)).unwrap();
        let all = untold(&[]);
        assert_eq!(all.iter().map(|(event, _)| event).collect::<Vec<_>>(), [&accepted, &mined]);
        assert_eq!(untold(&[&accepted]), all[1..], "what was told is not made again");
        assert_eq!(told(&[]), set(&[&accepted, &mined, &confirmed]), "nothing waits");
        step.deliver(all[1].1.clone());
        store.commit(step.take()).await.unwrap();
        assert_eq!(told(&[]), set(&[&accepted, &confirmed]));
        assert_eq!(told(&[&mined]), set(&[&accepted, &mined, &confirmed]), "another replica was told so");
        // Events of another history are none of this record's.
        assert_eq!(told(&[&"evt_other".into()]), set(&[&accepted, &confirmed]));
        step.delivered(record.id.tenant.clone(), all[1].1.id.clone());
        store.commit(step.take()).await.unwrap();
        assert_eq!(told(&[]), set(&[&accepted, &mined, &confirmed]));
    }

    /// U38: a row that this replica brings has the events that it has delivered, and no other.
    #[tokio::test]
    async fn a_replica_brings_what_it_has_told() {
        let store = Store::inline(Box::new(PretendDisk::new())).unwrap();
        let table = test_table(&["tx.accepted", "tx.mined"]);
        let record = test_record(7, State::Sent);
        let [accepted, mined] = [1, 4].map(|seq| record.event(seq));
        let here = || told_here(&store.read().unwrap(), &table, &record).unwrap();
        let mut step = Step::new();
        step.accept(record.clone(), vec![1; 110].into(), Vec::new());
        store.commit(step.take()).await.unwrap();
        assert_eq!(here(), (BTreeSet::new(), false), "another replica's");
        let of = |event: &EventId| {
            let rows = [(record.id.clone(), Arc::default())];
            let made = untold(&store.read().unwrap(), &table, rows).unwrap();
            made.into_iter().filter(|delivery| delivery.event == *event).collect::<Vec<_>>()
        };
        let events = [&accepted, &mined].map(|event| (event.clone(), of(event)));
        let done = events[0].1[0].id.clone();
        step.adopt(record.clone(), vec![1; 110].into(), events.to_vec());
        store.commit(step.take()).await.unwrap();
        assert_eq!(here(), (BTreeSet::new(), true));
        step.delivered(record.id.tenant.clone(), done);
        store.commit(step.take()).await.unwrap();
        assert_eq!(here(), (BTreeSet::from([accepted]), true));
    }
}
