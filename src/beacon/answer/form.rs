//! The form of an answer, by which [`beacon_form`](crate::domain::beacon_form) tells whether a node
//! gave the answer.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde::de::IgnoredAny;

use super::{Answer, HELD_BACK};
use crate::domain::beacon_form::{Body, Form, Reply, Wanted, begins_as_an_error, is_page};

impl Answer {
    /// The form of the answer to a request whose success has the content `wanted`.
    pub(in crate::beacon) fn form(&self, wanted: Wanted) -> Form {
        if self.is_withheld {
            // The proxy's own words tell nothing of the node's.
            return if self.is_json { Form::Node } else { Form::Foreign };
        }
        let held = self.held();
        let is_whole = self.rest.is_none() && held.len() == self.held_bytes();
        let body = match () {
            () if self.is_compressed() && !held.is_empty() => Body::Packed,
            () if is_whole => Body::Whole(&held),
            () => Body::Begin(&held),
        };
        match Form::of(&Reply { status: self.status, kind: self.kind(), body }, wanted) {
            // Half of the body may be missing: another node may have the whole.
            Form::Node if self.is_unproven => Form::Empty,
            form => form,
        }
    }

    /// Whether an error is in the API's form, and so is about the request, and not from a gateway
    /// before the node.
    pub(in crate::beacon) fn is_of_a_node(&self) -> bool {
        self.form(Wanted::Data) == Form::Node
    }

    /// The value of `Content-Type`.
    fn kind(&self) -> Option<&[u8]> {
        self.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes)
    }

    /// The held bytes of the body; of a long body in many pieces only the first.
    fn held(&self) -> Cow<'_, [u8]> {
        match self.pieces.front() {
            Some(first) if self.pieces.len() == 1 || self.held_bytes() as u64 > HELD_BACK => Cow::Borrowed(first),
            _ => Cow::Owned(self.pieces.iter().map(|piece| &piece[..]).collect::<Vec<_>>().concat()),
        }
    }

    fn held_bytes(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether the held beginning is that of a page, or of an error.
    pub(super) fn begins_as_no_success(&self) -> bool {
        let held = self.held();
        is_page(self.kind(), &held) || begins_as_an_error(&held)
    }

    fn is_compressed(&self) -> bool {
        self.headers.get(header::CONTENT_ENCODING).is_some_and(|how: &HeaderValue| how != "identity")
    }

    /// Whether a body that ended with its connection is whole, as JSON shows. Nothing shows that of
    /// other bodies.
    pub(super) fn is_provably_whole(&self) -> bool {
        let is_whole = |body: &[u8]| serde_json::from_slice::<IgnoredAny>(body).is_ok();
        self.length == Some(0) || (self.is_json && self.in_memory().is_some_and(|body| is_whole(&body)))
    }
}
