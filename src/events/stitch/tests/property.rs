//! For any interleaving of blocks, forks, switches, silences, repeats, skips and half-filled gaps:
//! the events that a client gets make up the chain.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use fastrand::Rng;
use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::events::beacon::{Checkpoint, Duties, Header};

const SLOTS: u64 = 4;
const NODES: usize = 3;
/// How long a head waits at most, and the most time that passes at once.
const TIMEOUT: Duration = Duration::from_secs(3);
const STEP: u64 = 200;

/// Every block, with its true header.
#[derive(Default)]
struct Tree {
    blocks: BTreeMap<B256, Header>,
}

impl Tree {
    fn add(&mut self, parent: B256, slot: u64) -> B256 {
        let mut root = B256::default();
        root.0[..8].copy_from_slice(&(self.blocks.len() as u64 + 1).to_be_bytes());
        let mut state = root;
        state.0[31] = 1;
        self.blocks.insert(root, Header { slot, parent, state, optimistic: false });
        root
    }

    fn parent(&self, root: B256) -> Option<B256> {
        self.blocks.get(&root).map(|header| header.parent).filter(|parent| self.blocks.contains_key(parent))
    }

    /// From `root` down to the first block.
    fn line(&self, root: B256) -> impl Iterator<Item = B256> {
        std::iter::successors(Some(root), |at| self.parent(*at))
    }

    fn before(&self, root: B256, slot: u64) -> B256 {
        let found = self.line(root).find(|at| self.blocks[at].slot < slot);
        found.unwrap_or_else(|| self.line(root).last().unwrap())
    }

    fn duties(&self, root: B256) -> Duties {
        let epoch = self.blocks[&root].slot / SLOTS;
        Duties {
            previous: self.before(root, epoch.saturating_sub(1) * SLOTS),
            current: self.before(root, epoch * SLOTS),
        }
    }

    /// Two epochs behind, as of this state.
    fn finalized(&self, root: B256) -> Checkpoint {
        let epoch = (self.blocks[&root].slot / SLOTS).saturating_sub(2);
        Checkpoint { epoch, root: self.before(root, epoch * SLOTS + 1) }
    }
}

/// A node's view, and the events that the node has yet to send.
struct Node {
    head: B256,
    silent: bool,
    unsaid: VecDeque<Event>,
}

/// A client that checks each event against those before.
#[derive(Default)]
struct Client {
    chain: Vec<B256>,
    blocks: BTreeSet<B256>,
    epochs: Vec<u64>,
    reorg: bool,
    /// Set once no node has given dependent roots: from then on those of the epoch before are
    /// accepted.
    doubts: bool,
}

impl Client {
    fn hear(&mut self, tree: &Tree, topic: &str, bytes: &Bytes) {
        let text = std::str::from_utf8(bytes).unwrap();
        let data: serde_json::Value = serde_json::from_str(text.split_once("data: ").unwrap().1).unwrap();
        let root = |key: &str| data[key].as_str().unwrap().parse::<B256>().unwrap();
        match topic {
            "block" => assert!(self.blocks.insert(root("block")), "a block twice: {text}"),
            "chain_reorg" => {
                // The first head may be older than the client.
                assert!(self.chain.last().is_none_or(|tip| *tip == root("old_head_block")), "{text}");
                assert!(!self.reorg, "a reorganisation twice: {text}");
                self.reorg = true;
            }
            "head" => {
                let head = root("block");
                let header = &tree.blocks[&head];
                assert_eq!(data["slot"], header.slot.to_string());
                assert_eq!(root("state"), header.state);
                let Duties { previous, current } = tree.duties(head);
                let told = (root("previous_duty_dependent_root"), root("current_duty_dependent_root"));
                assert!(told == (previous, current) || self.doubts, "{text}");
                if self.reorg {
                    let fork = self.chain.iter().rposition(|at| *at == header.parent);
                    // Below the first head, the client knows no block.
                    self.chain.truncate(fork.map_or(0, |at| at + 1));
                } else if let Some(tip) = self.chain.last() {
                    assert_eq!(header.parent, *tip, "not connected: {text}");
                }
                assert!(self.chain.is_empty() || self.blocks.contains(&head), "a head without its block: {text}");
                self.chain.push(head);
                self.reorg = false;
            }
            "finalized_checkpoint" => self.epochs.push(data["epoch"].as_str().unwrap().parse().unwrap()),
            _ => {}
        }
    }
}

