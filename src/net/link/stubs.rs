//! A WebSocket's bytes without the messages that are too long to be kept.
//!
//! The rule: **an answer that is too long is the end of its own call and of no other.** The reason:
//! a link carries the calls of many clients, and one of them decides how long its answer is. The
//! library ends the connection at a message over its limit, and all other calls would be lost. An
//! example: a frame of 70 MiB comes. The library gets an empty message in its place, a stub, and
//! the 70 MiB are read and dropped but for their beginning and their end, which tell the call.

use std::{
    collections::VecDeque,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::excerpt::Excerpt;

/// The longest header of a frame.
const MAX_HEADER: usize = 14;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
/// The least code of a control frame. These may come between the frames of a message.
const CONTROL: u8 = 8;
/// The bit of a message's last frame.
const LAST: u8 = 0x80;

/// The client's side of a WebSocket, from the first byte of the handshake on.
pub(super) struct Stubs<S> {
    io: S,
    /// The longest message that is given on.
    longest: u64,
    /// The end of the handshake's head, until that has come.
    handshake: Option<BlankLine>,
    /// The first bytes of a header whose others have not come.
    header: Header,
    /// Bytes to be given on before any others.
    ready: Header,
    frame: Frame,
    /// The length of the message so far.
    length: u64,
    /// Whether the message has a stub in its place.
    is_cut: bool,
    /// Of a message that is cut, or may be.
    excerpt: Excerpt,
    /// Messages that were begun to be given on, stubs among them.
    given: u64,
    /// Messages that the library has returned.
    returned: u64,
    /// Which of the messages that were given on are stubs, and were not returned yet.
    stubs: VecDeque<u64>,
    /// The excerpts of messages that were too long.
    cut: VecDeque<Bytes>,
}

/// The frame that comes.
#[derive(Default)]
struct Frame {
    /// Bytes that are still to come.
    left: u64,
    is_control: bool,
    is_last: bool,
    /// Whether the frame is a whole message.
    is_alone: bool,
}

/// Some bytes of a header.
#[derive(Default)]
struct Header {
    bytes: [u8; MAX_HEADER],
    length: usize,
}

impl Header {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn extend(&mut self, more: &[u8]) {
        self.bytes[self.length..][..more.len()].copy_from_slice(more);
        self.length += more.len();
    }

    /// Takes the first `count` bytes away.
    fn advance(&mut self, count: usize) {
        self.bytes.copy_within(count..self.length, 0);
        self.length -= count;
    }
}

/// The length of the header that begins with these bytes, as far as these tell.
fn header_length(start: &[u8]) -> usize {
    let Some(second) = start.get(1) else { return 2 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + extended + if second & 0x80 == 0 { 0 } else { 4 }
}

/// The length of the payload behind this header.
fn payload_length(header: &[u8]) -> u64 {
    match (header[1] & 0x7f, header) {
        (126, [_, _, a, b, ..]) => u16::from_be_bytes([*a, *b]).into(),
        (127, [_, _, a, b, c, d, e, f, g, h, ..]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
        (short, _) => short.into(),
    }
}

/// Finds the blank line that ends a head.
#[derive(Default)]
struct BlankLine {
    /// Whether nothing has come since the last end of a line.
    is_blank: bool,
}

impl BlankLine {
    /// How many of these bytes belong to the head, if its end is among these.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        let ends = |byte: &u8| match byte {
            b'\n' => std::mem::replace(&mut self.is_blank, true),
            b'\r' => false,
            _ => {
                self.is_blank = false;
                false
            }
        };
        bytes.iter().position(ends).map(|end| end + 1)
    }
}

impl<S> Stubs<S> {
    /// Over `io`, with messages of `longest` bytes at most.
    pub(super) fn new(io: S, longest: usize) -> Self {
        Self {
            io,
            longest: longest as u64,
            handshake: Some(BlankLine::default()),
            header: Header::default(),
            ready: Header::default(),
            frame: Frame::default(),
            length: 0,
            is_cut: false,
            excerpt: Excerpt::default(),
            given: 0,
            returned: 0,
            stubs: VecDeque::new(),
            cut: VecDeque::new(),
        }
    }

    /// The stream beneath.
    pub(super) fn get_ref(&self) -> &S {
        &self.io
    }

    /// The library has returned a text or bytes: whether this is a stub.
    pub(super) fn is_stub(&mut self) -> bool {
        self.returned += 1;
        self.stubs.pop_front_if(|stub| *stub == self.returned).is_some()
    }

    /// The beginning and the end of a message that was too long, once for each, when it has passed.
    pub(super) fn take_cut(&mut self) -> Option<Bytes> {
        self.cut.pop_front()
    }

    /// Takes bytes that have come. Returns how many of them are given on: those are put in front.
    fn take(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut from, mut to) = (0, 0);
        while from < bytes.len() {
            let rest = &mut bytes[from..];
            let (passed, given) = if let Some(head) = &mut self.handshake {
                let end = head.end(rest);
                if end.is_some() {
                    self.handshake = None;
                }
                let passed = end.unwrap_or(rest.len());
                (passed, passed)
            } else if self.frame.left > 0 {
                let passed = usize::try_from(self.frame.left).map_or(rest.len(), |left| left.min(rest.len()));
                (passed, self.pass(&rest[..passed])?)
            } else {
                let length = header_length(rest);
                if length > rest.len() {
                    self.header.extend(rest);
                    (rest.len(), 0)
                } else {
                    (length, self.begin(&mut rest[..length]))
                }
            };
            bytes.copy_within(from..from + given, to);
            (from, to) = (from + passed, to + given);
        }
        Ok(to)
    }

    /// Takes bytes of a frame's payload. Returns how many of them are given on.
    fn pass(&mut self, payload: &[u8]) -> io::Result<usize> {
        self.frame.left -= payload.len() as u64;
        let is_dropped = self.is_cut && !self.frame.is_control;
        if is_dropped || !(self.frame.is_control || self.frame.is_alone) {
            self.excerpt.push(payload)?;
        }
        self.end_frame();
        Ok(if is_dropped { 0 } else { payload.len() })
    }

    /// Begins a frame with this header. Returns how many of the header's bytes, which may be
    /// changed, are given on.
    fn begin(&mut self, header: &mut [u8]) -> usize {
        let (code, is_last) = (header[0] & 0x0f, header[0] & LAST != 0);
        let left = payload_length(header);
        let is_first = code != CONTINUATION;
        self.frame = Frame { left, is_control: code >= CONTROL, is_last, is_alone: is_first && is_last };
        let given = if self.frame.is_control { header.len() } else { self.begin_data(header, code) };
        self.end_frame();
        given
    }

    fn begin_data(&mut self, header: &mut [u8], code: u8) -> usize {
        let Frame { left, is_last, .. } = self.frame;
        if code != CONTINUATION {
            (self.length, self.is_cut, self.excerpt) = (0, false, Excerpt::default());
        }
        self.length = self.length.saturating_add(left);
        if self.is_cut {
            return 0;
        }
        if self.length > self.longest {
            self.is_cut = true;
            self.given += 1;
            self.stubs.push_back(self.given);
            // An empty last frame, which ends the frames that were given on before.
            let code = if code == CONTINUATION { CONTINUATION } else { BINARY };
            header[..2].copy_from_slice(&[LAST | code, 0]);
            return 2;
        }
        if code == TEXT && !is_last {
            // The library would look at the text of a stub, which may end within a character.
            header[0] = (header[0] & 0xf0) | BINARY;
        }
        self.given += u64::from(is_last);
        header.len()
    }

    fn end_frame(&mut self) {
        let Frame { left, is_control, is_last, .. } = self.frame;
        if left == 0 && is_last && self.is_cut && !is_control {
            self.is_cut = false;
            self.cut.push_back(std::mem::take(&mut self.excerpt).text());
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stubs<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let own = &mut *self;
        while into.remaining() > 0 {
            let given = own.ready.length.min(into.remaining());
            if given > 0 {
                into.put_slice(&own.ready.bytes()[..given]);
                own.ready.advance(given);
                return Poll::Ready(Ok(()));
            }
            if own.header.length > 0 {
                let mut bytes = [0; MAX_HEADER];
                let missing = header_length(own.header.bytes()) - own.header.length;
                let mut more = ReadBuf::new(&mut bytes[..missing]);
                ready!(pin!(&mut own.io).poll_read(context, &mut more))?;
                if more.filled().is_empty() {
                    return Poll::Ready(Ok(()));
                }
                own.header.extend(more.filled());
                if own.header.length == header_length(own.header.bytes()) {
                    own.ready = std::mem::take(&mut own.header);
                    let mut header = own.ready.bytes;
                    own.ready.length = own.begin(&mut header[..own.ready.length]);
                    own.ready.bytes = header;
                }
                continue;
            }
            let start = into.filled().len();
            ready!(pin!(&mut own.io).poll_read(context, into))?;
            if into.filled().len() == start {
                return Poll::Ready(Ok(()));
            }
            let given = own.take(&mut into.filled_mut()[start..])?;
            into.set_filled(start + given);
            if given > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stubs<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        pin!(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(length as u8),
            length @ 126..65_536 => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        [frame, payload.to_vec()].concat()
    }

    /// The part of `bytes` that is given on, where `bytes` come in pieces of `step` and are read in
    /// pieces of `room`, and the excerpts.
    async fn given(bytes: &[u8], step: usize, room: usize) -> (Vec<u8>, Vec<Bytes>) {
        let (near, mut far) = duplex(step);
        let mut stubs = Stubs::new(near, 200);
        let bytes = bytes.to_vec();
        let writes = tokio::spawn(async move { far.write_all(&bytes).await.unwrap() });
        let mut all = Vec::new();
        let mut piece = vec![0; room];
        loop {
            match stubs.read(&mut piece).await.unwrap() {
                0 => break,
                length => all.extend_from_slice(&piece[..length]),
            }
        }
        writes.await.unwrap();
        (all, std::iter::from_fn(|| stubs.take_cut()).collect())
    }

    #[tokio::test]
    async fn a_stub_stands_for_each_message_that_is_too_long() {
        let (short, whole) = (frame(0x81, b"{}"), frame(0x81, &[b'x'; 200]));
        let (long, ping) = (frame(0x81, &[b'y'; 201]), frame(0x89, b"?"));
        let parts = |last: usize| {
            let parts = [frame(0x01, &[b'a'; 150]), ping.clone(), frame(0x00, &[b'b'; 50]), ping.clone()];
            [parts.concat(), frame(0x80, &vec![b'c'; last])].concat()
        };
        let began = [frame(0x02, &[b'a'; 150]), ping.clone(), frame(0x00, &[b'b'; 50]), ping.clone()].concat();
        let endless = [frame(0x01, &[b'e'; 70_000]), ping.clone(), frame(0x80, b"")].concat();
        let sent = [HEAD, &short, &whole, &long, &short, &parts(0), &parts(1), &endless, &ping, &short].concat();
        let stub = [0x82, 0x00];
        let expected = [
            HEAD,
            &short,
            &whole,
            &stub,
            &short,
            &began,
            &frame(0x80, b""),
            &began,
            &[0x80, 0x00],
            &stub,
            &ping,
            &ping,
            &short,
        ];
        let expected = expected.concat();
        for (step, room) in [(1, 1), (1, 100_000), (3, 7), (64, 64), (1000, 13), (100_000, 100_000)] {
            let (all, excerpts) = given(&sent, step, room).await;
            assert!(all == expected, "by {step} and {room}: {} of {} bytes", all.len(), expected.len());
            let parts = [&[b'a'; 150][..], &[b'b'; 50], b"c"].concat();
            assert_eq!(excerpts.len(), 3);
            assert!(excerpts[0] == [b'y'; 201][..] && excerpts[1] == parts && excerpts[2] == [b'e'; 8192][..]);
        }
    }

    #[test]
    fn a_stub_is_told_from_the_messages_around() {
        let mut stubs = Stubs::new((), 10);
        stubs.handshake = None;
        let mut bytes = [frame(0x81, b"{}"), frame(0x81, &[b' '; 11]), frame(0x01, b"["), frame(0x80, b"]")].concat();
        let given = stubs.take(&mut bytes).unwrap();
        assert_eq!(&bytes[..given], [&frame(0x81, b"{}")[..], &[0x82, 0], &[0x02, 1, b'['], &[0x80, 1, b']']].concat());
        assert_eq!([stubs.is_stub(), stubs.is_stub(), stubs.is_stub()], [false, true, false]);
    }
}
