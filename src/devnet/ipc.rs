//! The IPC socket of an execution node: the same session as a WebSocket's, with JSON values one
//! after another in the place of frames.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Sink, Stream};
use http::HeaderMap;
use tokio_tungstenite::tungstenite::{Error, protocol::Message as Frame};

use super::{hanging_io::HangingIo, node::Node, record::Transport, ws};
use crate::net::values::{Broken, Value, Values};

/// The longest message that is read.
const MOST_MESSAGE: usize = 64 << 20;

/// Serves one connection until it ends.
pub(super) async fn serve(node: Arc<Node>, io: HangingIo) {
    let socket = Messages(Values::new(io, MOST_MESSAGE));
    ws::serve(node, socket, Transport::Ipc, Arc::new(HeaderMap::new())).await;
}

/// The messages, as a WebSocket has them.
struct Messages(Values<HangingIo>);

impl Stream for Messages {
    type Item = Result<Frame, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context).map(|value| match value {
            Ok(Value::Whole(text)) => Some(Ok(Frame::Binary(text))),
            Ok(Value::TooLong(_)) => None,
            Err(Broken::Lost(error)) => Some(Err(error.into())),
            Err(_) => None,
        })
    }
}

impl Sink<Frame> for Messages {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn start_send(mut self: Pin<&mut Self>, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::Text(text) => self.0.send(text.as_bytes()),
            Frame::Binary(bytes) => self.0.send(&bytes),
            // The half of a message that a fault cuts.
            Frame::Frame(frame) => self.0.send(frame.payload()),
            Frame::Ping(_) | Frame::Pong(_) | Frame::Close(_) => {}
        }
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_flush(context).map_err(Error::Io)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.poll_flush(context)
    }
}
