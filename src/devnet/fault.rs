//! What can be wrong with a node.

mod active;
mod words;

use serde::{Deserialize, Serialize};

pub(super) use self::active::Faults;

/// One thing that is wrong with a node; several can be at once. In JSON:
/// `{"fault":"lag","blocks":10}`.
///
/// A method that ends in `*` stands for all that begin like it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The socket is closed and connections are refused; open ones are dropped.
    Down,
    /// Connections are accepted and requests read, and nothing is ever answered. When it ends,
    /// connections that were owed something are dropped, the others go on.
    Hang,
    /// WebSocket and event streams stay open and answer calls, but push no events; those are lost,
    /// not late.
    Mute,
    /// The node is so many blocks behind the tip.
    Lag {
        /// Blocks behind.
        blocks: u64,
    },
    /// The node hears of blocks, and sees them, so much later than others.
    Late {
        /// Milliseconds.
        ms: u64,
    },
    /// The node is on another branch than those without this fault. It begins so many blocks below
    /// the head when the fault is set, and all that have the fault follow the latest.
    Branch {
        /// Blocks below the head.
        blocks: u64,
    },
    /// The node's head stays where it was when the fault was set.
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
        /// The chain id that it tells.
        chain_id: u64,
    },
    /// The node tells another number for its network than its chain id, as on some old chains.
    NetworkId {
        /// What `net_version` tells.
        id: u64,
    },
    /// HTTP 500 with a body that is not JSON, whatever is asked; open WebSockets are closed with
    /// 1011.
    Failing,
    /// A JSON-RPC error, whatever is called.
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
    /// The quota is used up, and that is said as providers do: error -32005 in HTTP 200; HTTP 429
    /// on consensus nodes.
    Quota {
        /// Methods it applies to; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Methods that the node does not offer: error -32601; HTTP 404 on consensus nodes.
    NotOffered {
        /// Methods it applies to; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Requests are executed, then the connection is dropped without one byte of answer.
    CutAnswer {
        /// Methods it applies to; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// The connection is dropped in the middle of each answer's body.
    CutMidBody,
    /// Answers carry the id of another call.
    AlienId {
        /// Methods it applies to; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Answers carry no id at all.
    NoId {
        /// Methods it applies to; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// The newest blocks, their transactions and their receipts are announced, and `null` when they
    /// are asked for by number or hash.
    Nulls {
        /// How many blocks below the head, with it.
        blocks: u64,
    },
    /// A new subscription to `syncing` or to pending transactions has notifications around the
    /// answer that grants it: the node's state, or hashes of transactions that nobody sent.
    Eager {
        /// Before the answer.
        #[serde(default)]
        before: u64,
        /// Right behind it.
        #[serde(default)]
        after: u64,
    },
    /// So many connections are served; each further one is closed at once, without a byte, as Besu
    /// does.
    MaxConnections {
        /// Connections, WebSockets included.
        connections: u64,
    },
    /// Answers are compressed by gzip whatever the request says, but for streams.
    Gzip,
    /// Execution: calls of these methods are answered with an internal error.
    Refuse {
        /// Which.
        methods: Vec<String>,
    },
    /// Execution: calls of a method are answered with this result, whatever is asked.
    Tells {
        /// Which.
        method: String,
        /// The result.
        result: serde_json::Value,
    },
    /// Execution: of the logs in an answer to `eth_getLogs` the first lacks `removed` and
    /// `blockTimestamp`, and behind the last stands a null.
    OddLogs,
    /// Execution: the last log of each block that `eth_getLogs` gives has `"topics":null`.
    NullTopics,
    /// Execution: `eth_getLogs` is refused when there are more logs than these.
    LogsLimit {
        /// How many are given.
        most: u64,
    },
    /// Execution: `eth_getLogs` has no `blockHash`.
    NoLogsByHash,
    /// Execution: the block at this height cannot be had and is told by nobody, though those above
    /// it are.
    MissingBlock {
        /// Its height.
        number: u64,
    },
    /// Execution: the logs of the block at this height cannot be had: whatever would give some of
    /// them is an internal error.
    MissingLogs {
        /// Its height.
        number: u64,
    },
    /// Execution: headers have a bloom filter with one bit, whatever logs their blocks have.
    BlindBlooms,
    /// Requests of these methods are read and never answered; the others are. When it ends, their
    /// connections are dropped.
    HangOver {
        /// Methods it applies to, such as `eth_call` or `GET /eth/v3/validator/blocks/*`; none
        /// means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Answers to these methods are delayed.
    SlowOver {
        /// Milliseconds.
        ms: u64,
        /// Methods it applies to, such as `eth_call` or `GET /eth/v3/validator/blocks/*`; none
        /// means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// HTTP requests are answered by a gateway before the node, with this status and a page; the
    /// node hears nothing of them.
    Gateway {
        /// The status, at least 200.
        status: u16,
        /// Methods it applies to; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// HTTP requests are answered with this status and nothing else is done about them.
    HttpStatus {
        /// The status, at least 200.
        status: u16,
        /// Methods it applies to, such as `eth_call` or `GET /eth/v1/node/health`; none means all
        /// but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Consensus: the head is not verified by an execution node.
    Optimistic,
    /// Consensus: the node says that its execution node is offline. It works all the same, as
    /// Nimbus did.
    ElOffline,
    /// Consensus: what is older than so many slots below the head is not there (404).
    Pruned {
        /// Slots below the head.
        slots: u64,
        /// Of `blocks` (with their headers and roots), `states` and `blobs` (with columns), those
        /// that go; none means all.
        #[serde(default)]
        what: Vec<Store>,
    },
    /// Consensus: of each block's blobs only the first so many are there, which the answer does not
    /// say (200).
    FewBlobs {
        /// Blobs that are left of each block.
        #[serde(default)]
        left: u64,
    },
}

/// What a consensus node keeps of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Store {
    /// Blocks, their headers and roots.
    Blocks,
    /// States, and what is read from them.
    States,
    /// Blobs and data columns.
    Blobs,
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

    /// Answers neither `methods`, nor anything but probes if there are none.
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

    /// Does not keep `what`, or anything if that is empty, of more than `slots` below the head.
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

    /// Does not give the newest `blocks` that it announces.
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
    /// Says what is wrong with the text.
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

/// Whether a request is one of those by which a proxy watches a node: they get through
/// [`Fault::CutAnswer`].
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
