//! The proxy goes down.

use super::{super::*, bench::*};

#[test]
fn a_drained_desk_begins_no_sending_and_no_question() {
    let mut bench = Bench::new();
    bench.accept(1, 0);
    bench.accept(2, 1);
    let effects = bench.input(Input::Drain);
    assert_eq!(answers(&effects), [Ok(Done::Hash(hash(1))), Ok(Done::Hash(hash(2)))], "nobody waits any more");
    let mut effects = bench.word(1, "a", Word::Taken);
    effects.extend(bench.done(1));
    effects.extend(bench.pass(5));
    effects.extend(bench.input(Input::NodeReturned { node: "b".into() }));
    effects.extend(bench.pause(600_000));
    assert_eq!((sent(&effects), asked(&effects)), (vec![], vec![]));
    let late = bench.accept_of("default", 3, 3, 0);
    assert_eq!((sent(&late), answers(&late)), (vec![], vec![Ok(Done::Hash(hash(3)))]));
    bench.restart();
    assert_eq!(sent(&bench.pass(1)), [3], "after the next start");
    let found = Found::Waiting { node: "a".into(), missing: vec![] };
    assert_eq!(sent(&bench.looked(1, found, None)), [2]);
}
