//! A consensus node's answer to one request: the head, the beginning of the body, which was waited
//! for, and the rest, which was not.

mod form;
mod words;

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::{Instant, sleep, timeout};

pub(super) use self::words::SOME;
use super::{idle::Idle, room::Share};
use crate::{
    domain::{
        beacon_form::{self, is_of_kind},
        node_id::NodeId,
        pace::NODE_RATE,
    },
    exchange::pieces::append,
    memory::STREAM,
    net::http::{Broken, Framing, Response},
    pool::Pool,
};

/// Up to this many bytes an answer is taken whole before the client sees its first byte, so that
/// another node can answer if this one is lost in the middle.
const HELD_BACK: u64 = 256 * 1024;
/// The same for an answer that is useless in part: a block with 128 blobs, in JSON.
const HELD_WHOLE: u64 = 48 << 20;
/// How long the rest of a node's word on a message is waited for.
const WORD: Duration = Duration::from_secs(1);
/// How long an answer of unknown length is waited for behind its first piece: the answer may be
/// long.
const UNKNOWN_LENGTH_TIMEOUT: Duration = Duration::from_millis(20);

/// An error of up to this many bytes is read: for its meaning if it is about a signed message, and
/// for secrets where the node has some. A list of a thousand messages may have as many failures.
/// The part beyond [`HELD_BACK`] takes of the room for bodies.
const MOST_WORDS: usize = 4 << 20;
/// How long a text may take that is searched for secrets; another node may have a better answer.
const SEARCH: Duration = Duration::from_secs(2);

/// How much of an answer is held before the client sees its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// The beginning.
    Begin,
    /// The whole, of which a part is useless.
    Whole,
    /// The word on a message, for a moment.
    Word,
}

/// A node's answer.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// All headers, those of the connection included.
    pub headers: HeaderMap,
    /// Bytes of the body, where the length is known.
    length: Option<u64>,
    /// Whether the content type is JSON.
    is_json: bool,
    pieces: VecDeque<Bytes>,
    rest: Option<Response>,
    idle: Idle,
    /// The node that gave the answer.
    source: (Arc<Pool>, NodeId),
    /// The answer's share of the room for bodies, for bytes beyond [`HELD_BACK`], which every
    /// answer may hold; until the client gets the answer's beginning.
    share: Option<Share>,
    /// The proxy has put words of its own in the place of the node's.
    is_withheld: bool,
    /// The request was sent to the node before, over a connection that was closed.
    was_sent_before: bool,
    /// The body ended with its connection, and nothing shows that all of the body has come.
    is_unproven: bool,
}

