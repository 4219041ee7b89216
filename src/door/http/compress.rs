//! Answers compressed for clients that ask for it, piece by piece.
//!
//! A client that asks leaves the fast lane, which knows nothing of codings. An answer has at most
//! one encoder at a time, of bounded memory.
//!
//! Rule: no more than [`ENCODERS`] of all answers have an encoder, and of one client's answers no
//! more than [`SHARE`]. All others go out as they are, also to a client that takes no plain answer.
//! Reason: an encoder is held until its client has read the answer, so a client that reads slowly
//! must not take compression from the others; and a call that has run must be answered. Example: an
//! address reads 64 long answers slowly. 16 of these are compressed, and 48 encoders are left to
//! other addresses.

mod encoder;
mod turns;
mod wanted;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

pub(super) use self::{
    encoder::{CodingFailed, Encoder},
    turns::Turns,
    wanted::{Wanted, may_compress},
};
use super::streamed::Streamed;
use crate::{config::Compression, domain::client::Amounts};

/// Answers that are compressed at once.
const ENCODERS: usize = 64;

/// Answers to one client that are compressed at once: a quarter.
const SHARE: usize = 16;

/// The encoders that answers may have.
#[derive(Clone, Default)]
pub(super) struct Encoders(Arc<Mutex<InUse>>);

/// The encoders that answers have, by the number of the client's address.
type InUse = Amounts<u64>;

/// An answer's right to an encoder, given up on drop.
pub(super) struct Permit {
    encoders: Encoders,
    client: u64,
}

impl Encoders {
    /// The right to one more encoder for the client of this number; `None` where the client has its
    /// share, or all encoders are in use.
    fn permit(&self, client: u64) -> Option<Permit> {
        let mut in_use = self.lock();
        if in_use.sum() >= ENCODERS || in_use.of(&client) >= SHARE {
            return None;
        }
        in_use.add(client, 1);
        Some(Permit { encoders: self.clone(), client })
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the counts.
    fn lock(&self) -> MutexGuard<'_, InUse> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `response` compressed if the client wants that, and says to caches that it depends on
    /// the client. `wanted` is what the request to the response said, and `client` is the number of
    /// its client's address.
    pub(super) fn compress(
        &self,
        response: &mut Response<Streamed>,
        wanted: &Wanted,
        method: &Method,
        rules: &Compression,
        client: u64,
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
        let Some(permit) = self.permit(client) else { return };
        let Some(encoder) = Encoder::new(coding, rules.level, permit) else { return };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        for name in [header::CONTENT_LENGTH, header::ACCEPT_RANGES] {
            headers.remove(name);
        }
        response.body_mut().encode(encoder);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.encoders.lock().give_back(&self.client, 1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_a_quarter_of_the_encoders_at_most() {
        let encoders = Encoders::default();
        let take = |client| -> Vec<Permit> { (0..=ENCODERS).map_while(|_| encoders.permit(client)).collect() };
        let mut of_clients: Vec<Vec<Permit>> = (1..=5).map(take).collect();
        let counts: Vec<usize> = of_clients.iter().map(Vec::len).collect();
        assert_eq!(counts, [SHARE, SHARE, SHARE, SHARE, 0]);
        of_clients[1].pop();
        // The share of the first is used up, whatever others give back.
        assert!(encoders.permit(1).is_none());
        assert!(encoders.permit(5).is_some());
        drop(of_clients);
        let in_use = encoders.lock();
        assert!(in_use.is_empty() && in_use.sum() == 0);
    }
}
