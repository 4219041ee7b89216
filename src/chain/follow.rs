//! Makes one chain of the heads and headers that nodes report. Pure: reports go in, changes of the
//! chain and fetches come out.
//!
//! Rules:
//! - Only the active node's reports count. A head that is in the window changes nothing: the node
//!   repeats itself, or lags.
//! - A head whose parent is the tip is added. From any other head, the follower walks back by
//!   parent hashes to a block of the window. The window's blocks above that block are removed,
//!   newest first, then the new blocks are added, oldest first. Example: the window ends with a11
//!   and a12, and the head b13 follows b12, which follows a11: a12 is removed, b12 and b13 are
//!   added.
//! - The head of a node that has just become active is taken for lag until the node has reported
//!   the tip or a greater height. So are heads below the window. Reason: a node that takes over is
//!   often some blocks behind, and clients must not see the chain go back. The other nodes decide
//!   how long this lasts: [`LAG_TIMEOUT`] while one of them has the tip, or the active node reports
//!   itself as syncing. While some are down and may have the tip: the time that the chain takes for
//!   the blocks which the node lacks, if that is between [`RETURN_TIMEOUT`] and [`LAG_TIMEOUT`];
//!   else [`RETURN_TIMEOUT`]. No time when none has the tip, because then the chain was reset;
//!   [`SECOND_LOOK`] in that case if the node itself was at the tip before. Example: the tip is
//!   100, and the new active node reports 98, unknown to the window. While a third node has 100,
//!   the follower waits up to 60 s for the active node to report the tip or a higher block; then 98
//!   becomes the tip.
//! - The follower walks to a single goal at a time, from the goal's head by hash. Meanwhile the
//!   blocks above the tip are fetched by their heights, several at once, and reported as they join
//!   the tip. Fetched headers are kept, so that a walk to the next node's head starts where this
//!   one broke off. Example: the tip is 100 and the head is 110: header 110 is fetched by hash
//!   while 101 to 107 are fetched by height.
//! - A gap longer than `max_backfill`, or a reorganisation deeper than a full window, is skipped:
//!   the head alone is added. A window that is not full is young: blocks below the window were
//!   canonical before there was a listener. A reorganisation that reaches below a young window is
//!   followed on both branches, for up to `max_backfill` blocks, and the new blocks are added.
//! - A header that no node gives is asked for again until `chain.timeout` has passed. Then the
//!   header is skipped: the known blocks above it are added.
//! - While the follower has no listener, nothing is fetched: a head that does not follow the tip
//!   begins a new window.

mod by_height;
mod terms;

use std::{sync::Arc, time::Duration};

use alloy_primitives::B256;
use tokio::time::Instant;

use self::by_height::ByHeight;
pub(super) use self::terms::{Effect, Fetch, Input, Others, What};
use super::{
    arrivals::Arrivals,
    block::{Block, Change, Head},
    known::Known,
    window::{Missing, PathToHead, Reorg, Window},
};
use crate::{
    config::Chain as Settings,
    domain::{backoff::Backoff, node_id::NodeId},
};

/// For how long the heads of a node that is behind the tip are taken for lag, while another node
/// has the tip.
const LAG_TIMEOUT: Duration = Duration::from_secs(60);
/// The same while other nodes are down. If the chain takes longer than this for the blocks that the
/// node lacks, and [`LAG_TIMEOUT`] at most, the node has that time.
const RETURN_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while no other node is down, or has the tip, of a node that was at the tip: a second
/// look.
const SECOND_LOOK: Duration = Duration::from_secs(2);
/// Headers that are fetched at once.
const AT_ONCE: usize = 8;
/// The pauses after a header was asked for in vain.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// Why blocks are skipped.
const TOO_MANY: &str = "the gap is longer than chain.max_backfill";
const TOO_DEEP: &str = "the chain was reorganised further back than is remembered";
const NOT_GIVEN: &str = "no node returns a header between the window and the head";

/// The head that the follower walks to; the active node may have a newer one by now.
#[derive(Clone, Copy, Debug)]
struct Goal {
    head: Head,
    /// Whether the blocks on the path are left out.
    skips: bool,
}

