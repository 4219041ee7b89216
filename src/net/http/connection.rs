//! An HTTP/1.1 connection to a node, and an exchange on it: write a request, read the response's
//! head, stream its body.
//!
//! The caller's own task drives the connection; no other task stands behind the connection. So an
//! exchange costs no wake-up between tasks, and ends when the caller drops its future.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::{
    head::{Framing, Head, NotHttp},
    upload::{Outgoing, Pieces, Timeouts},
};
use crate::net::{BoxIo, node_connections::Permit};

/// Up to this size a body is copied behind its head, for one plain write is cheaper than a vectored
/// one.
const FLATTEN: usize = 4 * 1024;
/// The parts of a body in memory: the client's bytes before the id, the proxy's own id, and the
/// client's bytes behind the id.
const PARTS: usize = 3;
/// How many bytes a read asks for at first, and while a long body comes.
const SMALL_READ: usize = 8 * 1024;
const LARGE_READ: usize = 128 * 1024;
/// Room beyond the bytes that are wanted. A read that leaves room shows that no more bytes are
/// there, so that the next wait needs no read that finds nothing.
const SPARE: usize = 16;

/// An open connection between exchanges.
pub struct Conn {
    io: BoxIo,
    read: BytesMut,
    write: Vec<u8>,
    /// Whether `read` was made for a long body.
    is_wide: bool,
    /// Responses in this exchange that only announced another.
    interim: usize,
    /// Whether bytes have come since the exchange last asked.
    has_heard: bool,
    /// Whether the connection has carried an exchange before.
    pub reused: bool,
    /// The permit to have this connection to the node. The last field, since the permit is given up
    /// when the connection is closed.
    pub permit: Permit,
}

/// Why an exchange has no response.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The connection was lost; `started` tells whether a byte of the response had come.
    #[error("connection lost: {error}")]
    Lost {
        /// The system's error.
        error: io::Error,
        /// Whether the response had begun.
        started: bool,
    },
    /// The bytes are no HTTP.
    #[error(transparent)]
    NotHttp(#[from] NotHttp),
}

impl Conn {
    /// Takes a fresh connection, which stays in its box: a connection changes hands several times
    /// in each exchange.
    pub fn new(io: BoxIo, permit: Permit) -> Box<Self> {
        Box::new(Self {
            io,
            read: BytesMut::new(),
            is_wide: false,
            write: Vec::new(),
            interim: 0,
            has_heard: false,
            reused: false,
            permit,
        })
    }

    /// Whether bytes have come since this was last asked.
    pub(super) fn has_heard(&mut self) -> bool {
        std::mem::take(&mut self.has_heard)
    }

    /// Whether the peer closes the fresh connection within `time` without a byte, as a full node
    /// does. Bytes that the peer sends are kept.
    pub async fn closes_within(&mut self, time: Duration) -> bool {
        let look = poll_fn(|context| self.poll_fill(context, SMALL_READ));
        matches!(timeout(time, look).await, Ok(Ok(false) | Err(_)))
    }

