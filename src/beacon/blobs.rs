//! Finds out whether an answer has all the blobs of a block.
//!
//! Rule: an answer counts as lacking if it has fewer blobs than the block commits to and than the
//! client asked for, and another node may have them. Reason: nodes that have pruned blobs, or keep
//! only a part of the columns, answer 200 with fewer blobs, or with none. Example: the block of
//! slot 7 has six commitments, and the answer of node A two blobs: node B is asked too.

use std::time::Duration;

use http::{HeaderValue, Method, header};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Request, Requests,
    answer::Answer,
    attempt::{Sent, attempt_holding},
    upload::Upload,
};
use crate::domain::{
    beacon_route::Route,
    node_id::NodeId,
    subject::{Kept, Subject},
    target::Target,
};

/// Bytes of one blob, and of one sidecar, in SSZ.
const BLOB: usize = 131_072;
const SIDECAR: usize = 131_928;
/// How long the node may take to give its block.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The blobs of an answer to a request that names a block.
pub(super) struct Blobs {
    there: usize,
    /// How many of the block's blobs were asked for; `None` for all.
    wanted: Option<usize>,
    /// The block's id.
    id: String,
}

impl Blobs {
    /// The blobs of an answer that may be incomplete.
    pub(super) fn of(request: &Request, answer: &Answer) -> Option<Self> {
        let path = request.target.path();
        let subject = Subject::of(path, 1).filter(|subject| subject.kept == Kept::Blobs && subject.id != "head")?;
        if request.route.group != "blobs" || request.method != Method::GET || answer.status != 200 {
            return None;
        }
        let there = count(&answer.in_memory()?, path, answer.is_json())?;
        let wanted = wanted(request.target.query().unwrap_or_default());
        let may_lack = wanted.is_none_or(|wanted| there < wanted);
        may_lack.then(|| Self { there, wanted, id: subject.id.to_owned() })
    }
}

impl Requests {
    /// Whether these blobs are fewer than the block commits to and than the client asked for.
    /// `node` gave the answer, and is asked for the block. Without the block the answer counts as
    /// complete.
    pub(super) async fn is_partial(&self, node: NodeId, request: &Request, blobs: Blobs) -> bool {
        let committed = self.commitments(node, &blobs.id, request).await.unwrap_or(0);
        blobs.there < blobs.wanted.unwrap_or(committed).min(committed)
    }

    /// How many blobs the block commits to, by the node's own block, which is asked for with the
    /// headers of `request`.
    async fn commitments(&self, node: NodeId, id: &str, request: &Request) -> Option<usize> {
        #[derive(Deserialize)]
        struct Answer {
            data: Signed,
        }
        #[derive(Deserialize)]
        struct Signed {
            message: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            body: Body,
        }
        #[derive(Deserialize)]
        struct Body {
            blob_kzg_commitments: Vec<IgnoredAny>,
        }
        let path = format!("/eth/v2/beacon/blocks/{id}");
        let mut headers = request.headers.clone();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.remove(header::ACCEPT_ENCODING);
        let request = Request {
            route: Route::of("GET", &path),
            method: Method::GET,
            target: Target::parse(&path)?,
            headers,
            caller: request.caller.clone(),
            client: request.client,
            // A question of the proxy's own is no step of the client's request.
            trace: None,
            pick: None,
        };
        let mut upload = Upload::whole(bytes::Bytes::new());
        let asked = attempt_holding(&self.pool, node, &request, &mut upload, BLOCK_TIMEOUT, Some(&self.room));
        match tokio::time::timeout(BLOCK_TIMEOUT, asked).await {
            Ok(Sent::Answered(answer)) if answer.status == 200 => {
                let Answer { data } = serde_json::from_slice(&answer.in_memory()?).ok()?;
                Some(data.message.body.blob_kzg_commitments.len())
            }
            _ => None,
        }
    }
}

/// How many blobs are in an answer's body.
fn count(body: &[u8], path: &str, is_json: bool) -> Option<usize> {
    #[derive(Deserialize)]
    struct List {
        data: Vec<IgnoredAny>,
    }
    if is_json {
        return serde_json::from_slice::<List>(body).ok().map(|list| list.data.len());
    }
    let size = if path.contains("/blob_sidecars/") { SIDECAR } else { BLOB };
    body.len().is_multiple_of(size).then_some(body.len() / size)
}

/// How many of the block's blobs a query asks for; `None` for all.
fn wanted(query: &str) -> Option<usize> {
    let lists = query.split('&').filter_map(|pair| pair.split_once('='));
    let lists =
        lists.filter(|(name, _)| matches!(*name, "indices" | "versioned_hashes" | "indices[]" | "versioned_hashes[]"));
    let values = lists.map(|(_, list)| list.split(',').filter(|value| !value.is_empty()).count());
    Some(values.sum()).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_counted_in_json_and_in_ssz() {
        let sidecars = "/eth/v1/beacon/blob_sidecars/7";
        assert_eq!(count(br#"{"version":"deneb","data":[{"a":[1,2]},{}]}"#, sidecars, true), Some(2));
        assert_eq!(count(br#"{"data":null}"#, sidecars, true), None);
        assert_eq!(count(&vec![0; 3 * SIDECAR], sidecars, false), Some(3));
        assert_eq!(count(&vec![0; 3 * BLOB], "/eth/v1/beacon/blobs/7", false), Some(3));
        assert_eq!(count(&[0; 7], "/eth/v1/beacon/blobs/7", false), None);
        assert_eq!(count(b"", sidecars, false), Some(0));
    }

    #[test]
    fn a_query_may_ask_for_some_of_them() {
        assert_eq!(wanted("indices=0,3&x=9"), Some(2));
        assert_eq!(wanted("versioned_hashes=0xab&versioned_hashes=0xcd"), Some(2));
        assert_eq!((wanted(""), wanted("indices=")), (None, None));
    }
}
