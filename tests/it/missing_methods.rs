//! Nodes that lack methods, by their word or by their settings.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};

use crate::common::{
    client::call,
    origin::{Origin, Reply, response},
    proxy::Proxy,
    until,
};

const TRACE: &str = "trace_block";

/// A node that says in these words that it lacks a method whose name begins so, and answers all
/// else with its `name`.
async fn lacking(name: &'static str, beginning: &'static str, (code, words): (i64, &'static str)) -> Origin {
    Origin::start(move |seen| match seen.method().starts_with(beginning) {
        true => Reply::error(seen, code, words),
        false => Reply::result(seen, &json!(name).to_string()),
    })
    .await
}

async fn has_all(name: &'static str) -> Origin {
    lacking(name, "-", (0, "")).await
}

fn answer(id: impl std::fmt::Display, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

async fn missing(proxy: &Proxy, node: &str) -> Value {
    proxy.node(node).await["missing_methods"].clone()
}

#[tokio::test]
async fn a_node_that_lacks_a_method_is_asked_for_it_once() {
    for words in [
        (-32601, "the method trace_block does not exist/is not available"),
        (-32601, "Method not found"),
        (-32604, "Method not enabled"),
        (-32600, "The method 'trace_block' is found but the namespace 'Trace' is disabled for http://127.0.0.1:8545."),
        (-32600, "Unsupported method: trace_block"),
        (-32004, "Method not supported"),
    ] {
        let (first, second) = (lacking("first", "trace_", words).await, has_all("second").await);
        let proxy = Proxy::over([first.url(), second.url()], "").await;
        for node in ["el-1", "el-2"] {
            proxy.until_node(node, "up").await;
        }
        // A method that the table does not know may have an effect; the node that lacks it did nothing.
        for method in [TRACE, "trace_newThing"] {
            for id in 1..=5 {
                assert_eq!(proxy.post(call(id, method, "[]")).await.text(), answer(id, "\"second\""), "{words:?}");
            }
            assert_eq!((first.count(method), second.count(method)), (1, 5), "{words:?}");
        }
        // All else goes where it went.
        assert_eq!(proxy.post(call(1, "eth_call", "[]")).await.text(), answer(1, "\"first\""));
        assert_eq!(missing(&proxy, "el-1").await, json!([TRACE, "trace_newThing"]));
        assert_eq!((missing(&proxy, "el-2").await, &proxy.node("el-1").await["verdict"]), (json!([]), &json!("up")));
        let metrics = proxy.admin("GET /metrics").await.text();
        let counted = r#"node="el-1",outcome="lacking"} 2"#;
        assert!(metrics.contains(counted), "{metrics}");
    }
}

#[tokio::test]
async fn where_no_node_has_a_method_the_first_error_goes_back() {
    let (one, other) = ((-32601, "not at the first"), (-32601, "not at the second"));
    let (first, second) = (lacking("first", "trace_", one).await, lacking("second", "trace_", other).await);
    let proxy = Proxy::over([first.url(), second.url()], "").await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    for id in 1..=4 {
        let error = proxy.post(call(id, TRACE, "[]")).await.json()["error"].clone();
        assert_eq!(error, json!({ "code": -32601, "message": "not at the first" }));
    }
    // Each may have got the method since.
    assert_eq!((first.count(TRACE), second.count(TRACE)), (4, 4));
}

/// One node lacks the method, and the other one rests for a while: the call waits for that.
#[tokio::test]
async fn a_node_that_rests_may_have_the_method() {
    let first = lacking("first", "trace_", (-32601, "Method not found")).await;
    let has_refused = AtomicBool::new(false);
    let second = Origin::start(move |seen| match seen.method() == TRACE && !has_refused.swap(true, SeqCst) {
        true => Reply::body(response("429 Too Many Requests", "retry-after: 1\r\n", "")),
        false => Reply::result(seen, "\"second\""),
    })
    .await;
    let proxy = Proxy::over([first.url(), second.url()], "").await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    for id in 1..3 {
        assert_eq!(proxy.post(call(id, TRACE, "[]")).await.text(), answer(id, "\"second\""));
        // The call that waited did not ask the first node again meanwhile.
        assert_eq!(first.count(TRACE), 1);
    }
}

/// `calls.attempts` bounds nodes that fail: one that lacks the method did nothing.
#[tokio::test]
async fn nodes_that_lack_a_method_count_as_no_attempts() {
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(lacking("any", "trace_", (-32601, "Method not found")).await);
    }
    nodes.push(has_all("last").await);
    let proxy = Proxy::over(nodes.iter().map(Origin::url), "[calls]\nattempts = 2\n").await;
    for node in 1..=5 {
        proxy.until_node(&format!("el-{node}"), "up").await;
    }
    assert_eq!(proxy.post(call(1, TRACE, "[]")).await.text(), answer(1, "\"last\""));
    assert_eq!(nodes.iter().map(|node| node.count(TRACE)).collect::<Vec<_>>(), [1; 5]);
}

#[tokio::test]
async fn a_node_that_gets_a_method_is_known_to_have_it() {
    let has = Arc::new(AtomicBool::new(false));
    let (seen_by, calls) = (has.clone(), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    let first = Origin::start(move |seen| {
        if seen.method() == TRACE {
            counted.fetch_add(1, SeqCst);
            if !seen_by.load(SeqCst) {
                return Reply::error(seen, -32601, "Method not found");
            }
        }
        Reply::result(seen, "\"first\"")
    })
    .await;
    let second = lacking("second", "trace_", (-32601, "Method not found")).await;
    let proxy = Proxy::over([first.url(), second.url()], "").await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    assert_eq!(proxy.post(call(1, TRACE, "[]")).await.json()["error"]["code"], -32601);
    assert_eq!((missing(&proxy, "el-1").await, missing(&proxy, "el-2").await), (json!([TRACE]), json!([TRACE])));
    has.store(true, SeqCst);
    for id in 2..5 {
        assert_eq!(proxy.post(call(id, TRACE, "[]")).await.text(), answer(id, "\"first\""));
    }
    assert_eq!((missing(&proxy, "el-1").await, missing(&proxy, "el-2").await), (json!([]), json!([TRACE])));
    assert_eq!(calls.load(SeqCst), 4);
}

#[tokio::test]
async fn a_node_that_returns_is_asked_for_all_methods_again() {
    let (first, second) = (lacking("first", "trace_", (-32601, "Method not found")).await, has_all("second").await);
    let proxy = Proxy::over([first.url(), second.url()], "[health]\ninterval = \"100ms\"\n").await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    proxy.post(call(1, TRACE, "[]")).await;
    assert_eq!(missing(&proxy, "el-1").await, json!([TRACE]));
    first.ail(Some(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec()));
    proxy.until_node("el-1", "down").await;
    first.ail(None);
    proxy.until_node("el-1", "up").await;
    until("its methods are open again", async || missing(&proxy, "el-1").await == json!([])).await;
}

#[tokio::test]
async fn calls_go_only_to_nodes_whose_settings_have_the_method() {
    let (first, second) = (has_all("first").await, has_all("second").await);
    let proxy = Proxy::start(&format!(
        r#"
        [[el.primary]]
        http = "{}"
        not_methods = ["trace_*", "eth_sendRawTransaction"]
        [[el.primary]]
        http = "{}"
        methods = ["trace_*", "eth_call"]
        "#,
        first.url(),
        second.url()
    ))
    .await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    for (method, node) in [
        (TRACE, "second"),
        ("trace_newThing", "second"),
        ("eth_call", "first"),
        ("eth_getCode", "first"),
        ("txpool_trace", "first"),
    ] {
        assert_eq!(proxy.post(call(1, method, "[]")).await.text(), answer(1, &json!(node).to_string()), "{method}");
    }
    let error = proxy.post(call(1, "eth_sendRawTransaction", "[\"0x02f8\"]")).await.json()["error"].clone();
    assert_eq!((&error["code"], &error["data"]["reason"]), (&json!(-32601), &json!("method_not_offered")));
    let both = [first.methods(), second.methods()].concat();
    assert!(!both.contains(&"eth_sendRawTransaction".to_owned()));
    assert!(!first.methods().iter().any(|method| method.starts_with("trace_")));
}

/// One client's calls of methods that no node has leave the calls of others where they were.
#[tokio::test]
async fn methods_that_a_client_made_up_change_nothing_for_others() {
    let (first, second) = (lacking("first", "made_", (-32601, "Method not found")).await, has_all("second").await);
    let proxy = Proxy::over([first.url(), second.url()], "").await;
    for node in ["el-1", "el-2"] {
        proxy.until_node(node, "up").await;
    }
    for id in 0..300 {
        proxy.post(call(id, &format!("made_up{id}"), "[]")).await;
    }
    for method in ["eth_call", TRACE, "bor_getAuthor", "eth_getSomethingNew"] {
        assert_eq!(proxy.post(call(1, method, "[]")).await.text(), answer(1, "\"first\""), "{method}");
    }
    assert!(missing(&proxy, "el-1").await.as_array().unwrap().len() <= 64);
}
