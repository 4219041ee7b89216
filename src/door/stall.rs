//! A stream whose writes have a deadline and a least rate, for servers that have neither.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::{
    domain::pace::{CLIENT_RATE, Pace},
    net::BoxIo,
};

/// A client's stream. Bytes that were read already come first, and a client that takes too little
/// of the written bytes is lost.
pub(super) struct Stall {
    io: BoxIo,
    read: Bytes,
    pace: Pace,
    /// Since when a write waits, and the timer that bounds the wait.
    blocked: Option<(Instant, Pin<Box<Sleep>>)>,
    /// The client took too little for too long.
    is_lost: bool,
}

impl Stall {
    /// `read` comes before the bytes that `io` still holds. A client that takes nothing for
    /// `time_limit`, or less than the least rate for longer, is lost.
    pub(super) fn new(io: BoxIo, read: Bytes, time_limit: Duration) -> Self {
        Self { io, read, pace: Pace::new(time_limit, CLIENT_RATE), blocked: None, is_lost: false }
    }

    /// Whether a write has failed because the client took too little for too long.
    pub(super) const fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// The stream, and the bytes that were read and not asked for. Nothing is left here.
    pub(super) fn take(&mut self) -> (BoxIo, Bytes) {
        (std::mem::replace(&mut self.io, Box::new(tokio::io::empty())), std::mem::take(&mut self.read))
    }

    /// Reads some bytes behind those in `into`; 0 where the client has closed its side.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>, into: &mut BytesMut) -> Poll<io::Result<usize>> {
        if !self.read.is_empty() {
            let read = std::mem::take(&mut self.read);
            into.extend_from_slice(&read);
            return Poll::Ready(Ok(read.len()));
        }
        // `forbid(unsafe_code)` leaves a copy; this is not the path of plain calls.
        let mut piece = [0u8; 8192];
        let mut buffer = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
        into.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn watch(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(outcome) = outcome {
            let waited = self.blocked.take().map_or(Duration::ZERO, |(since, _)| since.elapsed());
            self.pace.moved(waited, *outcome.as_ref().unwrap_or(&0));
            return Poll::Ready(outcome);
        }
        let left = self.pace.left();
        let (_, timer) = self.blocked.get_or_insert_with(|| (Instant::now(), Box::pin(sleep(left))));
        ready!(timer.as_mut().poll(context));
        self.is_lost = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Stall {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = [0u8; 8192];
        let wanted = piece.len().min(into.remaining());
        let mut buffer = ReadBuf::new(&mut piece[..wanted]);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
        into.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for Stall {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.watch(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(context);
        self.watch(context, outcome.map_ok(|()| 0)).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch(context, outcome.map_ok(|()| 0)).map_ok(|_| ())
    }
}
