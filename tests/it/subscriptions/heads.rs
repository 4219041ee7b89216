use serde_json::{Value, json};
use steadfast::{
    call::filter_calls::{AnswerRoom, Keeper, KeeperReply},
    devnet::{Fault, Options},
    domain::rpc::{self, Body},
    memory::Account,
    view::{Closing, Outbound, SubscriptionRefusal},
};
use tokio::time::{Duration, sleep};

use super::{
    logs::{PATIENT, no_logs},
    setup::{POLLED, Setup, a_while},
};
use crate::common::client::call;

/// Numbers and hashes of headers, after checking that they are connected, reorganisations included.
pub(super) fn connected(headers: &[Value]) -> Vec<(String, String)> {
    let mut seen: Vec<Value> = Vec::new();
    for header in headers {
        let parent = &header["parentHash"];
        if let Some(last) = seen.last() {
            assert_ne!(last["hash"], header["hash"], "no header twice in a row");
            let is_known = seen.iter().any(|one| one["hash"] == *parent || one["parentHash"] == *parent);
            assert!(last["hash"] == *parent || is_known, "{header} follows from nothing");
        }
        seen.push(header.clone());
    }
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    headers.iter().map(|header| (text(&header["number"]), text(&header["hash"]))).collect()
}

impl Setup {
    fn canonical(&self, first: u64) -> Vec<(String, String)> {
        let chain = self.devnet.chain();
        let block = |number| (format!("{number:#x}"), chain.block(number).unwrap().hash.to_string());
        (first..=chain.head().number).map(block).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn notifications_come_between_activation_and_end_only() {
    let setup = Setup::new("").await;
    let mut other = setup.client();
    other.subscribe(r#"["newHeads"]"#).await;
    let client = setup.client();
    for params in [r#"["newHeads"]"#, r#"["logs"]"#] {
        let prepared =
            setup.views.prepare("eth_subscribe", Some(params.as_bytes()), &client.mailbox, None).await.unwrap();
        setup.devnet.chain().mine(1);
        other.some().await;
        a_while().await;
        assert_eq!(client.next(), None, "not activated");
        client.mailbox.push_answer("answer".into());
        let subscription = prepared.activate();
        let number = setup.devnet.chain().mine(1).number;
        other.some().await;
        a_while().await;
        assert!(matches!(client.next(), Some(Outbound::Answer(..))));
        for (_, note) in client.notes() {
            let shown = note.get("blockNumber").unwrap_or(&note["number"]);
            assert_eq!(*shown, json!(format!("{number:#x}")), "only what came since: {note}");
        }
        setup.devnet.chain().mine(1);
        other.some().await;
        a_while().await;
        assert!(!client.notes().is_empty());
        setup.devnet.chain().mine(1);
        drop(subscription);
        client.mailbox.push_answer("gone".into());
        a_while().await;
        assert_eq!(client.next(), Some(Outbound::Answer("gone".into(), None)));
        assert_eq!(client.next(), None);
        other.notes();
    }
}

#[tokio::test(start_paused = true)]
async fn headers_are_the_nodes_own_and_come_once_each() {
    for settings in ["", POLLED] {
        let setup = Setup::new(settings).await;
        let (mut one, mut two) = (setup.client(), setup.client());
        let ids = [one.subscribe(r#"["newHeads"]"#).await, one.subscribe(r#"["newHeads",null]"#).await];
        two.subscribe(r#"["newHeads"]"#).await;
        assert_ne!(ids[0], ids[1]);
        assert!(setup.shows(r#"steadfast_subscriptions{kind="newHeads"} 3"#));
        let number = setup.devnet.chain().mine(1).number;
        a_while().await;
        let mut block = setup.ask(0, "eth_getBlockByNumber", &json!([format!("{number:#x}"), false])).await;
        for field in ["transactions", "uncles", "withdrawals", "size"] {
            block.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(one.notes(), ids.clone().map(|id| (id, block.clone())));
        assert_eq!(two.results(), [block]);
        assert!(setup.shows(r#"steadfast_notifications_total{kind="newHeads"} 3"#));
        one.unsubscribe(&ids[0]);
        setup.devnet.chain().mine(3);
        a_while().await;
        connected(&two.results());
        assert_eq!(one.notes().into_iter().map(|(id, _)| id).collect::<Vec<_>>(), vec![ids[1].clone(); 3]);
        drop((one, two));
        assert!(setup.shows(r#"steadfast_subscriptions{kind="newHeads"} 0"#));
    }
}

#[tokio::test(start_paused = true)]
async fn heads_are_connected_over_failover_reorganisation_and_return() {
    let options = Options { block_time: Some(Duration::from_secs(2)), ..Options::default() };
    let setup = Setup::with(options, "").await;
    let mut client = setup.client();
    client.subscribe(r#"["newHeads"]"#).await;
    let first = setup.devnet.chain().head().number + 1;
    sleep(Duration::from_secs(7)).await;
    setup.devnet.el(0).set_fault(Fault::Down);
    sleep(Duration::from_secs(7)).await;
    setup.devnet.chain().reorg(2).unwrap();
    sleep(Duration::from_secs(6)).await;
    setup.heal();
    setup.active(0).await;
    sleep(Duration::from_secs(6)).await;
    let told = connected(&client.results());
    let canonical = setup.canonical(first);
    assert_eq!(told.last(), canonical.last());
    assert!(canonical.iter().all(|block| told.iter().filter(|one| *one == block).count() == 1));
    assert_eq!(told.len(), canonical.len() + 2, "and the two that were taken out");
}

#[tokio::test(start_paused = true)]
async fn heads_never_wait_for_logs() {
    let setup = Setup::new(PATIENT).await;
    let (mut heads, mut logs) = (setup.client(), setup.client());
    heads.subscribe(r#"["newHeads"]"#).await;
    logs.subscribe(r#"["logs",{}]"#).await;
    setup.all_nodes(&no_logs());
    let first = setup.devnet.chain().mine(3).number - 2;
    a_while().await;
    assert_eq!(connected(&heads.results()), setup.canonical(first));
    assert_eq!(logs.next(), None);
    setup.heal();
    a_while().await;
    let numbers: Vec<Value> = logs.results().iter().map(|log| log["blockNumber"].clone()).collect();
    assert!(numbers.is_sorted_by_key(|number| number.as_str().unwrap().to_owned()) && numbers.len() >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_replaces_the_nodes_is_no_event() {
    let mut setup = Setup::new("").await;
    let mut client = setup.client();
    client.subscribe(r#"["newHeads"]"#).await;
    let mut pending = setup.client();
    pending.subscribe(r#"["newPendingTransactions"]"#).await;
    let first = setup.devnet.chain().mine(2).number - 1;
    a_while().await;
    let (pool, _running) = setup.another_pool().await;
    setup.views.move_to(pool, Duration::from_secs(5));
    setup.probing = None;
    a_while().await;
    let hash = setup.devnet.chain().submit(vec![2, 1]).unwrap().to_string();
    setup.devnet.chain().mine(2);
    a_while().await;
    assert_eq!(pending.results(), [hash]);
    assert_eq!(connected(&client.results()), setup.canonical(first));
}

#[tokio::test(start_paused = true)]
async fn when_the_follower_ends_clients_close_behind_their_backlog() {
    let mut setup = Setup::new("").await;
    let (mut heads, mut logs) = (setup.client(), setup.client());
    heads.subscribe(r#"["newHeads"]"#).await;
    logs.subscribe(r#"["logs"]"#).await;
    let late = setup.client();
    let prepared = setup.views.prepare("eth_subscribe", Some(br#"["newHeads"]"#), &late.mailbox, None).await.unwrap();
    setup.devnet.chain().mine(1);
    a_while().await;
    setup.running = None;
    a_while().await;
    assert!(matches!(heads.next(), Some(Outbound::Notification(_))));
    while let Some(Outbound::Notification(_)) = logs.next() {}
    let _subscription = prepared.activate();
    for client in [heads, logs, late] {
        assert!(client.is_closed(Closing::Gone));
    }
}

#[tokio::test(start_paused = true)]
async fn filters_end_with_the_task_that_tells_the_chain() {
    let mut setup = Setup::new("").await;
    let filters = setup.views.filters().clone();
    let ask = async |method: &str, params: &str| {
        let text = call(1, method, params);
        let Ok(Body::Single(Ok(request))) = rpc::peek(text.as_bytes(), 1) else { panic!("{text}") };
        match filters.answer(&request, &Account::unlimited(), AnswerRoom::ENDLESS).await {
            KeeperReply::Answer(answer) => {
                let (text, _) = answer.in_memory().unwrap();
                serde_json::from_slice::<Value>(text).unwrap()["result"].to_string()
            }
            KeeperReply::Refused(refusal) => refusal.message(),
            KeeperReply::Logs(params) => panic!("{params}"),
        }
    };
    let ids = [ask("eth_newBlockFilter", "[]").await, ask("eth_newFilter", "[{}]").await];
    let transactions = ask("eth_newPendingTransactionFilter", "[]").await;
    setup.running = None;
    a_while().await;
    for id in ids {
        assert_eq!(ask("eth_getFilterChanges", &format!("[{id}]")).await, "filter not found");
    }
    assert_eq!(ask("eth_getFilterChanges", &format!("[{transactions}]")).await, "[]", "they are not of the chain");
}

#[tokio::test(start_paused = true)]
async fn while_nobody_subscribes_no_node_is_asked_for_anything() {
    // Nobody pushes here, so what somebody wants is fetched, if two blocks come between two probes.
    let setup = Setup::new(POLLED).await;
    let asked = || (setup.count("eth_getLogs"), setup.count("eth_getBlockByHash"));
    let mut client = setup.client();
    let ids = [client.subscribe(r#"["logs"]"#).await, client.subscribe(r#"["newHeads"]"#).await];
    setup.devnet.chain().mine(2);
    a_while().await;
    assert_eq!(asked(), (2, 1));
    client.unsubscribe(&ids[0]);
    setup.devnet.chain().mine(2);
    a_while().await;
    assert_eq!(asked(), (2, 2));
    client.unsubscribe(&ids[1]);
    setup.devnet.chain().mine(3);
    a_while().await;
    setup.devnet.chain().reorg(2).unwrap();
    a_while().await;
    assert_eq!(asked(), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn wrong_subscription_is_refused_with_a_reason() {
    let setup = Setup::new("").await;
    let mut client = setup.client();
    for params in ["[]", "[1]", "{}", r#"["newHeads",{"x":1}]"#, r#"["logs",{},1]"#, r#"["logs",{"topics":1}]"#, "x"] {
        let refused = client.try_subscribe("eth_subscribe", params).await.unwrap_err();
        assert!(matches!(refused, SubscriptionRefusal::Params(_)), "{params}: {refused:?}");
    }
    for method in ["eth_call", "a\"b_subscribe", "é_subscribe"] {
        let refused = client.try_subscribe(method, "[]").await.unwrap_err();
        assert!(matches!(refused, SubscriptionRefusal::Unsupported(_)), "{method}: {refused:?}");
    }
}
