//! What happens in one run: when blocks come, who proposes them, and what befalls which node. All of it is drawn from the seed before
//! the run begins, so that every run of a seed has the same.

use std::{fmt, time::Duration};

use fastrand::Rng;
use steadfast::devnet::{Fault, Turn};

use super::setup::{PAST, SLOT};

/// Slots of a run.
pub const SLOTS: u64 = 30;
/// Slots without trouble at the beginning and at the end.
const QUIET: u64 = 2;
/// Of the sixty-four validators, those of the client.
const OURS: usize = 40;
/// After one node's trouble the other has none for this long at least: as long as it takes to see that the first is well again, and to
/// tell it again what it has forgotten.
const BREATH: u64 = 3_000;

/// Routes over which a node hangs, or is slow.
const ASKED: [&str; 6] = [
    "GET /eth/v3/validator/blocks/*",
    "GET /eth/v1/validator/attestation_data",
    "GET /eth/v2/validator/aggregate_attestation",
    "GET /eth/v1/validator/sync_committee_contribution",
    "GET /eth/v1/beacon/blocks/head/root",
    "POST /eth/v1/validator/duties/*",
];
/// Routes over which a message is lost.
const HANDED_IN: [&str; 5] = [
    "POST /eth/v2/beacon/blocks",
    "POST /eth/v2/beacon/pool/attestations",
    "POST /eth/v1/beacon/pool/sync_committees",
    "POST /eth/v2/validator/aggregate_and_proofs",
    "POST /eth/v1/validator/contribution_and_proofs",
];

pub struct Script {
    /// How many milliseconds later than the network each node sees blocks.
    pub delays: [u64; 2],
    /// The client's validators.
    pub validators: Vec<u64>,
    /// What becomes of the slots of all others.
    pub turns: Vec<(u64, Turn)>,
    /// What changes, in the order of time.
    pub changes: Vec<Change>,
}

pub struct Change {
    /// Since the start.
    pub at: Duration,
    pub node: usize,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Begins(Fault),
    Ends(&'static str),
    /// The node, which was down, has begun anew.
    Restarts,
    /// The settings are read anew, and have changed.
    Reload,
}

impl Script {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let delays = [rng.u64(..1_000), rng.u64(..1_000)];
        let mut validators: Vec<u64> = (0..64).collect();
        rng.shuffle(&mut validators);
        validators.truncate(OURS);
        let turns = turns(&mut rng);
        let mut script = Self { delays, validators, turns, changes: Vec::new() };
        let length = u64::try_from(SLOT.as_millis()).unwrap();
        let (mut now, end) = (length * (QUIET + 1), length * (SLOTS - QUIET));
        let mut node = 0;
        loop {
            // Most times it is the first node again; sometimes the other, and often both in turn.
            let in_turn = rng.u8(..5) < 2;
            node = if in_turn { 1 - node } else { usize::from(rng.u8(..4) == 0) };
            let pause = if in_turn { rng.u64(BREATH..2 * length) } else { rng.u64(length / 2..5 * length) };
            let lasts = rng.u64(1_000..40_000);
            if now + pause + lasts >= end {
                break;
            }
            now = script.befalls(node, now + pause, lasts, &mut rng);
        }
        // At any moment, in the middle of what befalls a node too.
        for _ in 0..rng.u8(..4) {
            let at = Duration::from_millis(rng.u64(length * (QUIET + 1)..end));
            script.changes.push(Change { at, node, what: What::Reload });
        }
        script.changes.sort_by_key(|change| change.at);
        script
    }

    /// One thing happens to a node; returns when it is over.
    fn befalls(&mut self, node: usize, start: u64, lasts: u64, rng: &mut Rng) -> u64 {
        let mut change = |at: u64, what: What| {
            self.changes.push(Change { at: Duration::from_millis(at), node, what });
        };
        let route = |of: &[&'static str], rng: &mut Rng| of[rng.usize(..of.len())];
        let (fault, ends) = match rng.u8(..10) {
            0 | 1 => (Fault::Down, "down"),
            2 | 3 => (Fault::Hang, "hang"),
            4 | 5 => {
                let mut now = start;
                for _ in 0..rng.u8(3..10) {
                    change(now, What::Begins(Fault::ElOffline));
                    now += rng.u64(300..4_000);
                    change(now, What::Ends("el_offline"));
                    now += rng.u64(300..6_000);
                }
                return now;
            }
            6 => {
                change(start, What::Begins(Fault::Down));
                change(start + lasts / 4, What::Restarts);
                return start + lasts / 4;
            }
            7 => (Fault::slow_over(rng.u64(100..2_000), &[route(&ASKED, rng)]), "slow_over"),
            8 if rng.bool() => (Fault::hang_over(&[route(&ASKED, rng)]), "hang_over"),
            8 => (page(&[route(&ASKED, rng)]), "gateway"),
            _ => {
                let route = route(&HANDED_IN, rng);
                match rng.u8(..5) {
                    0 => (Fault::http_status(500, &[route]), "http_status"),
                    1 => (Fault::gateway(502, &[route]), "gateway"),
                    4 => (page(&[route]), "gateway"),
                    2 => (Fault::cut_answer(&[route]), "cut_answer"),
                    _ => (Fault::hang_over(&[route]), "hang_over"),
                }
            }
        };
        change(start, What::Begins(fault));
        change(start + lasts, What::Ends(ends));
        start + lasts
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "blocks are seen {:?} ms late", self.delays)?;
        for (slot, turn) in &self.turns {
            let whose = if self.validators.contains(&(slot % 64)) { "ours".to_owned() } else { format!("{turn:?}") };
            writeln!(f, "slot {slot}: {whose}")?;
        }
        for Change { at, node, what } in &self.changes {
            let slots = at.as_secs_f64() / SLOT.as_secs_f64() + (PAST as f64);
            writeln!(f, "{:.0}+{:.2} s: node {node}: {what:?}", slots.floor(), slots.fract() * SLOT.as_secs_f64())?;
        }
        Ok(())
    }
}

/// A page that says 200, as for maintenance or to log in at.
fn page(routes: &[&str]) -> Fault {
    Fault::gateway(200, routes)
}

/// Most blocks come in the first quarter of their slot, so that every node sees them before it is voted. Some slots are empty, and some
/// blocks come when their voters have voted; the next proposer mostly leaves such a block out.
fn turns(rng: &mut Rng) -> Vec<(u64, Turn)> {
    let mut was_late = false;
    (PAST..=PAST + SLOTS + 4)
        .map(|slot| {
            let soon = Duration::from_millis(rng.u64(..2_500));
            let turn = match rng.u8(..100) {
                0..10 => Turn::Empty,
                10..20 => Turn::Block(Duration::from_millis(rng.u64(6_500..9_500))),
                _ if was_late && rng.u8(..3) > 0 => Turn::Against(soon),
                _ => Turn::Block(soon),
            };
            was_late = matches!(turn, Turn::Block(after) if after > SLOT / 3);
            (slot, turn)
        })
        .collect()
}
