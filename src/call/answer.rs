//! A node's answer to one call: the beginning, which is examined, and the rest, which passes.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    ops::Range,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream;
use memchr::memmem::Finder;

use self::{
    receipt::Receipt,
    rest::{Rest, Torn},
};
use crate::{
    config::Verify,
    domain::{
        answer::{self, Beginning, Content, Ending, Envelope, NodeError},
        call_id::CallId,
        hex, json,
        method::Tells,
        node_id::NodeId,
    },
    exchange::pieces::Pieces,
    memory::{Account, Claim, Full, SMALL, STREAM},
    net::http::{Broken, Framing, Response},
};

pub mod receipt;
mod rest;

/// An answer of at most so many bytes is read whole before the client sees its first byte, so that
/// another node can answer if this one is lost in the middle.
const HELD_BACK: usize = 256 * 1024;
/// An answer of at most so many bytes is always examined whole.
const ALWAYS_WHOLE: usize = 16 * 1024;
/// How many bytes are searched for the member that tells a result from an error.
const MAX_LOOK: usize = 64 * 1024;
/// The longest error that is read.
const MAX_ERROR: usize = 1024 * 1024;
/// How many bytes of a result are searched for a block height.
const MAX_HEIGHT_LOOK: usize = 4096;
/// How many bytes at the end of a long answer are examined.
const TAIL: usize = 4096;
/// The keys that heights stand behind. Prepared once: preparing a search costs more than searching
/// a short answer.
static KEYS: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| ["\"result\"", "\"number\"", "\"blockNumber\""].map(Finder::new));

/// The kind of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A result.
    Result,
    /// A JSON-RPC error.
    Error,
    /// No answer to the call, and why.
    Alien(&'static str),
}

/// A node's answer, its head read.
#[derive(Debug)]
pub struct Answer {
    /// The node's HTTP status.
    pub status: u16,
    /// Result or error.
    pub kind: Kind,
    /// The node that gave the answer, by its index in the pool.
    pub node: Option<NodeId>,
    /// The name of that node, if clients are told.
    pub giver: Option<Arc<str>>,
    /// For an answer with which a node refused for quota: the seconds until the client should come
    /// again.
    pub retry_after: Option<u32>,
    /// Whether the result is `null`.
    pub is_null: bool,
    /// The offset of the result in `pieces`, if known; 0 otherwise.
    result: usize,
    pieces: Pieces,
    /// In a box, because few answers have a rest and every answer is moved several times.
    rest: Option<Box<Rest>>,
    id: Id,
    /// The memory that the answer takes of the client's account.
    claim: Option<Claim>,
    /// Reports whether the answer has left. In a box for the same reason.
    receipt: Option<Box<Receipt>>,
}

/// Why an answer could not be read.
#[derive(Debug)]
pub enum Unread {
    /// The connection was lost.
    Broken(Broken),
    /// The memory limit has no room for the answer.
    NoRoom(Full),
}

impl From<Broken> for Unread {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Full> for Unread {
    fn from(full: Full) -> Self {
        Self::NoRoom(full)
    }
}

/// Where the proxy's id stands in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    /// At this range of the bytes in memory. An empty range is the place for a member that the node
    /// left out.
    At(Range<usize>),
    /// In the bytes that are still to come.
    Behind,
    /// The call has no id.
    None,
}

/// The result of examining an answer.
struct Judgement {
    kind: Kind,
    is_null: bool,
    result: usize,
    id: Id,
}

impl Judgement {
    fn alien(why: &'static str) -> Self {
        Self { kind: Kind::Alien(why), is_null: false, result: 0, id: Id::None }
    }
}

/// An answer with the id of another call. The node may send the right answer later on the
/// connection.
const FOREIGN: &str = "the answer is to another call";
const TORN: &str = "the answer ends in the middle";

