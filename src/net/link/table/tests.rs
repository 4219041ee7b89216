use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A table, and its effects as short lines.
struct Bench {
    table: Table<&'static str>,
    now: Instant,
    said: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        Self { table: Table::new(Arc::default(), TIMEOUT), now: Instant::now(), said: Vec::new() }
    }

    fn note(&mut self, effects: impl IntoIterator<Item = Effect<&'static str>>) {
        for effect in effects {
            self.said.push(match effect {
                Effect::Send(text) => text.replace(r#""jsonrpc":"2.0","#, ""),
                Effect::Answer(caller, answer) => {
                    format!("{caller} {}", String::from_utf8_lossy(&answer.with_id(b"*")))
                }
                Effect::News(key, News::Event(event)) => format!("{key}: {}", String::from_utf8_lossy(&event)),
                Effect::News(key, News::Refused(error)) => {
                    format!("{key}: Refused {}", String::from_utf8_lossy(&error))
                }
                Effect::News(key, news) => format!("{key}: {news:?}"),
                other => format!("{other:?}"),
            });
        }
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.said)
    }

    fn want(&mut self, key: u64) {
        let asked = self.table.want(key, "eth_subscribe", &Bytes::from_static(b"[\"x\"]"), self.now);
        self.note(asked);
    }

    fn unwant(&mut self, key: u64) {
        let ended = self.table.unwant(key, self.now);
        self.note(ended);
    }

    fn frame(&mut self, text: &str) {
        let mut effects = Vec::new();
        self.table.frame(&Bytes::copy_from_slice(text.as_bytes()), self.now, &mut effects).unwrap();
        self.note(effects);
    }

    fn answer(&mut self, id: u64, result: &str) {
        self.frame(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#));
    }

    fn event(&mut self, subscription: &str, event: &str) {
        let params = format!(r#"{{"subscription":{subscription},"result":{event}}}"#);
        self.frame(&format!(r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{params}}}"#));
    }

    fn reconnect(&mut self) {
        let lost = self.table.detach();
        self.note(lost);
        let asked = self.table.attach(self.now);
        self.note(asked);
    }
}

const ASK: &str = r#""method":"eth_subscribe","params":["x"]"#;

#[test]
fn a_wish_is_asked_for_and_gets_its_own_events() {
    let mut bench = Bench::new();
    bench.want(100);
    bench.want(200);
    assert_eq!(bench.said(), [format!("{{\"id\":1,{ASK}}}"), format!("{{\"id\":2,{ASK}}}")]);
    bench.answer(2, "\"0x2\"");
    bench.answer(1, "7");
    bench.event("7", "{\"n\":1}");
    bench.event("\"0x2\"", "null");
    bench.event("\"0x3\"", "1");
    assert_eq!(bench.said(), ["Accepted(200)", "Accepted(100)", "100: {\"n\":1}", "200: null"]);
}

#[test]
fn an_event_before_the_grant_is_told_after_it() {
    let mut bench = Bench::new();
    bench.want(100);
    bench.want(200);
    bench.said();
    bench.event("\"0xb\"", "1");
    bench.event("\"0xa\"", "2");
    bench.event("\"0xb\"", "3");
    assert_eq!(bench.said(), Vec::<String>::new());
    bench.answer(1, "\"0xa\"");
    assert_eq!(bench.said(), ["Accepted(100)", "100: 2"]);
    bench.answer(2, "\"0xb\"");
    assert_eq!(bench.said(), ["Accepted(200)", "200: 1", "200: 3"]);
    // Nothing is kept when no answer is outstanding.
    bench.event("\"0xc\"", "4");
    bench.want(300);
    bench.answer(3, "\"0xc\"");
    assert_eq!(bench.said().pop().unwrap(), "Accepted(300)");
}

#[test]
fn a_node_that_floods_before_it_answers_is_left() {
    let mut bench = Bench::new();
    bench.want(100);
    for _ in 0..MAX_EARLY {
        bench.event("\"0xa\"", "1");
    }
    let mut effects = Vec::new();
    let text = Bytes::from_static(br#"{"method":"m","params":{"subscription":"0xa","result":1}}"#);
    assert_eq!(bench.table.frame(&text, bench.now, &mut effects), Err(Broken::Early));
}

#[test]
fn a_first_refusal_ends_the_wish() {
    let mut bench = Bench::new();
    bench.want(100);
    bench.frame(r#"{"id":1,"error":{"code":-32601,"message":"no"}}"#);
    assert!(bench.said().pop().unwrap().starts_with("Refused(100, b\"{\\\"code\\\":-32601"));
    bench.want(200);
    bench.answer(2, "null");
    assert!(bench.said().pop().unwrap().contains("the node gave no subscription id"));
    bench.reconnect();
    assert_eq!(bench.said(), Vec::<String>::new());
}

#[test]
fn granted_wishes_are_asked_for_again_on_a_new_connection() {
    let mut bench = Bench::new();
    for key in [100, 200, 300] {
        bench.want(key);
    }
    bench.answer(1, "\"0x1\"");
    bench.answer(2, "\"0x2\"");
    bench.table.call(50, "caller");
    bench.said();
    bench.reconnect();
    assert_eq!(
        bench.said(),
        [
            "100: Lost".to_owned(),
            "200: Lost".to_owned(),
            "Unanswered(300)".to_owned(),
            format!("{{\"id\":4,{ASK}}}"),
            format!("{{\"id\":5,{ASK}}}")
        ]
    );
    // Ids of the connection before mean nothing, neither ours nor the node's.
    let last = bench.table.ids.last_id.swap(50, Relaxed);
    bench.answer(50, "1");
    bench.table.ids.last_id.store(last, Relaxed);
    bench.answer(3, "\"0x3\"");
    bench.event("\"0x2\"", "1");
    assert_eq!(bench.said(), Vec::<String>::new());
    bench.answer(5, "\"0x1\"");
    bench.frame(r#"{"id":4,"error":{"code":1}}"#);
    bench.event("\"0x1\"", "5");
    assert_eq!(
        bench.said(),
        ["Replayed(Accepted)", "200: Back", "Replayed(Refused)", "100: Refused {\"code\":1}", "200: 5"]
    );
    // A refused subscription is tried on the next connection; an unanswered one is not reported as
    // lost twice.
    bench.reconnect();
    assert_eq!(bench.said(), ["200: Lost".to_owned(), format!("{{\"id\":6,{ASK}}}"), format!("{{\"id\":7,{ASK}}}")]);
    bench.reconnect();
    assert_eq!(bench.said()[..2], ["Replayed(Lost)", "Replayed(Lost)"]);
}

#[test]
fn a_wish_given_up_is_ended_at_the_node_whenever_that_is() {
    let mut bench = Bench::new();
    bench.want(100);
    bench.want(200);
    bench.answer(1, "\"0x1\"");
    bench.said();
    bench.unwant(100);
    bench.unwant(200);
    bench.unwant(200);
    assert_eq!(bench.said(), [r#"{"id":3,"method":"eth_unsubscribe","params":["0x1"]}"#]);
    // The subscription was asked for and not yet answered.
    bench.answer(2, "\"0x2\"");
    assert_eq!(bench.said(), [r#"{"id":4,"method":"eth_unsubscribe","params":["0x2"]}"#]);
    bench.event("\"0x1\"", "1");
    bench.answer(3, "true");
    bench.frame(r#"{"id":4,"error":{"code":1,"message":"subscription not found"}}"#);
    bench.reconnect();
    assert_eq!(bench.said(), Vec::<String>::new());
    assert_eq!(bench.table.due(), None);
}

#[test]
fn a_reused_id_brings_nothing_of_the_subscription_before() {
    let mut bench = Bench::new();
    bench.want(100);
    bench.answer(1, "\"0x1\"");
    bench.unwant(100);
    bench.want(200);
    bench.said();
    bench.event("\"0x1\"", "\"old\"");
    bench.answer(2, "true");
    bench.event("\"0x1\"", "\"new\"");
    bench.answer(3, "\"0x1\"");
    assert_eq!(bench.said(), ["Accepted(200)", "200: \"new\""]);
}

#[test]
fn a_node_that_gives_one_id_twice_starves_no_wish() {
    let mut bench = Bench::new();
    bench.want(100);
    bench.want(200);
    bench.answer(1, "\"0x1\"");
    bench.said();
    bench.answer(2, "\"0x1\"");
    assert_eq!(bench.said(), ["Accepted(200)", "100: Lost"]);
    // A reader that gives up a subscription that it does not have takes nothing from another
    // reader.
    bench.unwant(100);
    bench.event("\"0x1\"", "1");
    assert_eq!(bench.said(), ["200: 1"]);
}

#[test]
fn a_lapsed_wish_is_asked_for_again_for_a_reader_caught_up() {
    let mut bench = Bench::new();
    bench.want(100);
    bench.answer(1, "\"0x1\"");
    bench.said();
    let ended = bench.table.lapse(100, bench.now);
    bench.note(ended);
    assert_eq!(bench.said(), [r#"{"id":2,"method":"eth_unsubscribe","params":["0x1"]}"#]);
    bench.event("\"0x1\"", "1");
    // A new connection changes nothing of that.
    bench.reconnect();
    assert_eq!(bench.said(), Vec::<String>::new());
    let asked = bench.table.resume(100, true, bench.now);
    bench.note(asked);
    assert_eq!(bench.said(), [format!("{{\"id\":3,{ASK}}}")]);
    bench.answer(3, "\"0x9\"");
    assert_eq!(bench.said(), ["Replayed(Accepted)", "100: Back"]);
    // Caught up while there was no connection: the next one will do.
    let _ = bench.table.lapse(100, bench.now);
    let _ = bench.table.detach();
    let asked = bench.table.resume(100, false, bench.now);
    bench.note(asked);
    assert_eq!(bench.said(), Vec::<String>::new());
    let asked = bench.table.attach(bench.now);
    bench.note(asked);
    assert_eq!(bench.said().len(), 1);
}

#[test]
fn calls_are_answered_in_any_order_unless_forgotten() {
    let mut bench = Bench::new();
    bench.table.ids.last_id.store(12, Relaxed);
    for (id, caller) in [(10, "a"), (11, "b"), (12, "c")] {
        bench.table.call(id, caller);
    }
    bench.table.forget(11);
    bench.answer(12, "\"c\"");
    bench.answer(11, "\"b\"");
    bench.frame(r#"{"result":{"id":11},"id":10}"#);
    bench.answer(10, "2");
    bench.frame(r#"{"id":"10","result":1}"#);
    bench.frame(r#"{"id":null,"error":{"code":-32700}}"#);
    assert_eq!(bench.said(), [r#"c {"jsonrpc":"2.0","id":*,"result":"c"}"#, r#"a {"result":{"id":11},"id":*}"#]);
}

#[test]
fn an_answer_without_an_id_is_that_of_the_only_call_or_nobodys() {
    let frame = |bench: &mut Bench, text: &str| {
        let mut effects = Vec::new();
        let outcome = bench.table.frame(&Bytes::copy_from_slice(text.as_bytes()), bench.now, &mut effects);
        bench.note(effects);
        outcome.map_err(|broken| broken.to_string())
    };
    let mut bench = Bench::new();
    bench.table.ids.last_id.store(20, Relaxed);
    for (text, answered) in [
        (r#"{"jsonrpc":"2.0","result":[1]}"#, r#"a {"id":*,"jsonrpc":"2.0","result":[1]}"#),
        (r#"{"result":"0x1","id":null}"#, r#"a {"result":"0x1","id":*}"#),
        (r#"{"id":null,"error":{"code":-32700,"message":"x"}}"#, r#"a {"id":*,"error":{"code":-32700,"message":"x"}}"#),
        (r#"{"id":"10","result":{"id":5}}"#, r#"a {"id":*,"result":{"id":5}}"#),
    ] {
        bench.table.call(10, "a");
        assert_eq!((frame(&mut bench, text), bench.said()), (Ok(()), vec![answered.to_owned()]), "{text}");
    }
    // The answer might be to the one or the other; an error may be to neither.
    bench.table.call(10, "a");
    bench.table.call(11, "b");
    assert_eq!(frame(&mut bench, r#"{"id":null,"error":{"code":1}}"#), Ok(()));
    assert!(frame(&mut bench, r#"{"result":1}"#).is_err());
    // The answer might be to the call that was forgotten, until that is answered.
    bench.table.forget(10);
    assert!(frame(&mut bench, r#"{"result":1}"#).is_err());
    assert_eq!(frame(&mut bench, r#"{"id":10,"result":1}"#), Ok(()));
    assert_eq!(bench.said(), Vec::<String>::new());
    assert_eq!(frame(&mut bench, r#"{"result":1}"#), Ok(()));
    assert_eq!(bench.said(), [r#"b {"id":*,"result":1}"#]);
    // With no request under way, a result without an id does no harm.
    assert_eq!(frame(&mut bench, r#"{"result":1}"#), Ok(()));
}

#[test]
fn an_answer_to_no_call_ends_the_connection_of_others() {
    let mut bench = Bench::new();
    bench.want(100);
    let answer = |bench: &mut Bench, id: &str| {
        let text = Bytes::from(format!(r#"{{"id":{id},"result":"0x1"}}"#));
        bench.table.frame(&text, bench.now, &mut Vec::new())
    };
    for id in ["2", "0", r#""x""#, "1.5"] {
        assert_eq!(answer(&mut bench, id), Err(Broken::Alien), "{id}");
    }
    assert_eq!(answer(&mut bench, "1"), Ok(()));
    assert_eq!(answer(&mut bench, "2"), Ok(()), "nothing is under way");
}

#[test]
fn answers_to_the_links_own_requests_are_due_and_calls_are_not() {
    let mut bench = Bench::new();
    bench.table.call(50, "caller");
    assert_eq!(bench.table.due(), None);
    bench.want(100);
    let first = bench.now + TIMEOUT;
    bench.now += Duration::from_secs(1);
    bench.want(200);
    assert_eq!(bench.table.due(), Some(first));
    bench.answer(1, "\"0x1\"");
    assert_eq!(bench.table.due(), Some(first + Duration::from_secs(1)));
    bench.answer(2, "\"0x2\"");
    assert_eq!(bench.table.due(), None);
    bench.unwant(100);
    assert!(bench.table.due().is_some());
    bench.reconnect();
    bench.answer(4, "\"0x2\"");
    assert_eq!(bench.table.due(), None);
}

#[test]
fn methods_and_params_go_out_as_json_whatever_they_are() {
    let mut bench = Bench::new();
    let asked = bench.table.want(1, "x\"_subscribe", &Bytes::from_static(b"[ 1 ]"), bench.now);
    bench.note(asked);
    bench.answer(1, "\"a\"");
    bench.unwant(1);
    assert_eq!(
        bench.said(),
        [
            r#"{"id":1,"method":"x\"_subscribe","params":[ 1 ]}"#,
            "Accepted(1)",
            r#"{"id":2,"method":"x\"_unsubscribe","params":["a"]}"#
        ]
    );
    assert!(bench.table.want(2, "eth_call", &Bytes::new(), bench.now).is_none());
    assert!(bench.table.want(2, "eth_subscribe", &Bytes::from_static(b"\xff"), bench.now).is_none());
}

#[derive(Clone, Debug)]
enum Step {
    Want(u64),
    Unwant(u64),
    Lapse(u64),
    Resume(u64),
    /// The node answers its oldest or newest open request, with a grant or a refusal.
    Reply {
        newest: bool,
        grant: bool,
    },
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 1_000u64..1_004;
    prop_oneof![
        key.clone().prop_map(Step::Want),
        key.clone().prop_map(Step::Unwant),
        key.clone().prop_map(Step::Lapse),
        key.prop_map(Step::Resume),
        (any::<bool>(), any::<bool>()).prop_map(|(newest, grant)| Step::Reply { newest, grant }),
        Just(Step::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// In every order of events: when the node has answered all requests, each subscription that it
    /// runs belongs to one reader that wants it, and no reader has two. After a new connection on
    /// which all is granted, every reader that is not behind has one.
    #[test]
    fn the_node_runs_exactly_the_wanted_subscriptions(steps in proptest::collection::vec(step(), 0..60)) {
        let mut table: Table<()> = Table::new(Arc::default(), TIMEOUT);
        let now = Instant::now();
        // The node: open requests in their order, and the subscriptions that run there.
        let mut open: Vec<String> = Vec::new();
        let mut runs: Vec<String> = Vec::new();
        let mut serial = 0;
        let mut reply = |table: &mut Table<()>, open: &mut Vec<String>, runs: &mut Vec<String>, at: usize, grant: bool| {
            let request: serde_json::Value = serde_json::from_str(&open.remove(at)).unwrap();
            let is_subscribe = request["method"] == "eth_subscribe";
            let answer = match (is_subscribe, grant) {
                (true, true) => {
                    serial += 1;
                    runs.push(format!("\"0x{serial:x}\""));
                    format!(r#"{{"id":{},"result":"0x{serial:x}"}}"#, request["id"])
                }
                (false, true) => format!(r#"{{"id":{},"result":true}}"#, request["id"]),
                (_, false) => format!(r#"{{"id":{},"error":{{"code":1}}}}"#, request["id"]),
            };
            if !is_subscribe {
                let ended = request["params"][0].to_string();
                runs.retain(|id| *id != ended);
            }
            let mut effects = Vec::new();
            table.frame(&answer.into(), now, &mut effects).unwrap();
            effects
        };
        let mut steps = steps;
        steps.push(Step::Reconnect);
        for step in steps {
            let effects: Vec<Effect<()>> = match step {
                Step::Want(key) if !table.wanted.contains_key(&key) => {
                    table.want(key, "eth_subscribe", &Bytes::from_static(b"[]"), now).into_iter().collect()
                }
                Step::Want(_) => Vec::new(),
                Step::Unwant(key) => table.unwant(key, now).into_iter().collect(),
                // Only a reader that gets events can be too slow for them.
                Step::Lapse(key) if table.wanted.get(&key).is_some_and(|wish| matches!(wish.phase, Phase::Live(_))) => {
                    table.lapse(key, now).into_iter().collect()
                }
                Step::Lapse(_) => Vec::new(),
                Step::Resume(key) => table.resume(key, true, now).into_iter().collect(),
                Step::Reply { .. } if open.is_empty() => Vec::new(),
                Step::Reply { newest, grant } => {
                    let at = if newest { open.len() - 1 } else { 0 };
                    reply(&mut table, &mut open, &mut runs, at, grant)
                }
                Step::Reconnect => {
                    table.detach();
                    open.clear();
                    runs.clear();
                    table.attach(now)
                }
            };
            open.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Send(text) => Some(text.to_string()),
                _ => None,
            }));
        }
        while !open.is_empty() {
            let effects = reply(&mut table, &mut open, &mut runs, 0, true);
            open.extend(effects.into_iter().filter_map(|effect| match effect {
                Effect::Send(text) => Some(text.to_string()),
                _ => None,
            }));
        }
        prop_assert!(table.own.is_empty() && table.due().is_none());
        let mut expected: Vec<String> = Vec::new();
        for wish in table.wanted.values() {
            match &wish.phase {
                Phase::Live(id) => expected.push(String::from_utf8(id.to_vec()).unwrap()),
                Phase::Lapsed => {}
                other => prop_assert!(false, "a wish is left {:?}", other),
            }
        }
        expected.sort();
        runs.sort();
        prop_assert_eq!(&runs, &expected);
        prop_assert_eq!(table.live.len(), expected.len());
    }
}
