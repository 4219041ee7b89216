//! Inputs and their effects, case by case.
//!
//! Blocks are named by branch and height: `a12` stands on `a11`. Branch `b` leaves `a` after 12,
//! branch `c` after 9, branch `d` after 7, branch `e` after 5, branch `f` after 4.

mod stuck;
mod young;

use std::collections::VecDeque;

use alloy_primitives::B256;

use super::*;
use crate::domain::node_id::NodeId;

/// A follower of which somebody listens from `a10` on, with a window of eight blocks and gaps of at
/// most four.
struct Scene {
    follow: Follow,
    now: Instant,
    others: Others,
}

fn head(name: &str) -> Head {
    let (branch, number) = (name.as_bytes()[0], name[1..].parse::<u64>().unwrap());
    let of = |branch, number: u64| {
        let mut hash = B256::repeat_byte(branch);
        hash.0[1..9].copy_from_slice(&number.to_be_bytes());
        hash
    };
    let parent = match (branch, number) {
        (b'b', 13) | (b'c', 10) | (b'd', 8) | (b'e', 6) | (b'f', 5) => of(b'a', number - 1),
        _ => of(branch, number - 1),
    };
    Head { number, hash: of(branch, number), parent, timestamp: number * 12 }
}

fn block(name: &str) -> Block {
    Block { header: format!("{{{name}}}").into(), ..head(name).into() }
}

fn name(hash: B256) -> String {
    let number = u64::from_be_bytes(hash.0[1..9].try_into().unwrap());
    format!("{}{number}", char::from(hash.0[0]))
}

fn told(change: &Change) -> String {
    let removed = change.removed.iter().map(|block| format!(" -{}", name(block.hash)));
    let added = change.added.iter().map(|block| format!(" +{}", name(block.hash)));
    let skipped = if change.skipped { " over a gap" } else { "" };
    format!("{}:{}{skipped}", change.node.0, removed.chain(added).collect::<String>())
}

impl Scene {
    fn dozing() -> Self {
        let now = Instant::now();
        let follow = Follow::new(&Settings { window: 8, max_backfill: 4, ..Settings::default() }, now);
        let mut scene = Self { follow, now, others: Others::Hold };
        assert_eq!(scene.head(0, "a10"), "");
        scene
    }

    fn new() -> Self {
        let mut scene = Self::dozing();
        assert_eq!(scene.give(Input::Wanted(Some((NodeId(0), head("a10"))))), "");
        scene
    }

    fn give(&mut self, input: Input) -> String {
        let effects = self.follow.step(input, self.now);
        let text = effects.iter().filter_map(|effect| match effect {
            Effect::Fetch(Fetch { node, what: What::Hash(missing) }) => {
                Some(format!("{}? {}", node.0, name(missing.hash)))
            }
            Effect::Fetch(Fetch { node, what: What::Height(height) }) => Some(format!("{}? #{height}", node.0)),
            Effect::Filled | Effect::Drop => None,
            Effect::Reorged(depth) => Some(format!("depth {depth}")),
            Effect::Skipped { from, to, .. } => Some(format!("from {from} to {to}")),
            Effect::Tell(change) => Some(told(change)),
        });
        text.collect::<Vec<_>>().join("; ")
    }

    fn head(&mut self, node: usize, name: &str) -> String {
        self.give(Input::Head(Some((NodeId(node), head(name))), self.others))
    }

    fn push(&mut self, node: usize, names: &str) -> String {
        names.split(' ').map(|name| self.give(Input::Pushed(NodeId(node), Arc::new(block(name))))).collect()
    }

    /// The node pushes a header and then reports that header as its head.
    fn grow(&mut self, node: usize, name: &str) -> String {
        self.push(node, name) + &self.head(node, name)
    }

    fn grow_all(&mut self, names: &[&str]) {
        names.iter().for_each(|name| _ = self.grow(0, name));
    }

    fn answer(&mut self, node: usize, asked: &str, answer: Option<Block>) -> String {
        let what = match asked.strip_prefix('#') {
            Some(height) => What::Height(height.parse().unwrap()),
            None => What::Hash(Missing { hash: head(asked).hash, number: head(asked).number }),
        };
        self.give(Input::Fetched(Fetch { node: NodeId(node), what }, answer))
    }

