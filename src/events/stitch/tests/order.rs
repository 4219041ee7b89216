//! The order of events, and heads whose dependent roots no node knows.

use tokio::time::{Duration, Instant};

use super::{
    held::HEAD_TIMEOUT,
    tables::{Node, SLOTS, Setup, event, root},
    *,
};
use crate::events::beacon::Duties;

/// An event that refers to this block.
fn speech(topic: &str, name: u64) -> Event {
    let data = match topic {
        "payload_attributes" => {
            format!(r#"{{"version":"x","data":{{"parent_block_root":"{}"}},"by":"node"}}"#, root(name))
        }
        "light_client_optimistic_update" => {
            format!(r#"{{"version":"x","data":{{"attested_header":{{"beacon":{{"slot":"{name}"}}}}}},"by":"node"}}"#)
        }
        _ => format!(r#"{{"data":{{"slot":"{name}","beacon_block_root":"{}"}},"by":"node"}}"#, root(name)),
    };
    event(topic, &data)
}

const SPEECHES: [&str; 3] = ["payload_attributes", "light_client_optimistic_update", "attestation"];

/// The topics of the events that clients got, in order.
fn topics(setup: &mut Setup) -> Vec<String> {
    setup.heard().iter().map(|heard| heard.split(' ').next().unwrap().to_owned()).collect()
}

#[test]
fn events_about_a_block_come_behind_its_head() {
    let node = Node::line(6);
    let mut setup = Setup::opened(&Node::line(5));
    // The header takes its time: everything else arrives before.
    let head = event("head", &format!(r#"{{"slot":"6","block":"{}","by":"node"}}"#, root(6)));
    let question = Question::Header(root(6));
    assert_eq!(setup.stitcher.step(Input::Event(head)), [Effect::Ask(question)]);
    for topic in SPEECHES {
        setup.give(&node, Input::Event(speech(topic, 6)));
    }
    setup.give(&node, Input::Event(event("block_gossip", "{}")));
    assert_eq!(topics(&mut setup), ["block_gossip"], "what comes before heads does not wait");
    assert!(setup.stitcher.holds());
    setup.give(&node, Input::Answered(question, node.answer(question)));
    assert_eq!(topics(&mut setup), [&["block*", "head"], &SPEECHES[..]].concat());
    assert!(!setup.stitcher.holds());
    for topic in SPEECHES {
        setup.give(&node, Input::Event(speech(topic, 5)));
    }
    assert_eq!(topics(&mut setup), SPEECHES, "of a head that was told");
}

#[test]
fn a_block_that_becomes_no_head_is_waited_for_once() {
    let mut setup = Setup::opened(&Node::line(5));
    let node = Node::line(6);
    let start = Instant::now();
    let at = |setup: &mut Setup, millis| setup.give(&node, Input::Time(start + Duration::from_millis(millis)));
    setup.give(&node, Input::Event(speech("attestation", 6)));
    at(&mut setup, 10_000);
    assert_eq!(topics(&mut setup), [""; 0], "when it came is not known before");
    at(&mut setup, 10_000 + u64::try_from(HEAD_TIMEOUT.as_millis()).unwrap() - 1);
    setup.give(&node, Input::Event(speech("payload_attributes", 6)));
    assert_eq!(topics(&mut setup), [""; 0]);
    at(&mut setup, 10_000 + u64::try_from(HEAD_TIMEOUT.as_millis()).unwrap());
    assert_eq!(topics(&mut setup), ["attestation", "payload_attributes"]);
    setup.give(&node, Input::Event(speech("contribution_and_proof", 6)));
    assert_eq!(topics(&mut setup), ["contribution_and_proof"]);
}

/// A head that names its dependent roots.
fn head(node: &Node, name: u64, slot: u64, (previous, current): (u64, u64), setup: &mut Setup) {
    let data = format!(
        r#"{{"slot":"{slot}","block":"{}","previous_duty_dependent_root":"{}","current_duty_dependent_root":"{}","by":"node"}}"#,
        root(name),
        root(previous),
        root(current)
    );
    setup.say(node, "head", &data);
}

/// The dependent roots of the heads that are sent.
fn told(setup: &mut Setup, node: &Node, input: Input) -> Vec<Option<Duties>> {
    let (mut told, mut inputs) = (Vec::new(), std::collections::VecDeque::from([input]));
    while let Some(input) = inputs.pop_front() {
        for effect in setup.stitcher.step(input) {
            match effect {
                Effect::Ask(question) => inputs.push_back(Input::Answered(question, node.answer(question))),
                Effect::Tell { topic, bytes } if topic == "head" => {
                    let text = std::str::from_utf8(&bytes).unwrap();
                    let Some(ChainEvent::Head { duties, .. }) =
                        ChainEvent::read("head", text.split_once("data: ").unwrap().1.as_bytes())
                    else {
                        panic!("{text}")
                    };
                    told.push(duties);
                }
                Effect::Broken(why) => panic!("{why}"),
                Effect::Skipped { from, to } => panic!("skipped {from} to {to}"),
                _ => {}
            }
        }
    }
    told
}

#[test]
fn a_missed_head_has_the_duties_of_the_next_told_one() {
    // Slots 8 to 11 are one epoch. No node knows the blocks before 20.
    let blocks = [(20, 8, 1), (21, 9, 20), (22, 10, 21), (23, 11, 22)];
    let at = |head| Node::ignorant(&blocks, head);
    let mut setup = Setup::opened(&at(20));
    // Another stream, at another head: that head is missed, and no node gives its dependent roots.
    assert_eq!(told(&mut setup, &at(21), Input::Opened), []);
    // The next head that is reported names the roots for all of the epoch.
    let data = format!(
        r#"{{"slot":"11","block":"{}","previous_duty_dependent_root":"{}","current_duty_dependent_root":"{}"}}"#,
        root(23),
        root(3),
        root(7)
    );
    let duties = Some(Duties { previous: root(3), current: root(7) });
    let heads = told(&mut setup, &at(23), Input::Event(event("head", &data)));
    assert_eq!(heads, [duties; 3], "none was dropped, and no stream was left");
}

#[test]
fn unknown_dependent_roots_are_sent_as_unchanged() {
    assert_eq!(SLOTS, 4);
    let blocks = [(20, 9, 1), (21, 11, 20), (22, 13, 21), (23, 14, 22)];
    let at = |head| Node::ignorant(&blocks, head);
    let mut setup = Setup::opened(&at(20));
    let data = format!(
        r#"{{"slot":"14","block":"{}","previous_duty_dependent_root":"{}","current_duty_dependent_root":"{}"}}"#,
        root(23),
        root(3),
        root(21)
    );
    let heads = told(&mut setup, &at(23), Input::Event(event("head", &data)));
    let said = Some(Duties { previous: root(3), current: root(21) });
    assert_eq!(heads.len(), 3, "21 of the epoch before is told all the same");
    assert_eq!(heads[1..], [said, said]);
    // Once some roots are known, those of the next epochs follow.
    let mut setup = Setup::opened(&at(20));
    head(&at(20), 20, 9, (2, 3), &mut setup);
    let heads = told(&mut setup, &at(22), Input::Opened);
    let expected =
        [(2, 3), (3, 21)].map(|(previous, current)| Some(Duties { previous: root(previous), current: root(current) }));
    assert_eq!(heads, expected);
}

#[test]
fn missed_heads_are_told_with_one_that_another_stream_reported() {
    let blocks = [(20, 9, 1), (21, 11, 20), (22, 13, 21), (23, 14, 22)];
    let at = |head| Node::ignorant(&blocks, head);
    let mut setup = Setup::opened(&at(20));
    let data = format!(
        r#"{{"slot":"13","block":"{}","previous_duty_dependent_root":"{}","current_duty_dependent_root":"{}"}}"#,
        root(22),
        root(3),
        root(21)
    );
    let asked = setup.stitcher.step(Input::Event(event("head", &data)));
    assert_eq!(asked, [Effect::Ask(Question::Header(root(22)))]);
    // The stream ends before the answer. The next stream's node has gone on.
    let heads = told(&mut setup, &at(23), Input::Switched);
    let said = Some(Duties { previous: root(3), current: root(21) });
    assert_eq!((heads.len(), &heads[1..]), (3, &[said, said][..]));
}