impl Answer {
    /// Reads enough of `response` to know its kind, and all of a short answer. `own` is the id that
    /// the call was sent with; `heard` is called when bytes come. If the response is no answer to
    /// the call, its connection is closed. Bytes beyond a small amount count for `memory`.
    ///
    /// # Errors
    /// When the connection is lost before that, or `memory` has no room.
    pub async fn read(
        mut response: Response,
        own: Option<&CallId>,
        verify: Verify,
        memory: Option<&Arc<Account>>,
        heard: impl Fn(),
    ) -> Result<Self, Unread> {
        let status = response.head.status;
        let mut pieces = Pieces::default();
        let mut claim: Option<Claim> = None;
        let mut hold = |bytes: usize| match memory {
            Some(memory) if bytes > SMALL => claim.get_or_insert_with(|| memory.outgoing()).grow(bytes),
            _ => Ok(()),
        };
        let (mut beginning, mut ended, mut looked) = (Beginning::Incomplete, false, 0);
        while !ended {
            let piece = poll_fn(|context| response.poll_next(context)).await;
            // A read may bring many pieces.
            if response.has_heard() {
                heard();
            }
            match piece {
                Some(piece) => {
                    pieces.push(piece?);
                    hold(pieces.length())?;
                }
                None => ended = true,
            }
            if ended && response.head.framing == Framing::UntilClose && !json::is_whole(pieces.join(usize::MAX)) {
                // Without a length only whole JSON tells the end of the answer from a lost
                // connection.
                return Err(Broken::Lost { error: io::ErrorKind::UnexpectedEof.into(), started: true }.into());
            }
            ended |= response.is_done();
            if ended && pieces.length() <= ALWAYS_WHOLE {
                break;
            }
            // Small pieces are examined only when the length has doubled. Examining each anew would
            // take time quadratic in the length.
            let length = pieces.length();
            if beginning == Beginning::Incomplete && looked < MAX_LOOK && (length >= 2 * looked || ended) {
                looked = length;
                beginning = answer::peek(pieces.join(MAX_LOOK));
            }
            let enough = match beginning {
                Beginning::Unsure => MAX_ERROR,
                _ => HELD_BACK,
            };
            if pieces.length() >= enough {
                break;
            }
        }
        let judgement = match own {
            None => Judgement { kind: kind_of(pieces.join(MAX_LOOK)), is_null: false, result: 0, id: Id::None },
            Some(own) => match beginning {
                Beginning::Result { id, .. } if !ended => judge_beginning(id, pieces.first(), own),
                _ if !ended => Judgement::alien("the answer is too long for what it begins with"),
                Beginning::Result { id, .. } if pieces.length() > ALWAYS_WHOLE && verify == Verify::Ends => {
                    judge_ends(id, &mut pieces, own)
                }
                _ => judge_whole(pieces.join(usize::MAX), own),
            },
        };
        // The next bytes on the connection may be the answer to this call, so no other call may use
        // the connection.
        if matches!(judgement.kind, Kind::Alien(_)) && (200..300).contains(&status) && own.is_some() {
            response.condemn();
            return Ok(Self { status, claim, ..Self::judged(judgement, pieces) });
        }
        if !ended {
            hold(pieces.length() + STREAM)?;
        }
        let rest = (!ended).then(|| {
            let walk = (verify == Verify::All && own.is_some()).then(Box::default);
            Box::new(match (own, &judgement.id) {
                (Some(own), Id::Behind) => Rest::expecting(response, *own, walk),
                _ => Rest::seen(response, own.is_some() && judgement.kind == Kind::Result, walk),
            })
        });
        Ok(Self { status, rest, claim, ..Self::judged(judgement, pieces) })
    }

    /// An answer that came over a link as one text, with the proxy's id at `id`. For a notification
    /// the id is empty.
    pub fn whole(text: Bytes, id: Range<usize>) -> Self {
        let judgement = match Envelope::read(&text) {
            Ok(envelope) => judge(envelope, &text),
            Err(why) => Judgement::alien(why),
        };
        let id = if id.is_empty() { Id::None } else { Id::At(id) };
        Self::judged(Judgement { id, ..judgement }, text.into())
    }

