//! Streams that lie: their events reach no client.

use super::{
    tables::{Node, SLOTS, Setup, event, root},
    *,
};

#[test]
fn a_stream_tells_few_blocks_of_one_slot() {
    let node = Node::line(5);
    let mut stage = Setup::opened(&node);
    let head = |n: u64| format!(r#"{{"slot":"6","block":"{}"}}"#, root(n));
    let reports = |stage: &mut Setup| {
        (100..).position(|n| stage.stitcher.step(Input::Event(event("head", &head(n)))).iter().any(is_broken))
    };
    assert_eq!(reports(&mut stage), Some(8));
    // Another stream begins anew.
    stage.stitcher.step(Input::Opened);
    assert_eq!(reports(&mut stage), Some(8));
}

fn is_broken(effect: &Effect) -> bool {
    matches!(effect, Effect::Broken(_))
}

#[test]
fn events_that_cannot_be_read_reach_nobody() {
    let node = Node::line(5);
    let mut stage = Setup::opened(&node);
    for topic in topics::CHAIN {
        for data in ["garbage", "{}", "null", r#"{"slot":"x","block":"y"}"#, r#"{"slot":"1001"}"#] {
            assert_eq!(stage.stitcher.step(Input::Event(event(topic, data))), [Effect::Unreadable], "{topic}: {data}");
        }
    }
}

#[test]
fn a_checkpoint_that_cannot_be_final_yet_is_not_told() {
    let node = Node::line(5);
    let mut stage = Setup::opened(&node);
    // Clocks may differ by an epoch: the present one is 10 by the earliest.
    stage.stitcher.step(Input::Latest(12 * SLOTS - 1));
    let told = |stage: &mut Setup, epoch: u64| {
        let data = format!(r#"{{"block":"{}","state":"{}","epoch":"{epoch}"}}"#, root(1), root(2));
        stage.stitcher.step(Input::Event(event("finalized_checkpoint", &data)))
    };
    for epoch in [10, 11, 1 << 60] {
        assert!(matches!(told(&mut stage, epoch)[..], [Effect::Ahead(_)]), "{epoch}");
    }
    for epoch in [8, 9] {
        assert!(matches!(told(&mut stage, epoch)[..], [Effect::Tell { .. }]), "{epoch}");
    }
}
