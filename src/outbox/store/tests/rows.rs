//! Rows: those that a step writes, those that follow from a record, and each reader's view.

use std::collections::BTreeMap;

use super::*;
use crate::outbox::{
    record::StateName,
    store::{Due, Filter, Sums, traces::Traces},
};

/// The row of a record in the schedule.
fn due_of(record: &Record) -> Option<(Kind, u64)> {
    Traces::of(record).due
}

fn hashes(records: &[Record]) -> Vec<u8> {
    records.iter().map(|record| record.id.hash[0]).collect()
}

/// U8, U16: record, checkpoint, delivery and schedule have a key each.
#[test]
fn an_accepted_transaction_is_found_by_each_key() {
    let (_disk, store) = memory();
    let id = tx("a", "main", 3);
    commit(&store, accepting(id.clone())).unwrap();
    let read = store.read().unwrap();
    let found = read.record(&id).unwrap().expect("the record");
    assert_eq!(found, record(id.clone()));
    assert_eq!(read.raw(&id).unwrap(), Some(vec![7; 100]));
    assert_eq!(read.owners(&id.network, &id.hash, 10).unwrap(), [tenant("a")]);
    assert_eq!(read.owners(&"test".into(), &id.hash, 10).unwrap(), []);
    let event = found.event(1);
    assert!(read.was_told(&id.tenant, &event).unwrap());
    let work = WorkId::of_delivery(&event, "billing");
    assert_eq!(read.delivery(&id.tenant, &work).unwrap().expect("the delivery").event, event);
    let sums = Sums { live: 1, live_bytes: 100, ..Sums::default() };
    assert_eq!(read.sums(&id.network).unwrap(), [(id.tenant.clone(), sums)].into());
    assert_eq!(read.record(&tx("a", "main", 4)).unwrap(), None);
    assert_eq!(read.raw(&tx("a", "test", 3)).unwrap(), None);
}

/// U42: rows and schedules are of a tenant.
#[test]
fn two_tenants_never_see_each_other() {
    let (_disk, store) = memory();
    // One name is the beginning of the other, and both send the same bytes.
    let names = ["a", "ab", "b"];
    for name in names {
        for hash in [1, 2] {
            commit(&store, accepting(tx(name, "main", hash))).unwrap();
        }
    }
    for name in ["a", "b"] {
        let told = delivery(&tenant(name), EventId::from("evt"), "billing", 5);
        let given_up = Quarantined { delivery: told, at: Millis(1), reason: "no".to_owned() };
        commit(&store, Step::new().quarantine(given_up).take()).unwrap();
    }
    let read = store.read().unwrap();
    for name in names {
        let own = tenant(name);
        let page = read.page(&own, &Filter::default(), None, 10).unwrap();
        assert_eq!((page.next, hashes(&page.records)), (None, vec![1, 2]), "{name}");
        assert!(page.records.iter().all(|record| record.id.tenant == own));
        let of_network = Filter { network: Some("main".into()), ..Filter::default() };
        assert_eq!(read.page(&own, &of_network, None, 10).unwrap().records.len(), 2);
        assert_eq!(read.deliveries(&own, None, 10).unwrap().len(), 2);
        assert!(read.deliveries(&own, None, 10).unwrap().iter().all(|delivery| delivery.tenant == own));
        assert_eq!(read.quarantine(&own, None, 10).unwrap().len(), usize::from(name != "ab"));
        // A cursor of another tenant's opens no door.
        for other in names {
            let page = read.page(&own, &Filter::default(), Some(&tx(other, "main", 0)), 10).unwrap();
            assert!(page.records.iter().all(|record| record.id.tenant == own), "{name} with {other}'s cursor");
        }
    }
    assert_eq!(read.owners(&"main".into(), &B256::repeat_byte(1), 10).unwrap(), names.map(tenant));
    assert_eq!(read.owners(&"main".into(), &B256::repeat_byte(1), 2).unwrap().len(), 2, "two were looked at");
    assert_eq!(read.tenants(None, 10).unwrap(), names.map(tenant));
    assert_eq!(read.tenants(Some(&tenant("a")), 1).unwrap(), [tenant("ab")]);

    // A record that one of them drops stays with the others.
    commit(&store, Step::new().remove(tx("a", "main", 1)).take()).unwrap();
    let read = store.read().unwrap();
    assert_eq!(read.record(&tx("a", "main", 1)).unwrap(), None);
    assert!(read.record(&tx("ab", "main", 1)).unwrap().is_some());
    assert!(read.raw(&tx("ab", "main", 1)).unwrap().is_some());
    assert_eq!(read.owners(&"main".into(), &B256::repeat_byte(1), 10).unwrap(), ["ab", "b"].map(tenant));
    assert!(read.was_told(&tenant("ab"), &record(tx("ab", "main", 1)).event(1)).unwrap());
}

