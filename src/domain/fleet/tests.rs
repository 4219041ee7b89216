//! Names, keys and payloads.

use proptest::prelude::*;

use super::*;

const BUCKET: Incarnation = Incarnation(7);

/// Reads a golden file and writes the same bytes again.
fn golden<P: Payload>(file: &str) -> P {
    let payload: P = decode("key", file.trim().as_bytes(), BUCKET).unwrap();
    assert_eq!(payload.unknown(), 0);
    assert_eq!(String::from_utf8(encode(&payload, BUCKET)).unwrap(), file.trim());
    payload
}

/// C14, U9: the bytes of format 1 are these, and are read by each later version.
#[test]
fn payloads_of_format_1_are_read_and_written() {
    let beat: Heartbeat = golden(include_str!("golden/heartbeat.json"));
    assert_eq!((beat.process, beat.epoch, beat.role), (u64::MAX, Some(Epoch(12)), Role::Leading));
    let lease: Lease = golden(include_str!("golden/lease.json"));
    assert_eq!(lease.term_at(StoreRevision(99)), Term(13));
    let view: View = golden(include_str!("golden/view.json"));
    assert_eq!(view.active().count(), 1);
    let beat: Heartbeat = golden(include_str!("golden/heartbeat-wishes.json"));
    assert!(beat.verdicts[0].cordoned && beat.wishes[0].last_error.is_none());
    assert_eq!(beat.wishes[1].last_error.as_ref().unwrap().reason, WishErrorWord::NotApplied);
    let wish: Wish = golden(include_str!("golden/wish.json"));
    assert_eq!((wish.state, wish.by.as_str()), (WishWord::Cordoned, "r1.example"));
}

/// C2, C14, C16: a wish of a newer version is kept as such, and a malformed one is an error.
#[test]
fn a_wish_that_is_unknown_or_malformed_is_told_apart() {
    let wish = r#"{"bucket":7,"format":2,"state":"weighed","by":"Ann, on call","weight":2}"#;
    let read = Wish::read("wish.log", wish.as_bytes(), BUCKET).unwrap();
    assert_eq!((read.unknown(), read.state.as_str()), (2, "weighed"));
    assert_eq!(String::from_utf8(encode(&read, BUCKET)).unwrap(), wish);
    let beat = r#"{"bucket":7,"format":1,"process":1,"sequence":1,"state":"active","role":"watching","wishes":
        [{"key":"wish.weights.a","revision":3,"last_error":{"reason":"too_heavy","text":"x"}}]}"#;
    let read = decode::<Heartbeat>("key", beat.as_bytes(), BUCKET).unwrap();
    assert_eq!((read.unknown(), &*read.wishes[0].key), (1, "wish.weights.a"));
    let long = format!(r#"{{"bucket":7,"format":1,"state":"cordoned","by":"a","x":"{}"}}"#, "y".repeat(4096));
    for bad in [
        long.as_str(),
        r#"{"bucket":7,"format":1,"state":"cordoned"}"#,
        r#"{"bucket":7,"format":1,"state":"cordoned","by":""}"#,
        r#"{"bucket":7,"format":1,"state":"cordoned","by":"a\nb"}"#,
        r#"{"bucket":6,"format":1,"state":"cordoned","by":"a"}"#,
        r#"{"bucket":7,"format":1,"state":7,"by":"a"}"#,
    ] {
        let why = Wish::read("wish.log", bad.as_bytes(), BUCKET).unwrap_err().to_string();
        assert!(why.starts_with("the value at \"wish.log\" is malformed"), "{why}");
    }
}

/// C16: a wish is for a node or for the log, and has a state that its subject can have.
#[test]
fn a_subject_has_states_of_its_own() {
    let Ok(Key::Wish(node)) = "wish.main.el.geth-1".parse() else { panic!("a node's wish is no wish") };
    for state in WishWord::KNOWN {
        assert_ne!(node.allows(state), WishKey::Log.allows(state), "{state}");
    }
    let newer = WishWord::from("weighed");
    assert!(!node.allows(&newer) && !WishKey::Log.allows(&newer));
    assert_eq!(node.to_string(), "main el geth-1");
}

