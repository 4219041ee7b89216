//! The method table: the effect of a call, which decides whether the call may be sent twice, and
//! the blocks that the call needs.

use super::asked_blocks::{
    Asks, Data,
    Place::{Block as AtBlock, Fees, Filter as InFilter, Transaction},
};

/// The effect of sending a call twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// No effect: may be repeated on any node.
    Read,
    /// Idempotent by its hash: may be sent again, and 'already known' is then success.
    RawTransaction,
    /// May have an effect: never sent again once its bytes may have reached a node.
    Unsafe,
    /// About a filter that is polled: answered by the proxy, which keeps them.
    Filter,
    /// About a transaction that the proxy keeps: answered by the proxy, where it keeps some.
    Outbox,
    /// Means something only on the node that it is sent to, like a validator's duties: always goes
    /// to the same node as long as that node serves. No method of JSON-RPC is of this class.
    NodeLocal,
    /// Opens or closes a subscription, which needs a connection that can carry notifications.
    Subscription,
}

/// Where an answer tells how far the chain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tells {
    /// Nowhere.
    Nothing,
    /// The result is a block number.
    Number,
    /// The result is a block, which has a `number`.
    Block,
    /// The result belongs to a block, and has its number as `blockNumber`.
    Inclusion,
}

/// The index of a method in the table of methods, or of a group of routes in that of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MethodId(pub usize);

/// A row of the table of methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method {
    /// The name for labels: that of the table, or `other`.
    pub label: &'static str,
    /// The index in the table, up to [`Method::COUNT`], which stands for `other`.
    pub id: MethodId,
    /// Whether a call may be sent twice.
    pub class: Class,
    /// Where its answer tells how far the chain has come.
    pub tells: Tells,
    /// The data of blocks that a call needs, and where the params name the blocks.
    pub asks: Option<Asks>,
}

use Class::{Filter, Outbox, RawTransaction, Read, Subscription, Unsafe};
use Data::{Blocks, Receipts, State, Traces};
use Tells::{Block, Inclusion, Nothing, Number};

/// Needs no block, or the newest.
const NO_BLOCK: Option<Asks> = None;
/// The params of `eth_feeHistory`.
const FEES: Option<Asks> = Some(Asks { data: Blocks, place: Fees });

// Macros and no functions: the length of the table is a length of arrays, and a compiler that
// optimises finds a cycle where such a constant calls a function of this crate.

/// Needs this data of the block that this param names.
macro_rules! block {
    ($data:expr, $index:expr) => {
        Some(Asks { data: $data, place: AtBlock($index) })
    };
}

/// Needs this data of the blocks that this param bounds.
macro_rules! filter {
    ($data:expr, $index:expr) => {
        Some(Asks { data: $data, place: InFilter($index) })
    };
}

/// Needs this data of the block that has a transaction.
macro_rules! transaction {
    ($data:expr) => {
        Some(Asks { data: $data, place: Transaction })
    };
}

