//! A WebSocket of an execution node: calls and subscriptions.

use std::{sync::Arc, time::Duration};

use alloy_primitives::B256;
use futures_util::{Sink, SinkExt, Stream, StreamExt, stream::FuturesUnordered};
use http::HeaderMap;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{broadcast, watch},
    time::{Instant, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Bytes,
        protocol::{
            CloseFrame, Message as Frame, Role, WebSocketConfig,
            frame::{
                Frame as RawFrame,
                coding::{CloseCode, Data, OpCode},
            },
        },
    },
};

use super::{
    el,
    eth::{Context, Subscriptions},
    fault::{Fault, Faults},
    http::GARBAGE,
    node::{Dropped, Node},
    record::Transport,
    rpc::{Message, RpcError},
    view::Snapshot,
};

/// Largest message and frame that is read.
const MOST_MESSAGE: usize = 64 << 20;
/// Calls that wait on one socket; with so many, the socket is not read until some are answered.
const MOST_WAITING: usize = 10_000;
/// The library's default of 128 KiB is too much for thousands of clients.
const READ_BUFFER: usize = 8 << 10;

/// Why a session ends.
enum End {
    /// The socket is dropped without a closing handshake.
    Drop,
    /// The client went away or broke the protocol.
    Lost,
}

impl From<tungstenite::Error> for End {
    fn from(_: tungstenite::Error) -> Self {
        Self::Lost
    }
}

/// A socket that carries messages.
pub(super) trait Socket:
    Stream<Item = Result<Frame, tungstenite::Error>> + Sink<Frame, Error = tungstenite::Error> + Unpin + Send
{
}

impl<S> Socket for S where
    S: Stream<Item = Result<Frame, tungstenite::Error>> + Sink<Frame, Error = tungstenite::Error> + Unpin + Send
{
}

struct Session<S> {
    node: Arc<Node>,
    socket: S,
    transport: Transport,
    headers: Arc<HeaderMap>,
    faults: watch::Receiver<Arc<Faults>>,
    chain: watch::Receiver<Arc<Snapshot>>,
    pending: broadcast::Receiver<B256>,
    subscriptions: Subscriptions,
    /// When a node whose blocks arrive late sees the next one.
    more: Option<Instant>,
}

