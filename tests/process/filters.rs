//! Ten thousand filters that clients poll: what they take of the process's memory, and what the
//! nodes hear of them.

use serde_json::{Value, json};
use steadfast::devnet::Options;
use tokio::time::timeout;

use crate::{
    common::{
        SOON,
        client::{Client, call},
        devnet,
        proxy::nodes,
        until,
    },
    harness::Process,
};

const FILTERS: usize = 10_000;
/// Calls in a batch.
const BATCH: usize = 500;
const BLOCKS: u64 = 8;

/// The results of these calls, sent in batches.
async fn results(client: &mut Client, calls: &[(&str, String)]) -> Vec<Value> {
    let mut results = Vec::new();
    for some in calls.chunks(BATCH) {
        let calls: Vec<_> = some.iter().enumerate().map(|(id, (method, params))| call(id, method, params)).collect();
        let answer =
            timeout(SOON, client.post(format!("[{}]", calls.join(",")))).await.expect("no answers in time").json();
        let answers = answer.as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(answers.len(), some.len());
        for answer in answers {
            assert!(!answer["result"].is_null(), "{answer}");
            results.push(answer["result"].clone());
        }
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_filters_take_little_and_no_node_hears_of_them() {
    let devnet = devnet(Options::default()).await;
    let chain = devnet.chain().clone();
    let urls: Vec<_> = devnet.nodes().map(|node| node.http_url()).collect();
    let limits = format!("[health]\ninterval = \"100ms\"\n[filters]\nmax = {FILTERS}\nmax_per_client = {FILTERS}\n");
    let process = Process::start(&[nodes(urls.iter().map(String::as_str)), limits].concat(), &[]).await;
    let mut client = Client::connect(process.clients()).await;

    // Every second one is of logs, each of these with a wish of its own.
    let contracts = chain.contracts();
    let contract = |place: usize| contracts[place / 2 % contracts.len()];
    let making: Vec<_> = (0..FILTERS)
        .map(|place| match place % 2 {
            0 => ("eth_newBlockFilter", "[]".to_owned()),
            _ => {
                let other = format!("0x{place:040x}");
                ("eth_newFilter", json!([{ "address": [format!("{:#x}", contract(place)), other] }]).to_string())
            }
        })
        .collect();
    // What a batch takes at all is there before it is measured.
    let some = results(&mut client, &making[..BATCH]).await;
    let gone: Vec<_> = some.iter().map(|id| ("eth_uninstallFilter", json!([id]).to_string())).collect();
    assert!(results(&mut client, &gone).await.iter().all(|gone| *gone == true));

    let before = process.figure("VmRSS");
    let ids = results(&mut client, &making).await;
    let each = process.figure("VmRSS").saturating_sub(before) / FILTERS as u64;
    println!("{FILTERS} filters: {each} bytes of resident memory each");
    assert!(each < 2048, "a filter takes {each} bytes");

    // No filter more, whoever asks.
    let more = client.post(call(1, "eth_newBlockFilter", "[]")).await.json();
    assert_eq!(more["error"]["code"], -32005, "{more}");

    let first = chain.head().number + 1;
    let watched = json!([ids[0]]).to_string();
    let mut hashes = Vec::new();
    for number in first..first + BLOCKS {
        chain.mine(1);
        until("a filter tells of a block", async || {
            let told = results(&mut client, &[("eth_getFilterChanges", watched.clone())]).await.remove(0);
            hashes.extend(told.as_array().unwrap().iter().cloned());
            hashes.len() as u64 > number - first
        })
        .await;
    }
    let expected: Vec<_> =
        (first..first + BLOCKS).map(|number| json!(chain.block(number).unwrap().hash.to_string())).collect();
    assert_eq!(hashes, expected);
    let mut wanted: Vec<usize> = vec![0; contracts.len()];
    for number in first..first + BLOCKS {
        for (_, _, log) in chain.block(number).unwrap().logs() {
            wanted[contracts.iter().position(|contract| *contract == log.address).unwrap()] += 1;
        }
    }
    assert!(wanted.iter().all(|logs| *logs > 0), "there is nothing to tell: {wanted:?}");
    // Logs come a moment later than their block.
    let (last, mut logs) = (json!([ids[1]]).to_string(), 0);
    until("a filter tells of all logs", async || {
        let told = results(&mut client, &[("eth_getFilterChanges", last.clone())]).await.remove(0);
        logs += told.as_array().unwrap().len();
        logs == wanted[0]
    })
    .await;
    let polls: Vec<_> = ids[2..].iter().map(|id| ("eth_getFilterChanges", json!([id]).to_string())).collect();
    for (place, told) in results(&mut client, &polls).await.iter().enumerate().map(|(at, told)| (at + 2, told)) {
        let told = told.as_array().unwrap();
        if place % 2 == 0 {
            assert_eq!(told, &expected, "filter {place}");
        } else {
            let addresses: Vec<_> = told.iter().map(|log| log["address"].as_str().unwrap()).collect();
            assert_eq!(addresses.len(), wanted[place / 2 % contracts.len()], "filter {place}");
            assert!(addresses.iter().all(|address| *address == format!("{:#x}", contract(place))), "filter {place}");
        }
    }

    let count = |method: &str| devnet.nodes().map(|node| node.count(method)).sum::<u64>();
    for method in
        ["eth_newFilter", "eth_newBlockFilter", "eth_getFilterChanges", "eth_uninstallFilter", "eth_subscribe"]
    {
        assert_eq!(count(method), 0, "{method} went to a node");
    }
    let asked = count("eth_getLogs") + count("eth_getBlockReceipts");
    assert!((1..=BLOCKS).contains(&asked), "logs of {BLOCKS} blocks were asked for {asked} times");
}
