//! The table of wishes.

use proptest::prelude::*;

use super::*;
use crate::domain::fleet::{Key, LayerWord, NodeRef};

fn node(name: &str) -> WishKey {
    WishKey::Node(NodeRef { network: "main".parse().unwrap(), layer: LayerWord::El, node: name.parse().unwrap() })
}

fn wish(state: &str) -> Result<Wish, String> {
    Ok(Wish::new(state.into(), "r1".parse().unwrap()))
}

fn state(table: &Table, name: &str) -> Option<String> {
    table.known().get(&node(name)).and_then(|standing| standing.state.as_ref()).map(ToString::to_string)
}

/// A table that has listed these wishes, each with the revision of its place.
fn listed(wishes: &[(&str, &str)]) -> Table {
    let mut table = Table::new();
    for (place, (name, word)) in wishes.iter().enumerate() {
        table.entry(node(name), StoreRevision(place as u64 + 1), 0, wish(word));
    }
    assert!(table.synced().is_empty());
    table
}

/// C16: a listing counts when it is whole. Until then the wishes before count.
#[test]
fn a_listing_counts_when_it_is_whole() {
    let mut table = listed(&[("a", "cordoned"), ("b", "drained")]);
    assert!(table.news().unwrap().is_settled && table.news().is_none());
    table.reset();
    table.entry(node("a"), StoreRevision(1), 0, wish("cordoned"));
    assert!(table.news().is_none());
    assert_eq!((state(&table, "a").as_deref(), state(&table, "b").as_deref()), (Some("cordoned"), Some("drained")));
    assert!(table.synced().is_empty(), "a wish that was ended is no loss");
    assert_eq!((state(&table, "a").as_deref(), state(&table, "b")), (Some("cordoned"), None));
    assert_eq!(table.news().unwrap().len(), 1);
}

/// C16: the wishes go with the bucket, and the replica can name those that are lost.
#[test]
fn another_bucket_begins_without_wishes() {
    let mut table = listed(&[("a", "cordoned"), ("b", "drained")]);
    table.reset();
    table.recreated();
    // A listing that is cut short, and begins anew, is still of the other bucket.
    table.reset();
    table.entry(node("b"), StoreRevision(1), 0, Err("written for another bucket".to_owned()));
    assert_eq!(state(&table, "a").as_deref(), Some("cordoned"));
    let lost: Vec<_> = table.synced().into_iter().map(|(key, _)| key).collect();
    assert_eq!((lost, state(&table, "a"), state(&table, "b")), (vec![node("a")], None, None));
    // The next bucket is as new.
    table.recreated();
    assert_eq!(table.synced().len(), 1);
    table.reset();
    assert!(table.synced().is_empty());
}

/// C2, C14: an entry that is not understood changes nothing of what is applied, and is known with
/// its revision.
#[test]
fn an_entry_that_is_not_understood_changes_nothing() {
    let mut table = listed(&[("a", "cordoned")]);
    for (revision, unread) in [(5, Err("malformed".to_owned())), (6, wish("weighed")), (7, wish("debug"))] {
        table.entry(node("a"), StoreRevision(revision), 0, unread.clone());
        let standing = table.known().get(&node("a")).unwrap();
        assert_eq!((standing.revision, &standing.wish), (StoreRevision(revision), &unread));
        assert_eq!(state(&table, "a").as_deref(), Some("cordoned"));
    }
    // The same after a listing of the same bucket; a table that begins knows nothing else.
    table.reset();
    table.entry(node("a"), StoreRevision(7), 0, wish("debug"));
    table.synced();
    assert_eq!(state(&table, "a").as_deref(), Some("cordoned"));
    assert_eq!(state(&listed(&[("a", "weighed")]), "a"), None);
    table.entry(node("a"), StoreRevision(8), 0, wish("drained"));
    assert_eq!(state(&table, "a").as_deref(), Some("drained"));
}

/// C16: the oldest wishes are obeyed, one that is ended makes room, and the table stays bounded.
#[test]
fn wishes_beyond_the_bound_are_ignored_and_counted() {
    let mut table = listed(&[]);
    for number in (0..MAX_KEPT as u64 + 7).rev() {
        table.entry(node(&format!("n{number}")), StoreRevision(5000 - number), 0, wish("cordoned"));
    }
    let known = table.known().clone();
    assert_eq!((known.len(), known.left_out, known.ignored()), (MAX_KEPT, 7, MAX_KEPT + 7 - MAX_WISHES));
    let obeyed = known.obeyed();
    let newest = obeyed.values().map(|standing| standing.revision).max();
    let first = known.iter().map(|(_, standing)| standing.revision).min().unwrap();
    assert_eq!((obeyed.len(), newest), (MAX_WISHES, Some(StoreRevision(first.0 + MAX_WISHES as u64 - 1))));
    let oldest = (*obeyed.keys().min_by_key(|key| obeyed[**key].revision).unwrap()).clone();
    table.deleted(&oldest, StoreRevision(6000));
    let obeyed = table.known().obeyed();
    assert!(obeyed.len() == MAX_WISHES && !obeyed.contains_key(&oldest));
}

