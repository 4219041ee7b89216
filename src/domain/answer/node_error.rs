//! The error of a node's response: whether the call or the node is to blame.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A JSON-RPC error that a node returned.
#[derive(Debug, Deserialize)]
pub struct NodeError<'a> {
    /// The error code.
    #[serde(default)]
    pub code: i64,
    /// The message, for people and for [`NodeError::blame`].
    #[serde(borrow, default)]
    pub message: Cow<'a, str>,
    /// Further data that the node attached.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

/// Whether the call or the node is to blame for an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The call: every node would say so.
    Caller,
    /// The node: another may answer.
    Node,
    /// Neither: the node lacks something that the call needs, and another node may not.
    Lacking(Lacked),
    /// Uncertain by one node's word: if a second node says so too, the call is to blame.
    Unknown,
}

/// The thing that a node lacks, by the node's own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacked {
    /// The method; the node did nothing.
    Method,
    /// The block: not there yet, of another fork, or not kept.
    Block,
    /// Data of the block, which were pruned or never built.
    Data,
}

impl<'a> NodeError<'a> {
    /// Reads the error of a complete response. `None` where the response has no readable error.
    pub fn read(text: &'a [u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Response<'a> {
            #[serde(borrow)]
            error: NodeError<'a>,
        }
        serde_json::from_slice::<Response<'a>>(text).ok().map(|response| response.error)
    }

    /// Whether the call or the node is to blame, as far as the error shows.
    pub fn blame(&self) -> Blame {
        const OF_THE_NODE: [&str; 29] = [
            // Full, for now.
            "txpool is full",
            "transaction pool is full",
            "mempool is full",
            "capacity exceeded",
            "rate limit",
            "too many requests",
            "daily request count exceeded",
            // Not there yet.
            "not synced",
            "still syncing",
            "is syncing",
            // Words that may be about a method, a type or an account.
            "not supported",
            "not whitelisted",
            "not available on",
            "not allowed",
            // Words for a call that is too much for the node.
            "block range",
            "range is too large",
            "range too large",
            "limited to a",
            "more than 10000 results",
            "too many results",
            "response size",
            "response is too big",
            "response too large",
            "content length too large",
            "execution timeout",
            "query timeout",
            "timed out",
            "timeout exceeded",
            "exceeds maximum",
        ];
        // Some nodes report a revert as an internal error; the data of a revert is the contract's
        // word to the caller.
        if self.code == 3 || self.says("revert") || self.is_already_known() {
            return Blame::Caller;
        }
        if let Some(lacked) = self.lacked() {
            return Blame::Lacking(lacked);
        }
        match self.code {
            -32603 | -32005..=-32004 | -32002 | -32008 | 429 => Blame::Node,
            _ if OF_THE_NODE.iter().any(|words| self.says(words)) => Blame::Node,
            _ => Blame::Unknown,
        }
    }

    /// The thing that the node lacks, by these words.
    fn lacked(&self) -> Option<Lacked> {
        // A client writes the words of its tracer's errors.
        const OF_A_TRACER: [&str; 3] = ["tracer", "<eval>", "js code"];
        if self.is_of_a_missing_method() {
            Some(Lacked::Method)
        } else if OF_A_TRACER.iter().any(|words| self.says(words)) {
            None
        } else if self.is_of_missing_data() {
            Some(Lacked::Data)
        } else if self.is_of_a_missing_block() {
            Some(Lacked::Block)
        } else {
            None
        }
    }

    /// Whether the node says that data of a block are not there, or not any more.
    ///
    /// - 4444 with any words: EIP-4444, "pruned history unavailable" (geth, reth, nethermind).
    /// - geth: "missing trie node 1a3b… (path )" (its issue 17133), "historical state 1a3b… is
    ///   not available", "state 0x66… is not available" (32148), "state histories haven't been
    ///   fully indexed yet", and in traces "required historical state unavailable (reexec=128)"
    ///   (26636).
    /// - nethermind: "No state available for block …" under -32002, -32000 and -32603 (its issue
    ///   13603), and "Internal error" with a `MissingTrieNodeException` in the data (9408).
    /// - erigon: "old data not available due to pruning: …" (its pull request 19339), and earlier
    ///   "data before txNum=… is not available" (13198).
    /// - reth: "state at block #… is pruned" (its `ProviderError::StateAtBlockPruned`).
    /// - besu: "World state unavailable" (its `RpcErrorType`).
    /// - openethereum: "… because your node is running with state pruning" (its issue 11594).
    /// - providers: "project ID does not have access to archive state" (Infura), "Requested data is
    ///   older than 128 blocks", "Access to archival, debug, or trace data is not included in your
    ///   current plan" (Chainstack), "… querying historical state that is not available" (Monad).
    fn is_of_missing_data(&self) -> bool {
        const WORDS: [&str; 14] = [
            "missing trie node",
            "historical state",
            "state histories haven't been fully indexed",
            "state not available",
            "state is not available",
            "no state available for block",
            "due to pruning",
            "data before txnum",
            "pruned",
            "world state unavailable",
            "running with state pruning",
            "access to archive state",
            "access archive state",
            "access to archival",
        ];
        let is_of_a_state = || self.says("state 0x") && self.says("is not available");
        let is_too_old = || self.says("requested data is older than");
        let is_in_the_data = || {
            let data = self.data.map_or("", RawValue::get).as_bytes();
            self.code == -32603 && memchr::memmem::find(data, b"MissingTrieNodeException").is_some()
        };
        self.code == 4444
            || WORDS.iter().any(|words| self.says(words))
            || is_of_a_state()
            || is_too_old()
            || is_in_the_data()
    }

