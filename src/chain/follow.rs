//! Makes one chain out of what the nodes say of it. Pure: what nodes say goes in, how the chain changed and what must be fetched
//! comes out.
//!
//! The rules:
//! - Only the word of the active node counts. A head that is in the window is no news: the node repeats, or lags.
//! - A head whose parent is the tip is added. To any other, the way is walked back by parent hashes to a block of the window; what stood
//!   above that is removed, newest first, then the new blocks are added, oldest first.
//! - A node that has just become active may be behind: until it has told the tip or a height above it, its heads up to that
//!   height are lag, unknown as they may be. After a minute of that, they count.
//! - One way at a time is walked. What was fetched is kept, so when the way breaks off, the next node's head takes it up from there.
//! - A gap longer than may be filled, or a reorganisation deeper than a full window, is skipped: the head alone is added.
//! - While nobody listens nothing is fetched: a head that does not follow the tip begins a new window.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    block::{Block, Change, Head},
    known::Known,
    window::{Missing, Road, Way, Window},
};
use crate::config::Chain as Settings;

/// For how long the heads of a node that is behind the tip are taken for lag.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause after a header could not be had; it doubles with each further time.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What can happen to a follower.
#[derive(Clone, Debug)]
pub(super) enum Input {
    /// The active node and its head; none when no node serves, or the one that does has not told any.
    Head(Option<(usize, Head)>),
    /// A node told a header unasked.
    Pushed(usize, Arc<Block>),
    /// A fetch ended, maybe too late to matter; without a block if the node had none to give.
    Fetched(Fetch, Option<Block>),
    /// Somebody listens from now on. The active node and its head when they began to.
    Wanted(Option<(usize, Head)>),
    /// Nobody listens any more.
    Unwanted,
    /// The nodes are others now, of the same network.
    Moved,
    /// The moment of [`Follow::wake_at`] has come.
    Woken,
}

/// What follows from an input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A header is to be fetched, and no other any more.
    Fetch(Fetch),
    /// A fetch brought a header that no node had told.
    Filled,
    /// The way to the next change took out so many blocks.
    Reorged(usize),
    /// Blocks between these heights will not be told.
    Skipped { from: u64, to: u64 },
    /// The chain changed.
    Tell(Change),
}

/// A header to be had from a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    pub(super) node: usize,
    pub(super) missing: Missing,
}

/// The head that is made for; the active node may be further by now.
#[derive(Clone, Copy, Debug)]
struct Goal {
    head: Head,
    /// Whether the blocks on the way are left out.
    skips: bool,
}

/// The chain of one network.
#[derive(Debug)]
pub(super) struct Follow {
    max_backfill: u64,
    window: Window,
    known: Known,
    wanted: bool,
    active: Option<usize>,
    /// The active node's head.
    head: Option<Head>,
    goal: Option<Goal>,
    /// Whether the active node has been at the tip since it became active.
    caught_up: bool,
    /// When the active node was last not behind, or became active.
    abreast: Instant,
    fetching: Option<Fetch>,
    /// Fetches that failed in a row.
    failures: u32,
    /// Nothing is fetched before.
    pause_until: Instant,
    wake_at: Option<Instant>,
    seq: u64,
    effects: Vec<Effect>,
}