    /// An answer that the proxy makes in a node's stead, with this JSON as result.
    pub fn made(result: &str) -> Self {
        const HEAD: &str = r#"{"jsonrpc":"2.0","id":"#;
        let text = Bytes::from(format!(r#"{HEAD}0,"result":{result}}}"#));
        let id = Id::At(HEAD.len()..HEAD.len() + 1);
        Self::judged(Judgement { kind: Kind::Result, is_null: false, result: 0, id }, text.into())
    }

    /// An answer whose bytes are in `pieces`, with nothing to come.
    fn judged(Judgement { kind, is_null, result, id }: Judgement, pieces: Pieces) -> Self {
        Self {
            status: 200,
            kind,
            node: None,
            giver: None,
            retry_after: None,
            is_null,
            result,
            pieces,
            rest: None,
            id,
            claim: None,
            receipt: None,
        }
    }

    /// Has `receipt` report whether the answer leaves.
    pub fn expect(&mut self, receipt: Receipt) {
        self.receipt = Some(Box::new(receipt));
    }

    /// Whether the answer has a receipt.
    pub fn is_expected(&self) -> bool {
        self.receipt.is_some()
    }

    /// Takes the receipt, for a caller that uses only the answer's text.
    pub fn take_receipt(&mut self) -> Option<Receipt> {
        self.receipt.take().map(|receipt| *receipt)
    }

    /// Puts the client's `id` in the place of the proxy's, byte for byte.
    pub fn set_id(&mut self, id: &[u8]) {
        match &self.id {
            Id::At(place) if place.is_empty() => {
                let member = [b"\"id\":", id, b","].concat();
                self.pieces.replace(place.clone(), &member);
            }
            Id::At(place) => self.pieces.replace(place.clone(), id),
            Id::Behind => self.rest.iter_mut().for_each(|rest| rest.set_id(id)),
            Id::None => {}
        }
        (self.id, self.result) = (Id::None, 0);
        self.count();
    }

    /// Counts an answer that came whole for `memory`.
    ///
    /// # Errors
    /// When `memory` has no room.
    pub(super) fn charge_to(&mut self, memory: &Arc<Account>) -> Result<(), Full> {
        if self.pieces.length() > SMALL {
            self.claim.get_or_insert_with(|| memory.outgoing()).resize(self.pieces.length())?;
        }
        Ok(())
    }

    /// Sets the claim to the present size. The bytes are in memory already, so the limit is not
    /// checked.
    fn count(&mut self) {
        let stream = if self.rest.is_some() { STREAM } else { 0 };
        if let Some(claim) = &mut self.claim {
            claim.set(self.pieces.length() + stream);
        }
    }

    /// Replaces the bytes in memory, if `redacted` returns another text for them.
    pub fn redact(&mut self, redacted: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
        if let Some(text) = redacted(self.pieces.join(usize::MAX)) {
            if self.id != Id::None {
                self.id = Envelope::read(&text).map_or(Id::None, |envelope| id_place(envelope.id, &text));
            }
            (self.pieces, self.result) = (Bytes::from(text).into(), 0);
        }
    }

    /// The bytes in memory, in one piece.
    pub fn beginning(&mut self) -> &Bytes {
        self.pieces.join(usize::MAX)
    }

    /// The error that the node returned, if its text can be read.
    pub fn error(&mut self) -> Option<NodeError<'_>> {
        NodeError::read(self.pieces.join(usize::MAX))
    }

    /// The height that the result shows, if `tells` says where.
    pub fn height(&self, tells: Tells) -> Option<u64> {
        let text = &self.pieces.first()[..self.pieces.first().len().min(MAX_HEIGHT_LOOK)];
        let key = match tells {
            Tells::Nothing => return None,
            Tells::Number if (1..text.len()).contains(&self.result) => return quantity(&text[self.result..]),
            Tells::Number => &KEYS[0],
            Tells::Block => &KEYS[1],
            Tells::Inclusion => &KEYS[2],
        };
        let at = key.find(text)? + key.needle().len();
        quantity(text[at..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
    }

    /// Whether the result is an empty list.
    pub fn is_empty_list(&self) -> bool {
        self.result > 0 && self.pieces.first().get(self.result..).is_some_and(|result| result.starts_with(b"[]"))
    }

    /// Whether `words` occur in the first piece.
    pub fn shows(&self, words: &str) -> bool {
        memchr::memmem::find(self.pieces.first(), words.as_bytes()).is_some()
    }

    /// The length of the whole answer, if known.
    pub fn length(&self) -> Option<u64> {
        let ready = self.pieces.length() as u64;
        match &self.rest {
            None => Some(ready),
            Some(rest) if !rest.keeps_length() => None,
            Some(rest) => rest.response.head.length().map(|left| ready + left),
        }
    }

    /// The first piece and the pieces behind it, if the whole answer is in memory.
    pub fn in_memory(&self) -> Option<(&Bytes, &VecDeque<Bytes>)> {
        self.rest.is_none().then_some((self.pieces.first(), self.pieces.more()))
    }

    /// The next piece. If the answer proves broken in the middle, the last item is an error: the
    /// client has only a part of the answer, and its connection must be closed.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        // The previous piece has been written by now or has a claim of its own; until now it
        // counted for this answer.
        self.count();
        loop {
            let piece = self.pieces.pop();
            let Some(rest) = &mut self.rest else { return Poll::Ready(piece.map(Ok)) };
            let piece = match piece {
                Some(piece) => Some(piece),
                None => ready!(rest.response.poll_next(context)).transpose()?,
            };
            let is_over = piece.is_none();
            let passed = match piece {
                Some(piece) => rest.pass(piece, rest.response.is_done() && self.pieces.length() == 0),
                None => rest.finish(),
            };
            if passed.is_err() {
                rest.response.condemn();
            }
            if passed.is_err() || is_over {
                self.rest = None;
            }
            match passed {
                Ok(None) if is_over => return Poll::Ready(None),
                Ok(None) => {}
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Err(Torn) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, TORN);
                    return Poll::Ready(Some(Err(Broken::Lost { error, started: true })));
                }
            }
        }
    }
}

