//! Writes to a client in the fast lane.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    sync::atomic::Ordering::Relaxed,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::{
    super::{
        batch::Running,
        reply::{Reply, WritePace, put_decimal},
    },
    FLATTEN, Lane, MAX_AHEAD, STALL,
};
use crate::{exchange::pick::NODE_HEADER, memory::Cut, metrics::Ended, net::BoxIo};

impl Lane<'_> {
    /// Writes a reply, each write and each wait for a piece bounded in time.
    ///
    /// # Errors
    /// When either side breaks off or stalls. The connection must be closed then, since the client
    /// has only a part of the answer.
    pub(super) async fn reply(&mut self, mut reply: Reply, keep_alive: bool) -> io::Result<()> {
        let length = reply.body.length();
        if let Some(line) = &mut self.line {
            line.status = Some(reply.status);
        }
        self.head(&reply, length, keep_alive);
        let is_in_memory = match reply.body.in_memory() {
            Some(pieces) if length.is_some_and(|length| length <= FLATTEN) => {
                pieces.for_each(|piece| self.write.put_slice(piece));
                self.write_out([], None).await?;
                true
            }
            Some(pieces) => {
                self.write_out(pieces.map(Bytes::as_ref), None).await?;
                true
            }
            None => false,
        };
        if is_in_memory {
            self.note_written(length.unwrap_or_default());
            reply.body.has_left();
            return Ok(());
        }
        let (mut write_pace, memory) = (WritePace::default(), self.memory);
        loop {
            // A batch runs on here, and its client may be lost, which has to be known before the
            // last piece is taken. All arms are cancel-safe.
            let piece = tokio::select! {
                biased;
                piece = poll_fn(|context| {
                    if let Poll::Ready(Err(error)) = self.look(context) {
                        return Poll::Ready(Err(error));
                    }
                    // Behind more bytes than are read ahead the client may have closed its side.
                    let has_left = |_: &mut Context<'_>| self.left.load(Relaxed) || self.read.len() >= MAX_AHEAD;
                    reply.body.poll_in_time(context, &mut self.alarm, &mut write_pace, has_left).map(Ok)
                }) => piece?,
                why = poll_fn(|context| memory.poll_cut(context)) => return Err(self.cut(why)),
            };
            let piece = piece.transpose().map_err(io::Error::other)?;
            self.note_written(piece.as_ref().map_or(0, Bytes::len) as u64);
            let beside = reply.body.running();
            match (piece, length) {
                (Some(piece), Some(_)) => self.write_out([&piece[..]], beside).await?,
                (Some(piece), None) => {
                    self.write.put_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    self.write_out([&piece[..], b"\r\n"], beside).await?;
                }
                (None, length) => {
                    if length.is_none() {
                        self.write_out([&b"0\r\n\r\n"[..]], None).await?;
                    }
                    reply.body.has_left();
                    return Ok(());
                }
            }
        }
    }

    /// Notes bytes of the answer for the access log.
    fn note_written(&mut self, bytes: u64) {
        if let Some(line) = &mut self.line {
            line.bytes += bytes;
        }
    }

    /// Reads ahead while an answer goes out, up to a bound, and notes whether the client has closed
    /// its side. Ready when there is nothing more to read.
    fn look(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.read.len() < MAX_AHEAD && !self.left.load(Relaxed) {
            if ready!(pin!(self.io.read_buf(&mut self.read)).poll(context))? == 0 {
                self.left.store(true, Relaxed);
                self.place.departs();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the gathered bytes, and `more` behind them, in as few writes as the system allows.
    /// The calls that run `beside` go on while the client takes the bytes.
    async fn write_out<'b>(
        &mut self,
        more: impl IntoIterator<Item = &'b [u8]>,
        beside: Option<&Running>,
    ) -> io::Result<()> {
        let mut gathered = std::mem::take(&mut self.write);
        let mut pieces =
            std::iter::once(&gathered[..]).chain(more.into_iter().map(shorten)).filter(|piece| !piece.is_empty());
        loop {
            let mut slices = [IoSlice::new(&[]); 16];
            let count = slices.iter_mut().zip(&mut pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count();
            let mut left = &mut slices[..count];
            if left.is_empty() {
                break;
            }
            while !left.is_empty() {
                // Most writes are taken at once, and need neither clock nor alarm.
                let taken = poll_fn(|context| Poll::Ready(write(&mut self.io, context, left))).await;
                let count = match taken {
                    Poll::Ready(count) => count?,
                    Poll::Pending => self.wait_to_write(left, beside).await?,
                };
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                IoSlice::advance_slices(&mut left, count);
            }
        }
        gathered.clear();
        self.write = gathered;
        // A TLS or simulated stream may hold bytes back.
        if let Poll::Ready(flushed) = poll_fn(|context| Poll::Ready(Pin::new(&mut self.io).poll_flush(context))).await {
            return flushed;
        }
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            flushed = self.io.flush() => flushed,
            () = self.alarm.at(Instant::now() + self.pace.left()) => {
                self.service.metrics.client_ended(Ended::SlowReader);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Waits until the client takes some of the bytes, at the least rate, and returns their number.
    async fn wait_to_write(&mut self, left: &[IoSlice<'_>], beside: Option<&Running>) -> io::Result<usize> {
        let begun = Instant::now();
        // All arms are cancel-safe: written bytes are counted.
        let count = tokio::select! {
            biased;
            count = poll_fn(|context| {
                let written = write(&mut self.io, context, left);
                if written.is_pending() {
                    beside.inspect(|running| running.go_on(context));
                }
                written
            }) => count?,
            why = poll_fn(|context| self.memory.poll_cut(context)) => return Err(self.cut(why)),
            () = self.alarm.at(begun + self.pace.left()) => {
                self.service.metrics.client_ended(Ended::SlowReader);
                return Err(io::ErrorKind::TimedOut.into());
            }
        };
        self.pace.moved(begun.elapsed(), count);
        Ok(count)
    }

    /// Ends the proxy's side. A TLS stream writes for that, so a client that takes nothing would
    /// hold up the end.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            ended = self.io.shutdown() => ended,
            () = self.alarm.at(Instant::now() + STALL) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Ends an answer in the middle: its memory or its place is needed for others.
    fn cut(&self, why: Cut) -> io::Error {
        self.service.cut_off(why);
        io::ErrorKind::ConnectionAborted.into()
    }

    fn head(&mut self, reply: &Reply, length: Option<u64>, keep_alive: bool) {
        let out = &mut self.write;
        out.clear();
        out.reserve(512);
        if reply.status == 200 {
            out.put_slice(b"HTTP/1.1 200 OK\r\n");
        } else {
            let reason = http::StatusCode::from_u16(reply.status).ok().and_then(|status| status.canonical_reason());
            out.put_slice(format!("HTTP/1.1 {} {}\r\n", reply.status, reason.unwrap_or("")).as_bytes());
        }
        out.put_slice(b"content-type: application/json\r\n");
        if let Some(seconds) = reply.retry_after {
            out.put_slice(b"retry-after: ");
            put_decimal(out, seconds.into());
            out.put_slice(b"\r\n");
        }
        if let Some(node) = &reply.node {
            for part in [NODE_HEADER.as_bytes(), b": ", node.as_bytes(), b"\r\n"] {
                out.put_slice(part);
            }
        }
        match length {
            Some(length) => {
                out.put_slice(b"content-length: ");
                put_decimal(out, length);
                out.put_slice(b"\r\n");
            }
            None => out.put_slice(b"transfer-encoding: chunked\r\n"),
        }
        out.put_slice(if keep_alive { b"\r\n" } else { b"connection: close\r\n\r\n" });
    }
}

/// Writes some of the bytes; one plain write is cheaper than a vectored one.
fn write(io: &mut BoxIo, context: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    match bytes {
        [one] => Pin::new(io).poll_write(context, one),
        many => Pin::new(io).poll_write_vectored(context, many),
    }
}

/// Shortens the lifetime of a slice to match its neighbours.
fn shorten<'short, 'long: 'short>(piece: &'long [u8]) -> &'short [u8] {
    piece
}
