//! Puts messages for a client into frames and writes them. A connection with nothing to say holds no buffer.

use std::{
    cell::Cell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite as _;

use super::frame::{Opcode, put_head};
use crate::net::BoxIo;

/// Up to this size a message is copied behind its head, for one plain write is cheaper than a vectored one.
const FLATTEN: usize = 16 * 1024;
/// Messages that are ready are gathered into one write up to this size.
const GATHER: usize = 16 * 1024;

thread_local! {
    /// What a worker's connections gather their messages in. Only one that cannot write keeps it.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Writes to one client.
#[derive(Default)]
pub(super) struct Writer {
    /// Frames, and where in them the next write begins.
    gathered: Vec<u8>,
    at: usize,
    /// A long payload that comes behind them.
    long: Bytes,
    /// Frames that come behind that.
    behind: Vec<u8>,
}

impl Writer {
    /// Whether another message may be put.
    pub(super) fn has_room(&self) -> bool {
        self.long.is_empty() && self.gathered.len() - self.at < GATHER
    }

    /// Whether all is written.
    fn is_empty(&self) -> bool {
        self.long.is_empty() && self.at == self.gathered.len() && self.behind.is_empty()
    }

    /// Bytes that are still to be written.
    pub(super) fn waiting(&self) -> usize {
        self.gathered.len() - self.at + self.long.len() + self.behind.len()
    }

    /// A text message. There must be room for it.
    pub(super) fn text(&mut self, text: Bytes) {
        let gathered = self.gathered();
        put_head(gathered, Opcode::Text, text.len());
        if text.len() <= FLATTEN {
            gathered.extend_from_slice(&text);
        } else {
            self.long = text;
        }
    }

    /// A text message made of parts.
    pub(super) fn parts(&mut self, parts: &[&[u8]]) {
        let gathered = self.gathered();
        put_head(gathered, Opcode::Text, parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| gathered.extend_from_slice(part));
    }

    /// A ping or a pong.
    pub(super) fn control(&mut self, opcode: Opcode, payload: &[u8]) {
        let gathered = self.gathered();
        put_head(gathered, opcode, payload.len());
        gathered.extend_from_slice(payload);
    }

    /// The close frame, after which there is nothing to be put. With no code, it answers one that had none.
    pub(super) fn close(&mut self, code: Option<u16>, reason: &str) {
        let payload = code.map_or_else(Vec::new, |code| [&code.to_be_bytes(), reason.as_bytes()].concat());
        self.control(Opcode::Close, &payload);
    }

    fn gathered(&mut self) -> &mut Vec<u8> {
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
        if self.gathered.is_empty() && self.long.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let outcome = self.poll_write(io, context);
        if outcome.is_pending() {
            self.let_go_of_the_scratch();
        } else {
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
            let gathered = &self.gathered[self.at..];
            let io = Pin::new(&mut *io);
            let count = ready!(if self.long.is_empty() {
                io.poll_write(context, gathered)
            } else if gathered.is_empty() {
                io.poll_write(context, &self.long)
            } else {
                io.poll_write_vectored(context, &[IoSlice::new(gathered), IoSlice::new(&self.long)])
            })?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_gathered = count.min(gathered.len());
            self.at += of_gathered;
            self.long.advance(count - of_gathered);
            if self.long.is_empty() && self.at == self.gathered.len() && !self.behind.is_empty() {
                self.gathered = std::mem::take(&mut self.behind);
                self.at = 0;
            }
        }
        // A simulated stream may keep something back.
        Pin::new(io).poll_flush(context)
    }

    /// Keeps what is not written in a buffer of its size, and leaves the large one to others. What is written goes too: to a client
    /// that is always a little behind, there is no moment at which everything is.
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
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_client_that_is_always_a_little_behind_does_not_make_the_buffer_grow() {
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
}
