//! The text of a node's error, and answers of the proxy's own.

use std::{
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use tokio::time::timeout;

use super::Answer;
use crate::{
    beacon::idle::Idle,
    domain::{pace::NODE_RATE, publication::Problem},
    exchange::pieces::append,
    pool::Pool,
};

/// Up to this many bytes of an error are read for their meaning; a longer one passes unread.
const MOST: usize = 64 * 1024;
/// How long these bytes may take.
const PATIENCE: Duration = Duration::from_secs(1);

impl Answer {
    /// The whole body, which also stays in the answer; `None` if the body is too long, compressed,
    /// or does not come.
    pub(in crate::beacon) async fn words(&mut self) -> Option<Bytes> {
        let is_plain = self.headers.get(header::CONTENT_ENCODING).is_none_or(|how| how == "identity");
        if !is_plain || self.length.is_some_and(|length| length > MOST as u64) {
            return None;
        }
        let held = |pieces: &VecDeque<Bytes>| pieces.iter().map(Bytes::len).sum::<usize>();
        let more = async {
            while self.rest.is_some() && held(&self.pieces) <= MOST {
                match poll_fn(|context| self.poll_rest(context)).await {
                    Some(piece) => append(&mut self.pieces, piece.ok()?),
                    None => self.length = Some(held(&self.pieces) as u64),
                }
            }
            Some(())
        };
        timeout(PATIENCE, more).await.ok()??;
        if self.rest.is_some() || held(&self.pieces) > MOST {
            return None;
        }
        let mut whole = BytesMut::with_capacity(held(&self.pieces));
        self.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Some(whole.freeze())
    }

    /// An answer of the proxy's own in the place of one of `node`, in JSON unless the body is
    /// empty.
    pub(in crate::beacon) fn own(status: u16, body: Vec<u8>, (pool, node): (&Arc<Pool>, usize)) -> Self {
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Self {
            status,
            headers,
            length: Some(body.len() as u64),
            is_json: true,
            pieces: (!body.is_empty()).then(|| body.into()).into_iter().collect(),
            rest: None,
            idle: Idle::new(NODE_RATE),
            share: None,
            source: (pool.clone(), node),
        }
    }

    /// A success of the proxy's own in the place of this answer.
    pub(in crate::beacon) fn as_success(&self) -> Self {
        Self::own(200, Vec::new(), (&self.source.0, self.source.1))
    }

    /// An error in the place of this answer that names only these messages of a list.
    pub(in crate::beacon) fn as_error(&self, status: u16, left: &BTreeMap<u64, String>) -> Self {
        let message = "some messages were not taken by any node".to_owned();
        let problem = Problem { message, failures: left.clone() };
        Self::own(status, problem.write(status), (&self.source.0, self.source.1))
    }
}
