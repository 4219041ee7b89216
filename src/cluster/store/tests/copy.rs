//! A watcher's copy: messages may be lost, doubled or old, and a listing is the whole truth.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::time::Instant;

use super::copies::Told;
use crate::cluster::store::{Entry, Event, Incarnation, Key, Listing, Malformed, Revision, StoreTime, copy::Copy};

fn entry(name: u8, revision: u64) -> Entry {
    Entry {
        key: Key::of(&["k", &name.to_string()]).expect("names"),
        value: Bytes::new(),
        revision: Revision::new(revision),
        created: StoreTime::from_nanos(revision),
    }
}

fn listing(bucket: u64, upto: u64, entries: Vec<Entry>) -> Listing {
    let incarnation = Incarnation::new(StoreTime::from_nanos(bucket));
    Listing { incarnation, upto: Revision::new(upto), entries, malformed: Vec::new() }
}

fn deleted(name: u8, revision: u64) -> Event {
    Event::Deleted { key: entry(name, 1).key, revision: Revision::new(revision) }
}

#[test]
fn listing_tells_losses_before_changes() {
    let mut copy = Copy::default();
    copy.listed(Instant::now(), listing(1, 2, vec![entry(1, 1), entry(2, 2)]));
    let events = copy.listed(Instant::now(), listing(1, 5, vec![entry(2, 2), entry(3, 5)]));
    let Event::Synced { incarnation } = events[2] else { panic!("{events:?}") };
    assert_eq!(events[..2], [deleted(1, 1), Event::Entry(entry(3, 5))]);
    assert_eq!(Some(incarnation), copy.incarnation());
}

#[test]
fn message_older_than_the_listing_is_left_aside() {
    let mut copy = Copy::default();
    copy.listed(Instant::now(), listing(1, 5, vec![entry(1, 5)]));
    assert_eq!(copy.written(entry(1, 4)), None);
    assert_eq!(copy.written(entry(2, 3)), None, "deleted before the listing");
    assert_eq!(copy.deleted(entry(1, 1).key, Revision::new(4)), None);
    assert_eq!(copy.written(entry(1, 6)), Some(Event::Entry(entry(1, 6))));
    assert_eq!(copy.written(entry(1, 6)), None, "told once");
    assert_eq!(copy.deleted(entry(1, 1).key, Revision::new(7)), Some(deleted(1, 7)));
}

#[test]
fn listing_older_than_a_message_is_left_aside() {
    let mut copy = Copy::default();
    copy.listed(Instant::now(), listing(1, 1, vec![entry(1, 1)]));
    copy.written(entry(2, 2));
    assert_eq!(copy.listed(Instant::now(), listing(1, 1, vec![entry(1, 1)])), []);
    assert_eq!(copy.listed(Instant::now(), listing(1, 2, vec![entry(1, 1), entry(2, 2)])).len(), 1, "synced");
}

/// A listing takes its time, and messages come meanwhile that are ahead of it.
#[test]
fn messages_beside_a_listing_are_not_undone() {
    let mut copy = Copy::default();
    copy.listed(Instant::now(), listing(1, 3, vec![entry(1, 1), entry(2, 2), entry(3, 3)]));
    let began = copy.last();
    // Written anew, made, and deleted, behind the listing's end.
    copy.written(entry(1, 6));
    copy.written(entry(4, 7));
    copy.deleted(entry(2, 2).key, Revision::new(8));
    let listed = vec![entry(1, 1), entry(2, 2), entry(3, 5)];
    let events = copy.listed_since(Instant::now(), began, listing(1, 5, listed));
    assert_eq!(events[..events.len() - 1], [Event::Entry(entry(3, 5))], "what the listing alone has");
    // The next listing has all of that, and what is lost is told.
    let listed = vec![entry(1, 6), entry(3, 5)];
    let events = copy.listed(Instant::now(), listing(1, 9, listed));
    assert_eq!(events[..events.len() - 1], [deleted(4, 7)]);
}

/// An entry that was deleted, and whose message was lost, stays gone where a deletion is known.
#[test]
fn a_deletion_beside_a_listing_is_known_without_the_entry() {
    let mut copy = Copy::default();
    copy.listed(Instant::now(), listing(1, 1, vec![]));
    let began = copy.last();
    assert_eq!(copy.deleted(entry(1, 1).key, Revision::new(4)), None, "the entry was never told");
    let events = copy.listed_since(Instant::now(), began, listing(1, 3, vec![entry(1, 2)]));
    assert_eq!(events.len(), 1, "synced");
    assert_eq!(copy.written(entry(1, 5)), Some(Event::Entry(entry(1, 5))));
}

/// A bucket that comes back with an earlier state is told as another, once no server that was
/// replaced can be the reason.
#[test]
fn bucket_that_stays_older_was_set_back() {
    let (start, incarnation) = (Instant::now(), Incarnation::new(StoreTime::from_nanos(1)));
    let at = |seconds| start + Duration::from_secs(seconds);
    // The revisions of all are older, or have passed the last one while a key's has not.
    for upto in [4, 12] {
        let mut copy = Copy::default();
        copy.listed(at(0), listing(1, 5, vec![entry(1, 2), entry(2, 5)]));
        copy.written(entry(1, 9));
        let older = || listing(1, upto, vec![entry(1, 2), entry(2, 4)]);
        assert_eq!(copy.listed(at(1), older()), []);
        assert_eq!(copy.listed(at(10), older()), [], "a server that was replaced may answer yet");
        copy.listed(at(11), listing(1, 9, vec![entry(1, 9), entry(2, 5)]));
        assert_eq!(copy.listed(at(12), older()), [], "the wait begins anew");
        assert_eq!(copy.listed(at(21), older()), []);
        let told = [entry(1, 2), entry(2, 4)].map(Event::Entry);
        let wanted = [&[Event::Reset { incarnation }], &told[..], &[Event::Synced { incarnation }]].concat();
        assert_eq!(copy.listed(at(22), older()), wanted);
        assert_eq!(copy.listed(at(23), older()), [Event::Synced { incarnation }]);
        assert_eq!(copy.written(entry(2, upto + 1)), Some(Event::Entry(entry(2, upto + 1))));
    }
}

