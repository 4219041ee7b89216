//! The writer: order, groups, and the moment of the answer.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use super::*;

/// Waits until `holds`, in real time: the writer is a thread.
pub(super) async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it never came");
}

/// Whether the future ends at the first look.
async fn is_done<F: Future + Unpin>(future: &mut F) -> bool {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await
}

fn threaded() -> (PretendDisk, Store) {
    let disk = PretendDisk::new();
    let store = Store::over(Box::new(disk.clone())).unwrap();
    (disk, store)
}

#[tokio::test]
async fn an_answer_before_the_sync_is_impossible() {
    let (disk, store) = threaded();
    disk.hold_syncs();
    let mut pending = store.submit(accepting(tx("a", "main", 1))).await.unwrap();
    until(|| disk.waiting_syncs() == 1).await;
    assert!(!is_done(&mut pending).await, "all is written, and nothing is synced");
    assert_eq!(store.read().unwrap().record(&tx("a", "main", 1)).unwrap(), None, "nor is anything shown");
    // A loss of power now may take all that was not answered.
    disk.release_syncs();
    assert_eq!(pending.await, Ok(()));
    disk.cut_power(0);
    drop(store);
    let store = Store::inline(Box::new(disk)).unwrap();
    assert!(store.read().unwrap().record(&tx("a", "main", 1)).unwrap().is_some());
}

/// A file that grows is synced in the middle of a transaction, under a lock of the database.
#[tokio::test]
async fn a_sync_that_hangs_holds_up_no_reader() {
    let (disk, store) = threaded();
    store.commit(accepting(tx("a", "main", 1))).await.unwrap();
    disk.hold_syncs();
    let mut step = accepting(tx("a", "main", 2));
    step.raw(tx("a", "main", 2), vec![7; 4 << 20].into());
    let pending = store.submit(step).await.unwrap();
    until(|| disk.waiting_syncs() == 1).await;
    let reading = store.clone();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(reading.read().unwrap().record(&tx("a", "main", 1)).unwrap().is_some()));
    let is_there = tokio::task::spawn_blocking(move || told.recv_timeout(std::time::Duration::from_secs(60)));
    assert_eq!(is_there.await.unwrap(), Ok(true));
    disk.release_syncs();
    assert_eq!(pending.await, Ok(()));
}

#[tokio::test]
async fn a_reader_sees_each_step_from_its_answer_on() {
    let (_disk, store) = threaded();
    for hash in 1..=50 {
        let id = tx("a", "main", hash);
        store.commit(accepting(id.clone())).await.unwrap();
        assert!(store.read().unwrap().record(&id).unwrap().is_some());
    }
}

#[tokio::test]
async fn steps_that_wait_together_share_one_sync() {
    let (disk, store) = threaded();
    disk.hold_syncs();
    let first = store.submit(accepting(tx("a", "main", 0))).await.unwrap();
    until(|| disk.waiting_syncs() == 1).await;
    let mut pending = Vec::new();
    for hash in 1..=100 {
        pending.push(store.submit(accepting(tx("a", "main", hash))).await.unwrap());
    }
    let before = disk.syncs();
    disk.release_syncs();
    first.await.unwrap();
    for pending in pending {
        pending.await.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!((2..=4).contains(&syncs), "{syncs} syncs for two groups");
}

#[tokio::test]
async fn steps_are_written_in_the_order_of_their_handing_in() {
    let (_disk, store) = threaded();
    let mut pending = Vec::new();
    for number in 1..=50 {
        pending.push(store.submit(Step::new().checkpoint("main".into(), block(number)).take()).await.unwrap());
    }
    // The newest is there as soon as its own answer is.
    pending.pop().unwrap().await.unwrap();
    assert_eq!(store.read().unwrap().checkpoint(&"main".into()).unwrap(), Some(block(50)));
}

#[tokio::test]
async fn a_store_that_closes_writes_what_waits_first() {
    let (disk, store) = threaded();
    let (other, mut pending) = (store.clone(), Vec::new());
    for hash in 0..50 {
        pending.push(store.submit(accepting(tx("a", "main", hash))).await.unwrap());
    }
    store.close().await;
    for pending in pending {
        assert_eq!(pending.await, Ok(()));
    }
    assert_eq!(other.commit(accepting(tx("a", "main", 99))).await, Err(StoreError::Closed));
    assert_eq!(other.read().unwrap_err(), StoreError::Closed);
    let again = Store::inline(Box::new(disk)).unwrap();
    assert_eq!(again.read().unwrap().live(&"main".into()).unwrap().count(), 50);
}

#[tokio::test]
async fn the_last_clone_closes_the_file() {
    let folder = Folder::new();
    let store = Store::open(folder.path()).unwrap();
    let clone = store.clone();
    drop(store);
    let pending = clone.submit(accepting(tx("a", "main", 1))).await.unwrap();
    drop(clone);
    pending.await.unwrap();
    // The thread closes the file a moment after its last answer.
    let again = std::cell::OnceCell::new();
    until(|| Store::open(folder.path()).is_ok_and(|store| again.set(store).is_ok())).await;
    assert!(again.get().unwrap().read().unwrap().record(&tx("a", "main", 1)).unwrap().is_some());
}

#[tokio::test]
async fn a_group_is_bounded_in_steps_and_in_bytes() {
    for (steps, bytes) in [(1500, 1), (4, 3 << 20)] {
        let (disk, store) = threaded();
        disk.hold_syncs();
        let first = store.submit(accepting(tx("a", "main", 0))).await.unwrap();
        until(|| disk.waiting_syncs() == 1).await;
        let mut pending = Vec::new();
        for _ in 0..steps {
            let step = Step::new().accept(record(tx("a", "main", 1)), vec![7; bytes].into(), vec![]).take();
            pending.push(store.submit(step).await.unwrap());
        }
        disk.release_syncs();
        first.await.unwrap();
        for pending in pending {
            pending.await.unwrap();
        }
        // The first by itself, and the others in two.
        let groups = store.read().unwrap().meta(super::super::tables::GROUP_KEY).unwrap();
        assert_eq!(groups, 3, "{steps} steps of {bytes} bytes");
    }
}
