//! The events that are sent for the events that are reported, case by case.

use std::collections::{BTreeMap, VecDeque};

use super::{
    work::{MAX_WAITING, MAX_WAITING_BYTES},
    *,
};
use crate::events::beacon::{Checkpoint, Duties, Header};

/// Epochs of four slots.
pub(super) const SLOTS: u64 = 4;
const SLOT: Duration = Duration::from_secs(12);

pub(super) fn root(name: u64) -> B256 {
    let mut root = B256::default();
    root.0[..8].copy_from_slice(&name.to_be_bytes());
    root.0[31] = 1;
    root
}

/// Blocks by name: slot and parent's name. Finality as of the head.
pub(super) struct Node {
    pub(super) blocks: BTreeMap<u64, (u64, u64)>,
    pub(super) head: u64,
    pub(super) finalized: u64,
    pub(super) hides_head: bool,
    /// The node cannot give dependent roots.
    pub(super) is_ignorant: bool,
    /// The questions that the node does not answer at all.
    pub(super) hangs: fn(&Question) -> bool,
}

impl Node {
    pub(super) fn new(blocks: &[(u64, u64, u64)], head: u64) -> Self {
        let blocks = blocks.iter().map(|&(name, slot, parent)| (name, (slot, parent))).collect();
        Self { blocks, head, finalized: 0, hides_head: false, is_ignorant: false, hangs: |_| false }
    }

    /// A node that cannot give dependent roots.
    pub(super) fn ignorant(blocks: &[(u64, u64, u64)], head: u64) -> Self {
        Self { is_ignorant: true, ..Self::new(blocks, head) }
    }

    /// Blocks 1, 2, 3 and so on, one in each slot.
    pub(super) fn line(head: u64) -> Self {
        let blocks: Vec<_> = (1..=head).map(|name| (name, name, name - 1)).collect();
        Self::new(&blocks, head)
    }

    fn header(&self, name: u64) -> Option<ChainAnswer> {
        let (slot, parent) = *self.blocks.get(&name)?;
        let header = Header { slot, parent: root(parent), state: root(name + 1000), optimistic: false };
        Some(ChainAnswer::Header(root(name), header))
    }

    pub(super) fn answer(&self, question: Question) -> Option<ChainAnswer> {
        match question {
            Question::Head => self.header(self.head).filter(|_| !self.hides_head),
            Question::Header(wanted) => {
                self.blocks.keys().find(|name| root(**name) == wanted).and_then(|name| self.header(*name))
            }
            Question::Finalized(_) => Some(ChainAnswer::Finalized(Checkpoint {
                epoch: self.finalized,
                root: root(self.finalized * SLOTS + 1),
            })),
            Question::Duties { epoch, .. } => (!self.is_ignorant)
                .then_some(ChainAnswer::Duties(Duties { previous: root(epoch + 500), current: root(epoch + 600) })),
        }
    }
}

/// A stitcher, and the events that its clients got, in short.
pub(super) struct Setup {
    pub(super) stitcher: Stitcher,
    heard: Vec<String>,
    pub(super) asked: Vec<Question>,
}

impl Setup {
    fn new() -> Self {
        Self::of_slots(SLOT)
    }

    fn of_slots(slot: Duration) -> Self {
        Self { stitcher: Stitcher::new(SLOTS, slot), heard: Vec::new(), asked: Vec::new() }
    }

    pub(super) fn opened(node: &Node) -> Self {
        Self::opened_at(node, SLOT)
    }

    /// Of a chain with slots of this length.
    pub(super) fn opened_at(node: &Node, slot: Duration) -> Self {
        let mut setup = Self::of_slots(slot);
        setup.open(node);
        setup
    }

    pub(super) fn open(&mut self, node: &Node) {
        self.give(node, Input::Opened);
    }