impl Follow {
    pub(super) fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            max_backfill: settings.max_backfill as u64,
            window: Window::new(settings.window),
            // The longest way, and the branch that it leaves.
            known: Known::new(2 * settings.window + settings.max_backfill),
            wanted: false,
            active: None,
            head: None,
            goal: None,
            caught_up: false,
            abreast: now,
            fetching: None,
            failures: 0,
            pause_until: now,
            wake_at: None,
            seq: 0,
            effects: Vec::new(),
        }
    }

    /// When it wants to be woken if nothing happens before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The usual time between blocks, once enough are known.
    pub(super) fn block_time(&self) -> Option<Duration> {
        self.window.block_time()
    }

    /// Takes an input and says what follows from it, in order.
    pub(super) fn step(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        match input {
            Input::Head(told) => self.hear(told, now),
            Input::Pushed(node, block) => self.known.push(node, block),
            Input::Fetched(fetch, block) => self.learn(fetch, block, now),
            Input::Wanted(since) => {
                if !self.wanted && since.is_some() {
                    self.hear(since, now);
                    self.advance(now);
                }
                self.wanted = true;
            }
            Input::Unwanted => {
                self.wanted = false;
                self.stop(now);
            }
            Input::Moved => {
                self.hear(None, now);
                self.known.forget_nodes();
            }
            Input::Woken => {}
        }
        self.wake_at = None;
        self.advance(now);
        std::mem::take(&mut self.effects)
    }

    fn hear(&mut self, told: Option<(usize, Head)>, now: Instant) {
        let active = told.map(|(node, _)| node);
        if self.active != active {
            self.active = active;
            self.caught_up = false;
            self.abreast = now;
            self.stop(now);
        }
        self.head = told.map(|(_, head)| head);
        let (Some(head), Some(tip), Some(floor)) = (self.head, self.window.tip(), self.window.floor()) else { return };
        self.caught_up |= head.number > tip.number || head.hash == tip.hash;
        if self.caught_up && head.number >= floor {
            self.abreast = now;
        }
    }

    /// The way that is being walked is given up.
    fn stop(&mut self, now: Instant) {
        self.goal = None;
        self.fetching = None;
        self.failures = 0;
        self.pause_until = now;
    }

    fn learn(&mut self, fetch: Fetch, block: Option<Block>, now: Instant) {
        let Missing { hash, number } = fetch.missing;
        let is_awaited = self.fetching.take_if(|fetching| *fetching == fetch).is_some();
        let block = block.filter(|block| block.hash == hash && block.number == number);
        match block {
            Some(block) => {
                if self.known.find(fetch.node, hash, number).is_none() {
                    self.effects.push(Effect::Filled);
                }
                self.known.insert(Arc::new(block));
                if is_awaited {
                    self.failures = 0;
                }
            }
            None if is_awaited => {
                let pause = PAUSE.saturating_mul(1 << self.failures.min(8)).min(LONGEST_PAUSE);
                self.pause_until = now + pause;
                self.failures += 1;
                // The node may have left that branch; its head of now will tell.
                self.goal = None;
            }
            None => {}
        }
    }

    /// Goes as far as what is known leads.
    fn advance(&mut self, now: Instant) {
        let (Some(node), Some(head)) = (self.active, self.head) else { return };
        let Some(tip) = self.window.tip().map(|tip| tip.number) else {
            // What is told begins after it.
            self.window.reset(Arc::new(head.into()));
            self.caught_up = true;
            return;
        };
        if self.window.has(head.hash, head.number) {
            self.goal = None;
            return;
        }
        if self.is_behind(&head, tip) && now < self.abreast + PATIENCE {
            self.wake_at = Some(self.abreast + PATIENCE);
            self.goal = None;
            return;
        }
        self.caught_up = true;
        if !self.wanted {
            self.doze(head);
            return;
        }
        let skips = match self.window.road(&head, &self.known, node) {
            Road::Leads(way) => return self.go(node, way, now),
            Road::TooDeep => true,
            Road::Missing(_) => head.number.saturating_sub(tip) > self.max_backfill,
        };
        // One way at a time, so that blocks are told however fast the node moves on.
        let goal = match self.goal {
            Some(goal) if !goal.skips || (skips && goal.head.number > tip) => goal,
            _ => Goal { head, skips },
        };
        self.goal = Some(goal);
        if goal.skips {
            return self.skip(node, goal.head, tip, now);
        }
        match self.window.road(&goal.head, &self.known, node) {
            Road::Missing(missing) => self.fetch(Fetch { node, missing }, now),
            Road::Leads(way) => {
                self.go(node, way, now);
                self.advance(now);
            }
            Road::TooDeep => {
                self.goal = None;
                self.advance(now);
            }
        }
    }

    /// Whether the active node may be on its way to the tip.
    fn is_behind(&self, head: &Head, tip: u64) -> bool {
        (!self.caught_up && head.number <= tip) || self.window.floor().is_some_and(|floor| head.number < floor)
    }

    fn doze(&mut self, head: Head) {
        if self.window.tip().is_some_and(|tip| tip.hash == head.parent && tip.number + 1 == head.number) {
            self.window.push(Arc::new(head.into()));
        } else {
            self.window.reset(Arc::new(head.into()));
        }
    }

    fn fetch(&mut self, fetch: Fetch, now: Instant) {
        if self.fetching == Some(fetch) {
            return;
        }
        if now < self.pause_until {
            self.wake_at = Some(self.pause_until);
            return;
        }
        self.fetching = Some(fetch);
        self.effects.push(Effect::Fetch(fetch));
    }

    fn go(&mut self, node: usize, way: Way, now: Instant) {
        self.goal = None;
        self.abreast = now;
        let removed = self.window.go(&way);
        if !removed.is_empty() {
            self.effects.push(Effect::Reorged(removed.len()));
        }
        // The chain may come back to them.
        for block in removed.iter().filter(|block| !block.header.is_empty()) {
            self.known.insert(block.clone());
        }
        self.tell(node, removed, way.into_added(), false);
    }

    fn skip(&mut self, node: usize, head: Head, tip: u64, now: Instant) {
        let Some(block) = self.known.find(node, head.hash, head.number).cloned() else {
            let missing = Missing { hash: head.hash, number: head.number };
            return self.fetch(Fetch { node, missing }, now);
        };
        self.goal = None;
        self.abreast = now;
        self.window.reset(block.clone());
        self.effects.push(Effect::Skipped { from: tip, to: head.number });
        self.tell(node, Vec::new(), vec![block], true);
        self.advance(now);
    }

    fn tell(&mut self, node: usize, removed: Vec<Arc<Block>>, added: Vec<Arc<Block>>, skipped: bool) {
        self.seq += 1;
        self.effects.push(Effect::Tell(Change { seq: self.seq, node, removed, added, skipped }));
    }
}

#[cfg(test)]
mod property;
#[cfg(test)]
mod tables;
