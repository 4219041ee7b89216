//! Takes a client's bytes apart into messages. An idle connection holds no buffer.

use std::{
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, ReadBuf};

use super::frame::{Closing, Head, NO_ROOM, Opcode, Outline, unmask};
use crate::{
    memory::{Account, Claim, SMALL, grown, make_room},
    net::BoxIo,
};

/// Bytes of one read while no frame has begun.
const READ_CHUNK: usize = 8 * 1024;
/// Memory that a message gets for its announced length; beyond that, as much again as has come.
const INITIAL_RESERVE: usize = READ_CHUNK;

/// A message or frame from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Text(Bytes),
    Binary(Bytes),
    Ping(Bytes),
    Pong,
    /// The payload of a close frame.
    Close(Bytes),
    /// The connection is at its end, without a close frame.
    Gone,
}

/// Why no more can be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The client breaks the rules.
    Violation(Closing),
    /// The connection is lost.
    Lost,
}

/// Reads one client's messages.
pub(super) struct Reader {
    /// Bytes that were read and not looked at.
    ahead: BytesMut,
    /// The frame whose payload is awaited.
    frame: Option<Head>,
    /// The frames of the message so far, with the present one as far as it has come.
    message: BytesMut,
    /// Where in `message` the present frame begins.
    start: usize,
    /// Whether the message is text, once its first frame has begun.
    is_text: Option<bool>,
    max_message: usize,
    /// The memory of the message while the message comes, and until it is served.
    claim: Option<Box<Claim>>,
    /// Whether bytes came since the last [`Reader::take_heard`].
    heard: bool,
    /// Whether nothing comes behind what was read ahead.
    is_over: bool,
    passing: Passing,
}

/// The frame that is passed over.
#[derive(Default)]
struct Passing {
    /// Bytes of the frame that have not come.
    left: u64,
    is_close: bool,
}

impl Reader {
    /// `read` came before the bytes that the stream still holds.
    pub(super) fn new(read: Bytes, max_message: usize) -> Self {
        Self {
            ahead: read.into(),
            frame: None,
            message: BytesMut::new(),
            start: 0,
            is_text: None,
            max_message,
            claim: None,
            heard: false,
            is_over: false,
            passing: Passing::default(),
        }
    }

    /// From now on messages may have `max_message` bytes, the present one too.
    pub(super) fn allow(&mut self, max_message: usize) {
        self.max_message = max_message;
    }

