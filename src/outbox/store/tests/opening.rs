//! Opening: the file, its lock, its format.

use std::{fs, io::Read as _, os::unix::fs::PermissionsExt as _};

use redb::{Database, StorageBackend as _};

use super::*;
use crate::outbox::store::{FILE, FORMAT, Health, pretend_disk::handle, tables::FORMAT_KEY, try_folder};

/// Files of each format, packed, with the same rows.
const GOLDEN: [&[u8]; 3] = [
    include_bytes!("golden/format-1.redb.gz"),
    include_bytes!("golden/format-2.redb.gz"),
    include_bytes!("golden/format-3.redb.gz"),
];

fn file(folder: &Folder) -> std::path::PathBuf {
    folder.path().join(FILE)
}

/// The error of opening the store in the folder.
fn refusal(folder: &Folder) -> String {
    Store::open(folder.path()).expect_err("the file is refused").to_string()
}

#[tokio::test]
async fn a_new_file_is_its_owners_only() {
    let folder = Folder::new();
    let inside = folder.path().join("deep/outbox");
    Store::open(&inside).unwrap().close().await;
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&inside), mode(&inside.join(FILE))), (0o700, 0o600));
    let names: Vec<_> = fs::read_dir(&inside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [FILE], "nothing else is left there");
}

