//! What a validator earns while its nodes have troubles, beside what it would have earned otherwise.

use std::{sync::Mutex, time::Duration};

use fastrand::Rng;
use steadfast::devnet::Earned;

use crate::{
    common::{
        scene::play,
        seeds::{each, seeds},
    },
    stage::{Before, SLOT, Stage, Trouble},
};

/// Slots of a run.
const SLOTS: u64 = 30;

/// One run: the same troubles for the same seed, whatever the client is before.
fn run(seed: u64, before: Before) -> Earned {
    play(seed, async {
        let mut rng = Rng::with_seed(seed);
        let delays = [rng.u64(..1_000), rng.u64(..1_000)];
        let stage = Stage::set(before, delays).await;
        let validator = stage.validator(before);
        let mut slot = 2;
        while slot < SLOTS - 6 {
            stage.at(slot, Duration::from_millis(rng.u64(..u64::try_from(SLOT.as_millis()).unwrap()))).await;
            let trouble = [Trouble::Cut, Trouble::Hang, Trouble::Flap, Trouble::Restart][rng.usize(..4)];
            stage.befall(trouble, &mut rng).await;
            // Most times the first node has proved itself before the next thing happens.
            slot = stage.slot() + rng.u64(1..5);
        }
        stage.at(SLOTS + 2, Duration::from_secs(1)).await;
        let earned = validator.earned();
        drop(validator);
        stage.end().await;
        earned
    })
}

/// What is to be kept down.
fn losses(earned: &Earned) -> [(&'static str, u64); 6] {
    [
        ("votes", earned.votes.failed()),
        ("sync messages", earned.sync_messages.failed()),
        ("aggregates", earned.aggregates.failed()),
        ("contributions", earned.contributions.failed()),
        ("proposals", earned.proposals.missed + earned.proposals.stale),
        ("paid proposals", earned.proposals.unpaid),
    ]
}

/// Where a validator was, and what it earned there.
type Runs = Vec<(Before, Earned)>;

fn compare(seed: u64) -> (u64, Runs) {
    let all = [Before::Proxy, Before::Node(0), Before::Node(1), Before::RoundRobin];
    (seed, all.map(|before| (before, run(seed, before))).into())
}

#[test]
fn a_validator_is_never_worse_off_than_at_the_better_node() {
    let seeds = seeds(0..6);
    let (sums, wrongs) = (Mutex::new(Runs::new()), Mutex::new(Vec::new()));
    each(seeds.clone(), compare, |(seed, runs)| {
        let proxy = losses(&runs[0].1);
        let better = |kind: usize| losses(&runs[1].1)[kind].1.min(losses(&runs[2].1)[kind].1);
        let mut wrong: Vec<String> = proxy
            .iter()
            .enumerate()
            .filter(|(kind, (_, lost))| *lost > better(*kind))
            .map(|(kind, (name, lost))| format!("{name}: {lost} lost, {} at the better node", better(kind)))
            .collect();
        let earned = &runs[0].1;
        if (earned.passed, earned.lost, earned.proposals.unpaid) != (0, 0, 0) {
            wrong.push(earned.to_string());
        }
        if !wrong.is_empty() {
            wrongs.lock().unwrap().push(format!("seed {seed}: {}", wrong.join("; ")));
        }
        let mut sums = sums.lock().unwrap();
        for (before, earned) in runs {
            match sums.iter_mut().find(|(other, _)| *other == before) {
                Some((_, sum)) => *sum += &earned,
                None => sums.push((before, earned)),
            }
        }
    });
    let sums = sums.into_inner().unwrap();
    println!("seeds {seeds:?}");
    for (before, sum) in &sums {
        println!(
            "{before:?}, {} slots: {sum}; streams lost: {}; refreshed {}",
            sum.slots, sum.streams_lost, sum.refreshed
        );
    }
    let at = |before: Before| &sums.iter().find(|(other, _)| *other == before).unwrap().1;
    assert!(at(Before::Node(0)).votes.failed() > 0 && at(Before::RoundRobin).votes.failed() > 0, "nothing happened");
    let wrongs = wrongs.into_inner().unwrap();
    assert!(wrongs.is_empty(), "{} seeds:\n{}", wrongs.len(), wrongs.join("\n"));
}
