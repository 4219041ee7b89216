//! How answers of the beacon API are judged: an object with `data`, long and short, and an error.
//!
//! `serde_json::Value` stands beside each as a measure of what a tree costs.

use std::fmt::Write as _;

use divan::{Bencher, black_box, counter::BytesCount};
use steadfast::domain::beacon_form::{Body, Form, Reply, Wanted};

fn main() {
    divan::main();
}

/// The duties of some validators, or, as long as a block is, those of many.
fn duties(count: usize) -> String {
    let mut list = String::new();
    for validator in 0..count {
        let comma = if validator == 0 { "" } else { "," };
        write!(
            list,
            r#"{comma}{{"pubkey":"0x{}","validator_index":"{validator}","committee_index":"1","committee_length":"128","committees_at_slot":"64","validator_committee_index":"25","slot":"1"}}"#,
            "93247f2209abcacf57b75a51dafae777f9dd38bc7053d1af526f220a7489a6d3".repeat(2)
        )
        .expect("a text takes all");
    }
    format!(r#"{{"dependent_root":"0x{}","execution_optimistic":false,"data":[{list}]}}"#, "cf".repeat(32))
}

fn texts() -> [(&'static str, u16, String); 3] {
    let error = r#"{"code":404,"message":"Block not found: no block at slot 7654321"}"#;
    [("2 duties", 200, duties(2)), ("400 duties", 200, duties(400)), ("error", 404, error.to_owned())]
}

#[divan::bench(args = texts())]
fn of(bencher: Bencher, (_, status, text): &(&str, u16, String)) {
    let reply = Reply { status: *status, kind: Some(b"application/json"), body: Body::Whole(text.as_bytes()) };
    assert_eq!(Form::of(&reply, Wanted::Data), Form::Node);
    bencher.counter(BytesCount::of_str(text)).bench(|| Form::of(black_box(&reply), Wanted::Data));
}

#[divan::bench(args = texts())]
fn tree(bencher: Bencher, (_, _, text): &(&str, u16, String)) {
    bencher.counter(BytesCount::of_str(text)).bench(|| serde_json::from_str::<serde_json::Value>(black_box(text)));
}
