//! A single view for all clients. While validators are there, all requests to the consensus nodes
//! of a network, and the stream of events, go to one node: the node of the view. No I/O, no clock
//! of its own.
//!
//! Reason: a validator's request refers to earlier answers. The validator attests to the head that
//! an event named, its attestation is taken where that head is known, and the aggregate is fetched
//! where the attestations are. Two healthy nodes may be a second apart, so requests to both are
//! worse than requests to either. The rule, in one place:
//!
//! 1. The node of the view is the node that the events come from; without a stream of events, the
//!    active node.
//! 2. The view leaves a node at once that is not usable, that fails validators' requests one after
//!    the other, or that is below the head that clients were told while another usable node is not.
//!    So does it leave a node that imports nothing: whose head has stood still for a slot and a
//!    twelfth, and below that of another usable node all that time. Heads that the clock has not
//!    reached count for nothing there.
//! 3. The view goes to a better node, in the order of tiers and of the configuration, only from a
//!    sixth of a slot before an epoch to a sixth of a slot before the end of its first slot:
//!    blocks, attestations and aggregates of the last slot are done then. The better node must have
//!    been usable since an earlier epoch, must have reached the head that clients were told, and by
//!    the beginning of that time must have the messages that the others got, or have been usable
//!    for a whole epoch. If there is a stream of events, the node's stream must have named a head;
//!    stream and requests then move together. A node that is not ready in that time waits for the
//!    next epoch. Where the clock tells no slots, any moment will do.
//!
//! Where no validator has asked for anything for two epochs, requests go to the best node at any
//! time.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::{NOBODY, Pool, preference::Preference, resting::Kind, state::Input};
use crate::domain::{
    beacon_route::Route,
    chain::{Beacon, Chain},
    method::MethodId,
    node_id::{ByNode, NodeId},
};

/// Validators count as there for so many epochs after the last request of theirs.
const EPOCHS: u32 = 2;

/// The facts that bind clients to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValidatorTies {
    /// Whether validators are there.
    pub validators: bool,
    /// The node that clients' events come from.
    pub stream: Option<NodeId>,
}

/// The traces of validators' requests and of the stream of events.
pub(super) struct Tied {
    epoch: Instant,
    /// Milliseconds since `epoch` of the last request of a validator, and one; 0 before any.
    last: AtomicU64,
    stream: AtomicUsize,
}

impl Tied {
    pub(super) fn new() -> Self {
        Self { epoch: Instant::now(), last: AtomicU64::new(0), stream: AtomicUsize::new(NOBODY) }
    }

    /// Takes over the traces of another pool; `place` gives the index here of a node there.
    pub(super) fn inherit(&self, earlier: &Self, place: impl Fn(NodeId) -> Option<NodeId>) {
        if let Some(at) = earlier.asked() {
            self.note(at);
        }
        let stream = earlier.stream().and_then(place);
        self.stream.store(stream.map_or(NOBODY, |node| node.0), Relaxed);
    }

    fn note(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        self.last.fetch_max(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Relaxed);
    }

    fn asked(&self) -> Option<Instant> {
        let last = self.last.load(Relaxed).checked_sub(1)?;
        Some(self.epoch + Duration::from_millis(last))
    }

    fn stream(&self) -> Option<NodeId> {
        Some(self.stream.load(Relaxed)).filter(|node| *node != NOBODY).map(NodeId)
    }

    /// The ties at `now`, by the slot and epoch times of this chain.
    pub(super) fn ties(&self, chain: Option<&Chain>, now: Instant) -> ValidatorTies {
        let long = Chain::epoch(chain).saturating_mul(EPOCHS);
        let validators = self.asked().is_some_and(|at| now.saturating_duration_since(at) < long);
        ValidatorTies { validators, stream: self.stream() }
    }
}

impl Pool {
    /// A slot of the consensus nodes' chain.
    pub fn slot(&self) -> Duration {
        Chain::slot(self.snapshot().chain.as_ref())
    }

    /// How long a request that refers to the head waits for a node to know the head: a sixth of a
    /// slot.
    pub fn longest_wait_for_head(&self) -> Duration {
        self.slot() / 6
    }

