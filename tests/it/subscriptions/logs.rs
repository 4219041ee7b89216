use std::collections::BTreeSet;

use alloy_primitives::BloomInput;
use serde_json::{Value, json};
use steadfast::{
    devnet::Fault,
    view::{Closing, Outbound},
};

use tokio::time::{Duration, Instant, sleep};

use super::setup::{Client, POLLED, Setup, a_while};

/// Says which log it is.
fn name(log: &Value) -> (String, String) {
    (log["blockHash"].as_str().unwrap().to_owned(), log["logIndex"].as_str().unwrap().to_owned())
}

/// The logs that stand after all of what was told, in order, after checking that only the newest
/// were taken back.
pub(super) fn standing(told: &[Value]) -> Vec<Value> {
    let mut stand: Vec<Value> = Vec::new();
    for log in told {
        if log["removed"] == true {
            let last = stand.pop().expect("it was told before");
            assert_eq!(name(&last), name(log), "newest first");
            let as_it_was = {
                let mut log = log.clone();
                log["removed"] = false.into();
                log
            };
            assert_eq!(last, as_it_was, "nothing else differs");
        } else {
            assert!(stand.iter().all(|other| name(other) != name(log)), "told twice: {log}");
            stand.push(log.clone());
        }
    }
    stand
}

impl Setup {
    /// What a node says are the logs from block `first` on.
    pub(super) async fn logs_since(&self, first: u64, filter: &Value) -> Vec<Value> {
        let head = self.devnet.chain().head().number;
        if first > head {
            return Vec::new();
        }
        let mut filter = filter.clone();
        filter["fromBlock"] = format!("{first:#x}").into();
        filter["toBlock"] = format!("{head:#x}").into();
        self.ask(0, "eth_getLogs", &json!([filter])).await.as_array().unwrap().clone()
    }
}

/// Nodes lose the answers with logs, however they are asked for them.
pub(super) fn no_logs() -> Fault {
    Fault::cut_answer(&["eth_getLogs", "eth_getBlockReceipts"])
}

/// Subscribers wait for long.
pub(super) const PATIENT: &str = "chain = { timeout = \"1h\" }\n";

pub(super) async fn to_logs(client: &mut Client, filter: &Value) {
    client.subscribe(&json!(["logs", filter]).to_string()).await;
}

