//! The spans themselves: their place in the trace, their words, their attempts.

use steadfast::devnet::{Devnet, Options};

use crate::{
    collector::{Collector, Mode, Seen},
    common::{
        client::{Response, call, chunked, with_headers},
        origin::{Origin, Reply},
        proxy::nodes,
        sim::{Net, Proxy},
        until,
        ws::{Ws, upgrade},
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

async fn node(net: &Net) -> Origin {
    Origin::within(net, |seen| match &*seen.method() {
        "eth_gasPrice" => Reply::error(seen, -32000, "no price"),
        _ => Reply::result(seen, "\"well\""),
    })
    .await
}

/// A node that hangs up on every call.
async fn faulty(net: &Net) -> Origin {
    Origin::within(net, |_| Reply::act(|_| async { None })).await
}

async fn ask(proxy: &Proxy, headers: &str, body: &str) -> Response {
    let mut client = proxy.client_at(7).await;
    client.send(with_headers("/", headers, body.as_bytes())).await;
    client.response().await
}

/// The headers of a client whose trace has these flags.
fn traced(flags: &str) -> String {
    format!("Traceparent: 00-{TRACE}-{SPAN}-{flags}\r\nTracestate: vendor=1\r\n")
}

/// The value of `traceparent` that goes to a node under this span.
fn under(span: &Seen) -> String {
    format!("00-{}-{}-01", span.trace_id(), span.span_id())
}

fn names(spans: &[Seen]) -> Vec<&str> {
    spans.iter().map(|span| &*span.0.name).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_is_a_span_in_the_trace_of_its_client() {
    let net = Net::default();
    let (collector, origin) = (Collector::start(&net, Mode::Takes).await, node(&net).await);
    let proxy = Proxy::over(&net, [origin.url()], &collector.settings("sample = 0")).await;
    let headers = format!("{}X-Request-Id: mine\r\n", traced("01"));
    let length = ask(&proxy, &headers, &call(1, "eth_call", "[]")).await.body.len();
    let span = &collector.requests(1).await[0];
    assert_eq!((span.trace_id(), span.parent()), (TRACE.to_owned(), SPAN.to_owned()));
    assert_eq!((&*span.0.name, &*span.0.trace_state, span.0.flags), ("eth_call", "vendor=1", 0x301));
    for (key, value) in [
        ("rpc.system", "jsonrpc"),
        ("rpc.method", "eth_call"),
        ("steadfast.network", "default"),
        ("steadfast.layer", "el"),
        ("steadfast.nodes", "el-1"),
        ("steadfast.attempts", "1"),
        ("steadfast.outcome", "result"),
        ("steadfast.request_id", "mine"),
        ("client.address", "10.0.0.7"),
        ("network.protocol.name", "http"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("http.response.body.size", &length.to_string()),
        ("error.type", ""),
    ] {
        assert_eq!(span.word(key), value, "{key}");
    }
    assert_eq!(span.status(), (0, String::new()));
    let [attempt] = &*collector.under(span) else { panic!("{:?}", collector.spans()) };
    assert_eq!((attempt.trace_id(), attempt.0.kind), (TRACE.to_owned(), 3));
    assert_eq!((&*attempt.0.name, &*attempt.word("steadfast.outcome")), ("attempt el-1", "answered"));
    assert!(attempt.0.start_time_unix_nano >= span.0.start_time_unix_nano && attempt.nanos() <= span.nanos());
    // The node's own spans stand under the attempt.
    let seen = &origin.seen()[0];
    assert_eq!(seen.header("traceparent"), [under(attempt)]);
    assert_eq!(seen.header("tracestate"), ["vendor=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_over_has_two_attempts() {
    let net = Net::default();
    let (collector, faulty, well) = (Collector::start(&net, Mode::Takes).await, faulty(&net).await, node(&net).await);
    let proxy = Proxy::over(&net, [faulty.url(), well.url()], &collector.settings("sample = 0")).await;
    assert_eq!(ask(&proxy, &traced("01"), &call(1, "eth_call", "[]")).await.status, 200);
    let span = &collector.requests(1).await[0];
    assert_eq!((span.word("steadfast.nodes"), span.word("steadfast.outcome")), ("el-1,el-2".into(), "result".into()));
    assert_eq!((span.word("steadfast.attempts"), span.status().0), ("2".to_owned(), 0));
    let attempts = collector.under(span);
    assert_eq!(names(&attempts), ["attempt el-1", "attempt el-2"]);
    let outcomes: Vec<String> = attempts.iter().map(|attempt| attempt.word("steadfast.outcome")).collect();
    assert_eq!(outcomes, ["dropped", "answered"]);
    let (code, message) = attempts[0].status();
    assert_eq!((code, &*attempts[0].word("error.type")), (2, "dropped"));
    assert!(!message.is_empty() && attempts[1].status().0 == 0, "{attempts:?}");
    for (origin, attempt) in [faulty, well].iter().zip(&attempts) {
        assert_eq!(origin.seen().last().unwrap().header("traceparent"), [under(attempt)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_no_node_answers_has_its_error() {
    let net = Net::default();
    let (collector, faulty) = (Collector::start(&net, Mode::Takes).await, faulty(&net).await);
    let settings = format!("{}[calls]\nhold = \"1s\"\nattempts = 1\n", collector.settings("sample = 1"));
    let proxy = Proxy::over(&net, [faulty.url()], &settings).await;
    let answer = ask(&proxy, "", &call(1, "eth_call", "[]")).await.json();
    let span = &collector.requests(1).await[0];
    let (code, message) = span.status();
    assert_eq!((code, &*message), (2, answer["error"]["message"].as_str().unwrap()));
    assert_eq!(span.word("error.type"), span.word("steadfast.outcome"));
    assert_eq!(span.word("steadfast.outcome"), "attempts_failed");
}

#[tokio::test(start_paused = true)]
async fn a_trace_that_its_client_does_not_record_stays_so() {
    let net = Net::default();
    let (collector, origin) = (Collector::start(&net, Mode::Takes).await, node(&net).await);
    let proxy = Proxy::over(&net, [origin.url()], &collector.settings("sample = 1")).await;
    ask(&proxy, &traced("00"), &call(1, "eth_call", "[]")).await;
    ask(&proxy, "", &call(1, "eth_chainName", "[]")).await;
    assert_eq!(names(&collector.requests(1).await), ["other"]);
    assert_eq!(origin.seen()[0].header("traceparent"), [format!("00-{TRACE}-{SPAN}-00")]);
    assert_eq!(origin.seen()[0].header("tracestate"), ["vendor=1"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_trace_begins_one() {
    let net = Net::default();
    let (collector, origin) = (Collector::start(&net, Mode::Takes).await, node(&net).await);
    let proxy = Proxy::over(&net, [origin.url()], &collector.settings("sample = 1")).await;
    ask(&proxy, "", &call(1, "eth_call", "[]")).await;
    ask(&proxy, "Traceparent: 00-abc-def-01\r\nTracestate: vendor=1\r\n", &call(1, "eth_call", "[]")).await;
    let spans = collector.requests(2).await;
    assert_ne!(spans[0].trace_id(), spans[1].trace_id());
    for (span, seen) in spans.iter().zip(origin.seen()) {
        assert_eq!((span.parent(), span.0.flags), (String::new(), 0x101));
        assert_eq!(seen.header("traceparent"), [under(&collector.under(span)[0])]);
        assert_eq!(seen.header("tracestate"), Vec::<&str>::new(), "the state is of another trace");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_sampled_goes_as_it_came() {
    let net = Net::default();
    let (collector, origin) = (Collector::start(&net, Mode::Takes).await, node(&net).await);
    let proxy = Proxy::over(&net, [origin.url()], &collector.settings("sample = 0")).await;
    let malformed = "Traceparent: 00-abc-def-01\r\n";
    for headers in ["", malformed, &traced("01")] {
        ask(&proxy, headers, &call(1, "eth_call", "[]")).await;
    }
    collector.requests(1).await;
    let seen: Vec<Vec<String>> =
        origin.seen().iter().map(|seen| seen.header("traceparent").into_iter().map(str::to_owned).collect()).collect();
    assert_eq!(seen[..2], [vec![], vec!["00-abc-def-01".to_owned()]]);
    assert_eq!(origin.seen()[0].header("x-request-id"), Vec::<&str>::new());
    // The ratio is changed by a reload; the collector stays.
    let settings = [nodes([origin.url()]), collector.settings("sample = 1")].concat();
    proxy.reload(&settings).await;
    ask(&proxy, "", &call(1, "eth_call", "[]")).await;
    collector.requests(2).await;
}

#[tokio::test(start_paused = true)]
async fn requests_of_every_door_have_spans() {
    let net = Net::default();
    let (collector, origin) = (Collector::start(&net, Mode::Takes).await, node(&net).await);
    let proxy = Proxy::over(&net, [origin.url()], &collector.settings("sample = 1")).await;
    let one = call(1, "eth_call", "[]");
    let batch = format!("[{},{}]", call(1, "eth_call", "[]"), call(2, "eth_gasPrice", "[]"));
    ask(&proxy, "", &batch).await;
    // Through hyper.
    let mut client = proxy.client_at(8).await;
    client.send(chunked("", one.as_bytes(), 10)).await;
    client.response().await;
    let mut ws = Ws::open(proxy.client_at(9).await.io, "/").await;
    ws.ask(&one).await;
    ws.subscribe("[\"newHeads\"]").await;
    ask(&proxy, "", "no json").await;
    let spans = collector.requests(6).await;
    assert_eq!(names(&spans), ["batch", "eth_call", "GET", "eth_call", "eth_subscribe", "POST"]);
    assert_eq!(spans[0].word("steadfast.methods"), "eth_call,eth_gasPrice");
    assert_eq!(
        (spans[0].word("steadfast.outcome"), spans[0].word("rpc.method")),
        ("result,node_error".into(), String::new())
    );
    assert_eq!((spans[0].word("steadfast.attempts"), spans[0].status().0), ("2".into(), 0));
    assert_eq!(
        (spans[2].word("http.response.status_code"), spans[5].word("http.response.status_code")),
        ("101".into(), "400".into())
    );
    let protocols: Vec<String> = spans.iter().map(|span| span.word("network.protocol.name")).collect();
    assert_eq!(protocols, ["http", "http", "http", "websocket", "websocket", "http"]);
    assert_eq!(spans[3].word("http.request.method"), "");
    let traces: std::collections::BTreeSet<String> = spans.iter().map(Seen::trace_id).collect();
    assert_eq!(traces.len(), 6, "a trace of its own for each message of a WebSocket");
}

#[tokio::test(start_paused = true)]
async fn messages_of_a_traced_websocket_are_in_its_trace() {
    let net = Net::default();
    let (collector, origin) = (Collector::start(&net, Mode::Takes).await, node(&net).await);
    let proxy = Proxy::over(&net, [origin.url()], &collector.settings("sample = 0")).await;
    let mut client = proxy.client_at(9).await;
    client.send(upgrade("/", &traced("01"))).await;
    assert!(client.head().await.contains(" 101 "));
    let ask = crate::common::ws::frame(0x81, call(1, "eth_call", "[]").as_bytes());
    client.send(ask).await;
    let spans = collector.requests(2).await;
    assert_eq!(names(&spans), ["GET", "eth_call"]);
    assert!(spans.iter().all(|span| span.trace_id() == TRACE && span.parent() == SPAN), "{spans:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_of_the_beacon_api_is_a_span() {
    let net = Net::default();
    let collector = Collector::start(&net, Mode::Takes).await;
    let options = Options { execution: 1, consensus: 1, ..Default::default() };
    let devnet = Devnet::start(options, std::sync::Arc::new(net.clone())).await.unwrap();
    let url = devnet.cl(0).http_url();
    let settings = format!("[[cl.primary]]\nname = \"cl-1\"\nhttp = \"{url}\"\n{}", collector.settings("sample = 0"));
    let proxy = Proxy::launch(&net, &settings).await;
    until("it serves", async || proxy.admin("/readyz").await.status == 200).await;
    let mut client = proxy.client_at(7).await;
    let target = "/eth/v1/beacon/headers/head";
    client.send(format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n{}\r\n", traced("01"))).await;
    assert_eq!(client.response().await.status, 200);
    client.send(format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", traced("01"))).await;
    client.response().await;
    let span = &collector.requests(1).await[0];
    assert_eq!((span.trace_id(), span.parent()), (TRACE.to_owned(), SPAN.to_owned()));
    assert_eq!(span.0.name, format!("GET {}", span.word("steadfast.route")));
    for (key, value) in [
        ("steadfast.layer", "cl"),
        ("steadfast.nodes", "cl-1"),
        ("steadfast.outcome", "result"),
        ("http.request.method", "GET"),
        ("rpc.system", ""),
    ] {
        assert_eq!(span.word(key), value, "{key}");
    }
    assert_eq!(names(&collector.under(span)), ["attempt cl-1"]);
}
