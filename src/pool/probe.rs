//! Asking a node how it is.

mod beacon;

use std::sync::Arc;

use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    board::{Probe, Trouble},
    health::Fault,
    node::Node,
};
use crate::{
    domain::{
        answer::NodeError,
        block::BlockRef,
        chain::Chain,
        hex,
        verdict::{Condition, Layer},
    },
    net::{
        exchange::Broken,
        upstream::{Error, Post, Response, Upstream},
    },
};

/// The longest answer that a probe reads, in bytes: a header and the hashes of a very full block.
const MAX_ANSWER: usize = 4 << 20;

/// Asks a node of `layer` for its head and how it is, and, unless its chain is `known`, which one it serves. The caller bounds it
/// in time.
pub async fn probe(node: &Node, layer: Layer, known: Option<&Chain>) -> Result<Probe, Trouble> {
    let Some(upstream) = &node.upstream else {
        let text = "has only a WebSocket URL, which this version cannot use".to_owned();
        return Err(Trouble { fault: Fault::Failing, text });
    };
    match layer {
        Layer::El => probe_execution(node, upstream, known).await,
        Layer::Cl => beacon::probe(node, upstream, known).await,
    }
}

async fn probe_execution(node: &Node, upstream: &Arc<Upstream>, known: Option<&Chain>) -> Result<Probe, Trouble> {
    let started = Instant::now();
    let block = async {
        let text = ask(node, upstream, "eth_getBlockByNumber", r#"["latest",false]"#).await??;
        let block = BlockRef::read(&text).map_err(|why| failing(node, &format!("eth_getBlockByNumber: {why}")))?;
        Ok((block, started.elapsed()))
    };
    let syncing = async {
        match ask(node, upstream, "eth_syncing", "[]").await? {
            Ok(text) => Ok(text.trim_start().starts_with('{') || text.trim() == "true"),
            // A provider that does not offer the method does not sync either.
            Err(error) if error.text.contains("-32601") => Ok(false),
            Err(error) => Err(error),
        }
    };
    let chain = async {
        if let Some(chain) = known {
            return Ok(chain.clone());
        }
        let text = ask(node, upstream, "eth_chainId", "[]").await??;
        let id = serde_json::from_str::<String>(&text).ok().and_then(|text| hex::quantity(&text));
        id.map(Chain::from).ok_or_else(|| failing(node, "eth_chainId: not a quantity"))
    };
    let ((block, latency), syncing, chain) = tokio::try_join!(block, syncing, chain)?;
    Ok(Probe { block, condition: Condition { syncing, ..Condition::default() }, chain, latency })
}

fn failing(node: &Node, text: &str) -> Trouble {
    Trouble { fault: Fault::Failing, text: node.redact(text) }
}

/// One call: the result's text, or the error that the node returned; the outer error is one of transport.
async fn ask(
    node: &Node,
    upstream: &Arc<Upstream>,
    method: &str,
    params: &str,
) -> Result<Result<String, Trouble>, Trouble> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(borrow)]
        result: Option<&'a RawValue>,
        #[serde(borrow)]
        error: Option<NodeError<'a>>,
    }
    let request = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
    let mut post = Post { headers: &[], body: request.as_bytes(), fresh: false };
    let mut outcome = upstream.post(post).await;
    if outcome.as_ref().is_err_and(Error::is_stale) {
        post.fresh = true;
        outcome = upstream.post(post).await;
    }
    let response = outcome.map_err(|error| trouble(node, &error))?;
    let status = response.head.status;
    let body = read(node, method, response).await?;
    if status != 200 {
        return Err(failing(node, &format!("{method}: HTTP status {status}")));
    }
    let answer: Answer<'_> = serde_json::from_slice(&body)
        .map_err(|_| failing(node, &format!("{method}: the answer is not a JSON-RPC response")))?;
    Ok(match answer {
        Answer { error: Some(error), .. } => {
            Err(failing(node, &format!("{method}: error {}: {}", error.code, error.message)))
        }
        Answer { result: Some(result), .. } => Ok(result.get().to_owned()),
        // `Option` reads a null result as none.
        Answer { .. } => Ok("null".to_owned()),
    })
}

/// The whole body of the answer to `asked`.
async fn read(node: &Node, asked: &str, mut response: Response) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    while let Some(piece) = response.next().await {
        let piece = piece.map_err(|broken| trouble(node, &Error::Broken { broken, reused: false }))?;
        body.extend_from_slice(&piece);
        if body.len() > MAX_ANSWER {
            return Err(failing(node, &format!("{asked}: the answer is longer than {MAX_ANSWER} bytes")));
        }
    }
    Ok(body)
}

/// What a failed exchange says of a node.
pub fn trouble(node: &Node, error: &Error) -> Trouble {
    let fault = match error {
        Error::Connect(error) if is_ours(error) => Fault::Ours,
        Error::Connect(_) => Fault::Unreachable,
        Error::ConnectTimeout(_) => Fault::Silent,
        Error::Broken { broken: Broken::Lost { .. }, .. } => Fault::Dropped,
        Error::Broken { broken: Broken::NotHttp(_), .. } => Fault::Failing,
    };
    Trouble { fault, text: node.redact(&error.to_string()) }
}

/// Whether a connection failed because this machine ran out of something: descriptors, ports, buffers or memory.
fn is_ours(error: &std::io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = if cfg!(target_os = "linux") { 105 } else { 55 };
    matches!(error.kind(), std::io::ErrorKind::AddrNotAvailable | std::io::ErrorKind::OutOfMemory)
        || matches!(error.raw_os_error(), Some(ENFILE | EMFILE | ENOBUFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_not_held_against_a_node() {
        for (code, ours) in [(24, true), (23, true), (111, false), (113, false)] {
            assert_eq!(is_ours(&std::io::Error::from_raw_os_error(code)), ours, "{code}");
        }
    }
}
