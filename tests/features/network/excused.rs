//! The scenarios that are not on a network, because it cannot do what they ask for.
//!
//! Nothing else excuses a scenario. One that is here and passes has failed: its row must go.

use super::Kind::{self, Anvil, Kurtosis};

const BEACON: &str = "anvil has no beacon API";
const HANG: &str = "Kurtosis stops and starts containers, and nothing else";
const LAG: &str = "no node of an enclave can be held back";
const QUIET: &str = "no contract of an enclave logs, and there are no transactions";
const CHAIN: &str = "an enclave's chain goes on by itself: no scenario names its blocks, or replaces them";
const RECORDS: &str = "nodes of an enclave do not tell what they were asked";
const KEY: &str = "there is no key to sign with in an enclave";

/// Feature file, scenario, networks that it is not on, why.
pub const EXCUSED: &[(&str, &str, &[Kind], &str)] = &[
    ("beacon_requests", "To the next primary, to the backup, and home step by step", &[Anvil], BEACON),
    ("beacon_requests", "The operator takes a node out, and lets it in again", &[Anvil], BEACON),
    ("consensus_heads", "Nodes that agree", &[Anvil], BEACON),
    ("consensus_health", "A node that goes down is left without one failed request, and taken again", &[Anvil], BEACON),
    ("consensus_health", "The reason is told of a node that goes down", &[Anvil], BEACON),
    ("testnet", "Requests to the beacon API wait while all nodes are gone", &[Anvil], BEACON),
    ("testnet", "Events of the beacon API go on in one response while nodes are stopped and started", &[Anvil], BEACON),
    ("testnet", "Events of the beacon API go on when all nodes were gone", &[Anvil], BEACON),
    ("testnet", "Status and metrics tell of a failover of the consensus side", &[Anvil], BEACON),
    ("failover", "Calls in flight leave a node that hangs, long before their attempt's deadline", &[Kurtosis], HANG),
    (
        "failover",
        "With the default settings, a node that hangs holds no call up for more than a few seconds",
        &[Kurtosis],
        HANG,
    ),
    ("health", "A node that hangs is left without one failed call, and taken again", &[Kurtosis], HANG),
    ("health", "The reason is told of a node that hangs", &[Kurtosis], HANG),
    ("sockets", "Calls right after a switch when the primary hangs", &[Kurtosis], HANG),
    ("sockets", "A hundred calls while the primary hangs are all answered", &[Kurtosis], HANG),
    (
        "testnet",
        "Batches are answered whole and in order while a node stands still, and while it goes on",
        &[Kurtosis],
        HANG,
    ),
    ("failover", "The chain does not go backwards to a backup that is behind", &[Kurtosis], LAG),
    ("failover", "Heads as clients see them never fall through failover and failback", &[Kurtosis], LAG),
    ("health", "A node a little behind stays in use", &[Kurtosis], LAG),
    ("health", "A node beyond the limit is left, and taken again when it has caught up", &[Kurtosis], LAG),
    ("heads", "A node that is ahead of two others makes none of them lag", &[Kurtosis], LAG),
    ("subscriptions", "A block is told when the node that answers calls has it, and not before", &[Kurtosis], LAG),
    ("subscriptions", "The stand-by is behind when the primary is lost", &[Kurtosis], LAG),
    ("sockets", "Ids that are used again, also for subscriptions, are the client's own", &[Kurtosis], QUIET),
    ("sockets", "A client that sends binary messages is served with text", &[Kurtosis], QUIET),
    ("sockets", "A client that asks for too much is told so", &[Kurtosis], QUIET),
    (
        "subscriptions",
        "Subscriptions of several clients keep their ids over a switch and back when the primary goes down",
        &[Kurtosis],
        QUIET,
    ),
    (
        "subscriptions",
        "Subscriptions of several clients keep their ids over a switch and back when the primary hangs",
        &[Kurtosis],
        QUIET,
    ),
    ("subscriptions", "A batch of subscriptions is answered whole before any of them is heard", &[Kurtosis], QUIET),
    ("subscriptions", "To unsubscribe ends it, once", &[Kurtosis], QUIET),
    ("subscriptions", "Back on the primary while subscribed, without a gap and without a repeat", &[Kurtosis], QUIET),
    ("testnet", "The operator takes a node out while a client is subscribed to newHeads and logs", &[Kurtosis], QUIET),
    ("testnet", "Filters of blocks and logs outlive the time in which no node is there", &[Kurtosis], QUIET),
    ("filters", "Nodes without a WebSocket do as well, for filters of blocks and logs", &[Kurtosis], QUIET),
    ("filters", "A reload keeps filters of blocks and logs", &[Kurtosis], QUIET),
    (
        "testnet",
        "The proxy subscribes anew at each node that it turns to, and no client sees an answer to that, when the primary goes down",
        &[Kurtosis],
        QUIET,
    ),
    (
        "testnet",
        "The proxy subscribes anew at each node that it turns to, and no client sees an answer to that, when the primary hangs",
        &[Kurtosis],
        QUIET,
    ),
    ("subscriptions", "Missed blocks come first, in order, when the primary goes down", &[Kurtosis], CHAIN),
    ("subscriptions", "Missed blocks come first, in order, when the primary hangs", &[Kurtosis], CHAIN),
    ("subscriptions", "Both nodes are down for a while", &[Kurtosis], CHAIN),
    (
        "subscriptions",
        "Logs that a reorganisation takes out during a switch are taken back, newest block first",
        &[Kurtosis],
        CHAIN,
    ),
    ("filters", "A reorganisation in the switch is told whole", &[Kurtosis], CHAIN),
    (
        "filters",
        "Polls miss nothing and repeat nothing when the primary goes down and comes back",
        &[Kurtosis],
        RECORDS,
    ),
    ("filters", "Polls miss nothing and repeat nothing when the primary hangs and comes back", &[Kurtosis], RECORDS),
    ("filters", "Calls that are spread leave filters whole", &[Kurtosis], RECORDS),
    ("testnet", "A transaction that is sent while the primary is dead is in the chain once", &[Kurtosis], KEY),
    (
        "testnet",
        "A transaction that a node takes and cannot answer is sent to another, and is in the chain once",
        &[Kurtosis],
        KEY,
    ),
    ("testnet", "A transaction that comes when no node is there waits for one", &[Kurtosis], KEY),
];
