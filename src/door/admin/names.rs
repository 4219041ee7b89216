//! Names of nodes in requests of operators.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;

use super::failure;

/// Whether `asked` means the node `name` of this network and layer: by the name, with the network,
/// the layer or both before.
pub(super) fn is_meant(asked: &str, [network, layer, name]: [&str; 3]) -> bool {
    let parts: Vec<&str> = asked.split('/').collect();
    match parts[..] {
        [asked] => asked == name,
        [before, asked] => asked == name && (before == network || before == layer),
        [asked_network, asked_layer, asked] => asked == name && asked_network == network && asked_layer == layer,
        _ => false,
    }
}

/// The answer where no node is meant.
pub(super) fn unknown(asked: &str, all: impl Iterator<Item = String>) -> Response<Full<Bytes>> {
    let all = all.collect::<Vec<_>>().join(", ");
    failure(StatusCode::NOT_FOUND, &format!("there is no node {asked}; the nodes are {all}"))
}

/// The answer where several nodes are meant.
pub(super) fn several(asked: &str, meant: impl Iterator<Item = String>) -> Response<Full<Bytes>> {
    let meant = meant.collect::<Vec<_>>().join(", ");
    failure(StatusCode::CONFLICT, &format!("several nodes are called {asked}: say which, as one of {meant}"))
}

/// The warning where the last node that could serve is taken out of use.
pub(super) fn no_other(network: &str, layer: &str) -> String {
    format!("no other node of {network} {layer} can serve now: calls wait for calls.hold, and fail")
}