    /// Answers fetches with the right blocks, those of heights from branch `a`, in their order,
    /// until none is left.
    fn answer_all(&mut self, effects: String) -> String {
        let mut told = Vec::new();
        let mut effects: VecDeque<String> = effects.split("; ").map(str::to_owned).collect();
        while let Some(effect) = effects.pop_front() {
            match effect.split_once("? ") {
                Some((node, asked)) => {
                    let answer = block(&asked.replace('#', "a"));
                    let more = self.answer(node.parse().unwrap(), asked, Some(answer));
                    effects.extend(more.split("; ").filter(|effect| !effect.is_empty()).map(str::to_owned));
                }
                None => told.push(effect),
            }
        }
        told.join("; ")
    }

    fn wait(&mut self, millis: u64) -> String {
        self.now += Duration::from_millis(millis);
        self.give(Input::Woken)
    }
}

#[test]
fn a_head_on_the_tip_is_added_without_asking_if_it_was_pushed() {
    let mut scene = Scene::new();
    assert_eq!(scene.grow(0, "a11"), "0: +a11");
    assert_eq!(scene.head(0, "a12"), "0? a12");
    assert_eq!(scene.answer(0, "a12", Some(block("a12"))), "0: +a12");
    assert_eq!(scene.push(0, "a13 a14 a15") + &scene.head(0, "a15"), "0: +a13 +a14 +a15");
}

#[test]
fn a_head_of_the_window_is_no_news() {
    let mut scene = Scene::new();
    scene.push(0, "a11 a12");
    assert_eq!(scene.head(0, "a12"), "0: +a11 +a12");
    for lagging in ["a12", "a11", "a10", "a11", "a12"] {
        assert_eq!(scene.head(0, lagging), "", "{lagging}");
    }
    assert_eq!(scene.head(1, "a11"), "");
}

#[test]
fn missing_blocks_come_in_order_from_the_node_that_told() {
    let mut scene = Scene::new();
    assert_eq!(scene.head(1, "a13"), "1? a13; 1? #11; 1? #12");
    assert_eq!(scene.answer(1, "#12", Some(block("a12"))), "");
    assert_eq!(scene.answer(1, "a13", Some(block("a13"))), "");
    assert_eq!(scene.answer(1, "#11", Some(block("a11"))), "1: +a11 +a12; 1: +a13");
}

#[test]
fn blocks_between_are_told_whatever_becomes_of_those_above() {
    let mut scene = Scene::new();
    scene.push(0, "a14");
    assert_eq!(scene.head(0, "a14"), "0? a13; 0? #11; 0? #12");
    assert_eq!(scene.answer(0, "#11", Some(block("a11"))), "0: +a11");
    assert_eq!(scene.answer(0, "a13", None), "", "for a while");
    assert_eq!(scene.answer(0, "#12", Some(block("a12"))), "0: +a12");
    assert_eq!(scene.wait(100), "0? a13");
    assert_eq!(scene.answer(0, "a13", Some(block("a13"))), "0: +a13 +a14");
}

#[test]
fn block_fetched_by_height_is_reported_only_if_it_joins() {
    let mut scene = Scene::new();
    scene.grow_all(&["a11", "a12"]);
    scene.push(0, "a15");
    assert_eq!(scene.head(0, "a15"), "0? a14; 0? #13");
    assert_eq!(scene.answer(0, "#13", Some(block("c13"))), "", "of another branch");
    assert_eq!(scene.answer(0, "a14", Some(block("a14"))), "0? a13");
    assert_eq!(scene.answer(0, "a13", Some(block("a13"))), "0: +a13 +a14 +a15");
    scene.push(0, "a18");
    assert_eq!(scene.head(0, "a18"), "0? a17; 0? #16");
    assert_eq!(scene.answer(0, "#16", None), "");
    assert_eq!(scene.answer(0, "a17", Some(block("a17"))), "0? a16", "by its hash then");
}

#[test]
fn a_reset_chain_is_told_once_no_node_has_the_old_one() {
    for (others, millis) in [(Others::Lack, 0), (Others::Away, 10_000), (Others::Hold, 60_000)] {
        let mut scene = Scene::new();
        scene.grow_all(&["a11", "a12", "a13"]);
        scene.others = others;
        scene.give(Input::Head(None, others));
        scene.push(0, "c3");
        let told = scene.head(0, "c3");
        if millis > 0 {
            assert_eq!(told, "", "{others:?}");
            assert_eq!(scene.wait(millis - 1), "");
            assert_eq!(scene.wait(1), "from 13 to 3; 0: +c3 over a gap", "{others:?}");
        } else {
            assert_eq!(told, "from 13 to 3; 0: +c3 over a gap");
        }
        assert_eq!(scene.grow(0, "c4"), "0: +c4");
    }
}

