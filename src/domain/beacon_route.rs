//! The beacon API's routes. The effect of a request decides to which nodes the request goes and
//! whether a second sending is allowed.

use super::method::{Method, MethodId};

/// Whether a request may be sent twice, and to which nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// No effect: may be repeated on any node. Some POSTs are of this kind: their bodies only name
    /// the data asked for.
    Read,
    /// Hands a signed message to the network. The bytes mean the same from every node, so another
    /// node may be given them at any time.
    Publish,
    /// Tells nodes something that each must know for itself: goes to all of them.
    Everywhere,
    /// May have an effect: never sent again once its bytes may have reached a node.
    Once,
}

/// A request by its method and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The group of routes for labels, one of [`Route::GROUPS`].
    pub group: &'static str,
    /// The group's index among [`Route::GROUPS`].
    pub id: MethodId,
    /// Whether the request may be sent twice.
    pub class: Class,
    /// Whether the request belongs to a validator's duties, which stay on one node: only that node
    /// knows the messages that it got before.
    pub is_duty: bool,
    /// A number for the route's name, which is the same for all requests of the route. Names of
    /// things that the request asks for, such as slots and roots, count for nothing.
    pub name: u32,
    /// Whether the API describes a success of the route as JSON with `data`. Of an unknown route
    /// nothing is known.
    pub has_data: bool,
    is_long: bool,
}

// Counters that are kept for each method have room for each group, too, and for its publications.
const _: () = assert!(2 * Route::GROUPS.len() <= Method::COUNT);

impl Route {
    /// The groups of routes.
    pub const GROUPS: [&'static str; 14] = [
        "node",
        "headers",
        "blocks",
        "blobs",
        "states",
        "rewards",
        "pool",
        "light_client",
        "beacon",
        "validator",
        "config",
        "events",
        "debug",
        "other",
    ];

    /// The route of a request of that method, for a path that begins with `/eth/v…/`.
    pub fn of(method: &str, path: &str) -> Self {
        let mut steps = path.trim_matches('/').split('/').skip(2);
        let area = steps.next().unwrap_or_default();
        let (what, more, last) = (steps.next().unwrap_or_default(), steps.next(), steps.last());
        let group = match (area, what) {
            ("beacon", "headers") => "headers",
            ("beacon", "blocks" | "blinded_blocks") => "blocks",
            ("beacon", "blobs" | "blob_sidecars") => "blobs",
            ("beacon", "states") => "states",
            ("beacon", "rewards") => "rewards",
            ("beacon", "pool") => "pool",
            ("beacon", "light_client") => "light_client",
            ("node" | "beacon" | "validator" | "config" | "events" | "debug", _) => area,
            _ => "other",
        };
        // A distributed validator gives its part of a proof and waits for the whole proof, which is
        // the same however often the validator asks.
        let combines = matches!(what, "beacon_committee_selections" | "sync_committee_selections") && more.is_none();
        let class = match (method, area, what) {
            ("GET" | "HEAD" | "OPTIONS", ..) => Class::Read,
            ("POST", "beacon", "blocks" | "blinded_blocks" | "pool") => Class::Publish,
            ("POST", "beacon", "execution_payload_bids" | "execution_payload_envelopes") => Class::Publish,
            ("POST", "beacon", "execution_payload_bid" | "execution_payload_envelope") => Class::Publish,
            ("POST", "beacon", "rewards") => Class::Read,
            ("POST", "beacon", "states") => match last {
                Some("validators" | "validator_balances" | "validator_identities" | "builders") => Class::Read,
                _ => Class::Once,
            },
            ("POST", "validator", "duties" | "liveness") => Class::Read,
            ("POST", "validator", _) if combines => Class::Read,
            ("POST", "validator", "aggregate_and_proofs" | "contribution_and_proofs") => Class::Publish,
            (
                "POST",
                "validator",
                "beacon_committee_subscriptions"
                | "sync_committee_subscriptions"
                | "prepare_beacon_proposer"
                | "register_validator"
                | "proposer_preferences",
            ) if more.is_none() => Class::Everywhere,
            _ => Class::Once,
        };
        // The list ends in `other`.
        let index = Self::GROUPS.iter().position(|name| *name == group).unwrap_or(Self::GROUPS.len() - 1);
        // A block belongs to the duties: only the node that made the block has the payload behind a
        // blinded block.
        let publishes = matches!((method, area), ("POST", "beacon"))
            && matches!(
                what,
                "blocks" | "blinded_blocks" | "execution_payload_envelopes" | "execution_payload_envelope"
            );
        let is_long = class == Class::Read
            && (combines || matches!(group, "debug" | "states" | "rewards" | "blocks" | "blobs" | "light_client"));
        Self {
            group: Self::GROUPS[index],
            id: MethodId(index),
            class,
            is_duty: area == "validator" || publishes,
            name: name(method, path),
            has_data: has_data(method, path),
            is_long,
        }
    }

