//! A node's answer to one call: the beginning that was looked at, and the rest that is not.

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
    },
    exchange::pieces::Pieces,
    memory::{Account, Claim, Full, SMALL, STREAM},
    net::http::{Broken, Framing, Response},
};

pub mod receipt;
mod rest;

/// Up to this many bytes an answer is taken whole before the client sees its first byte, so that
/// the loss of the node in the middle of it is made good by another.
const HELD_BACK: usize = 256 * 1024;
/// Up to this many bytes every answer is looked at whole.
const ALWAYS_WHOLE: usize = 16 * 1024;
/// How far an answer is searched for what tells a result from an error.
const MAX_LOOK: usize = 64 * 1024;
/// The longest error that is read.
const MAX_ERROR: usize = 1024 * 1024;
/// How far a result is searched for the height that it shows.
const MAX_HEIGHT_LOOK: usize = 4096;
/// How much of a long answer's end is looked at.
const TAIL: usize = 4096;
/// The keys that heights stand behind. To prepare a search costs more than to search a short
/// answer.
static KEYS: LazyLock<[Finder<'static>; 3]> =
    LazyLock::new(|| ["\"result\"", "\"number\"", "\"blockNumber\""].map(Finder::new));

/// What kind of answer it is.
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
    /// The node that gave a result, by its index in the pool.
    pub node: Option<usize>,
    /// In how many seconds to come again, of one that a node refused for quota.
    pub retry_after: Option<u32>,
    /// Whether the result is `null`.
    pub is_null: bool,
    /// Where the result begins in what is in memory, if that is known; 0 otherwise.
    result: usize,
    pieces: Pieces,
    /// In a box, since few answers have one, and every answer is moved several times.
    rest: Option<Box<Rest>>,
    id: Id,
    /// What it takes of its client's memory.
    claim: Option<Claim>,
    /// Who is told whether it has left. In a box, as above.
    receipt: Option<Box<Receipt>>,
}

/// Why an answer could not be read.
#[derive(Debug)]
pub enum Unread {
    /// The connection was lost.
    Broken(Broken),
    /// There is no room for it.
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

/// Where our id stands in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    /// Here among what is in memory. An empty range is the place for a member that the node left
    /// out.
    At(Range<usize>),
    /// In what is still to come.
    Behind,
    /// The call has none.
    None,
}

/// What looking at an answer tells.
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

/// An answer with the id of another call, which the node may have in mind still.
const FOREIGN: &str = "the answer is to another call";
const TORN: &str = "the answer ends in the middle";