#[test]
fn a_head_below_the_window_without_outage_is_checked_twice() {
    let mut scene = Scene::new();
    scene.grow(0, "a11");
    scene.others = Others::Lack;
    scene.push(0, "a9");
    assert_eq!(scene.head(0, "a9"), "");
    assert_eq!(scene.wait(1_999), "");
    assert_eq!(scene.head(0, "a11"), "", "one of several nodes behind one name was late");
    assert_eq!(scene.head(0, "a9"), "");
    assert_eq!(scene.wait(2_000), "from 11 to 9; 0: +a9 over a gap");
}

#[test]
fn a_node_close_behind_has_a_minute_while_others_are_away() {
    let mut scene = Scene::new();
    scene.grow_all(&["a11", "a12"]);
    scene.others = Others::Away;
    assert_eq!(scene.head(1, "a9"), "", "three blocks of twelve seconds");
    assert_eq!(scene.wait(35_999), "");
    assert_eq!(scene.wait(1), "1? a9");
}

#[test]
fn a_reorg_takes_out_the_newest_first_and_can_be_undone() {
    let mut scene = Scene::new();
    scene.grow_all(&["a11", "a12", "a13", "a14"]);
    scene.push(0, "b13 b14 b15");
    assert_eq!(scene.head(0, "b15"), "depth 2; 0: -a14 -a13 +b13 +b14 +b15");
    assert_eq!(scene.grow(0, "a15"), "depth 3; 0: -b15 -b14 -b13 +a13 +a14 +a15");
    assert_eq!(scene.grow(0, "b13"), "depth 3; 0: -a15 -a14 -a13 +b13", "to a lower height too");
}

#[test]
fn a_way_that_breaks_off_is_taken_up_with_the_next_node() {
    let mut scene = Scene::new();
    assert_eq!(scene.head(0, "a14"), "0? a14; 0? #11; 0? #12; 0? #13");
    assert_eq!(scene.answer(0, "a14", Some(block("a14"))), "");
    assert_eq!(scene.give(Input::Head(None, Others::Away)), "");
    assert_eq!(scene.head(1, "a14"), "1? a13; 1? #11; 1? #12", "what the first node gave is not asked for again");
    assert_eq!(scene.answer(0, "a12", Some(block("a12"))), "", "a late answer");
    assert_eq!(scene.answer(1, "a13", Some(block("a13"))), "", "is not in vain");
    assert_eq!(scene.answer(1, "#11", Some(block("a11"))), "1: +a11; 1: +a12 +a13 +a14");
}

#[test]
fn failed_fetch_is_repeated_after_pauses_that_double() {
    let mut scene = Scene::new();
    scene.follow.settings.timeout = Some(Duration::from_secs(60));
    scene.head(0, "a11");
    for pause in [100, 200, 400, 800, 1600, 2000, 2000] {
        assert_eq!(scene.answer(0, "a11", None), "");
        assert_eq!(scene.follow.wake_at(), Some(scene.now + Duration::from_millis(pause)));
        assert_eq!(scene.wait(pause - 1), "");
        assert_eq!(scene.wait(1), "0? a11");
    }
    assert_eq!(scene.answer(0, "a11", None), "");
    assert_eq!(scene.head(1, "a11"), "1? a11", "another node is not made to wait for it");
    assert_eq!(scene.answer(1, "a11", None), "");
    assert_eq!(scene.head(1, "a10"), "", "nobody says any more that there is such a block");
    assert_eq!(scene.wait(10_000), "");
}

#[test]
fn header_of_another_block_is_no_answer() {
    let mut scene = Scene::new();
    scene.head(0, "a12");
    assert_eq!(scene.answer(0, "a12", Some(block("b12"))), "");
    assert_eq!(scene.wait(100), "0? a12");
    let lie = Block { number: 12, ..block("a11") };
    scene.answer(0, "a12", Some(block("a12")));
    assert_eq!(scene.answer(0, "#11", Some(lie.clone())), "0? a11");
    assert_eq!(scene.answer(0, "a11", Some(lie)), "");
    assert_eq!(scene.wait(100), "0? a11");
}

#[test]
fn a_header_that_another_node_pushed_is_not_believed() {
    let mut scene = Scene::new();
    let lie = Block { parent: head("c10").hash, ..block("a11") };
    scene.give(Input::Pushed(NodeId(1), Arc::new(lie)));
    assert_eq!(scene.head(0, "a11"), "0? a11");
    assert_eq!(scene.answer(0, "a11", Some(block("a11"))), "0: +a11");
}