#[test]
fn an_event_has_its_deliveries_once_however_often_written() {
    let (_disk, store) = memory();
    let step = accepting(tx("a", "main", 1));
    commit(&store, step.clone()).unwrap();
    let own = tenant("a");
    let told = store.read().unwrap().deliveries(&own, None, 10).unwrap().remove(0);
    commit(&store, Step::new().delivered(own.clone(), told.id.clone()).take()).unwrap();
    commit(&store, step).unwrap();
    let read = store.read().unwrap();
    assert_eq!(read.deliveries(&own, None, 10).unwrap(), [], "the mark is there");
    assert_eq!(read.due(Kind::Delivery, Millis(u64::MAX), 10).unwrap(), []);
    // An operator's replay asks for the delivery again on purpose.
    commit(&store, Step::new().deliver(told.clone()).take()).unwrap();
    assert_eq!(store.read().unwrap().deliveries(&own, None, 10).unwrap(), [told]);
}

#[test]
fn a_schedule_follows_the_life_of_its_transaction() {
    let (_disk, store) = memory();
    let id = tx("a", "main", 1);
    let mut record = record(id.clone());
    let due = |kind| -> Vec<Due> { store.read().unwrap().due(kind, Millis(u64::MAX), 10).unwrap() };
    let row = |at| Due { at: Millis(at), tenant: id.tenant.clone(), work: WorkId::of_transaction(&id), bytes: 100 };
    commit(&store, accepting(id.clone())).unwrap();
    assert_eq!((due(Kind::Deadline), due(Kind::Retention)), (vec![row(1000)], vec![]));
    assert_eq!(due(Kind::Deadline)[0].transaction(), Some(id.clone()));
    record.deadline = Millis(2000);
    commit(&store, Step::new().update(record.clone()).take()).unwrap();
    assert_eq!(due(Kind::Deadline), [row(2000)]);
    go(&mut record, State::Mined { block: block(5) }, 300);
    commit(&store, Step::new().transition(record.clone(), vec![]).take()).unwrap();
    assert_eq!((due(Kind::Deadline), due(Kind::Retention)), (vec![], vec![]), "a block has it");
    go(&mut record, State::Reorged { block: block(5) }, 310);
    commit(&store, Step::new().transition(record.clone(), vec![]).take()).unwrap();
    assert_eq!(due(Kind::Deadline), [row(2000)]);
    go(&mut record, State::Final { block: block(6) }, 400);
    commit(&store, Step::new().transition(record.clone(), vec![]).take()).unwrap();
    assert_eq!((due(Kind::Deadline), due(Kind::Retention)), (vec![], vec![row(900)]));
    let read = store.read().unwrap();
    assert_eq!(read.live(&id.network).unwrap().count(), 0);
    assert_eq!(read.sums(&id.network).unwrap()[&id.tenant], Sums { over: 1, over_bytes: 100, ..Sums::default() });
    assert_eq!(read.due(Kind::Retention, Millis(899), 10).unwrap(), []);
    assert_eq!(read.due(Kind::Retention, Millis(900), 10).unwrap(), [row(900)]);
    let event = record.event(1);
    assert!(read.was_told(&id.tenant, &event).unwrap());
    commit(&store, Step::new().remove(id.clone()).take()).unwrap();
    let read = store.read().unwrap();
    assert_eq!(due(Kind::Retention), []);
    assert!((1..=4).all(|seq| !read.was_told(&id.tenant, &record.event(seq)).unwrap()), "its marks go too");
    assert_eq!(read.sums(&id.network).unwrap(), [].into());
    assert_eq!(read.raw(&id).unwrap(), None);
}

