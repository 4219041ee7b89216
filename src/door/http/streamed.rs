//! The body of a response, in the form that hyper wants.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::{
    batch::Running,
    bridge::Turn,
    compress::{Encoder, Turns},
    reply::{Content, WritePace},
};
use crate::{
    call::{alarm::Alarm, answer::receipt::Receipt},
    door::{access_log::Line, crowd::Asked},
    memory::{Claim, SMALL},
    net::http::Broken,
};

/// How long bytes of an answer stay in its encoder while no more of the answer comes. Bytes that
/// come within that time are flushed together, which compresses better.
const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// A reply's content as a body for hyper, with a deadline on each further piece.
pub(super) struct Streamed {
    content: Content,
    alarm: Alarm,
    write_pace: WritePace,
    /// The request that this answers.
    pub(super) turn: Option<(Turn, Asked)>,
    /// The memory that the request takes until the answer is written.
    pub(super) claim: Option<Claim>,
    /// The request's line in the access log, if the request has one.
    pub(super) line: Option<Box<Line>>,
    /// Compresses the content. The box spares all others its size.
    coded: Option<Box<Coded>>,
}

/// A content that is compressed on its way.
struct Coded {
    encoder: Encoder,
    /// Notified when the last compressed byte has been written.
    receipts: Vec<Receipt>,
    turns: Turns,
    /// Since when the encoder may hold bytes back.
    held_since: Option<Instant>,
    alarm: Alarm,
}

/// How a step of a compressed content ends.
enum Step {
    /// A compressed piece, with the receipts of the end.
    Piece(Bytes, Vec<Receipt>),
    /// No bytes are ready yet, and there is more to do.
    Again,
    End,
}

impl Streamed {
    pub(super) fn new(content: Content) -> Self {
        Self {
            content,
            alarm: Alarm::default(),
            write_pace: WritePace::default(),
            turn: None,
            claim: None,
            line: None,
            coded: None,
        }
    }

    /// Bytes in all, where the length is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.content.length()
    }

    /// Has the content compressed.
    pub(super) fn encode(&mut self, encoder: Encoder) {
        self.coded = Some(Box::new(Coded::new(encoder)));
    }

    /// The calls that are still under way while the content goes out.
    pub(super) fn running(&self) -> Option<&Running> {
        self.content.running()
    }
}

impl Streamed {
    fn take_receipts(&mut self) -> Vec<Receipt> {
        self.content.take_receipts(&self.write_pace)
    }

    fn portion(&mut self, bytes: Bytes, receipts: Vec<Receipt>) -> Portion {
        self.line.iter_mut().for_each(|line| line.bytes += bytes.len() as u64);
        let claim = self.claim.as_ref().filter(|_| bytes.len() > SMALL).map(|own| {
            let mut claim = own.account().outgoing();
            claim.set(bytes.len());
            claim
        });
        Portion { bytes, receipts, _claim: claim }
    }

    /// The next compressed piece.
    fn poll_coded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Portion>, Broken>>> {
        loop {
            match ready!(self.poll_step(context))? {
                Step::Again => {}
                Step::Piece(bytes, _) if bytes.is_empty() => {}
                Step::Piece(bytes, receipts) => {
                    return Poll::Ready(Some(Ok(Frame::data(self.portion(bytes, receipts)))));
                }
                Step::End => return Poll::Ready(None),
            }
        }
    }

    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Result<Step, Broken>> {
        let Self { content, alarm, write_pace, turn, coded, .. } = self;
        let Some(coded) = coded else { return Poll::Ready(Ok(Step::End)) };
        if coded.encoder.is_finished() {
            return Poll::Ready(Ok(Step::End));
        }
        if !coded.encoder.is_hungry() {
            // Compressing takes long: other clients have their turn between two slices.
            ready!(coded.turns.poll(context));
            return Poll::Ready(
                coded.encoder.advance().map_or_else(failed, |bytes| Ok(Step::Piece(bytes, Vec::new()))),
            );
        }
        let has_left = |context: &mut Context<'_>| turn.as_ref().is_some_and(|(turn, _)| turn.has_left(context));
        let Poll::Ready(piece) = content.poll_in_time(context, alarm, write_pace, has_left) else {
            ready!(coded.poll_held_long(context));
            return Poll::Ready(coded.encoder.flush().map_or_else(failed, |bytes| Ok(Step::Piece(bytes, Vec::new()))));
        };
        match piece.transpose()? {
            Some(piece) => {
                coded.receipts.extend(content.take_receipts(write_pace));
                coded.held_since.get_or_insert_with(Instant::now);
                coded.encoder.feed(piece);
                Poll::Ready(Ok(Step::Again))
            }
            None => {
                let receipts = std::mem::take(&mut coded.receipts);
                Poll::Ready(coded.encoder.finish().map_or_else(failed, |bytes| Ok(Step::Piece(bytes, receipts))))
            }
        }
    }
}

impl Coded {
    fn new(encoder: Encoder) -> Self {
        Self { encoder, receipts: Vec::new(), turns: Turns::new(), held_since: None, alarm: Alarm::default() }
    }

    /// Ready when the encoder has held bytes back for [`FLUSH_AFTER`]; these must be flushed then.
    fn poll_held_long(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(since) = self.held_since else { return Poll::Pending };
        ready!(pin!(self.alarm.at(since + FLUSH_AFTER)).poll(context));
        self.held_since = None;
        Poll::Ready(())
    }
}

/// The answer ends before its end.
fn failed(_: super::compress::CodingFailed) -> Result<Step, Broken> {
    Err(Broken::Lost { error: std::io::ErrorKind::OutOfMemory.into(), started: true })
}

impl Body for Streamed {
    type Data = Portion;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Portion>, Broken>>> {
        if self.coded.is_some() {
            return self.poll_coded(context);
        }
        let Self { content, alarm, write_pace, turn, .. } = &mut *self;
        let has_left = |context: &mut Context<'_>| turn.as_ref().is_some_and(|(turn, _)| turn.has_left(context));
        let piece = ready!(content.poll_in_time(context, alarm, write_pace, has_left));
        Poll::Ready(piece.map(|piece| {
            piece.map(|bytes| {
                let receipts = self.take_receipts();
                Frame::data(self.portion(bytes, receipts))
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.coded.is_none() && self.content.is_over(&self.write_pace)
    }

    fn size_hint(&self) -> SizeHint {
        self.content.length().filter(|_| self.coded.is_none()).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A piece of a body for hyper, which holds the piece until all is written, and advances over the
/// written bytes.
pub(super) struct Portion {
    bytes: Bytes,
    /// Notified when the last byte has been written. Dropped with a piece that is never written.
    receipts: Vec<Receipt>,
    /// The memory of a long piece until the piece is written: hyper asks for the next piece before
    /// that.
    _claim: Option<Claim>,
}

impl Buf for Portion {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if self.bytes.is_empty() {
            self.receipts.drain(..).for_each(Receipt::has_left);
        }
    }
}