struct World {
    tree: Tree,
    nodes: Vec<Node>,
    active: usize,
    stitcher: Stitcher,
    /// The question that waits, with the node that was asked.
    question: Option<Question>,
    client: Client,
    rng: Rng,
    skips: u32,
    unanswered: u32,
    /// The time, in runs in which time passes.
    now: Option<Instant>,
    owed: Vec<Debt>,
}

/// A head that a stream has reported and clients have not got.
#[derive(Debug)]
struct Debt {
    root: B256,
    slot: u64,
    since: Instant,
    /// A stream before the present one reported the head, which the present stream's node has.
    is_carried: bool,
}

impl World {
    fn new(seed: u64, now: Option<Instant>) -> Self {
        let mut tree = Tree::default();
        let first = tree.add(B256::default(), 0);
        let mut head = first;
        for slot in 1..10 {
            head = tree.add(head, slot);
        }
        let node = || Node { head, silent: false, unsaid: VecDeque::new() };
        let nodes = (0..NODES).map(|_| node()).collect();
        Self {
            tree,
            nodes,
            active: 0,
            stitcher: Stitcher::new(SLOTS, Duration::from_secs(12)),
            question: None,
            client: Client::default(),
            rng: Rng::with_seed(seed),
            skips: 0,
            unanswered: 0,
            now,
            owed: Vec::new(),
        }
    }

    fn give(&mut self, input: Input) {
        for effect in self.stitcher.step(input) {
            match effect {
                Effect::Ask(question) => self.question = Some(question),
                Effect::Tell { topic, bytes } => {
                    self.client.hear(&self.tree, &topic, &bytes);
                    let told = self.client.chain.last().map_or(0, |root| self.tree.blocks[root].slot);
                    self.owed.retain(|debt| debt.slot > told);
                }
                Effect::Broken(_) => {
                    // There is no stream until the next one is open.
                    let next = self.rng.usize(..NODES);
                    self.switch(next, true);
                    return self.give(Input::Opened);
                }
                Effect::Unreadable => panic!("an event is not readable"),
                Effect::Ahead(slot) => panic!("{slot} is not ahead of anything"),
                Effect::Skipped { .. } | Effect::Unproven(_) => {
                    self.skips += u32::from(matches!(effect, Effect::Skipped { .. }));
                    self.client.chain.clear();
                    self.client.reorg = false;
                }
                Effect::Shows(_) | Effect::Reorged(_) | Effect::Filled => {}
            }
        }
    }

    /// Another stream follows: of the same node, of another one, or after a while without any.
    fn open(&mut self, to: usize) {
        if to == self.active && self.rng.bool() {
            // Reports that the old stream has not brought may be lost.
            if self.rng.bool() {
                self.nodes[to].unsaid.clear();
            }
            return self.give(Input::Renewed);
        }
        let is_switch = self.rng.bool();
        self.switch(to, is_switch);
        self.give(if is_switch { Input::Switched } else { Input::Opened });
    }

    /// The stream is this node's. Heads that the node has too are owed to clients `still`.
    fn switch(&mut self, to: usize, still: bool) {
        self.active = to;
        self.question = None;
        let has: BTreeSet<B256> = self.tree.line(self.nodes[to].head).collect();
        self.owed.retain(|debt| still && has.contains(&debt.root));
        self.owed.iter_mut().for_each(|debt| debt.is_carried = true);
        // A stream does not send events from before its opening, and events that another stream was
        // about to send are lost.
        self.nodes.iter_mut().for_each(|node| node.unsaid.clear());
    }

    fn answer(&mut self) {
        let Some(question) = self.question.take() else { return };
        let head = self.nodes[self.active].head;
        let known = |root: B256| self.tree.blocks.get(&root).map(|header| ChainAnswer::Header(root, *header));
        let answer = match question {
            Question::Head => known(head),
            Question::Header(root) => known(root),
            Question::Finalized(state) => {
                let of = |state: B256| self.tree.blocks.iter().find(|(_, header)| header.state == state);
                let root = state.map_or(Some(head), |state| of(state).map(|(root, _)| *root));
                root.map(|root| ChainAnswer::Finalized(self.tree.finalized(root)))
            }
            // Of its own chain only, as nodes answer.
            Question::Duties { root, .. } => {
                let is_canonical = self.tree.line(head).any(|at| at == root);
                Some(if is_canonical { ChainAnswer::Duties(self.tree.duties(root)) } else { ChainAnswer::Left })
            }
        };
        self.unanswered += u32::from(answer.is_none());
        if matches!(answer, Some(ChainAnswer::Left)) {
            // The node left that head, and will report its new one.
            self.owed.clear();
        }
        self.give(Input::Answered(question, answer));
    }

