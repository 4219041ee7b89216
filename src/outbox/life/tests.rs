//! Every pair of state and event, and lives over random trees of blocks.

use proptest::prelude::*;

use super::*;

const BLOCK: BlockId = block(10, 1);
const OTHER: BlockId = block(10, 2);

const fn block(number: u64, name: u8) -> BlockId {
    BlockId { number, hash: B256::repeat_byte(name) }
}

/// Every state, in the order of the table's rows.
fn states() -> Vec<(&'static str, State)> {
    let (by, reason) = (B256::repeat_byte(9), "no".to_owned());
    vec![
        ("accepted", State::Accepted),
        ("sent", State::Sent),
        ("seen", State::Seen),
        ("reorged", State::Reorged { block: BLOCK }),
        ("mined", State::Mined { block: BLOCK }),
        ("confirmed", State::Confirmed { block: BLOCK }),
        ("final", State::Final { block: BLOCK }),
        ("replaced", State::Replaced { by, block: BLOCK, is_final: false }),
        ("replaced!", State::Replaced { by, block: BLOCK, is_final: true }),
        ("refused", State::Refused { reason }),
        ("expired", State::Expired),
        ("cancelled", State::Cancelled),
    ]
}

fn advanced(tip: u64, finalized: Option<u64>) -> Event {
    Event::Advanced { tip, finalized, confirmations: 3 }
}

/// Every event, in the order of the table's columns.
fn events() -> Vec<Event> {
    let by = B256::repeat_byte(9);
    vec![
        Event::Accepted,
        Event::Taken,
        Event::Sighted,
        Event::Included { block: BLOCK },
        Event::Included { block: OTHER },
        Event::Displaced { by, block: BLOCK },
        Event::Displaced { by, block: OTHER },
        Event::Removed { block: BLOCK },
        Event::Removed { block: OTHER },
        advanced(11, Some(9)),
        advanced(12, None),
        advanced(12, Some(10)),
        Event::RefusedByAll { reason: "no".to_owned() },
        Event::DeadlinePassed,
        Event::Cancelled,
    ]
}

/// A cell: the name of the state that follows, `-` for no change, `!` for an error.
fn cell(state: &State, stopped: Option<&Stopped>, event: &Event) -> String {
    match next(state, stopped, event) {
        Ok(Change::Nothing) => "-".to_owned(),
        Ok(Change::To { state: to, .. }) => {
            assert_ne!(to.name(), state.name(), "a transition leads to another state");
            to.name().as_str().to_owned()
        }
        Ok(Change::Silent { state: to, .. }) => {
            assert_eq!(to.name(), state.name());
            "~".to_owned()
        }
        Err(illegal) => {
            assert_eq!((illegal.state, &illegal.event), (state.name(), event));
            "!".to_owned()
        }
    }
}

/// Columns: accepted, taken, sighted; included in its block, in another; displaced in its block, in
/// another; removed its block, another; advanced not far enough, to be confirmed, to be final;
/// refused by all, deadline passed, cancelled.
const TABLE: &str = "
accepted   - sent seen  mined mined  replaced replaced  - -  - - -  refused expired cancelled
sent       - -    seen  mined mined  replaced replaced  - -  - - -  refused expired cancelled
seen       - -    -     mined mined  replaced replaced  - -  - - -  refused expired cancelled
reorged    - sent seen  mined mined  replaced replaced  - -  - - -  refused expired cancelled
mined      - -    -     -     !      !        !  reorged -  - confirmed confirmed  - - !
confirmed  - -    -     -     !      !        !  reorged -  - - final  - - !
final      - -    -     -     !      !        !  !       -  - - -  - - !
replaced   ! -    -     !     !      -        !  reorged -  - - ~  - - !
replaced!  ! -    -     !     !      -        !  !       -  - - -  - - !
refused    accepted - - mined mined  -        -  -       -  - - -  - - !
expired    accepted - - mined mined  -        -  -       -  - - -  - - !
cancelled  !        - - mined mined  -        -  -       -  - - -  - - -
";

#[test]
fn every_state_meets_every_event() {
    let rows: Vec<Vec<&str>> = TABLE.trim().lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), states().len());
    for ((name, state), row) in states().into_iter().zip(rows) {
        assert_eq!(row[0], name);
        assert_eq!(row.len() - 1, events().len(), "{name}");
        for (event, expected) in events().iter().zip(&row[1..]) {
            assert_eq!(cell(&state, None, event), *expected, "{name} {event:?}");
        }
    }
}

#[test]
fn one_that_was_given_up_is_given_up_again_when_its_block_goes() {
    for (why, expected) in [
        (Stopped::Refused { reason: "no".to_owned() }, "refused"),
        (Stopped::Expired, "expired"),
        (Stopped::Cancelled, "cancelled"),
    ] {
        for state in [State::Mined { block: BLOCK }, State::Confirmed { block: BLOCK }] {
            assert_eq!(cell(&state, Some(&why), &Event::Removed { block: BLOCK }), expected);
            let is_cancelled = why == Stopped::Cancelled;
            let again = if is_cancelled { "-" } else { "~" };
            assert_eq!(cell(&state, Some(&why), &Event::Accepted), again, "the client wants it again");
        }
        let from = given_up(&why);
        let Ok(Change::To { stopped, .. }) = next(&from, Some(&why), &Event::Included { block: BLOCK }) else {
            panic!("a block decides")
        };
        assert_eq!(stopped, Some(why), "and is remembered while a block has it");
    }
}