/// C14: a newer version's fields, words and kinds are kept, counted and written back.
#[test]
fn unknown_fields_and_words_come_back_unchanged() {
    let lease =
        r#"{"bucket":7,"format":2,"holder":"a","stamp":{"epoch":1,"sequence":2},"state":"resting","zone":{"a":[1]}}"#;
    let read: Lease = decode("leader", lease.as_bytes(), BUCKET).unwrap();
    assert_eq!((read.unknown(), read.format), (2, 2));
    assert_eq!(String::from_utf8(encode(&read, BUCKET)).unwrap(), lease);
    let view = r#"{"bucket":7,"format":1,"members":{"a":{"epoch":1,"state":"resting","zone":"x"}},"quorum":2}"#;
    let read: View = decode("view", view.as_bytes(), BUCKET).unwrap();
    assert_eq!(read.unknown(), 3);
    assert_eq!(String::from_utf8(encode(&read, BUCKET)).unwrap(), view);
}

/// C14: unknown fields are written back as long as the value can be written.
#[test]
fn unknown_fields_that_are_too_long_are_dropped() {
    let other = |length: usize| Unknown::from([("x".to_owned(), "y".repeat(length).into())]);
    let lease = |length: usize| {
        let mut before = Lease::held("a".parse().unwrap(), Revision { epoch: Epoch(1), sequence: 2 }, None);
        let mut after = before.clone();
        before.other = other(length);
        after.carry(&before);
        after.other.len()
    };
    assert_eq!((lease(16_000), lease(17_000)), (1, 0));
    let view = |length: usize| {
        let member = Member { epoch: Epoch(1), state: MemberState::Active, other: other(length) };
        let members = ["a", "b"].map(|name| (name.parse().unwrap(), member.clone()));
        let mut view = View { members: members.into(), ..View::default() };
        view.carry();
        view.unknown()
    };
    assert_eq!((view(8_000), view(9_000)), (2, 0));
}

/// R24: an epoch is the revision of an earlier entry.
#[test]
fn a_view_with_a_life_that_cannot_be_is_malformed() {
    let member = Member { epoch: Epoch(8), state: MemberState::Active, other: Unknown::new() };
    let view = View { members: [("a".parse().unwrap(), member)].into(), ..View::default() };
    assert!(view.clone().checked("view", StoreRevision(8)).is_ok());
    let why = view.checked("view", StoreRevision(7)).unwrap_err().to_string();
    assert!(why.contains("\"view\" is malformed: epoch 8"), "{why}");
}

