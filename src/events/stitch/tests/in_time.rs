//! Heads whose headers no node gives, or not in time; and reports that no honest node makes.

use tokio::time::{Duration, Instant};

use super::{
    tables::{Node, Setup, event, root},
    *,
};

const HEADER: Duration = Duration::from_secs(1);
const GAP: Duration = Duration::from_secs(3);

/// For a node that answers no question for a header by its root.
fn over_headers(question: &Question) -> bool {
    matches!(question, Question::Header(_))
}

/// Gives the present time once, and once more after `time` has passed.
fn pass(setup: &mut Setup, node: &Node, time: Duration) {
    let start = Instant::now();
    setup.give(node, Input::Time(start));
    setup.give(node, Input::Time(start + time - Duration::from_millis(1)));
    assert_eq!(setup.heard(), [""; 0], "not before its time");
    setup.give(node, Input::Time(start + time));
}

#[test]
fn a_head_whose_header_nobody_gives_is_told_in_time() {
    let mut setup = Setup::opened(&Node::line(5));
    let silent = Node { hangs: over_headers, ..Node::line(8) };
    setup.head(&silent, 6);
    assert!(setup.stitcher.holds());
    pass(&mut setup, &silent, HEADER);
    assert_eq!(setup.heard(), ["unproven 6", "block* 6", "head 6"]);
    // The next head waits for as long; two heads that come together wait together.
    setup.head(&silent, 7);
    setup.head(&silent, 8);
    pass(&mut setup, &silent, HEADER);
    assert_eq!(setup.heard(), ["unproven 7", "block* 7", "head 7", "unproven 8", "block* 8", "head 8"]);
    // Once nodes give headers again, all goes on from there.
    setup.asked.clear();
    setup.head(&Node::line(9), 9);
    assert_eq!(
        (setup.heard(), setup.asked[0]),
        (["block* 9", "head 9"].map(str::to_owned).to_vec(), Question::Header(root(9)))
    );
    assert!(!setup.asked[1..].iter().any(over_headers), "none is asked for what was told");
    assert!(!setup.stitcher.holds());
}

#[test]
fn a_late_header_is_taken_for_what_comes_after_it() {
    let mut setup = Setup::opened(&Node::line(5));
    let silent = Node { hangs: over_headers, ..Node::line(6) };
    setup.head(&silent, 6);
    pass(&mut setup, &silent, HEADER);
    assert_eq!(setup.heard(), ["unproven 6", "block* 6", "head 6"]);
    setup.give(&silent, Input::Answered(Question::Header(root(6)), silent.answer(Question::Header(root(6)))));
    // 7 leaves the branch of 6, which shows by the header of 6.
    let node = Node::new(&[(4, 4, 3), (5, 5, 4), (6, 6, 5), (7, 7, 5)], 7);
    setup.asked.clear();
    setup.head(&node, 7);
    assert_eq!(
        (setup.heard(), setup.asked.clone()),
        (["reorg* 6 to 7", "block* 7", "head 7"].map(str::to_owned).to_vec(), vec![Question::Header(root(7))])
    );
}

#[test]
fn a_branch_is_left_after_a_head_without_header_too() {
    let mut setup = Setup::opened(&Node::line(5));
    let silent = Node { hangs: over_headers, ..Node::line(6) };
    setup.head(&silent, 6);
    pass(&mut setup, &silent, HEADER);
    setup.heard();
    let node = Node::new(&[(4, 4, 3), (5, 5, 4), (6, 6, 5), (7, 7, 5)], 7);
    setup.asked.clear();
    setup.head(&node, 7);
    assert_eq!(setup.heard(), ["reorg* 6 to 7", "block* 7", "head 7"]);
    assert_eq!(setup.asked, [7, 6].map(|name| Question::Header(root(name))), "where 6 stands is asked for now");
}