impl Answer {
    /// Takes as much of `response` as it needs to tell what it is, and all of it if it is short.
    /// `own` is the id that the call was sent with; `heard` is called as bytes come. The connection
    /// of what is no answer is closed. What it takes beyond a little is `memory`'s.
    ///
    /// # Errors
    /// When the connection is lost before that, or there is no room for it.
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
            Some(memory) if bytes > SMALL => claim.get_or_insert_with(|| memory.outgoing()).resize(bytes),
            _ => Ok(()),
        };
        let (mut beginning, mut ended, mut looked) = (Beginning::Incomplete, false, 0);
        while !ended {
            let piece = poll_fn(|context| response.poll_next(context)).await;
            heard();
            match piece {
                Some(piece) => {
                    pieces.push(piece?);
                    hold(pieces.length())?;
                }
                None => ended = true,
            }
            if ended && response.head.framing == Framing::UntilClose && !json::is_whole(pieces.join(usize::MAX)) {
                // Nothing else tells such an answer's end from the node's.
                return Err(Broken::Lost { error: io::ErrorKind::UnexpectedEof.into(), started: true }.into());
            }
            ended |= response.is_done();
            if ended && pieces.length() <= ALWAYS_WHOLE {
                break;
            }
            // What comes in small pieces is looked at when there is twice as much, not anew for
            // each.
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
        // What comes next on the connection may be the answer to the call, or anything.
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

    /// An answer that came as one text over a link, with our id at `id`; to a notification it is
    /// empty.
    pub fn whole(text: Bytes, id: Range<usize>) -> Self {
        let judgement = match Envelope::read(&text) {
            Ok(envelope) => judge(envelope, &text),
            Err(why) => Judgement::alien(why),
        };
        let id = if id.is_empty() { Id::None } else { Id::At(id) };
        Self::judged(Judgement { id, ..judgement }, text.into())
    }

    /// An answer of our own making, in a node's stead: with this result, as JSON.
    pub fn made(result: &str) -> Self {
        const HEAD: &str = r#"{"jsonrpc":"2.0","id":"#;
        let text = Bytes::from(format!(r#"{HEAD}0,"result":{result}}}"#));
        let id = Id::At(HEAD.len()..HEAD.len() + 1);
        Self::judged(Judgement { kind: Kind::Result, is_null: false, result: 0, id }, text.into())
    }

    /// An answer that is in memory as far as it has come.
    fn judged(Judgement { kind, is_null, result, id }: Judgement, pieces: Pieces) -> Self {
        Self {
            status: 200,
            kind,
            node: None,
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

    /// Has `receipt` told whether the answer leaves.
    pub fn expect(&mut self, receipt: Receipt) {
        self.receipt = Some(Box::new(receipt));
    }

    /// Whether somebody is to be told.
    pub fn is_expected(&self) -> bool {
        self.receipt.is_some()
    }

    /// Who is to be told whether the answer leaves, for whoever takes only its text.
    pub fn take_receipt(&mut self) -> Option<Receipt> {
        self.receipt.take().map(|receipt| *receipt)
    }

    /// Puts the client's `id` in the place of ours, byte for byte.
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

    /// Has an answer that came whole counted as `memory`'s.
    ///
    /// # Errors
    /// When there is no room for it.
    pub(super) fn charge_to(&mut self, memory: &Arc<Account>) -> Result<(), Full> {
        if self.pieces.length() > SMALL {
            self.claim.get_or_insert_with(|| memory.outgoing()).resize(self.pieces.length())?;
        }
        Ok(())
    }

    /// Has its claim be what it takes now: all of it is there already.
    fn count(&mut self) {
        let stream = if self.rest.is_some() { STREAM } else { 0 };
        if let Some(claim) = &mut self.claim {
            claim.set(self.pieces.length() + stream);
        }
    }

    /// Replaces what is in memory, where `concealed` has another text for it.
    pub fn conceal(&mut self, concealed: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
        if let Some(text) = concealed(self.pieces.join(usize::MAX)) {
            if self.id != Id::None {
                self.id = Envelope::read(&text).map_or(Id::None, |envelope| id_place(envelope.id, &text));
            }
            (self.pieces, self.result) = (Bytes::from(text).into(), 0);
        }
    }

    /// As much of it as is in memory, in one piece.
    pub fn beginning(&mut self) -> &Bytes {
        self.pieces.join(usize::MAX)
    }

    /// The error that the node returned, if it can be read.
    pub fn error(&mut self) -> Option<NodeError<'_>> {
        NodeError::read(self.pieces.join(usize::MAX))
    }

    /// The height that the result shows, where `tells` says that it shows one.
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

    /// Whether `words` occur in what is in memory.
    pub fn shows(&self, words: &str) -> bool {
        memchr::memmem::find(self.pieces.first(), words.as_bytes()).is_some()
    }

    /// Bytes in all, where that is known.
    pub fn length(&self) -> Option<u64> {
        let ready = self.pieces.length() as u64;
        match &self.rest {
            None => Some(ready),
            Some(rest) if !rest.keeps_length() => None,
            Some(rest) => rest.response.head.length().map(|left| ready + left),
        }
    }

    /// All of it, the first piece and those behind it, if it is in memory.
    pub fn in_memory(&self) -> Option<(&Bytes, &VecDeque<Bytes>)> {
        self.rest.is_none().then_some((self.pieces.first(), self.pieces.more()))
    }

    /// The next piece. An answer that turns out to be none ends in an error: what the client has of
    /// it is not whole, and its connection is to be closed.
    pub fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        // The piece before has been written by now, or has a claim of its own: until then it counts
        // as this answer's.
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

/// What an answer is that nobody waits for.
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

/// The place of an id that a node wrote at `id`, or of a member for one that it did not write.
fn id_place(id: Option<Range<usize>>, text: &[u8]) -> Id {
    // Whoever asks has seen the opening brace.
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

/// The quantity that stands at the beginning of `value`, a string.
fn quantity(value: &[u8]) -> Option<u64> {
    let value = value.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', value)?;
    hex::quantity(&value[..end])
}

/// Judges a long result by its beginning, with the id there if it is, and its end.
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

/// Judges a long result by its beginning, `text`, with the id there if it is.
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
