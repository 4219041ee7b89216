//! A node's answer to one call: the beginning that was looked at, and the rest that is not.

use std::{
    collections::VecDeque,
    future::poll_fn,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;

use crate::{
    domain::{
        answer::{self, NodeError},
        hex,
        id_splice::IdSplice,
        json,
        method::Tells,
    },
    net::{exchange::Broken, upstream::Response, wire::Framing},
};

/// Up to this many bytes an answer is taken whole before the client sees its first byte, so that the loss of the node in the middle
/// of it is made good by another.
const HELD_BACK: usize = 256 * 1024;
/// How far an answer is searched for what tells a result from an error.
const MAX_LOOK: usize = 64 * 1024;
/// The longest error that is read.
const MAX_ERROR: usize = 1024 * 1024;
/// How far a result is searched for the height that it shows.
const MAX_HEIGHT_LOOK: usize = 4096;

/// What kind of answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A result.
    Result,
    /// A JSON-RPC error.
    Error,
    /// Neither.
    Alien,
}

/// A node's answer, its head read.
#[derive(Debug)]
pub struct Answer {
    /// The node's HTTP status.
    pub status: u16,
    /// Result or error.
    pub kind: Kind,
    /// The node that gave a result, by its index in the pool.
    pub node: Option<usize>,
    pieces: Pieces,
    rest: Option<Response>,
    /// Where in the first piece the id stands, if it came before the result.
    id: Option<Range<usize>>,
    /// Puts the id right as the answer passes, if it comes behind a result that is too long to keep.
    splice: Option<IdSplice>,
}

/// The bytes that are in memory. Most answers are one piece.
#[derive(Debug, Default)]
struct Pieces {
    first: Bytes,
    more: VecDeque<Bytes>,
    length: usize,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if self.first.is_empty() {
            self.first = piece;
        } else {
            self.more.push_back(piece);
        }
    }

    /// Makes one piece of the first `limit` bytes or more.
    fn join(&mut self, limit: usize) -> &Bytes {
        if self.first.len() < limit && !self.more.is_empty() {
            let mut joined = BytesMut::from(&self.first[..]);
            while joined.len() < limit
                && let Some(piece) = self.more.pop_front()
            {
                joined.extend_from_slice(&piece);
            }
            self.first = joined.freeze();
        }
        &self.first
    }

    fn pop(&mut self) -> Option<Bytes> {
        if self.first.is_empty() {
            return None;
        }
        let piece = std::mem::replace(&mut self.first, self.more.pop_front().unwrap_or_default());
        self.length -= piece.len();
        Some(piece)
    }

    /// Puts `with` in the place of `range` of the first piece.
    fn splice(&mut self, range: Range<usize>, with: &[u8]) {
        let mut joined = BytesMut::with_capacity(self.first.len() + with.len());
        joined.extend_from_slice(&self.first[..range.start]);
        joined.extend_from_slice(with);
        joined.extend_from_slice(&self.first[range.end..]);
        self.length = self.length + joined.len() - self.first.len();
        self.first = joined.freeze();
    }
}

impl Answer {
    /// Takes as much of `response` as it needs to tell what it is, and all of it if it is short. `heard` is called as bytes come.
    ///
    /// # Errors
    /// When the connection is lost before that.
    pub async fn read(mut response: Response, heard: impl Fn()) -> Result<Self, Broken> {
        let status = response.head.status;
        let mut pieces = Pieces::default();
        let (mut kind, mut id, mut ended) = (None, None, false);
        while !ended {
            let piece = poll_fn(|context| response.poll_next(context)).await;
            heard();
            match piece {
                Some(piece) => pieces.push(piece?),
                None => ended = true,
            }
            if ended && response.head.framing == Framing::UntilClose && !json::is_whole(pieces.join(usize::MAX)) {
                // Nothing else tells such an answer's end from the node's.
                return Err(Broken::Lost { error: std::io::ErrorKind::UnexpectedEof.into(), started: true });
            }
            ended |= response.is_done();
            if kind.is_none() {
                kind = match answer::peek(pieces.join(MAX_LOOK)) {
                    answer::Answer::Result { id: place, .. } => {
                        id = place;
                        Some(Kind::Result)
                    }
                    answer::Answer::Error => Some(Kind::Error),
                    answer::Answer::Incomplete if !ended && pieces.length < MAX_LOOK => None,
                    answer::Answer::Incomplete | answer::Answer::Alien => Some(Kind::Alien),
                };
            }
            let enough = match kind {
                None => usize::MAX,
                Some(Kind::Result | Kind::Alien) => HELD_BACK,
                Some(Kind::Error) => MAX_ERROR,
            };
            if pieces.length >= enough {
                break;
            }
        }
        let rest = (!ended).then_some(response);
        Ok(Self { status, kind: kind.unwrap_or(Kind::Alien), node: None, pieces, rest, id, splice: None })
    }

