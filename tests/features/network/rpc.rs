//! Calls to a node itself, past the proxy.

use std::{net::SocketAddr, time::Duration};

use reqwest::Client;
use serde_json::{Value, json};

use super::Fact;

/// A call is given up after this.
const TIMEOUT: Duration = Duration::from_secs(20);

pub struct Rpc(Client);

impl Rpc {
    pub fn new() -> Self {
        // No connection is kept: the process at its other end may have been killed since.
        Self(steadfast::net::post::plain().timeout(TIMEOUT).pool_max_idle_per_host(0).build().unwrap())
    }

    /// The result, or how the call failed.
    pub async fn call(&self, node: SocketAddr, method: &str, params: Value) -> Result<Value, String> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let request = self.0.post(format!("http://{node}")).json(&body);
        let response = request.send().await.map_err(|error| format!("{method} at {node}: {error:?}"))?;
        let mut answer: Value = response.json().await.map_err(|error| format!("{method} at {node}: {error:?}"))?;
        match answer.get("result") {
            Some(_) => Ok(answer["result"].take()),
            None => Err(format!("{method} at {node}: {answer}")),
        }
    }

    /// A request to the beacon API: the status, and the answer if it is good.
    pub async fn beacon(&self, node: SocketAddr, path: &str) -> Result<(u16, Value), String> {
        let response = self.0.get(format!("http://{node}{path}")).send().await;
        let response = response.map_err(|error| format!("{path} at {node}: {error:?}"))?;
        let status = response.status().as_u16();
        let answer = if status == 200 { response.json().await } else { Ok(Value::Null) };
        Ok((status, answer.map_err(|error| format!("{path} at {node}: {error:?}"))?))
    }

    pub async fn height(&self, node: SocketAddr) -> Result<u64, String> {
        quantity(&self.call(node, "eth_blockNumber", json!([])).await?)
    }

    /// A node's block at that height.
    pub async fn fact(&self, node: SocketAddr, number: u64) -> Result<Fact, String> {
        let block = self.call(node, "eth_getBlockByNumber", json!([format!("{number:#x}"), false])).await?;
        let hash = block["hash"].as_str().ok_or_else(|| format!("no block {number} at {node}: {block}"))?;
        let transactions = block["transactions"].as_array().into_iter().flatten();
        let transactions = transactions.filter_map(|hash| Some(hash.as_str()?.to_owned())).collect();
        let logs = self.call(node, "eth_getLogs", json!([{"blockHash": hash}])).await?;
        let logs = logs.as_array().into_iter().flatten().map(|log| {
            let address = log["address"].as_str().ok_or_else(|| format!("a log without an address: {log}"))?;
            Ok((address.to_owned(), quantity(&log["logIndex"])?))
        });
        Ok(Fact { number, hash: hash.to_owned(), logs: logs.collect::<Result<_, String>>()?, transactions })
    }
}

pub fn quantity(value: &Value) -> Result<u64, String> {
    let text = value.as_str().and_then(|text| text.strip_prefix("0x"));
    text.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| format!("no quantity: {value}"))
}