/// An event of the watch, or a change of the bucket that only a listing tells.
#[derive(Clone, Debug)]
enum Step {
    Write(u8, Option<&'static str>),
    Delete(u8),
    /// The last event of a key is told again, and earlier ones behind.
    Repeat(u8),
    /// The watch is cut off: the next events are lost.
    Cut,
    /// The watch lists the bucket anew.
    List {
        is_cut_short: bool,
    },
    Recreate,
}

fn step() -> impl Strategy<Value = Step> {
    let words = [Some("cordoned"), Some("drained"), Some("weighed"), None];
    prop_oneof![
        6 => (0..5_u8, prop::sample::select(words.to_vec())).prop_map(|(key, word)| Step::Write(key, word)),
        3 => (0..5_u8).prop_map(Step::Delete),
        3 => (0..5_u8).prop_map(Step::Repeat),
        1 => Just(Step::Cut),
        2 => any::<bool>().prop_map(|is_cut_short| Step::List { is_cut_short }),
        1 => Just(Step::Recreate),
    ]
}

/// The entries of a bucket, by key.
type Bucket = BTreeMap<u8, (u64, Option<&'static str>)>;

fn tell(table: &mut Table, key: u8, (revision, word): (u64, Option<&'static str>)) {
    let value = word.map_or_else(|| Err("malformed".to_owned()), wish);
    table.entry(node(&format!("n{key}")), StoreRevision(revision), revision, value);
}

fn list(table: &mut Table, bucket: &Bucket) {
    table.reset();
    bucket.iter().for_each(|(key, entry)| tell(table, *key, *entry));
    table.synced();
}

/// The entries that a table has, and the states that it must keep to where those are understood.
fn entries(table: &Table) -> Vec<(WishKey, StoreRevision, Result<Wish, String>)> {
    let all = table.known().iter();
    all.map(|(key, standing)| {
        if let Ok(wish) = &standing.wish
            && key.allows(&wish.state)
        {
            assert_eq!(standing.state.as_ref(), Some(&wish.state));
        }
        (key.clone(), standing.revision, standing.wish.clone())
    })
    .collect()
}

proptest! {
    /// C10, C16: any order of events, with repeats, losses and listings, ends in the table that a
    /// fresh listing gives.
    #[test]
    fn any_order_of_events_ends_as_a_fresh_listing(steps in prop::collection::vec(step(), 0..60)) {
        let (mut bucket, mut revision, mut is_cut) = (Bucket::new(), 0, false);
        let (mut earlier, mut deletions) = (Bucket::new(), BTreeMap::new());
        let mut table = Table::new();
        list(&mut table, &bucket);
        for step in steps {
            revision += 1;
            match step {
                Step::Write(key, word) => {
                    earlier.extend(bucket.insert(key, (revision, word)).map(|entry| (key, entry)));
                    if !is_cut {
                        tell(&mut table, key, (revision, word));
                    }
                }
                Step::Delete(key) => {
                    let is_there = bucket.remove(&key).is_some();
                    deletions.insert(key, revision);
                    if is_there && !is_cut {
                        table.deleted(&node(&format!("n{key}")), StoreRevision(revision));
                    }
                }
                Step::Repeat(key) => {
                    if let Some(entry) = bucket.get(&key).filter(|_| !is_cut) {
                        tell(&mut table, key, *entry);
                        earlier.get(&key).into_iter().for_each(|earlier| tell(&mut table, key, *earlier));
                        if let Some(deletion) = deletions.get(&key) {
                            table.deleted(&node(&format!("n{key}")), StoreRevision(*deletion));
                        }
                    }
                }
                Step::Cut => is_cut = true,
                Step::List { is_cut_short } => {
                    if is_cut_short {
                        table.reset();
                        bucket.iter().take(2).for_each(|(key, entry)| tell(&mut table, *key, *entry));
                    }
                    list(&mut table, &bucket);
                    is_cut = false;
                }
                Step::Recreate => {
                    // Revisions of another bucket may begin below those of before.
                    (bucket, revision, is_cut) = (Bucket::new(), 0, true);
                    (earlier, deletions) = (Bucket::new(), BTreeMap::new());
                    table.recreated();
                }
            }
        }
        if is_cut {
            list(&mut table, &bucket);
        }
        let mut fresh = Table::new();
        list(&mut fresh, &bucket);
        prop_assert_eq!(entries(&table), entries(&fresh));
    }

    /// C2: no key of a wish and no value makes the table panic, and a key is read back.
    #[test]
    fn every_subject_has_a_key_that_is_read_back(name in "[^\\s\\p{C}*>]{1,40}") {
        let key = Key::Wish(node(&name));
        prop_assert_eq!(key.to_string().parse(), Ok(key));
    }
}
