//! JSON values one after another on a stream, as nodes speak on their IPC sockets: each message is
//! an object or an array, and white space between two is not needed.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::excerpt::Excerpt;
use crate::domain::json::{Passed, Walk};

/// How much is read at once, at least.
const READ: usize = 16 << 10;
/// A value up to this size is copied, so that it does not hold the memory of others that came with
/// it.
const COPIED: usize = 8 << 10;
/// Bytes that wait to be written beyond which no more messages are taken.
const MAX_WAITING: usize = 64 << 10;
/// A buffer that was larger than this is given back when it is empty.
const KEPT_BUFFER: usize = 64 << 10;

/// Why no further value can be read.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The stream is lost.
    #[error("the connection was lost: {0}")]
    Lost(#[from] io::Error),
    /// The peer has ended the stream.
    #[error("the connection ended")]
    Ended,
    /// Bytes that no object or array has.
    #[error("the node sent what is no JSON")]
    Garbage,
}

/// A value that has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Value {
    /// All of its bytes.
    Whole(Bytes),
    /// The beginning and the end of a value that is too long to be kept.
    TooLong(Bytes),
}

/// Values from and to the peer of a stream.
pub struct Values<S> {
    io: S,
    /// The longest value that is kept.
    longest: usize,
    /// Bytes that were read and belong to no value yet.
    read: BytesMut,
    /// How many of these the walk has passed.
    passed: usize,
    walk: Walk,
    /// The value that comes, once too long to be kept: its bytes so far.
    passing: Option<Excerpt>,
    /// Bytes that wait to be written.
    unwritten: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Values<S> {
    /// Over `io`, with values of `longest` bytes at most. Of a longer one both ends are kept.
    pub fn new(io: S, longest: usize) -> Self {
        let (read, unwritten) = (BytesMut::new(), BytesMut::new());
        Self { io, longest, read, passed: 0, walk: Walk::default(), passing: None, unwritten }
    }

    /// The stream.
    pub fn io(&self) -> &S {
        &self.io
    }

    /// Takes a message, which is JSON, to be written by [`Values::poll_flush`] as one line.
    pub fn send(&mut self, text: &[u8]) {
        let start = self.unwritten.len();
        self.unwritten.extend_from_slice(text);
        // Some nodes read by lines. In JSON an end of a line is white space like any other.
        for byte in self.unwritten[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        self.unwritten.extend_from_slice(b"\n");
    }

    /// Whether more messages may be taken before those that wait are written.
    pub fn has_room(&self) -> bool {
        self.unwritten.len() < MAX_WAITING
    }

    /// Ready when everything is written.
    ///
    /// # Errors
    /// When the stream is lost.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unwritten.has_remaining() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.unwritten))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unwritten.advance(written);
        }
        if self.unwritten.capacity() > KEPT_BUFFER {
            self.unwritten = BytesMut::new();
        }
        Pin::new(&mut self.io).poll_flush(context)
    }

