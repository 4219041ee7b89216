//! The tries of one exchange, a call or a request: the nodes that have had it, and the waits
//! between.
//!
//! Rule: in a round, each node that may serve is tried once, the best first. When all have failed,
//! the exchange pauses and begins another round, for as long as exchanges are held. Reason: a
//! switch lasts for seconds, and a late answer is worth more to a client than an early refusal.
//! Example: with `hold = "10s"` and two nodes that refuse connections, an exchange tries both,
//! waits some 10 ms, tries both, waits some 20 ms, and so on up to 250 ms, until a node answers or
//! the 10 s are over.

use std::time::Duration;

use tokio::time::Instant;

use super::hold::{First, Hold, Left, Turn};
use crate::{
    domain::backoff::Backoff,
    pool::{
        Pool,
        health::{Fault, Trouble},
        resting::Kind,
    },
};

/// The pauses after all nodes that seemed to serve have failed.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));

/// How far an exchange has come.
pub(super) struct Tries {
    /// Which exchanges may rest with it.
    pub(super) kind: Kind,
    /// The nodes that failed it in this round.
    pub(super) tried: Vec<usize>,
    /// Attempts that reached a node.
    pub(super) attempts: u32,
    /// The fault of the last attempt, if that was not sent.
    pub(super) failure: Option<Fault>,
    /// Whether every node has failed it before.
    pub(super) again: bool,
    /// Faults that count against their nodes if another node does better.
    pub(super) charges: Vec<(usize, Trouble)>,
    pub(super) pauses: Backoff,
    /// No wait goes on beyond it.
    deadline: Option<Instant>,
    /// When the first wait began.
    held_since: Option<Instant>,
    /// Its turn where it comes from, if a reload moved it while it was first.
    first: First,
}

/// The part of an exchange's tries that goes along when a reload moves it to other nodes.
#[derive(Default)]
pub(super) struct Begun {
    held_since: Option<Instant>,
    first: First,
}

impl Begun {
    /// The exchange does not wait for its turn: those that moved behind it may come.
    pub(super) fn goes_ahead(&mut self) {
        self.first = First::default();
    }
}

impl Tries {
    pub(super) fn new(kind: Kind, deadline: Option<Instant>, begun: Begun) -> Self {
        let Begun { held_since, first } = begun;
        Self {
            kind,
            tried: Vec::new(),
            attempts: 0,
            failure: None,
            again: false,
            charges: Vec::new(),
            pauses: PAUSES,
            deadline,
            held_since,
            first,
        }
    }

    /// The exchange goes on elsewhere, where it has this turn.
    pub(super) fn moved(&self, first: First) -> Begun {
        Begun { held_since: self.held_since, first }
    }

    /// `node` answered, with a result or not, so the faults of the others are not the exchange's
    /// doing. An error beside another error is a matter of words.
    pub(super) fn charge(&mut self, pool: &Pool, node: usize, result: bool) {
        for (other, trouble) in self.charges.drain(..) {
            if other != node && (result || trouble.fault != Fault::Erring) {
                pool.call_failed(other, self.kind, trouble, Some(node));
            }
        }
    }

    /// When the exchange is not held any longer. The time begins with the first wait: what nodes
    /// took before is theirs.
    fn until<To>(&mut self, hold: &Hold<To>) -> Instant {
        let until = *self.held_since.get_or_insert_with(Instant::now) + hold.longest();
        self.deadline.map_or(until, |deadline| deadline.min(until))
    }

    /// At the beginning of a round, waits in the queue while no node admits exchanges. `None` where
    /// there is nothing to wait for.
    ///
    /// # Errors
    /// As of [`Hold::wait`].
    pub(super) async fn queue<'h, To>(
        &mut self,
        hold: &'h Hold<To>,
        bytes: usize,
    ) -> Result<Option<Turn<'h>>, Left<To>> {
        let waits = self.tried.is_empty() && (self.first.is_first() || !hold.admits());
        if !waits {
            return Ok(None);
        }
        let until = self.until(hold);
        hold.wait(bytes, until, std::mem::take(&mut self.first)).await.map(Some)
    }

    /// Waits between two rounds: for the end of a rest where all nodes `rest`, or for a pause. `false`
    /// where the hold time is over, or another round within it would only bring the same again.
    ///
    /// # Errors
    /// As of [`Hold::pause`].
    pub(super) async fn pause<To>(
        &mut self,
        hold: &Hold<To>,
        rest: Option<Option<Instant>>,
        bytes: usize,
    ) -> Result<bool, Left<To>> {
        let (until, now) = (self.until(hold), Instant::now());
        if now >= until {
            return Ok(false);
        }
        match rest.filter(|_| self.tried.is_empty()) {
            Some(Some(end)) if end > until => return Ok(false),
            Some(end) => hold.rest(end.unwrap_or(until).min(until), bytes).await?,
            None => {
                self.again = true;
                hold.pause(self.pauses.pause().min(until - now), bytes).await?;
            }
        }
        self.tried.clear();
        Ok(true)
    }
}