#[test]
fn an_untold_head_waits_through_a_change_of_streams() {
    let mut setup = Setup::opened(&Node::line(5));
    // No node knows the head's block, and none gives its own head.
    let mut lost = Node { hangs: |question| *question == Question::Head, ..Node::line(5) };
    let head = |name: u64| event("head", &format!(r#"{{"slot":"{name}","block":"{}","by":"node"}}"#, root(name)));
    setup.give(&lost, Input::Event(head(6)));
    assert_eq!(setup.heard(), ["broken"]);
    setup.open(&lost);
    pass(&mut setup, &lost, HEADER);
    assert_eq!(setup.heard(), ["unproven 6", "block* 6", "head 6"]);
    // Where the next stream's node reports another head, that head counts.
    lost.hangs = |_| false;
    setup.open(&lost);
    setup.give(&lost, Input::Event(head(7)));
    assert_eq!(setup.heard(), ["broken"]);
    lost.hangs = |_| false;
    setup.open(&lost);
    setup.give(&lost, Input::Time(Instant::now() + GAP * 10));
    assert_eq!(setup.heard(), [""; 0]);
    assert!(!setup.stitcher.holds());
}

#[test]
fn streams_that_follow_one_another_hold_up_no_head() {
    for again in [|| Input::Renewed, || Input::Switched] {
        let mut setup = Setup::opened(&Node::line(5));
        let silent = Node { hangs: |_| true, ..Node::line(6) };
        setup.head(&silent, 6);
        let start = Instant::now();
        for tenths in 0..10 {
            setup.give(&silent, Input::Time(start + HEADER / 10 * tenths));
            setup.give(&silent, again());
            assert_eq!(setup.heard(), [""; 0]);
        }
        setup.give(&silent, Input::Time(start + HEADER));
        assert_eq!(setup.heard(), ["unproven 6", "block* 6", "head 6"]);
    }
}

#[test]
fn the_time_counts_from_the_first_head_that_waits() {
    let mut setup = Setup::opened(&Node::line(5));
    let silent = Node { hangs: |_| true, ..Node::line(9) };
    let start = Instant::now();
    let at = |setup: &mut Setup, time| setup.give(&silent, Input::Time(start + time));
    setup.give(&silent, Input::Switched);
    setup.head(&silent, 6);
    at(&mut setup, Duration::ZERO);
    // The node names a later head as its own, and that one comes in front.
    let own = Node::line(9).answer(Question::Head);
    setup.give(&silent, Input::Answered(Question::Head, own));
    at(&mut setup, HEADER / 4);
    setup.give(&silent, Input::Switched);
    at(&mut setup, GAP - Duration::from_millis(1));
    assert_eq!(setup.heard(), [""; 0]);
    at(&mut setup, GAP);
    assert_eq!(setup.heard(), ["skipped 5 to 9", "block* 9", "head* 9"]);
}

#[test]
fn another_stream_of_the_same_node_keeps_all_that_is_under_way() {
    let mut setup = Setup::opened(&Node::line(5));
    let silent = Node { hangs: |_| true, ..Node::line(6) };
    setup.block(&silent, 6);
    setup.head(&silent, 6);
    setup.asked.clear();
    for _ in 0..3 {
        setup.give(&silent, Input::Renewed);
    }
    assert_eq!(setup.asked, [], "the question for 6 is under way");
    // The answer is taken, and the head is sent with the node's own event. Reports that were
    // lost between two streams are asked for.
    let node = Node::line(7);
    setup.give(&node, Input::Answered(Question::Header(root(6)), node.answer(Question::Header(root(6)))));
    assert_eq!(setup.heard(), ["block 6", "head 6", "block* 7", "head* 7"]);
    assert_eq!(setup.asked.iter().filter(|question| **question == Question::Head).count(), 1);
}

#[test]
fn missed_blocks_that_no_node_gives_are_awaited_longer() {
    let mut setup = Setup::opened(&Node::line(5));
    let node = Node { hangs: |question| *question == Question::Header(root(7)), ..Node::line(9) };
    setup.head(&node, 9);
    pass(&mut setup, &node, GAP);
    assert_eq!(setup.heard(), ["skipped 5 to 9", "block* 9", "head 9"]);
    // The same where the head is one that the node was asked for.
    let mut setup = Setup::opened(&Node::line(5));
    setup.open(&node);
    pass(&mut setup, &node, GAP);
    assert_eq!(setup.heard(), ["skipped 5 to 9", "block* 9", "head* 9"]);
    // A chain that moves on meanwhile makes clients wait no longer.
    let mut setup = Setup::opened(&Node::line(5));
    let (start, mut node) = (Instant::now(), Node::line(12));
    node.blocks.remove(&7);
    for seconds in 0..3 {
        node.head = 9 + seconds;
        setup.open(&node);
        setup.give(&node, Input::Time(start + Duration::from_secs(seconds)));
        assert_eq!(setup.heard(), ["broken"]);
    }
    setup.give(&node, Input::Time(start + GAP));
    assert_eq!(setup.heard(), ["skipped 5 to 11", "block* 11", "head* 11"]);
}

#[test]
fn missed_blocks_are_waited_for_a_quarter_of_a_short_slot() {
    let node = Node { hangs: |question| *question == Question::Header(root(7)), ..Node::line(9) };
    for (slot, time_limit) in [(2_000, 1_000), (5_000, 1_250), (12_000, 3_000), (60_000, 5_000)] {
        let mut setup = Setup::opened_at(&Node::line(5), Duration::from_millis(slot));
        setup.head(&node, 9);
        pass(&mut setup, &node, Duration::from_millis(time_limit));
        assert_eq!(setup.heard(), ["skipped 5 to 9", "block* 9", "head 9"]);
    }
}

#[test]
fn a_late_head_skips_no_missed_one_with_unknown_duties() {
    // Slots 8 to 11 are one epoch. No node knows the blocks before 20, and questions for dependent
    // roots stay without an answer.
    let blocks = [(20, 8, 1), (21, 9, 20), (22, 10, 21), (23, 11, 22)];
    let node =
        |head| Node { hangs: |question| matches!(question, Question::Duties { .. }), ..Node::new(&blocks, head) };
    let mut setup = Setup::opened(&node(20));
    assert!(matches!(setup.asked.last(), Some(Question::Duties { .. })));
    setup.head(&node(23), 23);
    let start = Instant::now();
    setup.give(&node(23), Input::Time(start));
    // Half of the head's time goes to work of less weight, the rest to the missed heads.
    setup.give(&node(23), Input::Time(start + HEADER / 2));
    assert_eq!((setup.heard(), setup.asked.last()), (vec![], Some(&Question::Duties { root: root(21), epoch: 2 })));
    setup.give(&node(23), Input::Time(start + GAP));
    let told = ["block* 21", "head* 21", "block* 22", "head* 22", "block* 23", "head 23"];
    assert_eq!(setup.heard(), told);
}

#[test]
fn events_before_a_late_head_are_sent_before_it() {
    let mut setup = Setup::opened(&Node::line(5));
    let node = Node { hangs: |_| true, ..Node::line(7) };
    setup.open(&node);
    setup.say(&node, "finalized_checkpoint", r#"{"epoch":"1","by":"node"}"#);
    setup.block(&node, 6);
    setup.head(&node, 6);
    let start = Instant::now();
    setup.give(&node, Input::Time(start));
    assert_eq!(setup.heard(), [""; 0]);
    // The question for the node's head may take half of that time.
    setup.give(&node, Input::Time(start + HEADER / 2));
    assert_eq!(setup.heard(), ["final 1"]);
    setup.give(&node, Input::Time(start + HEADER));
    assert_eq!(setup.heard(), ["block 6", "unproven 6", "head 6"]);
}

#[test]
fn slots_ahead_of_the_clock_are_not_told_and_mute_nothing() {
    let mut setup = Setup::opened(&Node::line(5));
    let node = Node::line(7);
    setup.give(&node, Input::Latest(5 + 32));
    for slot in [5 + 33, u64::MAX] {
        setup.say(&node, "block", &format!(r#"{{"slot":"{slot}","block":"{}","by":"node"}}"#, root(99)));
        setup.say(&node, "head", &format!(r#"{{"slot":"{slot}","block":"{}","by":"node"}}"#, root(99)));
    }
    for epoch in [10, u64::MAX] {
        setup.say(&node, "finalized_checkpoint", &format!(r#"{{"epoch":"{epoch}","by":"node"}}"#));
    }
    assert_eq!(setup.heard(), ["ahead"; 6]);
    setup.say(&node, "finalized_checkpoint", r#"{"epoch":"1","by":"node"}"#);
    setup.block(&node, 6);
    setup.head(&node, 6);
    assert_eq!(setup.heard(), ["final 1", "block 6", "head 6"]);
    // Events that wait for no head pass; the others still wait.
    let update =
        |slot: u64| format!(r#"{{"data":{{"attested_header":{{"beacon":{{"slot":"{slot}"}}}}}},"by":"node"}}"#);
    setup.say(&node, "light_client_finality_update", &update(u64::MAX));
    assert_eq!(setup.heard().len(), 1);
    setup.give(&node, Input::Time(Instant::now() + GAP));
    setup.say(&node, "light_client_finality_update", &update(7));
    assert_eq!(setup.heard(), [""; 0], "its head comes first");
}
