use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use steadfast::{
    devnet::Fault,
    domain::node_id::NodeId,
    view::{Closing, Mailbox, Outbound, SubscriptionRefusal},
};
use tokio::time::{Instant, sleep};

use super::setup::{Client, POLLED, Setup, a_while};
use crate::common::until;

const PENDING: &str = r#"["newPendingTransactions"]"#;

impl Setup {
    /// Subscriptions of ours at a node, besides the one that listens to heads.
    fn passed(&self, node: usize) -> u64 {
        self.devnet.el(node).subscriptions().saturating_sub(1)
    }

    fn submit(&self, name: u64) -> String {
        self.devnet.chain().submit([&[0x02][..], &name.to_be_bytes()].concat()).unwrap().to_string()
    }
}

async fn pending(client: &mut Client) -> String {
    client.subscribe(PENDING).await
}

/// The places of an eager node's notifications in their order.
fn places(hashes: &[Value]) -> Vec<u64> {
    hashes.iter().map(|hash| u64::from_str_radix(&hash.as_str().unwrap()[50..], 16).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn clients_share_one_subscription_that_ends_with_the_last() {
    let setup = Setup::new("").await;
    let (mut one, mut two, mut other) = (setup.client(), setup.client(), setup.client());
    let ids = [pending(&mut one).await, pending(&mut one).await];
    pending(&mut two).await;
    assert_eq!((setup.passed(0), setup.passed(1)), (1, 0));
    other.subscribe(r#"["newPendingTransactions",true]"#).await;
    assert_eq!(setup.passed(0), 2);
    let hash = setup.submit(1);
    a_while().await;
    assert_eq!(one.notes(), ids.clone().map(|id| (id, Value::from(hash.clone()))));
    assert_eq!(two.results(), std::slice::from_ref(&hash));
    assert_eq!(other.results()[0]["hash"], hash);
    one.unsubscribe(&ids[0]);
    drop((two, other));
    setup.submit(2);
    a_while().await;
    assert_eq!(one.notes().len(), 1);
    assert_eq!(setup.passed(0), 1);
    one.unsubscribe(&ids[1]);
    until("it is left upstream", async || setup.passed(0) == 0).await;
}

#[tokio::test(start_paused = true)]
async fn subscription_that_nodes_refuse_gets_their_words() {
    let setup = Setup::new("").await;
    let mut client = setup.client();
    let SubscriptionRefusal::Node(error) = client.try_subscribe("eth_subscribe", r#"["novelty"]"#).await.unwrap_err()
    else {
        panic!("not the node's");
    };
    let error: Value = serde_json::from_slice(&error).unwrap();
    assert!(error["message"].as_str().unwrap().contains("novelty"), "{error}");
    assert_eq!([0, 1].map(|node| setup.devnet.el(node).count("eth_subscribe")), [2, 2], "both were asked");
    assert_eq!(setup.passed(0) + setup.passed(1), 0);
}

#[tokio::test(start_paused = true)]
async fn without_links_none_is_made_and_a_link_that_is_down_awaited() {
    let setup = Setup::new(POLLED).await;
    let refused = setup.client().try_subscribe("eth_subscribe", PENDING).await.unwrap_err();
    assert!(matches!(refused, SubscriptionRefusal::Unsupported(_)));

    let setup = Setup::new("").await;
    setup.all_nodes(&Fault::Down);
    a_while().await;
    let refused = setup.client().try_subscribe("eth_subscribe", PENDING).await.unwrap_err();
    assert_eq!(refused, SubscriptionRefusal::NoNode);
    let (mut client, heal) = (setup.client(), async {
        sleep(Duration::from_secs(1)).await;
        setup.heal();
    });
    tokio::join!(pending(&mut client), heal);
    let hash = setup.submit(1);
    a_while().await;
    assert_eq!(client.results(), [hash]);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_goes_where_the_calls_go_and_back() {
    let setup = Setup::new("").await;
    let mut client = setup.client();
    pending(&mut client).await;
    setup.devnet.el(0).set_fault(Fault::Down);
    setup.active(1).await;
    until("it runs at the other node", async || setup.passed(1) == 1).await;
    let hash = setup.submit(1);
    a_while().await;
    assert_eq!(client.results(), [hash]);
    setup.heal();
    setup.active(0).await;
    until("it runs at home", async || setup.passed(0) == 1 && setup.passed(1) == 0).await;
    let hash = setup.submit(2);
    a_while().await;
    assert_eq!(client.results(), [hash]);
}

#[tokio::test(start_paused = true)]
async fn at_a_switch_nothing_is_missed_and_nothing_told_twice() {
    for setup in [Setup::new("").await, Setup::delaying().await] {
        goes_to_and_fro(&setup).await;
    }
}

async fn goes_to_and_fro(setup: &Setup) {
    let mut client = setup.client();
    pending(&mut client).await;
    let mut submitted = Vec::new();
    // Calls move while the links of both nodes are well, and each takes its time to answer.
    setup.all_nodes(&Fault::slow(100));
    for (cordoned, node) in [(true, 1), (false, 0), (true, 1)] {
        setup.pool.cordon("el-1", cordoned).await;
        for _ in 0..1000 {
            submitted.push(setup.submit(submitted.len() as u64));
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(
            (setup.pool.snapshot().active, setup.passed(node), setup.passed(1 - node)),
            (Some(NodeId(node)), 1, 0)
        );
    }
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    for hash in client.results() {
        *told.entry(hash.as_str().unwrap().to_owned()).or_default() += 1;
    }
    let missed = submitted.iter().filter(|hash| !told.contains_key(*hash)).count();
    let twice = told.values().filter(|count| **count > 1).count();
    assert_eq!((missed, twice, told.len()), (0, 0, submitted.len()));
}

#[tokio::test(start_paused = true)]
async fn after_a_reload_a_node_is_awaited_as_its_settings_say() {
    let setup = Setup::new("").await;
    setup.all_nodes(&Fault::Down);
    a_while().await;
    for seconds in [1, 20] {
        setup.views.move_to(setup.pool.clone(), Duration::from_secs(seconds));
        let start = Instant::now();
        let refused = setup.client().try_subscribe("eth_subscribe", PENDING).await.unwrap_err();
        assert_eq!((refused, start.elapsed().as_secs()), (SubscriptionRefusal::NoNode, seconds));
    }
}

#[tokio::test(start_paused = true)]
async fn wishes_are_bounded_in_number_and_in_length() {
    let setup = Setup::new("").await;
    let mut clients: Vec<Client> = Vec::new();
    let wish = |number: usize| format!("[\"newPendingTransactions\",false,{number}]");
    for number in 0..1024 {
        let mut client = setup.client();
        client.subscribe(&wish(number)).await;
        clients.push(client);
    }
    let mut late = setup.client();
    let refused = late.try_subscribe("eth_subscribe", &wish(1024)).await.unwrap_err();
    assert_eq!(refused, SubscriptionRefusal::Limit("different_subscriptions"));
    late.subscribe(&wish(7)).await;
    // What everybody has is there for everybody, however it is written.
    for usual in [PENDING, "[ \"newPendingTransactions\" , true ]", "[\"syncing\"]", "[ \"syncing\"]"] {
        late.subscribe(usual).await;
    }
    clients.pop();
    late.subscribe(&wish(1024)).await;
    let long = wish(0).replace('[', &format!("[{}", " ".repeat(64 << 10)));
    let refused = late.try_subscribe("eth_subscribe", &long).await.unwrap_err();
    assert_eq!(refused, SubscriptionRefusal::Limit("subscription_params"));
}

#[tokio::test(start_paused = true)]
async fn no_client_takes_all_the_different_wishes_of_the_others() {
    let setup = Setup::new("").await;
    let wish = |number: usize| format!("[\"newPendingTransactions\",false,{number}]");
    let mut greedy = setup.client();
    for number in 0..16 {
        greedy.subscribe(&wish(number)).await;
    }
    // The same one again is no different one, and others have theirs.
    greedy.subscribe(&wish(3)).await;
    greedy.subscribe(PENDING).await;
    let refused = greedy.try_subscribe("eth_subscribe", &wish(16)).await.unwrap_err();
    assert_eq!(refused, SubscriptionRefusal::Limit("different_subscriptions"));
    setup.client().subscribe(&wish(16)).await;
    // A refused one takes no place, and one that has ended gives its place back.
    drop(greedy);
    let mut other = setup.client();
    for number in 0..16 {
        other.subscribe(&wish(number)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn notifications_around_the_answer_come_in_order_and_once() {
    let setup = Setup::new("").await;
    for (before, after) in [(0, 1), (0, 5), (5, 0), (3, 300)] {
        setup.all_nodes(&Fault::eager(before, after));
        // Two that ask at the same time both hear it.
        let (mut one, mut two) = (setup.client(), setup.client());
        tokio::join!(pending(&mut one), pending(&mut two));
        a_while().await;
        let expected: Vec<u64> = (0..before + after).collect();
        for client in [&one, &two] {
            assert_eq!(places(&client.results()), expected, "{before} before the answer and {after} behind it");
        }
        // One that comes later is not told it again.
        let mut late = setup.client();
        pending(&mut late).await;
        let hash = setup.submit(before * 1000 + after);
        a_while().await;
        assert_eq!(late.results(), [hash]);
        drop((one, two, late));
        until("it is left upstream", async || setup.passed(0) == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn early_notifications_wait_for_the_clients_answer() {
    let setup = Setup::new("").await;
    setup.all_nodes(&Fault::eager(2, 2));
    let client = setup.client();
    let prepare = || setup.views.prepare("eth_subscribe", Some(PENDING.as_bytes()), &client.mailbox, None);
    let (early, dropped) = (prepare().await.unwrap(), prepare().await.unwrap());
    setup.submit(1);
    a_while().await;
    assert_eq!(client.next(), None, "nothing comes before the answer");
    assert!(!setup.shows(r#"steadfast_subscriptions{kind="other"} 1"#));
    drop(dropped);
    let held = early.activate();
    let told: Vec<Value> = client.notes().into_iter().map(|(_, result)| result).collect();
    assert_eq!((places(&told[..4]), told.len()), (vec![0, 1, 2, 3], 5));
    setup.submit(2);
    a_while().await;
    assert_eq!(client.notes().len(), 1);
    assert!(setup.shows(r#"steadfast_subscriptions{kind="other"} 1"#));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_client_with_too_much_waiting_for_its_answer_is_closed() {
    let setup = Setup::new("").await;
    setup.all_nodes(&Fault::eager(0, 1000));
    let mut client = setup.client();
    client.mailbox = Mailbox::new(100_000);
    let prepared = setup.views.prepare("eth_subscribe", Some(PENDING.as_bytes()), &client.mailbox, None).await.unwrap();
    a_while().await;
    assert_eq!(client.next(), Some(Outbound::Close(Closing::Slow)));
    assert_eq!(client.mailbox.waiting_bytes(), 0);
    drop(prepared);
}

const SYNCING: &str = r#"["syncing"]"#;

#[tokio::test(start_paused = true)]
async fn each_client_is_told_a_state_once_also_across_nodes() {
    let setup = Setup::new("").await;
    setup.all_nodes(&Fault::eager(0, 1));
    let no = Value::Bool(false);
    for wish in [SYNCING, r#"["syncing", null]"#] {
        let (mut one, mut two) = (setup.client(), setup.client());
        one.subscribe(wish).await;
        a_while().await;
        assert_eq!(one.results(), std::slice::from_ref(&no));
        two.subscribe(wish).await;
        a_while().await;
        assert_eq!((one.results(), two.results()), (vec![], vec![no.clone()]));
        // The node says it again when its link is back, and so does another node.
        setup.pool.nodes[0].link.as_ref().unwrap().cut("by the test");
        a_while().await;
        until("it runs again", async || setup.passed(0) + setup.passed(1) == 1).await;
        setup.pool.cordon("el-1", true).await;
        until("it runs at the other node", async || setup.passed(1) == 1 && setup.passed(0) == 0).await;
        setup.pool.cordon("el-1", false).await;
        until("it runs at home", async || setup.passed(0) == 1 && setup.passed(1) == 0).await;
        assert_eq!((one.results(), two.results()), (vec![], vec![]));
        // Another state is news, to those who are there and to those who come.
        setup.all_nodes(&Fault::Syncing);
        a_while().await;
        let mut three = setup.client();
        three.subscribe(wish).await;
        for client in [&one, &two, &three] {
            let heard = client.results();
            assert_eq!((heard.len(), &heard[0]["syncing"]), (1, &Value::Bool(true)));
        }
        setup.heal();
        setup.all_nodes(&Fault::eager(0, 1));
        a_while().await;
        for client in [&one, &two, &three] {
            assert_eq!(client.results().last(), Some(&no));
        }
        drop((one, two, three));
        until("it is left upstream", async || setup.passed(0) + setup.passed(1) == 0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn subscriber_after_a_switch_gets_the_new_nodes_state() {
    let setup = Setup::new("").await;
    let (mut one, mut early, mut late) = (setup.client(), setup.client(), setup.client());
    setup.devnet.el(0).set_fault(Fault::eager(0, 1));
    one.subscribe(SYNCING).await;
    a_while().await;
    assert_eq!(one.results(), [Value::Bool(false)]);
    // The other node tells no state before it changes.
    setup.pool.cordon("el-1", true).await;
    until("it runs at the other node", async || setup.passed(1) == 1 && setup.passed(0) == 0).await;
    early.subscribe(SYNCING).await;
    a_while().await;
    assert_eq!((one.results(), early.results()), (vec![], vec![]), "nobody knows the state of the other node");
    // Back at the first one, which says what it said before: that is news to who came meanwhile.
    setup.pool.cordon("el-1", false).await;
    until("it runs at home", async || setup.passed(0) == 1 && setup.passed(1) == 0).await;
    late.subscribe(SYNCING).await;
    a_while().await;
    let no = vec![Value::Bool(false)];
    assert_eq!((one.results(), early.results(), late.results()), (vec![], no.clone(), no));
}

#[tokio::test(start_paused = true)]
async fn subscriber_after_a_loss_does_not_get_the_old_state() {
    let setup = Setup::new("").await;
    let (mut one, mut late) = (setup.client(), setup.client());
    setup.all_nodes(&Fault::eager(0, 1));
    one.subscribe(SYNCING).await;
    a_while().await;
    assert_eq!(one.results(), [Value::Bool(false)]);
    setup.heal();
    setup.devnet.el(1).set_fault(Fault::Down);
    setup.pool.nodes[0].link.as_ref().unwrap().cut("by the test");
    until("it is away", async || setup.passed(0) == 0).await;
    until("it runs again", async || setup.passed(0) == 1).await;
    late.subscribe(SYNCING).await;
    a_while().await;
    assert_eq!((one.results(), late.results()), (vec![], vec![]));
    setup.devnet.el(0).set_fault(Fault::Syncing);
    a_while().await;
    for client in [&one, &late] {
        assert_eq!(client.results()[0]["syncing"], true);
    }
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_node_that_is_left_is_told_to_nobody() {
    let setup = Setup::new("").await;
    let mut one = setup.client();
    setup.all_nodes(&Fault::eager(0, 1));
    one.subscribe(SYNCING).await;
    a_while().await;
    setup.pool.cordon("el-1", true).await;
    until("both run", async || setup.passed(1) == 1 && setup.passed(0) == 1).await;
    setup.devnet.el(0).set_fault(Fault::Syncing);
    until("the first one is left", async || setup.passed(0) == 0).await;
    assert_eq!(one.results(), [Value::Bool(false)]);
}