impl Answer {
    /// Takes the response of a node of `pool`, and as much of the body as is to be held; the whole
    /// body only if the body has a `share` of the room, and fits. Where the word on a message does
    /// not end, a success counts as one without a body: the status is the verdict.
    ///
    /// # Errors
    /// When the connection is lost meanwhile, or when a text in JSON that is wanted whole ends with
    /// its connection and is not whole.
    pub(super) async fn read(
        response: Response,
        pool: &Arc<Pool>,
        node: NodeId,
        share: Option<Share>,
        hold: Hold,
    ) -> Result<Self, Broken> {
        let status = response.head.status;
        let ends_with_connection = response.head.framing == Framing::UntilClose;
        let mut headers = HeaderMap::new();
        let source = &pool.nodes[node];
        response.head.each_header(|name, value| {
            if source.has_secrets() && source.redact(value).is_some() {
                return;
            }
            // The parser has let only valid names and values through.
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        });
        let length = response.head.length();
        // Streams of events may be silent for long: a byte a second is enough.
        let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let rate = if is_of_kind(kind, b"text/event-stream") { 1 } else { NODE_RATE };
        let is_json = beacon_form::is_json(kind);
        let mut answer = Self {
            status,
            is_json,
            headers,
            length,
            pieces: VecDeque::new(),
            rest: Some(response),
            idle: Idle::new(rate),
            source: (pool.clone(), node),
            share,
            is_withheld: false,
            was_sent_before: false,
            is_unproven: false,
        };
        if source.has_secrets() && !(200..300).contains(&status) {
            answer.redact().await?;
            return Ok(answer);
        }
        let is_wanted_whole = match hold {
            Hold::Begin => false,
            Hold::Whole => true,
            Hold::Word => status < 300,
        };
        let limit = if is_wanted_whole && answer.share.is_some() { HELD_WHOLE } else { HELD_BACK };
        if length.is_some_and(|length| length > limit) || answer.is_event_stream() {
            return Ok(answer);
        }
        if hold == Hold::Word {
            match timeout(WORD, answer.hold_back(limit, is_wanted_whole)).await {
                Ok(held) => held?,
                Err(_) if status < 300 && !answer.begins_as_no_success() => return Ok(answer.as_success()),
                Err(_) => {}
            }
        } else {
            answer.hold_back(limit, is_wanted_whole).await?;
        }
        if hold == Hold::Whole && status < 300 && ends_with_connection && !answer.is_provably_whole() {
            // Half a text in JSON is known by its form, and a body that is not here may yet be cut.
            if answer.is_json || answer.rest.is_some() {
                let error = io::ErrorKind::UnexpectedEof.into();
                return Err(Broken::Lost { error, started: true });
            }
            answer.is_unproven = true;
        }
        Ok(answer)
    }

