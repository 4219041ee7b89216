//! The tries of one exchange, a call or a request: the nodes that have had it, and the waits
//! between.
//!
//! Rule: in a round, each node that may serve is tried once, the best first. When all have failed,
//! the exchange pauses and begins another round, for as long as exchanges are held. Reason: a
//! switch lasts for seconds, and a late answer is worth more to a client than an early refusal.
//! Example: with `hold = "10s"` and two nodes that refuse connections, an exchange tries both,
//! waits some 10 ms, tries both, waits some 20 ms, and so on up to 250 ms, until a node answers or
//! the 10 s are over.
//!
//! Rule: a call that found all nodes full gets in line at the one with the shortest line, until its
//! deadline. Reason: full nodes are well, and clients take turns only in a line. Example: two nodes
//! have a connection for calls each, and twenty clients have calls of 2 s: each is answered within
//! 20 s, as at one node with ten clients.

use std::time::Duration;

use tokio::time::Instant;

use super::queue::{Exit, HeadPermit, Queue, Ticket};
use crate::{
    domain::{backoff::Backoff, node_id::NodeId},
    pool::{
        Pool,
        health::{Fault, Trouble},
        resting::Kind,
    },
};

/// The pauses after all nodes that seemed to serve have failed.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(250));

/// How far an exchange has come.
pub struct Tries {
    /// The kind of exchange, for nodes that rest from one kind.
    pub kind: Kind,
    /// The nodes that failed the exchange in this round.
    pub tried: Vec<NodeId>,
    /// Attempts that reached a node.
    pub attempts: u32,
    /// The fault of the last attempt, where nothing was sent.
    pub failure: Option<Fault>,
    /// Whether an attempt of this round failed otherwise than for want of a connection.
    had_others: bool,
    /// Whether all nodes were full in the round before.
    in_line: bool,
    /// Whether every node has failed the exchange before.
    pub again: bool,
    /// Faults that count against their nodes if another node does better.
    pub charges: Vec<(NodeId, Trouble)>,
    /// The pauses between rounds.
    pub pauses: Backoff,
    /// No wait goes on beyond this moment.
    deadline: Option<Instant>,
    /// When the first wait began.
    held_since: Option<Instant>,
    /// The permit of the queue that the exchange comes from.
    head: HeadPermit,
}

/// The part of an exchange's tries that goes along when a reload moves the exchange to other nodes.
#[derive(Default)]
pub struct Begun {
    held_since: Option<Instant>,
    head: HeadPermit,
}

impl Begun {
    /// Lets the exchanges behind this one follow: from here on this one needs the queue no more.
    pub fn goes_ahead(&mut self) {
        self.head = HeadPermit::default();
    }
}

impl Tries {
    /// The tries of an exchange of `kind`, which waits until `deadline` at most.
    pub fn new(kind: Kind, deadline: Option<Instant>, begun: Begun) -> Self {
        let Begun { held_since, head } = begun;
        Self {
            kind,
            tried: Vec::new(),
            attempts: 0,
            failure: None,
            had_others: false,
            in_line: false,
            again: false,
            charges: Vec::new(),
            pauses: PAUSES,
            deadline,
            held_since,
            head,
        }
    }

    /// The part that goes along to other nodes.
    pub fn moved(&self, head: HeadPermit) -> Begun {
        Begun { held_since: self.held_since, head }
    }

    /// Charges the nodes that failed with their faults, since `node` answered. If `node` gave an
    /// error and no `result`, errors of the other nodes do not count.
    pub fn charge(&mut self, pool: &Pool, node: NodeId, result: bool) {
        for (other, trouble) in self.charges.drain(..) {
            if other != node && (result || trouble.fault != Fault::Erring) {
                pool.call_failed(other, self.kind, trouble, Some(node));
            }
        }
    }

    /// An attempt failed, with this fault where nothing was sent.
    pub fn failed(&mut self, fault: Option<Fault>) {
        self.failure = fault;
        self.had_others |= fault != Some(Fault::Full);
    }

    /// Whether the exchange waits in line at a node until its deadline.
    pub fn is_in_line(&self) -> bool {
        self.in_line
    }

    /// At the end of a round: whether all were full, so that the exchange gets in line now. An
    /// exchange that was in line in this round pauses as after other failures.
    pub fn gets_in_line(&mut self) -> bool {
        let is_full = !self.tried.is_empty() && !std::mem::take(&mut self.had_others);
        self.in_line = is_full && !self.in_line;
        if self.in_line {
            self.tried.clear();
        }
        self.in_line
    }

    /// The exchange has waited since then, for a connection.
    pub fn waits_since(&mut self, then: Instant) {
        self.held_since.get_or_insert(then);
    }

    /// The end of the hold time, which begins with the first wait and not with the exchange: a
    /// first attempt that takes long leaves the hold time whole.
    pub fn until<To>(&mut self, queue: &Queue<To>) -> Instant {
        let until = *self.held_since.get_or_insert_with(Instant::now) + queue.max_hold();
        self.deadline.map_or(until, |deadline| deadline.min(until))
    }

    /// At the beginning of a round, waits in the queue while no node admits exchanges. `None` where
    /// there is nothing to wait for.
    ///
    /// # Errors
    /// As of [`Queue::wait`].
    pub async fn wait_in<'q, To>(
        &mut self,
        queue: &'q Queue<To>,
        bytes: usize,
    ) -> Result<Option<Ticket<'q>>, Exit<To>> {
        let waits = self.tried.is_empty() && (self.head.is_held() || !queue.admits());
        if !waits {
            return Ok(None);
        }
        let until = self.until(queue);
        queue.wait(bytes, until, std::mem::take(&mut self.head)).await.map(Some)
    }

    /// Waits between two rounds: for the end of a rest where all nodes `rest`, or for a pause.
    /// `false` where the hold time is over, or where another round within it would bring the same
    /// again.
    ///
    /// # Errors
    /// As of [`Queue::pause`].
    pub async fn pause<To>(
        &mut self,
        queue: &Queue<To>,
        rest: Option<Option<Instant>>,
        bytes: usize,
    ) -> Result<bool, Exit<To>> {
        let (until, now) = (self.until(queue), Instant::now());
        if now >= until {
            return Ok(false);
        }
        match rest.filter(|_| self.tried.is_empty()) {
            Some(Some(end)) if end > until => return Ok(false),
            Some(end) => queue.rest(end.unwrap_or(until).min(until), bytes).await?,
            None => {
                self.again = true;
                queue.pause(self.pauses.pause().min(until - now), bytes).await?;
            }
        }
        self.tried.clear();
        Ok(true)
    }
}