    /// An epoch of the consensus nodes' chain.
    pub fn epoch(&self) -> Duration {
        Chain::epoch(self.snapshot().chain.as_ref())
    }

    /// The highest slot that a node may name, by the clock and by the pool's head, with an epoch's
    /// room for clocks that differ; `None` if the clock gives no slots.
    pub fn latest_slot(&self) -> Option<u64> {
        let snapshot = self.snapshot();
        let beacon = snapshot.chain.as_ref()?.beacon.as_ref()?;
        let present = beacon.slot_at((self.wall)())?.max(snapshot.head.unwrap_or(0));
        Some(present.saturating_add(beacon.epoch()))
    }

    /// A validator asked for something.
    pub fn validators_are_there(&self) {
        self.tied.note(Instant::now());
    }

    /// Clients' events come from this node from now on, or from none.
    pub fn streams_from(&self, node: Option<NodeId>) {
        let node = node.map_or(NOBODY, |node| node.0);
        if self.tied.stream.swap(node, Relaxed) != node {
            // A full inbox has the mind look soon.
            let _ = self.inbox.try_send(Input::Woken);
        }
    }
}

/// The state of a move of the view to a better node.
#[derive(Debug, Default)]
pub(super) struct ValidatorNode {
    /// The better usable node, and the epoch in which it became usable.
    home: Option<(NodeId, u64)>,
    /// The last epoch that began while the better node was usable, and whether the node had got the
    /// messages by then.
    boundary: Option<(u64, bool)>,
    /// The better node that the stream of events is to go to, so that the view can.
    pub(super) moving: Option<NodeId>,
    /// The head of each node that is below another usable node's, and since when.
    below: Vec<Option<(u64, Instant)>>,
}

/// The facts that decide about the view.
pub(super) struct ValidatorFacts<'a> {
    pub(super) ties: ValidatorTies,
    pub(super) active: Option<NodeId>,
    pub(super) preferences: &'a [Option<Preference>],
    /// Whether a node has got the messages that the others got.
    pub(super) informed: &'a dyn Fn(NodeId) -> bool,
    /// Whether a node fails validators' requests one after the other.
    pub(super) fails: &'a dyn Fn(NodeId) -> bool,
    /// The time by the clock, a sixth of a slot ahead; `None` if unknown.
    pub(super) time: Option<Time>,
    pub(super) heads: Heads<'a>,
}

/// The facts that tell which node imports nothing.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a> {
    /// The slot of each node's head, where that is known.
    pub(super) of: &'a [Option<u64>],
    /// The present slot by the clock; `None` if unknown.
    pub(super) present: Option<u64>,
    /// The length of a slot.
    pub(super) slot: Duration,
    pub(super) now: Instant,
}

/// A moment of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) epoch: u64,
    /// The slot is the first of the epoch.
    pub(super) is_first_slot: bool,
}

impl ValidatorNode {
    /// The node of the view, if one is held to; `None` where the best by preference serves.
    pub(super) fn step(&mut self, facts: &ValidatorFacts<'_>) -> Option<NodeId> {
        self.moving = None;
        if !facts.ties.validators {
            *self = Self::default();
            return None;
        }
        let well = |node: NodeId| {
            facts.preferences.get(node.0).copied().flatten().filter(|preference| preference.badness == 0)
        };
        let is_known = |head: &u64| facts.heads.present.is_none_or(|present| *head <= present);
        let heads = facts.heads.of.by_node().filter(|(node, _)| well(*node).is_some());
        self.note_heads(facts.heads, heads.filter_map(|(_, head)| head.filter(is_known)).max());
        let below = std::mem::take(&mut self.below);
        let fails = |node: NodeId| (facts.fails)(node) || stands_still(&below, node, facts.heads);
        let is_any_fit = NodeId::all(facts.preferences.len()).any(|node| well(node).is_some() && !fails(node));
        let usable = |node: NodeId| well(node).filter(|_| !is_any_fit || !fails(node));
        let node = self.choose(facts, &usable);
        self.below = below;
        node
    }

