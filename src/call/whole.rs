//! Calls whose answer is wanted whole, for a client that cannot be sent half a message.
//!
//! Rule: an answer that breaks off half-way is a lost answer, and counts among the attempts of its
//! call. The call goes to another node if it may be sent twice; if not, its outcome is unknown.
//! Reason: over HTTP an answer passes as it comes, and its break is the client's to see; a WebSocket
//! message has a length in front, and nothing may follow half of one. Example: with `attempts = 3`, a
//! read whose answer of 4 MB breaks off at the first node twice and at the second once is refused.

use std::{future::poll_fn, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::{
    Calls, Outcome, Terms,
    alarm::Alarm,
    answer::{Answer, receipt::Receipt},
    ending::Ending,
};
use crate::{
    domain::{
        method::Method,
        refusal::{Refusal, Unserved},
        rpc::Request,
    },
    memory::{Full, SMALL},
};

/// How long a node may send nothing of an answer that it has begun, where the call cannot be sent to
/// another.
const STALL: Duration = Duration::from_secs(30);

/// Where an answer is gathered.
pub trait Room: Sync {
    /// Waits until there is room for an answer that does not come in one piece, of `length` bytes if
    /// that is known.
    fn enter(&self, length: Option<u64>) -> impl Future<Output = ()> + Send;

    /// Takes `more` bytes of the client's memory.
    ///
    /// # Errors
    /// When there is no room for them.
    fn hold(&self, more: usize) -> Result<(), Full>;

    /// The most bytes that an answer may have, and the name of the setting that says so.
    fn limit(&self) -> (&'static str, usize);
}

/// An answer that is in memory.
#[derive(Debug, Default)]
pub struct Whole {
    /// Its text, with the client's id. It is empty for a notification.
    pub text: Bytes,
    /// Told whether the text is written.
    pub receipt: Option<Receipt>,
}

/// Why an answer is not whole.
enum Lack {
    TooLong,
    NoRoom(Full),
    /// The rest of it cannot be had.
    Lost,
}

impl Calls {
    /// Runs one call until its answer is in memory. `alarm` is the client's timer.
    ///
    /// # Errors
    /// When there is no answer of a node's to give.
    pub async fn run_whole(
        &self,
        request: &Request<'_>,
        terms: Terms<'_>,
        alarm: &mut Alarm,
        room: &impl Room,
    ) -> Result<Whole, Refusal> {
        let method = Method::of(&request.method);
        let mut ending = Ending::new(self, method, terms.arrived);
        let stall = if method.is_repeatable() { self.settings.attempt_timeout.min(STALL) } else { STALL };
        let (mut lost, mut breaks) = (Vec::new(), 0);
        let outcome = loop {
            let answer = match self.answer(request, method, Terms { avoid: &lost, ..terms }, alarm).await {
                Outcome::Answered(answer) => answer,
                Outcome::Refused(refusal) => break Err(refusal),
            };
            let (node, kind) = (answer.node, answer.kind);
            if request.id.is_none() {
                break Ok((Whole::default(), kind));
            }
            match whole(answer, stall, alarm, room).await {
                Ok(whole) => break Ok((whole, kind)),
                Err(Lack::TooLong) => {
                    let (name, limit) = room.limit();
                    break Err(Refusal::Limit { name, limit });
                }
                Err(Lack::NoRoom(full)) if method.is_repeatable() => break Err(full.into()),
                Err(Lack::Lost) if method.is_repeatable() => {
                    // After a reload, the node is none of this pool's.
                    if let Some(node) = node {
                        self.pool.doubt(node);
                        lost.push(node);
                    }
                    breaks += 1;
                    if breaks >= self.settings.attempts.get() {
                        break Err(Refusal::Unserved(Unserved::Failed));
                    }
                }
                Err(Lack::NoRoom(_) | Lack::Lost) => break Err(Refusal::OutcomeUnknown),
            }
        };
        ending.count(outcome.as_ref().map(|(_, kind)| *kind));
        outcome.map(|(whole, _)| whole)
    }
}

async fn whole(mut answer: Answer, stall: Duration, alarm: &mut Alarm, room: &impl Room) -> Result<Whole, Lack> {
    let text = match answer.in_memory() {
        Some((first, more)) if more.is_empty() => {
            if first.len() > SMALL {
                room.hold(first.len()).map_err(Lack::NoRoom)?;
            }
            first.clone()
        }
        _ => gather(&mut answer, stall, alarm, room).await?,
    };
    if text.len() > room.limit().1 {
        return Err(Lack::TooLong);
    }
    Ok(Whole { text, receipt: answer.take_receipt() })
}

async fn gather(answer: &mut Answer, stall: Duration, alarm: &mut Alarm, room: &impl Room) -> Result<Bytes, Lack> {
    let length = |answer: &Answer| answer.length().unwrap_or(0);
    let limit = room.limit().1 as u64;
    if length(answer) > limit {
        return Err(Lack::TooLong);
    }
    room.enter(answer.length()).await;
    // It grows as the answer comes: the length that a node announces costs nothing.
    let mut pieces = BytesMut::new();
    loop {
        if length(answer).saturating_add(pieces.len() as u64) > limit {
            return Err(Lack::TooLong);
        }
        let due = Instant::now() + stall;
        // Both arms are cancel-safe.
        let piece = tokio::select! {
            biased;
            piece = poll_fn(|context| answer.poll_piece(context)) => piece,
            () = alarm.at(due) => return Err(Lack::Lost),
        };
        match piece {
            Some(Ok(piece)) => {
                if pieces.capacity() - pieces.len() < piece.len() {
                    let more = piece.len().max(pieces.capacity());
                    room.hold(more).map_err(Lack::NoRoom)?;
                    pieces.reserve(more);
                }
                pieces.put_slice(&piece);
            }
            Some(Err(_)) => return Err(Lack::Lost),
            None => return Ok(pieces.freeze()),
        }
    }
}
