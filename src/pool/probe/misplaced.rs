//! Whether a node that does not answer as one of its layer is one of the other layer: a slip of the
//! pen in the settings.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::time::timeout;

use super::{ask, beacon};
use crate::{domain::layer::Layer, net::http::Upstream, pool::node::Node};

/// How long the node may take to say so.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The other layer, in words, if the node belongs to that and not to `layer`.
pub(crate) async fn misplaced(node: &Node, layer: Layer) -> Option<&'static str> {
    let upstream = node.upstream.as_ref()?;
    let is_other = match layer {
        Layer::El => timeout(TIMEOUT, is_consensus(node, upstream)).await,
        Layer::Cl => timeout(TIMEOUT, is_execution(node)).await,
    };
    is_other.unwrap_or(false).then_some(match layer {
        Layer::El => "this is a consensus node: its place is under `cl`, or --cl",
        Layer::Cl => "this is an execution node: its place is under `el`, or --el",
    })
}

async fn is_consensus(node: &Node, upstream: &Arc<Upstream>) -> bool {
    #[derive(Deserialize)]
    struct Told {
        #[expect(dead_code, reason = "its being there is what counts")]
        data: Version,
    }
    #[derive(Deserialize)]
    struct Version {
        #[expect(dead_code, reason = "its being there is what counts")]
        version: String,
    }
    let answer = beacon::body_of(node, upstream, "/eth/v1/node/version").await;
    answer.is_ok_and(|body| serde_json::from_slice::<Told>(&body).is_ok())
}

async fn is_execution(node: &Node) -> bool {
    matches!(ask((), node, "eth_chainId", "[]").await, Ok(Ok(id)) if id.starts_with(b"\"0x"))
}