#[test]
fn a_record_that_changes_leaves_no_old_row() {
    let (_disk, store) = memory();
    let id = tx("a", "main", 3);
    commit(&store, accepting(id.clone())).unwrap();
    let mut record = record(id.clone());
    let update = |record: &Record| commit(&store, Step::new().update(record.clone()).take()).unwrap();
    record.bytes = 120;
    update(&record);
    assert_eq!(store.read().unwrap().sums(&id.network).unwrap()[&id.tenant].live_bytes, 120);
    record.accepted_at = Millis(150);
    update(&record);
    let live: Vec<_> = dump(&store).into_iter().filter(|row| row.starts_with("live")).collect();
    assert!(live.len() == 1 && live[0].contains("150"), "{live:?}");
}

#[test]
fn rows_that_were_kept_long_enough_go_in_batches() {
    let (_disk, store) = memory();
    for (network, hash) in [("main", 1), ("gone", 2), ("main", 3), ("main", 4)] {
        let mut record = record(tx("a", network, hash));
        go(&mut record, State::Expired, u64::from(hash) * 100);
        commit(&store, Step::new().accept(record, vec![hash; 50].into(), vec![]).take()).unwrap();
    }
    for (event, at) in [("evt1", 300), ("evt2", 900)] {
        let given_up = delivery(&tenant("b"), event.into(), "x", 1);
        let given_up = Quarantined { delivery: given_up, at: Millis(at), reason: "no".to_owned() };
        commit(&store, Step::new().quarantine(given_up).take()).unwrap();
    }
    let overdue = |now, limit| {
        let read = store.read().unwrap();
        read.overdue(Millis(now), Millis(now - 500), |network| network.as_str() == "main", limit).unwrap()
    };
    assert_eq!(overdue(599, 10), super::super::Overdue::default());
    let first = overdue(850, 2);
    assert!(first.is_full);
    assert_eq!(first.of_desks, [("main".into(), vec![(tx("a", "main", 1), 100)])].into());
    commit(&store, first.step).unwrap();
    commit(&store, Step::new().remove(tx("a", "main", 1)).take()).unwrap();
    let second = overdue(850, 2);
    assert!(!second.is_full, "the fourth is kept longer");
    assert_eq!(second.of_desks["main"], [(tx("a", "main", 3), 100)]);
    assert!(second.step.is_empty(), "the network without a desk is empty, and the quarantine too");
    assert_eq!(store.read().unwrap().quarantine_count().unwrap(), 1);
    assert_eq!(store.read().unwrap().sums(&"main".into()).unwrap()[&tenant("a")].over, 2);
}

/// U8: the due time comes first in a key.
#[test]
fn due_work_comes_in_the_order_of_its_time() {
    let (_disk, store) = memory();
    for (name, due) in [("b", 30), ("a", 20), ("a", 40), ("b", 10)] {
        let step = Step::new().deliver(delivery(&tenant(name), format!("evt{due}").into(), "x", due)).take();
        commit(&store, step).unwrap();
    }
    let read = store.read().unwrap();
    let times = |until, limit| -> Vec<u64> {
        read.due(Kind::Delivery, Millis(until), limit).unwrap().iter().map(|due| due.at.0).collect()
    };
    assert_eq!(times(30, 10), [10, 20, 30]);
    assert_eq!(times(u64::MAX, 2), [10, 20]);
    assert_eq!(read.next_due(Kind::Delivery).unwrap().map(|due| due.at), Some(Millis(10)));
    assert_eq!(read.next_due(Kind::Deadline).unwrap(), None);
    // Another attempt takes the place of the first.
    let mut again = delivery(&tenant("b"), "evt10".into(), "x", 35);
    again.attempt = 1;
    commit(&store, Step::new().deliver(again.clone()).take()).unwrap();
    let read = store.read().unwrap();
    assert_eq!(read.next_due(Kind::Delivery).unwrap().map(|due| due.at), Some(Millis(20)));
    assert_eq!(read.delivery(&again.tenant, &again.id).unwrap(), Some(again));
    assert_eq!(read.delivery_count().unwrap(), 4);
}