    /// Notes which nodes are below the `highest` head of a usable node.
    fn note_heads(&mut self, heads: Heads<'_>, highest: Option<u64>) {
        self.below.resize(heads.of.len(), None);
        for (below, head) in self.below.iter_mut().zip(heads.of) {
            *below = match (*below, *head) {
                (_, Some(head)) if highest.is_none_or(|highest| head >= highest) => None,
                // Without a new block.
                (Some((at, since)), Some(head)) if head <= at => Some((at, since)),
                (_, Some(head)) => Some((head, heads.now)),
                (_, None) => None,
            };
        }
    }

    /// Whether a node imports nothing.
    pub(super) fn stands_still(&self, node: NodeId, heads: Heads<'_>) -> bool {
        stands_still(&self.below, node, heads)
    }

    /// The node of the view among the `usable` ones.
    fn choose(&mut self, facts: &ValidatorFacts<'_>, usable: &dyn Fn(NodeId) -> Option<Preference>) -> Option<NodeId> {
        let preferences = || NodeId::all(facts.preferences.len()).filter_map(|node| Some((usable(node)?, node)));
        let least = preferences().map(|(preference, _)| preference.below_served).min()?;
        let has_reached = |node: &NodeId| usable(*node).is_some_and(|preference| preference.below_served == least);
        let view = facts.ties.stream.filter(has_reached).or(facts.active.filter(has_reached));
        let Some(view) = view else { return preferences().min().map(|(_, node)| node) };
        let (tier, home) = preferences().map(|(preference, node)| (preference.tier, node)).min()?;
        if usable(view).is_some_and(|preference| (preference.tier, view) <= (tier, home)) {
            (self.home, self.boundary) = (None, None);
            return Some(view);
        }
        // Without a clock, any moment will do.
        let time = facts.time.unwrap_or(Time { epoch: u64::MAX, is_first_slot: true });
        let epoch = time.epoch;
        let is_known = self.home.is_some_and(|(node, _)| node == home);
        if !is_known {
            (self.home, self.boundary) = (Some((home, facts.time.map_or(0, |time| time.epoch))), None);
        }
        let since = self.home.map_or(0, |(_, since)| since);
        // A node that cannot be sent the missed messages is as good as the others after a whole
        // epoch, since validators repeat them each epoch.
        let is_informed = (facts.informed)(home) || epoch > since.saturating_add(1);
        let began = match self.boundary {
            Some((of, was_informed)) if of == epoch => was_informed,
            _ => self.boundary.insert((epoch, is_informed)).1,
        };
        if epoch <= since || !began || !time.is_first_slot {
            return Some(view);
        }
        if facts.ties.stream.is_some() {
            self.moving = Some(home);
            return Some(view);
        }
        Some(if has_reached(&home) { home } else { view })
    }
}

/// Whether a node has been `below` another for a slot and a twelfth without a new block.
fn stands_still(below: &[Option<(u64, Instant)>], node: NodeId, heads: Heads<'_>) -> bool {
    let below = below.get(node.0).copied().flatten();
    below.is_some_and(|(_, since)| heads.now.saturating_duration_since(since) >= heads.slot + heads.slot / 12)
}

/// The group of the requests by which validators live.
pub(super) fn duties() -> MethodId {
    Kind::of_route(&Route::of("GET", "/eth/v1/validator/attestation_data")).id()
}

