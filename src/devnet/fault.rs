//! What can be wrong with a node.

use std::{mem::discriminant, time::Duration};

use serde::{Deserialize, Serialize};

use super::{rpc::Label, view::View};

/// One thing that is wrong with a node; several can be at once. In JSON: `{"fault":"lag","blocks":10}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The socket is closed and connections are refused; open ones are dropped.
    Down,
    /// Connections are accepted and requests read, and nothing is ever answered. When it ends, connections that were owed
    /// something are dropped, the others go on.
    Hang,
    /// WebSocket and event streams stay open and answer calls, but push no events; those are lost, not late.
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
    /// HTTP 500 with a body that is not JSON, whatever is asked; open WebSockets are closed with 1011.
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
    /// The quota is used up, and that is said as providers do: error -32005 in HTTP 200; HTTP 429 on consensus nodes.
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
    /// The newest blocks, their transactions and their receipts are announced, and `null` when they are asked for by number or hash.
    Nulls {
        /// How many blocks below the head, with it.
        blocks: u64,
    },
    /// A new subscription to `syncing` or to pending transactions has notifications around the answer that grants it: the node's
    /// state, or hashes of transactions that nobody sent.
    Eager {
        /// Before the answer.
        #[serde(default)]
        before: u64,
        /// Right behind it.
        #[serde(default)]
        after: u64,
    },
    /// So many connections are served; each further one is closed at once, without a byte, as Besu does.
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
    /// Execution: of the logs in an answer to `eth_getLogs` the first lacks `removed` and `blockTimestamp`, and behind the last stands a
    /// null.
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
    /// Execution: the block at this height cannot be had and is told by nobody, though those above it are.
    MissingBlock {
        /// Its height.
        number: u64,
    },
    /// Execution: the logs of the block at this height cannot be had: whatever would give some of them is an internal error.
    MissingLogs {
        /// Its height.
        number: u64,
    },
    /// Execution: headers have a bloom filter with one bit, whatever logs their blocks have.
    BlindBlooms,
    /// HTTP requests are answered with this status and nothing else is done about them.
    HttpStatus {
        /// The status, at least 200.
        status: u16,
        /// Methods it applies to, such as `eth_call` or `GET /eth/v1/node/health`; none means all but [probes](is_probe).
        #[serde(default)]
        methods: Vec<String>,
    },
    /// Consensus: the head is not verified by an execution node.
    Optimistic,
    /// Consensus: the execution node is offline.
    ElOffline,
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
        Self::Refuse { methods: methods.iter().map(|method| (*method).to_owned()).collect() }
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

    /// Answers `methods`, or all but probes if there are none, with another call's id.
    #[must_use]
    pub fn alien_id(methods: &[&str]) -> Self {
        Self::AlienId { methods: methods.iter().map(|method| (*method).to_owned()).collect() }
    }

    /// Answers `methods`, or all but probes if there are none, without an id.
    #[must_use]
    pub fn no_id(methods: &[&str]) -> Self {
        Self::NoId { methods: methods.iter().map(|method| (*method).to_owned()).collect() }
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

    /// Reads the short forms `down`, `lag` + `10`, `cut-answer` + `eth_call,eth_getLogs`, `http-status` + `503,eth_call`.
    ///
    /// # Errors
    /// Says what is wrong with them.
    pub fn from_words(name: &str, argument: Option<&str>) -> Result<Self, FaultError> {
        let name = name.replace('-', "_");
        let number = |what: &str| {
            let text = argument.ok_or_else(|| FaultError(format!("{name} needs a number of {what}: {name}/10")))?;
            text.parse::<u64>().map_err(|_| FaultError(format!("{text:?} is not a number of {what}")))
        };
        let list: Vec<&str> = argument.map_or_else(Vec::new, |list| list.split(',').collect());
        let fault = match name.as_str() {
            "lag" => Self::lag(number("blocks")?),
            "late" => Self::late(number("milliseconds")?),
            "lie" => Self::lie(number("blocks")?),
            "slow" => Self::slow(number("milliseconds")?),
            "max_connections" => Self::max_connections(number("connections")?),
            "logs_limit" => Self::logs_limit(number("logs")?),
            "missing_block" => Self::missing_block(number("a block")?),
            "missing_logs" => Self::missing_logs(number("a block")?),
            "refuse" => {
                let list = argument.ok_or_else(|| FaultError("refuse needs methods: refuse/eth_getLogs".to_owned()))?;
                Self::refuse(&list.split(',').collect::<Vec<_>>())
            }
            "wrong_chain" => Self::wrong_chain(number("the chain")?),
            "network_id" => Self::network_id(number("the network")?),
            "rpc_error" => {
                let code = argument.map_or(Ok(-32000), str::parse);
                let code = code.map_err(|_| FaultError(format!("{argument:?} is not an error code")))?;
                Self::rpc_error(code, "error by order of the devnet")
            }
            "http_status" => {
                let status = list.first().and_then(|text| text.parse().ok()).filter(|status| *status >= 200);
                let status = status.ok_or_else(|| FaultError(format!("{argument:?} is not a status from 200 on")))?;
                Self::http_status(status, &list[1..])
            }
            "alien_id" => Self::alien_id(&list),
            "no_id" => Self::no_id(&list),
            "nulls" => Self::nulls(number("blocks")?),
            "eager" => Self::eager(0, number("notifications")?),
            "rate_limited" => Self::rate_limited(argument.map_or(Ok(1), |_| number("seconds"))?),
            "cut_answer" => Self::cut_answer(&list),
            "quota" => Self::quota(&list),
            "not_offered" => Self::not_offered(&list),
            _ if argument.is_some() => return Err(FaultError(format!("{name} takes no argument"))),
            _ => return Self::from_json(serde_json::json!({ "fault": name }).to_string().as_bytes()),
        };
        Ok(fault)
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

/// Whether a request is one of those by which a proxy watches a node: they get through [`Fault::CutAnswer`].
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

/// All that is wrong with a node at one moment.
#[derive(Clone, Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    /// What the node saw when [`Fault::Freeze`] was set.
    frozen: Option<View>,
}

impl Faults {
    pub(super) fn list(&self) -> &[Fault] {
        &self.list
    }

    /// Adds a fault, in the place of one of its kind. `view` is the node's present one.
    pub(super) fn set(&mut self, fault: Fault, view: View) {
        if fault == Fault::Freeze {
            self.frozen = Some(view);
        }
        self.list.retain(|other| discriminant(other) != discriminant(&fault));
        self.list.push(fault);
    }

    /// Takes the fault of this name away, if it is there.
    pub(super) fn unset(&mut self, name: &str) {
        self.list.retain(|fault| fault.name() != name);
        if !self.has(&Fault::Freeze) {
            self.frozen = None;
        }
    }

    pub(super) fn has(&self, fault: &Fault) -> bool {
        self.list.contains(fault)
    }

    pub(super) fn none(&self) -> bool {
        self.list.is_empty()
    }

    pub(super) fn frozen(&self) -> Option<&View> {
        self.frozen.as_ref()
    }

    pub(super) fn hang(&self) -> bool {
        self.has(&Fault::Hang)
    }

    pub(super) fn down(&self) -> bool {
        self.has(&Fault::Down)
    }

    pub(super) fn mute(&self) -> bool {
        self.has(&Fault::Mute)
    }

    pub(super) fn lag(&self) -> u64 {
        self.find(|fault| if let Fault::Lag { blocks } = fault { Some(*blocks) } else { None }).unwrap_or(0)
    }

    pub(super) fn late(&self) -> Duration {
        let ms = self.find(|fault| if let Fault::Late { ms } = fault { Some(*ms) } else { None });
        Duration::from_millis(ms.unwrap_or(0))
    }

    pub(super) fn lie(&self) -> u64 {
        self.find(|fault| if let Fault::Lie { blocks } = fault { Some(*blocks) } else { None }).unwrap_or(0)
    }

    pub(super) fn slow(&self) -> Duration {
        let ms = self.find(|fault| if let Fault::Slow { ms } = fault { Some(*ms) } else { None });
        Duration::from_millis(ms.unwrap_or(0))
    }

    pub(super) fn max_connections(&self) -> Option<u64> {
        self.find(|fault| if let Fault::MaxConnections { connections } = fault { Some(*connections) } else { None })
    }

    pub(super) fn chain_id(&self) -> Option<u64> {
        self.find(|fault| if let Fault::WrongChain { chain_id } = fault { Some(*chain_id) } else { None })
    }

    pub(super) fn network_id(&self) -> Option<u64> {
        self.find(|fault| if let Fault::NetworkId { id } = fault { Some(*id) } else { None })
    }

    pub(super) fn rpc_error(&self) -> Option<(i64, &str)> {
        self.find(|fault| match fault {
            Fault::RpcError { code, message } => Some((*code, message.as_str())),
            _ => None,
        })
    }

    /// Whether requests are turned away before they are looked at.
    pub(super) fn refuses(&self) -> bool {
        [Fault::Failing, Fault::Garbage].iter().any(|fault| self.has(fault))
            || self.rate_limited().is_some()
            || self.rpc_error().is_some()
    }

    /// The seconds after which a client may come again.
    pub(super) fn rate_limited(&self) -> Option<u64> {
        self.find(|fault| if let Fault::RateLimited { retry_after } = fault { Some(*retry_after) } else { None })
    }

    pub(super) fn has_no_quota(&self, method: &str, params: &str) -> bool {
        let methods = self.find(|fault| if let Fault::Quota { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|named| is_named(named, method, params))
    }

    pub(super) fn does_not_offer(&self, method: &str, params: &str) -> bool {
        let methods = self.find(|fault| if let Fault::NotOffered { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|named| is_named(named, method, params))
    }

    pub(super) fn cuts(&self, method: &str, params: &str) -> bool {
        let methods = self.find(|fault| if let Fault::CutAnswer { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|named| is_named(named, method, params))
    }

    /// What becomes of the id in the answer to such a call.
    pub(super) fn label(&self, method: &str, params: &str) -> Label {
        let spoilt = self.find(|fault| match fault {
            Fault::AlienId { methods } if is_named(methods, method, params) => Some(Label::Alien),
            Fault::NoId { methods } if is_named(methods, method, params) => Some(Label::Absent),
            _ => None,
        });
        spoilt.unwrap_or(Label::Own)
    }

    /// How many of the newest blocks are not given.
    pub(super) fn nulls(&self) -> u64 {
        self.find(|fault| if let Fault::Nulls { blocks } = fault { Some(*blocks) } else { None }).unwrap_or(0)
    }

    /// Notifications before the answer to a subscription, and right behind it.
    pub(super) fn eager(&self) -> (u64, u64) {
        self.find(|fault| if let Fault::Eager { before, after } = fault { Some((*before, *after)) } else { None })
            .unwrap_or((0, 0))
    }

    /// Whether calls of this method are refused.
    pub(super) fn refuses_method(&self, method: &str) -> bool {
        let methods = self.find(|fault| if let Fault::Refuse { methods } = fault { Some(methods) } else { None });
        methods.is_some_and(|methods| methods.iter().any(|name| name == method))
    }

    pub(super) fn logs_limit(&self) -> Option<u64> {
        self.find(|fault| if let Fault::LogsLimit { most } = fault { Some(*most) } else { None })
    }

    pub(super) fn missing_block(&self) -> Option<u64> {
        self.find(|fault| if let Fault::MissingBlock { number } = fault { Some(*number) } else { None })
    }

    pub(super) fn missing_logs(&self) -> Option<u64> {
        self.find(|fault| if let Fault::MissingLogs { number } = fault { Some(*number) } else { None })
    }

    /// The status that such a request is answered with in place of its own answer.
    pub(super) fn http_status(&self, method: &str, params: &str) -> Option<u16> {
        self.find(|fault| match fault {
            Fault::HttpStatus { status, methods } if is_named(methods, method, params) => Some(*status),
            _ => None,
        })
    }

    fn find<'a, T: 'a>(&'a self, pick: impl Fn(&'a Fault) -> Option<T>) -> Option<T> {
        self.list.iter().find_map(pick)
    }
}

fn is_named(named: &[String], method: &str, params: &str) -> bool {
    if named.is_empty() { !is_probe(method, params) } else { named.iter().any(|name| name == method) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_json_and_from_words() {
        let cases = [
            (r#"{"fault":"down"}"#, "down", None, Fault::Down),
            (r#"{"fault":"lag","blocks":10}"#, "lag", Some("10"), Fault::lag(10)),
            (r#"{"fault":"wrong_chain","chain_id":5}"#, "wrong-chain", Some("5"), Fault::wrong_chain(5)),
            (r#"{"fault":"late","ms":400}"#, "late", Some("400"), Fault::late(400)),
            (
                r#"{"fault":"max_connections","connections":80}"#,
                "max-connections",
                Some("80"),
                Fault::max_connections(80),
            ),
            (r#"{"fault":"cut_answer"}"#, "cut_answer", None, Fault::cut_answer(&[])),
            (
                r#"{"fault":"cut_answer","methods":["a","b"]}"#,
                "cut-answer",
                Some("a,b"),
                Fault::cut_answer(&["a", "b"]),
            ),
            (r#"{"fault":"http_status","status":202}"#, "http-status", Some("202"), Fault::http_status(202, &[])),
            (r#"{"fault":"logs_limit","most":3}"#, "logs-limit", Some("3"), Fault::logs_limit(3)),
            (r#"{"fault":"missing_block","number":3}"#, "missing-block", Some("3"), Fault::missing_block(3)),
            (r#"{"fault":"missing_logs","number":3}"#, "missing-logs", Some("3"), Fault::missing_logs(3)),
            (r#"{"fault":"refuse","methods":["a","b"]}"#, "refuse", Some("a,b"), Fault::refuse(&["a", "b"])),
            (r#"{"fault":"odd_logs"}"#, "odd-logs", None, Fault::OddLogs),
            (r#"{"fault":"null_topics"}"#, "null-topics", None, Fault::NullTopics),
            (r#"{"fault":"no_logs_by_hash"}"#, "no-logs-by-hash", None, Fault::NoLogsByHash),
            (r#"{"fault":"blind_blooms"}"#, "blind-blooms", None, Fault::BlindBlooms),
            (
                r#"{"fault":"http_status","status":503,"methods":["a"]}"#,
                "http_status",
                Some("503,a"),
                Fault::http_status(503, &["a"]),
            ),
            (r#"{"fault":"rate_limited"}"#, "rate-limited", None, Fault::rate_limited(1)),
            (r#"{"fault":"rate_limited","retry_after":9}"#, "rate_limited", Some("9"), Fault::rate_limited(9)),
            (r#"{"fault":"quota"}"#, "quota", None, Fault::quota(&[])),
            (r#"{"fault":"quota","methods":["a","b"]}"#, "quota", Some("a,b"), Fault::quota(&["a", "b"])),
            (r#"{"fault":"not_offered","methods":["a"]}"#, "not-offered", Some("a"), Fault::not_offered(&["a"])),
            (r#"{"fault":"cut_mid_body"}"#, "cut-mid-body", None, Fault::CutMidBody),
            (r#"{"fault":"alien_id"}"#, "alien-id", None, Fault::alien_id(&[])),
            (r#"{"fault":"no_id","methods":["a"]}"#, "no-id", Some("a"), Fault::no_id(&["a"])),
            (r#"{"fault":"nulls","blocks":2}"#, "nulls", Some("2"), Fault::nulls(2)),
            (r#"{"fault":"eager","after":2}"#, "eager", Some("2"), Fault::eager(0, 2)),
            (r#"{"fault":"gzip"}"#, "gzip", None, Fault::Gzip),
            (r#"{"fault":"el_offline"}"#, "el-offline", None, Fault::ElOffline),
        ];
        for (json, name, argument, fault) in cases {
            assert_eq!(Fault::from_json(json.as_bytes()).as_ref(), Ok(&fault), "{json}");
            assert_eq!(Fault::from_words(name, argument).as_ref(), Ok(&fault), "{name}");
            assert_eq!(fault.name(), name.replace('-', "_"));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for json in ["", "{}", r#"{"fault":"sad"}"#, r#"{"fault":"lag"}"#, r#"{"fault":"lag","blocks":1,"x":1}"#] {
            assert!(Fault::from_json(json.as_bytes()).is_err(), "{json}");
        }
        for (name, argument) in [
            ("sad", None),
            ("lag", None),
            ("lag", Some("x")),
            ("http_status", Some("99")),
            ("down", Some("1")),
            ("refuse", None),
        ] {
            assert!(Fault::from_words(name, argument).is_err(), "{name}");
        }
    }

    #[test]
    fn answers_are_cut_for_the_named_methods_or_for_all_but_probes() {
        let cut = |fault: Fault| Faults { list: vec![fault], frozen: None };
        let all = cut(Fault::cut_answer(&[]));
        assert!(all.cuts("eth_call", "[]"));
        assert!(all.cuts("eth_getBlockByNumber", r#"["0x1",false]"#));
        assert!(!all.cuts("eth_getBlockByNumber", r#"["latest",false]"#));
        assert!(!all.cuts("GET /eth/v1/node/syncing", ""));
        assert!(all.cuts("POST /eth/v2/beacon/blocks", ""));
        let one = cut(Fault::cut_answer(&["eth_chainId"]));
        assert!(one.cuts("eth_chainId", "[]"));
        assert!(!one.cuts("eth_call", "[]"));
    }
}
