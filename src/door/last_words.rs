//! The last bytes on a connection whose request hyper refuses by itself. hyper's refusal has no
//! body: the refusal is held back, and the door writes its own words instead.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use http::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{STALL, stall::Stall};
use crate::net::BoxIo;

/// For how long, and how many, further bytes of a refused client are read, because the refusal may
/// be lost with them otherwise.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER: usize = 1 << 20;

/// Where in `bytes` a refusal begins that may be hyper's own: the last answer there, with a 4xx and
/// without a body.
pub(super) fn refusal(bytes: &[u8]) -> Option<usize> {
    if !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let from = bytes.len().saturating_sub(256);
    let at = from + bytes[from..].windows(10).rposition(|part| part == b"HTTP/1.1 4")?;
    let head = std::str::from_utf8(&bytes[at..]).ok()?;
    let mut fields = head.trim_end().split("\r\n").skip(1);
    let plain = |field: &str| {
        let field = field.to_ascii_lowercase();
        field == "content-length: 0" || field == "connection: close" || field.starts_with("date: ")
    };
    (head.matches("\r\n\r\n").count() == 1 && fields.all(plain)).then_some(at)
}

/// The status of a refusal of hyper's own. To HTTP/2 hyper gives no answer.
pub(super) fn status(refusal: &[u8]) -> StatusCode {
    let digits = refusal.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(StatusCode::BAD_REQUEST)
}

/// The reason in words, where the status is all that is known.
pub(super) fn why(status: StatusCode) -> &'static str {
    match status {
        StatusCode::URI_TOO_LONG => "the request line is too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the head of the request is too long",
        _ => "this is no request of HTTP/1.1",
    }
}

/// A refusal with its whole head, after which the connection ends.
pub(super) fn whole(status: StatusCode, body: &[u8]) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    let later = if status == StatusCode::SERVICE_UNAVAILABLE { "retry-after: 1\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{later}connection: close\r\n\r\n",
        status.as_u16(),
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Writes the last bytes, and ends the connection. A client that `lingers` may still be sending.
pub(super) async fn say(io: &mut BoxIo, last: &[u8], lingers: bool) {
    // The client may be gone already.
    let said = timeout(STALL, async {
        io.write_all(last).await?;
        io.shutdown().await
    });
    if matches!(said.await, Ok(Ok(()))) && lingers {
        // In a box, so that an idle connection does not keep the room for it.
        let _ = timeout(LINGER, Box::pin(drain(io))).await;
    }
}

/// Reads and drops a client's further bytes.
async fn drain(io: &mut BoxIo) {
    let mut piece = [0u8; 8 * 1024];
    let mut left = MAX_LINGER;
    while left > 0 {
        match io.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(count) => left = left.saturating_sub(count),
        }
    }
}

/// A client's stream that holds back an answer which looks like a refusal of hyper's own.
pub(super) struct HoldsBack {
    stall: Stall,
    held: Bytes,
}

impl HoldsBack {
    pub(super) fn new(stall: Stall) -> Self {
        Self { stall, held: Bytes::new() }
    }

    /// The stream, and the bytes that were held back.
    pub(super) fn finish(mut self) -> (BoxIo, Bytes) {
        (self.stall.take().0, self.held)
    }

    /// Writes the held bytes, which were no refusal, since more is written behind them.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.stall).poll_write(context, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl Read for HoldsBack {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stall).poll_read(context, into)
    }
}

impl Write for HoldsBack {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_release(context))?;
        match refusal(bytes) {
            Some(0) => {
                self.held = Bytes::copy_from_slice(bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            at => Pin::new(&mut self.stall).poll_write(context, &bytes[..at.unwrap_or(bytes.len())]),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stall).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stall).poll_shutdown(context)
    }
}
