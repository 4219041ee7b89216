//! The life of a transaction: a pure function of where it is and what happened. No I/O, no clock.
//!
//! A repeat of what is known changes nothing. What cannot have happened is an error, and changes
//! nothing either. A block is told once as canonical and once as gone, in the order in which the
//! chain changed.
//!
//! A transaction that was given up (refused, expired, cancelled) is never sent again, and its bytes
//! may be at a node all the same. A block that has it makes it mined like any other; when that
//! block goes, it is given up as before.

use alloy_primitives::B256;

use super::record::{BlockId, Record, State, StateName, Stopped};

/// What happened to a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client sent its bytes once more.
    Accepted,
    /// A node took it, or said that it had it already.
    Taken,
    /// A node that was asked shows it among the waiting ones.
    Sighted,
    /// A block that is now canonical has it.
    Included {
        /// The block.
        block: BlockId,
    },
    /// A block that is now canonical has another transaction of its sender and nonce.
    Displaced {
        /// The other transaction.
        by: B256,
        /// The block.
        block: BlockId,
    },
    /// A block is canonical no more.
    Removed {
        /// The block.
        block: BlockId,
    },
    /// The chain goes on, and its block is still canonical.
    Advanced {
        /// The height of the newest block.
        tip: u64,
        /// The height of the newest final block.
        finalized: Option<u64>,
        /// Blocks, its own included, that make it confirmed.
        confirmations: u64,
    },
    /// Each node refuses it, for a reason that cannot change.
    RefusedByAll {
        /// Why, in a node's words.
        reason: String,
    },
    /// The deadline passed.
    DeadlinePassed,
    /// An operator gives it up.
    Cancelled,
}

/// What an event changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it was known, or came too late to matter.
    Nothing,
    /// The record, without a transition.
    Silent {
        /// The new state, of the same name as the old.
        state: State,
        /// What is new of [`Record::stopped`].
        stopped: Option<Stopped>,
    },
    /// The record makes a transition.
    To {
        /// The new state.
        state: State,
        /// What is new of [`Record::stopped`].
        stopped: Option<Stopped>,
    },
}

/// An event that cannot happen to a transaction in this state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} cannot happen to a transaction that is {}", state.as_str())]
pub struct Illegal {
    /// The state.
    pub state: StateName,
    /// The event.
    pub event: Event,
}

/// What `event` changes of a transaction in `state` that was given up as `stopped` says. One event
/// may lead over several states: repeat it until nothing changes.
///
/// # Errors
/// The event cannot happen to a transaction in this state.
pub fn next(state: &State, stopped: Option<&Stopped>, event: &Event) -> Result<Change, Illegal> {
    use State::{Accepted, Cancelled, Confirmed, Expired, Final, Mined, Refused, Reorged, Replaced, Seen, Sent};

    let to = |state: State| Ok(Change::To { state, stopped: stopped.cloned() });
    let give_up = |why: Stopped| Ok(Change::To { state: given_up(&why), stopped: Some(why) });
    let nothing = || Ok(Change::Nothing);
    let illegal = || Err(Illegal { state: state.name(), event: event.clone() });
    match (state, event) {
        // The client asks for it again: it is sent once more, unless it can do no good.
        (Refused { .. } | Expired, Event::Accepted) => Ok(Change::To { state: Accepted, stopped: None }),
        (Mined { .. } | Confirmed { .. }, Event::Accepted)
            if matches!(stopped, Some(Stopped::Refused { .. } | Stopped::Expired)) =>
        {
            Ok(Change::Silent { state: state.clone(), stopped: None })
        }
        (Cancelled | Replaced { .. }, Event::Accepted) => illegal(),
        (_, Event::Accepted) => nothing(),

        // A node's word matters only before a block has decided.
        (Accepted | Reorged { .. }, Event::Taken) => to(Sent),
        (Accepted | Sent | Reorged { .. }, Event::Sighted) => to(Seen),
        (_, Event::Taken | Event::Sighted) => nothing(),

        (Mined { block: ours } | Confirmed { block: ours } | Final { block: ours }, Event::Included { block }) => {
            if ours == block {
                nothing()
            } else {
                illegal()
            }
        }
        (Replaced { .. }, Event::Included { .. }) => illegal(),
        (_, Event::Included { block }) => to(Mined { block: *block }),

        (Mined { .. } | Confirmed { .. } | Final { .. }, Event::Displaced { .. }) => illegal(),
        (Replaced { by: known, block: at, .. }, Event::Displaced { by, block }) => {
            if (known, at) == (by, block) {
                nothing()
            } else {
                illegal()
            }
        }
        // It was given up; that another took its place is not its fate.
        (Refused { .. } | Expired | Cancelled, Event::Displaced { .. }) => nothing(),
        (_, Event::Displaced { by, block }) => to(Replaced { by: *by, block: *block, is_final: false }),

        (Final { block: ours } | Replaced { block: ours, is_final: true, .. }, Event::Removed { block }) => {
            if ours == block { illegal() } else { nothing() }
        }
        (
            Mined { block: ours } | Confirmed { block: ours } | Replaced { block: ours, is_final: false, .. },
            Event::Removed { block },
        ) if ours == block => match stopped {
            Some(why) => give_up(why.clone()),
            None => to(Reorged { block: *block }),
        },
        (_, Event::Removed { .. }) => nothing(),

        (Mined { block }, Event::Advanced { tip, finalized, confirmations }) => {
            let is_final = finalized.is_some_and(|finalized| finalized >= block.number);
            let is_deep = (tip + 1).saturating_sub(block.number) >= *confirmations;
            if is_final || is_deep { to(Confirmed { block: *block }) } else { nothing() }
        }
        (Confirmed { block }, Event::Advanced { finalized: Some(finalized), .. }) if *finalized >= block.number => {
            to(Final { block: *block })
        }
        (Replaced { by, block, is_final: false }, Event::Advanced { finalized: Some(finalized), .. })
            if *finalized >= block.number =>
        {
            let state = Replaced { by: *by, block: *block, is_final: true };
            Ok(Change::Silent { state, stopped: stopped.cloned() })
        }
        (_, Event::Advanced { .. }) => nothing(),

        (Accepted | Sent | Seen | Reorged { .. }, Event::RefusedByAll { reason }) => {
            give_up(Stopped::Refused { reason: reason.clone() })
        }
        (Accepted | Sent | Seen | Reorged { .. }, Event::DeadlinePassed) => give_up(Stopped::Expired),
        (_, Event::RefusedByAll { .. } | Event::DeadlinePassed) => nothing(),

        (Accepted | Sent | Seen | Reorged { .. }, Event::Cancelled) => give_up(Stopped::Cancelled),
        (Cancelled, Event::Cancelled) => nothing(),
        (_, Event::Cancelled) => illegal(),
    }
}

/// The state of a transaction that was given up for this reason.
fn given_up(why: &Stopped) -> State {
    match why {
        Stopped::Refused { reason } => State::Refused { reason: reason.clone() },
        Stopped::Expired => State::Expired,
        Stopped::Cancelled => State::Cancelled,
    }
}

impl Record {
    /// What `event` changes of this record.
    ///
    /// # Errors
    /// The event cannot happen to a transaction in this state.
    pub fn after(&self, event: &Event) -> Result<Change, Illegal> {
        next(&self.state, self.stopped.as_ref(), event)
    }
}

#[cfg(test)]
mod tests;
