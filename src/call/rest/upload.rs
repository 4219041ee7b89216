//! The body of a client's request: kept in memory if the request may have to be sent again, passed on as it comes otherwise.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use tokio::time::{Sleep, sleep};

use crate::net::request::Body;

/// How long a client may send nothing in the middle of a body.
const IDLE: Duration = Duration::from_secs(30);

/// The pieces of a body as they come from the client.
pub type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A request's body.
pub struct Upload {
    /// Its beginning, or all of it.
    kept: Bytes,
    /// What comes behind that.
    rest: Option<Pieces>,
    length: Option<u64>,
    /// Whether pieces have been passed on, and so are gone.
    begun: bool,
    failed: Option<io::Error>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Upload {
    /// A body in memory.
    pub fn whole(kept: Bytes) -> Self {
        Self { length: Some(kept.len() as u64), kept, rest: None, begun: false, failed: None, timer: None }
    }

    /// A body that comes piece by piece, `length` bytes in all where that is known.
    pub fn streamed(rest: Pieces, length: Option<u64>) -> Self {
        Self { kept: Bytes::new(), rest: Some(rest), length, begun: false, failed: None, timer: None }
    }

    /// Takes the body into memory if it is not longer than `limit`.
    pub(super) async fn keep(&mut self, limit: usize) -> io::Result<()> {
        if self.rest.is_none() || self.length.is_some_and(|length| length > limit as u64) {
            return Ok(());
        }
        let mut kept = BytesMut::new();
        while kept.len() <= limit {
            match poll_fn(|context| self.poll_rest(context)).await {
                Some(piece) => kept.extend_from_slice(&piece?),
                None => {
                    self.length = Some(kept.len() as u64);
                    break;
                }
            }
        }
        self.kept = kept.freeze();
        Ok(())
    }

    /// All of it, if it is in memory.
    pub(super) fn in_memory(&self) -> Option<&Bytes> {
        self.rest.is_none().then_some(&self.kept)
    }

    /// Bytes in memory.
    pub(super) fn weight(&self) -> usize {
        self.kept.len()
    }

    /// Whether it can be sent, for the first time or again.
    pub(super) fn is_there(&self) -> bool {
        !self.begun
    }

    /// Why the client's side of it broke off.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// As a node is sent it.
    pub(super) fn body(&mut self) -> Body<'_> {
        if self.rest.is_none() {
            return Body::Whole(&self.kept);
        }
        let length = self.length;
        let pieces: Pin<&mut Self> = Pin::new(self);
        Body::Streamed { pieces, length }
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let next = match rest.as_mut().poll_next(context) {
            Poll::Ready(next) => {
                self.timer = None;
                next
            }
            Poll::Pending => {
                let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(IDLE)));
                ready!(timer.as_mut().poll(context));
                Some(Err(io::ErrorKind::TimedOut.into()))
            }
        };
        match next {
            Some(Ok(piece)) => Poll::Ready(Some(Ok(piece))),
            Some(Err(error)) => {
                self.failed = Some(error.kind().into());
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.rest = None;
                Poll::Ready(None)
            }
        }
    }
}

/// As it is passed on: what was kept, then the rest.
impl Stream for Upload {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.begun = true;
        if !self.kept.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.kept))));
        }
        self.poll_rest(context)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    fn coming(pieces: &'static [&'static str], length: Option<u64>) -> Upload {
        let pieces = stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))));
        Upload::streamed(Box::pin(pieces), length)
    }

    async fn passed_on(upload: Upload) -> String {
        let pieces: Vec<Bytes> = upload.map(Result::unwrap).collect().await;
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[tokio::test]
    async fn a_body_is_kept_up_to_the_limit_and_loses_nothing_beyond_it() {
        let mut short = coming(&["abc", "def"], None);
        short.keep(6).await.unwrap();
        assert_eq!(short.in_memory().unwrap(), "abcdef");
        for length in [None, Some(7)] {
            let mut long = coming(&["abc", "def", "g"], length);
            long.keep(6).await.unwrap();
            assert!(long.in_memory().is_none() && long.is_there());
            assert_eq!(long.weight(), if length.is_some() { 0 } else { 7 });
            assert_eq!(passed_on(long).await, "abcdefg");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_in_the_middle_has_failed() {
        let pieces = stream::iter([Ok(Bytes::from_static(b"abc"))]).chain(stream::pending());
        let mut upload = Upload::streamed(Box::pin(pieces), None);
        assert_eq!(upload.keep(100).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(upload.failure().is_some());
    }
}