    /// Whether the node says that a block that the call names is not there, or not yet.
    ///
    /// - geth: "header not found", "header for hash not found", "unknown block", "block range
    ///   extends beyond current head block", and of fees "request beyond head block".
    /// - besu and reth: "Block not found"; reth: "block not found: 0x5", "unknown block".
    /// - erigon: "block not found 11185311" (its issue 2770).
    /// - nethermind: -32001, "0x5 could not be found" (its `BlockFinderExtensions`).
    /// - Polygon and Monad: "Block requested not found".
    /// - others: "block 5 is beyond the latest block 4 of this node".
    fn is_of_a_missing_block(&self) -> bool {
        const WORDS: [&str; 8] = [
            "header not found",
            "header for hash not found",
            "unknown block",
            "block not found",
            "block requested not found",
            "beyond current head",
            "beyond head block",
            "beyond the latest block",
        ];
        WORDS.iter().any(|words| self.says(words)) || (self.code == -32001 && self.says("could not be found"))
    }

    /// Whether the node says that it does not offer the method.
    ///
    /// - -32601 with any words: JSON-RPC 2.0. geth and erigon say "the method x does not exist/is
    ///   not available"; reth, besu and anvil "Method not found".
    /// - -32604 with any words: besu, "Method not enabled".
    /// - -32600: nethermind, for modules that are not in `JsonRpc.EnabledModules`: "… is found but
    ///   the namespace 'Trace' is disabled for …", and earlier "found but the containing module is
    ///   disabled" (its issues 7802 and 3194).
    /// - -32600: gateways of providers, "Unsupported method: x".
    /// - -32004: EIP-1474, "Method not supported".
    fn is_of_a_missing_method(&self) -> bool {
        const ENDS: [&str; 8] = [
            "not found",
            "not exist",
            "not supported",
            "not available",
            "not enabled",
            "not whitelisted",
            "is disabled",
            "unsupported method",
        ];
        // Words under other codes may be a contract's or a tracer's, which clients choose.
        let is_of_a_method = self.says("method") || self.says("containing module");
        match self.code {
            -32601 | -32604 => true,
            -32600 | -32004 => is_of_a_method && ENDS.iter().any(|words| self.says(words)),
            _ => false,
        }
    }

    /// Whether the node says that its pool or chain has this very transaction already. Words
    /// about a nonce, or about an unknown transaction, never say so.
    pub fn is_already_known(&self) -> bool {
        const OF_ANOTHER: [&str; 3] = ["nonce", "unknown", "not known"];
        [
            "already known",
            "known transaction",
            "alreadyknown",
            "already imported",
            "already in mempool",
            "already exists",
            "same hash",
            "tx already in",
            "transaction already in",
        ]
        .iter()
        .any(|words| self.says(words))
            && !OF_ANOTHER.iter().any(|words| self.says(words))
    }

    /// Whether a node refuses a transaction for its very bytes, as every node would.
    pub fn is_of_the_bytes(&self) -> bool {
        const OF_THE_BYTES: [&str; 9] = [
            "rlp",
            "decod",
            "invalid sender",
            "invalid signature",
            "invalid chain id",
            "invalid argument",
            "intrinsic gas too low",
            "transaction type not supported",
            "oversized data",
        ];
        self.code == -32602 || OF_THE_BYTES.iter().any(|words| self.says(words))
    }