#[test]
fn a_short_chain_confirms_before_it_is_final() {
    let event = Event::Advanced { tip: 10, finalized: Some(10), confirmations: 100 };
    assert_eq!(cell(&State::Mined { block: BLOCK }, None, &event), "confirmed");
    assert_eq!(cell(&State::Confirmed { block: BLOCK }, None, &event), "final");
    let one = |tip| Event::Advanced { tip, finalized: None, confirmations: 1 };
    assert_eq!(cell(&State::Mined { block: BLOCK }, None, &one(10)), "confirmed", "its own block counts");
    assert_eq!(cell(&State::Mined { block: BLOCK }, None, &one(9)), "-");
}

/// A change of the canonical chain in a random tree: how many blocks go, and the blocks that come,
/// each with nothing of ours, our transaction, or another of its sender and nonce.
#[derive(Clone, Debug)]
struct Turn {
    back: usize,
    come: Vec<u8>,
    finalize: usize,
    repeats: bool,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = (0_usize..4, prop::collection::vec(0_u8..3, 1..5), 0_usize..6, any::<bool>());
    let turn = turn.prop_map(|(back, come, finalize, repeats)| Turn { back, come, finalize, repeats });
    prop::collection::vec(turn, 1..20)
}

/// Walks a life over changes of the chain, and tells the names of its transitions.
struct Walk {
    state: State,
    told: Vec<StateName>,
}

impl Walk {
    fn hear(&mut self, event: &Event) {
        loop {
            match next(&self.state, None, event).expect("the chain tells nothing that cannot be") {
                Change::Nothing => return,
                Change::Silent { state, .. } => self.state = state,
                Change::To { state, .. } => {
                    self.told.push(state.name());
                    self.state = state;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_life_ends_where_the_chain_ends(turns in turns(), seed in any::<u64>()) {
        let mut chain: Vec<(BlockId, u8)> = Vec::new();
        let (mut walk, mut names, mut finalized) = (Walk { state: State::Accepted, told: Vec::new() }, seed, 0);
        let by = B256::repeat_byte(9);
        for turn in turns {
            let keep = chain.len().saturating_sub(turn.back).max(finalized);
            for (block, _) in chain.split_off(keep).into_iter().rev() {
                walk.hear(&Event::Removed { block });
                if turn.repeats {
                    walk.hear(&Event::Removed { block });
                }
            }
            for what in turn.come {
                // A nonce is used once in a chain.
                let what = if chain.iter().any(|(_, had)| *had > 0) { 0 } else { what };
                names = names.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let mut hash = B256::ZERO;
                hash[..8].copy_from_slice(&names.to_be_bytes());
                let block = BlockId { number: chain.len() as u64, hash };
                chain.push((block, what));
                for _ in 0..=usize::from(turn.repeats) {
                    match what {
                        1 => walk.hear(&Event::Included { block }),
                        2 => walk.hear(&Event::Displaced { by, block }),
                        _ => walk.hear(&Event::Taken),
                    }
                }
            }
            finalized = finalized.max(chain.len().saturating_sub(turn.finalize));
            let told = walk.told.len();
            let event = Event::Advanced {
                tip: chain.len() as u64 - 1,
                finalized: (finalized as u64).checked_sub(1),
                confirmations: 3,
            };
            walk.hear(&event);
            let advanced = walk.told.len();
            walk.hear(&event);
            prop_assert_eq!(walk.told.len(), advanced, "a repeat tells nothing");
            prop_assert!(advanced <= told + 2);

            // The state is the one that the canonical chain alone gives.
            let ours = chain.iter().find(|(_, what)| *what > 0);
            let depth = |block: &BlockId| chain.len() as u64 - block.number;
            match (ours, &walk.state) {
                (None, state) => prop_assert!(state.is_pending(), "{:?}", state),
                (Some((block, 1)), State::Mined { block: at }) => {
                    prop_assert!(block == at && depth(block) < 3 && block.number as usize >= finalized);
                }
                (Some((block, 1)), State::Confirmed { block: at }) => {
                    prop_assert!(block == at && block.number as usize >= finalized);
                }
                (Some((block, 1)), State::Final { block: at }) => {
                    prop_assert!(block == at && (block.number as usize) < finalized);
                }
                (Some((block, 2)), State::Replaced { block: at, is_final, .. }) => {
                    prop_assert_eq!((block, *is_final), (at, (block.number as usize) < finalized));
                }
                (ours, state) => prop_assert!(false, "{:?} where the chain has {:?}", state, ours),
            }
        }
        for pair in walk.told.windows(2) {
            prop_assert_ne!(pair[0], pair[1], "no transition is told twice in a row");
        }
    }
}
