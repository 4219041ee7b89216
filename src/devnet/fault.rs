//! The faults that a node can have.

mod active;
mod kept;
mod words;

use serde::{Deserialize, Serialize};

pub(super) use self::active::Faults;
pub use self::kept::{History, Program, Store};

/// A fault of a node; a node can have several at once. In JSON: `{"fault":"lag","blocks":10}`.
///
/// In a list of methods, a name that ends in `*` matches every method with that beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The socket is closed and connections are refused; open ones are dropped.
    Down,
    /// Connections are accepted and requests read, and no request is ever answered. When the fault
    /// ends, connections that are owed an answer are dropped; the others go on.
    Hang,
    /// WebSocket and event streams stay open and answer calls, but push no events; the events
    /// meanwhile are lost, not late.
    Mute,
    /// The node is so many blocks behind the tip.
    Lag {
        /// Blocks behind.
        blocks: u64,
    },
    /// The node sees each block so much later than the other nodes.
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// The node is on another branch than nodes without this fault. The branch begins so many
    /// blocks below the head when the fault is set, and all nodes with the fault follow the latest
    /// such branch.
    Branch {
        /// Blocks below the head.
        blocks: u64,
    },
    /// The node's head stays at its height of the moment when the fault was set.
    Freeze,
    /// The node reports a head that is so many blocks above its true one.
    Lie {
        /// Blocks above.
        blocks: u64,
    },
    /// Every answer is delayed.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// The node says that it is syncing.
    Syncing,
    /// The node is of another network.
    WrongChain {
        /// The chain id that the node reports.
        chain_id: u64,
    },
    /// The node's `net_version` differs from its chain id, as on some old chains.
    NetworkId {
        /// The result of `net_version`.
        id: u64,
    },
    /// HTTP 500 with a body that is not JSON, for every request; open WebSockets are closed with
    /// 1011.
    Failing,
    /// A JSON-RPC error as the answer to every call.
    RpcError {
        /// The error's code.
        code: i64,
        /// The error's message.
        message: String,
    },
    /// Answers that are not JSON.
    Garbage,
    /// HTTP 429 with `Retry-After`; over an open WebSocket, error -32005.
    RateLimited {
        /// The seconds that `Retry-After` names.
        #[serde(default = "one")]
        retry_after: u64,
    },
    /// The quota is used up, and the node says so as providers do: error -32005 in HTTP 200; HTTP
    /// 429 on consensus nodes.
    Quota {
        /// The affected methods; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// The node is a provider's that counts credits: each call of a message costs one. Where there
    /// are not enough for a message, HTTP 429; over an open WebSocket, error -32005.
    Credits {
        /// Credits that come back in a second.
        per_second: u64,
        /// Credits that can be spent at once.
        burst: u64,
        /// The seconds that `Retry-After` names; none: there is no header of that name.
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Methods that the node does not offer: error -32601; HTTP 404 on consensus nodes.
    NotOffered {
        /// The affected methods; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Requests are executed, then the connection is dropped without one byte of answer.
    CutAnswer {
        /// The affected methods; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// The connection is dropped in the middle of each answer's body.
    CutMidBody,
    /// Answers carry the id of another call.
    AlienId {
        /// The affected methods; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Answers carry no id at all.
    NoId {
        /// The affected methods; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// The newest blocks are announced, but a request for one of these blocks, its transactions or
    /// its receipts by number or hash is answered with `null`.
    Nulls {
        /// How many blocks, counted down from the head, the head included.
        blocks: u64,
    },
    /// A new subscription to `syncing` or to pending transactions has notifications around the
    /// answer that grants it: the node's state, or hashes of transactions that do not exist.
    Eager {
        /// Notifications before the answer.
        #[serde(default)]
        before: u64,
        /// Notifications right behind the answer.
        #[serde(default)]
        after: u64,
    },
    /// So many connections are served; each further one is closed at once, without a byte, as Besu
    /// does.
    MaxConnections {
        /// Connections, WebSockets included.
        connections: u64,
    },
    /// Answers are compressed by gzip even if the request does not accept gzip; streams are not.
    Gzip,
    /// Execution: the node has forgotten the transactions in its mempool, and forgets those that
    /// come while the fault is set, from clients and from other nodes. Other nodes keep theirs.
    Forgetful,
    /// Execution: calls of these methods are answered with an internal error.
    Refuse {
        /// The affected methods.
        methods: Vec<String>,
    },
    /// Execution: calls of a method are answered with this result, whatever the params.
    Tells {
        /// The method.
        method: String,
        /// The result.
        result: serde_json::Value,
    },
    /// Execution: of the logs in an answer to `eth_getLogs` the first lacks `removed` and
    /// `blockTimestamp`, and behind the last stands a null.
    OddLogs,
    /// Execution: the last log of each block that `eth_getLogs` gives has `"topics":null`.
    NullTopics,
    /// Execution: `eth_getLogs` is refused when the answer would have more logs than this.
    LogsLimit {
        /// The largest number of logs in an answer.
        most: u64,
    },
    /// Execution: `eth_getLogs` has no `blockHash`.
    NoLogsByHash,
    /// Execution: the block at this height cannot be fetched and is never announced, though the
    /// blocks above are.
    MissingBlock {
        /// The block's height.
        number: u64,
    },
    /// Execution: the logs of the block at this height are missing: a call whose answer would
    /// contain some of them is answered with an internal error.
    MissingLogs {
        /// The block's height.
        number: u64,
    },
    /// Execution: headers have a bloom filter with one bit, whatever the logs of their blocks.
    BlindBlooms,
    /// Requests of these methods are read and never answered; the others are. When the fault ends,
    /// the connections of the unanswered requests are dropped.
    HangOver {
        /// The affected methods, such as `eth_call` or `GET /eth/v3/validator/blocks/*`; none means
        /// all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Answers to these methods are delayed.
    SlowOver {
        /// Milliseconds.
        ms: u64,
        /// The affected methods, such as `eth_call` or `GET /eth/v3/validator/blocks/*`; none means
        /// all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// HTTP requests are answered by a gateway before the node, with this status and a page; the
    /// node never sees the requests.
    Gateway {
        /// The status, at least 200.
        status: u16,
        /// The affected methods; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// HTTP requests are answered with this status and nothing else is done about them.
    HttpStatus {
        /// The status, at least 200.
        status: u16,
        /// The affected methods, such as `eth_call` or `GET /eth/v1/node/health`; none means all
        /// but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Execution: the node has dropped data of older blocks than these, and says so in the words of
    /// its program.
    Depth {
        /// The newest blocks, whose data the node keeps, the head included.
        blocks: u64,
        /// The program.
        #[serde(default)]
        program: Program,
        /// The dropped data; none means the states alone, as on a full node.
        #[serde(default)]
        what: Vec<History>,
    },
    /// Consensus: the head is not verified by an execution node.
    Optimistic,
    /// Consensus: the node reports that its execution node is offline, and works all the same, as
    /// Nimbus did.
    ElOffline,
    /// Consensus: data older than so many slots below the head are missing (404).
    Pruned {
        /// Slots below the head.
        slots: u64,
        /// The missing data: `blocks` (with their headers and roots), `states`, `blobs` (with
        /// columns); none means all.
        #[serde(default)]
        what: Vec<Store>,
    },
    /// Consensus: the node has only the first so many blobs of each block, and the answer (200)
    /// does not say so.
    FewBlobs {
        /// Blobs that are left of each block.
        #[serde(default)]
        left: u64,
    },
}

/// Why a fault could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FaultError(String);

impl Fault {
    /// Lags by `blocks`.
    #[must_use]
    pub fn lag(blocks: u64) -> Self {
        Self::Lag { blocks }
    }

    /// Hears of blocks `ms` milliseconds later.
    #[must_use]
    pub fn late(ms: u64) -> Self {
        Self::Late { ms }
    }

    /// Follows another branch from `blocks` below the head on.
    #[must_use]
    pub fn branch(blocks: u64) -> Self {
        Self::Branch { blocks }
    }

    /// Lies by `blocks`.
    #[must_use]
    pub fn lie(blocks: u64) -> Self {
        Self::Lie { blocks }
    }

    /// Delays answers by `ms` milliseconds.
    #[must_use]
    pub fn slow(ms: u64) -> Self {
        Self::Slow { ms }
    }

    /// Tells another chain id.
    #[must_use]
    pub fn wrong_chain(chain_id: u64) -> Self {
        Self::WrongChain { chain_id }
    }

    /// Tells another number for its network.
    #[must_use]
    pub fn network_id(id: u64) -> Self {
        Self::NetworkId { id }
    }

    /// Answers every call with this error.
    #[must_use]
    pub fn rpc_error(code: i64, message: &str) -> Self {
        Self::RpcError { code, message: message.to_owned() }
    }

    /// Loses the answers to `methods`, or to all but probes if there are none.
    #[must_use]
    pub fn cut_answer(methods: &[&str]) -> Self {
        Self::CutAnswer { methods: owned(methods) }
    }

    /// Counts credits: so many come back in a second, and so many can be spent at once.
    #[must_use]
    pub fn credits(per_second: u64, burst: u64, retry_after: Option<u64>) -> Self {
        Self::Credits { per_second, burst, retry_after }
    }

    /// Refuses everything with HTTP 429, for so many seconds.
    #[must_use]
    pub fn rate_limited(retry_after: u64) -> Self {
        Self::RateLimited { retry_after }
    }

    /// Has no quota left for `methods`, or for all but probes if there are none.
    #[must_use]
    pub fn quota(methods: &[&str]) -> Self {
        Self::Quota { methods: owned(methods) }
    }

    /// Does not offer `methods`, or nothing but probes if there are none.
    #[must_use]
    pub fn not_offered(methods: &[&str]) -> Self {
        Self::NotOffered { methods: owned(methods) }
    }

    /// Serves so many connections, and closes further ones.
    #[must_use]
    pub fn max_connections(connections: u64) -> Self {
        Self::MaxConnections { connections }
    }

    /// Answers `methods` with an internal error.
    #[must_use]
    pub fn refuse(methods: &[&str]) -> Self {
        Self::Refuse { methods: owned(methods) }
    }

    /// Answers `method` with `result`.
    #[must_use]
    pub fn tells(method: &str, result: serde_json::Value) -> Self {
        Self::Tells { method: method.to_owned(), result }
    }

    /// Gives no more than `most` logs at once.
    #[must_use]
    pub fn logs_limit(most: u64) -> Self {
        Self::LogsLimit { most }
    }

    /// Does not have the block at `number`.
    #[must_use]
    pub fn missing_block(number: u64) -> Self {
        Self::MissingBlock { number }
    }

    /// Does not have the logs of the block at `number`.
    #[must_use]
    pub fn missing_logs(number: u64) -> Self {
        Self::MissingLogs { number }
    }

    /// Answers `methods`, or all but probes if there are none, with this status.
    #[must_use]
    pub fn http_status(status: u16, methods: &[&str]) -> Self {
        Self::HttpStatus { status, methods: owned(methods) }
    }

    /// Never answers `methods`, or anything but probes if there are none.
    #[must_use]
    pub fn hang_over(methods: &[&str]) -> Self {
        Self::HangOver { methods: owned(methods) }
    }

    /// Takes `ms` milliseconds over `methods`, or over all but probes if there are none.
    #[must_use]
    pub fn slow_over(ms: u64, methods: &[&str]) -> Self {
        Self::SlowOver { ms, methods: owned(methods) }
    }

    /// Has a gateway answer `methods`, or all but probes if there are none, with this status and a
    /// page.
    #[must_use]
    pub fn gateway(status: u16, methods: &[&str]) -> Self {
        Self::Gateway { status, methods: owned(methods) }
    }

    /// Has pruned `what`, or everything if that is empty, of blocks more than `slots` below the
    /// head.
    #[must_use]
    pub fn pruned(slots: u64, what: &[Store]) -> Self {
        Self::Pruned { slots, what: what.to_vec() }
    }

    /// Has only the first blobs of each block.
    #[must_use]
    pub fn few_blobs(left: u64) -> Self {
        Self::FewBlobs { left }
    }

    /// Answers `methods`, or all but probes if there are none, with another call's id.
    #[must_use]
    pub fn alien_id(methods: &[&str]) -> Self {
        Self::AlienId { methods: owned(methods) }
    }

    /// Answers `methods`, or all but probes if there are none, without an id.
    #[must_use]
    pub fn no_id(methods: &[&str]) -> Self {
        Self::NoId { methods: owned(methods) }
    }

    /// Announces the newest `blocks` and answers `null` for them.
    #[must_use]
    pub fn nulls(blocks: u64) -> Self {
        Self::Nulls { blocks }
    }

    /// Pushes so many notifications before and right behind the answer to a subscription.
    #[must_use]
    pub fn eager(before: u64, after: u64) -> Self {
        Self::Eager { before, after }
    }

    /// Reads `{"fault":"lag","blocks":10}`.
    ///
    /// # Errors
    /// When the text is not the JSON of a fault; the error says why.
    pub fn from_json(text: &[u8]) -> Result<Self, FaultError> {
        serde_json::from_slice(text).map_err(|error| FaultError(error.to_string()))
    }

    /// The fault's name, as JSON and the control routes have it.
    #[must_use]
    pub fn name(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        value["fault"].as_str().unwrap_or_default().to_owned()
    }
}

fn owned(methods: &[&str]) -> Vec<String> {
    methods.iter().map(|method| (*method).to_owned()).collect()
}

fn one() -> u64 {
    1
}

/// Whether a request is one of those by which a proxy watches a node. A fault with an empty list of
/// methods spares these requests.
#[must_use]
pub fn is_probe(method: &str, params: &str) -> bool {
    match method {
        "eth_chainId" | "eth_syncing" | "eth_blockNumber" | "net_version" | "web3_clientVersion" => true,
        "eth_subscribe" | "eth_unsubscribe" => true,
        "eth_getBlockByNumber" => params.contains("\"latest\""),
        _ => ["node/", "config/spec", "beacon/headers", "beacon/genesis", "events"]
            .iter()
            .any(|path| method.strip_prefix("GET /eth/v1/").is_some_and(|rest| rest.starts_with(path))),
    }
}

#[cfg(test)]
mod tests;