    async fn hold_back(&mut self, limit: u64, is_awaited: bool) -> Result<(), Broken> {
        let mut short_wait = std::pin::pin!(sleep(UNKNOWN_LENGTH_TIMEOUT));
        let mut held = 0;
        while held < limit {
            // Both arms are cancel-safe.
            let piece = tokio::select! {
                biased;
                piece = poll_fn(|context| self.poll_rest(context)) => piece.transpose()?,
                () = &mut short_wait, if self.length.is_none() && !is_awaited && held > 0 => return Ok(()),
            };
            let Some(piece) = piece else {
                self.length = Some(held);
                return Ok(());
            };
            let length = piece.len();
            if held == 0 {
                // Nothing can be said of an answer before its first piece.
                short_wait.as_mut().reset(Instant::now() + UNKNOWN_LENGTH_TIMEOUT);
            }
            held += length as u64;
            append(&mut self.pieces, piece);
            // Room is taken as bytes come: an announced length alone costs other answers nothing.
            if held > HELD_BACK && limit > HELD_BACK && !self.takes(length) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Takes this many bytes of the room; `false` if fewer are left.
    fn takes(&mut self, bytes: usize) -> bool {
        self.share.as_mut().is_some_and(|share| share.grow(bytes))
    }

    /// Gives the room back: from here on the answer counts as the client's memory.
    pub fn leaves_the_room(&mut self) {
        self.share = None;
    }

    /// Whether an error of which `held` bytes are read, the last `more` just now, may be read on:
    /// there is room for these.
    fn fits(&mut self, held: usize, more: usize) -> bool {
        held <= MOST_WORDS && (held as u64 <= HELD_BACK || self.takes(more))
    }

    /// Takes the configuration's secrets out of an error: gateways like to repeat the URL of a
    /// request, and the URL may hold a key.
    async fn redact(&mut self) -> Result<(), Broken> {
        let mut whole = BytesMut::new();
        let read = async {
            while let Some(piece) = poll_fn(|context| self.poll_rest(context)).await.transpose()? {
                whole.extend_from_slice(&piece);
                if !self.fits(whole.len(), piece.len()) {
                    return Ok(false);
                }
            }
            Ok::<_, Broken>(true)
        };
        let is_whole = timeout(SEARCH, read).await.unwrap_or(Ok(false))?;
        let is_plain = self.headers.get(header::CONTENT_ENCODING).is_none_or(|how| how == "identity");
        let body = if is_whole && (is_plain || whole.is_empty()) {
            let (pool, node) = &self.source;
            pool.nodes[*node].redact(&whole).map_or_else(|| whole.freeze(), Bytes::from)
        } else {
            self.is_withheld = true;
            self.headers.remove(header::CONTENT_ENCODING);
            self.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            let message = "the node's words are withheld: they could not be searched for secrets";
            serde_json::json!({ "code": self.status, "message": message }).to_string().into()
        };
        self.rest = None;
        self.length = Some(body.len() as u64);
        self.pieces = (!body.is_empty()).then_some(body).into_iter().collect();
        Ok(())
    }

    /// Bytes of the client's memory that the answer takes: the held pieces, and the stream for the
    /// rest.
    pub fn weight(&self) -> usize {
        let held: usize = self.pieces.iter().map(Bytes::len).sum();
        held + if self.rest.is_some() { STREAM } else { 0 }
    }

    /// The whole body, if all of it is in memory.
    pub(super) fn in_memory(&self) -> Option<Bytes> {
        match (&self.rest, self.pieces.len()) {
            (Some(_), _) => None,
            (None, 1) => self.pieces.front().cloned(),
            (None, _) => {
                let mut whole = BytesMut::with_capacity(self.pieces.iter().map(Bytes::len).sum());
                self.pieces.iter().for_each(|piece| whole.extend_from_slice(piece));
                Some(whole.freeze())
            }
        }
    }

    /// Whether nothing shows that all of the body has come.
    pub(super) fn is_unproven(&self) -> bool {
        self.is_unproven
    }

    /// The name of the node that gave the answer.
    pub fn giver(&self) -> &str {
        let (pool, node) = &self.source;
        &pool.nodes[*node].name
    }

    /// Bytes of the body, where the length is known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the content type is JSON.
    pub(super) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Whether the answer is a node's error about the messages that the node was given: in the
    /// API's own form, and with a status for messages or for the node's own failure. Gateways speak
    /// of other things, and a status with one fixed meaning does too.
    pub(super) fn speaks_of_messages(&self) -> bool {
        matches!(self.status, 400 | 402 | 406 | 409..=428 | 430..=499 | 500) && self.is_of_a_node()
    }

    /// Notes whether the request was sent to the node before, over a connection that was closed.
    pub(super) fn notes_sending(&mut self, was_sent_before: bool) {
        self.was_sent_before = was_sent_before;
    }

    /// Whether the node may have had the request before, over a connection that was closed.
    pub(super) fn was_sent_before(&self) -> bool {
        self.was_sent_before
    }

    fn is_event_stream(&self) -> bool {
        is_of_kind(self.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes), b"text/event-stream")
    }

    /// The next piece of the rest, each within its time.
    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let (pool, node) = &self.source;
        let next = rest.poll_next(context);
        let late = || Some(Err(Broken::Lost { error: io::ErrorKind::TimedOut.into(), started: true }));
        let bytes = |next: &Option<Result<Bytes, _>>| match next {
            Some(Ok(piece)) => piece.len(),
            _ => 0,
        };
        let next = ready!(self.idle.watch(context, next, bytes)).unwrap_or_else(late);
        match &next {
            Some(Ok(_)) => pool.nodes[*node].traffic.touch(Instant::now()),
            None => self.rest = None,
            Some(Err(_)) => {}
        }
        Poll::Ready(next)
    }
}

/// The body.
impl Stream for Answer {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(piece)));
        }
        let next = ready!(self.poll_rest(context));
        match next {
            Some(Err(broken)) => {
                // The answer has begun, so no other node can take over; but this node is probed.
                let (pool, node) = &self.source;
                pool.probe_now(*node);
                self.rest = None;
                Poll::Ready(Some(Err(broken)))
            }
            other => Poll::Ready(other),
        }
    }
}