    /// Whether the peer has left the idle connection alone: neither closed it nor sent a byte.
    pub fn is_quiet(&mut self) -> bool {
        if !self.read.is_empty() {
            return false;
        }
        let mut byte = [0u8; 1];
        let mut context = Context::from_waker(std::task::Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Sends a request and waits for the head of the response. `head` writes the request's head,
    /// blank line included; `written` is called when the whole request has left, perhaps more than
    /// once.
    ///
    /// # Errors
    /// When the connection is lost or the peer does not speak HTTP. Bytes of the request may have
    /// arrived.
    pub async fn send(
        &mut self,
        head: impl FnOnce(&mut Vec<u8>),
        body: [&[u8]; PARTS],
        to_head: bool,
        mut written: impl FnMut(),
    ) -> Result<Head, Broken> {
        self.write.clear();
        head(&mut self.write);
        let length: usize = body.iter().map(|part| part.len()).sum();
        let rest = if length <= FLATTEN {
            body.iter().for_each(|part| self.write.extend_from_slice(part));
            [&[][..]; PARTS]
        } else {
            body
        };
        let (mut sent, mut lost) = (0, None);
        let total = self.write.len() + rest.iter().map(|part| part.len()).sum::<usize>();
        poll_fn(|context| {
            self.poll_write(context, rest, total, &mut sent, &mut lost);
            if sent == total {
                written();
            }
            // A node may answer, and even hang up, before it has read all of a long request.
            self.poll_head(context, sent == total, &mut lost, to_head)
        })
        .await
    }

    /// Writes as much of the request as the socket takes, and counts the bytes in `sent`. `total`
    /// is the length of the request; `rest` is the part of the body that is not in `self.write`.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        rest: [&[u8]; PARTS],
        total: usize,
        sent: &mut usize,
        lost: &mut Option<io::Error>,
    ) {
        while *sent < total && lost.is_none() {
            let mut slices = [io::IoSlice::new(&[]); PARTS + 1];
            let (mut count, mut skip) = (0, *sent);
            for part in std::iter::once(&self.write[..]).chain(rest) {
                match part.get(skip..) {
                    Some(left) if !left.is_empty() => {
                        slices[count] = io::IoSlice::new(left);
                        (count, skip) = (count + 1, 0);
                    }
                    _ => skip -= part.len(),
                }
            }
            let io = Pin::new(&mut self.io);
            let wrote = match &slices[..count] {
                [one] => io.poll_write(context, one),
                many => io.poll_write_vectored(context, many),
            };
            match wrote {
                Poll::Ready(Ok(0)) => *lost = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => *sent += count,
                Poll::Ready(Err(error)) => *lost = Some(error),
                Poll::Pending => break,
            }
        }
        if lost.is_none() {
            match Pin::new(&mut self.io).poll_flush(context) {
                Poll::Ready(Err(error)) => *lost = Some(error),
                Poll::Ready(Ok(())) | Poll::Pending => {}
            }
        }
    }

    /// Sends a request whose body comes piece by piece, and waits for the head of the response. If
    /// the node answers before it has the whole request, the rest is not sent.
    ///
    /// # Errors
    /// As [`Conn::send`], and when the body's pieces end in an error.
    pub async fn stream(
        &mut self,
        head: impl FnOnce(&mut Vec<u8>),
        pieces: Pieces<'_>,
        chunked: bool,
        timeouts: Timeouts,
        to_head: bool,
    ) -> Result<Head, Broken> {
        let mut front = Vec::new();
        head(&mut front);
        let mut outgoing = Outgoing::new(front, pieces, chunked, timeouts);
        let mut lost = None;
        poll_fn(|context| {
            let mut whole = false;
            if lost.is_none() {
                match outgoing.poll_write(context, &mut self.io) {
                    Poll::Ready(Ok(())) => whole = true,
                    Poll::Ready(Err(error)) => lost = Some(error),
                    Poll::Pending => {}
                }
            }
            if let Poll::Ready(outcome) = self.poll_head(context, whole, &mut lost, to_head) {
                return Poll::Ready(outcome);
            }
            ready!(outgoing.poll_overdue(context));
            Poll::Ready(Err(Broken::Lost { error: io::ErrorKind::TimedOut.into(), started: !self.read.is_empty() }))
        })
        .await
    }

    /// Waits for the head of the response. `whole`: the request has left whole; `lost`: the reason
    /// why it cannot.
    fn poll_head(
        &mut self,
        context: &mut Context<'_>,
        whole: bool,
        lost: &mut Option<io::Error>,
        to_head: bool,
    ) -> Poll<Result<Head, Broken>> {
        loop {
            match self.poll_fill(context, SMALL_READ) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => {
                    let error = lost.take().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Err(Broken::Lost { error, started: !self.read.is_empty() }));
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(Broken::Lost { error, started: !self.read.is_empty() }));
                }
                Poll::Pending => match lost.take() {
                    Some(error) => return Poll::Ready(Err(Broken::Lost { error, started: false })),
                    None => return Poll::Pending,
                },
            }
            if let Some(mut head) = Head::read(&mut self.read, to_head, &mut self.interim)? {
                self.has_heard = false;
                // A request that was not written whole leaves the connection in the middle of the
                // request.
                head.keep_alive &= whole && lost.is_none();
                return Poll::Ready(Ok(head));
            }
        }
    }

    /// Waits for the next piece of the body. `None` when the body is complete.
    ///
    /// # Errors
    /// When the connection is lost before the body's end, or a chunk is malformed.
    pub fn poll_body(&mut self, context: &mut Context<'_>, head: &mut Head) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            match head.framing.take(&mut self.read) {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) if head.framing.is_done() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            let wanted =
                head.framing.remaining().map_or(LARGE_READ, |left| usize::try_from(left).unwrap_or(LARGE_READ));
            match ready!(self.poll_fill(context, wanted.clamp(SMALL_READ, LARGE_READ))) {
                Ok(true) => {}
                Ok(false) if head.framing == Framing::UntilClose => return Poll::Ready(None),
                Ok(false) => {
                    let error = io::ErrorKind::UnexpectedEof.into();
                    return Poll::Ready(Some(Err(Broken::Lost { error, started: true })));
                }
                Err(error) => return Poll::Ready(Some(Err(Broken::Lost { error, started: true }))),
            }
        }
    }

    /// Makes the connection ready for its next exchange, if there can be one.
    pub fn recycle(mut self: Box<Self>, head: &Head) -> Option<Box<Self>> {
        (self.reused, self.interim) = (true, 0);
        // An idle connection keeps no buffer of a long body.
        if std::mem::take(&mut self.is_wide) && self.read.is_empty() {
            self.read = BytesMut::new();
        }
        (head.keep_alive && head.framing.is_done() && self.read.is_empty()).then_some(self)
    }

    /// Reads up to `wanted` bytes. `false` at the end of the stream.
    fn poll_fill(&mut self, context: &mut Context<'_>, wanted: usize) -> Poll<io::Result<bool>> {
        // Earlier pieces may still be in use. A buffer is filled before another is made, so that a
        // small piece keeps little memory.
        if self.read.capacity() - self.read.len() < wanted.min(SMALL_READ) {
            self.is_wide |= wanted > SMALL_READ;
            self.read.reserve(wanted + SPARE);
        }
        let read = std::pin::pin!(self.io.read_buf(&mut self.read));
        let count = ready!(read.poll(context))?;
        self.has_heard |= count > 0;
        Poll::Ready(Ok(count > 0))
    }
}