/// The kind of an answer to a call without an id.
fn kind_of(text: &[u8]) -> Kind {
    match answer::peek(text) {
        Beginning::Result { .. } => Kind::Result,
        Beginning::Unsure => Kind::Error,
        Beginning::Incomplete | Beginning::Alien => Kind::Alien("the answer is no JSON-RPC response"),
    }
}

fn judge(envelope: Envelope, text: &[u8]) -> Judgement {
    let (kind, is_null, result) = match &envelope.content {
        Content::Result(place) => (Kind::Result, text[place.clone()] == *b"null", place.start),
        Content::Error(_) => (Kind::Error, false, 0),
    };
    Judgement { kind, is_null, result, id: id_place(envelope.id, text) }
}

/// The place of the id that a node wrote at `id`; without an id, the place where the member can go.
fn id_place(id: Option<Range<usize>>, text: &[u8]) -> Id {
    // The text was examined before, so it has an opening brace.
    Id::At(id.unwrap_or_else(|| {
        let open = text.iter().position(|byte| *byte == b'{').map_or(0, |open| open + 1);
        open..open
    }))
}

fn judge_whole(text: &[u8], own: &CallId) -> Judgement {
    match Envelope::read(text) {
        Err(why) => Judgement::alien(why),
        Ok(envelope) if envelope.id.as_ref().is_some_and(|id| !own.is_answered_by(&text[id.clone()])) => {
            Judgement::alien(FOREIGN)
        }
        Ok(envelope) => judge(envelope, text),
    }
}

/// The quantity in the string at the beginning of `value`.
fn quantity(value: &[u8]) -> Option<u64> {
    let value = value.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', value)?;
    hex::quantity(&value[..end])
}

/// Judges a long result by its beginning and its end; `id` is the place of the id in the beginning,
/// if found there.
fn judge_ends(id: Option<Range<usize>>, pieces: &mut Pieces, own: &CallId) -> Judgement {
    let tail = pieces.tail(TAIL);
    let id = match (id, answer::ending(&tail)) {
        (_, Ending::Torn) => return Judgement::alien(TORN),
        (Some(id), _) => Some(id),
        (None, Ending::Unclear) => return judge_whole(pieces.join(usize::MAX), own),
        (None, Ending::Whole(id)) if id.as_ref().is_some_and(|id| !own.is_answered_by(&tail[id.clone()])) => {
            return Judgement::alien(FOREIGN);
        }
        (None, Ending::Whole(id)) => {
            let from = pieces.length() - tail.len();
            let id = id.map(|id| from + id.start..from + id.end);
            return Judgement { kind: Kind::Result, is_null: false, result: 0, id: id_place(id, pieces.first()) };
        }
    };
    judge_beginning(id, pieces.first(), own)
}

/// Judges a long result by its beginning `text`; `id` is the place of the id in `text`, if found
/// there.
fn judge_beginning(id: Option<Range<usize>>, text: &[u8], own: &CallId) -> Judgement {
    match id {
        Some(id) if !own.is_answered_by(&text[id.clone()]) => Judgement::alien(FOREIGN),
        Some(id) => Judgement { kind: Kind::Result, is_null: false, result: 0, id: Id::At(id) },
        None => Judgement { kind: Kind::Result, is_null: false, result: 0, id: Id::Behind },
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, Broken>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_piece(context)
    }
}