/// Sorted by name, for binary search.
const TABLE: &[(&str, Class, Tells, Option<Asks>)] = &[
    ("debug_getBadBlocks", Read, Nothing, NO_BLOCK),
    ("debug_getRawBlock", Read, Nothing, block!(Blocks, 0)),
    ("debug_getRawHeader", Read, Nothing, block!(Blocks, 0)),
    ("debug_getRawReceipts", Read, Nothing, block!(Receipts, 0)),
    ("debug_getRawTransaction", Read, Nothing, transaction!(Blocks)),
    ("debug_storageRangeAt", Read, Nothing, block!(State, 0)),
    ("debug_traceBlockByHash", Read, Nothing, block!(Traces, 0)),
    ("debug_traceBlockByNumber", Read, Nothing, block!(Traces, 0)),
    ("debug_traceCall", Read, Nothing, block!(Traces, 1)),
    ("debug_traceTransaction", Read, Nothing, transaction!(Traces)),
    ("eth_accounts", Read, Nothing, NO_BLOCK),
    ("eth_blobBaseFee", Read, Nothing, NO_BLOCK),
    ("eth_blockNumber", Read, Number, NO_BLOCK),
    ("eth_call", Read, Nothing, block!(State, 1)),
    ("eth_callMany", Read, Nothing, block!(State, 1)),
    ("eth_chainId", Read, Nothing, NO_BLOCK),
    ("eth_coinbase", Read, Nothing, NO_BLOCK),
    ("eth_config", Read, Nothing, NO_BLOCK),
    ("eth_createAccessList", Read, Nothing, block!(State, 1)),
    ("eth_estimateGas", Read, Nothing, block!(State, 1)),
    ("eth_feeHistory", Read, Nothing, FEES),
    ("eth_gasPrice", Read, Nothing, NO_BLOCK),
    ("eth_getBalance", Read, Nothing, block!(State, 1)),
    ("eth_getBlockByHash", Read, Block, block!(Blocks, 0)),
    ("eth_getBlockByNumber", Read, Block, block!(Blocks, 0)),
    ("eth_getBlockReceipts", Read, Inclusion, block!(Receipts, 0)),
    ("eth_getBlockTransactionCountByHash", Read, Nothing, block!(Blocks, 0)),
    ("eth_getBlockTransactionCountByNumber", Read, Nothing, block!(Blocks, 0)),
    ("eth_getCode", Read, Nothing, block!(State, 1)),
    ("eth_getFilterChanges", Filter, Nothing, NO_BLOCK),
    ("eth_getFilterLogs", Filter, Nothing, NO_BLOCK),
    ("eth_getHeaderByHash", Read, Block, block!(Blocks, 0)),
    ("eth_getHeaderByNumber", Read, Block, block!(Blocks, 0)),
    ("eth_getLogs", Read, Nothing, filter!(Receipts, 0)),
    ("eth_getProof", Read, Nothing, block!(State, 2)),
    ("eth_getStorageAt", Read, Nothing, block!(State, 2)),
    ("eth_getStorageValues", Read, Nothing, block!(State, 1)),
    ("eth_getTransactionByBlockHashAndIndex", Read, Inclusion, block!(Blocks, 0)),
    ("eth_getTransactionByBlockNumberAndIndex", Read, Inclusion, block!(Blocks, 0)),
    ("eth_getTransactionByHash", Read, Inclusion, transaction!(Blocks)),
    ("eth_getTransactionCount", Read, Nothing, block!(State, 1)),
    ("eth_getTransactionReceipt", Read, Inclusion, transaction!(Receipts)),
    ("eth_getUncleByBlockHashAndIndex", Read, Nothing, block!(Blocks, 0)),
    ("eth_getUncleByBlockNumberAndIndex", Read, Nothing, block!(Blocks, 0)),
    ("eth_getUncleCountByBlockHash", Read, Nothing, block!(Blocks, 0)),
    ("eth_getUncleCountByBlockNumber", Read, Nothing, block!(Blocks, 0)),
    ("eth_hashrate", Read, Nothing, NO_BLOCK),
    ("eth_maxPriorityFeePerGas", Read, Nothing, NO_BLOCK),
    ("eth_mining", Read, Nothing, NO_BLOCK),
    ("eth_newBlockFilter", Filter, Nothing, NO_BLOCK),
    ("eth_newFilter", Filter, Nothing, NO_BLOCK),
    ("eth_newPendingTransactionFilter", Filter, Nothing, NO_BLOCK),
    ("eth_protocolVersion", Read, Nothing, NO_BLOCK),
    ("eth_sendBundle", Unsafe, Nothing, NO_BLOCK),
    ("eth_sendPrivateTransaction", Unsafe, Nothing, NO_BLOCK),
    ("eth_sendRawTransaction", RawTransaction, Nothing, NO_BLOCK),
    ("eth_sendRawTransactionConditional", Unsafe, Nothing, NO_BLOCK),
    ("eth_sendRawTransactionSync", Unsafe, Nothing, NO_BLOCK),
    ("eth_sendTransaction", Unsafe, Nothing, NO_BLOCK),
    ("eth_sign", Unsafe, Nothing, NO_BLOCK),
    ("eth_signTransaction", Unsafe, Nothing, NO_BLOCK),
    ("eth_signTypedData", Unsafe, Nothing, NO_BLOCK),
    ("eth_signTypedData_v4", Unsafe, Nothing, NO_BLOCK),
    ("eth_simulateV1", Read, Nothing, block!(State, 1)),
    ("eth_submitHashrate", Unsafe, Nothing, NO_BLOCK),
    ("eth_submitWork", Unsafe, Nothing, NO_BLOCK),
    ("eth_subscribe", Subscription, Nothing, NO_BLOCK),
    ("eth_syncing", Read, Nothing, NO_BLOCK),
    ("eth_uninstallFilter", Filter, Nothing, NO_BLOCK),
    ("eth_unsubscribe", Subscription, Nothing, NO_BLOCK),
    ("net_listening", Read, Nothing, NO_BLOCK),
    ("net_peerCount", Read, Nothing, NO_BLOCK),
    ("net_version", Read, Nothing, NO_BLOCK),
    ("rpc_modules", Read, Nothing, NO_BLOCK),
    ("steadfast_getTransactionStatus", Outbox, Nothing, NO_BLOCK),
    ("trace_block", Read, Nothing, block!(Traces, 0)),
    ("trace_call", Read, Nothing, block!(Traces, 2)),
    ("trace_callMany", Read, Nothing, block!(Traces, 1)),
    ("trace_filter", Read, Nothing, filter!(Traces, 0)),
    ("trace_get", Read, Nothing, transaction!(Traces)),
    ("trace_rawTransaction", Read, Nothing, NO_BLOCK),
    ("trace_replayBlockTransactions", Read, Nothing, block!(Traces, 0)),
    ("trace_replayTransaction", Read, Nothing, transaction!(Traces)),
    ("trace_transaction", Read, Nothing, transaction!(Traces)),
    ("txpool_content", Read, Nothing, NO_BLOCK),
    ("txpool_contentFrom", Read, Nothing, NO_BLOCK),
    ("txpool_inspect", Read, Nothing, NO_BLOCK),
    ("txpool_status", Read, Nothing, NO_BLOCK),
    ("web3_clientVersion", Read, Nothing, NO_BLOCK),
    ("web3_sha3", Read, Nothing, NO_BLOCK),
];

