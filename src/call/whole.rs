//! Calls whose answer is wanted whole, for a client that cannot be sent half a message.
//!
//! Rule: an answer that breaks off half-way is a lost answer, and counts among the attempts of its
//! call. The call goes on at another node if it may be sent twice; if not, its outcome is unknown.
//! Reason: over HTTP an answer passes piece by piece, and its break is the client's to see; a
//! WebSocket message has its length in front, and nothing may follow half of one. Example: with
//! `attempts = 3`, a read is refused whose answer breaks off twice, and whose connection is lost
//! once. The bytes that had come of a lost answer are given back before another is asked for.

use std::{future::poll_fn, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::Instant;

use super::{
    Calls, Terms,
    alarm::Alarm,
    answer::{Answer, Kind, receipt::Receipt},
};
use crate::{
    domain::{
        pace::{NODE_RATE, Pace},
        refusal::Refusal,
        rpc::Request,
    },
    memory::{Full, SMALL},
};

/// The place where an answer is gathered.
pub trait AnswerBuffer: Sync {
    /// Waits until there is room for an answer that does not come in one piece, of `length` bytes
    /// if the length is known.
    fn enter(&self, length: Option<u64>) -> impl Future<Output = ()> + Send;

    /// Takes `more` bytes of the client's memory.
    ///
    /// # Errors
    /// When there is no room for these bytes.
    fn hold(&self, more: usize) -> Result<(), Full>;

    /// Gives up the room, and the `bytes` of memory, of an answer that is not taken after all.
    fn leave(&self, bytes: usize);

    /// The most bytes that an answer may have, and the name of the setting that says so.
    fn limit(&self) -> (&'static str, usize);
}

/// An answer that is in memory.
#[derive(Debug)]
pub struct Whole {
    /// The text, with the client's id; empty for a notification.
    pub text: Bytes,
    /// Bytes of memory that were taken for the text.
    pub held: usize,
    /// Notified whether the text is written.
    pub receipt: Option<Receipt>,
    /// The kind of the answer.
    pub kind: Kind,
}

/// Why an answer cannot be taken.
pub(super) enum Lack {
    TooLong(Refusal),
    NoRoom(Full),
    /// The rest of the answer cannot be had.
    Lost,
}

/// How a call's answer is taken from its node.
pub(super) trait Take: Send {
    type Taken;

    /// Takes an answer, of which the node may send nothing for `stall`, and in the long run no less
    /// than [`NODE_RATE`].
    fn take(
        &self,
        answer: Answer,
        stall: Duration,
        alarm: &mut Alarm,
    ) -> impl Future<Output = Result<Self::Taken, Lack>> + Send;
}

/// Takes the beginning of an answer, and leaves the rest to come.
pub(super) struct AsItComes;

impl Take for AsItComes {
    type Taken = Answer;

    async fn take(&self, answer: Answer, _stall: Duration, _alarm: &mut Alarm) -> Result<Answer, Lack> {
        Ok(answer)
    }
}

/// Takes an answer whole.
struct InOne<'r, R> {
    room: &'r R,
    /// Whether the client is sent the text.
    is_wanted: bool,
}

impl<R: AnswerBuffer> Take for InOne<'_, R> {
    type Taken = Whole;

    async fn take(&self, mut answer: Answer, stall: Duration, alarm: &mut Alarm) -> Result<Whole, Lack> {
        let kind = answer.kind;
        if !self.is_wanted {
            return Ok(Whole { text: Bytes::new(), held: 0, receipt: None, kind });
        }
        let mut held = 0;
        let text = match answer.in_memory() {
            Some((first, more)) if more.is_empty() => {
                self.check(first.len() as u64)?;
                if first.len() > SMALL {
                    held = first.len();
                    self.room.hold(held).map_err(Lack::NoRoom)?;
                }
                first.clone()
            }
            _ => {
                self.check(answer.length().unwrap_or(0))?;
                self.room.enter(answer.length()).await;
                let gathered = self.gather(&mut answer, stall, alarm, &mut held).await;
                if gathered.is_err() {
                    self.room.leave(held);
                }
                gathered?
            }
        };
        Ok(Whole { text, held, receipt: answer.take_receipt(), kind })
    }
}

impl<R: AnswerBuffer> InOne<'_, R> {
    fn check(&self, length: u64) -> Result<(), Lack> {
        let (name, limit) = self.room.limit();
        if length > limit as u64 { Err(Lack::TooLong(Refusal::Limit { name, limit })) } else { Ok(()) }
    }

    /// Takes the pieces of an answer, one after the other; `held` grows by the bytes of memory.
    async fn gather(
        &self,
        answer: &mut Answer,
        stall: Duration,
        alarm: &mut Alarm,
        held: &mut usize,
    ) -> Result<Bytes, Lack> {
        let mut pace = Pace::new(stall, NODE_RATE);
        // The buffer grows while the answer comes: an announced length alone costs nothing.
        let mut pieces = BytesMut::new();
        loop {
            self.check(answer.length().unwrap_or(0).saturating_add(pieces.len() as u64))?;
            let since = Instant::now();
            // Both arms are cancel-safe.
            let piece = tokio::select! {
                biased;
                piece = poll_fn(|context| answer.poll_piece(context)) => piece,
                () = alarm.at(since + pace.left()) => return Err(Lack::Lost),
            };
            match piece {
                Some(Ok(piece)) => {
                    pace.moved(since.elapsed(), piece.len());
                    if pieces.capacity() - pieces.len() < piece.len() {
                        let more = piece.len().max(pieces.capacity());
                        self.room.hold(more).map_err(Lack::NoRoom)?;
                        *held += more;
                        pieces.reserve(more);
                    }
                    pieces.put_slice(&piece);
                }
                Some(Err(_)) => return Err(Lack::Lost),
                None => return Ok(pieces.freeze()),
            }
        }
    }
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
        room: &impl AnswerBuffer,
    ) -> Result<Whole, Refusal> {
        let take = InOne { room, is_wanted: request.id.is_some() };
        self.taken(request, &terms, alarm, &take, |whole: &Whole| whole.kind).await
    }
}
