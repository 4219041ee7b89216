//! How long each kind of request may take before another node is asked.
//!
//! Rule: a request for which a validator waits has a part of the slot; after that another node is
//! asked beside the first. The same goes for other reads, though a node may work on states, blocks
//! and blobs as long as the node is alive. Whole states, proofs of distributed validators, and
//! requests that are no reads are limited only by the node's life. Questions about the node itself,
//! and messages for all nodes, have the time of an attempt. Reason: a late attestation is worth
//! little, while a state that takes minutes to build is worth waiting for. Example: slots take
//! 12 s. For attestation data a second node is asked after 2.4 s, for duties after 4 s.

use std::time::Duration;

use http::Method;

use super::{Request, Requests};
use crate::domain::beacon_route::Class;

/// The limit of a kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeLimit {
    /// A fifth of a slot; then another node is asked beside the first. Blocks, votes and aggregates
    /// have a third of a slot each until they are too late, so a part is left to the other node.
    /// With slots of 12 s this is also more than the two seconds after which a silent node is found
    /// out.
    Due,
    /// A third of a slot; then the same.
    Soon,
    /// A third of a slot; then the same. A node may work on the answer as long as the node lives.
    Work,
    /// The time of an attempt; then another node is asked instead.
    Usual,
    /// As long as the node is alive.
    Long,
}

impl TimeLimit {
    pub(super) fn of(request: &Request) -> Self {
        let route = &request.route;
        if route.class != Class::Read {
            // A request that must not go to another node may take any time: giving up would only
            // lose the answer.
            return if route.is_repeatable() { Self::Usual } else { Self::Long };
        }
        let steps: Vec<&str> = request.target.path().trim_matches('/').split('/').skip(2).collect();
        match steps[..] {
            ["validator", ..] if route.is_long() => Self::Long,
            ["validator", "duties" | "liveness", ..] => Self::Soon,
            ["validator", ..] | ["beacon", "blocks", _, "root"] => Self::Due,
            ["beacon", "headers", ..] => Self::Soon,
            ["beacon", "states", _, "root" | "fork" | "finality_checkpoints"] => Self::Soon,
            ["debug", ..] if route.is_long() => Self::Long,
            _ if route.is_long() => Self::Work,
            // Each node answers for itself.
            ["node", ..] => Self::Usual,
            _ => Self::Soon,
        }
    }
}

/// Whether a validator loses something when the request is refused: such a request is tried at a
/// node that rests, if no other is left.
pub(super) fn is_urgent(request: &Request) -> bool {
    let route = &request.route;
    let is_of_the_chain = route.class == Class::Read && matches!(route.group, "headers" | "states");
    route.class == Class::Publish || route.is_duty || is_of_the_chain || TimeLimit::of(request) == TimeLimit::Due
}

/// Whether the answer must begin within `calls.timeout`.
pub(super) fn has_a_deadline(request: &Request) -> bool {
    let time_limit = TimeLimit::of(request);
    matches!(request.route.class, Class::Read | Class::Everywhere)
        && matches!(time_limit, TimeLimit::Due | TimeLimit::Soon | TimeLimit::Usual)
}

/// Whether half of an answer is useless, so that the answer is waited for whole: data to be signed,
/// blocks and blobs; and all that is short.
pub(super) fn is_wanted_whole(request: &Request) -> bool {
    if request.route.class != Class::Read {
        return false;
    }
    let steps: Vec<&str> = request.target.path().trim_matches('/').split('/').skip(2).collect();
    match steps[..] {
        ["beacon", "genesis"] => true,
        ["beacon", "states", _, what, ..] => {
            matches!(what, "root" | "fork" | "finality_checkpoints" | "randao" | "sync_committees")
        }
        _ => matches!(request.route.group, "validator" | "headers" | "blocks" | "blobs" | "config"),
    }
}

/// Whether a node may compress the answer: whole states and lists of all validators are long, and
/// of unknown routes nothing is judged. Any other answer is judged by its text.
pub(super) fn may_be_compressed(request: &Request) -> bool {
    let steps: Vec<&str> = request.target.path().trim_matches('/').split('/').skip(2).collect();
    let is_of_all = request.target.query().is_none_or(|query| !query.contains("id="));
    let is_long = match steps[..] {
        ["debug", ..] => true,
        ["beacon", "states", _, what] => {
            is_of_all && matches!(what, "validators" | "validator_balances" | "validator_identities" | "committees")
        }
        _ => false,
    };
    let is_unknown = request.route.group == "other" || request.route.class == Class::Once;
    is_unknown || (request.method == Method::GET && is_long)
}

impl Requests {
    /// How long a node has before another is asked beside that one; `None` where no other is.
    pub(super) fn time_before_second_node(&self, request: &Request) -> Option<Duration> {
        match TimeLimit::of(request) {
            TimeLimit::Due => Some(self.pool.slot() / 5),
            TimeLimit::Soon | TimeLimit::Work => Some(self.pool.slot() / 3),
            TimeLimit::Usual | TimeLimit::Long => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::domain::{beacon_route::Route, target::Target};

    #[test]
    fn each_kind_of_request_has_its_time_limit() {
        for (method, path, time_limit, whole) in [
            ("GET", "/eth/v3/validator/blocks/9?randao_reveal=0x00", TimeLimit::Due, true),
            ("GET", "/eth/v1/validator/attestation_data?slot=1", TimeLimit::Due, true),
            ("GET", "/eth/v2/validator/aggregate_attestation?slot=1", TimeLimit::Due, true),
            ("GET", "/eth/v1/validator/sync_committee_contribution?slot=1", TimeLimit::Due, true),
            ("POST", "/eth/v1/validator/duties/attester/1", TimeLimit::Soon, true),
            ("POST", "/eth/v1/validator/beacon_committee_selections", TimeLimit::Long, true),
            ("GET", "/eth/v1/beacon/blocks/head/root", TimeLimit::Due, true),
            ("GET", "/eth/v1/beacon/headers/head", TimeLimit::Soon, true),
            ("GET", "/eth/v1/beacon/states/head/fork", TimeLimit::Soon, true),
            ("GET", "/eth/v1/node/syncing", TimeLimit::Usual, false),
            ("GET", "/eth/v2/beacon/blocks/head", TimeLimit::Work, true),
            ("GET", "/eth/v1/beacon/blobs/7", TimeLimit::Work, true),
            ("GET", "/eth/v1/config/spec", TimeLimit::Soon, true),
            ("POST", "/eth/v1/beacon/states/head/validators", TimeLimit::Work, false),
            ("POST", "/eth/v1/beacon/rewards/attestations/1", TimeLimit::Work, false),
            ("GET", "/eth/v2/debug/beacon/states/head", TimeLimit::Long, false),
            ("GET", "/eth/v1/beacon/states/head/validators", TimeLimit::Work, false),
            ("GET", "/eth/v2/beacon/pool/attestations", TimeLimit::Soon, false),
            ("POST", "/eth/v1/validator/prepare_beacon_proposer", TimeLimit::Usual, false),
            ("POST", "/eth/v2/beacon/blocks", TimeLimit::Long, false),
        ] {
            let request = Request {
                route: Route::of(method, path.split('?').next().unwrap()),
                method: Method::from_bytes(method.as_bytes()).unwrap(),
                target: Target::parse(path).unwrap(),
                headers: HeaderMap::new(),
                caller: None,
                client: None,
                trace: None,
                pick: None,
            };
            assert_eq!((TimeLimit::of(&request), is_wanted_whole(&request)), (time_limit, whole), "{method} {path}");
        }
    }
}