#[test]
fn a_node_that_was_just_chosen_may_be_behind() {
    let mut scene = Scene::new();
    scene.grow_all(&["a11", "a12", "a13", "a14"]);
    for lagging in ["a12", "b13", "b14"] {
        assert_eq!(scene.grow(1, lagging), "", "{lagging}");
    }
    assert_eq!(scene.grow(1, "b15"), "depth 2; 1: -a14 -a13 +b13 +b14 +b15", "it is beyond the tip");
    assert_eq!(scene.grow(1, "a14"), "depth 3; 1: -b15 -b14 -b13 +a13 +a14", "having been there, it is believed");
}

#[test]
fn a_node_that_is_behind_for_a_minute_is_believed() {
    let mut scene = Scene::new();
    scene.grow_all(&["a11", "a12", "a13", "a14"]);
    scene.push(1, "b13");
    assert_eq!(scene.head(1, "b13"), "");
    assert_eq!(scene.follow.wake_at(), Some(scene.now + LAG_TIMEOUT));
    assert_eq!(scene.wait(59_999), "");
    assert_eq!(scene.wait(1), "depth 2; 1: -a14 -a13 +b13");
    assert_eq!(scene.head(0, "a12"), "");
    scene.push(0, "a13");
    assert_eq!(scene.head(0, "a13"), "", "the next one has its own minute");
}

#[test]
fn a_gap_that_is_too_long_is_skipped() {
    let mut scene = Scene::new();
    let effects = scene.head(0, "a14");
    assert_eq!(scene.answer_all(effects), "0: +a11; 0: +a12; 0: +a13; 0: +a14", "four blocks");
    assert_eq!(scene.head(0, "a19"), "0? a19");
    assert_eq!(scene.answer(0, "a19", Some(block("a19"))), "from 14 to 19; 0: +a19 over a gap", "five");
    scene.push(0, "a20 a21 a22 a23 a24");
    assert_eq!(scene.head(0, "a24"), "0: +a20 +a21 +a22 +a23 +a24", "what is known is no gap");
}

#[test]
fn a_node_that_moves_faster_than_it_answers_is_followed() {
    let mut scene = Scene::new();
    assert_eq!(scene.head(0, "a12"), "0? a12; 0? #11");
    assert_eq!(scene.head(0, "a13"), "", "one way at a time");
    assert_eq!(scene.answer(0, "a12", Some(block("a12"))), "");
    assert_eq!(scene.head(0, "a14"), "");
    assert_eq!(scene.answer(0, "#11", Some(block("a11"))), "0: +a11; 0: +a12; 0? a14; 0? #13");
    assert_eq!(scene.head(0, "a20"), "");
    assert_eq!(scene.answer(0, "#13", None), "");
    assert_eq!(scene.answer(0, "a14", Some(block("a14"))), "0? a13");
    assert_eq!(scene.answer(0, "a13", None), "");
    assert_eq!(scene.wait(100), "0? a20", "given up, and then it is a gap");
    assert_eq!(scene.head(0, "a21"), "");
    assert_eq!(scene.answer(0, "a20", Some(block("a20"))), "from 12 to 20; 0: +a20 over a gap; 0? a21");
}

#[test]
fn a_reorganisation_deeper_than_a_full_window_is_skipped() {
    // The eighth block fills the window.
    for (last, deep) in [(16, false), (17, true)] {
        let mut scene = Scene::new();
        for number in 11..=last {
            scene.grow(0, &format!("a{number}"));
        }
        for number in 10..=last {
            scene.push(0, &format!("c{number}"));
        }
        let effects = scene.head(0, &format!("c{last}"));
        let expected =
            if deep { "from 17 to 17; 0: +c17 over a gap" } else { " -a10 +c10 +c11 +c12 +c13 +c14 +c15 +c16" };
        assert!(effects.ends_with(expected), "{effects}");
    }
}

#[test]
fn a_window_once_full_is_not_young_after_blocks_went() {
    let mut scene = Scene::new();
    for number in 11..=18 {
        scene.grow(0, &format!("a{number}"));
    }
    assert!(scene.grow(0, "b13").ends_with("-a13 +b13"), "three blocks are left of eight");
    scene.push(0, "c10 c11 c12 c13 c14");
    assert_eq!(scene.head(0, "c14"), "from 13 to 14; 0: +c14 over a gap", "a10 was told, and is forgotten");
}