#[test]
fn a_folder_is_tried_where_it_would_be_made() {
    let folder = Folder::new();
    // The last two are relative, to the folder that every test runs in.
    for dir in [folder.path().to_owned(), folder.path().join("a/b"), "no-such-folder".into(), "no-such/folder".into()] {
        try_folder(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        assert!(dir == folder.path() || !dir.exists());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(try_folder("/proc/no-such-folder".as_ref()).is_err());
}

#[tokio::test]
async fn a_half_made_file_is_made_anew() {
    let folder = Folder::new();
    fs::write(folder.path().join("outbox.redb.new"), [0; 5000]).unwrap();
    Store::open(folder.path()).unwrap().close().await;
    assert!(file(&folder).exists());
}

#[tokio::test]
async fn an_empty_file_is_refused() {
    let folder = Folder::new();
    fs::write(file(&folder), "").unwrap();
    let said = refusal(&folder);
    assert!(said.contains("the file is empty"), "{said}");
}

#[tokio::test]
async fn a_file_that_is_removed_or_replaced_takes_no_more() {
    for is_replaced in [false, true] {
        let folder = Folder::new();
        let store = Store::open(folder.path()).unwrap();
        store.commit(accepting(tx("a", "main", 1))).await.unwrap();
        fs::rename(file(&folder), folder.path().join("moved")).unwrap();
        if is_replaced {
            fs::copy(folder.path().join("moved"), file(&folder)).unwrap();
        }
        for hash in 2..4 {
            let refused = store.commit(accepting(tx("a", "main", hash))).await;
            assert!(refused.is_err(), "replaced: {is_replaced}");
            let Health::Unwritable(why) = store.health().borrow().clone() else { panic!("writable") };
            assert!(why.contains(if is_replaced { "replaced" } else { "removed" }), "{why}");
        }
        // With the file at its place the store goes on.
        fs::rename(folder.path().join("moved"), file(&folder)).unwrap();
        store.commit(accepting(tx("a", "main", 4))).await.unwrap();
        assert_eq!(*store.health().borrow(), Health::Writable);
        store.close().await;
    }
}

#[tokio::test]
async fn a_file_in_use_is_refused_by_name() {
    let folder = Folder::new();
    let store = Store::open(folder.path()).unwrap();
    let refusal = refusal(&folder);
    assert!(refusal.contains(&file(&folder).display().to_string()) && refusal.contains("another process"), "{refusal}");
    store.close().await;
    Store::open(folder.path()).unwrap();
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let folder = Folder::new();
    fs::write(file(&folder), "a text of somebody's").unwrap();
    let said = refusal(&folder);
    assert!(said.contains("is no outbox") && said.contains("outbox.dir"), "{said}");
    assert_eq!(fs::read_to_string(file(&folder)).unwrap(), "a text of somebody's");

    fs::remove_file(file(&folder)).unwrap();
    let other = Database::create(file(&folder)).unwrap();
    let txn = other.begin_write().unwrap();
    txn.open_table(TableDefinition::<u64, u64>::new("of another program")).unwrap();
    txn.commit().unwrap();
    drop(other);
    let said = refusal(&folder);
    assert!(said.contains("is no outbox") && said.contains("of another program"), "{said}");
}

#[tokio::test]
async fn a_file_of_another_format_is_refused_by_name() {
    for (format, words) in [(FORMAT + 1, "Run the version that wrote it"), (u64::MAX, "knows formats up to 3")] {
        let folder = Folder::new();
        Store::open(folder.path()).unwrap().close().await;
        let database = Database::open(file(&folder)).unwrap();
        let txn = database.begin_write().unwrap();
        txn.open_table(META).unwrap().insert(FORMAT_KEY, format).unwrap();
        txn.commit().unwrap();
        drop(database);
        let said = refusal(&folder);
        assert!(said.contains(words) && said.contains(&file(&folder).display().to_string()), "{said}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_by_name() {
    let folder = Folder::new();
    let store = Store::open(folder.path()).unwrap();
    for hash in 0..100 {
        store.commit(accepting(tx("a", "main", hash))).await.unwrap();
    }
    store.close().await;
    let whole = fs::read(file(&folder)).unwrap();
    let mut damaged = whole.clone();
    let at = whole.windows(32).position(|bytes| bytes == [7; 32]).expect("raw bytes");
    damaged[at] ^= 1;
    fs::write(file(&folder), damaged).unwrap();
    let said = refusal(&folder);
    assert!(said.contains("is damaged") && said.contains("Restore it"), "{said}");
    fs::write(file(&folder), whole).unwrap();
    Store::open(folder.path()).unwrap();
}

#[tokio::test]
async fn no_damage_makes_the_store_panic() {
    let folder = Folder::new();
    let store = Store::open(folder.path()).unwrap();
    for hash in 0..50 {
        store.commit(accepting(tx("a", "main", hash))).await.unwrap();
    }
    let rows = dump(&store);
    store.close().await;
    let whole = fs::read(file(&folder)).unwrap();
    let mut rng = Rng::with_seed(5);
    let (mut refused, used) = (0, whole.iter().rposition(|&byte| byte != 0).unwrap());
    for _ in 0..150 {
        let mut damaged = whole.clone();
        let at = if rng.u8(0..4) == 0 { rng.usize(0..512) } else { rng.usize(0..used) };
        damaged[at] ^= 1 << rng.u8(0..8);
        fs::write(file(&folder), damaged).unwrap();
        match Store::open(folder.path()) {
            Ok(store) => {
                assert_eq!(dump(&store), rows, "byte {at} is of no page in use");
                store.close().await;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 20, "{refused} refused");
    for length in [1, 500, 5000, whole.len() - 1] {
        fs::write(file(&folder), &whole[..length]).unwrap();
        let said = refusal(&folder);
        assert!(said.contains("is damaged") || said.contains("is no outbox"), "{length}: {said}");
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = Folder::new();
    fs::write(folder.path().join("file"), "").unwrap();
    let said = Store::open(&folder.path().join("file/dir")).unwrap_err().to_string();
    assert!(said.contains("file/dir cannot be opened"), "{said}");
}

/// All that the golden file holds.
fn golden_step() -> Step {
    let (mined, mut over) = (tx("b", "main", 2), record(tx("a", "test", 3)));
    let mut record_mined = record(mined.clone());
    go(&mut record_mined, State::Mined { block: block(9) }, 300);
    go(&mut over, State::Refused { reason: "nonce too low".to_owned() }, 400);
    let given_up = delivery(&tenant("b"), "evt_old".into(), "audit", 50);
    let mut step = accepting(tx("a", "main", 1));
    step.append(accepting(mined))
        .transition(record_mined, vec![])
        .accept(over, vec![1, 2, 3].into(), vec![])
        .quarantine(Quarantined { delivery: given_up, at: Millis(60), reason: "status 500".to_owned() })
        .checkpoint("main".into(), block(9));
    step
}

/// U9: files of earlier versions are read.
#[tokio::test]
async fn a_file_of_an_earlier_format_is_read_by_this_version() {
    if std::env::var_os("UPDATE").is_some() {
        write_golden().await;
    }
    for (number, packed) in (1..).zip(GOLDEN) {
        let folder = Folder::new();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
        fs::write(file(&folder), bytes).unwrap();
        let store = Store::open(folder.path()).unwrap();
        let (_disk, fresh) = memory();
        commit(&fresh, golden_step()).unwrap();
        assert_eq!(dump(&store), dump(&fresh), "format {number}");
        store.commit(accepting(tx("a", "main", 5))).await.unwrap();
        let rows = dump(&store);
        store.close().await;
        assert_eq!(dump(&Store::open(folder.path()).unwrap()), rows, "format {number}, opened again");
    }
    assert_eq!(GOLDEN.len() as u64, FORMAT, "UPDATE=1 writes the file of a new format");
}

/// A disk with the file of the first format.
fn disk_of_format_1() -> PretendDisk {
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(GOLDEN[0]).read_to_end(&mut bytes).unwrap();
    disk_with(&bytes)
}

fn disk_with(bytes: &[u8]) -> PretendDisk {
    let disk = PretendDisk::new();
    let file = handle(&disk);
    file.set_len(bytes.len() as u64).unwrap();
    file.write(0, bytes).unwrap();
    file.sync_data().unwrap();
    disk
}

/// A byte of the very last write that changes behind the store's back looks like a write that was
/// cut short: the file stands as before that write, or is refused, and holds no other rows.
#[test]
fn damage_of_the_last_write_gives_the_rows_before_it() {
    let (disk, store) = memory();
    for hash in 0..20 {
        commit(&store, accepting(tx("a", "main", hash))).unwrap();
    }
    let (rows_before, before) = (dump(&store), disk.bytes());
    commit(&store, accepting(tx("a", "main", 20))).unwrap();
    // As a loss of power leaves the file: nothing of a store that closes is in there.
    let (rows_after, after) = (dump(&store), disk.bytes());
    let changed: Vec<usize> = (0..before.len()).filter(|&at| before[at] != after[at]).collect();
    let (mut rng, mut stood_before) = (Rng::with_seed(11), 0);
    for _ in 0..100 {
        let (at, mut damaged) = (changed[rng.usize(..changed.len())], after.clone());
        damaged[at] ^= 1 << rng.u8(..8);
        let Ok(store) = Store::inline(Box::new(disk_with(&damaged))) else { continue };
        let rows = dump(&store);
        assert!(rows == rows_before || rows == rows_after, "byte {at}");
        stood_before += usize::from(rows == rows_before);
    }
    assert!(stood_before > 50, "{stood_before} of 100");
}

/// A disk that fails, or loses its power, while a file gets the tables of this format.
#[test]
fn an_upgrade_that_breaks_off_is_made_at_the_next_start() {
    let (_disk, fresh) = memory();
    commit(&fresh, golden_step()).unwrap();
    let rows = dump(&fresh);
    let whole = disk_of_format_1();
    let before = whole.changes();
    drop(Store::inline(Box::new(whole.clone())).unwrap());
    let changes = whole.changes() - before;
    assert!(changes > 5, "{changes} changes");
    for seed in 0..changes {
        let disk = disk_of_format_1();
        disk.fail_after(seed, std::io::ErrorKind::StorageFull, seed);
        // The rows can be read meanwhile.
        let store = Store::inline(Box::new(disk.clone())).unwrap();
        assert_eq!(dump(&store)[1..], rows[1..], "change {seed}, over a disk that fails");
        drop(store);
        disk.cut_power(seed);
        let store = Store::inline(Box::new(disk.clone())).unwrap();
        assert_eq!(dump(&store), rows, "change {seed}, after a loss of power");
    }
}

/// Writes the golden file of a new format, under a new name: operators have files of the old one.
async fn write_golden() {
    let path = format!("{}/src/outbox/store/tests/golden/format-{FORMAT}.redb.gz", env!("CARGO_MANIFEST_DIR"));
    if fs::exists(&path).unwrap() {
        return;
    }
    let folder = Folder::new();
    let store = Store::open(folder.path()).unwrap();
    store.commit(golden_step()).await.unwrap();
    store.close().await;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packed, &fs::read(file(&folder)).unwrap()).unwrap();
    fs::write(path, packed.finish().unwrap()).unwrap();
}
