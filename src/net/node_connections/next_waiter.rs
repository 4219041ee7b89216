//! Which waiter gets the next connection: the first in line, or another of the worker that gives
//! the connection back.
//!
//! Rule: the first in line, if the connection is of the first one's worker. Else a call of this
//! worker that came at most [`LENIENCY`] after the first, if its address had no turn since the
//! first came or had its last turn; among calls of one address, if its connection had none. The
//! first in line is passed over [`PASSED`] times at most. Reason: a connection stays on its worker,
//! so a call of another worker has to open one anew. But a client with many calls has some on each
//! worker, all older than nearly all others. Example: one address has 500 calls waiting on eight
//! workers, and ten others have one each. While any of the ten waits, the one has one turn.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    NodeConnections,
    fair_queue::{SEARCHED, Ticket},
    rank::Rank,
    share::Turns,
    waiters::{State, Waiter},
};
use crate::net::worker::worker;

/// How much later than the first in the queue another may have come and still be given a connection
/// of its own worker's.
const LENIENCY: Duration = Duration::from_millis(100);
/// How often the first in the queue may be passed over for others of the connection's own worker.
pub(super) const PASSED: u32 = 8;

impl NodeConnections {
    /// The next ticket that may have a connection, while so many are in hand. Of clients, that is
    /// one below its share.
    pub(super) fn first(&self, state: &State, in_hand: usize) -> Option<(Rank, Ticket)> {
        let may_have = |rank: &Rank| {
            let idle = in_hand > 0 || state.is_full(*rank);
            self.has_room(state, *rank, in_hand) && self.leaves_open(state, *rank, idle, in_hand)
        };
        state.order(Instant::now()).into_iter().filter(may_have).find_map(|rank| {
            let ticket = match rank {
                Rank::Call => state.calls.first(|waiter| self.allows(waiter, in_hand)),
                _ => state.own[rank as usize].keys().next().copied(),
            };
            ticket.map(|ticket| (rank, ticket))
        })
    }

    /// The ticket that gets a connection of this worker's while `first` is first in line: `first`,
    /// or another of this worker that may pass.
    pub(super) fn of_this_worker(&self, state: &State, rank: Rank, first: Ticket) -> Option<Ticket> {
        let ahead = state.get(rank, first)?;
        let own = Some(worker());
        if ahead.worker == own {
            return Some(first);
        }
        if state.passed.0 == first.id && state.passed.1 >= PASSED {
            return None;
        }
        let is_near = |waiter: &Waiter| waiter.worker == own && waiter.since <= ahead.since + LENIENCY;
        match rank {
            Rank::Call => {
                let may_pass = |ticket: Ticket, waiter: &Waiter| {
                    is_near(waiter) && !self.had_turn((ticket, waiter), (first, ahead)) && self.allows(waiter, 1)
                };
                state.calls.near().find(|(ticket, waiter)| may_pass(*ticket, waiter)).map(|(ticket, _)| ticket)
            }
            _ => {
                let mut near = state.own[rank as usize].iter().take(SEARCHED);
                near.find(|(_, waiter)| is_near(waiter)).map(|(ticket, _)| *ticket)
            }
        }
    }

    /// Whether a call's address, or among calls of one address its connection, had a turn since the
    /// first in line came, or had one.
    fn had_turn(&self, call: (Ticket, &Waiter), first: (Ticket, &Waiter)) -> bool {
        let of = |turns: Turns| if call.0.address == first.0.address { turns.own } else { turns.address };
        let last = |waiter: &Waiter| waiter.caller.as_ref().map_or(0, |caller| of(caller.turns(self.number)));
        last(call.1) >= first.0.id.max(last(first.1))
    }
}