#[tokio::test(start_paused = true)]
async fn clients_hear_their_filters_logs_and_blocks_are_asked_once() {
    for settings in ["", POLLED] {
        let setup = Setup::new(settings).await;
        let chain = setup.devnet.chain();
        let contracts: Vec<String> = chain.contracts().iter().map(|one| format!("{one:#x}")).collect();
        let approval = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925";
        let filters = [
            json!({}),
            json!({"address": contracts[0]}),
            json!({"address": [contracts[0], contracts[1]], "topics": [approval]}),
            json!({"topics": [[approval], null]}),
            json!({"address": contracts[2]}),
        ];
        let mut clients = Vec::new();
        for filter in &filters {
            let mut client = setup.client();
            to_logs(&mut client, filter).await;
            clients.push(client);
        }
        let mut numbered = setup.client();
        let first = chain.head().number + 1;
        to_logs(&mut numbered, &json!({"fromBlock": format!("{:#x}", first + 2)})).await;
        chain.mine(10);
        a_while().await;
        for (client, filter) in clients.iter().zip(&filters) {
            let logs = setup.logs_since(first, filter).await;
            assert!(!logs.is_empty());
            assert_eq!(client.results(), logs, "{filter}");
        }
        assert_eq!(numbered.results(), setup.logs_since(first + 2, &json!({})).await);
        assert_eq!(setup.count("eth_getLogs"), 10 + clients.len() as u64 + 1);
        assert!(setup.shows(r#"steadfast_subscriptions{kind="logs"} 6"#));
    }
}

#[tokio::test(start_paused = true)]
async fn blocks_whose_bloom_rules_all_out_are_not_asked_for() {
    let setup = Setup::new("").await;
    let mut client = setup.client();
    to_logs(&mut client, &json!({"address": format!("0x{}", "12".repeat(20))})).await;
    setup.devnet.chain().mine(10);
    a_while().await;
    let asked = setup.count("eth_getLogs");
    assert_eq!(client.next(), None);
    assert!((1..10).contains(&asked), "the first, and now and then one: {asked}");
    for (trust, expected) in [("always", 0), ("never", 10)] {
        let setup = Setup::new(&format!("chain = {{ trust_bloom = \"{trust}\" }}\n")).await;
        let mut client = setup.client();
        to_logs(&mut client, &json!({"address": format!("0x{}", "12".repeat(20))})).await;
        setup.devnet.chain().mine(10);
        a_while().await;
        assert_eq!((client.next(), setup.count("eth_getLogs")), (None, expected), "{trust}");
    }
}

#[tokio::test(start_paused = true)]
async fn removed_logs_come_first_newest_first_and_need_no_node() {
    let setup = Setup::new(PATIENT).await;
    let mut client = setup.client();
    to_logs(&mut client, &json!({})).await;
    let first = setup.devnet.chain().mine(4).number - 3;
    a_while().await;
    let before = client.results();
    setup.all_nodes(&no_logs());
    setup.devnet.chain().reorg(2).unwrap();
    a_while().await;
    let removed = client.results();
    assert!(removed.iter().all(|log| log["removed"] == true));
    let lost: BTreeSet<&str> = removed.iter().filter_map(|log| log["blockHash"].as_str()).collect();
    assert_eq!(lost.len(), 2);
    setup.heal();
    a_while().await;
    let told = [before, removed, client.results()].concat();
    assert_eq!(standing(&told), setup.logs_since(first, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_hears_of_no_removal_of_what_it_was_not_told() {
    let setup = Setup::new("").await;
    let mut early = setup.client();
    to_logs(&mut early, &json!({})).await;
    setup.devnet.chain().mine(3);
    a_while().await;
    let mut late = setup.client();
    to_logs(&mut late, &json!({})).await;
    let height = setup.devnet.chain().head().number;
    setup.devnet.chain().reorg(2).unwrap();
    a_while().await;
    assert_eq!(late.results(), setup.logs_since(height - 1, &json!({})).await);
    assert_eq!(standing(&early.results()), setup.logs_since(height - 2, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn a_block_that_goes_before_its_logs_were_had_is_never_told() {
    let setup = Setup::new(PATIENT).await;
    let mut client = setup.client();
    to_logs(&mut client, &json!({})).await;
    setup.all_nodes(&no_logs());
    let first = setup.devnet.chain().mine(2).number - 1;
    a_while().await;
    setup.devnet.chain().reorg(2).unwrap();
    a_while().await;
    setup.heal();
    a_while().await;
    assert_eq!(client.results(), setup.logs_since(first, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn logs_come_from_another_node_that_has_the_block() {
    let setup = Setup::new("").await;
    let mut client = setup.client();
    to_logs(&mut client, &json!({})).await;
    setup.devnet.el(0).set_fault(no_logs());
    let first = setup.devnet.chain().mine(1).number;
    client.some().await;
    let told = client.results();
    setup.heal();
    assert_eq!(told, setup.logs_since(first, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_falls_silent_over_a_blocks_logs_costs_seconds() {
    let setup = Setup::new("").await;
    let (mut heads, mut client) = (setup.client(), setup.client());
    heads.subscribe(r#"["newHeads"]"#).await;
    to_logs(&mut client, &json!({})).await;
    setup.devnet.el(0).set_fault(Fault::slow(500));
    let first = setup.devnet.chain().mine(1).number;
    heads.some().await;
    setup.devnet.el(0).set_fault(Fault::Hang);
    let start = Instant::now();
    client.some().await;
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    assert!(start.elapsed() > Duration::from_millis(400), "it was asked first");
    let told = client.results();
    setup.heal();
    a_while().await;
    assert_eq!(told, setup.logs_since(first, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_later_is_asked_for_logs_beside_one_that_hangs() {
    let setup = Setup::new("chain = { timeout = \"2s\" }\n").await;
    let (mut heads, mut client) = (setup.client(), setup.client());
    heads.subscribe(r#"["newHeads"]"#).await;
    to_logs(&mut client, &json!({})).await;
    setup.devnet.el(1).set_fault(Fault::late(700));
    setup.devnet.el(0).set_fault(Fault::slow(500));
    let first = setup.devnet.chain().mine(1).number;
    heads.some().await;
    setup.devnet.el(0).set_fault(Fault::Hang);
    let start = Instant::now();
    client.some().await;
    assert!(start.elapsed() < Duration::from_millis(1000), "{:?}", start.elapsed());
    let told = client.results();
    setup.heal();
    a_while().await;
    assert_eq!(told, setup.logs_since(first, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn a_gap_closes_only_clients_that_count_on_completeness() {
    let setup = Setup::new("chain = { window = 16, max_backfill = 8 }\n").await;
    let (mut heads, mut logs) = (setup.client(), setup.client());
    heads.subscribe(r#"["newHeads"]"#).await;
    to_logs(&mut logs, &json!({})).await;
    let first = setup.devnet.chain().mine(1).number;
    a_while().await;
    setup.all_nodes(&Fault::Down);
    a_while().await;
    setup.devnet.chain().mine(20);
    setup.heal();
    setup.active(0).await;
    a_while().await;
    let mut told = Vec::new();
    while let Some(Outbound::Notification(notification)) = logs.next() {
        told.push(notification);
    }
    assert!(!told.is_empty() && logs.is_closed(Closing::Gap), "behind what was told before");
    assert_eq!(heads.results().len(), 2);
    let mut newcomer = setup.client();
    to_logs(&mut newcomer, &json!({})).await;
    setup.devnet.chain().mine(1);
    a_while().await;
    assert_eq!(newcomer.results(), setup.logs_since(first + 21, &json!({})).await);
    assert_eq!(heads.results().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn logs_that_cannot_be_had_for_a_whole_window_are_a_gap() {
    let setup = Setup::new("chain = { window = 16, max_backfill = 8, timeout = \"1h\" }\n").await;
    let mut client = setup.client();
    to_logs(&mut client, &json!({})).await;
    setup.all_nodes(&no_logs());
    for _ in 0..4 {
        setup.devnet.chain().mine(4);
        a_while().await;
    }
    assert_eq!(client.next(), None);
    setup.devnet.chain().mine(1);
    a_while().await;
    assert!(client.is_closed(Closing::Gap));
}

/// Subscribers to each of the pretend contracts, and one to everything.
struct Readers {
    of: Vec<(String, Client)>,
    all: Client,
}

impl Readers {
    async fn of(setup: &Setup) -> Self {
        let mut of = Vec::new();
        for contract in setup.devnet.chain().contracts() {
            let mut client = setup.client();
            to_logs(&mut client, &json!({"address": format!("{contract:#x}")})).await;
            of.push((format!("{contract:#x}"), client));
        }
        let mut all = setup.client();
        to_logs(&mut all, &json!({})).await;
        Self { of, all }
    }

    /// Everybody has heard everything from block `first` on.
    async fn have_heard(&self, setup: &Setup, first: u64) {
        assert_eq!(self.all.results(), setup.logs_since(first, &json!({})).await);
        for (contract, client) in &self.of {
            assert_eq!(client.results(), setup.logs_since(first, &json!({"address": contract})).await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_without_logs_closes_some_and_delays_no_others() {
    let setup = Setup::new("").await;
    let chain = setup.devnet.chain();
    let readers = Readers::of(&setup).await;
    // A block that does not concern everybody.
    let bad = loop {
        let number = chain.head().number + 1;
        setup.all_nodes(&Fault::missing_logs(number));
        let block = chain.mine(1);
        let are_in: BTreeSet<bool> =
            chain.contracts().iter().map(|one| block.bloom.contains_input(BloomInput::Raw(&one[..]))).collect();
        if are_in.len() == 2 {
            break block;
        }
        setup.heal();
        a_while().await;
        readers.have_heard(&setup, number).await;
    };
    chain.mine(3);
    sleep(Duration::from_millis(500)).await;
    let mut concerned = vec![&readers.all];
    for (contract, client) in &readers.of {
        let address = chain.contracts().iter().find(|one| format!("{one:#x}") == *contract).unwrap();
        if bad.bloom.contains_input(BloomInput::Raw(&address[..])) {
            concerned.push(client);
        } else {
            let logs = setup.logs_since(bad.number + 1, &json!({"address": contract})).await;
            assert_eq!(client.results(), logs, "at once");
        }
    }
    assert!(concerned.iter().all(|client| client.next().is_none()), "they wait");
    sleep(Duration::from_secs(2)).await;
    assert!(concerned.iter().all(|client| client.is_closed(Closing::Gap)));
    assert!(readers.of.iter().filter(|(_, client)| client.next().is_none()).count() == 4 - concerned.len());
    assert!(setup.shows(r#"steadfast_logs_given_up_total{network="default"} 1"#));
    assert!(setup.count("eth_getLogs") < 120, "{}", setup.count("eth_getLogs"));
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_all_away_cost_no_log() {
    for fault in [Fault::Down, Fault::Hang] {
        let setup = Setup::new("chain = { timeout = \"2s\" }\n").await;
        let readers = Readers::of(&setup).await;
        // They are asked for the logs, and answer no more.
        setup.all_nodes(&Fault::slow(1_000));
        let first = setup.devnet.chain().mine(1).number;
        sleep(Duration::from_millis(400)).await;
        setup.all_nodes(&fault);
        sleep(Duration::from_secs(30)).await;
        setup.heal();
        sleep(Duration::from_secs(15)).await;
        readers.have_heard(&setup, first).await;
    }
}

#[tokio::test(start_paused = true)]
async fn logs_are_had_in_whatever_form_a_node_gives_them() {
    let any = ["eth_getLogs", "eth_getBlockReceipts"];
    for (faults, often) in [
        (vec![Fault::OddLogs], 1),
        (vec![Fault::logs_limit(1)], 4),
        (vec![Fault::logs_limit(0)], 4),
        (vec![Fault::NoLogsByHash], 1),
        (vec![Fault::NoLogsByHash, Fault::OddLogs], 1),
        (vec![Fault::refuse(&any[..1])], 4),
        (vec![Fault::cut_answer(&any[..1])], 9),
        (vec![Fault::logs_limit(0), Fault::refuse(&any[1..])], 9),
    ] {
        let setup = Setup::new("").await;
        // The second node is of no help, but for the last.
        let is_last = faults.contains(&Fault::refuse(&any[1..]));
        if !is_last {
            setup.devnet.el(1).set_fault(Fault::lag(20));
            a_while().await;
        }
        let readers = Readers::of(&setup).await;
        faults.iter().for_each(|fault| setup.devnet.el(0).set_fault(fault.clone()));
        let chain = setup.devnet.chain();
        let first = chain.mine(1).number;
        for _ in 0..9 {
            sleep(Duration::from_secs(2)).await;
            chain.mine(1);
        }
        a_while().await;
        let asked = setup.count("eth_getLogs");
        let waits = readers.all.results();
        setup.heal();
        let mut logs = setup.logs_since(first, &json!({})).await;
        if faults.contains(&Fault::OddLogs) {
            let mut last = Value::Null;
            for log in &mut logs {
                if std::mem::replace(&mut last, log["blockHash"].clone()) != log["blockHash"] {
                    log.as_object_mut().unwrap().remove("removed");
                    log.as_object_mut().unwrap().remove("blockTimestamp");
                }
            }
            assert!(setup.shows(r#"steadfast_odd_logs_total{network="default"} 10"#), "{faults:?}");
        }
        assert_eq!(waits, logs, "{faults:?}");
        assert!(asked <= often * 10 + 8, "{faults:?}: {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_with_null_topics_goes_unchanged_to_topicless_filters() {
    let setup = Setup::new("").await;
    let (mut all, mut with_topic) = (setup.client(), setup.client());
    to_logs(&mut all, &json!({"topics": []})).await;
    to_logs(&mut with_topic, &json!({"topics": [null]})).await;
    setup.all_nodes(&Fault::NullTopics);
    setup.devnet.chain().mine(3);
    a_while().await;
    let logs = all.results();
    assert_eq!(logs.iter().filter(|log| log["topics"].is_null()).count(), 3);
    let others: Vec<Value> = logs.iter().filter(|log| log["topics"].is_array()).cloned().collect();
    assert_eq!(with_topic.results(), others);
    setup.devnet.chain().reorg(3).unwrap();
    a_while().await;
    assert_eq!(all.results().iter().filter(|log| log["removed"] == true).count(), logs.len());
}

#[tokio::test(start_paused = true)]
async fn a_bloom_that_a_log_contradicts_is_the_last_believed() {
    let setup = Setup::new("").await;
    let chain = setup.devnet.chain();
    setup.all_nodes(&Fault::BlindBlooms);
    a_while().await;
    let mut client = setup.client();
    let filter = json!({"address": format!("{:#x}", chain.contracts()[0])});
    to_logs(&mut client, &filter).await;
    let first = chain.mine(1).number;
    a_while().await;
    for _ in 0..9 {
        chain.mine(1);
        a_while().await;
    }
    assert_eq!(client.results(), setup.logs_since(first, &filter).await);
    assert!(setup.shows(r#"steadfast_bloom_contradictions_total{network="default"} 1"#));
    // Where they are believed at all cost, nothing is heard.
    let setup = Setup::new("chain = { trust_bloom = \"always\" }\n").await;
    setup.all_nodes(&Fault::BlindBlooms);
    let mut client = setup.client();
    to_logs(&mut client, &filter).await;
    setup.devnet.chain().mine(10);
    a_while().await;
    assert_eq!((client.next(), setup.count("eth_getLogs")), (None, 0));
}

#[tokio::test(start_paused = true)]
async fn clients_that_believed_blooms_may_have_cost_logs_are_told() {
    let setup = Setup::new("").await;
    let mut early = setup.client();
    to_logs(&mut early, &json!({"address": format!("0x{}", "12".repeat(20))})).await;
    for _ in 0..20 {
        setup.devnet.chain().mine(1);
        a_while().await;
    }
    assert_eq!(early.next(), None);
    setup.all_nodes(&Fault::BlindBlooms);
    for _ in 0..20 {
        setup.devnet.chain().mine(1);
        a_while().await;
    }
    assert!(early.is_closed(Closing::Gap), "there were blocks at which nobody looked");
    let mut late = setup.client();
    to_logs(&mut late, &json!({})).await;
    let first = setup.devnet.chain().mine(1).number;
    a_while().await;
    assert_eq!(late.results(), setup.logs_since(first, &json!({})).await);
}

#[tokio::test(start_paused = true)]
async fn logs_no_client_awaits_are_not_asked_and_delay_none() {
    let setup =
        Setup::new("chain = { window = 16, max_backfill = 8, timeout = \"1h\", trust_bloom = \"always\" }\n").await;
    let (mut one, mut other) = (setup.client(), setup.client());
    let id = one.subscribe(r#"["logs",{}]"#).await;
    to_logs(&mut other, &json!({"address": format!("0x{}", "12".repeat(20))})).await;
    setup.all_nodes(&no_logs());
    setup.devnet.chain().mine(1);
    a_while().await;
    one.unsubscribe(&id);
    a_while().await;
    let asked = setup.count("eth_getLogs");
    for _ in 0..8 {
        setup.devnet.chain().mine(4);
        a_while().await;
    }
    assert_eq!(setup.count("eth_getLogs"), asked);
    assert_eq!(other.next(), None, "its own logs, of which there are none, wait for nothing");
}
