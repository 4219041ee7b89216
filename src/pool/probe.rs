//! Asking a node how it is.

mod beacon;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    ask::{Refused, failing},
    board::{Probe, Trouble},
    health::Fault,
    node::Node,
};
use crate::{
    domain::{
        block::BlockRef,
        chain::Chain,
        hex,
        verdict::{Condition, Layer},
    },
    net::places::Rank,
};

/// The longest answer that a probe reads, in bytes: a header and the hashes of a very full block.
const MAX_ANSWER: usize = 4 << 20;

/// Asks a node of `layer` for its head and how it is, and, unless its chain is `known`, which one it serves. The caller bounds it
/// in time.
pub async fn probe(node: &Node, layer: Layer, known: Option<&Chain>) -> Result<Probe, Trouble> {
    match layer {
        Layer::El => probe_execution(node, known).await,
        Layer::Cl => beacon::probe(node, known).await,
    }
}

async fn probe_execution(node: &Node, known: Option<&Chain>) -> Result<Probe, Trouble> {
    let asked = Instant::now();
    let block = async {
        let text = must(ask(node, "eth_getBlockByNumber", r#"["latest",false]"#).await?)?;
        let block = BlockRef::read(&text).map_err(|why| failing(node, &format!("eth_getBlockByNumber: {why}")))?;
        Ok((block, text, asked.elapsed()))
    };
    let syncing = async {
        match ask(node, "eth_syncing", "[]").await? {
            Ok(text) => Ok(text.starts_with(b"{") || &text[..] == b"true"),
            // A provider that does not offer the method does not sync either.
            Err(error) if error.text.contains("-32601") => Ok(false),
            Err(error) => must(Err(error)),
        }
    };
    let chain = async {
        if let Some(chain) = known {
            return Ok(chain.clone());
        }
        let text = must(ask(node, "eth_chainId", "[]").await?)?;
        let id = serde_json::from_slice::<String>(&text).ok().and_then(|text| hex::quantity(&text));
        id.map(Chain::from).ok_or_else(|| failing(node, "eth_chainId: not a quantity"))
    };
    let ((block, json, latency), syncing, chain) = tokio::try_join!(block, syncing, chain)?;
    Ok(Probe {
        block,
        condition: Condition { syncing, ..Condition::default() },
        chain,
        latency,
        asked,
        json: Some(json),
    })
}

async fn ask(node: &Node, method: &str, params: &str) -> Result<Result<Bytes, Refused>, Trouble> {
    super::ask::ask_as(Rank::Probe, node, method, params, MAX_ANSWER).await
}

/// What a node must be able to answer.
fn must<T>(answer: Result<T, Refused>) -> Result<T, Trouble> {
    answer.map_err(|Refused { text, .. }| Trouble { fault: Fault::Failing, text })
}