#[test]
fn listing_of_another_bucket_begins_with_a_reset() {
    let mut copy = Copy::default();
    copy.listed(Instant::now(), listing(1, 100, vec![entry(1, 100)]));
    let events = copy.listed(Instant::now(), listing(2, 3, vec![entry(1, 3)]));
    let incarnation = Incarnation::new(StoreTime::from_nanos(2));
    let wanted = [Event::Reset { incarnation }, Event::Entry(entry(1, 3)), Event::Synced { incarnation }];
    assert_eq!(events, wanted);
    assert_eq!(copy.written(entry(1, 4)), Some(Event::Entry(entry(1, 4))));
}

#[test]
fn foreign_key_is_told_once_for_each_revision() {
    let mut copy = Copy::default();
    let strange = |revision| Malformed {
        key: "not a key".to_owned(),
        revision: Revision::new(revision),
        why: "a test".to_owned(),
    };
    assert!(copy.strange(strange(1)).is_some());
    assert!(copy.strange(strange(1)).is_none());
    let with = |revision| Listing { malformed: vec![strange(revision)], ..listing(1, 9, vec![]) };
    assert_eq!(copy.listed(Instant::now(), with(1)).len(), 1, "synced");
    assert_eq!(copy.listed(Instant::now(), with(2)).len(), 2);
}

proptest! {
    /// Each write of a bucket comes as a message, or is lost; listings come in between. After the
    /// last listing the copy is the bucket, and no event on the way was wrong.
    #[test]
    fn copy_is_the_bucket_after_a_listing(
        steps in prop::collection::vec((0..4_u8, any::<bool>(), any::<bool>(), 0..4_u8), 0..60)
    ) {
        let (mut copy, mut told) = (Copy::default(), Told::default());
        let mut bucket = BTreeMap::new();
        let mut last = 0;
        let lists = |bucket: &BTreeMap<u8, u64>, last| {
            listing(1, last, bucket.iter().map(|(name, at)| entry(*name, *at)).collect())
        };
        for (name, is_written, is_lost, at) in steps {
            last += 1;
            let event = if is_written {
                bucket.insert(name, last);
                copy_unless(is_lost, || copy.written(entry(name, last)))
            } else {
                bucket.remove(&name);
                let key = entry(name, 1).key;
                copy_unless(is_lost, || copy.deleted(key, Revision::new(last)))
            };
            event.iter().for_each(|event| told.take(event));
            if at == 0 {
                copy.listed(Instant::now(), lists(&bucket, last)).iter().for_each(|event| told.take(event));
            }
        }
        copy.listed(Instant::now(), lists(&bucket, last)).iter().for_each(|event| told.take(event));
        let wanted: BTreeMap<_, _> = bucket
            .iter()
            .map(|(name, at)| (entry(*name, *at).key, Revision::new(*at)))
            .collect();
        prop_assert_eq!(told.entries, wanted);
    }
}

proptest! {
    /// The same where listings take their time: each is as the bucket was some steps ago, and was
    /// begun some steps before.
    #[test]
    fn copy_is_the_bucket_behind_listings_that_took_their_time(
        steps in prop::collection::vec((0..4_u8, any::<bool>(), any::<bool>(), 0..4_u8), 0..60)
    ) {
        let (mut copy, mut told) = (Copy::default(), Told::default());
        let mut bucket = BTreeMap::new();
        let (mut last, mut under_way) = (0, None);
        for (name, is_written, is_lost, at) in steps {
            last += 1;
            let event = if is_written {
                bucket.insert(name, last);
                copy_unless(is_lost, || copy.written(entry(name, last)))
            } else {
                bucket.remove(&name);
                copy_unless(is_lost, || copy.deleted(entry(name, 1).key, Revision::new(last)))
            };
            event.iter().for_each(|event| told.take(event));
            match (at, under_way.take()) {
                (0, None) => under_way = Some((copy.last(), None)),
                (1, Some((began, None))) => {
                    let entries = bucket.iter().map(|(name, at)| entry(*name, *at)).collect();
                    under_way = Some((began, Some(listing(1, last, entries))));
                }
                (2, Some((began, Some(listing)))) => {
                    copy.listed_since(Instant::now(), began, listing).iter().for_each(|event| told.take(event));
                }
                (_, before) => under_way = before,
            }
        }
        let entries = bucket.iter().map(|(name, at)| entry(*name, *at)).collect();
        copy.listed(Instant::now(), listing(1, last, entries)).iter().for_each(|event| told.take(event));
        let wanted: BTreeMap<_, _> =
            bucket.iter().map(|(name, at)| (entry(*name, *at).key, Revision::new(*at))).collect();
        prop_assert_eq!(told.entries, wanted);
    }
}

fn copy_unless(is_lost: bool, take: impl FnOnce() -> Option<Event>) -> Option<Event> {
    if is_lost { None } else { take() }
}
