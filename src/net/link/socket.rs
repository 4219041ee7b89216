//! An open connection under watch: every way in which a connection can end yields one
//! event.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, Utf8Bytes},
};

use super::{Timeouts, stubs::Stubs};
use crate::net::{
    BoxIo,
    node_connections::Permit,
    values::{Broken, Value, Values},
};

/// An event on a connection.
#[derive(Debug)]
pub(super) enum Event {
    /// A text, or bytes that are one.
    Frame(Bytes),
    /// The beginning and the end of a text that was too long to be kept.
    TooLong(Bytes),
    /// All that was sent is written.
    Flushed,
    /// The connection is of no use any more: why, without secrets.
    Lost(String),
}

/// How messages are told apart on a connection.
pub(super) enum Framing {
    WebSocket(Box<WebSocketStream<Stubs<Timed<BoxIo>>>>),
    Ipc(Box<Values<Timed<BoxIo>>>),
}

impl From<WebSocketStream<Stubs<Timed<BoxIo>>>> for Framing {
    fn from(socket: WebSocketStream<Stubs<Timed<BoxIo>>>) -> Self {
        Self::WebSocket(Box::new(socket))
    }
}

impl From<Values<Timed<BoxIo>>> for Framing {
    fn from(values: Values<Timed<BoxIo>>) -> Self {
        Self::Ipc(Box::new(values))
    }
}

/// A connection, and how long ago either side did anything.
pub(super) struct Socket {
    framing: Framing,
    timeouts: Timeouts,
    /// Since when something waits to be written.
    unflushed: Option<Instant>,
    /// When the node was pinged, if no byte has come since.
    pinged: Option<Instant>,
    /// Never later than the next moment at which something may be overdue.
    alarm: Pin<Box<Sleep>>,
    /// Given up when the connection is closed, and so the last field.
    _permit: Permit,
}

impl Socket {
    pub(super) fn new(framing: Framing, permit: Permit, timeouts: Timeouts) -> Self {
        let alarm = Box::pin(sleep_until(Instant::now() + timeouts.ping));
        Self { framing, timeouts, unflushed: None, pinged: None, alarm, _permit: permit }
    }

    /// Whether everything is written, and so more may be.
    pub(super) fn is_clear(&self) -> bool {
        self.unflushed.is_none()
    }

    /// Takes `text` to be written with the next [`Socket::event`]. Returns whether more may be
    /// taken before that.
    ///
    /// # Errors
    /// When the connection is lost, or this is more than may wait; in both cases why.
    pub(super) fn send(&mut self, text: Utf8Bytes) -> Result<bool, String> {
        self.unflushed.get_or_insert_with(Instant::now);
        match &mut self.framing {
            Framing::WebSocket(socket) => {
                socket.start_send_unpin(Message::Text(text)).map_err(|error| told(&error))?;
                Ok(poll_fn(|context| socket.poll_ready_unpin(context)).now_or_never().is_some())
            }
            Framing::Ipc(values) => {
                values.send(text.as_bytes());
                Ok(values.has_room())
            }
        }
    }

    /// Says that the connection ends, if that can be said at once.
    pub(super) fn close(self) {
        if let Framing::WebSocket(mut socket) = self.framing {
            let _ = socket.as_mut().close(None).now_or_never();
        }
    }

