//! Answers compressed for clients that ask for it, piece by piece.
//!
//! A client that asks leaves the fast lane, which knows nothing of codings. An answer has at most
//! one encoder at a time, of bounded memory, and no more than [`ENCODERS`] of all answers have one:
//! all others go out as they are, which a client must take.

mod encoder;
mod wanted;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tokio::sync::Semaphore;

pub(super) use self::{
    encoder::{CodingFailed, Encoder},
    wanted::{Wanted, may_compress},
};
use super::streamed::Streamed;
use crate::config::Compression;

/// Answers that are compressed at once.
const ENCODERS: usize = 64;

/// The encoders that answers may have.
#[derive(Clone)]
pub(super) struct Encoders(Arc<Semaphore>);

impl Default for Encoders {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ENCODERS)))
    }
}

impl Encoders {
    /// Has `response` compressed if the client wants that, and says to caches that it depends on
    /// the client. `wanted` is what the request to the response said.
    pub(super) fn compress(
        &self,
        response: &mut Response<Streamed>,
        wanted: &Wanted,
        method: &Method,
        rules: &Compression,
    ) {
        if !is_open(response) {
            return;
        }
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
        let length = response.body().length();
        let is_short = length.is_some_and(|length| length < rules.min_size as u64);
        // A client that takes no plain answer gets short ones compressed too.
        if method == Method::HEAD || length == Some(0) || (is_short && wanted.takes_plain()) {
            return;
        }
        let Some(coding) = wanted.best(&rules.codings) else { return };
        let Ok(place) = self.0.clone().try_acquire_owned() else { return };
        let Some(encoder) = Encoder::new(coding, rules.level, place) else { return };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        for name in [header::CONTENT_LENGTH, header::ACCEPT_RANGES] {
            headers.remove(name);
        }
        response.body_mut().encode(encoder);
    }
}

/// Whether the response may have another coding: it has a body that is sent whole, is not coded
/// already, and does not have to come at once, as events have to.
fn is_open(response: &Response<Streamed>) -> bool {
    let headers = response.headers();
    let is_events = |kind: &HeaderValue| kind.as_bytes().to_ascii_lowercase().starts_with(b"text/event-stream");
    let bodiless = [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    let fixed = [header::CONTENT_ENCODING, header::CONTENT_RANGE, header::ETAG];
    !bodiless.contains(&response.status())
        && fixed.iter().all(|name| !headers.contains_key(name))
        && !headers.get(header::CONTENT_TYPE).is_some_and(is_events)
        && !is_fixed_by_node(headers)
}

/// Whether `Cache-Control: no-transform` is there.
fn is_fixed_by_node(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CACHE_CONTROL).iter();
    values.any(|value| value.as_bytes().to_ascii_lowercase().windows(12).any(|word| word == b"no-transform"))
}
