//! The subscriptions of one WebSocket. A notification is the difference between the node's view at
//! the last push and its view now, so no subscription misses a block, and a push may come at any
//! time.

use std::{fmt::Display, sync::Arc};

use alloy_primitives::B256;
use serde_json::{Value, json};

use super::{
    super::{
        fault::{Fault, Faults},
        filter::LogFilter,
        hash,
        node::Node,
        params::Params,
        record::SubscriptionGauge,
        rpc::RpcError,
        view::View,
    },
    Context, Outcome,
    blocks::{with_bloom, with_number},
};

/// Subscriptions one WebSocket may have.
const MAX_SUBSCRIPTIONS: usize = 10_000;

/// The subscriptions of one WebSocket.
#[derive(Default)]
pub(in super::super) struct Subscriptions {
    live: Vec<Subscription>,
    /// Notifications to send before the answer that is being made, and right behind the answer.
    eager: (Vec<String>, Vec<String>),
}

struct Subscription {
    id: String,
    wish: Wish,
    seen: View,
    _counted: SubscriptionGauge,
}

enum Wish {
    NewHeads,
    Logs(LogFilter),
    /// `true`: whole transactions; `false`: only hashes.
    Pending(bool),
    /// Whether the last notification said that the node is syncing.
    Syncing(bool),
}

impl Context<'_> {
    pub(super) fn subscribe(&mut self, params: &Params) -> Outcome {
        let wish = match params.text(0)? {
            "newHeads" => Wish::NewHeads,
            "logs" => Wish::Logs(LogFilter::parse(params.value(1))?),
            "newPendingTransactions" => Wish::Pending(params.flag(1)?),
            "syncing" => Wish::Syncing(self.faults.has(&Fault::Syncing)),
            other => return Err(RpcError::params(format!("no {other:?} subscription in eth namespace"))),
        };
        let node = self.node;
        let seen = self.view.clone();
        let subscriptions = self.subscriptions.as_mut().ok_or_else(unsupported)?;
        if subscriptions.live.len() >= MAX_SUBSCRIPTIONS {
            return Err(RpcError::new(-32000, "too many subscriptions"));
        }
        let id = node.new_id();
        let counts = if self.faults.mute() { (0, 0) } else { self.faults.eager() };
        let status = super::sync_status(node, self.faults, &seen);
        let early = |n: u64| match &wish {
            Wish::Pending(_) => {
                // The hashes count up, so that a test can see their order.
                let mut hash = hash::derived(&id, b"eager");
                hash.0[24..].copy_from_slice(&n.to_be_bytes());
                Some(notification(&id, &json!(hash.to_string())))
            }
            Wish::Syncing(said) => Some(notification(&id, &sync_news(*said, &status))),
            Wish::NewHeads | Wish::Logs(_) => None,
        };
        subscriptions.eager.0.extend((0..counts.0).filter_map(early));
        subscriptions.eager.1.extend((counts.0..counts.0 + counts.1).filter_map(early));
        subscriptions.live.push(Subscription { id: id.clone(), wish, seen, _counted: node.records.subscription() });
        Ok(json!(id).into())
    }

    pub(super) fn unsubscribe(&mut self, params: &Params) -> Outcome {
        let id = params.text(0)?;
        let subscriptions = self.subscriptions.as_mut().ok_or_else(unsupported)?;
        let before = subscriptions.live.len();
        subscriptions.live.retain(|subscription| subscription.id != id);
        if subscriptions.live.len() == before {
            return Err(RpcError::new(-32000, "subscription not found"));
        }
        Ok(json!(true).into())
    }
}

impl Subscriptions {
    /// Notifications of the calls that were just executed: before their answer, and right behind
    /// it.
    pub(in super::super) fn take_eager(&mut self) -> (Vec<String>, Vec<String>) {
        std::mem::take(&mut self.eager)
    }

    /// Notifications of changes in the node's view or health. The changes of a mute node are
    /// dropped, not kept for later.
    pub(in super::super) fn news(&mut self, node: &Node, faults: &Faults) -> Vec<String> {
        let mut out = Vec::new();
        let now = node.view_under(faults);
        for Subscription { id, wish, seen, .. } in &mut self.live {
            let mut notify = |result: &dyn Display| out.push(notification(id, result));
            match wish {
                Wish::NewHeads => {
                    let added = seen.advance(now.clone()).added.into_iter();
                    for block in added.filter(|block| faults.missing_block() != Some(block.number)) {
                        let header = with_number(block.head_json(), block.number, faults.lie());
                        notify(&with_bloom(header, &block, faults));
                    }
                }
                Wish::Logs(filter) => {
                    filter.news(&seen.advance(now.clone())).iter().for_each(|log| notify(log));
                }
                Wish::Syncing(said) if *said != faults.has(&Fault::Syncing) => {
                    *said = !*said;
                    let status = super::sync_status(node, faults, &now);
                    notify(&sync_news(*said, &status));
                }
                Wish::Syncing(_) | Wish::Pending(_) => {}
            }
        }
        if faults.mute() {
            out.clear();
        }
        out
    }

    /// Notifications of a transaction that has entered the mempool.
    pub(in super::super) fn pending(&self, node: &Arc<Node>, hash: B256, faults: &Faults) -> Vec<String> {
        let notify = |subscription: &Subscription| {
            let result = match subscription.wish {
                Wish::Pending(false) => Value::String(hash.to_string()),
                Wish::Pending(true) => node.chain.waiting(hash, node.settings.place)?.json(None),
                _ => return None,
            };
            Some(notification(&subscription.id, &result))
        };
        if faults.mute() { Vec::new() } else { self.live.iter().filter_map(notify).collect() }
    }
}

/// The result of a `syncing` notification.
fn sync_news(said: bool, status: &Value) -> Value {
    if said { json!({"syncing": true, "status": status}) } else { json!(false) }
}

fn notification(id: &str, result: &dyn Display) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":"{id}","result":{result}}}}}"#)
}

fn unsupported() -> RpcError {
    RpcError::new(-32601, "notifications not supported")
}