    /// Reads the next value, which is UTF-8, without the white space around.
    ///
    /// # Errors
    /// When there is none to come.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Value, Broken>> {
        loop {
            if self.passed == 0 && self.passing.is_none() {
                let space = self.read.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
                self.read.advance(space);
            }
            match self.walk.pass_value(&self.read[self.passed..]) {
                Passed::Ends(length) => return Poll::Ready(self.end(self.passed + length)),
                Passed::Wrong => return Poll::Ready(Err(Broken::Garbage)),
                Passed::GoesOn => self.passed = self.read.len(),
            }
            if self.passing.is_some() || self.read.len() > self.longest {
                self.drop_read(self.read.len())?;
                self.passed = 0;
            }
            if ready!(self.poll_read(context))? == 0 {
                return Poll::Ready(Err(Broken::Ended));
            }
        }
    }

    /// The value that ends after the first `length` bytes that were read.
    fn end(&mut self, length: usize) -> Result<Value, Broken> {
        if self.passing.is_none() && length <= self.longest {
            return Ok(Value::Whole(self.take(length)));
        }
        self.drop_read(length)?;
        (self.passed, self.walk) = (0, Walk::default());
        Ok(Value::TooLong(self.passing.take().unwrap_or_default().text()))
    }

    /// Drops the first `length` bytes that were read, which are of a value that is too long.
    fn drop_read(&mut self, length: usize) -> io::Result<()> {
        self.passing.get_or_insert_default().push(&self.read[..length])?;
        self.read.advance(length);
        self.shrink();
        Ok(())
    }

    /// The first `length` bytes that were read, which are a value.
    fn take(&mut self, length: usize) -> Bytes {
        (self.passed, self.walk) = (0, Walk::default());
        if length > COPIED {
            return self.read.split_to(length).freeze();
        }
        let value = Bytes::copy_from_slice(&self.read[..length]);
        self.read.advance(length);
        self.shrink();
        value
    }

    /// Gives a long buffer back when the buffer is empty.
    fn shrink(&mut self) {
        if self.read.is_empty() && self.read.capacity() > KEPT_BUFFER {
            self.read = BytesMut::new();
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // A long value is read in longer pieces, since the room doubles.
        self.read.reserve(READ);
        // The future keeps nothing back when it is dropped.
        pin!(self.io.read_buf(&mut self.read)).poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    /// The values in `text`, which comes in pieces of `step` bytes, and why there are no more.
    async fn read(text: &[u8], step: usize, longest: usize) -> (Vec<Vec<u8>>, String) {
        let (near, mut far) = duplex(64);
        let mut values = Values::new(near, longest);
        let text = text.to_vec();
        let writes = tokio::spawn(async move {
            for piece in text.chunks(step) {
                // The reader may have had enough.
                let _ = far.write_all(piece).await;
                tokio::task::yield_now().await;
            }
        });
        let mut all = Vec::new();
        let why = loop {
            match poll_fn(|context| values.poll_next(context)).await {
                Ok(Value::Whole(value)) => all.push(value.to_vec()),
                Ok(Value::TooLong(excerpt)) => all.push([b"too long: ", &excerpt[..]].concat()),
                Err(broken) => break broken.to_string(),
            }
        };
        drop(values);
        writes.await.unwrap();
        (all, why)
    }

    #[tokio::test]
    async fn values_are_told_apart_however_they_come() {
        let text = "{\"a\":\"}]\\\"\"}{\"b\":[{},[]]}\n \r\n[1,{\"é\":\"😀\"}]{}[]";
        let expected = ["{\"a\":\"}]\\\"\"}", "{\"b\":[{},[]]}", "[1,{\"é\":\"😀\"}]", "{}", "[]"];
        for step in 1..=text.len() {
            let (values, why) = read(text.as_bytes(), step, 1000).await;
            let values: Vec<&str> = values.iter().map(|value| std::str::from_utf8(value).unwrap()).collect();
            assert_eq!((&values[..], &*why), (&expected[..], "the connection ended"), "by {step}");
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_message_end_the_stream() {
        for (text, count, why) in [
            (&b"{} 17 {}"[..], 1, "the node sent what is no JSON"),
            (b"\"text\"", 0, "the node sent what is no JSON"),
            (b"{}}", 1, "the node sent what is no JSON"),
            (b"[1}", 0, "the node sent what is no JSON"),
            (b"{\"a\":\"\xff\"}", 0, "the node sent what is no JSON"),
            (b"HTTP/1.1 400 Bad Request", 0, "the node sent what is no JSON"),
            (b"{\"a\":", 0, "the connection ended"),
        ] {
            let (values, told) = read(text, 3, 1000).await;
            assert_eq!((values.len(), &*told), (count, why), "{}", String::from_utf8_lossy(text));
        }
    }

    #[tokio::test]
    async fn a_value_has_a_bound_and_white_space_is_not_kept() {
        let long = [b"{\"a\":\"", &[b'x'; 100_000][..], b"\"}"].concat();
        let (values, _) = read(&[&long[..], b"{}"].concat(), 50_000, 200_000).await;
        assert_eq!(values, [long.clone(), b"{}".to_vec()]);
        let (values, _) = read(&[&[b'\n'; 100_000][..], b"{}"].concat(), 10_000, 50_000).await;
        assert_eq!(values, [b"{}"]);
    }

    #[tokio::test]
    async fn a_value_that_is_too_long_ends_and_others_follow() {
        let value = |length: usize| [b"{\"a\":\"", &vec![b'x'; length - 8][..], b"\"}"].concat();
        for step in [1000, 100_000] {
            let text = [&value(50_000)[..], b" ", &value(50_001), b"\n{}", &value(200_000), b"[]"].concat();
            let (values, why) = read(&text, step, 50_000).await;
            let excerpt = |length: usize| {
                let value = value(length);
                [b"too long: ", &value[..4096], &value[length - 4096..]].concat()
            };
            let expected = [value(50_000), excerpt(50_001), b"{}".to_vec(), excerpt(200_000), b"[]".to_vec()];
            assert!(values == expected, "{step}");
            assert_eq!(why, "the connection ended");
        }
    }

    #[tokio::test]
    async fn a_message_is_one_line() {
        let (near, mut far) = duplex(100);
        let mut values = Values::new(near, 1000);
        values.send(b"{\"a\":\r\n\"\\n\"\n}");
        poll_fn(|context| values.poll_flush(context)).await.unwrap();
        drop(values);
        let mut line = String::new();
        far.read_to_string(&mut line).await.unwrap();
        assert_eq!(line, "{\"a\":  \"\\n\" }\n");
    }

    #[tokio::test]
    async fn messages_are_written_as_the_peer_takes_them() {
        let (near, mut far) = duplex(10);
        let mut values = Values::new(near, 1000);
        values.send(b"{\"a\":1}");
        assert!(values.has_room());
        values.send(&[b' '; MAX_WAITING]);
        assert!(!values.has_room());
        let reads = tokio::spawn(async move {
            let mut all = vec![0; MAX_WAITING + 9];
            far.read_exact(&mut all).await.unwrap();
            all
        });
        poll_fn(|context| values.poll_flush(context)).await.unwrap();
        assert!(values.has_room());
        assert_eq!(&reads.await.unwrap()[..9], b"{\"a\":1}\n ");
    }
}