#[test]
fn a_head_below_the_window_is_waited_for_a_minute() {
    let mut scene = Scene::new();
    assert_eq!(scene.head(0, "d8"), "");
    assert_eq!(scene.wait(59_999), "");
    assert_eq!(scene.wait(1), "0? d8");
    assert_eq!(scene.answer(0, "d8", Some(block("d8"))), "from 10 to 8; 0: +d8 over a gap");
    scene.push(0, "a8 a9");
    assert_eq!(scene.grow(0, "c10"), "depth 1; 0: -d8 +a8 +a9 +c10");
    let mut scene = Scene::new();
    scene.head(0, "c9");
    assert_eq!(scene.wait(60_000), "0? c9");
    let effects = scene.head(0, "a12");
    assert_eq!(scene.answer_all(effects), "0: +a11; 0: +a12", "nothing is skipped when the node is back");
    assert_eq!(scene.head(0, "a18"), "0? a18");
    scene.head(0, "a17");
    scene.now += LAG_TIMEOUT;
    assert_eq!(scene.answer(0, "a18", Some(block("a18"))), "from 12 to 18; 0: +a18 over a gap");
    assert_eq!(scene.head(0, "a17"), "", "a minute from when it was last there");
    let mut scene = Scene::new();
    let effects = scene.head(0, "a12");
    scene.now += LAG_TIMEOUT;
    assert_eq!(scene.answer_all(effects), "0: +a11; 0: +a12");
    assert_eq!(scene.head(0, "c9"), "", "from when it was last followed");
}

#[test]
fn no_header_is_fetched_without_listeners() {
    let mut scene = Scene::dozing();
    for name in ["a11", "a14", "a17", "b18"] {
        assert_eq!(scene.head(0, name), "", "{name}");
        assert_eq!(scene.follow.window.tip().unwrap().hash, head(name).hash);
    }
    assert_eq!(scene.give(Input::Wanted(Some((NodeId(0), head("b18"))))), "");
    assert_eq!(scene.head(0, "b19"), "0? b19");
    assert_eq!(scene.give(Input::Unwanted), "");
    assert_eq!(scene.wait(10_000), "");
}

#[test]
fn blocks_that_nobody_listened_to_can_be_taken_out() {
    let mut scene = Scene::dozing();
    for name in ["a11", "a12", "a13", "a14"] {
        scene.head(0, name);
    }
    scene.give(Input::Wanted(Some((NodeId(0), head("a14")))));
    scene.push(0, "b13 b14 b15");
    assert_eq!(scene.head(0, "b15"), "depth 2; 0: -a14 -a13 +b13 +b14 +b15");
}

#[test]
fn the_window_is_bounded() {
    let mut scene = Scene::new();
    for number in 11..=30 {
        scene.grow(0, &format!("a{number}"));
    }
    assert_eq!(scene.follow.window.floor(), Some(23));
}

#[test]
fn new_listener_misses_no_block() {
    let mut scene = Scene::dozing();
    // The head of that moment was a13, which the follower has not seen; by now the head is a15.
    assert_eq!(scene.give(Input::Wanted(Some((NodeId(0), head("a13"))))), "");
    let effects = scene.head(0, "a15");
    assert_eq!(scene.answer_all(effects), "0: +a14; 0: +a15");
}

#[test]
fn other_nodes_go_on_where_the_former_were() {
    let mut scene = Scene::new();
    scene.grow(0, "a11");
    let effects = scene.head(0, "a13");
    scene.answer(0, "a13", Some(block("a13")));
    assert_eq!(effects, "0? a13; 0? #12");
    scene.push(0, "a14");
    assert_eq!(scene.give(Input::Moved), "");
    assert_eq!(scene.head(0, "a10"), "", "it may be behind");
    assert_eq!(scene.head(0, "a14"), "0? a14; 0? #12; 0? #13", "what was pushed, others pushed");
    assert_eq!(scene.answer(0, "a14", Some(block("a14"))), "");
    assert_eq!(scene.answer(0, "#12", Some(block("a12"))), "0: +a12; 0: +a13 +a14");
}

#[test]
fn the_time_between_blocks_is_learnt_from_their_timestamps() {
    let mut scene = Scene::new();
    assert_eq!(scene.follow.block_time(), None);
    scene.grow(0, "a11");
    scene.grow(0, "a12");
    assert_eq!(scene.follow.block_time(), Some(Duration::from_secs(12)));
}