    /// Whether bytes came since the last call.
    pub(super) fn take_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// The next message or control frame. The bytes of a message count against `memory` as they
    /// come.
    ///
    /// # Errors
    /// After an error nothing more can be read.
    pub(super) fn poll_next(
        &mut self,
        io: &mut BoxIo,
        memory: &Arc<Account>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Incoming, Unread>> {
        loop {
            if !self.ahead.is_empty() {
                let mut ahead = std::mem::take(&mut self.ahead);
                let mut left = &ahead[..];
                let found = self.find(&mut left, memory);
                ahead.advance(ahead.len() - left.len());
                if !ahead.is_empty() {
                    self.ahead = ahead;
                }
                if let Some(message) = found.map_err(Unread::Violation)? {
                    return Poll::Ready(Ok(message));
                }
            }
            if self.is_over {
                return Poll::Ready(Ok(Incoming::Gone));
            }
            let missing = self.frame.filter(|head| !head.opcode.is_control()).map_or(0, |head| self.missing(head));
            let found = if missing > READ_CHUNK {
                // A long payload is read straight to its place in the message.
                let more = self.message.len().clamp(INITIAL_RESERVE, missing.max(INITIAL_RESERVE)).min(missing);
                self.make_room(more, true, memory).map_err(Unread::Violation)?;
                let mut into = (&mut self.message).limit(missing);
                let count = ready!(pin!(io.read_buf(&mut into)).poll(context)).map_err(|_| Unread::Lost)?;
                if count == 0 {
                    return Poll::Ready(Ok(Incoming::Gone));
                }
                self.complete()
            } else {
                let mut space = [const { MaybeUninit::uninit() }; READ_CHUNK];
                let mut glance = ReadBuf::uninit(&mut space);
                ready!(Pin::new(&mut *io).poll_read(context, &mut glance)).map_err(|_| Unread::Lost)?;
                let mut read = glance.filled();
                if read.is_empty() {
                    return Poll::Ready(Ok(Incoming::Gone));
                }
                if self.ahead.is_empty() {
                    let found = self.find(&mut read, memory);
                    self.ahead.extend_from_slice(read);
                    found.map_err(Unread::Violation)?
                } else {
                    self.ahead.extend_from_slice(read);
                    None
                }
            };
            self.heard = true;
            if let Some(message) = found {
                return Poll::Ready(Ok(message));
            }
        }
    }

    /// Whether the client has closed its side, as far as is known now. Bytes before that end are
    /// read ahead, up to a bound; beyond that, the stream is asked.
    pub(super) fn has_left(&mut self, io: &mut BoxIo, context: &mut Context<'_>) -> bool {
        while !self.is_over && self.ahead.len() < READ_CHUNK {
            let mut space = [const { MaybeUninit::uninit() }; READ_CHUNK];
            let mut glance = ReadBuf::uninit(&mut space);
            let Poll::Ready(read) = Pin::new(&mut *io).poll_read(context, &mut glance) else { return false };
            self.is_over = read.is_err() || glance.filled().is_empty();
            self.heard |= !self.is_over;
            self.ahead.extend_from_slice(glance.filled());
        }
        self.is_over || io.is_read_closed()
    }

    /// The memory of the message that was just returned, for the code that serves the message.
    pub(super) fn take_claim(&mut self) -> Option<Box<Claim>> {
        self.claim.take()
    }

    /// Whether a frame of a message has begun to come, and not the whole message.
    pub(super) fn is_in_message(&self) -> bool {
        self.is_text.is_some()
    }

    /// Bytes of a message that has begun and is not whole; `None` without such a message.
    pub(super) fn begun(&self) -> Option<usize> {
        let is_begun = self.is_text.is_some() || self.frame.is_some() || !self.ahead.is_empty();
        is_begun.then(|| self.message.len() + self.ahead.len())
    }

    /// Reads on to the client's close frame, and drops everything before; `false` when the
    /// connection ends without a close frame. Frames that break the rules are passed over too, if
    /// they have a length; otherwise the end of the connection is awaited.
    pub(super) fn poll_close(&mut self, io: &mut BoxIo, context: &mut Context<'_>) -> Poll<bool> {
        if let Some(head) = self.frame.take() {
            let left = if head.opcode.is_control() { head.length } else { self.missing(head) as u64 };
            self.passing = Passing { left, is_close: head.opcode == Opcode::Close };
        }
        self.message = BytesMut::new();
        self.claim = None;
        self.start = 0;
        while !self.pass() {
            let mut space = [const { MaybeUninit::uninit() }; READ_CHUNK];
            let mut glance = ReadBuf::uninit(&mut space);
            if ready!(Pin::new(&mut *io).poll_read(context, &mut glance)).is_err() || glance.filled().is_empty() {
                return Poll::Ready(false);
            }
            self.ahead.extend_from_slice(glance.filled());
        }
        Poll::Ready(true)
    }

    /// Passes over the frames that have come; returns whether the last one is a close frame.
    fn pass(&mut self) -> bool {
        loop {
            let count = self.passing.left.min(self.ahead.len() as u64);
            self.ahead.advance(count as usize);
            self.passing.left -= count;
            if self.passing.left > 0 {
                return false;
            }
            if self.passing.is_close {
                return true;
            }
            let Some(Outline { is_close, head, payload }) = Outline::read(&self.ahead) else { return false };
            self.ahead.advance(head);
            self.passing = Passing { left: payload, is_close };
        }
    }

    /// Bytes of the frame's payload that have not come.
    fn missing(&self, head: Head) -> usize {
        // A frame longer than a message may be was refused.
        head.length as usize - (self.message.len() - self.start)
    }

    /// Takes bytes off the front of `read` until they make a message, or more are needed.
    fn find(&mut self, read: &mut &[u8], memory: &Arc<Account>) -> Result<Option<Incoming>, Closing> {
        loop {
            let head = match self.frame {
                Some(head) => head,
                None => {
                    let Some((head, length)) = Head::read(read)? else { return Ok(None) };
                    self.admit(head, memory)?;
                    *read = &read[length..];
                    *self.frame.insert(head)
                }
            };
            let message = if head.opcode.is_control() {
                let Some(payload) = read.split_off(..head.length as usize) else { return Ok(None) };
                self.frame = None;
                Some(control(head, payload))
            } else {
                let count = self.missing(head).min(read.len());
                self.make_room(count, head.is_final, memory)?;
                let (payload, rest) = read.split_at(count);
                self.message.extend_from_slice(payload);
                *read = rest;
                if self.missing(head) > 0 {
                    return Ok(None);
                }
                self.complete()
            };
            if message.is_some() {
                return Ok(message);
            }
        }
    }

    /// Whether a frame with this head may come now.
    fn admit(&mut self, head: Head, memory: &Arc<Account>) -> Result<(), Closing> {
        if head.opcode.is_control() {
            return Ok(());
        }
        let wrong = |why| Err(Closing::new(Closing::PROTOCOL, why));
        match (head.opcode, self.is_text) {
            (Opcode::Continuation, None) => return wrong("nothing is to be continued"),
            (Opcode::Continuation, Some(_)) => {}
            (_, Some(_)) => return wrong("the message before was not whole"),
            (opcode, None) => self.is_text = Some(opcode == Opcode::Text),
        }
        if head.length > (self.max_message.saturating_sub(self.message.len())) as u64 {
            return Err(Closing::new(Closing::TOO_BIG, "the message is longer than ws.max_message"));
        }
        self.start = self.message.len();
        // Most messages are one frame, and need no more memory than this.
        self.make_room((head.length as usize).min(INITIAL_RESERVE), head.is_final, memory)
    }

    /// Makes room for `more` bytes of the message, of which this is the last frame or not.
    fn make_room(&mut self, more: usize, is_last: bool, memory: &Arc<Account>) -> Result<(), Closing> {
        let capacity = self.message.capacity();
        let mut needed = self.message.len() + more;
        if needed > capacity {
            if !is_last {
                // Many short frames may follow.
                needed = grown(capacity, needed, self.max_message);
            }
            if needed > SMALL {
                let full = |_| Closing::new(Closing::TRY_AGAIN, NO_ROOM);
                let claim = self.claim.get_or_insert_with(|| Box::new(memory.incoming()));
                claim.resize(needed).map_err(full)?;
            }
            make_room(&mut self.message, needed);
            if let Some(claim) = &mut self.claim {
                claim.set(self.message.capacity());
            }
        }
        Ok(())
    }

    /// Ends the frame, if its whole payload has come, and the message, if that frame was the last.
    fn complete(&mut self) -> Option<Incoming> {
        let head = self.frame.filter(|head| !head.opcode.is_control() && self.missing(*head) == 0)?;
        self.frame = None;
        unmask(&mut self.message[self.start..], head.mask);
        if !head.is_final {
            return None;
        }
        let message = std::mem::take(&mut self.message).freeze();
        self.start = 0;
        Some(if self.is_text.take()? { Incoming::Text(message) } else { Incoming::Binary(message) })
    }
}

fn control(head: Head, payload: &[u8]) -> Incoming {
    let mut payload = payload.to_vec();
    unmask(&mut payload, head.mask);
    match head.opcode {
        Opcode::Ping => Incoming::Ping(payload.into()),
        Opcode::Pong => Incoming::Pong,
        _ => Incoming::Close(payload.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use tokio::{
        io::AsyncWriteExt,
        task::yield_now,
        time::{sleep, timeout},
    };

    use super::*;
    use crate::{
        memory::Budget,
        net::{Dial, Endpoint, Listen, system::System},
    };

    #[tokio::test]
    async fn a_message_of_many_frames_takes_no_memory_beyond_the_limit() {
        let budget = Budget::new(1 << 20);
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut io, memory): (BoxIo, _) = (Box::new(near), Account::open(&budget));
        let mut reader = Reader::new(Bytes::new(), 16 << 20);
        let mut opcode = 1;
        let mut frame = vec![0; 8 + 4000];
        loop {
            frame[..4].copy_from_slice(&[opcode, 0x80 | 126, 15, 160]);
            opcode = 0;
            far.write_all(&frame).await.unwrap();
            let read = poll_fn(|context| Poll::Ready(reader.poll_next(&mut io, &memory, context))).await;
            assert!(budget.held() <= 3 << 18, "{}", budget.held());
            if let Poll::Ready(read) = read {
                assert!(matches!(read, Err(Unread::Violation(_))), "{read:?}");
                break;
            }
        }
    }

    #[tokio::test]
    async fn an_end_is_seen_behind_more_bytes_than_are_read_ahead() {
        let mut listener = System.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let to = Endpoint::Tcp { host: "127.0.0.1".into(), port: listener.local_addr().port() };
        let mut client = System.dial(&to).await.unwrap();
        let mut io = listener.accept().await.unwrap().0.open().unwrap();
        let mut reader = Reader::new(Bytes::new(), 1 << 20);
        let mut has_left = async || poll_fn(|context| Poll::Ready(reader.has_left(&mut io, context))).await;
        client.write_all(&[0; 3 * READ_CHUNK]).await.unwrap();
        for _ in 0..10 {
            yield_now().await;
            assert!(!has_left().await);
        }
        drop(client);
        // The reactor hears of the end a little later.
        let seen = timeout(Duration::from_secs(20), async {
            while !has_left().await {
                sleep(Duration::from_millis(1)).await;
            }
        });
        seen.await.expect("the end is not seen");
        assert!(reader.ahead.len() < 3 * READ_CHUNK, "nor read");
    }
}
