//! The stitcher on an epoch of the main network: steady, and with a switch that leaves blocks out.

use std::{collections::VecDeque, time::Duration};

use alloy_primitives::B256;
use divan::{Bencher, counter::ItemsCount};
use steadfast::events::{
    beacon::{self, Checkpoint, Duties, Header},
    sse::{Event, Parser},
    stitch::{ChainAnswer, Effect, Input, Question, Stitcher},
};

/// Slots in an epoch.
const SLOTS: u64 = 32;
/// Single attestations in a slot that a node with few subnets tells.
const VOTES: u64 = 64;
/// The slot before the epoch that is measured.
const START: u64 = 320;

fn main() {
    divan::main();
}

fn root(n: u64) -> B256 {
    let mut root = B256::repeat_byte(7);
    root.0[..8].copy_from_slice(&n.to_be_bytes());
    root
}

/// The block at `slot`, one in each.
fn header(slot: u64) -> Header {
    Header { slot, parent: root(slot - 1), state: root(slot + 10_000), optimistic: false }
}

/// The node's answers.
fn answer(question: Question, head: u64) -> ChainAnswer {
    let slot = |wanted: B256| (1..=head).find(|slot| root(*slot) == wanted).expect("a block of the chain");
    match question {
        Question::Head => ChainAnswer::Header(root(head), header(head)),
        Question::Header(wanted) => ChainAnswer::Header(wanted, header(slot(wanted))),
        Question::Finalized(_) => {
            let epoch = head / SLOTS - 2;
            ChainAnswer::Finalized(Checkpoint { epoch, root: root(epoch * SLOTS) })
        }
        Question::Duties { epoch, .. } => ChainAnswer::Duties(duties(epoch)),
    }
}

/// Of each epoch, what its duties depend on: the last blocks before it and before the one before.
fn duties(epoch: u64) -> Duties {
    Duties { previous: root((epoch - 1) * SLOTS - 1), current: root(epoch * SLOTS - 1) }
}

/// The bytes of an epoch's events as a node writes them, but for the blocks of `missing` slots.
fn stream(missing: std::ops::Range<u64>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for slot in START + 1..=START + SLOTS {
        if missing.contains(&slot) {
            continue;
        }
        let header = header(slot);
        bytes.extend_from_slice(&beacon::block_event(root(slot), &header));
        let first = slot.is_multiple_of(SLOTS);
        bytes.extend_from_slice(&beacon::head_event(root(slot), &header, first, duties(slot / SLOTS)));
        for vote in 0..VOTES {
            let event = format!(
                "event: single_attestation\ndata: {{\"committee_index\":\"{vote}\",\"attester_index\":\"{}\",\"data\":\
                 {{\"slot\":\"{slot}\",\"index\":\"0\",\"beacon_block_root\":\"{}\",\"source\":{{\"epoch\":\"9\",\
                 \"root\":\"{}\"}},\"target\":{{\"epoch\":\"10\",\"root\":\"{}\"}}}},\"signature\":\"0x{}\"}}\n\n",
                slot * VOTES + vote,
                root(slot),
                root(288),
                root(320),
                "a5".repeat(96),
            );
            bytes.extend_from_slice(event.as_bytes());
        }
    }
    bytes
}

fn events(stream: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    Parser::default().feed(stream, |event| events.push(event)).expect("short events");
    events
}

/// Gives `input`, and the node's answers to what that raises. How many events clients are told.
fn give(stitcher: &mut Stitcher, input: Input, head: u64) -> usize {
    let mut told = 0;
    let mut inputs = VecDeque::from([input]);
    while let Some(input) = inputs.pop_front() {
        for effect in stitcher.step(input) {
            match effect {
                Effect::Ask(question) => inputs.push_back(Input::Answered(question, Some(answer(question, head)))),
                Effect::Tell { .. } => told += 1,
                _ => {}
            }
        }
    }
    told
}

/// A stitcher that knows the chain up to [`START`].
fn started() -> Stitcher {
    let mut stitcher = Stitcher::new(SLOTS, Duration::from_secs(12));
    give(&mut stitcher, Input::Opened, START);
    stitcher
}

/// An epoch in which nothing is missing, and one of which six slots fell into a switch.
#[divan::bench(args = [("steady", 0), ("after_a_gap", 6)])]
fn epoch(bencher: Bencher, (_, missing): (&str, u64)) {
    let events = events(&stream(START + 5..START + 5 + missing));
    let run = |(mut stitcher, events): (Stitcher, Vec<Event>)| {
        events.into_iter().map(|event| give(&mut stitcher, Input::Event(event), START + SLOTS)).sum::<usize>()
    };
    // Each block of the gap is told as `block` and `head`.
    assert!(run((started(), events.clone())) >= events.len() + 2 * missing as usize, "every block is told");
    bencher.counter(ItemsCount::new(events.len())).with_inputs(|| (started(), events.clone())).bench_values(run);
}

/// The bytes of an epoch cut into events.
#[divan::bench]
fn parse(bencher: Bencher) {
    let stream = stream(0..0);
    bencher.counter(divan::counter::BytesCount::of_slice(&stream)).bench(|| events(&stream).len());
}
