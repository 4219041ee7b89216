//! A response to a client, before its framing.

use std::{
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    STALL,
    batch::{Batch, Running},
};
use crate::{
    call::{
        alarm::Alarm,
        answer::{Answer, receipt::Receipt},
    },
    domain::{
        pace::{NODE_RATE, Pace},
        refusal::Refusal,
    },
    door::{BeaconBody, refusal_status},
    net::http::Broken,
};

/// How long the last byte is held back of an answer that must not be lost, when the client has
/// closed its side. The system of a client that has closed both sides refuses the bytes before, and
/// the last byte is then not written, so that the loss is noticed.
const PARTING: Duration = Duration::from_millis(500);

/// A response: its status and its body, which is JSON.
pub(super) struct Reply {
    pub(super) status: u16,
    /// The seconds after which the client should come again.
    pub(super) retry_after: Option<u32>,
    /// The name of the node that gave the answer, if clients are told.
    pub(super) node: Option<Arc<str>>,
    pub(super) body: Content,
}

/// A response's body.
pub(super) enum Content {
    /// In memory.
    Ready(Bytes),
    /// A node's answer.
    Answer(Answer),
    /// Many answers, in brackets. The box spares single calls the size of a batch.
    Batch(Box<Batch>),
    /// The body of another door's response.
    Beacon(BeaconBody),
}

/// How long the next piece may take, and the part of the last piece that is held back.
pub(super) struct WritePace {
    pace: Pace,
    /// Since when a node's answer stands still.
    since: Option<Instant>,
    /// The last byte, and for how long it is held back.
    last: Option<(Bytes, Pin<Box<Sleep>>)>,
}

impl Default for WritePace {
    fn default() -> Self {
        Self { pace: Pace::new(STALL, NODE_RATE), since: None, last: None }
    }
}

impl Reply {
    pub(super) fn answered(mut answer: Answer) -> Self {
        let retry_after = answer.retry_after.or((answer.status == 503).then_some(1));
        Self { status: answer.status, retry_after, node: answer.giver.take(), body: Content::Answer(answer) }
    }

    pub(super) fn refused(refusal: &Refusal, id: Option<&[u8]>) -> Self {
        let retry_after = refusal_status::retry_after(refusal);
        let body = Content::Ready(refusal.body(id).into());
        Self { status: refusal_status::status(refusal), retry_after, node: None, body }
    }

    pub(super) fn batch(batch: Box<Batch>) -> Self {
        Self { status: 200, retry_after: None, node: None, body: Content::Batch(batch) }
    }

    /// The reply to notifications.
    pub(super) fn empty() -> Self {
        Self { status: 200, retry_after: None, node: None, body: Content::Ready(Bytes::new()) }
    }
}

impl Content {
    /// Bytes in all, where the length is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Ready(bytes) => Some(bytes.len() as u64),
            Self::Answer(answer) => answer.length(),
            Self::Batch(_) => None,
            Self::Beacon(body) => body.length(),
        }
    }

    /// The whole content, piece by piece, if all of it is in memory and no receipt waits for its
    /// end.
    pub(super) fn in_memory(&self) -> Option<impl Iterator<Item = &Bytes>> {
        let (first, more) = match self {
            Self::Ready(bytes) => (bytes, None),
            Self::Answer(answer) if answer.is_expected() => return None,
            Self::Answer(answer) => answer.in_memory().map(|(first, more)| (first, Some(more)))?,
            Self::Batch(_) | Self::Beacon(_) => return None,
        };
        Some(std::iter::once(first).chain(more.into_iter().flatten()))
    }

    /// The calls that are still under way while the content goes out.
    pub(super) fn running(&self) -> Option<&Running> {
        if let Self::Batch(batch) = self { Some(batch.running()) } else { None }
    }

    /// The last byte has been written to the client's connection.
    pub(super) fn has_left(&mut self) {
        match self {
            Self::Answer(answer) => answer.take_receipt().into_iter().for_each(Receipt::has_left),
            Self::Batch(batch) => batch.take_receipts().into_iter().for_each(Receipt::has_left),
            Self::Ready(_) | Self::Beacon(_) => {}
        }
    }

    /// The receipts to notify when the last piece taken has been written; none before the end.
    pub(super) fn take_receipts(&mut self, write_pace: &WritePace) -> Vec<Receipt> {
        match self {
            _ if !self.has_receipts() || write_pace.last.is_some() => Vec::new(),
            Self::Answer(answer) => answer.take_receipt().into_iter().collect(),
            Self::Batch(batch) => batch.take_receipts(),
            Self::Ready(_) | Self::Beacon(_) => Vec::new(),
        }
    }

    /// Whether all pieces were taken, and receipts wait for that.
    fn has_receipts(&self) -> bool {
        match self {
            Self::Answer(answer) => answer.is_expected() && answer.length() == Some(0),
            Self::Batch(batch) => batch.has_receipts(),
            Self::Ready(_) | Self::Beacon(_) => false,
        }
    }

    /// Whether no further piece comes.
    pub(super) fn is_over(&self, write_pace: &WritePace) -> bool {
        let is_taken = match self {
            Self::Batch(batch) => batch.is_over(),
            _ => self.length() == Some(0),
        };
        is_taken && write_pace.last.is_none()
    }

    /// The next piece, within a time if a node sends the piece. The calls of a batch have deadlines
    /// of their own, and another door's body has a rate of its own. `write_pace` is kept from poll
    /// to poll. For a client that `has_left` the last byte comes after [`PARTING`], if receipts
    /// wait for the end.
    pub(super) fn poll_in_time(
        &mut self,
        context: &mut Context<'_>,
        alarm: &mut Alarm,
        write_pace: &mut WritePace,
        has_left: impl FnOnce(&mut Context<'_>) -> bool,
    ) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some((_, wait)) = &mut write_pace.last {
            ready!(wait.as_mut().poll(context));
            return Poll::Ready(write_pace.last.take().map(|(last, _)| Ok(last)));
        }
        if let Poll::Ready(piece) = self.poll_piece(context) {
            if let Some(since) = write_pace.since.take() {
                let bytes = match (&*self, &piece) {
                    (Self::Beacon(_), _) => usize::MAX,
                    (_, Some(Ok(piece))) => piece.len(),
                    _ => 0,
                };
                write_pace.pace.moved(since.elapsed(), bytes);
            }
            let Some(Ok(mut piece)) = piece else { return Poll::Ready(piece) };
            if self.has_receipts() && has_left(context) {
                let last = piece.split_off(piece.len().saturating_sub(1));
                let (_, wait) = write_pace.last.insert((last, Box::pin(sleep(PARTING))));
                if piece.is_empty() {
                    // The new timer has to be polled once, to wake the task.
                    return wait.as_mut().poll(context).map(|()| None);
                }
            }
            return Poll::Ready(Some(Ok(piece)));
        }
        if matches!(self, Self::Batch(batch) if !batch.awaits_node()) {
            write_pace.since = None;
            return Poll::Pending;
        }
        let due = *write_pace.since.get_or_insert_with(Instant::now) + write_pace.pace.left();
        ready!(pin!(alarm.at(due)).poll(context));
        Poll::Ready(Some(Err(Broken::Lost { error: io::ErrorKind::TimedOut.into(), started: true })))
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match self {
            Self::Ready(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Ready(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Answer(answer) => answer.poll_piece(context),
            Self::Batch(batch) => Pin::new(batch).poll_next(context),
            Self::Beacon(body) => body.poll_piece(context),
        }
    }
}

/// Writes a number as digits.
pub(super) fn put_decimal(out: &mut BytesMut, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}
