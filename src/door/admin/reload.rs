//! `/reload`: has the settings read anew, or tells what that would change.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::{failure, json_reply};
use crate::config::{Change, Difference, NodeChange, Setting};

/// A request to read the settings anew.
pub enum Reload {
    /// Applies them; the answer is what was changed, or why nothing was.
    Apply(oneshot::Sender<Result<String, String>>),
    /// Compares them with those in use, and changes nothing; the answer may be why they cannot be
    /// read.
    Compare(oneshot::Sender<Result<Comparison, String>>),
}

/// The outcome that a reload would have.
#[derive(Debug)]
pub struct Comparison {
    /// The file that a reload reads.
    pub file: Option<String>,
    /// The changes.
    pub difference: Difference,
    /// Why the reload would be refused, if it would be.
    pub refusal: Option<String>,
}

/// Has the proxy reload, by the `query` of the request: `dry=1` only asks what would change.
pub(super) async fn answer(reloads: &mpsc::Sender<Reload>, query: Option<&str>) -> Response<Full<Bytes>> {
    let closing = || failure(StatusCode::SERVICE_UNAVAILABLE, "the proxy is shutting down");
    match query {
        None | Some("") => match ask(reloads, Reload::Apply).await {
            Some(Ok(changed)) => json_reply(StatusCode::OK, &json!({ "reloaded": changed })),
            Some(Err(why)) => failure(StatusCode::UNPROCESSABLE_ENTITY, &why),
            None => closing(),
        },
        Some("dry=1") => match ask(reloads, Reload::Compare).await {
            Some(Ok(comparison)) => {
                let status =
                    if comparison.refusal.is_none() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
                json_reply(status, &told(&comparison))
            }
            Some(Err(why)) => failure(StatusCode::UNPROCESSABLE_ENTITY, &why),
            None => closing(),
        },
        // Another word for a dry reload must not have one done.
        Some(_) => failure(StatusCode::BAD_REQUEST, "a reload takes no parameter but dry=1, which changes nothing"),
    }
}

async fn ask<T>(reloads: &mpsc::Sender<Reload>, request: impl FnOnce(oneshot::Sender<T>) -> Reload) -> Option<T> {
    let (answer, outcome) = oneshot::channel();
    reloads.send(request(answer)).await.ok()?;
    outcome.await.ok()
}

fn told(Comparison { file, difference, refusal }: &Comparison) -> Value {
    let settings: Vec<_> = difference
        .settings
        .iter()
        .map(|setting| {
            let mut told = change(setting);
            told["needs_restart"] = difference.needs_restart(&setting.key).into();
            told
        })
        .collect();
    let nodes: Vec<_> = difference.nodes.iter().map(node).collect();
    json!({
        "file": file, "changes": !difference.is_empty(), "error": refusal, "settings": settings, "nodes": nodes,
    })
}

fn change(Setting { key, from, to }: &Setting) -> Value {
    json!({ "key": key, "from": from, "to": to })
}

fn node(NodeChange { network, layer, node, tier, change: kind }: &NodeChange) -> Value {
    let (kind, urls, settings) = match kind {
        Change::Added(urls) => ("added", &urls[..], &[][..]),
        Change::Removed => ("removed", &[][..], &[][..]),
        Change::Changed(settings) => ("changed", &[][..], &settings[..]),
    };
    json!({
        "network": network, "layer": layer.as_str(), "node": node, "tier": tier.as_str(), "change": kind,
        "urls": urls, "settings": settings.iter().map(change).collect::<Vec<_>>(),
    })
}
