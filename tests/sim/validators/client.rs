//! The validator client itself, before one node: what goes wrong there is counted.

use std::time::Duration;

use steadfast::devnet::{Earned, Fault, Proposals, Tally};

use super::setup::{Before, SLOT, Setup};
use crate::common::simulation::run_simulated;

/// What a client before the first node earned in twelve slots, while `trouble` did its worst.
fn earned(seed: u64, delays: [u64; 2], trouble: impl AsyncFnOnce(&Setup)) -> Earned {
    run_simulated(seed, async {
        let setup = Setup::start(Before::Node(0), delays).await;
        let validator = setup.validator(Before::Node(0), &Vec::from_iter(0..64));
        trouble(&setup).await;
        setup.at(13, Duration::from_secs(1)).await;
        validator.earned()
    })
}

#[test]
fn a_validator_at_a_node_that_is_well_earns_all_there_is() {
    for delays in [[0, 0], [900, 0]] {
        let earned = earned(1, delays, async |_| {});
        let all = |right: u64| Tally { right, ..Tally::default() };
        let expected = Earned {
            slots: 12,
            votes: all(12 * 8),
            aggregates: all(12 * 8),
            sync_messages: all(12 * 64),
            contributions: all(12 * 64),
            proposals: Proposals { paid: 12, ..Proposals::default() },
            ..Earned::default()
        };
        assert_eq!(earned, expected, "{earned}");
    }
}

#[test]
fn duties_lost_with_a_node_are_counted() {
    // Down from before slot 4 until behind slot 5.
    let down = earned(1, [0, 0], async |setup| {
        setup.at(3, SLOT * 5 / 6).await;
        setup.devnet.cl(0).set_fault(Fault::Down);
        setup.at(5, SLOT * 5 / 6).await;
        setup.devnet.cl(0).clear_faults();
    });
    assert_eq!((down.votes.missed, down.votes.right, down.proposals.missed), (16, 80, 2), "{down}");
    // Restarted in slot 28: until the epoch that begins with slot 32, nobody tells it again who is paid.
    let restarted = earned(1, [0, 0], async |setup| {
        setup.at(3, SLOT / 2).await;
        setup.devnet.cl(0).restart().await;
    });
    assert_eq!((restarted.proposals.unpaid, restarted.proposals.paid), (4, 8), "{restarted}");
    assert!(restarted.aggregates.missed > 0, "nor for whom to listen: {restarted}");
    // A signed message that no node takes is lost.
    let refused = earned(1, [0, 0], async |setup| {
        setup.at(3, SLOT / 2).await;
        setup.devnet.cl(0).set_fault(Fault::http_status(500, &["POST /eth/v2/beacon/pool/attestations"]));
        setup.at(4, SLOT * 5 / 6).await;
        setup.devnet.cl(0).clear_faults();
    });
    assert_eq!((refused.votes.missed, refused.lost), (8, 8), "{refused}");
    // A node that stands still is voted at, for a head that is old.
    let frozen = earned(1, [0, 0], async |setup| {
        setup.at(3, SLOT / 2).await;
        setup.devnet.cl(0).set_fault(Fault::Freeze);
        setup.at(4, SLOT * 5 / 6).await;
        setup.devnet.cl(0).clear_faults();
    });
    assert_eq!((frozen.votes.wrong, frozen.votes.right, frozen.proposals.orphaned), (8, 88, 0), "{frozen}");
    // Its answers are slow.
    let slow = earned(1, [0, 0], async |setup| {
        setup.at(3, SLOT * 5 / 6).await;
        setup.devnet.cl(0).set_fault(Fault::slow(5_000));
        setup.at(4, SLOT * 11 / 12).await;
        setup.devnet.cl(0).clear_faults();
    });
    // Its own block comes late by that, and so it votes for the one before.
    assert_eq!((slow.votes.wrong, slow.proposals.late), (8, 1), "{slow}");
}
