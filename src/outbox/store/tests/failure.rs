//! Disks that fail: full, unwritable, or with an open end.

use std::io::ErrorKind;

use redb::{Database, StorageBackend as _};

use super::{super::medium::Overlay, *};
use crate::outbox::store::{Folder as FolderMedium, Health, Medium as _, RESERVE};

fn hash_is_there(store: &Store, hash: u8) -> bool {
    let id = tx("a", "main", hash);
    let read = store.read().unwrap();
    let found = read.record(&id).unwrap();
    let event = record(id.clone()).event(1);
    let delivery = read.delivery(&id.tenant, &WorkId::of_delivery(&event, "billing")).unwrap();
    let parts = [found.is_some(), read.raw(&id).unwrap().is_some(), delivery.is_some()];
    assert!(parts == [true; 3] || parts == [false; 3], "{hash} is there in part: {parts:?}");
    parts[0]
}

fn accept(store: &Store, hash: u8) -> Result<(), StoreError> {
    commit(store, accepting(tx("a", "main", hash)))
}

#[test]
fn a_full_disk_is_said_so_and_reads_go_on() {
    let (disk, store) = memory();
    accept(&store, 1).unwrap();
    let health = store.health();
    disk.fail_after(0, ErrorKind::StorageFull, 0);
    for hash in [2, 3] {
        assert!(matches!(accept(&store, hash), Err(StoreError::Full(_))));
        assert!(matches!(*health.borrow(), Health::Full(_)));
        assert!(hash_is_there(&store, 1) && !hash_is_there(&store, hash));
        assert_eq!(store.read().unwrap().live(&"main".into()).unwrap().count(), 1);
    }
    disk.mend();
    accept(&store, 4).unwrap();
    assert_eq!(*health.borrow(), Health::Writable);
    drop(store);
    disk.cut_power(0);
    let store = Store::inline(Box::new(disk)).unwrap();
    assert_eq!([1, 2, 3, 4].map(|hash| hash_is_there(&store, hash)), [true, false, false, true]);
}

#[test]
fn a_disk_that_takes_no_writes_is_said_so() {
    let (disk, store) = memory();
    disk.fail_after(0, ErrorKind::ReadOnlyFilesystem, 0);
    assert!(matches!(accept(&store, 1), Err(StoreError::Unwritable(_))));
    assert!(matches!(*store.health().borrow(), Health::Unwritable(_)));
    disk.mend();
    // An empty step asks the disk.
    commit(&store, Step::new()).unwrap();
    assert_eq!(*store.health().borrow(), Health::Writable);
}

#[test]
fn a_store_opens_over_a_full_disk_to_read() {
    let (disk, store) = memory();
    accept(&store, 1).unwrap();
    drop(store);
    disk.fail_after(0, ErrorKind::StorageFull, 0);
    let store = Store::inline(Box::new(disk.clone())).unwrap();
    assert!(matches!(*store.health().borrow(), Health::Full(_)));
    assert!(hash_is_there(&store, 1));
    assert!(matches!(accept(&store, 2), Err(StoreError::Full(_))));
    disk.mend();
    accept(&store, 2).unwrap();
    assert!(hash_is_there(&store, 2));
    let denied = PretendDisk::new();
    denied.fail_after(0, ErrorKind::PermissionDenied, 0);
    assert!(Store::inline(Box::new(denied)).is_err(), "an operator must see this one");
}

