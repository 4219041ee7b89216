//! For any interleaving of blocks, forks, switches, lags, losses, failed and late fetches: the
//! reported changes make up the chain.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::B256;
use fastrand::Rng;
use proptest::prelude::*;

use super::*;
use crate::domain::node_id::{ByNode, NodeId};

const NODES: usize = 3;
const SETTINGS: Settings =
    Settings { window: 12, max_backfill: 6, timeout: None, trust_bloom: crate::config::TrustBloom::Auto };

/// Every block that there is.
#[derive(Default)]
struct Tree {
    blocks: BTreeMap<B256, Block>,
}

impl Tree {
    fn add(&mut self, parent: Option<B256>) -> B256 {
        let mut hash = B256::default();
        hash.0[..8].copy_from_slice(&(self.blocks.len() as u64 + 1).to_be_bytes());
        let number = parent.map_or(20, |parent| self.blocks[&parent].number + 1);
        let header = format!("header of {hash}").into();
        let block =
            Block { number, hash, parent: parent.unwrap_or_default(), timestamp: number * 12, header, bloom: None };
        self.blocks.insert(hash, block);
        hash
    }

    fn head(&self, hash: B256) -> Head {
        let Block { number, hash, parent, timestamp, .. } = self.blocks[&hash];
        Head { number, hash, parent, timestamp }
    }

    /// From `hash` down to the first block.
    fn line(&self, hash: B256) -> impl Iterator<Item = B256> {
        let parent = |at: &B256| Some(self.blocks[at].parent).filter(|parent| self.blocks.contains_key(parent));
        std::iter::successors(Some(hash), parent)
    }

    /// The height of the last block that the lines of both have.
    fn fork(&self, a: B256, b: B256) -> Option<u64> {
        let line: BTreeSet<B256> = self.line(a).collect();
        self.line(b).find(|hash| line.contains(hash)).map(|hash| self.blocks[&hash].number)
    }
}

/// A listener from some block on, which checks each change that is reported.
struct Client {
    /// The tip when the listener began to listen.
    since: B256,
    /// The blocks that the listener holds to be canonical since then.
    chain: Vec<B256>,
    last: Option<B256>,
    seq: Option<u64>,
}

impl Client {
    fn hear(&mut self, tree: &Tree, change: &Change) {
        let before = self.seq.replace(change.seq);
        assert!(before.is_none_or(|before| change.seq == before + 1), "changes are counted");
        for block in &change.removed {
            // Blocks below the first one reported are older than the listener.
            if let Some(tip) = self.chain.pop() {
                assert_eq!(tip, block.hash, "removed what was not the tip");
            }
        }
        if change.skipped {
            assert!(change.removed.is_empty());
            self.chain.clear();
        }
        let first = change.added.first().expect("a change adds something");
        if let (Some(tip), false) = (self.chain.last(), change.skipped) {
            assert_eq!(first.parent, *tip, "not connected");
        }
        assert!(change.added.windows(2).all(|pair| pair[1].parent == pair[0].hash), "not connected");
        for block in &change.added {
            assert_eq!(**block, tree.blocks[&block.hash], "not the node's own header");
            assert_ne!(self.last.replace(block.hash), Some(block.hash), "twice in a row");
            self.chain.push(block.hash);
        }
    }
}

struct Node {
    head: B256,
    /// Whether the node pushes its headers.
    pushes: bool,
    /// Whether the node answers fetches.
    answers: bool,
}

