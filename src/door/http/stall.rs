//! A stream whose writes have a deadline, for servers that have none of their own.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::net::BoxIo;

/// A client's stream as hyper wants it: what was read already comes first, and a write that nobody takes ends it.
pub(super) struct Stall {
    io: BoxIo,
    read: Bytes,
    patience: Duration,
    since: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    /// `read` comes before what `io` still holds; a client that takes nothing for `patience` is lost.
    pub(super) fn new(io: BoxIo, read: Bytes, patience: Duration) -> Self {
        Self { io, read, patience, since: None }
    }

    /// The stream, and what was read of it and not asked for.
    pub(super) fn into_parts(self) -> (BoxIo, Bytes) {
        (self.io, self.read)
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.since = None;
            return outcome;
        }
        let patience = self.patience;
        let since = self.since.get_or_insert_with(|| Box::pin(sleep(patience)));
        since.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Stall {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let count = self.read.len().min(into.remaining());
            into.put_slice(&self.read.split_to(count));
            return Poll::Ready(Ok(()));
        }
        // `forbid(unsafe_code)` leaves a copy; this is not the path of plain calls.
        let mut piece = [0u8; 8192];
        let wanted = piece.len().min(into.remaining());
        let mut buffer = ReadBuf::new(&mut piece[..wanted]);
        std::task::ready!(Pin::new(&mut self.io).poll_read(context, &mut buffer))?;
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
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch(context, outcome)
    }
}