/// A failure at each change in turn: a step that was answered `Ok` stays, one that failed is not
/// there, and the store takes steps again when the disk does.
#[test]
fn a_failure_at_any_write_loses_no_answered_step() {
    for seed in 0..8 {
        let (mut more, mut unsure) = (0, 0);
        loop {
            let (disk, store) = memory();
            let mut rng = Rng::with_seed(seed);
            let kind = rng.choice([ErrorKind::StorageFull, ErrorKind::Other]).unwrap();
            disk.fail_after(more, kind, seed + more);
            let mut answers = Vec::new();
            for hash in 0..6 {
                answers.push(accept(&store, hash));
                if answers.last().is_some_and(Result::is_err) && rng.bool() {
                    disk.mend();
                }
            }
            disk.mend();
            let of = format!("seed {seed}, change {more}: {answers:?}");
            assert_eq!(accept(&store, 7), Ok(()), "{of}");
            let is_full = |error: &StoreError| matches!(error, StoreError::Full(_) | StoreError::Unsure(_));
            let errors = answers.iter().filter_map(|answer| answer.as_ref().err());
            assert!(kind != ErrorKind::StorageFull || errors.clone().all(is_full), "a full disk is called so: {of}");
            let check = |store: &Store, sure: &[bool]| {
                for (hash, answer) in answers.iter().enumerate() {
                    let is_there = hash_is_there(store, hash as u8);
                    match answer {
                        Err(StoreError::Unsure(_)) => assert_eq!(is_there, sure[hash], "{hash} of {of}"),
                        answer => assert_eq!(is_there, answer.is_ok(), "{hash} of {of}"),
                    }
                }
            };
            // Where no answer could be sure, the store is, once the disk works again.
            let sure: Vec<bool> = (0..6).map(|hash| hash_is_there(&store, hash)).collect();
            check(&store, &sure);
            unsure += answers.iter().filter(|answer| matches!(answer, Err(StoreError::Unsure(_)))).count();
            drop(store);
            disk.cut_power(seed);
            check(&Store::inline(Box::new(disk)).unwrap(), &sure);
            if answers.iter().all(Result::is_ok) {
                break;
            }
            more += 1;
        }
        assert!(more > 20, "only {more} changes");
        assert!(unsure <= 12, "{unsure} of {more} failures left it open: two or three syncs of six steps may");
    }
}

/// A failure at each change in turn, after which the disk works at once: the store opens the file
/// anew, and finds the step there or not.
#[test]
fn a_step_that_a_failed_sync_kept_is_answered_so() {
    let (mut kept, mut lost) = (0, 0);
    for before in 0..6 {
        for more in 0.. {
            let (disk, store) = memory();
            (0..before).for_each(|hash| accept(&store, hash).unwrap());
            let fails_at = disk.changes() + more;
            disk.fail_once_after(more, ErrorKind::Other);
            let answer = accept(&store, 9);
            let of = format!("{before} steps before, change {more}: {answer:?}");
            assert_eq!(hash_is_there(&store, 9), answer.is_ok(), "{of}");
            let is_over = disk.changes() <= fails_at;
            drop(store);
            disk.cut_power(more);
            let store = Store::inline(Box::new(disk)).unwrap();
            assert_eq!(hash_is_there(&store, 9), answer.is_ok(), "{of}");
            assert!((0..before).all(|hash| hash_is_there(&store, hash)), "{of}");
            if is_over {
                break;
            }
            *if answer.is_ok() { &mut kept } else { &mut lost } += 1;
        }
    }
    assert!(kept > 0 && lost > 20, "{kept} kept, {lost} lost");
}

#[test]
fn a_failed_sync_is_not_healed_by_a_later_one() {
    for seed in 0..50 {
        let (disk, store) = memory();
        accept(&store, 1).unwrap();
        disk.fail_syncs(ErrorKind::Other, seed);
        assert!(matches!(accept(&store, 2), Err(StoreError::Unwritable(_))), "seed {seed}");
        disk.mend();
        // The cache shows step 2 whole, and the platter may hold a part of its pages.
        accept(&store, 3).unwrap();
        let was_there = hash_is_there(&store, 2);
        disk.cut_power(seed);
        drop(store);
        let store = Store::inline(Box::new(disk)).unwrap();
        assert!(hash_is_there(&store, 1) && hash_is_there(&store, 3), "seed {seed}");
        assert_eq!(hash_is_there(&store, 2), was_there, "seed {seed}");
    }
}