/// Serves one WebSocket until it ends.
pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(node: Arc<Node>, io: S, headers: Arc<HeaderMap>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(READ_BUFFER)
        .max_message_size(Some(MOST_MESSAGE))
        .max_frame_size(Some(MOST_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let records = node.records.clone();
    let _counted = records.websocket();
    serve(node, socket, Transport::Ws, headers).await;
}

/// Serves the messages of one socket until it ends.
pub(super) async fn serve(node: Arc<Node>, socket: impl Socket, transport: Transport, headers: Arc<HeaderMap>) {
    let session = Session {
        faults: node.watch_faults(),
        chain: node.chain.watch(),
        pending: node.chain.pending(),
        node,
        socket,
        transport,
        headers,
        subscriptions: Subscriptions::default(),
        more: None,
    };
    session.run().await;
}

/// An event that a session waits for.
enum Input {
    Frame(Option<Result<Frame, tungstenite::Error>>),
    /// A call that had to wait may be answered now.
    Ready(Message, Result<Arc<Faults>, Dropped>),
    Faults,
    Chain,
    Pending(B256),
}

impl<S: Socket> Session<S> {
    async fn run(mut self) {
        let mut waiting = FuturesUnordered::new();
        loop {
            let faults = self.faults.borrow_and_update().clone();
            if faults.has(&Fault::Failing) && !faults.hang() {
                return self.fail().await;
            }
            // A hanging node answers and pushes nothing. Its calls wait, and drop the socket when
            // the hang ends.
            let input = self.next(&mut waiting, faults.hang()).await;
            let ended = match input {
                Input::Frame(None | Some(Err(_) | Ok(Frame::Close(_)))) => return self.finish().await,
                Input::Frame(Some(Ok(frame))) => {
                    let text = match &frame {
                        Frame::Text(text) => text.as_bytes(),
                        Frame::Binary(bytes) => bytes,
                        // The library answers pings.
                        _ => continue,
                    };
                    let message = Message::parse(text);
                    el::record(&self.node, self.transport, &message, &self.headers);
                    let wish = el::sleep_wish(&faults, &message);
                    if faults.hang() || !faults.slow().is_zero() || !wish.is_zero() {
                        waiting.push(admit(self.node.clone(), message, wish));
                        Ok(())
                    } else {
                        self.answer(&faults, &message).await
                    }
                }
                Input::Ready(_, Err(Dropped)) => return,
                Input::Ready(message, Ok(faults)) => self.answer(&faults, &message).await,
                Input::Faults => {
                    let faults = self.faults.borrow().clone();
                    if faults.hang() || faults.has(&Fault::Failing) { Ok(()) } else { self.push(&faults).await }
                }
                Input::Chain => self.push(&faults).await,
                Input::Pending(hash) => {
                    let news = self.subscriptions.pending(&self.node, hash, &faults);
                    self.send(news).await
                }
            };
            match ended {
                Ok(()) => {}
                Err(End::Drop) => return,
                Err(End::Lost) => return self.finish().await,
            }
        }
    }

    /// All arms are cancel-safe. Calls come before pushes, so that a call is answered before later
    /// news is pushed; none of the arms stays ready for ever without the client's doing.
    async fn next<F>(&mut self, waiting: &mut FuturesUnordered<F>, hang: bool) -> Input
    where
        F: Future<Output = (Message, Result<Arc<Faults>, Dropped>)>,
    {
        loop {
            self.more = self.more.or_else(|| self.node.sees_more_at(&self.faults.borrow()));
            let more = self.more;
            tokio::select! {
                biased;
                _ = self.faults.changed() => {
                    self.more = None;
                    return Input::Faults;
                }
                Some((message, faults)) = waiting.next(), if !waiting.is_empty() => return Input::Ready(message, faults),
                _ = self.chain.changed(), if !hang => return Input::Chain,
                () = sleep_until(more.unwrap_or_else(Instant::now)), if !hang && more.is_some() => {
                    self.more = None;
                    return Input::Chain;
                }
                // A session that reads too slowly misses some transactions, as with a real node.
                pending = self.pending.recv(), if !hang => if let Ok(hash) = pending { return Input::Pending(hash) },
                frame = self.socket.next(), if waiting.len() < MOST_WAITING => return Input::Frame(frame),
            }
        }
    }

    async fn answer(&mut self, faults: &Faults, message: &Message) -> Result<(), End> {
        if faults.has(&Fault::Garbage) {
            return self.send(vec![GARBAGE.to_owned()]).await;
        }
        let wait = match (faults.rate_limited(), faults.credits()) {
            (Some(seconds), _) => Some(Some(seconds)),
            (None, Some((.., wait))) if !self.node.spends(faults, message.calls().count()) => Some(wait),
            (None, _) => None,
        };
        let text = if let Some(wait) = wait {
            // There are no headers here, so that the words have to say it, as Ankr's do.
            let when = wait.map(|seconds| format!(", retry in {seconds}s")).unwrap_or_default();
            message.answer(|_| RpcError::new(-32005, format!("rate limited{when}")).into())
        } else {
            let mut context = Context::new(&self.node, faults, Some(&mut self.subscriptions));
            message.answer_as(|call| el::label(faults, call), |call| el::held(context.answer(call)))
        };
        if el::cuts(faults, message) {
            return Err(End::Drop);
        }
        if text.is_empty() {
            return Ok(());
        }
        if faults.has(&Fault::CutMidBody) {
            let mut half = text.into_bytes();
            half.truncate(half.len().div_ceil(2));
            let frame = RawFrame::message(Bytes::from(half), OpCode::Data(Data::Text), false);
            self.socket.send(Frame::Frame(frame)).await?;
            return Err(End::Drop);
        }
        let (mut texts, after) = self.subscriptions.take_eager();
        texts.push(text);
        texts.extend(after);
        self.send(texts).await
    }

    async fn push(&mut self, faults: &Faults) -> Result<(), End> {
        let news = self.subscriptions.news(&self.node, faults);
        self.send(news).await
    }

    async fn send(&mut self, texts: Vec<String>) -> Result<(), End> {
        if texts.is_empty() {
            return Ok(());
        }
        for text in texts {
            self.socket.feed(Frame::text(text)).await?;
        }
        Ok(self.socket.flush().await?)
    }

    async fn fail(mut self) {
        let close = CloseFrame { code: CloseCode::Error, reason: "internal error".into() };
        if self.socket.send(Frame::Close(Some(close))).await.is_ok() {
            self.finish().await;
        }
    }

    /// Lets the closing handshake finish, but not for ever.
    async fn finish(mut self) {
        let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await;
    }
}

async fn admit(node: Arc<Node>, message: Message, wish: Duration) -> (Message, Result<Arc<Faults>, Dropped>) {
    let faults = node.admit(wish).await;
    (message, faults)
}