    /// Whether a healthy node may work for minutes before the first byte of its answer.
    pub fn is_long(&self) -> bool {
        self.is_long
    }

    /// Whether the request may be sent again although a node may already have the first one.
    pub fn is_repeatable(&self) -> bool {
        matches!(self.class, Class::Read | Class::Everywhere)
    }
}

/// Whether a success of the route has `data` in JSON. The success of a message has no body, health
/// has a status only, and light client updates and fork choice have forms of their own.
fn has_data(method: &str, path: &str) -> bool {
    let mut steps = [""; 6];
    let mut count = 0;
    for (place, step) in steps.iter_mut().zip(path.trim_matches('/').split('/').skip(2)) {
        *place = step;
        count += 1;
    }
    match (method, &steps[..count]) {
        ("GET", ["beacon", what, rest @ ..]) => match (*what, rest) {
            ("genesis" | "headers", []) => true,
            ("headers" | "blocks" | "blinded_blocks" | "blobs" | "blob_sidecars", [_]) => true,
            ("execution_payload_envelopes", [_]) | ("blocks", [_, "root" | "attestations"]) => true,
            ("states", [_, what]) => matches!(
                *what,
                "root"
                    | "fork"
                    | "finality_checkpoints"
                    | "validators"
                    | "validator_balances"
                    | "committees"
                    | "sync_committees"
                    | "randao"
                    | "pending_consolidations"
                    | "pending_deposits"
                    | "pending_partial_withdrawals"
                    | "proposer_lookahead"
            ),
            ("states", [_, "validators", _]) | ("rewards", ["blocks", _]) => true,
            ("light_client", ["bootstrap", _] | ["finality_update" | "optimistic_update"]) => true,
            ("pool", ["attestations" | "payload_attestations" | "attester_slashings"]) => true,
            ("pool", ["proposer_slashings" | "voluntary_exits" | "bls_to_execution_changes"]) => true,
            _ => false,
        },
        ("GET", ["debug", "beacon", "states" | "data_column_sidecars", _] | ["debug", "beacon", "heads"]) => true,
        ("GET", ["node", "identity" | "peers" | "peer_count" | "version" | "syncing"] | ["node", "peers", _]) => true,
        ("GET", ["config", "fork_schedule" | "spec" | "deposit_contract"]) => true,
        ("GET", ["validator", what, rest @ ..]) => matches!(
            (*what, rest),
            ("duties", ["proposer", _])
                | ("blocks" | "blinded_blocks", [_])
                | ("attestation_data" | "payload_attestation_data", [])
                | ("aggregate_attestation" | "sync_committee_contribution", [])
                | ("execution_payload_bids" | "execution_payload_envelopes", [_, _])
        ),
        ("POST", ["beacon", "states", _, what]) => {
            matches!(*what, "validators" | "validator_balances" | "validator_identities" | "builders")
        }
        ("POST", ["beacon", "rewards", "sync_committee" | "attestations", _]) => true,
        ("POST", ["validator", "duties", "attester" | "sync" | "ptc", _] | ["validator", "liveness", _]) => true,
        ("POST", ["validator", "beacon_committee_selections" | "sync_committee_selections"]) => true,
        _ => false,
    }
}