/// The time at `unix` and a sixth of a slot.
pub(super) fn time(beacon: &Beacon, unix: u64) -> Option<Time> {
    let ahead = beacon.slot_millis?.saturating_add(3000) / 6000;
    let slot = beacon.slot_at(unix.saturating_add(ahead))?;
    Some(Time { epoch: slot / beacon.epoch(), is_first_slot: slot % beacon.epoch() == 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tier;

    const WELL: (u64, u64) = (0, 0);
    const LATE: (u64, u64) = (0, 1);
    const BAD: (u64, u64) = (7, 0);

    #[derive(Default)]
    struct Table {
        view: ValidatorNode,
        active: usize,
        failing: Option<usize>,
        uninformed: Option<usize>,
        heads: [Option<u64>; 2],
        elapsed: Duration,
    }

    const SLOT: Duration = Duration::from_secs(12);

    impl Table {
        /// A step with nodes of these badnesses and distances, all primaries, in an epoch's first
        /// slot.
        fn step(&mut self, nodes: &[(u64, u64)], stream: Option<usize>, epoch: u64) -> Option<usize> {
            self.step_at(nodes, stream, Time { epoch, is_first_slot: true })
        }

        fn step_at(&mut self, nodes: &[(u64, u64)], stream: Option<usize>, time: Time) -> Option<usize> {
            let preference =
                |&(badness, below_served): &(u64, u64)| Some(Preference { badness, below_served, tier: Tier::Primary });
            let preferences: Vec<_> = nodes.iter().map(preference).collect();
            let facts = ValidatorFacts {
                ties: ValidatorTies { validators: true, stream: stream.map(NodeId) },
                active: Some(NodeId(self.active)),
                preferences: &preferences,
                informed: &|node| self.uninformed != Some(node.0),
                fails: &|node| self.failing == Some(node.0),
                time: Some(time),
                heads: Heads { of: &self.heads, present: Some(100), slot: SLOT, now: Instant::now() + self.elapsed },
            };
            let node = self.view.step(&facts).map(|node| node.0);
            self.active = node.unwrap_or(self.active);
            node
        }
    }

    #[test]
    fn the_view_stays_until_the_epoch_ends() {
        let mut table = Table { active: 1, ..Table::default() };
        assert_eq!(table.step(&[BAD, WELL], None, 4), Some(1));
        assert_eq!(table.step(&[WELL, WELL], None, 5), Some(1));
        assert_eq!(table.step(&[WELL, WELL], None, 5), Some(1));
        // Not before the node has reached the head that clients were told.
        assert_eq!(table.step(&[LATE, WELL], None, 6), Some(1));
        assert_eq!(table.step(&[WELL, WELL], None, 6), Some(0));
        assert_eq!(table.step(&[WELL, WELL], None, 7), Some(0));
    }

    #[test]
    fn the_view_goes_over_together_with_the_stream() {
        let mut table = Table { active: 1, ..Table::default() };
        assert_eq!((table.step(&[WELL, WELL], Some(1), 5), table.view.moving.map(|node| node.0)), (Some(1), None));
        assert_eq!((table.step(&[WELL, WELL], Some(1), 6), table.view.moving.map(|node| node.0)), (Some(1), Some(0)));
        assert_eq!((table.step(&[WELL, WELL], Some(0), 6), table.view.moving.map(|node| node.0)), (Some(0), None));
        // Where events come from another node, so do the answers.
        assert_eq!((table.step(&[WELL, WELL], Some(1), 6), table.view.moving.map(|node| node.0)), (Some(1), None));
    }

    #[test]
    fn a_node_below_what_was_told_is_passed_over() {
        let mut table = Table { active: 1, ..Table::default() };
        assert_eq!(table.step(&[WELL, LATE], Some(1), 5), Some(0));
        assert_eq!(table.step(&[WELL, LATE], Some(1), 5), Some(0));
        // If all nodes are below that head, the node is no worse than the others.
        table.active = 1;
        assert_eq!(table.step(&[LATE, LATE], Some(1), 5), Some(1));
    }

    #[test]
    fn a_node_is_told_first_what_all_were_told() {
        let mut table = Table { active: 1, uninformed: Some(0), ..Table::default() };
        assert_eq!(table.step(&[WELL, WELL], None, 5), Some(1));
        assert_eq!(table.step(&[WELL, WELL], None, 6), Some(1));
        // Any later moment of the epoch is one in the middle of duties.
        table.uninformed = None;
        assert_eq!(table.step(&[WELL, WELL], None, 6), Some(1));
        assert_eq!(table.step(&[WELL, WELL], None, 7), Some(0));
        let mut table = Table { active: 1, uninformed: Some(0), ..Table::default() };
        table.step(&[WELL, WELL], None, 5);
        assert_eq!(table.step(&[WELL, WELL], None, 7), Some(0));
    }

    #[test]
    fn the_view_goes_home_in_no_later_slot_of_an_epoch() {
        let later = |epoch| Time { epoch, is_first_slot: false };
        for stream in [None, Some(1)] {
            let mut table = Table { active: 1, ..Table::default() };
            assert_eq!(table.step(&[WELL, WELL], stream, 5), Some(1));
            // The node reached the head, or its stream named one, too late.
            assert_eq!(table.step(&[LATE, WELL], stream, 6), Some(1));
            let moving = |table: &Table| table.view.moving.map(|node| node.0);
            assert_eq!((table.step_at(&[WELL, WELL], stream, later(6)), moving(&table)), (Some(1), None));
            let home = table.step(&[WELL, WELL], stream, 7);
            assert_eq!((home, moving(&table)), if stream.is_none() { (Some(0), None) } else { (Some(1), Some(0)) });
        }
    }

    #[test]
    fn a_node_that_fails_what_validators_ask_is_left() {
        let mut table = Table { failing: Some(0), ..Table::default() };
        assert_eq!(table.step(&[WELL, WELL], Some(0), 5), Some(1));
        assert_eq!(table.step(&[WELL, WELL], Some(1), 6), Some(1));
        // If no other node is well, a failing node is better than none.
        assert_eq!(table.step(&[WELL, BAD], Some(0), 6), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_stands_still_below_another_is_left() {
        let long = SLOT + SLOT / 12;
        let mut table = Table { heads: [Some(66), Some(66)], ..Table::default() };
        for (heads, seconds, node) in [
            ([66, 66], 0, 0),
            // The first has a block late, and stands still behind an empty slot.
            ([66, 67], 1, 0),
            ([67, 67], 2, 0),
            ([67, 67], 26, 0),
            ([67, 69], 27, 0),
            ([67, 69], 39, 0),
            // Blocks go away again; there is no new one.
            ([66, 70], 39, 0),
            ([67, 70], 40, 1),
            ([67, 71], 52, 1),
            // With all blocks again, the node is gone home to as a node is that was out.
            ([71, 71], 53, 1),
            // Heads beyond the clock are no proof.
            ([71, 101], 53, 1),
        ] {
            (table.heads, table.elapsed) = (heads.map(Some), Duration::from_secs(seconds));
            let stream = Some(table.active);
            assert_eq!(table.step(&[WELL, WELL], stream, 5), Some(node), "{heads:?} at {seconds}");
        }
        let mut table = Table { heads: [Some(66), Some(101)], ..Table::default() };
        assert_eq!(table.step(&[WELL, WELL], Some(0), 5), Some(0));
        table.elapsed = long * 3;
        assert_eq!(table.step(&[WELL, WELL], Some(0), 5), Some(0), "a head beyond the clock");
        // Without another node, one that stands still is better than none.
        table.heads = [Some(66), Some(70)];
        assert_eq!(table.step(&[WELL, BAD], Some(0), 5), Some(0));
    }

    #[test]
    fn a_node_that_went_out_again_begins_anew() {
        let mut table = Table { active: 1, ..Table::default() };
        assert_eq!(table.step(&[WELL, WELL], None, 5), Some(1));
        assert_eq!(table.step(&[BAD, WELL], None, 5), Some(1));
        assert_eq!(table.step(&[WELL, WELL], None, 6), Some(1));
        assert_eq!(table.step(&[WELL, WELL], None, 7), Some(0));
        assert_eq!(table.step(&[BAD, BAD], None, 7), None);
    }

    #[test]
    fn an_epoch_ends_a_sixth_of_a_slot_early() {
        let beacon = |slot_millis| Beacon {
            genesis_validators_root: String::new(),
            genesis_time: 1000,
            slot_millis: Some(slot_millis),
            slots_per_epoch: Some(32),
        };
        let long = 1000 + 32 * 12;
        let is = |slot, unix| time(&beacon(slot), unix).map(|time| (time.epoch, time.is_first_slot));
        assert_eq!((is(12_000, long - 3), is(12_000, long - 2)), (Some((0, false)), Some((1, true))));
        assert_eq!((is(12_000, long + 9), is(12_000, long + 10)), (Some((1, true)), Some((1, false))));
        let short = 1000 + 32 * 2;
        assert_eq!((is(2000, short - 1), is(2000, short)), (Some((0, false)), Some((1, true))));
        assert_eq!(is(12_000, 5), None);
    }

    #[tokio::test(start_paused = true)]
    async fn validators_are_there_for_two_epochs_after_they_asked() {
        let tied = Tied::new();
        let there = || tied.ties(None, Instant::now()).validators;
        assert!(!there());
        tied.note(Instant::now());
        tokio::time::advance(Duration::from_secs(767)).await;
        assert!(there());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(!there());
    }
}