    /// An answer that came as one text, with its id at `id`.
    pub fn whole(text: Bytes, id: Range<usize>) -> Self {
        let kind = match answer::peek(&text) {
            answer::Answer::Result { .. } => Kind::Result,
            answer::Answer::Error => Kind::Error,
            answer::Answer::Incomplete | answer::Answer::Alien => Kind::Alien,
        };
        let mut pieces = Pieces::default();
        pieces.push(text);
        Self { status: 200, kind, node: None, pieces, rest: None, id: (!id.is_empty()).then_some(id), splice: None }
    }

    /// An answer of our own making, in a node's stead.
    pub fn made(body: Vec<u8>) -> Self {
        let mut pieces = Pieces::default();
        pieces.push(body.into());
        Self { status: 200, kind: Kind::Result, node: None, pieces, rest: None, id: None, splice: None }
    }

    /// Sees to it that the answer carries `id`, byte for byte: some nodes write a number or a string in their own way.
    pub fn set_id(&mut self, id: &[u8]) {
        if let Some(place) = self.id.take() {
            if self.pieces.first[place.clone()] != *id {
                self.pieces.splice(place, id);
            }
        } else if self.rest.is_some() {
            self.splice = Some(IdSplice::new(id));
        } else {
            let text = self.pieces.join(usize::MAX);
            let place = answer::trailing_id(text).or_else(|| answer::id(text));
            if let Some(place) = place.filter(|place| text[place.clone()] != *id) {
                self.pieces.splice(place, id);
            }
        }
    }

    /// Replaces what is in memory, where `concealed` has another text for it.
    pub fn conceal(&mut self, concealed: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
        if let Some(text) = concealed(self.pieces.join(usize::MAX)) {
            self.pieces = Pieces::default();
            self.pieces.push(text.into());
            self.id = None;
        }
    }

    /// The error that the node returned, if it can be read.
    pub fn error(&mut self) -> Option<NodeError<'_>> {
        NodeError::read(self.pieces.join(usize::MAX))
    }

    /// The height that the result shows, where `tells` says that it shows one.
    pub fn height(&self, tells: Tells) -> Option<u64> {
        let key: &[u8] = match tells {
            Tells::Nothing => return None,
            Tells::Number => b"\"result\"",
            Tells::Block => b"\"number\"",
            Tells::Inclusion => b"\"blockNumber\"",
        };
        let text = &self.pieces.first[..self.pieces.first.len().min(MAX_HEIGHT_LOOK)];
        let at = memchr::memmem::find(text, key)? + key.len();
        let value = text[at..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', value)?;
        hex::quantity(std::str::from_utf8(&value[..end]).ok()?)
    }

    /// Whether `words` occur in what is in memory.
    pub fn shows(&self, words: &str) -> bool {
        memchr::memmem::find(&self.pieces.first, words.as_bytes()).is_some()
    }

    /// Bytes in all, where that is known.
    pub fn length(&self) -> Option<u64> {
        let ready = self.pieces.length as u64;
        match &self.rest {
            None => Some(ready),
            Some(_) if self.splice.is_some() => None,
            Some(rest) => rest.head.framing.remaining().map(|left| ready + left),
        }
    }

    /// All of it, the first piece and those behind it, if it is in memory.
    pub fn in_memory(&self) -> Option<(&Bytes, &VecDeque<Bytes>)> {
        self.rest.is_none().then_some((&self.pieces.first, &self.pieces.more))
    }

    /// The next piece.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        loop {
            let piece = match self.pieces.pop() {
                Some(piece) => Some(piece),
                None => match &mut self.rest {
                    None => None,
                    Some(rest) => match ready!(rest.poll_next(context)) {
                        Some(Ok(piece)) => Some(piece),
                        Some(Err(broken)) => return Poll::Ready(Some(Err(broken))),
                        None => None,
                    },
                },
            };
            let Some(splice) = &mut self.splice else { return Poll::Ready(piece.map(Ok)) };
            // A piece may be nothing but the node's id.
            match piece.map(|piece| splice.pass(piece)) {
                Some(piece) if piece.is_empty() => {}
                piece => return Poll::Ready(piece.map(Ok)),
            }
        }
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, Broken>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_piece(context)
    }
}
