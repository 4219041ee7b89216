//! `[calls]`: deadlines, retries and limits of calls.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::Duration,
};

use http::HeaderName;

use super::{
    call_rules::CallRule,
    header,
    method_pattern::{MethodPattern, MethodRule, is_refused},
    reader::Reader,
};

const MIB: usize = 1 << 20;

/// Methods that a node keeps for its operator, and that a proxy would make public. Of `debug_`, the
/// methods that trace, and those that return blocks, transactions and receipts in raw form, are
/// open to all clients, but for the one that reads a file of the node's machine.
const BLOCKED: [&str; 27] = [
    "admin_*",
    "personal_*",
    "miner_*",
    "engine_*",
    "clique_*",
    "les_*",
    "perm_*",
    "plugins_*",
    "qbft_*",
    "ibft_*",
    "istanbul_*",
    "raft_*",
    "anvil_*",
    "hardhat_*",
    "evm_*",
    "testing_*",
    "parity_set*",
    "parity_clearEngineSigner",
    "db_put*",
    "debug_*",
    "!debug_trace*",
    "debug_traceBlockFromFile",
    "!debug_getRaw*",
    "!debug_getBadBlocks",
    "!debug_getBlockRlp",
    "!debug_getBlockRlpByHash",
    "!debug_getHeaderRlp",
];

/// Which of several equally good nodes gets a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// The first good node in the order of the file.
    #[default]
    First,
    /// The one with the fewest calls in flight.
    Spread,
    /// A node by chance, in proportion to the nodes' weights.
    Weighted,
    /// Of two by chance, the one whose answer is likely to come first.
    Fastest,
}

/// The policies by their names.
const POLICIES: [(&str, Policy); 4] = [
    ("first", Policy::First),
    ("spread", Policy::Spread),
    ("weighted", Policy::Weighted),
    ("fastest", Policy::Fastest),
];

/// The nodes that a signed transaction goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SendTo {
    /// All usable nodes at once, backups too.
    #[default]
    All,
    /// All usable nodes at once of the tier that serves.
    Tier,
    /// A single node, and the next when that node fails.
    First,
}

/// How closely nodes' answers are looked at. Short ones, and those of batches and WebSockets, are
/// always looked at whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// The beginning and the end of a long answer.
    #[default]
    Ends,
    /// Every byte.
    All,
}

/// Deadlines, retries and limits of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calls {
    /// The whole call: all attempts, and the time in the queue.
    pub timeout: Duration,
    /// How long an attempt at one node is waited for before another may be begun; not longer than
    /// `timeout`.
    pub attempt_timeout: Duration,
    /// Attempts of one call at most before the call waits, the first included.
    pub attempts: NonZeroU32,
    /// How long a call waits when no node can serve; not longer than `timeout`; zero: not at all.
    pub hold: Duration,
    /// Calls that wait at once, at most.
    pub max_held: NonZeroUsize,
    /// Bytes of the bodies of the calls that wait at once, at most; not less than `max_body`.
    pub max_held_bytes: usize,
    /// Connections to one node open at once, at most, where the node's own setting says nothing; 0:
    /// as many as the node takes.
    pub max_node_connections: usize,
    /// Bytes of one request body, at most.
    pub max_body: usize,
    /// Calls in one batch, at most.
    pub max_batch: NonZeroUsize,
    /// Which of several equally good nodes gets a call.
    pub policy: Policy,
    /// Whether callers may pick the node or the tier that is asked.
    pub allow_picking: bool,
    /// Whether an answer over HTTP names the node that gave the answer.
    pub name_nodes: bool,
    /// How closely nodes' answers are looked at.
    pub verify: Verify,
    /// The nodes that a signed transaction goes to.
    pub send_to: SendTo,
    /// Methods that are refused; see [`Calls::blocks`].
    pub blocked: Vec<MethodRule>,
    /// Exceptions to `blocked`.
    pub allowed: Vec<MethodPattern>,
    /// The rules for some methods; see [`Calls::patience`].
    pub rules: Vec<CallRule>,
    /// Client headers that go to every node, beside `x-request-id` and `traceparent`, which always
    /// do.
    pub forward_headers: Vec<HeaderName>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(10),
            attempts: const { NonZeroU32::new(3).expect("not zero") },
            hold: Duration::from_secs(10),
            max_held: const { NonZeroUsize::new(10_000).expect("not zero") },
            max_held_bytes: 64 * MIB,
            max_node_connections: 0,
            max_body: 10 * MIB,
            max_batch: const { NonZeroUsize::new(1_000).expect("not zero") },
            policy: Policy::default(),
            allow_picking: false,
            name_nodes: true,
            verify: Verify::default(),
            send_to: SendTo::default(),
            blocked: BLOCKED.map(|text| text.parse().expect("the table holds patterns")).to_vec(),
            allowed: Vec::new(),
            rules: Vec::new(),
            forward_headers: Vec::new(),
        }
    }
}

