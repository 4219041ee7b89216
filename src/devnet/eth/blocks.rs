//! Blocks, transactions, receipts and logs.

use std::{ops::RangeInclusive, sync::Arc};

use alloy_primitives::Bloom;
use serde_json::{Value, json};

use super::{
    super::{
        block::Block,
        fault::{Fault, Faults, History},
        filter::{LogFilter, Wish},
        hex::{self, quantity},
        params::{At, Params},
        rpc::{Answer, RpcError},
    },
    Context, Outcome,
};

impl Context<'_> {
    pub(super) fn block(&self, method: &str, params: &Params) -> Outcome {
        let at = self.at(method, params)?;
        let full = params.flag(1)?;
        let Some(block) = self.given(at)? else { return Ok(Value::Null.into()) };
        let json = block.json(full);
        let lie = if at == At::Latest { self.faults.lie() } else { 0 };
        Ok(Answer::Json(with_bloom(with_number(json, block.number, lie), &block, self.faults)))
    }

    pub(super) fn transaction_count_of_block(&self, method: &str, params: &Params) -> Outcome {
        let at = self.at(method, params)?;
        Ok(self.given(at)?.map_or(Value::Null, |block| json!(format!("0x{:x}", block.transactions.len()))).into())
    }

    /// No block here has uncles.
    pub(super) fn uncle_count(&self, method: &str, params: &Params) -> Outcome {
        let at = self.at(method, params)?;
        Ok(self.given(at)?.map_or(Value::Null, |_| json!("0x0")).into())
    }

    pub(super) fn transaction_in_block(&self, method: &str, params: &Params) -> Outcome {
        let at = self.at(method, params)?;
        let index = usize::try_from(params.number(1)?).unwrap_or(usize::MAX);
        let block = self.given(at)?.filter(|block| index < block.transactions.len());
        Ok(block.map_or(Value::Null, |block| block.transaction_json(index)).into())
    }

    pub(super) fn block_receipts(&self, params: &Params) -> Outcome {
        params.text(0).or_else(|error| if params.value(0).is_object() { Ok("") } else { Err(error) })?;
        let Some(block) = self.given(params.at(0)?)? else { return Ok(Value::Null.into()) };
        self.has_logs(block.number..=block.number)?;
        Ok((0..block.transactions.len()).map(|i| block.receipt_json(i)).collect::<Value>().into())
    }

    pub(super) fn transaction(&self, params: &Params) -> Outcome {
        let hash = params.hash(0)?;
        let places = self.node.chain.places(hash);
        let json = match places.iter().find(|(block, _)| self.view.is_canonical(block)) {
            Some((block, _)) if self.is_withheld(block) || self.lacks(History::Blocks, block) => Value::Null,
            Some((block, index)) => block.transaction_json(*index),
            None => {
                // The canonical chain of this node lacks the block with the transaction: here the
                // transaction still waits.
                let elsewhere = places.first().map(|(block, index)| block.transactions[*index].transaction.clone());
                let waiting =
                    self.node.chain.waiting(hash, self.node.settings.place).or(elsewhere.filter(|tx| tx.submitted));
                waiting.map_or(Value::Null, |transaction| transaction.json(None))
            }
        };
        Ok(json.into())
    }

    pub(super) fn receipt(&self, params: &Params) -> Outcome {
        let places = self.node.chain.places(params.hash(0)?);
        let place = places.iter().find(|(block, _)| self.view.is_canonical(block) && self.gives_receipts(block));
        Ok(place.map_or(Value::Null, |(block, index)| block.receipt_json(*index)).into())
    }

    pub(super) fn logs(&self, params: &Params) -> Outcome {
        let wish = params.value(0);
        if !wish.is_object() {
            return Err(RpcError::params("missing value for required argument 0"));
        }
        let filter = LogFilter::parse(wish)?;
        if !wish["blockHash"].is_null() {
            if self.faults.has(&Fault::NoLogsByHash) {
                return Err(RpcError::params("invalid params: unknown field blockHash"));
            }
            if !wish["fromBlock"].is_null() || !wish["toBlock"].is_null() {
                return Err(RpcError::params(
                    "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other",
                ));
            }
            let at = At::parse(&wish["blockHash"]).filter(|at| matches!(at, At::Hash(_)));
            let at = at.ok_or_else(|| RpcError::params("invalid block hash"))?;
            let block = self.find(at).ok_or_else(|| RpcError::new(-32000, "unknown block"))?;
            self.has_logs(block.number..=block.number)?;
            return self.told(filter.logs(&block, false));
        }
        let end = |key: &str| {
            let at = At::parse(&wish[key]).filter(|at| !matches!(at, At::Hash(_)));
            let at = at.ok_or_else(|| RpcError::params(format!("invalid {key}")))?;
            Ok(if let At::Number(number) = at { number } else { self.find(at).map_or(0, |block| block.number) })
        };
        let (from, to) = (end("fromBlock")?, end("toBlock")?);
        if from > to {
            return Err(no_range());
        }
        if to > self.view.head().number {
            return Err(RpcError::params("block range extends beyond current head block"));
        }
        let range = from.max(self.view.base())..=to;
        self.has_logs(range.clone())?;
        let blocks = range.filter_map(|number| self.view.block(number));
        self.told(blocks.flat_map(|block| filter.logs(block, false)).collect())
    }

    fn has_logs(&self, blocks: RangeInclusive<u64>) -> Result<(), RpcError> {
        if let Some(oldest) = self.view.block(*blocks.start()) {
            self.has_receipts(oldest)?;
        }
        let lacks = self.faults.missing_logs().is_some_and(|number| blocks.contains(&number));
        if lacks { Err(RpcError::new(-32603, "internal error")) } else { Ok(()) }
    }

    /// The logs after the node's faults have spoilt them.
    fn told(&self, mut logs: Vec<Value>) -> Outcome {
        if let Some(most) = self.faults.logs_limit().filter(|most| logs.len() as u64 > *most) {
            return Err(RpcError::new(-32005, format!("query returned more than {most} results")));
        }
        if self.faults.has(&Fault::NullTopics) {
            for place in 0..logs.len() {
                if logs.get(place + 1).is_none_or(|next| next["blockHash"] != logs[place]["blockHash"]) {
                    logs[place]["topics"] = Value::Null;
                }
            }
        }
        if self.faults.has(&Fault::OddLogs) {
            if let Some(first) = logs.first_mut().and_then(Value::as_object_mut) {
                first.remove("removed");
                first.remove("blockTimestamp");
            }
            logs.push(Value::Null);
        }
        Ok(Value::Array(logs).into())
    }

    pub(super) fn new_filter(&self, method: &str, params: &Params) -> Outcome {
        let wish = match method {
            "eth_newFilter" => {
                let wish = params.value(0);
                let filter = LogFilter::parse(wish)?;
                let end = |key: &str| {
                    let at = At::parse(&wish[key]).filter(|at| !matches!(at, At::Hash(_)));
                    at.ok_or_else(|| RpcError::params(format!("invalid {key}")))
                };
                match (end("fromBlock")?, end("toBlock")?) {
                    (At::Number(from), At::Number(to)) if from > to => return Err(no_range()),
                    // No number is above the blocks that are to come.
                    (At::Latest, At::Number(_)) => return Err(no_range()),
                    _ => Wish::Logs(filter),
                }
            }
            "eth_newPendingTransactionFilter" => Wish::Pending(self.node.chain.pending()),
            _ => Wish::Blocks,
        };
        let id = self.node.new_id();
        self.node.with_filters(|filters| filters.add(id.clone(), wish, self.view.clone()));
        Ok(json!(id).into())
    }

    pub(super) fn filter_changes(&self, params: &Params) -> Outcome {
        let id = params.text(0)?;
        let changes = self.node.with_filters(|filters| filters.changes(id, self.view.clone()));
        changes.map(Answer::from).ok_or_else(|| RpcError::new(-32000, "filter not found"))
    }

    pub(super) fn uninstall_filter(&self, params: &Params) -> Outcome {
        let id = params.text(0)?;
        Ok(json!(self.node.with_filters(|filters| filters.remove(id))).into())
    }

    /// The block, unless the node withholds it.
    fn given(&self, at: At) -> Result<Option<Arc<Block>>, RpcError> {
        let found =
            self.find(at).filter(|block| !matches!(at, At::Number(_) | At::Hash(_)) || !self.is_withheld(block));
        found.map_or(Ok(None), |block| Ok(self.has_block(&block)?.then_some(block)))
    }

    fn gives_receipts(&self, block: &Block) -> bool {
        !self.is_withheld(block) && !self.lacks(History::Receipts, block)
    }

    fn is_withheld(&self, block: &Block) -> bool {
        let nulls = self.faults.nulls();
        nulls > 0 && block.number + nulls > self.view.head().number
    }

    pub(super) fn find(&self, at: At) -> Option<Arc<Block>> {
        at.find(&self.node.chain, &self.view).filter(|block| self.faults.missing_block() != Some(block.number))
    }

    /// The block that the first argument of `…ByNumber…` or `…ByHash…` names; it must be there.
    fn at(&self, method: &str, params: &Params) -> Result<At, RpcError> {
        if method.contains("ByHash") || method.contains("ByBlockHash") {
            return params.hash(0).map(At::Hash);
        }
        params.text(0)?;
        match params.at(0)? {
            At::Hash(_) => Err(RpcError::params("invalid argument 0: hex number > 64 bits")),
            at => Ok(at),
        }
    }
}

fn no_range() -> RpcError {
    RpcError::params("invalid block range params")
}

/// The block or header, with a bloom filter of one bit if the node has [`Fault::BlindBlooms`].
pub(in super::super) fn with_bloom(json: Arc<str>, block: &Block, faults: &Faults) -> Arc<str> {
    if !faults.has(&Fault::BlindBlooms) {
        return json;
    }
    let mut blind = Bloom::ZERO;
    blind[0] = 1;
    json.replace(&hex::encode(block.bloom), &hex::encode(blind)).into()
}

/// The block or header with its number raised by `lie`.
pub(in super::super) fn with_number(json: Arc<str>, number: u64, lie: u64) -> Arc<str> {
    if lie == 0 {
        return json;
    }
    let truth = format!(r#""number":"{}""#, quantity(number));
    json.replace(&truth, &format!(r#""number":"{}""#, quantity(number + lie))).into()
}
