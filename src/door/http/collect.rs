//! The body of a call that hyper serves: bounded in length, in memory, and by a least rate.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::{Instant, sleep};

use super::ARRIVAL;
use crate::{
    domain::pace::{CLIENT_RATE, Pace},
    door::crowd::Seated,
    memory::{Claim, Cut, Full, grown, make_room},
};

/// Why there is no whole body.
pub(super) enum Unread {
    TooLong,
    /// The memory of the bytes so far is needed for others.
    Cut(Cut),
    NoRoom(Full),
    Lost,
    Late,
}

/// Reads a body of at most `limit` bytes, which count for `claim` as they come. `seated` is the
/// connection's seat.
pub(super) async fn collect(
    mut body: Incoming,
    limit: usize,
    claim: &mut Claim,
    seated: Option<&Seated>,
) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Unread::TooLong);
    }
    let total = body.size_hint().exact().map_or(limit, |total| total as usize);
    let (mut whole, mut pace) = (BytesMut::new(), Pace::new(ARRIVAL, CLIENT_RATE));
    loop {
        let begun = Instant::now();
        // All arms are cancel-safe.
        let frame = tokio::select! {
            biased;
            frame = body.frame() => frame,
            why = poll_fn(|context| claim.account().poll_cut(context)) => return Err(Unread::Cut(why)),
            () = sleep(pace.left()) => return Err(Unread::Late),
        };
        let Some(frame) = frame else { break };
        let Ok(piece) = frame.map_err(|_| Unread::Lost)?.into_data() else { continue };
        let now = Instant::now();
        pace.moved(now - begun, piece.len());
        if let Some(seated) = seated {
            // A byte makes the connection count as newer, for as long as the least rate gives that
            // byte.
            seated.refreshes(now + pace.left() - ARRIVAL);
        }
        if whole.len() + piece.len() > limit {
            return Err(Unread::TooLong);
        }
        let room = grown(whole.capacity(), whole.len() + piece.len(), total);
        claim.resize(room).map_err(Unread::NoRoom)?;
        make_room(&mut whole, room);
        whole.extend_from_slice(&piece);
    }
    claim.set(whole.capacity());
    Ok(whole.freeze())
}