    /// Writes the messages that were sent and waits for the next event. Cancel-safe.
    pub(super) async fn event(&mut self) -> Event {
        poll_fn(|context| self.poll_event(context)).await
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        loop {
            if self.unflushed.is_some() {
                match self.poll_flush(context) {
                    Poll::Ready(Ok(())) => {
                        self.unflushed = None;
                        // A ping that waited behind a long message has only now left.
                        self.pinged = self.pinged.map(|_| Instant::now());
                        return Poll::Ready(Event::Flushed);
                    }
                    // The node's last message is worth more than the fact that the node left.
                    Poll::Ready(Err(why)) => match self.poll_frame(context) {
                        Poll::Ready(event) => return Poll::Ready(event),
                        Poll::Pending => return Poll::Ready(Event::Lost(why)),
                    },
                    Poll::Pending => {}
                }
            }
            if let Poll::Ready(event) = self.poll_frame(context) {
                return Poll::Ready(event);
            }
            if let Some(lost) = ready!(self.poll_alarm(context)) {
                return Poll::Ready(lost);
            }
        }
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        match &mut self.framing {
            Framing::WebSocket(socket) => socket.poll_flush_unpin(context).map_err(|error| told(&error)),
            Framing::Ipc(values) => values.poll_flush(context).map_err(|error| Broken::Lost(error).to_string()),
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        let socket = match &mut self.framing {
            Framing::WebSocket(socket) => socket,
            Framing::Ipc(values) => {
                return Poll::Ready(match ready!(values.poll_next(context)) {
                    Ok(Value::Whole(text)) => Event::Frame(text),
                    Ok(Value::TooLong(excerpt)) => Event::TooLong(excerpt),
                    Err(broken) => Event::Lost(broken.to_string()),
                });
            }
        };
        loop {
            if let Some(excerpt) = socket.get_mut().take_cut() {
                return Poll::Ready(Event::TooLong(excerpt));
            }
            let Poll::Ready(next) = socket.poll_next_unpin(context) else {
                // The end of a long message brings the library nothing.
                return socket.get_mut().take_cut().map_or(Poll::Pending, |text| Poll::Ready(Event::TooLong(text)));
            };
            if matches!(next, Some(Ok(Message::Text(_) | Message::Binary(_)))) && socket.get_mut().is_stub() {
                continue;
            }
            return Poll::Ready(match next {
                Some(Ok(Message::Text(text))) => Event::Frame(text.into()),
                Some(Ok(Message::Binary(bytes))) => match std::str::from_utf8(&bytes) {
                    Ok(_) => Event::Frame(bytes),
                    Err(_) => Event::Lost("the node sent bytes that are no text".to_owned()),
                },
                // The library answers pings; a pong is a byte like any other.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => {
                    // Flushes the library's answer to the close. The answer need not arrive.
                    let _ = socket.flush().now_or_never();
                    let code = frame.map_or_else(String::new, |frame| format!(" with code {}", u16::from(frame.code)));
                    Event::Lost(format!("the node closed the link{code}"))
                }
                Some(Err(error)) => Event::Lost(told(&error)),
                None => Event::Lost("the connection ended".to_owned()),
            });
        }
    }

    fn ping(&mut self) -> Result<(), Error> {
        let Framing::WebSocket(socket) = &mut self.framing else { return Ok(()) };
        self.unflushed.get_or_insert_with(Instant::now);
        socket.start_send_unpin(Message::Ping(Bytes::new()))
    }

    /// Ready when something was overdue: with the loss, or with `None` when a ping is to be
    /// written.
    fn poll_alarm(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            let now = Instant::now();
            let Timed { heard, written, .. } = *match &self.framing {
                Framing::WebSocket(socket) => socket.get_ref().get_ref(),
                Framing::Ipc(values) => values.io(),
            };
            self.pinged = self.pinged.filter(|pinged| heard < *pinged);
            let Timeouts { write, ping, pong, .. } = self.timeouts;
            let due = match (self.unflushed, self.pinged) {
                (Some(since), _) => since.max(written) + write,
                (None, Some(pinged)) => pinged + pong,
                // IPC has no pings. If the node's process dies, the system ends the connection; if
                // the process hangs, calls and probes tell.
                (None, None) if matches!(self.framing, Framing::Ipc(_)) => return Poll::Pending,
                (None, None) => heard + ping,
            };
            if due <= now {
                let why = match (self.unflushed, self.pinged) {
                    (Some(_), _) => format!("the node has taken nothing for {write:?}"),
                    (None, Some(_)) => format!("no sign of life within {pong:?} after a ping"),
                    (None, None) => {
                        self.pinged = Some(now);
                        return Poll::Ready(self.ping().err().map(|error| Event::Lost(told(&error))));
                    }
                };
                return Poll::Ready(Some(Event::Lost(why)));
            }
            // Most events move the deadline later. The timer is moved only when it goes off, which
            // is soon enough.
            if due < self.alarm.deadline() || self.alarm.is_elapsed() {
                self.alarm.as_mut().reset(due);
            }
            ready!(self.alarm.as_mut().poll(context));
        }
    }
}

/// An error for people.
fn told(error: &Error) -> String {
    match error {
        Error::Capacity(_) => format!("the node's message is over the limit: {error}"),
        Error::ConnectionClosed | Error::AlreadyClosed => "the connection ended".to_owned(),
        error => format!("the connection was lost: {error}"),
    }
}

/// A stream that notes when bytes last went over it. A long message thus counts as a sign of life
/// before it is whole.
pub(super) struct Timed<S> {
    io: S,
    /// When a byte last came.
    heard: Instant,
    /// When a byte was last taken.
    written: Instant,
}

impl<S> Timed<S> {
    pub(super) fn new(io: S) -> Self {
        let now = Instant::now();
        Self { io, heard: now, written: now }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = pin!(&mut self.io).poll_read(context, into);
        if into.filled().len() > before {
            self.heard = Instant::now();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = pin!(&mut self.io).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.written = Instant::now();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        pin!(&mut self.io).poll_shutdown(context)
    }
}
