//! The software of a node, in the node's own words.

use serde::Deserialize;

use super::{ask, beacon};
use crate::{domain::layer::Layer, pool::node::Node};

/// The longest text that is shown, in characters.
const MAX_SHOWN: usize = 60;

/// The node's software by its own account, as `Geth/v1.16.7-stable/linux-amd64/go1.25`;
/// `None` where the node does not say. The caller limits the time.
pub(crate) async fn software(node: &Node, layer: Layer) -> Option<String> {
    #[derive(Deserialize)]
    struct Told {
        data: Version,
    }
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    let text = match layer {
        Layer::El => {
            let text = ask((), node, "web3_clientVersion", "[]").await.ok()?.ok()?;
            serde_json::from_slice::<String>(&text).ok()?
        }
        Layer::Cl => {
            let body = beacon::body_of(node, node.upstream.as_ref()?, "/eth/v1/node/version").await.ok()?;
            serde_json::from_slice::<Told>(&body).ok()?.data.version
        }
    };
    // A node's words are shown in a terminal.
    let shown = text.chars().filter(|character| !character.is_control()).take(MAX_SHOWN).collect::<String>();
    Some(node.redact_text(&shown))
}
