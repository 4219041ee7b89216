//! What a validator earns while its nodes have troubles, beside what it would have earned otherwise.

use std::{fmt::Write, sync::Mutex};

use steadfast::devnet::{Earned, Tally};
use tokio::time::Duration;

use super::{
    script::{SLOTS, Script},
    setup::{Before, PAST, Setup},
};
use crate::common::{
    seeds::{each, seeds},
    simulation::run_simulated,
};

/// One run: the same happens for the same seed, whatever the client is before.
fn run(seed: u64, before: Before, mut look: impl FnMut(Earned)) -> Earned {
    run_simulated(seed, async {
        let script = Script::of(seed);
        let setup = Setup::start(before, script.delays).await;
        for (slot, turn) in &script.turns {
            setup.devnet.chain().arrange(*slot, *turn);
        }
        let validator = setup.validator(before, &script.validators);
        let changes = async {
            for change in script.changes {
                setup.change(change).await;
            }
        };
        let looks = async {
            for slot in 0..=SLOTS + 2 {
                setup.at(slot, Duration::from_secs(1)).await;
                look(validator.earned());
            }
        };
        tokio::join!(changes, looks);
        let earned = validator.earned();
        drop(validator);
        setup.end().await;
        earned
    })
}

/// What is to be earned.
fn gains(earned: &Earned) -> [(&'static str, u64); 5] {
    [
        ("votes", earned.votes.right),
        ("sync messages", earned.sync_messages.right),
        ("aggregates", earned.aggregates.right),
        ("contributions", earned.contributions.right),
        ("proposals", earned.proposals.paid),
    ]
}

const ALL: [Before; 4] = [Before::Proxy, Before::Node(0), Before::Node(1), Before::RoundRobin];

/// What a seed's validator earned at each of these.
type Runs = [Earned; 4];

fn compare(seed: u64) -> (u64, Runs) {
    (seed, ALL.map(|before| run(seed, before, drop)))
}

/// What is wrong with the proxy's run. The better node is the one at which more votes were right, for the whole of the run; where they
/// are equal, the proxy is held to both.
fn wrongs([proxy, first, second, _]: &Runs) -> Vec<String> {
    let most = first.votes.right.max(second.votes.right);
    let better = [("first", first), ("second", second)].into_iter().filter(|(_, node)| node.votes.right == most);
    let mut wrongs = Vec::new();
    for (which, node) in better {
        for ((what, ours), (_, theirs)) in gains(proxy).into_iter().zip(gains(node)) {
            if ours < theirs {
                wrongs.push(format!("{what}: {ours} right, {theirs} at the {which} node"));
            }
        }
    }
    for (what, count) in [
        ("for a head that had been passed", proxy.passed),
        ("signed messages lost", proxy.lost),
        ("proposals without fee recipient", proxy.proposals.unpaid),
    ] {
        if count > 0 {
            wrongs.push(format!("{count} {what}"));
        }
    }
    wrongs
}

#[test]
fn a_validator_is_never_worse_off_than_at_the_better_node() {
    let seeds = seeds(0..250);
    let (sums, failures) = (Mutex::new(Runs::default()), Mutex::new(Vec::new()));
    each(seeds.clone(), compare, |(seed, runs)| {
        let wrong = wrongs(&runs);
        if !wrong.is_empty() {
            failures.lock().unwrap().push(format!("seed {seed}: {}", wrong.join("; ")));
        }
        for (sum, earned) in sums.lock().unwrap().iter_mut().zip(&runs) {
            *sum += earned;
        }
    });
    let sums = sums.into_inner().unwrap();
    println!("seeds {seeds:?}\n{}", table(&sums));
    let failures = failures.into_inner().unwrap();
    if seeds.end - seeds.start == 1 {
        // Nothing need happen under a single one.
        tell(seeds.start);
        assert!(failures.is_empty(), "{failures:?}");
        return;
    }
    let [_, first, second, round_robin] = &sums;
    assert!([first, second, round_robin].iter().all(|node| node.votes.missed > 0), "nothing happened");
    assert!(first.proposals.unpaid > 0 && second.proposals.missed > 0, "nothing was forgotten");
    assert!(failures.is_empty(), "{} seeds:\n{}", failures.len(), failures.join("\n"));
}

/// Tells what happens under a seed, and what is lost in which slot: votes, aggregates, sync messages, contributions; blocks that pay
/// somebody else, late, missed, orphaned; passed heads, lost messages and streams.
fn tell(seed: u64) {
    println!("{}", Script::of(seed));
    for before in ALL {
        let (mut slot, mut last) = (PAST - 1, Vec::new());
        run(seed, before, |earned| {
            let Earned { votes, aggregates, sync_messages, contributions, proposals, .. } = &earned;
            let mut now = [votes, aggregates, sync_messages, contributions].map(Tally::failed).to_vec();
            now.extend([proposals.unpaid, proposals.late, proposals.missed, proposals.orphaned]);
            now.extend([earned.passed, earned.lost, earned.streams_lost]);
            last.resize(now.len(), 0);
            let lost: Vec<u64> = now.iter().zip(&last).map(|(now, then)| now - then).collect();
            if lost.iter().any(|lost| *lost > 0) {
                println!("{before:?} {slot}: {lost:?}");
            }
            (slot, last) = (slot + 1, now);
        });
    }
}

/// The sums as the documentation has them.
fn table(sums: &Runs) -> String {
    type Figure = fn(&Earned) -> u64;
    let rows: [(&str, Figure); 19] = [
        ("Votes right and in time", |earned| earned.votes.right),
        ("Votes late", |earned| earned.votes.late),
        ("Votes for another block", |earned| earned.votes.wrong),
        ("Votes missed", |earned| earned.votes.missed),
        ("Aggregates right", |earned| earned.aggregates.right),
        ("Aggregates late, wrong or missed", |earned| earned.aggregates.failed()),
        ("Sync messages right", |earned| earned.sync_messages.right),
        ("Sync messages late, wrong or missed", |earned| earned.sync_messages.failed()),
        ("Contributions right", |earned| earned.contributions.right),
        ("Contributions late, wrong or missed", |earned| earned.contributions.failed()),
        ("Blocks in the chain that pay the fee recipient", |earned| earned.proposals.paid),
        ("Blocks that pay somebody else", |earned| earned.proposals.unpaid),
        ("Blocks that came late", |earned| earned.proposals.late),
        ("Blocks orphaned", |earned| earned.proposals.orphaned),
        ("Blocks missed: the slot is empty", |earned| earned.proposals.missed),
        ("Votes and sync messages for a head that the client's own stream had gone on from", |earned| earned.passed),
        ("Signed messages that no node took", |earned| earned.lost),
        ("Event streams lost", |earned| earned.streams_lost),
        ("Slots", |earned| earned.slots),
    ];
    let mut text =
        "| | Steadfast | the first node alone | the second node alone | round robin |\n|---|--:|--:|--:|--:|\n"
            .to_owned();
    for (name, figure) in rows {
        let [proxy, first, second, round_robin] = sums.each_ref().map(figure);
        writeln!(text, "| {name} | {proxy} | {first} | {second} | {round_robin} |").unwrap();
    }
    text
}
