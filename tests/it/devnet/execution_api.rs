//! The execution API as its description has it: each method is answered in the described form, or
//! plainly refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use steadfast::devnet::{Devnet, Options};

use super::{
    client::{Ws, call, devnet, result, start},
    forms::Description,
};
use crate::spec_examples::examples;

fn described() -> Description {
    Description::read(include_str!("execution_api.txt"))
}

/// The last block of the recorded examples' chain.
const RECORDED_HEAD: u64 = 0x36;

/// Lists of which the pretend network's are empty: its blocks have no uncles, its transactions are of
/// one type and list no storage, and a node that is not syncing is asked. Logs are never told as
/// bare hashes.
const EMPTY: [&str; 9] = [
    "AccessListEntry.storageKeys [hash]",
    "Block.uncles [hash]",
    "WithAccessList.accessList [AccessListEntry]",
    "WithBlobs.accessList [AccessListEntry]",
    "WithBlobs.blobVersionedHashes [hash]",
    "WithCode.accessList [AccessListEntry]",
    "WithCode.authorizationList [Authorization]",
    "WithDynamicFee.accessList [AccessListEntry]",
    "eth_getLogs [hash]",
];

/// Methods that run contracts, of which the pretend network has none.
const RUNNING: [&str; 1] = ["eth_call"];

fn is_refused(method: &str, answer: &Value) -> bool {
    let message = format!("the method {method} does not exist/is not available");
    answer["error"] == json!({"code": -32601, "message": message})
}