impl Calls {
    /// Whether `method` is refused: by a rule, or, where none says, by `blocked`, and not excepted
    /// by `allowed`, which is matched to the letter.
    pub fn blocks(&self, method: &str) -> bool {
        self.is_ruled_out(method).unwrap_or_else(|| {
            is_refused(&self.blocked, method) && !self.allowed.iter().any(|pattern| pattern.matches(method))
        })
    }

    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        let timeout = r.duration("timeout", default.timeout);
        let max_body = r.size("max_body", default.max_body);
        let calls = Self {
            timeout,
            // With a short `timeout`, the defaults of `attempt_timeout` and `hold` shrink too.
            attempt_timeout: r.duration("attempt_timeout", default.attempt_timeout.min(timeout)),
            attempts: r.positive("attempts", default.attempts),
            hold: r.duration_or_zero("hold", default.hold.min(timeout)),
            max_held: r.count("max_held", default.max_held),
            max_held_bytes: r.size("max_held_bytes", default.max_held_bytes.max(max_body)),
            max_node_connections: r
                .integer("max_node_connections", 0..=1_000_000)
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(default.max_node_connections),
            max_body,
            max_batch: r.count("max_batch", default.max_batch),
            policy: r.choice("policy", &POLICIES, default.policy),
            allow_picking: r.boolean("allow_picking", default.allow_picking),
            name_nodes: r.boolean("name_nodes", default.name_nodes),
            verify: r.choice("verify", &[("ends", Verify::Ends), ("all", Verify::All)], default.verify),
            send_to: send_to(&mut r).unwrap_or(default.send_to),
            blocked: r.list("blocked", str::parse).unwrap_or(default.blocked),
            allowed: r.list("allowed", str::parse).unwrap_or(default.allowed),
            rules: CallRule::read_all(&mut r),
            forward_headers: r.list("forward_headers", header::name).unwrap_or(default.forward_headers),
        };
        r.check(calls.attempt_timeout <= timeout, "attempt_timeout", &["timeout"], "must not be longer than `timeout`");
        r.check(calls.hold <= timeout, "hold", &["timeout"], "must not be longer than `timeout`");
        r.check(
            calls.max_held_bytes >= max_body,
            "max_held_bytes",
            &["max_body"],
            "must not be less than `max_body`: a call of that size could never wait",
        );
        calls
    }
}

/// The nodes that a signed transaction goes to; `None` where the key is absent or its value wrong.
pub(super) fn send_to(r: &mut Reader<'_>) -> Option<SendTo> {
    r.choice_if_set("send_to", &[("all", SendTo::All), ("tier", SendTo::Tier), ("first", SendTo::First)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_blocked_in_any_case_exceptions_are_exact() {
        let calls = Calls { allowed: vec!["admin_peers".parse().unwrap()], ..Calls::default() };
        for method in
            ["admin_addPeer", "ADMIN_addPeer", "Personal_sign", "engine_newPayloadV4", "admin_peersX", "Admin_Peers"]
        {
            assert!(calls.blocks(method), "{method}");
        }
        for method in ["admin_peers", "eth_call", "administer", "admin", "", "xadmin_addPeer"] {
            assert!(!calls.blocks(method), "{method}");
        }
        assert!(!Calls { blocked: vec![], ..calls }.blocks("admin_addPeer"));
    }

    #[test]
    fn of_debug_what_traces_and_reads_is_open_and_all_else_is_not() {
        let calls = Calls::default();
        // As geth, reth, Nethermind, Erigon and Besu name them.
        for method in [
            "debug_traceBlock",
            "debug_traceBlockByHash",
            "debug_traceBlockByNumber",
            "debug_traceBadBlock",
            "debug_traceCall",
            "debug_traceCallMany",
            "debug_traceChain",
            "debug_traceTransaction",
            "debug_traceTransactionByBlockAndIndex",
            "debug_traceTransactionInBlockByHash",
            "debug_getRawBlock",
            "debug_getRawHeader",
            "debug_getRawReceipts",
            "debug_getRawTransaction",
            "debug_getRawTransactions",
            "debug_getBadBlocks",
            "debug_getBlockRlp",
            "debug_getBlockRlpByHash",
            "debug_getHeaderRlp",
        ] {
            assert!(!calls.blocks(method), "{method}");
        }
        for method in [
            "debug_setHead",
            "debug_resetHead",
            "debug_deleteChainSlice",
            "debug_migrateReceipts",
            "debug_insertReceipts",
            "debug_getConfigValue",
            "debug_getFromDb",
            "debug_dbGet",
            "debug_chaindbCompact",
            "debug_cpuProfile",
            "debug_writeMemProfile",
            "debug_startGoTrace",
            "debug_freezeClient",
            "debug_freeOSMemory",
            "debug_setGCPercent",
            "debug_verbosity",
            "debug_stacks",
            "debug_dumpBlock",
            "debug_traceBlockFromFile",
            "debug_standardTraceBlockToFile",
            "debug_standardTraceBadBlockToFile",
            "debug_batchSendRawTransaction",
            "debug_replayBlock",
            "debug_somethingNew",
            "Debug_traceCall",
            "perm_addNodesToAllowlist",
            "plugins_reloadPluginConfig",
            "qbft_proposeValidatorVote",
            "ibft_discardValidatorVote",
            "istanbul_propose",
            "raft_removePeer",
            "anvil_setBalance",
            "hardhat_impersonateAccount",
            "evm_mine",
            "testing_buildBlock",
            "parity_setMode",
            "parity_clearEngineSigner",
            "db_putString",
        ] {
            assert!(calls.blocks(method), "{method}");
        }
    }
}
