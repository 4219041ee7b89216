//! Running a simulation over many seeds, on all cores.

use std::{
    ops::Range,
    panic::{catch_unwind, resume_unwind},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

/// The seeds to run: the `usual` ones, or those that `STEADFAST_SEEDS=FROM..TO` chooses.
pub fn seeds(usual: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("STEADFAST_SEEDS") else { return usual };
    let range = text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    range.unwrap_or_else(|| panic!("STEADFAST_SEEDS is FROM..TO, not {text:?}"))
}

/// Runs each of `seeds`, and gives what came of it to `take`, on the thread that ran it. The first
/// failure is told with its seed, and ends all.
pub fn each<T>(seeds: Range<u64>, run: fn(u64) -> T, take: impl Fn(T) + Sync) {
    let next = AtomicU64::new(seeds.start);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    take(catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
                        println!("failed with seed {seed}; again: STEADFAST_SEEDS={seed}..{}", seed + 1);
                        next.store(seeds.end, Relaxed);
                        resume_unwind(panic)
                    }));
                }
            });
        }
    });
}