    /// Whether the message holds `words`, which are in lower case.
    fn says(&self, words: &str) -> bool {
        self.message.as_bytes().windows(words.len()).any(|window| window.eq_ignore_ascii_case(words.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_blamed_on_the_node_or_on_the_caller() {
        for (code, message, blame) in [
            (-32603, "Internal error", Blame::Node),
            (-32603, "execution reverted: nope", Blame::Caller),
            (3, "execution reverted", Blame::Caller),
            (-32005, "limit exceeded", Blame::Node),
            (-32603, "already known", Blame::Caller),
            (-32000, "txpool is full", Blame::Node),
            (-32000, "existing tx with same hash", Blame::Caller),
            (-32000, "insufficient funds for gas * price + value", Blame::Unknown),
            (-32602, "invalid argument 0", Blame::Unknown),
            (-32700, "parse error", Blame::Unknown),
            (-32099, "words that nobody has heard before", Blame::Unknown),
            (-32601, "the method x does not exist/is not available", Blame::Lacking(Lacked::Method)),
            (-32601, "", Blame::Lacking(Lacked::Method)),
            (-32604, "Method not enabled", Blame::Lacking(Lacked::Method)),
            (-32000, "Method x not supported", Blame::Node),
            (-32000, "method not found at step (<eval>:1:33(2)) in server-side tracer function 'step'", Blame::Unknown),
            (-32004, "This request is not supported on this network", Blame::Node),
            (-32600, "Unsupported method: trace_block", Blame::Lacking(Lacked::Method)),
            (
                -32600,
                "The method 'trace_block' is found but the namespace 'Trace' is disabled for http://127.0.0.1:8545.",
                Blame::Lacking(Lacked::Method),
            ),
            (-32600, "admin_peers found but the containing module is disabled", Blame::Lacking(Lacked::Method)),
            (-32004, "Method not supported", Blame::Lacking(Lacked::Method)),
            (-32000, "execution reverted: method not found", Blame::Caller),
            (-32602, "the tracer is not found: see the method's params", Blame::Unknown),
            (-32000, "transaction type not supported", Blame::Node),
            (-32602, "eth_getLogs and eth_newFilter are limited to a 10,000 blocks range", Blame::Node),
            (-32000, "block range too large: exceeds maximum of 1024", Blame::Node),
            (-32005, "query returned more than 10000 results", Blame::Node),
            (-32602, "Log response size exceeded", Blame::Node),
            (-32008, "Response is too big", Blame::Node),
            (-32000, "execution timeout", Blame::Node),
            (-32002, "resource unavailable", Blame::Node),
            (-32000, "execution reverted: missing trie node", Blame::Caller),
            (
                -32000,
                "missing trie node at step (<eval>:1:33(2)) in server-side tracer function 'step'",
                Blame::Unknown,
            ),
            (-32000, "distance to target block exceeds maximum proof window", Blame::Node),
        ] {
            let error = NodeError { code, message: message.into(), data: None };
            assert_eq!(error.blame(), blame, "{code} {message}");
        }
    }

    #[test]
    fn lacks_are_read_in_the_words_of_each_client() {
        use Lacked::{Block, Data};
        for (code, message, lacked) in [
            (4444, "pruned history unavailable", Data),
            (4444, "", Data),
            (-32000, "missing trie node 12ab (path ) state 0x12ab is not available", Data),
            (-32000, "historical state 12ab is not available", Data),
            (-32000, "state 0x669c5301 is not available", Data),
            (-32000, "state histories haven't been fully indexed yet", Data),
            (-32000, "required historical state unavailable (reexec=128)", Data),
            (-32002, "No state available for block 0x3f9e (17)", Data),
            (
                -32000,
                "old data not available due to pruning: requested block 5, history is available from block 9",
                Data,
            ),
            (-32000, "seek with txNum=19 but data before txNum=26 is not available: blockNum=16", Data),
            (-32603, "state at block #49871645 is pruned", Data),
            (-32000, "World state unavailable", Data),
            (-32000, "This request is not supported because your node is running with state pruning.", Data),
            (-32002, "project ID does not have access to archive state", Data),
            (
                -32602,
                "Block requested not found. Request might be querying historical state that is not available.",
                Data,
            ),
            (-32000, "Header Not Found", Block),
            (-32000, "header for hash not found", Block),
            (-32000, "unknown block", Block),
            (-32001, "block not found: 0x5", Block),
            (-32000, "block not found 11185311", Block),
            (-32001, "0x5 could not be found", Block),
            (-32602, "block range extends beyond current head block", Block),
            (-32000, "request beyond head block: requested 9, head 5", Block),
        ] {
            let error = NodeError { code, message: message.into(), data: None };
            assert_eq!(error.blame(), Blame::Lacking(lacked), "{code} {message}");
        }
        let trie = br#"{"error":{"code":-32603,"message":"Internal error","data":"Nethermind.Trie.MissingTrieNodeException: Node"}}"#;
        assert_eq!(NodeError::read(trie).unwrap().blame(), Blame::Lacking(Data));
        // Another error's data are the client's or the contract's.
        let other = br#"{"error":{"code":-32015,"message":"VM error","data":"MissingTrieNodeException"}}"#;
        assert_eq!(NodeError::read(other).unwrap().blame(), Blame::Unknown);
    }

    #[test]
    fn an_error_is_read_whole() {
        let error = NodeError::read(br#"{"id":1,"error":{"code":3,"message":"execution \"reverted\"","data":"0x08"}}"#)
            .unwrap();
        assert_eq!(
            (error.code, error.message.as_ref(), error.data.unwrap().get()),
            (3, "execution \"reverted\"", "\"0x08\"")
        );
        assert!(NodeError::read(br#"{"id":1,"error":"text"}"#).is_none());
        let known = |message: &'static str| NodeError { code: -32000, message: message.into(), data: None };
        assert!(known("already known").is_already_known());
        assert!(known("ALREADY_EXISTS: already known").is_already_known());
        for message in [
            "unknown transaction type",
            "Unknown transaction type: 0x7e",
            "a transaction with the same nonce already exists",
            "transaction already has a fee that is too low",
        ] {
            assert!(!known(message).is_already_known(), "{message}");
        }
        assert!(known("rlp: value size exceeds available input length").is_of_the_bytes());
        assert!(!known("nonce too low: next nonce 5, tx nonce 3").is_of_the_bytes());
    }
}