#[test]
fn a_delivery_is_on_its_way_or_in_quarantine_never_both() {
    let (_disk, store) = memory();
    let told = delivery(&tenant("a"), "evt".into(), "x", 10);
    let given_up = Quarantined { delivery: told.clone(), at: Millis(50), reason: "status 500".to_owned() };
    let count = || {
        let read = store.read().unwrap();
        let due = |kind| read.due(kind, Millis(u64::MAX), 10).unwrap().len();
        (read.delivery_count().unwrap(), due(Kind::Delivery), read.quarantine_count().unwrap(), due(Kind::Quarantine))
    };
    commit(&store, Step::new().deliver(told.clone()).take()).unwrap();
    assert_eq!(count(), (1, 1, 0, 0));
    commit(&store, Step::new().quarantine(given_up.clone()).take()).unwrap();
    assert_eq!(count(), (0, 0, 1, 1));
    let read = store.read().unwrap();
    assert_eq!(read.quarantined(&told.tenant, &told.id).unwrap(), Some(given_up.clone()));
    assert_eq!(&read.quarantine(&told.tenant, None, 10).unwrap()[..], std::slice::from_ref(&given_up));
    assert_eq!(read.quarantine(&told.tenant, Some(&told.id), 10).unwrap(), []);
    commit(&store, Step::new().deliver(told.clone()).take()).unwrap();
    assert_eq!(count(), (1, 1, 0, 0));
    commit(&store, Step::new().quarantine(given_up).unquarantine(told.tenant.clone(), told.id).take()).unwrap();
    assert_eq!(count(), (0, 0, 0, 0));
}

#[test]
fn pages_go_on_where_the_last_one_ended() {
    let (_disk, store) = memory();
    for hash in 0..25 {
        let mut record = record(tx("a", if hash < 20 { "main" } else { "test" }, hash));
        if hash % 5 == 0 {
            go(&mut record, State::Expired, 200);
        }
        commit(&store, Step::new().accept(record, vec![hash].into(), vec![]).take()).unwrap();
    }
    let read = store.read().unwrap();
    let all = |filter: &Filter, limit| {
        let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = read.page(&tenant("a"), filter, after.as_ref(), limit).unwrap();
            assert!(page.records.len() <= limit);
            found.extend(hashes(&page.records));
            pages += 1;
            after = page.next;
            if after.is_none() {
                return (found, pages);
            }
        }
    };
    assert_eq!(all(&Filter::default(), 10), ((0..25).collect(), 3));
    assert_eq!(all(&Filter::default(), 25), ((0..25).collect(), 1));
    let expired = Filter { states: vec![StateName::Expired], network: None };
    assert_eq!(all(&expired, 2).0, [0, 5, 10, 15, 20]);
    let of_network = Filter { states: vec![StateName::Expired, StateName::Sent], network: Some("main".into()) };
    assert_eq!(all(&of_network, 3).0, [0, 5, 10, 15]);
    let live: Vec<Record> = read.live(&"test".into()).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(hashes(&live), [21, 22, 23, 24]);
}

#[test]
fn a_page_looks_at_a_bounded_number_of_rows() {
    let (_disk, store) = memory();
    let mut step = Step::new();
    let rows = super::super::MOST_LOOKED_AT + 50;
    for number in 0..rows {
        let mut id = tx("a", "main", 0);
        id.hash = B256::from(alloy_primitives::U256::from(number));
        let mut record = record(id);
        if number + 1 == rows {
            go(&mut record, State::Expired, 200);
        }
        step.update(record);
    }
    commit(&store, step).unwrap();
    let read = store.read().unwrap();
    let expired = Filter { states: vec![StateName::Expired], network: None };
    let page = read.page(&tenant("a"), &expired, None, 10).unwrap();
    assert_eq!(page.records, []);
    let page = read.page(&tenant("a"), &expired, page.next.as_ref(), 10).unwrap();
    assert_eq!((page.records.len(), page.next), (1, None));
}

#[test]
fn a_checkpoint_is_the_last_one_of_its_network() {
    let (_disk, store) = memory();
    let step = Step::new().checkpoint("main".into(), block(5)).checkpoint("main".into(), block(6)).take();
    commit(&store, step).unwrap();
    let read = store.read().unwrap();
    assert_eq!(read.checkpoint(&"main".into()).unwrap(), Some(block(6)));
    assert_eq!(read.checkpoint(&"test".into()).unwrap(), None);
}

