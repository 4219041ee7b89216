//! The text of a node's error, and answers of the proxy's own.

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use tokio::time::timeout;

use super::{Answer, MOST_WORDS};
use crate::{
    beacon::idle::Idle,
    domain::{
        node_id::NodeId,
        pace::NODE_RATE,
        publication::{Complaint, Complaints, Problem},
    },
    exchange::pieces::append,
    pool::Pool,
};

/// The proxy's own words where nodes took a part of a list.
pub(in crate::beacon) const SOME: &str = "some messages were not taken by any node";
/// How long the words of an error may take.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(1);

impl Answer {
    /// The whole body, which also stays in the answer; `None` if the body is too long for the room,
    /// compressed, withheld, or does not come.
    pub(in crate::beacon) async fn words(&mut self) -> Option<Bytes> {
        let is_plain = self.headers.get(header::CONTENT_ENCODING).is_none_or(|how| how == "identity");
        if !is_plain || self.is_withheld || self.length.is_some_and(|length| length > MOST_WORDS as u64) {
            return None;
        }
        let mut held = self.pieces.iter().map(Bytes::len).sum::<usize>();
        let more = async {
            while self.rest.is_some() {
                let Some(piece) = poll_fn(|context| self.poll_rest(context)).await.transpose().ok()? else {
                    self.length = Some(held as u64);
                    break;
                };
                let length = piece.len();
                held += length;
                append(&mut self.pieces, piece);
                if !self.fits(held, length) {
                    return None;
                }
            }
            Some(())
        };
        timeout(ERROR_BODY_TIMEOUT, more).await.ok()??;
        let mut whole = BytesMut::with_capacity(held);
        self.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
        Some(whole.freeze())
    }

    /// An answer of the proxy's own in the place of one of `node`, in JSON unless the body is
    /// empty.
    pub(in crate::beacon) fn own(status: u16, body: Vec<u8>, (pool, node): (&Arc<Pool>, NodeId)) -> Self {
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
            is_withheld: false,
            was_sent_before: false,
            is_unproven: false,
            source: (pool.clone(), node),
        }
    }

    /// A success of the proxy's own in the place of this answer.
    pub(in crate::beacon) fn as_success(&self) -> Self {
        Self::own(200, Vec::new(), (&self.source.0, self.source.1))
    }

    /// An error in the place of this answer that names only these messages of a list.
    pub(in crate::beacon) fn as_error(&self, status: u16, left: &Complaints) -> Self {
        let message = Complaint::of(SOME);
        let problem = Problem { message, failures: left.clone() };
        Self::own(status, problem.write(status), (&self.source.0, self.source.1))
    }
}
