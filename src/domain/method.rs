//! The method table: the effect of a call, which decides whether the call may be sent twice.

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
}

use Class::{Filter, Outbox, RawTransaction, Read, Subscription, Unsafe};
use Tells::{Block, Inclusion, Nothing, Number};

/// Sorted by name, for binary search.
const TABLE: &[(&str, Class, Tells)] = &[
    ("debug_getBadBlocks", Read, Nothing),
    ("debug_getRawBlock", Read, Nothing),
    ("debug_getRawHeader", Read, Nothing),
    ("debug_getRawReceipts", Read, Nothing),
    ("debug_getRawTransaction", Read, Nothing),
    ("debug_storageRangeAt", Read, Nothing),
    ("debug_traceBlockByHash", Read, Nothing),
    ("debug_traceBlockByNumber", Read, Nothing),
    ("debug_traceCall", Read, Nothing),
    ("debug_traceTransaction", Read, Nothing),
    ("eth_accounts", Read, Nothing),
    ("eth_blobBaseFee", Read, Nothing),
    ("eth_blockNumber", Read, Number),
    ("eth_call", Read, Nothing),
    ("eth_callMany", Read, Nothing),
    ("eth_chainId", Read, Nothing),
    ("eth_coinbase", Read, Nothing),
    ("eth_config", Read, Nothing),
    ("eth_createAccessList", Read, Nothing),
    ("eth_estimateGas", Read, Nothing),
    ("eth_feeHistory", Read, Nothing),
    ("eth_gasPrice", Read, Nothing),
    ("eth_getBalance", Read, Nothing),
    ("eth_getBlockByHash", Read, Block),
    ("eth_getBlockByNumber", Read, Block),
    ("eth_getBlockReceipts", Read, Inclusion),
    ("eth_getBlockTransactionCountByHash", Read, Nothing),
    ("eth_getBlockTransactionCountByNumber", Read, Nothing),
    ("eth_getCode", Read, Nothing),
    ("eth_getFilterChanges", Filter, Nothing),
    ("eth_getFilterLogs", Filter, Nothing),
    ("eth_getHeaderByHash", Read, Block),
    ("eth_getHeaderByNumber", Read, Block),
    ("eth_getLogs", Read, Nothing),
    ("eth_getProof", Read, Nothing),
    ("eth_getStorageAt", Read, Nothing),
    ("eth_getStorageValues", Read, Nothing),
    ("eth_getTransactionByBlockHashAndIndex", Read, Inclusion),
    ("eth_getTransactionByBlockNumberAndIndex", Read, Inclusion),
    ("eth_getTransactionByHash", Read, Inclusion),
    ("eth_getTransactionCount", Read, Nothing),
    ("eth_getTransactionReceipt", Read, Inclusion),
    ("eth_getUncleByBlockHashAndIndex", Read, Nothing),
    ("eth_getUncleByBlockNumberAndIndex", Read, Nothing),
    ("eth_getUncleCountByBlockHash", Read, Nothing),
    ("eth_getUncleCountByBlockNumber", Read, Nothing),
    ("eth_hashrate", Read, Nothing),
    ("eth_maxPriorityFeePerGas", Read, Nothing),
    ("eth_mining", Read, Nothing),
    ("eth_newBlockFilter", Filter, Nothing),
    ("eth_newFilter", Filter, Nothing),
    ("eth_newPendingTransactionFilter", Filter, Nothing),
    ("eth_protocolVersion", Read, Nothing),
    ("eth_sendBundle", Unsafe, Nothing),
    ("eth_sendPrivateTransaction", Unsafe, Nothing),
    ("eth_sendRawTransaction", RawTransaction, Nothing),
    ("eth_sendRawTransactionConditional", Unsafe, Nothing),
    ("eth_sendRawTransactionSync", Unsafe, Nothing),
    ("eth_sendTransaction", Unsafe, Nothing),
    ("eth_sign", Unsafe, Nothing),
    ("eth_signTransaction", Unsafe, Nothing),
    ("eth_signTypedData", Unsafe, Nothing),
    ("eth_signTypedData_v4", Unsafe, Nothing),
    ("eth_simulateV1", Read, Nothing),
    ("eth_submitHashrate", Unsafe, Nothing),
    ("eth_submitWork", Unsafe, Nothing),
    ("eth_subscribe", Subscription, Nothing),
    ("eth_syncing", Read, Nothing),
    ("eth_uninstallFilter", Filter, Nothing),
    ("eth_unsubscribe", Subscription, Nothing),
    ("net_listening", Read, Nothing),
    ("net_peerCount", Read, Nothing),
    ("net_version", Read, Nothing),
    ("rpc_modules", Read, Nothing),
    ("steadfast_getTransactionStatus", Outbox, Nothing),
    ("trace_block", Read, Nothing),
    ("trace_call", Read, Nothing),
    ("trace_callMany", Read, Nothing),
    ("trace_filter", Read, Nothing),
    ("trace_get", Read, Nothing),
    ("trace_rawTransaction", Read, Nothing),
    ("trace_replayBlockTransactions", Read, Nothing),
    ("trace_replayTransaction", Read, Nothing),
    ("trace_transaction", Read, Nothing),
    ("txpool_content", Read, Nothing),
    ("txpool_contentFrom", Read, Nothing),
    ("txpool_inspect", Read, Nothing),
    ("txpool_status", Read, Nothing),
    ("web3_clientVersion", Read, Nothing),
    ("web3_sha3", Read, Nothing),
];

impl Method {
    /// How many methods the table knows.
    pub const COUNT: usize = TABLE.len();

    /// Looks `name` up. A method that the table does not know is a read only if its name says so,
    /// and unsafe otherwise.
    pub fn of(name: &str) -> Self {
        if let Ok(at) = TABLE.binary_search_by(|(known, ..)| (*known).cmp(name)) {
            let (label, class, tells) = TABLE[at];
            return Self { label, id: MethodId(at), class, tells };
        }
        let class = if name.ends_with("_subscribe") || name.ends_with("_unsubscribe") {
            Subscription
        } else if name.starts_with("eth_get") || name.ends_with("_call") || name.starts_with("debug_trace") {
            Read
        } else {
            Unsafe
        };
        Self { label: "other", id: MethodId(Self::COUNT), class, tells: Nothing }
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
                Method { label: "other", id: MethodId(Method::COUNT), class, tells: Nothing },
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
