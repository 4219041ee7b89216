//! Writes to a client in the fast lane.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    sync::atomic::Ordering::Relaxed,
};

use bytes::{BufMut, Bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::Instant,
};

use super::{
    super::{
        batch::Running,
        reply::{Patience, Reply, put_decimal},
    },
    FLATTEN, Lane, MAX_AHEAD, STALL,
};
use crate::{memory::Cut, metrics::Ended};

impl Lane<'_> {
    /// Writes a reply, each write and each wait for a piece bounded in time.
    ///
    /// # Errors
    /// When either side breaks off or stalls. The connection must be closed then, since the client
    /// has only a part of the answer.
    pub(super) async fn reply(&mut self, mut reply: Reply, keep_alive: bool) -> io::Result<()> {
        let length = reply.body.length();
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
            reply.body.has_left();
            return Ok(());
        }
        let mut patience = Patience::default();
        loop {
            // A batch runs on here, and its client may be lost, which has to be known before the
            // last piece is taken. All arms are cancel-safe.
            let piece = tokio::select! {
                biased;
                count = self.io.read_buf(&mut self.read), if self.read.len() < MAX_AHEAD && !self.left.load(Relaxed) => {
                    if count? == 0 {
                        self.left.store(true, Relaxed);
                        self.place.departs();
                    }
                    continue;
                }
                piece = poll_fn(|context| {
                    reply.body.poll_in_time(context, &mut self.alarm, &mut patience, |_| self.left.load(Relaxed))
                }) => piece,
                why = poll_fn(|context| self.memory.poll_cut(context)) => return Err(self.cut(why)),
            };
            let piece = piece.transpose().map_err(io::Error::other)?;
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

    /// Writes the gathered bytes, and `more` behind them, in as few writes as the system allows.
    /// The calls that run `beside` go on while the client takes the bytes.
    async fn write_out<'b>(
        &mut self,
        more: impl IntoIterator<Item = &'b [u8]>,
        beside: Option<&Running>,
    ) -> io::Result<()> {
        let mut gathered = std::mem::take(&mut self.write);
        let mut pace = self.pace;
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
                let begun = Instant::now();
                let (due, mut waited) = (begun + pace.left(), false);
                // All arms are cancel-safe: written bytes are counted.
                let count = tokio::select! {
                    biased;
                    count = poll_fn(|context| {
                        let written = match &*left {
                            [one] => Pin::new(&mut self.io).poll_write(context, one),
                            many => Pin::new(&mut self.io).poll_write_vectored(context, many),
                        };
                        if written.is_pending() {
                            waited = true;
                            beside.inspect(|running| running.go_on(context));
                        }
                        written
                    }) => count?,
                    why = poll_fn(|context| self.memory.poll_cut(context)) => return Err(self.cut(why)),
                    () = self.alarm.at(due) => {
                        self.service.metrics.client_ended(Ended::SlowReader);
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                };
                if waited {
                    pace.moved(begun.elapsed(), count);
                }
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                IoSlice::advance_slices(&mut left, count);
            }
        }
        gathered.clear();
        (self.write, self.pace) = (gathered, pace);
        // A TLS or simulated stream may hold bytes back. Both arms are cancel-safe.
        tokio::select! {
            biased;
            flushed = self.io.flush() => flushed,
            () = self.alarm.at(Instant::now() + pace.left()) => {
                self.service.metrics.client_ended(Ended::SlowReader);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
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

/// Shortens the lifetime of a slice to match its neighbours.
fn shorten<'short, 'long: 'short>(piece: &'long [u8]) -> &'short [u8] {
    piece
}