/// C2, R24: malformed values are errors that name the key and the fault.
#[test]
fn malformed_values_are_errors_that_name_the_key() {
    let why = |value: &str| decode::<Lease>("leader", value.as_bytes(), BUCKET).unwrap_err().to_string();
    for value in ["", "null", "[]", "{}", "\"x\"", "{\"format\":1}", "\u{0}"] {
        assert!(why(value).starts_with("the value at \"leader\" is malformed"), "{value}");
    }
    let lease = |holder: &str, format: u32, bucket: u64| {
        let stamp = r#"{"epoch":1,"sequence":2}"#;
        format!(r#"{{"bucket":{bucket},"format":{format},"holder":"{holder}","stamp":{stamp},"state":"held"}}"#)
    };
    assert!(why(&lease("a b", 1, 7)).contains("whitespace"));
    assert!(why(&lease("a", 0, 7)).contains("format 0"));
    assert!(why(&lease("a", 1, 6)).contains("written for bucket 6, not 7"));
    assert!(why(&lease("a", 1, 7).replace("\"epoch\":1", "\"epoch\":-1")).contains("u64"));
    assert!(why(&" ".repeat(2 << 20)).contains("bytes"));
}

/// C1, A23.
#[test]
fn names_that_break_keys_are_refused() {
    for good in ["a", "host-1.example.org", "Knoten ü".replace(' ', "_").as_str(), &"x".repeat(253)] {
        assert!(good.parse::<ReplicaName>().is_ok(), "{good}");
    }
    for bad in ["", "a b", "a\n", "a*", ">", &"x".repeat(254), "\u{7}"] {
        assert!(bad.parse::<ReplicaName>().is_err(), "{bad}");
    }
    assert_eq!("mainnet-eu".parse::<ClusterName>().unwrap().bucket(), "steadfast-mainnet-eu");
    for bad in ["", "a.b", "a b", "ü", &"x".repeat(65)] {
        assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
    }
    let error = "a b".parse::<NodeName>().unwrap_err().to_string();
    assert_eq!(error, "node \"a b\" has whitespace or control characters");
}

/// C3, C4.
#[test]
fn keys_are_read_back_and_others_are_refused() {
    for (key, text) in [
        (Key::Leader, "leader"),
        (Key::View, "view"),
        (Key::Replica("r1.example".parse().unwrap()), "replica.r1=2Eexample"),
        (Key::Wish(WishKey::Log), "wish.log"),
        (
            Key::Wish(WishKey::Node(NodeRef {
                network: "ma.in".parse().unwrap(),
                layer: LayerWord::Cl,
                node: "teku-1@10.0.0.1".parse().unwrap(),
            })),
            "wish.ma=2Ein.cl.teku-1=4010=2E0=2E0=2E1",
        ),
    ] {
        assert_eq!(key.to_string(), text);
        assert_eq!(text.parse(), Ok(key));
    }
    for bad in [
        "",
        "leader.x",
        "replica.",
        "replica.a=2",
        "replica.a=zz",
        "replica.=61",
        "wish.x",
        "wish.main.el",
        "wish.main.xl.a",
        "wish.main..a",
        "wish.main.el.a.b",
        "wish.log.x",
        "node.a.b",
        "replica.a=20b",
    ] {
        assert!(bad.parse::<Key>().is_err(), "{bad}");
    }
}

/// C5, C6, C7: a later life outranks an earlier one, whatever their counts.
#[test]
fn a_later_life_outranks_every_earlier_event() {
    let at = |epoch, sequence| Revision { epoch: Epoch(epoch), sequence };
    assert!(at(2, 0) > at(1, u64::MAX) && at(2, 1) > at(2, 0));
    let registration = Heartbeat::registration(u64::MAX);
    assert_eq!(registration.epoch_at(StoreRevision(9)), Epoch(9));
}

proptest! {
    /// C1: tokens are injective, and NATS takes them.
    #[test]
    fn tokens_are_injective(name in "\\PC{1,40}") {
        let token = KeyToken::of(&name);
        prop_assert!(token.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=".contains(&b)));
        prop_assert_eq!(KeyToken::name(token.as_str()), Ok(name));
    }

    /// R24: no bytes make a decoder or a key panic.
    #[test]
    fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..200), key in "\\PC{0,40}") {
        _ = decode::<Heartbeat>("key", &value, BUCKET);
        _ = decode::<View>("key", &value, BUCKET);
        _ = Wish::read("key", &value, BUCKET);
        _ = key.parse::<Key>();
    }

    /// R24: a golden file with a byte changed is read or refused.
    #[test]
    fn a_changed_byte_is_read_or_refused(at in 0_usize..400, byte: u8) {
        let mut value = include_str!("golden/heartbeat.json").trim().as_bytes().to_vec();
        let at = at % value.len();
        value[at] = byte;
        if let Ok(beat) = decode::<Heartbeat>("key", &value, BUCKET) {
            prop_assert_eq!(decode::<Heartbeat>("key", &encode(&beat, BUCKET), BUCKET), Ok(beat));
        }
    }
}