#[test]
fn indices_agree_with_records_after_random_steps() {
    for seed in 0..20 {
        let (_disk, store) = memory();
        let mut steps = Steps::new(seed);
        for _ in 0..60 {
            let step = steps.next();
            commit(&store, step).unwrap();
        }
        let read = store.read().unwrap();
        let found: Vec<Record> = ["a", "ab"]
            .iter()
            .flat_map(|name| read.page(&tenant(name), &Filter::default(), None, 100).unwrap().records)
            .collect();
        let expected: Vec<Record> = steps.records.values().cloned().collect();
        assert_eq!(found, expected, "seed {seed}");
        let of = |table: &str| -> usize { dump(&store).iter().filter(|row| row.starts_with(table)).count() };
        let live = expected.iter().filter(|record| !record.state.is_over()).count();
        let due: usize = expected.iter().filter_map(due_of).count();
        assert_eq!(of("live"), live, "seed {seed}");
        assert_eq!(read.places().len().unwrap(), found.len() as u64);
        for network in ["main", "test"].map(Into::into) {
            let mut sums = BTreeMap::<TenantName, Sums>::new();
            let of_network = |record: &&Record| record.id.network == network;
            for record in expected.iter().filter(of_network) {
                sums.entry(record.id.tenant.clone()).or_default().add(record.state.is_over(), record.bytes as u64);
            }
            assert_eq!(read.sums(&network).unwrap(), sums, "seed {seed}");
            let given_up = |record: &&Record| record.state.is_given_up();
            let mut given_up: Vec<_> = expected.iter().filter(of_network).filter(given_up).cloned().collect();
            given_up.sort_by_key(|record| (record.id.hash, record.id.tenant.clone()));
            let hashes: Vec<B256> = (0..4).map(B256::repeat_byte).collect();
            assert_eq!(read.given_up_among(&network, &hashes).unwrap(), given_up, "seed {seed}");
            assert_eq!(read.has_given_up(&network).unwrap(), !given_up.is_empty());
        }
        assert_eq!(of("due_deadline") + of("due_retention"), due);
        assert_eq!((of("due_delivery"), of("due_quarantine")), (of("deliveries"), of("quarantine")));
        for record in &expected {
            let id = &record.id;
            assert!(read.owners(&id.network, &id.hash, 9).unwrap().contains(&id.tenant));
            let row = due_of(record).map(|(kind, at)| (kind, Millis(at), WorkId::of_transaction(id)));
            if let Some((kind, at, work)) = row {
                let rows = read.due(kind, Millis(u64::MAX), 100).unwrap();
                assert!(rows.iter().any(|due| (due.at, &due.work, &due.tenant) == (at, &work, &id.tenant)));
            }
        }
    }
}

/// The list of those that were given up follows the state alone, also where no due time changes.
#[test]
fn the_list_of_given_up_ones_follows_the_state() {
    let (_disk, store) = memory();
    let mut record = record(tx("a", "main", 1));
    for (state, is_listed) in [(State::Final { block: block(9) }, false), (State::Expired, true), (State::Sent, false)]
    {
        go(&mut record, state, 300);
        commit(&store, Step::new().update(record.clone()).take()).unwrap();
        assert_eq!(store.read().unwrap().has_given_up(&"main".into()).unwrap(), is_listed, "{:?}", record.state);
    }
}

#[test]
fn quarantine_beyond_its_bound_goes_from_the_oldest_on() {
    let (_disk, store) = memory();
    for at in [3, 1, 2] {
        let told = delivery(&tenant("a"), EventId::from(format!("evt_{at}").as_str()), "x", 5);
        let given_up = Quarantined { delivery: told, at: Millis(at), reason: "no".to_owned() };
        commit(&store, Step::new().quarantine(given_up).take()).unwrap();
    }
    let read = store.read().unwrap();
    let excess =
        |most, limit| read.excess_quarantine(most, limit).unwrap().iter().map(|row| row.at.0).collect::<Vec<_>>();
    assert_eq!((excess(3, 10), excess(1, 10), excess(0, 1)), (vec![], vec![1, 2], vec![1]));
}

#[test]
fn networks_with_records_are_found_whatever_the_tenant() {
    let (_disk, store) = memory();
    for (name, network) in [("a", "main"), ("a", "test"), ("b", "main"), ("b", "other")] {
        commit(&store, accepting(tx(name, network, 1))).unwrap();
        commit(&store, accepting(tx(name, network, 2))).unwrap();
    }
    let found = store.read().unwrap().networks(10).unwrap();
    assert_eq!(found, ["main", "other", "test"].map(Into::into));
}