/// A hash of the method and of the steps of the path that are words.
fn name(method: &str, path: &str) -> u32 {
    const NAMES_OF_BLOCKS: [&str; 4] = ["head", "genesis", "finalized", "justified"];
    let method = if method == "HEAD" { "GET" } else { method };
    let is_word = |step: &&str| {
        step.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !NAMES_OF_BLOCKS.contains(step)
    };
    // The path begins with `eth` and the version: an old version of a route has the limits of a new
    // version.
    let words = path.trim_matches('/').split('/').skip(2).filter(is_word).take(4);
    let bytes = std::iter::once(method).chain(words).flat_map(|word| word.bytes().chain([b'/']));
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_known_by_its_method_and_path() {
        for (method, path, group, class) in [
            ("GET", "/eth/v1/node/syncing", "node", Class::Read),
            ("HEAD", "/eth/v1/node/health", "node", Class::Read),
            ("GET", "/eth/v1/beacon/headers/head", "headers", Class::Read),
            ("GET", "/eth/v1/beacon/genesis", "beacon", Class::Read),
            ("GET", "/eth/v2/debug/beacon/states/head", "debug", Class::Read),
            ("GET", "/eth/v1/beacon/states/head/validators", "states", Class::Read),
            ("POST", "/eth/v1/beacon/states/head/validators", "states", Class::Read),
            ("POST", "/eth/v1/beacon/states/head/validator_balances/", "states", Class::Read),
            ("POST", "/eth/v1/beacon/states/head/something_new", "states", Class::Once),
            ("POST", "/eth/v2/beacon/blocks", "blocks", Class::Publish),
            ("POST", "/eth/v1/beacon/blinded_blocks", "blocks", Class::Publish),
            ("POST", "/eth/v2/beacon/pool/attestations", "pool", Class::Publish),
            ("POST", "/eth/v1/beacon/execution_payload_bid", "beacon", Class::Publish),
            ("POST", "/eth/v1/beacon/execution_payload_bids", "beacon", Class::Publish),
            ("DELETE", "/eth/v2/beacon/pool/attestations", "pool", Class::Once),
            ("POST", "/eth/v1/beacon/rewards/attestations/1", "rewards", Class::Read),
            ("POST", "/eth/v1/validator/duties/attester/1", "validator", Class::Read),
            ("POST", "/eth/v2/validator/aggregate_and_proofs", "validator", Class::Publish),
            ("POST", "/eth/v1/validator/beacon_committee_subscriptions", "validator", Class::Everywhere),
            ("POST", "/eth/v2/validator/register_validator/", "validator", Class::Everywhere),
            ("POST", "/eth/v1/validator/beacon_committee_selections", "validator", Class::Read),
            ("POST", "/eth/v1/validator/sync_committee_selections/more", "validator", Class::Once),
            ("POST", "/eth/v1/validator/proposer_preferences", "validator", Class::Everywhere),
            ("POST", "/eth/v1/beacon/states/head/builders", "states", Class::Read),
            ("POST", "/eth/v1/validator/prepare_beacon_proposer/more", "validator", Class::Once),
            ("PATCH", "/eth/v1/config/spec", "config", Class::Once),
            ("GET", "/eth/v1/events", "events", Class::Read),
            ("GET", "/eth/v9/my_secret/thing", "other", Class::Read),
            ("GET", "/eth/v1/", "other", Class::Read),
        ] {
            let route = Route::of(method, path);
            assert_eq!((route.group, route.class), (group, class), "{method} {path}");
            assert_eq!(Route::GROUPS[route.id.0], route.group);
            let publishes_a_block = method == "POST" && group == "blocks";
            assert_eq!(route.is_duty, group == "validator" || publishes_a_block, "{method} {path}");
        }
    }

    #[test]
    fn requests_of_one_route_have_one_name() {
        let name = |method, path| Route::of(method, path).name;
        let duties = name("GET", "/eth/v1/validator/duties/proposer/7");
        assert_eq!(duties, name("HEAD", "/eth/v2/validator/duties/proposer/8/"));
        assert_ne!(duties, name("POST", "/eth/v1/validator/duties/attester/7"));
        let validators = name("GET", "/eth/v1/beacon/states/head/validators");
        assert_eq!(validators, name("GET", "/eth/v1/beacon/states/0xab/validators"));
        assert_ne!(validators, name("POST", "/eth/v1/beacon/states/head/validators"));
        assert_ne!(validators, name("GET", "/eth/v1/beacon/states/head/root"));
    }

    #[test]
    fn slow_routes_are_waited_for() {
        for (method, path, is_long) in [
            ("GET", "/eth/v2/debug/beacon/states/head", true),
            ("POST", "/eth/v1/beacon/rewards/attestations/1", true),
            ("POST", "/eth/v1/validator/beacon_committee_selections", true),
            ("POST", "/eth/v1/validator/sync_committee_selections", true),
            ("POST", "/eth/v2/beacon/blocks", false),
            ("GET", "/eth/v3/validator/blocks/1", false),
        ] {
            assert_eq!(Route::of(method, path).is_long(), is_long, "{method} {path}");
        }
    }

    #[test]
    fn reads_and_messages_for_all_nodes_may_be_repeated() {
        let repeatable = |method, path| Route::of(method, path).is_repeatable();
        assert!(repeatable("GET", "/eth/v1/node/syncing"));
        assert!(repeatable("POST", "/eth/v1/validator/register_validator"));
        assert!(!repeatable("POST", "/eth/v2/beacon/blocks"));
        assert!(!repeatable("PUT", "/eth/v1/node/syncing"));
    }
}