/// The chain of one network.
#[derive(Debug)]
pub(super) struct Follow {
    settings: Settings,
    max_backfill: u64,
    window: Window,
    arrivals: Arrivals,
    known: Known,
    wanted: bool,
    active: Option<NodeId>,
    /// The active node's head.
    head: Option<Head>,
    others: Others,
    goal: Option<Goal>,
    ladder: ByHeight,
    /// Whether the active node has been at the tip since the node became active.
    caught_up: bool,
    /// When the active node was last not behind, or became active.
    abreast: Instant,
    /// The fetches that are under way, at most [`AT_ONCE`].
    fetching: Vec<Fetch>,
    /// How long nothing is fetched after the next failure.
    pauses: Backoff,
    /// Since when a header on the path cannot be had.
    stuck: Option<(Missing, Instant)>,
    /// The end of the pause in which nothing is fetched.
    pause_until: Instant,
    wake_at: Option<Instant>,
    seq: u64,
    effects: Vec<Effect>,
}

impl Follow {
    pub(super) fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            settings: settings.clone(),
            max_backfill: settings.max_backfill as u64,
            window: Window::new(settings.window),
            arrivals: Arrivals::default(),
            // Room for the longest path and for the branch that the path leaves, also below a
            // window.
            known: Known::new(2 * settings.window + 3 * settings.max_backfill),
            wanted: false,
            active: None,
            head: None,
            others: Others::Lack,
            goal: None,
            ladder: ByHeight::default(),
            caught_up: false,
            abreast: now,
            fetching: Vec::new(),
            pauses: PAUSES,
            stuck: None,
            pause_until: now,
            wake_at: None,
            seq: 0,
            effects: Vec::new(),
        }
    }

    /// The moment to wake the follower if nothing happens before.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }

    /// The newest block that stands.
    pub(super) fn tip(&self) -> Option<&Arc<Block>> {
        self.window.tip()
    }

    /// Changes that were told.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Whether the header is known while the reports of `node` count: another report brings nothing
    /// new.
    pub(super) fn knows(&self, node: NodeId, hash: B256, number: u64) -> bool {
        self.window.has(hash, number) || self.known.find(node, hash, number).is_some()
    }

    /// The usual time between blocks, once enough are known.
    pub(super) fn block_time(&self) -> Option<Duration> {
        match (self.window.block_time(), self.arrivals.pace()) {
            (Some(stamped), Some(seen)) => Some(stamped.min(seen)),
            (stamped, seen) => stamped.or(seen),
        }
    }

    /// Takes an input and returns its effects, in order.
    pub(super) fn step(&mut self, input: Input, now: Instant) -> Vec<Effect> {
        match input {
            Input::Head(told, others) => {
                self.others = others;
                self.hear(told, now);
            }
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

    fn hear(&mut self, told: Option<(NodeId, Head)>, now: Instant) {
        let active = told.map(|(node, _)| node);
        if self.active != active {
            self.active = active;
            self.caught_up = false;
            self.abreast = now;
            self.stop(now);
        }
        self.head = told.map(|(_, head)| head);
        self.head.iter().for_each(|head| self.arrivals.hear(head.number, now));
        let (Some(head), Some(tip), Some(floor)) = (self.head, self.window.tip(), self.window.floor()) else { return };
        self.caught_up |= head.number > tip.number || head.hash == tip.hash;
        if self.caught_up && head.number >= floor {
            self.abreast = now;
        }
    }

    /// Gives up the path to the present goal, and drops its fetches.
    fn stop(&mut self, now: Instant) {
        if !self.fetching.is_empty() {
            self.fetching.clear();
            self.effects.push(Effect::Drop);
        }
        self.ladder = ByHeight::default();
        self.moved();
        self.pause_until = now;
    }

    /// The path is walked no further, or to another tip.
    fn moved(&mut self) {
        self.goal = None;
        self.pauses.reset();
        self.stuck = None;
        self.ladder.may_climb();
    }

    fn learn(&mut self, fetch: Fetch, block: Option<Block>, now: Instant) {
        let place = self.fetching.iter().position(|fetching| *fetching == fetch);
        let is_awaited = place.map(|place| self.fetching.swap_remove(place)).is_some();
        let block = block.filter(|block| match fetch.what {
            What::Hash(Missing { hash, number }) => block.hash == hash && block.number == number,
            What::Height(number) => block.number == number && is_awaited,
        });
        match (block.map(Arc::new), fetch.what) {
            (Some(block), what) => {
                if !self.knows(fetch.node, block.hash, block.number) {
                    self.effects.push(Effect::Filled);
                }
                if matches!(what, What::Height(_)) {
                    self.ladder.insert(block.clone());
                } else if is_awaited {
                    self.pauses.reset();
                }
                if self.stuck.take_if(|(missing, _)| missing.hash == block.hash).is_some() {
                    // The walk was stuck at this header. The headers above may come now too.
                    self.ladder.may_climb();
                }
                self.known.insert(block);
            }
            (None, What::Hash(missing)) if is_awaited => {
                self.pause_until = now + self.pauses.pause();
                self.stuck.get_or_insert((missing, now));
                // The node may have left that branch: its present head becomes the next goal.
                self.goal = None;
            }
            (None, What::Height(_)) if is_awaited => self.ladder.breaks(),
            (None, _) => {}
        }
    }

    /// Adds as much of the chain as the known headers allow, and fetches the next missing ones.
    fn advance(&mut self, now: Instant) {
        let (Some(node), Some(head)) = (self.active, self.head) else { return };
        let Some(tip) = self.window.tip().map(|tip| tip.number) else {
            // The first window: this head is its only block, and reports begin with the next block.
            self.window.reset(Arc::new(head.into()));
            self.caught_up = true;
            return;
        };
        if self.window.has(head.hash, head.number) {
            self.moved();
            return;
        }
        if self.is_behind(&head, tip) {
            let until = self.abreast + self.time_limit(&head, tip);
            if now < until {
                self.wake_by(until);
                self.moved();
                return;
            }
        }
        self.caught_up = true;
        if !self.wanted {
            self.doze(head);
            return;
        }
        let tip = self.join(node, &head, now).unwrap_or(tip);
        if self.window.has(head.hash, head.number) {
            self.moved();
            return;
        }
        // The blocks by height may have brought the tip to the goal.
        self.goal.take_if(|goal| self.window.has(goal.head.hash, goal.head.number));
        let (skips, why) = match self.window.path_to_head(&head, &self.known, node, self.max_backfill) {
            PathToHead::Leads(reorg) => return self.apply(node, reorg, now),
            PathToHead::TooDeep => (true, TOO_DEEP),
            PathToHead::Missing(_) => (self.is_far(head.number, tip), TOO_MANY),
        };
        if let Some((missing, since)) = self.stuck {
            let until = since + self.settings.data_timeout(self.block_time());
            if now >= until {
                return self.leave_out(node, head, missing.number, tip, now);
            }
            self.wake_by(until);
        }
        // A single path at a time, so that blocks are told however fast the node moves on.
        let goal = match self.goal {
            Some(goal) if !goal.skips => goal,
            // The tip may have come so near meanwhile that nothing needs to be skipped.
            Some(goal) if skips && goal.head.number > tip => {
                Goal { skips: why == TOO_DEEP || self.is_far(goal.head.number, tip), ..goal }
            }
            _ => Goal { head, skips },
        };
        self.goal = Some(goal);
        if goal.skips {
            return self.skip(node, goal.head, tip, now, why);
        }
        match self.window.path_to_head(&goal.head, &self.known, node, self.max_backfill) {
            PathToHead::Missing(missing) => self.fetch_path(node, missing, tip, now),
            PathToHead::Leads(reorg) => {
                self.apply(node, reorg, now);
                self.advance(now);
            }
            PathToHead::TooDeep => {
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

    /// For how long a head that is behind the tip is lag.
    fn time_limit(&self, head: &Head, tip: u64) -> Duration {
        match self.others {
            Others::Hold => LAG_TIMEOUT,
            Others::Away => {
                let blocks = u32::try_from(tip.saturating_sub(head.number)).unwrap_or(u32::MAX);
                let catching_up = self.block_time().map_or(Duration::ZERO, |time| time.saturating_mul(blocks));
                Some(catching_up).filter(|time| *time <= LAG_TIMEOUT).unwrap_or_default().max(RETURN_TIMEOUT)
            }
            Others::Lack if self.caught_up => SECOND_LOOK,
            Others::Lack => Duration::ZERO,
        }
    }

    /// Whether more blocks lie between than may be filled in.
    fn is_far(&self, number: u64, tip: u64) -> bool {
        number.saturating_sub(tip) > self.max_backfill
    }

    fn wake_by(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |wake| wake.min(at)));
    }

    /// Reports the blocks that were asked for by height as far as each follows the last from the
    /// tip on. Returns the height of the new tip if there is one.
    fn join(&mut self, node: NodeId, head: &Head, now: Instant) -> Option<u64> {
        let tip = self.window.tip()?;
        let added = self.ladder.climb(tip, head.number);
        let tip = added.last()?.number;
        self.abreast = now;
        self.pauses.reset();
        self.stuck = None;
        self.ladder.may_climb();
        added.iter().for_each(|block| self.window.push(block.clone()));
        self.tell(node, Vec::new(), added, false);
        Some(tip)
    }

    /// Fetches the missing header on the path to the goal, and the headers between the tip and that
    /// one.
    fn fetch_path(&mut self, node: NodeId, missing: Missing, tip: u64, now: Instant) {
        let at = |height| Fetch { node, what: What::Height(height) };
        if !self.fetching.contains(&at(missing.number)) {
            self.fetch(Fetch { node, what: What::Hash(missing) }, now);
        }
        for height in self.ladder.rungs(tip + 1..missing.number) {
            // The last place is for a header by its hash, on which the others may depend.
            if self.fetching.len() + 1 >= AT_ONCE {
                return;
            }
            if !self.fetching.contains(&at(height)) {
                self.fetching.push(at(height));
                self.effects.push(Effect::Fetch(at(height)));
            }
        }
    }

    fn fetch(&mut self, fetch: Fetch, now: Instant) {
        // Room comes when a fetch ends, within bounded time. The next step asks for this header
        // again.
        if self.fetching.contains(&fetch) || self.fetching.len() >= AT_ONCE {
            return;
        }
        if now < self.pause_until {
            self.wake_by(self.pause_until);
            return;
        }
        self.fetching.push(fetch);
        self.effects.push(Effect::Fetch(fetch));
    }

    fn apply(&mut self, node: NodeId, reorg: Reorg, now: Instant) {
        self.moved();
        self.abreast = now;
        let removed = self.window.apply(&reorg);
        if !removed.is_empty() {
            self.effects.push(Effect::Reorged(removed.len()));
        }
        // A later reorganisation may bring the chain back to these blocks.
        for block in removed.iter().filter(|block| !block.header.is_empty()) {
            self.known.insert(block.clone());
        }
        self.tell(node, removed, reorg.into_added(), false);
    }

    fn skip(&mut self, node: NodeId, head: Head, tip: u64, now: Instant, why: &'static str) {
        let Some(block) = self.known.find(node, head.hash, head.number).cloned() else {
            let missing = Missing { hash: head.hash, number: head.number };
            return self.fetch(Fetch { node, what: What::Hash(missing) }, now);
        };
        self.begin_anew(node, vec![block], tip, now, why);
    }

    /// Skips a header that no node gives, at height `missing`: the known blocks from there to the
    /// head begin a new window. Where the header is of the branch that the path leaves, the block
    /// at its height is new too, and lower blocks may have been canonical before.
    fn leave_out(&mut self, node: NodeId, head: Head, missing: u64, tip: u64, now: Instant) {
        let mut added = Vec::new();
        let (mut hash, mut number) = (head.hash, head.number);
        while let Some(block) = self.known.find(node, hash, number)
            && number >= missing
            && (added.len() as u64) < self.max_backfill
        {
            added.push(block.clone());
            (hash, number) = (block.parent, number.saturating_sub(1));
        }
        if added.is_empty() {
            return self.skip(node, head, tip, now, NOT_GIVEN);
        }
        added.reverse();
        self.begin_anew(node, added, tip, now, NOT_GIVEN);
    }

    /// Begins a new window with `added`, each the parent of the next: the only blocks known to be
    /// canonical.
    fn begin_anew(&mut self, node: NodeId, added: Vec<Arc<Block>>, tip: u64, now: Instant, why: &'static str) {
        self.moved();
        self.ladder = ByHeight::default();
        self.abreast = now;
        let Some((first, rest)) = added.split_first() else { return };
        self.window.reset(first.clone());
        rest.iter().for_each(|block| self.window.push(block.clone()));
        self.effects.push(Effect::Skipped { from: tip, to: first.number, why });
        self.tell(node, Vec::new(), added, true);
        self.advance(now);
    }

    fn tell(&mut self, node: NodeId, removed: Vec<Arc<Block>>, added: Vec<Arc<Block>>, skipped: bool) {
        self.seq += 1;
        self.effects.push(Effect::Tell(Change { seq: self.seq, node, removed, added, skipped }));
    }
}

#[cfg(test)]
mod tests;