impl Method {
    /// How many methods the table knows.
    pub const COUNT: usize = TABLE.len();

    /// Looks `name` up. A method that the table does not know is a read only if its name says so,
    /// and unsafe otherwise.
    pub fn of(name: &str) -> Self {
        if let Ok(at) = TABLE.binary_search_by(|(known, ..)| (*known).cmp(name)) {
            let (label, class, tells, asks) = TABLE[at];
            return Self { label, id: MethodId(at), class, tells, asks };
        }
        let class = if name.ends_with("_subscribe") || name.ends_with("_unsubscribe") {
            Subscription
        } else if name.starts_with("eth_get") || name.ends_with("_call") || name.starts_with("debug_trace") {
            Read
        } else {
            Unsafe
        };
        Self { label: "other", id: MethodId(Self::COUNT), class, tells: Nothing, asks: None }
    }

    /// The name for labels of the method with this id.
    pub fn label_of(MethodId(index): MethodId) -> &'static str {
        TABLE.get(index).map_or("other", |(name, ..)| name)
    }

    /// Whether the call may be sent again, to this node or another, when its answer was lost.
    pub fn is_repeatable(&self) -> bool {
        match self.class {
            Read | RawTransaction | Filter | Outbox | Class::NodeLocal => true,
            Unsafe | Subscription => false,
        }
    }

    /// Whether a second node may have the call while the first still works.
    pub fn may_run_at_two(&self) -> bool {
        matches!(self.class, Read | RawTransaction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_each_name_stands_once() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(TABLE.iter().all(|(name, ..)| Method::of(name).label == *name));
    }

    #[test]
    fn unknown_methods_are_reads_only_if_their_name_says_so() {
        for (name, class) in [
            ("eth_getSomethingNew", Read),
            ("bor_call", Read),
            ("debug_traceEverything", Read),
            ("debug_setHead", Unsafe),
            ("get_eth", Unsafe),
            ("eth_sendSomething", Unsafe),
            ("ETH_CALL", Unsafe),
            ("admin_subscribe", Subscription),
            ("", Unsafe),
        ] {
            assert_eq!(
                Method::of(name),
                Method { label: "other", id: MethodId(Method::COUNT), class, tells: Nothing, asks: None },
                "{name}"
            );
        }
    }

    #[test]
    fn a_call_with_an_effect_is_never_sent_twice() {
        for (name, expected) in [
            ("eth_call", (true, true)),
            ("eth_sendRawTransaction", (true, true)),
            ("eth_getFilterChanges", (true, false)),
            ("eth_sendTransaction", (false, false)),
            ("eth_sign", (false, false)),
            ("eth_subscribe", (false, false)),
            ("dev_unknown", (false, false)),
        ] {
            let method = Method::of(name);
            assert_eq!((method.is_repeatable(), method.may_run_at_two()), expected, "{name}");
        }
    }
}
