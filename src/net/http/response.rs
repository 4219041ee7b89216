//! A response: its head, and its body as the pieces come.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};

use super::{
    Error, Upstream,
    coding::{Coding, Decoder},
    connection::{Broken, Conn},
    head::Head,
};

/// A response whose head has come.
pub struct Response {
    /// Status and fields.
    pub head: Head,
    /// Kept until the response is dropped, however much of it has come: the reader may find that
    /// the connection must be closed.
    conn: Option<Box<Conn>>,
    /// Whether the whole body has come from the node; decoded pieces may still wait for the reader.
    has_come: bool,
    decoder: Option<Box<Decoder>>,
    upstream: Arc<Upstream>,
}

/// The connection of a response that came whole is free for the next request.
impl Drop for Response {
    fn drop(&mut self) {
        let spent = if self.has_come { self.conn.take() } else { None };
        if let Some(conn) = spent.and_then(|conn| conn.recycle(&self.head)) {
            self.upstream.target.connections.give_back(conn);
        }
    }
}

/// Why a body was not read whole.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The body is longer than the limit.
    #[error("the body is too long")]
    TooLong,
    /// The body broke off.
    #[error(transparent)]
    Broken(#[from] Broken),
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Response({})", self.head.status)
    }
}

impl Response {
    /// `decodes`: a compressed body is read all the same.
    pub(super) fn new(mut head: Head, conn: Box<Conn>, upstream: &Arc<Upstream>, decodes: bool) -> Result<Self, Error> {
        upstream.connections().answered();
        let mut decoder = None;
        if decodes && head.coding != Coding::Identity && !head.framing.is_done() {
            decoder = Decoder::new(head.coding).map_err(|error| Error::Broken { broken: error.into() })?;
            head.is_decoded = true;
        }
        Ok(Self { head, conn: Some(conn), has_come: false, decoder, upstream: upstream.clone() })
    }

    /// Whether bytes have come from the node since this was last asked, or since the head.
    pub fn has_heard(&mut self) -> bool {
        self.conn.as_mut().is_some_and(|conn| conn.has_heard())
    }

    /// The body is a stream without an end, so the connection carries no other request.
    pub fn is_endless(&mut self) {
        if let Some(conn) = &mut self.conn {
            conn.permit.becomes_link();
        }
    }

    /// Waits for the next piece of the body.
    ///
    /// # Errors
    /// When the body cannot be had whole.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if self.decoder.is_none() { self.poll_coded(context) } else { self.poll_decoded(context) }
    }

    fn poll_decoded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Poll::Ready(None) };
            let failed = match decoder.next() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) => match ready!(self.poll_coded(context)) {
                    Some(Ok(coded)) => {
                        if let Some(decoder) = &mut self.decoder {
                            decoder.feed(coded);
                        }
                        continue;
                    }
                    Some(Err(broken)) => broken,
                    None => match self.decoder.take().map_or(Ok(None), |mut decoder| decoder.finish()) {
                        Ok(last) => return Poll::Ready(last.map(Ok)),
                        Err(error) => error.into(),
                    },
                },
                Err(error) => error.into(),
            };
            self.condemn();
            return Poll::Ready(Some(Err(failed)));
        }
    }

    /// The next piece, still coded.
    fn poll_coded(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let Some(conn) = self.conn.as_mut().filter(|_| !self.has_come) else { return Poll::Ready(None) };
        let next = ready!(conn.poll_body(context, &mut self.head));
        self.has_come = match &next {
            None => true,
            Some(Ok(_)) => self.head.framing.is_done(),
            Some(Err(_)) => {
                self.conn = None;
                true
            }
        };
        Poll::Ready(next)
    }

    /// Reads the whole body, of `limit` bytes at most. `heard` is called for each piece.
    ///
    /// # Errors
    /// When the body is longer, or breaks off.
    pub async fn whole(&mut self, limit: usize, mut heard: impl FnMut()) -> Result<Bytes, Unread> {
        let mut body = BytesMut::new();
        while let Some(piece) = poll_fn(|context| self.poll_next(context)).await {
            heard();
            let piece = piece?;
            if body.len() + piece.len() > limit {
                return Err(Unread::TooLong);
            }
            if body.is_empty() && self.is_done() {
                return Ok(piece);
            }
            body.extend_from_slice(&piece);
        }
        Ok(body.freeze())
    }

    /// Whether all of the body has been taken.
    pub fn is_done(&self) -> bool {
        self.has_come && self.decoder.is_none()
    }

    /// Closes the connection, even if the body has come whole: the response is no answer to the
    /// request.
    pub fn condemn(&mut self) {
        (self.conn, self.decoder) = (None, None);
        self.has_come = true;
    }
}

impl futures_util::Stream for Response {
    type Item = Result<Bytes, Broken>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Response::poll_next(self.get_mut(), context)
    }
}