    /// The node's head moves to `head`, and the node reports that in its own way.
    fn set_head(&mut self, node: usize, head: B256) {
        let old = std::mem::replace(&mut self.nodes[node].head, head);
        if old == head {
            return;
        }
        let news: BTreeSet<B256> = self.tree.line(old).collect();
        let mut added: Vec<B256> = self.tree.line(head).take_while(|at| !news.contains(at)).collect();
        added.reverse();
        if node == self.active {
            let has: BTreeSet<B256> = self.tree.line(head).collect();
            self.owed.retain(|debt| !debt.is_carried || has.contains(&debt.root));
        }
        let event = |topic: &str, data: String| {
            let raw = format!("event: {topic}\ndata: {data}\n\n");
            Event { topic: topic.to_owned(), data: data.into(), raw: raw.into() }
        };
        let mut events = Vec::new();
        let is_reorg = self.tree.line(head).all(|at| at != old);
        let reorg = event("chain_reorg", format!(r#"{{"old_head_block":"{old}","new_head_block":"{head}"}}"#));
        let before = self.rng.bool();
        if is_reorg && before {
            events.push(reorg.clone());
        }
        let only_last = self.rng.u8(..3) == 0;
        for root in added {
            let header = self.tree.blocks[&root];
            let Duties { previous, current } = self.tree.duties(root);
            let block = event("block", format!(r#"{{"slot":"{}","block":"{root}"}}"#, header.slot));
            let head_event = event(
                "head",
                format!(
                    "{{\"slot\":\"{}\",\"block\":\"{root}\",\"state\":\"{}\",\"previous_duty_dependent_root\":\"{previous}\",\
                     \"current_duty_dependent_root\":\"{current}\"}}",
                    header.slot, header.state
                ),
            );
            if self.rng.u8(..8) > 0 {
                events.push(block.clone());
            }
            if root == head || !only_last {
                events.push(head_event);
            }
            if self.rng.u8(..4) == 0 {
                events.push(block);
            }
        }
        if is_reorg && !before {
            events.push(reorg);
        }
        let (was, is) = (self.tree.finalized(old).epoch, self.tree.finalized(head).epoch);
        if is > was {
            events.push(event("finalized_checkpoint", format!(r#"{{"epoch":"{is}"}}"#)));
        }
        if !self.nodes[node].silent {
            self.nodes[node].unsaid.extend(events);
        }
    }

    /// Makes a single random step.
    fn live(&mut self) {
        let node = self.rng.usize(..NODES);
        match self.rng.u8(..20) {
            0..=5 => {
                let head = self.nodes[node].head;
                // Now and then the block follows an earlier one, which makes a fork; slots may be
                // empty.
                let back = if self.rng.u8(..5) == 0 { self.rng.usize(1..4) } else { 0 };
                let parent = self.tree.line(head).nth(back).unwrap_or(head);
                let slot = self.tree.blocks[&parent].slot + self.rng.u64(1..4);
                let block = self.tree.add(parent, slot);
                self.set_head(node, block);
            }
            6..=7 => {
                let head = self.nodes[self.rng.usize(..NODES)].head;
                self.set_head(node, head);
            }
            8..=12 => self.speak(),
            13..=16 => self.answer(),
            17 => self.nodes[node].silent = self.rng.bool(),
            18 => self.open(node),
            _ => {
                // The question stays without an answer.
                if let Some(question) = self.question.filter(|_| self.rng.u8(..4) == 0) {
                    self.question = None;
                    self.unanswered += 1;
                    self.client.doubts |= matches!(question, Question::Duties { .. });
                    self.give(Input::Answered(question, None));
                }
            }
        }
    }

    fn speak(&mut self) {
        if let Some(event) = self.nodes[self.active].unsaid.pop_front() {
            if let (Some(ChainEvent::Head { slot, root, .. }), Some(now)) =
                (ChainEvent::read(&event.topic, &event.data), self.now)
                && !self.client.chain.contains(&root)
            {
                self.owed.push(Debt { root, slot, since: now, is_carried: false });
            }
            self.give(Input::Event(event));
        }
    }

    fn pass_time(&mut self) {
        let Some(now) = &mut self.now else { return };
        *now += Duration::from_millis(self.rng.u64(..STEP));
        let now = *now;
        self.give(Input::Time(now));
        // The head's own event or a later head pays the debt.
        let told = self.stitcher.slot().unwrap_or(0);
        self.owed.retain(|debt| debt.slot > told);
        let longest = TIMEOUT + Duration::from_millis(2 * STEP);
        assert!(
            self.owed.iter().all(|debt| now.saturating_duration_since(debt.since) <= longest),
            "a head is owed: {:?}",
            self.owed
        );
    }

    /// All nodes agree, and the stream comes to rest.
    fn settle(&mut self) {
        let best = self.tree.blocks.iter().max_by_key(|(root, header)| (header.slot, **root)).map(|(root, _)| *root);
        for node in 0..NODES {
            self.nodes[node].silent = false;
            self.set_head(node, best.unwrap());
        }
        if self.rng.bool() {
            let next = self.rng.usize(..NODES);
            self.open(next);
        }
        // A head is missed for good only if no event follows.
        let slot = self.tree.blocks[&best.unwrap()].slot + 1;
        let last = self.tree.add(best.unwrap(), slot);
        for node in 0..NODES {
            self.set_head(node, last);
        }
        while self.question.is_some() || !self.nodes[self.active].unsaid.is_empty() {
            self.answer();
            self.speak();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn client_receives_the_chain(seed: u64, steps in 10_usize..400) {
        let mut world = World::new(seed, None);
        world.give(Input::Opened);
        for _ in 0..steps {
            world.live();
        }
        world.settle();
        let client = &world.client;
        let last = world.nodes[world.active].head;
        let truth: Vec<B256> = world.tree.line(last).take(client.chain.len()).collect();
        let heard: Vec<B256> = client.chain.iter().rev().copied().collect();
        prop_assert_eq!(heard, truth, "seed {}", seed);
        prop_assert!(world.skips * ATTEMPTS <= world.unanswered, "{} skips", world.skips);
        prop_assert!(!client.reorg, "a reorganisation without a head");
        prop_assert!(client.epochs.is_sorted_by(|a, b| a < b), "{:?}", &client.epochs);
        let finalized = world.tree.finalized(last).epoch;
        prop_assert!(client.epochs.last().is_none_or(|epoch| *epoch >= finalized), "{:?} of {finalized}", &client.epochs);
    }

    #[test]
    fn no_head_waits_for_ever_and_the_chain_goes_on(seed: u64, steps in 10_usize..400) {
        goes_on(seed, steps)?;
    }
}

/// Runs that failed once: heads without their state, heads behind a block that was taken for
/// another's parent, heads told as if their parents were known, and heads that waited anew at each
/// change of streams.
#[test]
fn heads_told_without_their_headers_lead_nowhere_wrong() {
    for (seed, steps) in [
        (5_653_430_094_559_949_701, 71),
        (5_762_975_770_114_513_259, 117),
        (13_065_672_014_502_338_332, 181),
        (7_630_342_054_325_274_669, 325),
        (14_977_459_750_981_544_852, 123),
        (1_163_974_580_805_367_435, 121),
        (9_751_635_580_017_274_296, 79),
        (5_889_347_379_953_983_999, 210),
        (13_780_892_889_032_270_497, 316),
    ] {
        goes_on(seed, steps).unwrap();
    }
}

fn goes_on(seed: u64, steps: usize) -> Result<(), TestCaseError> {
    let mut world = World::new(seed, Some(Instant::now()));
    // A head that is sent in time may have unknown dependent roots.
    world.client.doubts = true;
    world.give(Input::Opened);
    for _ in 0..steps {
        world.live();
        world.pass_time();
    }
    world.settle();
    let client = &world.client;
    let truth: Vec<B256> = world.tree.line(world.nodes[world.active].head).take(client.chain.len()).collect();
    let heard: Vec<B256> = client.chain.iter().rev().copied().collect();
    prop_assert_eq!(heard, truth, "seed {}", seed);
    prop_assert!(client.epochs.is_sorted_by(|a, b| a < b), "{:?}", &client.epochs);
    Ok(())
}