struct World {
    tree: Tree,
    nodes: Vec<Node>,
    active: Option<NodeId>,
    follow: Follow,
    now: Instant,
    fetches: Vec<Fetch>,
    /// Blocks that no node gives.
    lost: BTreeSet<B256>,
    client: Option<Client>,
    /// The active node as the follower knows it, since when, and whether that node has been at the
    /// tip.
    judged: Option<NodeId>,
    judged_since: Instant,
    counts: bool,
    skips: u32,
    rng: Rng,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut tree = Tree::default();
        let mut head = tree.add(None);
        for _ in 0..5 {
            head = tree.add(Some(head));
        }
        let node = || Node { head, pushes: true, answers: true };
        let nodes = (0..NODES).map(|_| node()).collect();
        let now = Instant::now();
        let follow = Follow::new(&SETTINGS, now);
        let (fetches, rng) = (Vec::new(), Rng::with_seed(seed));
        Self {
            tree,
            nodes,
            active: Some(NodeId(0)),
            follow,
            now,
            fetches,
            lost: BTreeSet::new(),
            client: None,
            judged: None,
            judged_since: now,
            counts: false,
            skips: 0,
            rng,
        }
    }

    fn told(&self) -> Option<(NodeId, Head)> {
        self.active.map(|active| (active, self.tree.head(self.nodes[active].head)))
    }

    /// Whether nodes besides the active one have the tip. All of them answer.
    fn others(&self) -> Others {
        let tip = self.follow.window.tip().map_or(0, |tip| tip.number);
        let others = self.nodes.by_node().filter(|(node, _)| Some(*node) != self.active);
        let mut heights = others.map(|(_, node)| self.tree.blocks[&node.head].number);
        if heights.any(|height| height >= tip) { Others::Hold } else { Others::Lack }
    }

    fn head(&self) -> Input {
        Input::Head(self.told(), self.others())
    }

    fn give(&mut self, input: Input) {
        assert!(self.follow.fetching.len() <= AT_ONCE);
        let tip = |follow: &Follow| follow.window.tip().map(|tip| (tip.number, tip.hash));
        let (before, full, floor) = (tip(&self.follow), self.follow.window.is_full, self.follow.window.floor());
        let others = if let Input::Head(_, others) = input { others } else { self.follow.others };
        let hold = others == Others::Hold;
        let patient = self.now >= self.follow.abreast + if hold { LAG_TIMEOUT } else { Duration::ZERO };
        // The pace may be known better by the end of the step.
        let time_limit = SETTINGS.data_timeout(Some(Duration::ZERO));
        let stuck = self.follow.stuck.is_some_and(|(_, since)| self.now >= since + time_limit);
        self.judge(&input);
        for effect in self.follow.step(input, self.now) {
            match effect {
                Effect::Fetch(fetch) => {
                    assert!(self.client.is_some(), "fetched while nobody listened");
                    self.fetches.push(fetch);
                }
                Effect::Tell(change) => {
                    self.skips += u32::from(change.skipped);
                    let is_late = self.now >= self.judged_since + LAG_TIMEOUT;
                    assert!(self.counts || is_late || !hold, "a node that is behind is believed: {change:?}");
                    assert_eq!(Some(change.node), self.active);
                    let client = self.client.as_mut().expect("somebody listens");
                    client.hear(&self.tree, &change);
                }
                Effect::Skipped { from, to, .. } => {
                    let (number, old) = before.expect("a tip before");
                    let new = self.follow.window.tip().expect("a tip").hash;
                    // Blocks may have been joined in the same step.
                    let floor = floor.expect("a window before") + from.saturating_sub(number);
                    let below = if full || from > number { 0 } else { SETTINGS.max_backfill as u64 + 1 };
                    let is_deep = self.tree.fork(old, new).is_none_or(|fork| fork + below < floor);
                    let is_below = patient && to < floor;
                    let is_far = to > from + SETTINGS.max_backfill as u64;
                    assert!(
                        is_far || is_deep || is_below || stuck,
                        "skipped from {from} to {to}, before {number}, floor {floor}, full {full}, patient {patient}"
                    );
                }
                Effect::Filled | Effect::Drop | Effect::Reorged(_) => {}
            }
        }
        if let Some(client) = &self.client {
            let told = client.chain.last().copied();
            let tip = self.follow.window.tip().map(|tip| tip.hash);
            assert_eq!(Some(told.unwrap_or(client.since)), tip, "what is told is the window's tip");
        }
    }

    /// Whether the word of the active node counts from now on, by the rule on lag.
    fn judge(&mut self, input: &Input) {
        let (Input::Head(told, _) | Input::Wanted(told)) = input else { return };
        let node = told.map(|(node, _)| node);
        if node != self.judged {
            (self.judged, self.judged_since, self.counts) = (node, self.now, false);
        }
        if let Some((_, head)) = told {
            let tip = self.follow.window.tip();
            self.counts |= tip.is_none_or(|tip| head.number > tip.number || head.hash == tip.hash);
            // That no other has the tip is believed once and for all.
            let others = if let Input::Head(_, others) = input { *others } else { self.follow.others };
            self.counts |= others == Others::Lack && !self.follow.window.has(head.hash, head.number);
        }
    }

    /// Moves the node's head. A node that pushes reports the new headers, but for some that are
    /// lost.
    fn set_head(&mut self, node: NodeId, head: B256) {
        let old = std::mem::replace(&mut self.nodes[node].head, head);
        if self.nodes[node].pushes {
            let known: BTreeSet<B256> = self.tree.line(old).collect();
            let mut news: Vec<B256> = self.tree.line(head).take_while(|hash| !known.contains(hash)).collect();
            news.reverse();
            for hash in news {
                // Now and then a push is lost, or comes after the head is known.
                if self.rng.u8(..6) > 0 {
                    let block = Arc::new(self.tree.blocks[&hash].clone());
                    self.give(Input::Pushed(node, block));
                }
            }
        }
        self.tell(node);
    }

    fn tell(&mut self, node: NodeId) {
        if self.active == Some(node) {
            self.give(self.head());
        }
    }

    fn switch(&mut self, to: Option<NodeId>) {
        self.active = to;
        self.give(self.head());
    }

    fn answer(&mut self, index: usize) {
        let fetch = self.fetches.swap_remove(index);
        let node = &self.nodes[fetch.node];
        let answers = node.answers;
        let hash = match fetch.what {
            // The node has the blocks that lead to its head, and few others.
            What::Hash(Missing { hash, .. }) => {
                let has = self.tree.line(node.head).any(|own| own == hash) || self.rng.bool();
                Some(hash).filter(|_| has)
            }
            // Now and then the node is on another branch by the time of its answer.
            What::Height(height) => {
                let node = if self.rng.u8(..5) == 0 { NodeId(self.rng.usize(..NODES)) } else { fetch.node };
                self.tree.line(self.nodes[node].head).find(|hash| self.tree.blocks[hash].number == height)
            }
        };
        let lost = self.lost.clone();
        let hash = hash.filter(|hash| answers && !lost.contains(hash));
        let block = hash.and_then(|hash| self.tree.blocks.get(&hash)).cloned();
        self.give(Input::Fetched(fetch, block));
    }

    fn want(&mut self) {
        if self.client.take().is_some() {
            return self.give(Input::Unwanted);
        }
        let since = self.told();
        // Time may pass before the follower learns of the listener.
        if self.rng.bool()
            && let Some(active) = self.active
        {
            let head = self.tree.add(Some(self.nodes[active].head));
            self.nodes[active].head = head;
        }
        self.give_wanted(since);
        self.give(self.head());
    }

    fn give_wanted(&mut self, since: Option<(NodeId, Head)>) {
        let input = Input::Wanted(since);
        if since.is_some() {
            self.judge(&input);
        }
        let effects = self.follow.step(input, self.now);
        assert!(effects.is_empty(), "nothing was missed before it was wanted: {effects:?}");
        let Some(tip) = self.follow.window.tip() else { return self.give(Input::Unwanted) };
        if let Some((_, head)) = since {
            let lags = head.number <= tip.number || head.number < self.follow.window.floor().unwrap_or(0);
            assert!(tip.hash == head.hash || lags, "it listens from the head of now on");
        }
        self.client = Some(Client { since: tip.hash, chain: Vec::new(), last: None, seq: None });
    }

    /// A single event.
    fn live(&mut self) {
        self.now += Duration::from_millis(self.rng.u64(..200));
        let node = NodeId(self.rng.usize(..NODES));
        match self.rng.u8(..40) {
            0..=11 => {
                let head = self.nodes[node].head;
                // Now and then the block follows an earlier one, which makes a fork.
                let back = if self.rng.u8(..5) == 0 { self.rng.usize(1..5) } else { 0 };
                let parent = self.tree.line(head).nth(back).unwrap_or(head);
                let block = self.tree.add(Some(parent));
                self.set_head(node, block);
            }
            12..=15 => {
                let head = self.nodes[NodeId(self.rng.usize(..NODES))].head;
                self.set_head(node, head);
            }
            // The node's head goes back: the first half of a reorganisation.
            16 => {
                let head = self.nodes[node].head;
                let back = self.rng.usize(1..4);
                let ancestor = self.tree.line(head).nth(back).unwrap_or(head);
                self.set_head(node, ancestor);
            }
            17 => {
                // Many blocks at once, of which only the head is reported.
                for _ in 0..self.rng.usize(3..9) {
                    let head = self.tree.add(Some(self.nodes[node].head));
                    self.nodes[node].head = head;
                }
                self.tell(node);
            }
            18..=29 if !self.fetches.is_empty() => {
                let index = self.rng.usize(..self.fetches.len());
                self.answer(index);
            }
            30 if !self.fetches.is_empty() => {
                let fetch = self.fetches.swap_remove(0);
                self.give(Input::Fetched(fetch, None));
            }
            31 => self.nodes[node].answers = self.rng.bool(),
            32 => self.nodes[node].pushes = self.rng.bool(),
            33..=34 => self.switch(Some(node)),
            35 => self.switch(None),
            36 => self.want(),
            38 if self.rng.bool() => {
                let head = self.nodes[node].head;
                let back = self.rng.usize(..3);
                self.lost.extend(self.tree.line(head).nth(back));
            }
            37 => self.now += Duration::from_secs(self.rng.u64(..70)),
            38 => {
                self.give(Input::Moved);
                self.judged = None;
                self.give(self.head());
            }
            _ => self.give(Input::Woken),
        }
    }

    /// All nodes agree and answer, and the follower comes to rest.
    fn settle(&mut self) {
        let best = self.tree.blocks.values().max_by_key(|block| (block.number, block.hash)).map(|block| block.hash);
        let last = self.tree.add(best);
        for node in NodeId::all(NODES) {
            self.nodes[node].answers = true;
            self.set_head(node, last);
        }
        let active = NodeId(self.rng.usize(..NODES));
        self.switch(Some(active));
        for _ in 0..200 {
            if let Some(wake) = self.follow.wake_at() {
                self.now = self.now.max(wake);
                self.give(Input::Woken);
            }
            while !self.fetches.is_empty() {
                self.answer(0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reported_changes_are_the_chain(seed: u64, steps in 10_usize..300) {
        let mut world = World::new(seed);
        world.switch(Some(NodeId(0)));
        for _ in 0..steps {
            world.live();
        }
        if world.client.is_none() {
            world.want();
        }
        let skips = world.skips;
        world.settle();
        let last = world.nodes[0].head;
        prop_assert_eq!(world.follow.window.tip().map(|tip| tip.hash), Some(last), "at the head of the active node");
        let client = world.client.as_ref().expect("somebody listens");
        let heard: Vec<B256> = client.chain.iter().rev().copied().collect();
        let truth: Vec<B256> = world.tree.line(last).collect();
        prop_assert_eq!(&heard[..], &truth[..heard.len()], "what stands is the chain, skips before: {}", skips);
        if world.skips == 0 {
            let since = &world.tree.blocks[&client.since];
            let fork = world.tree.fork(client.since, last).unwrap_or(0);
            let missed = |hash: &&B256| {
                let number = world.tree.blocks[*hash].number;
                number > fork && !heard.contains(hash)
            };
            prop_assert_eq!(truth.iter().find(missed), None, "missed since block {}", since.number);
        }
    }
}
