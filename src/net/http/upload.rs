//! A request's body on its way to a node, piece by piece as the client sends it: no piece is taken
//! before the last has left.

use std::{
    future::Future,
    io::{self, IoSlice, Write as _},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use tokio::{
    io::AsyncWrite,
    time::{Sleep, sleep},
};

/// The pieces of a body. An error ends the exchange: the node never takes half a body for a whole
/// one.
pub type Pieces<'a> = Pin<&'a mut (dyn Stream<Item = io::Result<Bytes>> + Send)>;

/// How long a node that is sent a body is waited for. How long the client may take is for the
/// pieces themselves to say.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For how long the node may take none of the body.
    pub idle: Duration,
    /// From the body's end to the head of the response.
    pub head: Duration,
}

/// A request that is being sent.
pub(super) struct Outgoing<'a> {
    /// The head, or the framing of the piece; the first `at` bytes have left.
    front: Vec<u8>,
    at: usize,
    piece: Bytes,
    pieces: Pieces<'a>,
    chunked: bool,
    begun: bool,
    over: bool,
    timeouts: Timeouts,
    waits: Waits,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The event that the request waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// The next piece.
    Client,
    /// For the node, to take bytes that are ready.
    Node,
    /// The response.
    Head,
}

impl<'a> Outgoing<'a> {
    /// `front` is the request's head.
    pub(super) fn new(front: Vec<u8>, pieces: Pieces<'a>, chunked: bool, timeouts: Timeouts) -> Self {
        let (piece, waits, timer) = (Bytes::new(), Waits::Node, None);
        Self { front, at: 0, piece, pieces, chunked, begun: false, over: false, timeouts, waits, timer }
    }

    /// Writes as much as the node takes. Ready when the request has left whole, or cannot any more.
    pub(super) fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        io: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        loop {
            while self.at < self.front.len() || !self.piece.is_empty() {
                let slices = [IoSlice::new(&self.front[self.at..]), IoSlice::new(&self.piece)];
                let wrote = match (self.at < self.front.len(), self.piece.is_empty()) {
                    (true, false) => Pin::new(&mut *io).poll_write_vectored(context, &slices),
                    (true, true) => Pin::new(&mut *io).poll_write(context, &slices[0]),
                    (false, _) => Pin::new(&mut *io).poll_write(context, &slices[1]),
                };
                let Poll::Ready(count) = wrote else {
                    self.wait_for(Waits::Node);
                    return Poll::Pending;
                };
                let count = count?;
                if count == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.timer = None;
                let of_front = count.min(self.front.len() - self.at);
                self.at += of_front;
                self.piece.advance(count - of_front);
            }
            if self.over {
                self.wait_for(Waits::Head);
                return Pin::new(io).poll_flush(context);
            }
            match self.pieces.as_mut().poll_next(context) {
                Poll::Pending => {
                    self.wait_for(Waits::Client);
                    let _ = Pin::new(io).poll_flush(context)?;
                    return Poll::Pending;
                }
                Poll::Ready(Some(piece)) => self.frame(piece?),
                Poll::Ready(None) => self.finish(),
            }
        }
    }

    fn frame(&mut self, piece: Bytes) {
        self.front.clear();
        self.at = 0;
        // An empty chunk would end the body.
        if self.chunked && !piece.is_empty() {
            let before = if self.begun { "\r\n" } else { "" };
            self.begun = true;
            // Writing to memory does not fail.
            let _ = write!(self.front, "{before}{:x}\r\n", piece.len());
        }
        self.piece = piece;
    }

    fn finish(&mut self) {
        self.front.clear();
        self.at = 0;
        self.over = true;
        if self.chunked {
            self.front.extend_from_slice(if self.begun { b"\r\n0\r\n\r\n" } else { b"0\r\n\r\n" });
        }
    }

    fn wait_for(&mut self, what: Waits) {
        if self.waits != what {
            self.waits = what;
            self.timer = None;
        }
    }

    /// Ready when the node has been waited for long enough.
    pub(super) fn poll_overdue(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let timeouts = match self.waits {
            Waits::Client => return Poll::Pending,
            Waits::Node => self.timeouts.idle,
            Waits::Head => self.timeouts.head,
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeouts)));
        ready!(timer.as_mut().poll(context));
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures_util::stream;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;

    const TIMEOUT: Timeouts = Timeouts { idle: Duration::from_secs(30), head: Duration::from_secs(600) };

    async fn sent(pieces: &[&'static str], chunked: bool) -> String {
        let (mut ours, mut theirs) = duplex(7);
        let pieces = stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))));
        let mut pieces = std::pin::pin!(pieces);
        let write = async move {
            let mut outgoing = Outgoing::new(b"head\r\n\r\n".to_vec(), pieces.as_mut(), chunked, TIMEOUT);
            poll_fn(|context| outgoing.poll_write(context, &mut ours)).await.unwrap();
        };
        let mut text = String::new();
        let (_, read) = tokio::join!(write, theirs.read_to_string(&mut text));
        read.unwrap();
        text
    }

    #[tokio::test]
    async fn pieces_leave_as_they_are_or_in_chunks() {
        assert_eq!(sent(&["hello", "", "world, hello"], false).await, "head\r\n\r\nhelloworld, hello");
        assert_eq!(
            sent(&["hello", "", "world, hello"], true).await,
            "head\r\n\r\n5\r\nhello\r\nc\r\nworld, hello\r\n0\r\n\r\n"
        );
        assert_eq!(sent(&[], true).await, "head\r\n\r\n0\r\n\r\n");
        assert_eq!(sent(&[], false).await, "head\r\n\r\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_has_a_time_to_take_the_body_and_a_longer_to_answer() {
        let started = tokio::time::Instant::now();
        let (mut ours, _theirs) = duplex(7);
        let overdue = async |outgoing: &mut Outgoing<'_>, io: &mut tokio::io::DuplexStream| {
            poll_fn(|context| {
                let _ = outgoing.poll_write(context, io);
                outgoing.poll_overdue(context)
            })
            .await;
        };
        // The node takes nothing.
        let mut pieces = std::pin::pin!(stream::iter([Ok(Bytes::from_static(b"more than seven"))]));
        let mut outgoing = Outgoing::new(Vec::new(), pieces.as_mut(), false, TIMEOUT);
        overdue(&mut outgoing, &mut ours).await;
        assert_eq!(started.elapsed(), Duration::from_secs(30));
        // The node has everything.
        let (mut ours, _theirs) = duplex(70);
        let mut pieces = std::pin::pin!(stream::iter([Ok(Bytes::from_static(b"more than seven"))]));
        let mut outgoing = Outgoing::new(Vec::new(), pieces.as_mut(), false, TIMEOUT);
        overdue(&mut outgoing, &mut ours).await;
        assert_eq!(started.elapsed(), Duration::from_secs(630));
        // The client sends nothing.
        let mut pieces = std::pin::pin!(stream::pending());
        let mut outgoing = Outgoing::new(Vec::new(), pieces.as_mut(), false, TIMEOUT);
        let waited = tokio::time::timeout(Duration::from_secs(9999), overdue(&mut outgoing, &mut ours)).await;
        assert!(waited.is_err());
    }
}
