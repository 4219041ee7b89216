//! The JSON-RPC methods of an execution node. Answering never waits: `dev_sleep` is waited out
//! before.

mod blocks;
mod history;
mod state;
mod subscribe;

use std::{sync::Arc, time::Duration};

use serde_json::json;

pub(super) use self::subscribe::Subscriptions;
use super::{
    fault::Faults,
    hex::{self, quantity},
    node::Node,
    params::Params,
    rpc::{Answer, Call, RpcError},
    view::View,
};

/// The longest sleep that `dev_sleep` grants.
const LONGEST_SLEEP: u64 = 3_600_000;

/// Answers one call: the node, its faults and its view of the chain at this moment.
pub(super) struct Context<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) faults: &'a Faults,
    /// The WebSocket's subscriptions; none over HTTP.
    pub(super) subscriptions: Option<&'a mut Subscriptions>,
    view: View,
}

type Outcome = Result<Answer, RpcError>;

impl<'a> Context<'a> {
    pub(super) fn new(node: &'a Arc<Node>, faults: &'a Faults, subscriptions: Option<&'a mut Subscriptions>) -> Self {
        Self { node, faults, subscriptions, view: node.view_under(faults) }
    }

    /// Executes the call.
    pub(super) fn answer(&mut self, call: &Call) -> Answer {
        if let Some((code, message)) = self.faults.rpc_error() {
            return RpcError::new(code, message).into();
        }
        if self.faults.refuses_method(&call.method) {
            return RpcError::new(-32603, "internal error").into();
        }
        let text = call.params.as_ref().map_or("", |params| params.get());
        if self.faults.has_no_quota(&call.method, text) {
            return RpcError::new(-32005, "daily request count exceeded, request rate limited").into();
        }
        if self.faults.does_not_offer(&call.method, text) {
            return not_offered(&call.method).into();
        }
        if let Some(result) = self.faults.tells(&call.method) {
            return result.clone().into();
        }
        match Params::of(call).and_then(|params| self.dispatch(&call.method, &params)) {
            Ok(answer) => answer,
            Err(error) => error.into(),
        }
    }

    fn dispatch(&mut self, method: &str, params: &Params) -> Outcome {
        match method {
            "eth_blockNumber" => Ok(json!(quantity(self.view.head().number + self.faults.lie())).into()),
            "eth_chainId" => Ok(json!(quantity(self.chain_id())).into()),
            "eth_syncing" => Ok(self.syncing()),
            "net_version" => {
                let id = self.faults.network_id().unwrap_or_else(|| self.chain_id());
                Ok(json!(id.to_string()).into())
            }
            "net_listening" => Ok(json!(true).into()),
            "net_peerCount" => Ok(json!("0x8").into()),
            "web3_clientVersion" => Ok(json!(format!("SteadfastDevnet/v1/{}", self.node.name())).into()),
            "eth_getBlockByNumber" | "eth_getBlockByHash" => self.block(method, params),
            "eth_getBlockReceipts" => self.block_receipts(params),
            "eth_getBlockTransactionCountByNumber" | "eth_getBlockTransactionCountByHash" => {
                self.transaction_count_of_block(method, params)
            }
            "eth_getUncleCountByBlockNumber" | "eth_getUncleCountByBlockHash" => self.uncle_count(method, params),
            "eth_getTransactionByHash" => self.transaction(params),
            "eth_getTransactionByBlockNumberAndIndex" | "eth_getTransactionByBlockHashAndIndex" => {
                self.transaction_in_block(method, params)
            }
            "eth_getTransactionReceipt" => self.receipt(params),
            "eth_getLogs" => self.logs(params),
            "eth_getBalance" | "eth_getCode" | "eth_getStorageAt" | "eth_getTransactionCount" => {
                self.account(method, params)
            }
            "eth_call" | "eth_estimateGas" => self.call(method, params),
            "eth_gasPrice" | "eth_maxPriorityFeePerGas" | "eth_blobBaseFee" | "eth_feeHistory" => {
                self.fees(method, params)
            }
            "eth_accounts" => Ok(json!([hex::encode(self.node.chain.account(0))]).into()),
            "eth_sendRawTransaction" => self.send_raw(params),
            "eth_sendTransaction" => self.send_unlocked(params),
            "eth_newBlockFilter" | "eth_newFilter" | "eth_newPendingTransactionFilter" => {
                self.new_filter(method, params)
            }
            "eth_getFilterChanges" => self.filter_changes(params),
            "eth_uninstallFilter" => self.uninstall_filter(params),
            "eth_subscribe" => self.subscribe(params),
            "eth_unsubscribe" => self.unsubscribe(params),
            "dev_nodeName" => Ok(json!(self.node.name()).into()),
            "dev_sleep" => Ok(json!(params.number(0)?).into()),
            "dev_blob" => Ok(Answer::Blob(params.number(0)?)),
            _ => Err(not_offered(method)),
        }
    }

    fn chain_id(&self) -> u64 {
        self.faults.chain_id().unwrap_or_else(|| self.node.chain.id())
    }

    fn syncing(&self) -> Answer {
        sync_status(self.node, self.faults, &self.view).into()
    }
}

fn not_offered(method: &str) -> RpcError {
    RpcError::new(-32601, format!("the method {method} does not exist/is not available"))
}

/// The answer to `eth_syncing`: false, or how far the node has come.
pub(super) fn sync_status(node: &Node, faults: &Faults, view: &View) -> serde_json::Value {
    if !faults.has(&super::fault::Fault::Syncing) {
        return json!(false);
    }
    let current = view.head().number;
    json!({
        "startingBlock": "0x0",
        "currentBlock": quantity(current),
        "highestBlock": quantity(node.chain.head().number.max(current + 64)),
    })
}

/// The sleep that the call asks for: `dev_sleep`.
pub(super) fn sleep_wish(call: &Call) -> Duration {
    if call.method != "dev_sleep" {
        return Duration::ZERO;
    }
    let wish = Params::of(call).and_then(|params| params.number(0));
    Duration::from_millis(wish.unwrap_or(0).min(LONGEST_SLEEP))
}
