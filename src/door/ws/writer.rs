//! Puts messages for a client into frames and writes them. A connection without bytes to write
//! holds no buffer.

use std::{
    cell::Cell,
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite as _;

use super::frame::{Opcode, put_head};
use crate::{call::answer::receipt::Receipt, net::BoxIo, view::Outbound};

/// Up to this size a message is copied behind its head, for one plain write is cheaper than a
/// vectored one.
const FLATTEN: usize = 16 * 1024;
/// Messages that are ready are gathered into one write up to this size.
const GATHER: usize = 16 * 1024;

thread_local! {
    /// The buffer in which a worker's connections gather their messages. Only a connection that
    /// cannot write keeps the buffer.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Writes to one client.
#[derive(Default)]
pub(super) struct Writer {
    /// Frames, and where in them the next write begins.
    gathered: Vec<u8>,
    at: usize,
    /// A long payload behind the frames. The payload stays whole until its last byte is written,
    /// since no part can be freed before.
    long: Bytes,
    /// Where in the payload the next write begins.
    long_at: usize,
    /// Frames behind the long payload.
    behind: Vec<u8>,
    /// Receipts to notify, each when so many bytes more have been written.
    receipts: VecDeque<(usize, Receipt)>,
    /// Whether the stream has bytes that it may hold back until a flush.
    is_unflushed: bool,
}

impl Writer {
    /// Whether another message may be put.
    pub(super) fn has_room(&self) -> bool {
        self.long.is_empty() && self.gathered.len() - self.at < GATHER
    }

    /// Whether all bytes are written.
    fn is_empty(&self) -> bool {
        self.long.is_empty() && self.at == self.gathered.len() && self.behind.is_empty()
    }

    /// Bytes that are still to be written.
    pub(super) fn waiting(&self) -> usize {
        self.gathered.len() - self.at + self.long.len() - self.long_at + self.behind.len()
    }

    /// Bytes in memory for the bytes that are still to be written.
    pub(super) fn held(&self) -> usize {
        self.waiting() + self.long_at
    }

    /// Takes a message that waited for the client, and returns how many of its messages are to be
    /// written. The caller makes sure of room.
    pub(super) fn put(&mut self, message: Outbound) -> u64 {
        match message {
            Outbound::Answer(text, receipt) => {
                self.text(text);
                receipt.into_iter().for_each(|receipt| self.expect(*receipt));
            }
            Outbound::Notification(notification) => self.parts(&notification.parts()),
            Outbound::Close(_) => return 0,
        }
        1
    }

    /// Adds a text message. The caller makes sure of room.
    fn text(&mut self, text: Bytes) {
        let gathered = self.gathered();
        put_head(gathered, Opcode::Text, text.len());
        if text.len() <= FLATTEN {
            gathered.extend_from_slice(&text);
        } else {
            self.long = text;
        }
    }

    /// Notifies `receipt` when all bytes that were put so far have been written.
    fn expect(&mut self, receipt: Receipt) {
        self.receipts.push_back((self.waiting(), receipt));
    }

    /// Whether receipts wait for the bytes that are still to be written.
    pub(super) fn has_receipts(&self) -> bool {
        !self.receipts.is_empty()
    }

    /// Notes that `count` bytes have been written.
    fn tell(&mut self, count: usize) {
        self.receipts.iter_mut().for_each(|(waiting, _)| *waiting = waiting.saturating_sub(count));
        while let Some((_, receipt)) = self.receipts.pop_front_if(|(waiting, _)| *waiting == 0) {
            receipt.has_left();
        }
    }

    /// Adds a text message made of parts.
    fn parts(&mut self, parts: &[&[u8]]) {
        let gathered = self.gathered();
        put_head(gathered, Opcode::Text, parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| gathered.extend_from_slice(part));
    }

    /// Adds a ping or a pong.
    pub(super) fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        let gathered = self.gathered();
        put_head(gathered, opcode, payload.len());
        gathered.extend_from_slice(payload);
    }

    /// Adds the close frame, behind which nothing may be put. Without a code, the frame answers a
    /// close frame that had none.
    pub(super) fn close(&mut self, code: Option<u16>, reason: &str) {
        let payload = code.map_or_else(Vec::new, |code| [&code.to_be_bytes(), reason.as_bytes()].concat());
        self.control(Opcode::Close, &payload);
    }

    fn gathered(&mut self) -> &mut Vec<u8> {
        self.is_unflushed = true;
        if !self.long.is_empty() {
            return &mut self.behind;
        }
        if self.gathered.capacity() == 0 {
            self.gathered = SCRATCH.take();
        }
        &mut self.gathered
    }

    /// Writes everything.
    ///
    /// # Errors
    /// When the connection is lost.
    pub(super) fn poll_flush(&mut self, io: &mut BoxIo, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_unflushed {
            return Poll::Ready(Ok(()));
        }
        let outcome = self.poll_write(io, context);
        if outcome.is_pending() {
            self.let_go_of_the_scratch();
        } else {
            self.is_unflushed = false;
            let mut gathered = std::mem::take(&mut self.gathered);
            gathered.clear();
            if gathered.capacity() <= 4 * GATHER {
                SCRATCH.set(gathered);
            }
            self.at = 0;
        }
        outcome
    }

    fn poll_write(&mut self, io: &mut BoxIo, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let (gathered, long) = (&self.gathered[self.at..], &self.long[self.long_at..]);
            let io = Pin::new(&mut *io);
            let count = ready!(if long.is_empty() {
                io.poll_write(context, gathered)
            } else if gathered.is_empty() {
                io.poll_write(context, long)
            } else {
                io.poll_write_vectored(context, &[IoSlice::new(gathered), IoSlice::new(long)])
            })?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_gathered = count.min(gathered.len());
            self.at += of_gathered;
            self.long_at += count - of_gathered;
            if self.long_at == self.long.len() {
                (self.long, self.long_at) = (Bytes::new(), 0);
            }
            if self.long.is_empty() && self.at == self.gathered.len() && !self.behind.is_empty() {
                self.gathered = std::mem::take(&mut self.behind);
                self.at = 0;
            }
            if !self.receipts.is_empty() {
                self.tell(count);
            }
        }
        // A simulated stream may hold bytes back.
        Pin::new(io).poll_flush(context)
    }

    /// Moves the unwritten bytes to a buffer of their size, and returns the large buffer to the
    /// worker. The written bytes before them are dropped too, because a client that is always a
    /// little behind never empties the buffer.
    fn let_go_of_the_scratch(&mut self) {
        let rest = &self.gathered[self.at..];
        if self.gathered.capacity() > 2 * rest.len() + 64 {
            let rest = rest.to_vec();
            let mut scratch = std::mem::replace(&mut self.gathered, rest);
            self.at = 0;
            scratch.clear();
            if scratch.capacity() <= 4 * GATHER {
                SCRATCH.set(scratch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        task::Waker,
    };

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_buffer_does_not_grow_for_a_client_always_behind() {
        let (near, mut far) = duplex(1000);
        let (mut io, mut writer): (BoxIo, _) = (Box::new(near), Writer::default());
        let mut context = Context::from_waker(Waker::noop());
        let (mut sent, mut taken, mut space) = (0, Vec::new(), [0; 700]);
        for round in 0..2000 {
            while writer.has_room() {
                writer.text(vec![b'a' + (sent % 26) as u8; 98].into());
                sent += 1;
            }
            assert!(writer.poll_flush(&mut io, &mut context).is_pending());
            assert!(writer.gathered.capacity() <= 4 * GATHER, "{} in round {round}", writer.gathered.capacity());
            let count = far.read(&mut space).await.unwrap();
            taken.extend_from_slice(&space[..count]);
        }
        for (n, frame) in taken.chunks_exact(100).enumerate() {
            assert_eq!((frame[1], frame[2], frame[99]), (98, b'a' + (n % 26) as u8, b'a' + (n % 26) as u8), "{n}");
        }
    }

    /// A stream that takes all bytes, and holds them back until the second flush.
    #[derive(Default)]
    struct Keeps(Arc<Mutex<usize>>);

    impl tokio::io::AsyncRead for Keeps {
        fn poll_read(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
            _into: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl tokio::io::AsyncWrite for Keeps {
        fn poll_write(self: Pin<&mut Self>, _context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(from.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            let mut flushes = self.0.lock().unwrap();
            *flushes += 1;
            if *flushes < 2 { Poll::Pending } else { Poll::Ready(Ok(())) }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl crate::net::Io for Keeps {}

    #[test]
    fn a_stream_that_keeps_bytes_back_is_flushed_until_it_has_none() {
        let flushes = Arc::new(Mutex::new(0));
        let (mut io, mut writer): (BoxIo, _) = (Box::new(Keeps(flushes.clone())), Writer::default());
        let mut context = Context::from_waker(Waker::noop());
        // Long enough for its buffer to be left to others.
        writer.text(vec![b'x'; 1000].into());
        for count in [1, 2, 2] {
            assert_eq!(writer.poll_flush(&mut io, &mut context).is_ready(), count == 2);
            assert_eq!(*flushes.lock().unwrap(), count);
        }
    }

    #[tokio::test]
    async fn receipts_are_told_when_their_message_is_written() {
        let (near, mut far) = duplex(1000);
        let (mut io, mut writer): (BoxIo, _) = (Box::new(near), Writer::default());
        let mut context = Context::from_waker(Waker::noop());
        let told = Arc::new(Mutex::new(Vec::new()));
        let receipt = |n: usize| {
            let told = told.clone();
            Some(Box::new(Receipt::new(move |has_left| told.lock().unwrap().push((n, has_left)))))
        };
        for n in 0..4 {
            // The last one is long, and a pong is put behind it.
            writer.put(Outbound::Answer(vec![b'x'; if n < 3 { 898 } else { 2 * FLATTEN }].into(), receipt(n)));
        }
        writer.control(Opcode::Pong, b"");
        let mut space = vec![0; 50_000];
        let mut taken = 0;
        let mut seen = Vec::new();
        while writer.poll_flush(&mut io, &mut context).is_pending() {
            seen.push((told.lock().unwrap().len(), taken));
            taken += far.read(&mut space[..500]).await.unwrap();
        }
        // A message of 898 bytes takes 902; the pipe holds 1000 bytes that are not read yet.
        for (count, taken) in seen {
            assert_eq!(count, ((taken + 1000) / 902).min(3 + usize::from(taken + 1000 >= 3 * 902 + 10 + 2 * FLATTEN)));
        }
        assert_eq!(*told.lock().unwrap(), [(0, true), (1, true), (2, true), (3, true)]);
        writer.put(Outbound::Answer(vec![b'x'; 2000].into(), receipt(4)));
        assert!(writer.poll_flush(&mut io, &mut context).is_pending());
        drop(writer);
        assert_eq!(told.lock().unwrap().last(), Some(&(4, false)));
    }
}