#[test]
fn pages_that_only_the_cache_has_are_no_ground_to_go_on() {
    for seed in 0..50 {
        let (disk, store) = memory();
        accept(&store, 1).unwrap();
        drop(store);
        // A process that dies with its failed sync: the cache has all, and the platter a part.
        let database = Database::builder().create_with_backend(super::super::pretend_disk::handle(&disk)).unwrap();
        let txn = database.begin_write().unwrap();
        let row = format!(r#"{{"number":7,"hash":"{}"}}"#, B256::ZERO);
        txn.open_table(CHECKPOINT).unwrap().insert("other", row.as_bytes()).unwrap();
        disk.fail_syncs(ErrorKind::Other, seed);
        assert!(txn.commit().is_err());
        drop(database);
        let store = Store::inline(Box::new(disk.clone())).unwrap();
        assert!(matches!(accept(&store, 2), Err(StoreError::Unwritable(_))), "seed {seed}");
        disk.mend();
        accept(&store, 3).unwrap();
        disk.cut_power(seed);
        drop(store);
        let store = Store::inline(Box::new(disk)).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert!(hash_is_there(&store, 1) && hash_is_there(&store, 3), "seed {seed}");
        store.read().unwrap().checkpoint(&"other".into()).unwrap();
    }
}

#[test]
fn a_disk_that_is_away_breaks_all_lines_and_is_only_probed() {
    let (disk, store) = memory();
    accept(&store, 1).unwrap();
    let before = store.line();
    disk.fail_after(0, ErrorKind::Other, 0);
    accept(&store, 2).unwrap_err();
    assert!(before.is_broken(), "rows that were read before are in doubt");
    let changes = disk.changes();
    accept(&store, 2).unwrap_err();
    assert_eq!(disk.changes(), changes, "the file is not opened while the probe fails");
    // The disk takes the probe, and fails in the middle of the opening.
    for more in 1..4 {
        disk.mend();
        disk.fail_after(more, ErrorKind::Other, more);
        accept(&store, 2).unwrap_err();
        assert!(hash_is_there(&store, 1), "reads go on");
    }
    let meanwhile = store.line();
    disk.mend();
    accept(&store, 3).unwrap();
    assert!(meanwhile.is_broken(), "rows that were read from the cache may be gone");
    assert!(!store.line().is_broken());
}

#[test]
fn a_closed_store_is_not_opened_again_when_its_disk_returns() {
    let (disk, store) = memory();
    disk.fail_after(0, ErrorKind::Other, 0);
    accept(&store, 1).unwrap_err();
    store.clone().close().now_or_never().expect("at once");
    disk.mend();
    let changes = disk.changes();
    assert_eq!(accept(&store, 1), Err(StoreError::Closed));
    assert_eq!(disk.changes(), changes, "the file is another process's now");
}

#[test]
fn a_failure_behind_an_open_question_is_answered_right() {
    let mut open = 0;
    for (first, seed) in (0..30).flat_map(|first| (0..6).map(move |seed| (first, seed))) {
        for more in 0..40 {
            let (disk, store) = memory();
            accept(&store, 1).unwrap();
            disk.fail_after(first, ErrorKind::Other, seed);
            if !matches!(accept(&store, 2), Err(StoreError::Unsure(_))) {
                break;
            }
            open += 1;
            disk.mend();
            disk.fail_once_after(more, ErrorKind::Other);
            let answer = accept(&store, 3);
            disk.mend();
            let of = format!("change {first} of seed {seed}, then change {more}: {answer:?}");
            accept(&store, 4).unwrap();
            if !matches!(answer, Err(StoreError::Unsure(_))) {
                assert_eq!(hash_is_there(&store, 3), answer.is_ok(), "{of}");
            }
        }
    }
    assert!(open > 0, "no question was open");
}

#[test]
fn a_nearly_full_disk_finishes_what_was_accepted() {
    let (disk, store) = memory();
    accept(&store, 1).unwrap();
    disk.set_free(Some(RESERVE - 1));
    let line = store.line();
    let in_line = |step| line.commit(step).now_or_never().expect("at once");
    let refused = in_line(accepting(tx("a", "main", 2)));
    assert!(matches!(refused, Err(StoreError::Full(_))));
    assert!(matches!(*store.health().borrow(), Health::Full(_)));
    assert!(matches!(in_line(Step::new().remove(tx("a", "main", 2)).take()), Err(StoreError::Behind(_))));
    let mut record = record(tx("a", "main", 1));
    go(&mut record, State::Expired, 200);
    commit(&store, Step::new().transition(record, vec![]).take()).unwrap();
    commit(&store, Step::new().remove(tx("a", "main", 1)).take()).unwrap();
    disk.set_free(Some(RESERVE));
    accept(&store, 2).unwrap();
    assert_eq!(*store.health().borrow(), Health::Writable);
}

#[tokio::test]
async fn steps_behind_a_failed_one_fail_with_their_line() {
    let disk = PretendDisk::new();
    let store = Store::over(Box::new(disk.clone())).unwrap();
    let (line, other) = (store.line(), store.line());
    disk.hold_syncs();
    let first = line.submit(accepting(tx("a", "main", 1))).await.unwrap();
    writing::until(|| disk.waiting_syncs() == 1).await;
    // Handed in before the first one fails.
    let mut record = record(tx("a", "main", 1));
    go(&mut record, State::Sent, 200);
    let second = line.submit(Step::new().transition(record, vec![]).take()).await.unwrap();
    let alone = store.submit(accepting(tx("a", "main", 2))).await.unwrap();
    disk.fail_once(ErrorKind::StorageFull);
    disk.release_syncs();
    assert!(matches!(first.await, Err(StoreError::Full(_))));
    assert!(matches!(second.await, Err(StoreError::Behind(_))));
    assert_eq!(alone.await, Ok(()), "this one rests on no other, and the disk works again");
    assert!(line.is_broken() && other.is_broken(), "all rows that were read are in doubt");
    assert!(matches!(line.commit(Step::new()).await, Err(StoreError::Behind(_))));
    assert_eq!([1, 2].map(|hash| hash_is_there(&store, hash)), [false, true]);
    let line = store.line();
    line.commit(accepting(tx("a", "main", 1))).await.unwrap();
    assert!(!line.is_broken() && hash_is_there(&store, 1));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_fails_its_own_step_only() {
    let (disk, store) = memory();
    accept(&store, 1).unwrap();
    drop(store);
    let database = Database::builder().create_with_backend(super::super::pretend_disk::handle(&disk)).unwrap();
    let txn = database.begin_write().unwrap();
    // No schedule has the number 9.
    txn.open_table(RECORDS).unwrap().insert(1, ("sent", (0, Some((9, 0)), 0, false), &b"{"[..])).unwrap();
    txn.commit().unwrap();
    drop(database);

    let store = Store::over(Box::new(disk.clone())).unwrap();
    let read = store.read().unwrap().record(&tx("a", "main", 1));
    assert!(matches!(read, Err(StoreError::Malformed(_))), "{read:?}");
    let line = store.line();
    disk.hold_syncs();
    let first = store.submit(accepting(tx("a", "main", 0))).await.unwrap();
    writing::until(|| disk.waiting_syncs() == 1).await;
    let mut group = Vec::new();
    for hash in [2, 1, 3] {
        group.push(line.submit(accepting(tx("a", "main", hash))).await.unwrap());
    }
    let beside = store.submit(accepting(tx("a", "main", 4))).await.unwrap();
    disk.release_syncs();
    first.await.unwrap();
    let mut answers = Vec::new();
    for pending in group {
        answers.push(pending.await);
    }
    let [Ok(()), Err(StoreError::Malformed(_)), Err(StoreError::Behind(_))] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!(beside.await, Ok(()));
    assert_eq!([2, 3, 4].map(|hash| hash_is_there(&store, hash)), [true, false, true]);
}

#[test]
fn a_folder_is_asked_without_a_trace() {
    let folder = Folder::new();
    let medium = FolderMedium::new(folder.path()).unwrap();
    medium.probe().unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(medium.free().is_some_and(|free| free > 0));
    std::fs::write(folder.path().join(super::super::FILE), "x").unwrap();
    medium.forget_cache().unwrap();
    drop(folder);
    assert!(medium.probe().is_err());
}

#[test]
fn an_overlay_reads_as_a_file_and_leaves_the_file_alone() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..50 {
        let disk = PretendDisk::new();
        let file = disk.open().unwrap();
        let mut model: Vec<u8> = (0..rng.usize(0..20_000)).map(|_| rng.u8(..)).collect();
        file.write(0, &model).unwrap();
        let below = model.clone();
        let overlay = Overlay::over(file).unwrap();
        for _ in 0..40 {
            if rng.u8(0..4) == 0 {
                let length = rng.usize(0..20_000);
                model.resize(length, 0);
                overlay.set_len(length as u64).unwrap();
            } else {
                let (start, length) = (rng.usize(0..=model.len()), rng.usize(0..9000));
                let bytes: Vec<u8> = (0..length).map(|_| rng.u8(..)).collect();
                model.resize(model.len().max(start + length), 0);
                model[start..start + length].copy_from_slice(&bytes);
                overlay.write(start as u64, &bytes).unwrap();
            }
            let mut read = vec![0; model.len()];
            assert_eq!(overlay.len().unwrap(), model.len() as u64);
            overlay.read(0, &mut read).unwrap();
            assert!(read == model);
        }
        assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
        assert_eq!(disk.bytes(), below);
    }
}