/// What `$` stands for in the description's params.
struct Names(Vec<(&'static str, String)>);

impl Names {
    async fn of(net: &Devnet, ws: &mut Ws) -> Self {
        let node = net.el(0);
        let ask = async |method: &str, params: Value| result(node, method, params).await.as_str().unwrap().to_owned();
        let head = net.chain().head();
        Self(vec![
            ("$block", head.hash.to_string()),
            ("$transaction", head.transactions[0].transaction.hash.to_string()),
            ("$waiting", ask("eth_sendRawTransaction", json!(["0x02f86b0102"])).await),
            ("$account", format!("{:#x}", net.chain().account(0))),
            ("$contract", format!("{:#x}", net.chain().contracts()[0])),
            ("$filter-of-logs", ask("eth_newFilter", json!([{}])).await),
            ("$filter-of-blocks", ask("eth_newBlockFilter", json!([])).await),
            ("$filter-of-transactions", ask("eth_newPendingTransactionFilter", json!([])).await),
            ("$subscription", ws.subscribe(json!(["newHeads"])).await),
        ])
    }

    fn put_into(&self, params: &str) -> Value {
        let named = self.0.iter().fold(params.to_owned(), |text, (name, value)| {
            text.replace(&format!("\"{name}\""), &format!("\"{value}\""))
        });
        assert!(!named.contains('$'), "{named}");
        serde_json::from_str(&named).unwrap()
    }
}

#[tokio::test]
async fn every_described_method_is_answered_in_form_or_refused() {
    let description = described();
    let (mut answered, mut refused) = (BTreeSet::new(), BTreeSet::new());
    for over_websocket in [false, true] {
        let net = devnet().await;
        let mut ws = Ws::open(net.el(0)).await;
        let names = Names::of(&net, &mut ws).await;
        // So that filters have something to tell.
        net.chain().mine(1);
        for method in &description.methods {
            // Only a WebSocket has subscriptions.
            if method.name.ends_with("subscribe") && !over_websocket {
                continue;
            }
            let samples: &[&str] = if method.params.is_empty() { &["[]"] } else { &method.params };
            for params in samples {
                let params = names.put_into(params);
                let answer = if over_websocket {
                    answer_of(&mut ws, method.name, params.clone()).await
                } else {
                    call(net.el(0), method.name, params.clone()).await
                };
                if is_refused(method.name, &answer) {
                    refused.insert(if method.name.starts_with("engine_") { "engine_*" } else { method.name });
                    continue;
                }
                assert!(method.form.is_some(), "{} must be refused: {answer}", method.name);
                let result = answer.get("result").unwrap_or_else(|| panic!("{} {params}: {answer}", method.name));
                assert!(!result.is_null(), "{} {params} is there", method.name);
                let fits = description.fits_result(method, result);
                fits.unwrap_or_else(|why| panic!("{} {params}: {why}", method.name));
                answered.insert(method.name);
            }
        }
    }
    assert!(answered.is_disjoint(&refused), "{answered:?} {refused:?}");
    assert!(answered.len() > 30 && refused.len() > 20, "{answered:?} {refused:?}");
    assert_eq!(told_in_docs("*Answered"), answered);
    assert_eq!(told_in_docs("*Refused"), refused);
    // A list without elements fits every form.
    assert_eq!(description.never_filled(), EMPTY.map(str::to_owned).into());
}

/// The answer to the call; notifications that come before are passed over.
async fn answer_of(ws: &mut Ws, method: &str, params: Value) -> Value {
    ws.send(1, method, params).await;
    loop {
        let message = ws.next().await;
        if message.get("id").is_some() {
            return message;
        }
    }
}

/// The methods in the paragraph of the docs that begins so.
fn told_in_docs(start: &str) -> BTreeSet<&'static str> {
    let docs = include_str!("../../../docs/TESTNET.md");
    let paragraph = docs.split("\n\n").find(|paragraph| paragraph.starts_with(start)).unwrap();
    paragraph.split('`').skip(1).step_by(2).collect()
}

/// The recorded chain's blocks and transactions, by hash: number, and number and index.
#[derive(Default)]
struct Recorded {
    blocks: BTreeMap<String, u64>,
    transactions: BTreeMap<String, (u64, usize)>,
}

impl Recorded {
    fn learn(&mut self, value: &Value) {
        let number = |key: &str| u64::from_str_radix(value[key].as_str()?.strip_prefix("0x")?, 16).ok();
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        if let (Some(hash), Some(height), Some(_)) = (text("hash"), number("number"), text("parentHash")) {
            self.blocks.insert(hash, height);
        }
        if let (Some(block), Some(height), Some(index)) =
            (text("blockHash"), number("blockNumber"), number("transactionIndex"))
        {
            self.blocks.insert(block, height);
            let hash = text("transactionHash").or_else(|| text("hash")).unwrap();
            self.transactions.insert(hash, (height, usize::try_from(index).unwrap()));
        }
        match value {
            Value::Array(list) => list.iter().for_each(|inner| self.learn(inner)),
            Value::Object(members) => members.values().for_each(|inner| self.learn(inner)),
            _ => {}
        }
    }

    /// The params with the hashes of the network's own blocks and transactions in the same places.
    fn transpose(&self, net: &Devnet, params: &Value) -> Value {
        let snapshot = net.chain().snapshot();
        let block = |number: u64| snapshot.block(number).unwrap();
        match params {
            Value::String(text) => {
                if let Some(number) = self.blocks.get(text) {
                    json!(block(*number).hash.to_string())
                } else if let Some((number, index)) = self.transactions.get(text) {
                    let transactions = &block(*number).transactions;
                    json!(transactions[(*index).min(transactions.len() - 1)].transaction.hash.to_string())
                } else {
                    params.clone()
                }
            }
            Value::Array(list) => list.iter().map(|inner| self.transpose(net, inner)).collect(),
            Value::Object(members) => {
                let transposed = members.iter().map(|(key, inner)| (key.clone(), self.transpose(net, inner)));
                Value::Object(transposed.collect())
            }
            _ => params.clone(),
        }
    }
}

#[tokio::test]
async fn recorded_examples_are_answered_in_form_or_refused() {
    let Some(examples) = examples() else { return };
    let description = described();
    let net = start(Options { initial_blocks: RECORDED_HEAD, ..Options::default() }).await;
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let mut recorded = Recorded::default();
    let mut asked = Vec::new();
    for (request, response) in &examples {
        let (request, response) = (parse(request), parse(response));
        let method = description.method(request["method"].as_str().unwrap());
        // Without a form the results are of other chains, too: those that a simulation makes up.
        if let Some(form) = method.form {
            if let Some(result) = response.get("result") {
                description.fits(form, result).unwrap_or_else(|why| panic!("the form of {}: {why}", method.name));
            }
            recorded.learn(&response);
        }
        asked.push((method, request["params"].clone(), response));
    }
    let (mut answered, mut errors, mut refused) = (0, 0, 0);
    for (method, params, expected) in asked {
        let params = recorded.transpose(&net, &params);
        let answer = call(net.el(0), method.name, params.clone()).await;
        let about = format!("{} {params}: {answer}", method.name);
        let Some(form) = method.form else {
            assert!(is_refused(method.name, &answer), "{about}");
            refused += 1;
            continue;
        };
        if RUNNING.contains(&method.name) && answer["error"].is_null() {
            description.fits(form, &answer["result"]).unwrap_or_else(|why| panic!("{about}: {why}"));
            answered += 1;
        } else if expected["error"].is_null() {
            let result = answer.get("result").unwrap_or_else(|| panic!("{about}"));
            assert_eq!(result.is_null(), expected["result"].is_null(), "{about}");
            description.fits(form, result).unwrap_or_else(|why| panic!("{about}: {why}"));
            answered += 1;
        } else {
            assert_eq!(answer["error"]["code"], expected["error"]["code"], "{about}");
            errors += 1;
        }
    }
    assert!(answered > 45 && errors >= 5 && refused > 90, "{answered} {errors} {refused}");
}
