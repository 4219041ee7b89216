//! Losses of power at every write of random steps.

use fastrand::Rng;

use super::{super::writer::Queued, *};
use crate::outbox::store::Way;

/// Random runs by default; `OUTBOX_SEEDS` asks for more.
const SEEDS: u64 = 6;

fn seeds() -> std::ops::Range<u64> {
    let asked = std::env::var("OUTBOX_SEEDS").ok();
    0..asked.map_or(SEEDS, |seeds| seeds.parse().expect("OUTBOX_SEEDS is a number"))
}

/// Commits all steps as one group.
fn commit_group(store: &Store, steps: Vec<Step>) {
    let Way::Inline(writer) = &store.way else { panic!("the store has a thread") };
    let (group, pending): (Vec<_>, Vec<_>) = steps
        .into_iter()
        .map(|step| {
            let (answer, pending) = tokio::sync::oneshot::channel();
            (Queued { step, line: None, answer }, pending)
        })
        .unzip();
    writer.lock().unwrap().commit(group);
    for mut pending in pending {
        assert_eq!(pending.try_recv(), Ok(Ok(())));
    }
}

/// The disk after a run, and the rows of each moment.
struct Run {
    disk: PretendDisk,
    /// All rows after so many groups.
    rows: Vec<Vec<String>>,
    /// The changes of the disk at which so many groups were acknowledged.
    acknowledged: Vec<u64>,
}

fn run(seed: u64) -> Run {
    let (disk, store) = memory();
    let mut steps = Steps::new(seed);
    disk.record();
    let mut run = Run { disk: disk.clone(), rows: vec![dump(&store)], acknowledged: vec![0] };
    for _ in 0..12 {
        let group = (0..steps.rng.usize(1..=3)).map(|_| steps.next()).collect();
        commit_group(&store, group);
        run.acknowledged.push(disk.changes());
        run.rows.push(dump(&store));
    }
    // The end of the store writes too.
    drop(store);
    run
}

impl Run {
    /// Checks the rows on `disk` after a crash behind so many changes.
    fn check(&self, made: u64, disk: &PretendDisk, of: &str) {
        let store = Store::inline(Box::new(disk.clone())).unwrap_or_else(|error| panic!("{of}: {error}"));
        let acknowledged = self.acknowledged.iter().filter(|&&at| at <= made).count() - 1;
        let found = dump(&store);
        // The group that was under way is there whole or not at all.
        let may_be = self.rows.iter().skip(acknowledged).take(2);
        if !may_be.clone().any(|rows| *rows == found) {
            let groups = self.rows.iter().position(|rows| *rows == found);
            panic!("{of}: {acknowledged} groups were acknowledged, and {groups:?} are there: {found:#?}");
        }
    }
}

/// U17: a step is written whole or not at all.
#[test]
fn a_crash_at_any_write_leaves_whole_steps_and_all_acknowledged() {
    let mut crashes = 0;
    for seed in seeds() {
        let run = run(seed);
        let mut rng = Rng::with_seed(seed);
        for (made, disk) in run.disk.crashes(seed) {
            let of = format!("seed {seed}, change {made}");
            crashes += 1;
            if rng.u8(0..8) > 0 {
                run.check(made, &disk, &of);
                continue;
            }
            // A second crash while the store is opened after the first.
            disk.record();
            run.check(made, &disk, &of);
            let again: Vec<_> = disk.crashes(seed).collect();
            if let Some((second, disk)) = rng.choice(again) {
                run.check(made, &disk, &format!("{of}, then {second}"));
            }
        }
    }
    assert!(crashes > 100 * seeds().end, "{crashes} crashes only");
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let [one, other] = [run(3), run(3)];
    assert_eq!(one.acknowledged, other.acknowledged);
    let images = |run: &Run| run.disk.crashes(9).map(|(_, disk)| disk.bytes()).collect::<Vec<_>>();
    assert!(images(&one) == images(&other), "the writes differ");
}

#[test]
fn the_pretend_disk_loses_only_writes_that_no_sync_followed() {
    use super::super::medium::Medium as _;
    let disk = PretendDisk::new();
    let file = disk.open().unwrap();
    file.write(0, &[1; 4096]).unwrap();
    file.sync_data().unwrap();
    file.write(0, &[2; 4096]).unwrap();
    disk.record();
    let file = disk.open().unwrap();
    file.write(0, &[3; 4096]).unwrap();
    let torn: Vec<Vec<u8>> = (0..50).flat_map(|seed| disk.crashes(seed)).map(|(_, disk)| disk.bytes()).collect();
    assert!(torn.contains(&vec![2; 4096]) && torn.contains(&vec![3; 4096]), "kept or lost whole");
    assert!(torn.iter().any(|bytes| bytes.contains(&2) && bytes.contains(&3)), "torn");
    assert!(!torn.iter().any(|bytes| bytes.contains(&1)));
    disk.cut_power(1);
    assert!(file.write(0, &[4]).is_err(), "a handle dies with the power");
}
