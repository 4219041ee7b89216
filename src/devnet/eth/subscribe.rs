//! The subscriptions of one WebSocket. They are differences of what the node saw when they were last served and what it sees now,
//! so none misses a block, and each can be served at any time.

use std::{fmt::Display, sync::Arc};

use serde_json::{Value, json};

use super::{
    super::{
        fault::{Fault, Faults},
        filter::LogFilter,
        hash::Hash,
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
const MOST: usize = 10_000;

/// What one WebSocket is subscribed to.
#[derive(Default)]
pub(in super::super) struct Subscriptions(Vec<Subscription>);

struct Subscription {
    id: String,
    wish: Wish,
    seen: View,
    _counted: SubscriptionGauge,
}

enum Wish {
    NewHeads,
    Logs(LogFilter),
    /// With whole transactions or only their hashes.
    Pending(bool),
    /// What was said last.
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
        if subscriptions.0.len() >= MOST {
            return Err(RpcError::new(-32000, "too many subscriptions"));
        }
        let id = node.new_id();
        subscriptions.0.push(Subscription { id: id.clone(), wish, seen, _counted: node.records.subscription() });
        Ok(json!(id).into())
    }

    pub(super) fn unsubscribe(&mut self, params: &Params) -> Outcome {
        let id = params.text(0)?;
        let subscriptions = self.subscriptions.as_mut().ok_or_else(unsupported)?;
        let before = subscriptions.0.len();
        subscriptions.0.retain(|subscription| subscription.id != id);
        if subscriptions.0.len() == before {
            return Err(RpcError::new(-32000, "subscription not found"));
        }
        Ok(json!(true).into())
    }
}

impl Subscriptions {
    /// Notifications of what changed in the node's view or health; none if the node is mute, but then it is past.
    pub(in super::super) fn news(&mut self, node: &Node, faults: &Faults) -> Vec<String> {
        let mut out = Vec::new();
        let now = node.view_under(faults);
        for Subscription { id, wish, seen, .. } in &mut self.0 {
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
                    notify(&if *said { json!({"syncing": true, "status": status}) } else { json!(false) });
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
    pub(in super::super) fn pending(&self, node: &Arc<Node>, hash: Hash, faults: &Faults) -> Vec<String> {
        let notify = |subscription: &Subscription| {
            let result = match subscription.wish {
                Wish::Pending(false) => Value::String(hash.to_string()),
                Wish::Pending(true) => node.chain.waiting(hash)?.json(None),
                _ => return None,
            };
            Some(notification(&subscription.id, &result))
        };
        if faults.mute() { Vec::new() } else { self.0.iter().filter_map(notify).collect() }
    }
}

fn notification(id: &str, result: &dyn Display) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"eth_subscription","params":{{"subscription":"{id}","result":{result}}}}}"#)
}

fn unsupported() -> RpcError {
    RpcError::new(-32601, "notifications not supported")
}