    pub(super) fn give(&mut self, node: &Node, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.stitcher.step(input) {
                match effect {
                    Effect::Ask(question) => {
                        self.asked.push(question);
                        if !(node.hangs)(&question) {
                            inputs.push_back(Input::Answered(question, node.answer(question)));
                        }
                    }
                    Effect::Tell { topic, bytes } => self.heard.push(short(&topic, &bytes)),
                    Effect::Skipped { from, to } => self.heard.push(format!("skipped {from} to {to}")),
                    Effect::Unproven(slot) => self.heard.push(format!("unproven {slot}")),
                    Effect::Ahead(_) => self.heard.push("ahead".to_owned()),
                    Effect::Unreadable => self.heard.push("unreadable".to_owned()),
                    Effect::Broken(_) => self.heard.push("broken".to_owned()),
                    Effect::Shows(_) | Effect::Reorged(_) | Effect::Filled => {}
                }
            }
        }
    }

    pub(super) fn say(&mut self, node: &Node, topic: &str, data: &str) {
        self.give(node, Input::Event(event(topic, data)));
    }

    pub(super) fn block(&mut self, node: &Node, name: u64) {
        let slot = node.blocks[&name].0;
        self.say(node, "block", &format!(r#"{{"slot":"{slot}","block":"{}","by":"node"}}"#, root(name)));
    }

    pub(super) fn head(&mut self, node: &Node, name: u64) {
        let slot = node.blocks[&name].0;
        self.say(node, "head", &format!(r#"{{"slot":"{slot}","block":"{}","by":"node"}}"#, root(name)));
    }

    pub(super) fn heard(&mut self) -> Vec<String> {
        std::mem::take(&mut self.heard)
    }
}

pub(super) fn event(topic: &str, data: &str) -> Event {
    let raw = format!("event: {topic}\ndata: {data}\n\n");
    Event { topic: topic.to_owned(), data: data.to_owned().into(), raw: raw.into() }
}

/// `head 7`, with a star for a made-up event.
fn short(topic: &str, bytes: &Bytes) -> String {
    let text = std::str::from_utf8(bytes).unwrap();
    let data: serde_json::Value = serde_json::from_str(text.split_once("data: ").unwrap().1).unwrap();
    let star = if data["by"].is_null() { "*" } else { "" };
    let name = |key: &str| {
        let root: Option<B256> = data[key].as_str().and_then(|text| text.parse().ok());
        root.map_or("?".to_owned(), |root| u64::from_be_bytes(root.0[..8].try_into().unwrap()).to_string())
    };
    match topic {
        "block" | "head" => format!("{topic}{star} {}", name("block")),
        "chain_reorg" => format!("reorg{star} {} to {}", name("old_head_block"), name("new_head_block")),
        "finalized_checkpoint" => format!("final{star} {}", data["epoch"].as_str().unwrap()),
        _ => format!("{topic} {data}"),
    }
}

#[test]
fn a_steady_stream_passes_as_it_is_with_one_question_a_block() {
    let mut setup = Setup::opened(&Node::line(5));
    assert_eq!(setup.heard(), [""; 0], "nothing has happened since the client came");
    setup.asked.clear();
    let node = Node::line(7);
    for name in [6, 7] {
        setup.block(&node, name);
        setup.head(&node, name);
    }
    assert_eq!(setup.heard(), ["block 6", "head 6", "block 7", "head 7"]);
    assert_eq!(setup.asked, [Question::Header(root(6)), Question::Header(root(7))]);
}

#[test]
fn repeated_event_is_sent_once() {
    let node = Node::line(7);
    let mut setup = Setup::opened(&Node::line(5));
    for name in [6, 6, 7, 6, 7] {
        setup.block(&node, name);
        setup.head(&node, name);
    }
    for data in ["1", "1", "2", "1"] {
        setup.say(&node, "attestation", data);
    }
    setup.say(&node, "novelty", "1");
    let passed = ["attestation 1", "attestation 2", "novelty 1"];
    assert_eq!(setup.heard(), [&["block 6", "head 6", "block 7", "head 7"], &passed[..]].concat());
}

#[test]
fn the_head_told_before_its_node_was_asked_is_the_first() {
    let node = Node::line(6);
    let mut setup = Setup::new();
    assert_eq!(setup.stitcher.step(Input::Opened), [Effect::Ask(Question::Head)]);
    let head = format!(r#"{{"slot":"6","block":"{}","by":"node"}}"#, root(6));
    assert_eq!(setup.stitcher.step(Input::Event(event("head", &head))), []);
    setup.give(&node, Input::Answered(Question::Head, node.answer(Question::Head)));
    assert_eq!(setup.heard(), ["head 6"]);
    // The node went on in the meantime: the stream's own events come first all the same.
    let mut setup = Setup::new();
    let later = Node::line(7);
    setup.stitcher.step(Input::Opened);
    setup.stitcher.step(Input::Event(event("head", &head)));
    setup.give(&later, Input::Answered(Question::Head, later.answer(Question::Head)));
    setup.head(&later, 7);
    assert_eq!(setup.heard(), ["head 6", "block* 7", "head 7"]);
    // The same if the answer comes first.
    let mut setup = Setup::opened(&node);
    setup.head(&node, 6);
    setup.head(&node, 6);
    assert_eq!(setup.heard(), ["head 6"]);
}

#[test]
fn missed_blocks_are_made_up_at_once_at_a_takeover() {
    let mut setup = Setup::opened(&Node::line(5));
    let node = Node::line(7);
    setup.open(&node);
    assert_eq!(setup.heard(), ["block* 6", "head* 6", "block* 7", "head* 7"]);
    for name in [6, 7] {
        setup.block(&node, name);
        setup.head(&node, name);
    }
    assert_eq!(setup.heard(), [""; 0], "the stream tells late what was made up");
    let behind = Node::line(6);
    setup.open(&behind);
    setup.head(&behind, 6);
    assert_eq!(setup.heard(), [""; 0], "a node that is behind is no reorganisation");
}

#[test]
fn a_stream_that_skips_heads_is_filled() {
    let node = Node::line(9);
    let mut setup = Setup::opened(&Node::line(5));
    setup.block(&node, 7);
    setup.head(&node, 7);
    setup.head(&node, 9);
    assert_eq!(
        setup.heard(),
        ["block* 6", "block 7", "head* 6", "head 7", "block* 8", "head* 8", "block* 9", "head 9"]
    );
}

#[test]
fn a_reorganisation_is_told_once_by_the_node_or_by_us() {
    // 5 and 6 were the head; 8 and 9 come in their place, on 4.
    let node = Node::new(&[(4, 4, 3), (5, 5, 4), (6, 6, 5), (8, 6, 4), (9, 7, 8), (10, 8, 9)], 6);
    let said = format!(
        r#"{{"slot":"7","depth":"2","old_head_block":"{}","new_head_block":"{}","by":"node"}}"#,
        root(6),
        root(9)
    );
    let mut setup = Setup::opened(&node);
    setup.say(&node, "chain_reorg", &said);
    setup.head(&node, 9);
    setup.say(&node, "chain_reorg", &said);
    setup.head(&node, 10);
    let new = ["block* 8", "head* 8", "block* 9", "head 9", "block* 10", "head 10"];
    assert_eq!(setup.heard(), [&["reorg 6 to 9"], &new[..]].concat());
    let mut setup = Setup::opened(&node);
    setup.head(&node, 9);
    setup.say(&node, "chain_reorg", &said);
    setup.head(&node, 10);
    assert_eq!(setup.heard(), [&["reorg* 6 to 9"], &new[..]].concat());
    // The reorganisation fell into a switch.
    let mut setup = Setup::opened(&node);
    setup.open(&Node { head: 9, ..node });
    assert_eq!(setup.heard(), ["reorg* 6 to 9", "block* 8", "head* 8", "block* 9", "head* 9"]);
}

#[test]
fn a_block_that_returns_is_a_head_but_no_new_block() {
    let node = Node::new(&[(4, 4, 3), (5, 5, 4), (6, 5, 4), (7, 6, 5)], 4);
    let mut setup = Setup::opened(&node);
    for name in [5, 6, 7] {
        setup.block(&node, name);
        setup.head(&node, name);
    }
    let back = ["block 7", "reorg* 6 to 7", "head* 5", "head 7"];
    assert_eq!(setup.heard(), [&["block 5", "head 5", "block 6", "reorg* 5 to 6", "head 6"], &back[..]].concat());
}

#[test]
fn a_checkpoint_is_told_once_and_made_up_if_it_was_missed() {
    let say = |setup: &mut Setup, node: &Node, epoch: u64| {
        setup.say(node, "finalized_checkpoint", &format!(r#"{{"epoch":"{epoch}","by":"node"}}"#));
    };
    let node = Node { finalized: 1, ..Node::line(13) };
    let mut setup = Setup::opened(&node);
    for epoch in [1, 1, 2, 1, 2] {
        say(&mut setup, &node, epoch);
    }
    assert_eq!(setup.heard(), ["final 1", "final 2"]);
    let node = Node { finalized: 3, ..Node::line(18) };
    setup.open(&node);
    say(&mut setup, &node, 3);
    say(&mut setup, &node, 4);
    let heard = setup.heard();
    let finals: Vec<_> = heard.iter().filter(|told| told.starts_with("final")).collect();
    assert_eq!(finals, ["final* 3", "final 4"]);
    let at = |told: &str| heard.iter().position(|other| other == told).unwrap();
    assert_eq!(at("final* 3"), at("head* 16") + 1, "as of the first block of the epoch");
}

#[test]
fn finality_is_asked_again_after_a_switch_left_it_open() {
    let mut setup = Setup::opened(&Node { finalized: 1, ..Node::line(11) });
    let (mut inputs, node) = (VecDeque::from([Input::Opened]), Node { finalized: 2, ..Node::line(12) });
    // The node reports the first block of the epoch, and not the checkpoint that became final.
    while let Some(input) = inputs.pop_front() {
        for effect in setup.stitcher.step(input) {
            match effect {
                Effect::Ask(Question::Finalized(Some(_))) => {}
                Effect::Ask(question) => inputs.push_back(Input::Answered(question, node.answer(question))),
                _ => {}
            }
        }
    }
    // The next node is behind, and catches up without a `finalized_checkpoint` event.
    let mut behind = Node { finalized: 1, ..Node::line(13) };
    behind.head = 11;
    setup.open(&behind);
    assert_eq!(setup.heard(), [""; 0]);
    behind.finalized = 2;
    setup.head(&behind, 13);
    assert_eq!(setup.heard(), ["block* 13", "head 13", "final* 2"]);
}

#[test]
fn a_gap_that_stays_breaks_the_stream_and_is_then_skipped() {
    let mut setup = Setup::opened(&Node::line(5));
    let mut node = Node::line(9);
    node.blocks.remove(&7);
    for _ in 0..ATTEMPTS {
        setup.open(&node);
    }
    setup.head(&node, 9);
    let heard = setup.heard();
    let (broken, skipped) = heard.split_at(ATTEMPTS as usize - 1);
    assert!(broken.iter().all(|told| told == "broken"), "{heard:?}");
    assert_eq!(skipped, ["skipped 5 to 9", "head 9"]);
    let node = Node::line(9 + MAX_GAP + 1);
    setup.open(&node);
    setup.head(&node, 9 + MAX_GAP + 1);
    assert_eq!(setup.heard(), [format!("skipped 9 to {}", 10 + MAX_GAP), format!("head {}", 10 + MAX_GAP)]);
    let node = Node::line(node.head + MAX_GAP);
    setup.head(&node, node.head);
    assert_eq!(setup.heard().len() as u64, 2 * MAX_GAP, "the longest gap that is filled");
}

#[test]
fn a_node_that_never_tells_its_head_is_heard_in_the_end() {
    let mut setup = Setup::opened(&Node::line(5));
    let mut node = Node::line(6);
    node.hides_head = true;
    for _ in 1..ATTEMPTS {
        setup.open(&node);
        assert_eq!(setup.heard(), ["broken"]);
    }
    setup.open(&node);
    setup.head(&node, 6);
    assert_eq!(setup.heard(), ["block* 6", "head 6"]);
}

#[test]
fn a_gap_half_filled_is_filled_on_from_there_by_the_next_node() {
    let mut setup = Setup::opened(&Node::line(5));
    let node = Node::line(9);
    let mut deaf = Node::line(9);
    deaf.blocks.remove(&7);
    setup.open(&deaf);
    setup.asked.clear();
    setup.open(&node);
    assert_eq!(setup.heard().len(), 9, "broken once, then four blocks and four heads");
    assert!(!setup.asked.contains(&Question::Header(root(8))), "what was learnt stays known");
}

#[test]
fn made_up_heads_have_true_duties_or_none() {
    let heads = |setup: &mut Setup, node: &Node| {
        let mut told = Vec::new();
        let mut inputs = VecDeque::from([Input::Opened]);
        while let Some(input) = inputs.pop_front() {
            for effect in setup.stitcher.step(input) {
                match effect {
                    Effect::Ask(question) => inputs.push_back(Input::Answered(question, node.answer(question))),
                    Effect::Tell { topic, bytes } if topic == "head" => {
                        told.push(String::from_utf8(bytes.to_vec()).unwrap());
                    }
                    _ => {}
                }
            }
        }
        told
    };
    let node = Node::new(&[(20, 6, 0), (21, 7, 20), (22, 9, 21), (23, 12, 22)], 20);
    let mut setup = Setup::opened(&node);
    let told = heads(&mut setup, &Node { head: 23, ..node });
    let expected = [(501, 601), (601, 21), (21, 22)];
    assert_eq!(told.len(), expected.len());
    for (head, (previous, current)) in told.iter().zip(expected) {
        let fields = format!(
            r#""previous_duty_dependent_root":"{}","current_duty_dependent_root":"{}""#,
            root(previous),
            root(current)
        );
        assert!(head.contains(&fields), "{head}\n{fields}");
    }
    assert!(told[0].contains(r#""epoch_transition":false"#) && told[1].contains(r#""epoch_transition":true"#));
}

#[test]
fn old_answers_and_floods_do_no_harm() {
    let node = Node::line(5);
    let mut setup = Setup::opened(&node);
    setup.give(&node, Input::Answered(Question::Head, None));
    let slots = |n: u64| format!(r#"{{"slot":"{}","block":"{}"}}"#, n + 6, root(n));
    assert_eq!(setup.stitcher.step(Input::Opened), [Effect::Ask(Question::Head)]);
    assert_eq!(setup.stitcher.step(Input::Answered(Question::Header(root(5)), None)), [], "nobody asks that now");
    let mut effects = (0..MAX_WAITING as u64).flat_map(|n| setup.stitcher.step(Input::Event(event("head", &slots(n)))));
    assert!(effects.any(|effect| matches!(effect, Effect::Broken(_))));
}

#[test]
fn waiting_events_are_bounded_in_bytes_too() {
    let long = |n: u64| format!(r#"{{"slot":"{}","block":"{}","more":"{}"}}"#, n + 6, root(n), "x".repeat(60_000));
    let mut setup = Setup::new();
    assert_eq!(setup.stitcher.step(Input::Opened), [Effect::Ask(Question::Head)]);
    let most = MAX_WAITING_BYTES as u64 / 60_000;
    for n in 0..most - 1 {
        assert_eq!(setup.stitcher.step(Input::Event(event("head", &long(n)))), []);
    }
    let mut effects = (0..2).flat_map(|n| setup.stitcher.step(Input::Event(event("head", &long(n)))));
    assert!(effects.any(|effect| matches!(effect, Effect::Broken(_))));
    // Dropped work takes no room.
    setup.stitcher.step(Input::Opened);
    assert_eq!(setup.stitcher.step(Input::Event(event("head", &long(0)))), []);
}

#[test]
fn an_event_of_the_chain_that_is_too_long_is_made_up() {
    let node = Node::line(6);
    let mut setup = Setup::opened(&Node::line(5));
    let long = |rest: &str| format!(r#"{{{rest},"by":"node","more":"{}"}}"#, "x".repeat(MAX_EVENT));
    let about = |name: u64| format!(r#""slot":"{name}","block":"{}""#, root(name));
    setup.say(&node, "block", &long(&about(6)));
    assert_eq!(setup.heard, ["block* 6"]);
    setup.say(&node, "head", &long(&about(6)));
    assert_eq!(setup.heard, ["block* 6", "head* 6"]);
    let node = Node { finalized: 1, ..Node::line(7) };
    setup.say(&node, "finalized_checkpoint", &long(r#""epoch":"1""#));
    setup.say(&node, "chain_reorg", &long(&format!(r#""old_head_block":"{}""#, root(6))));
    setup.say(&node, "head", &long(&about(7)));
    assert_eq!(setup.heard[2..], ["final* 1", "block* 7", "head* 7"]);
}
