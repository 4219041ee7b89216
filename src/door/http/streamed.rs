//! The body of a response, in the form that hyper wants.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use hyper::body::{Body, Frame, SizeHint};

use super::{
    batch::Running,
    bridge::Turn,
    reply::{Content, Patience},
};
use crate::{
    call::{alarm::Alarm, answer::receipt::Receipt},
    door::{access_log::Line, crowd::Asked},
    memory::{Claim, SMALL},
    net::http::Broken,
};

/// A reply's content as a body for hyper, with a deadline on each further piece.
pub(super) struct Streamed {
    content: Content,
    alarm: Alarm,
    patience: Patience,
    /// The request that this answers.
    pub(super) turn: Option<(Turn, Asked)>,
    /// The memory that the request takes until the answer is written.
    pub(super) claim: Option<Claim>,
    /// The request's line in the access log, if the request has one.
    pub(super) line: Option<Box<Line>>,
}

impl Streamed {
    pub(super) fn new(content: Content) -> Self {
        Self { content, alarm: Alarm::default(), patience: Patience::default(), turn: None, claim: None, line: None }
    }

    /// The calls that are still under way while the content goes out.
    pub(super) fn running(&self) -> Option<&Running> {
        self.content.running()
    }
}

impl Body for Streamed {
    type Data = Portion;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Portion>, Broken>>> {
        let Self { content, alarm, patience, claim, turn, line } = &mut *self;
        let has_left = |context: &mut Context<'_>| turn.as_ref().is_some_and(|(turn, _)| turn.has_left(context));
        let piece = ready!(content.poll_in_time(context, alarm, patience, has_left));
        let mut portion = |bytes: Bytes| {
            line.iter_mut().for_each(|line| line.bytes += bytes.len() as u64);
            let claim = claim.as_ref().filter(|_| bytes.len() > SMALL).map(|own| {
                let mut claim = own.account().outgoing();
                claim.set(bytes.len());
                claim
            });
            Portion { bytes, receipts: content.take_receipts(patience), _claim: claim }
        };
        Poll::Ready(piece.map(|piece| piece.map(|bytes| Frame::data(portion(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_over(&self.patience)
    }

    fn size_hint(&self) -> SizeHint {
        self.content.length().map_or_else(SizeHint::default, SizeHint::with_exact)
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
