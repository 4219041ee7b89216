//! Between hyper and a client's stream: does three things that hyper does not do.
//!
//! - A request line may be longer than hyper can hold. Its query is taken out, and travels beside
//!   the request.
//! - A refusal of hyper's own has no body. That answer is held back, and given another form.
//! - While a request is answered, hyper does not look at the client. A client that closes its side
//!   may still wait for its answer; a client whose connection is lost does not.

mod rest;
mod turn;
mod words;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

pub(super) use self::rest::{End, Refusal, Rest};
pub(super) use self::turn::Turn;
use self::words::{Line, Part, begins_a_request};
use super::{ARRIVAL, batch::Running};
use crate::{
    door::{LongQuery, last_words::refusal, stall::Stall},
    memory::Claim,
};

/// The longest request line that goes to hyper unchanged.
const UNCHANGED_REQUEST_LINE: usize = 8 * 1024;
/// The longest line that is read. The beacon API accepts a little less.
const MAX_REQUEST_LINE: usize = 132 * 1024;
/// How many bytes of further requests are read while a request is answered.
const MAX_AHEAD: usize = 8 * 1024;
/// A head up to this size is not counted against memory.
const UNCOUNTED: usize = 8 * 1024;
/// The text in the place of a long line's query.
pub(super) const STAND_IN: &str = "steadfast-long-query";
/// Bytes that hyper refuses as a request.
const NONSENSE: &[u8] = b"\0\r\n\r\n";
const TOO_MANY: &str = "too many long request lines are under way: come again";
const NO_ROOM: &str = "max_client_memory is reached: come again";

/// The side of the stream that hyper uses.
pub(super) struct Bridge(Arc<Mutex<Inner>>);

/// The side of the stream for the code that drives hyper.
pub(super) struct Watch {
    inner: Arc<Mutex<Inner>>,
    /// Turns true when the client has closed its side.
    pub(super) left: Arc<AtomicBool>,
}

struct Inner {
    stall: Stall,
    left: Arc<AtomicBool>,
    /// Bytes that were read and not given to hyper.
    ahead: BytesMut,
    /// How many of these bytes were searched for the end of a line.
    looked: usize,
    /// The deadline for the head of a request that has begun.
    head: Option<Pin<Box<Sleep>>>,
    /// Whether the head of a request has not come in time.
    is_late: bool,
    /// Whether hyper waits for bytes.
    is_wanted: bool,
    /// Whether a request is being answered.
    is_busy: bool,
    /// Whether the next bytes for hyper begin a request, as far as is known; otherwise `part` says
    /// to which part of a request they belong.
    is_fresh: bool,
    part: Part,
    /// Whether the answer under way lasts for as long as the client stays.
    is_stream: bool,
    /// Whether the request under way is a read without effect.
    is_read: bool,
    /// The end that the client made meanwhile, until that is told.
    end: Option<End>,
    /// Whether something was written since this was asked last.
    has_written: bool,
    /// The calls of the batch that is being answered.
    running: Option<Running>,
    /// Whether the request under way is for the beacon API.
    is_beacon: bool,
    /// Whether the request under way asks for a head alone.
    is_head: bool,
    /// An answer that looks like a refusal of hyper's own.
    held: Bytes,
    /// The refusal for the request, where the bridge knows a better one than hyper.
    wrong: Option<(StatusCode, Option<&'static str>)>,
    long: Option<Arc<LongQuery>>,
    /// Whether the client's further bytes are read, because it might otherwise miss the refusal.
    lingers: bool,
    places: Arc<Semaphore>,
    place: Option<OwnedSemaphorePermit>,
    /// The bytes of a request's head so far, which hyper keeps until the head is whole, and their
    /// memory for as long as the request lasts.
    came: usize,
    claim: Claim,
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Both ends of a stream. Long request lines take a place of `places`, and heads count for `claim`.
pub(super) fn bridge(stall: Stall, places: Arc<Semaphore>, claim: Claim) -> (Bridge, Watch) {
    let left = Arc::new(AtomicBool::new(false));
    let inner = Arc::new(Mutex::new(Inner {
        stall,
        left: left.clone(),
        ahead: BytesMut::new(),
        looked: 0,
        head: None,
        is_late: false,
        is_wanted: false,
        is_busy: false,
        is_fresh: true,
        part: Part::All,
        is_stream: false,
        is_read: false,
        end: None,
        has_written: false,
        running: None,
        is_beacon: false,
        is_head: false,
        held: Bytes::new(),
        wrong: None,
        long: None,
        lingers: false,
        places,
        place: None,
        came: 0,
        claim,
    }));
    (Bridge(inner.clone()), Watch { inner, left })
}

impl Watch {
    /// A request begins to be answered. `body` is the length of its body, if known. Returns the
    /// query that was taken out of the request.
    pub(super) fn begin(&self, body: Option<u64>) -> (Turn, Option<Arc<LongQuery>>) {
        let mut inner = lock(&self.inner);
        inner.part = body.map_or(Part::All, Part::Body);
        inner.is_busy = true;
        inner.head = None;
        (Turn(self.inner.clone()), inner.long.take())
    }

    /// These calls are under way while the answer is written.
    pub(super) fn runs(&self, running: &Running) {
        lock(&self.inner).running = Some(running.clone());
    }

    /// Drives the calls under way, also while the client takes no bytes.
    pub(super) fn go_on(&self, context: &mut Context<'_>) {
        if let Some(running) = &lock(&self.inner).running {
            running.go_on(context);
        }
    }

    /// Whether the client has closed its side.
    pub(super) fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }

    /// The request was refused before all of its bytes had come.
    pub(super) fn linger(&self) {
        lock(&self.inner).lingers = true;
    }

    /// Whether bytes were written since the last call.
    pub(super) fn take_written(&self) -> bool {
        std::mem::take(&mut lock(&self.inner).has_written)
    }

    /// Completes when the client ends its side while a request is answered.
    pub(super) fn poll_end(&self, context: &mut Context<'_>) -> Poll<End> {
        let mut inner = lock(&self.inner);
        inner.look(context);
        match inner.end.take() {
            Some(end) => Poll::Ready(end),
            None if inner.has_left() && inner.is_busy && inner.is_stream => Poll::Ready(End::Lost),
            None => Poll::Pending,
        }
    }
}

impl Inner {
    fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }

    /// Looks at what the client does while a request is answered.
    fn look(&mut self, context: &mut Context<'_>) {
        while self.is_busy && !self.is_wanted && !self.has_left() && self.end.is_none() && self.ahead.len() < MAX_AHEAD
        {
            let Poll::Ready(read) = self.poll_fill(context) else { return };
            self.end = match read {
                Ok(0) if self.is_stream => Some(End::Lost),
                Ok(0) => Some(End::Half),
                Ok(_) => None,
                Err(_) => Some(End::Lost),
            };
        }
    }

    /// Whether the client may have closed its side, behind more bytes than are read ahead.
    fn may_have_left(&self) -> bool {
        self.ahead.len() >= MAX_AHEAD
    }

    /// Reads on; 0 at the end of what the client sends.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let count = ready!(self.stall.poll_fill(context, &mut self.ahead))?;
        if count == 0 {
            self.left.store(true, Relaxed);
        }
        if !self.is_busy {
            self.came += count;
            if self.came > UNCOUNTED && self.claim.resize(self.came).is_err() {
                self.refuse(StatusCode::SERVICE_UNAVAILABLE, Some(NO_ROOM));
            }
        }
        Poll::Ready(Ok(count))
    }

    /// Waits for bytes to give to hyper.
    fn poll_wanted(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(context))?;
        self.is_wanted = true;
        if self.is_fresh {
            ready!(self.poll_begin(context))?;
        }
        if self.ahead.is_empty() && !self.has_left() {
            ready!(self.poll_fill(context))?;
        }
        Poll::Ready(Ok(()))
    }

    fn head_begins(&mut self) {
        self.head.get_or_insert_with(|| Box::pin(sleep(ARRIVAL)));
    }

    /// Ready when the head of a request that has begun has not come in time.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_busy && !self.ahead.is_empty() {
            self.head_begins();
        }
        let Some(head) = self.head.as_mut().filter(|_| !self.is_busy) else { return Poll::Pending };
        ready!(head.as_mut().poll(context));
        self.is_late = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads until the first line of a request is known, and shortens a long line.
    fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.part = Part::Head { is_line_empty: false };
        loop {
            let (length, end) = match self.line() {
                Line::Odd => {
                    self.part = Part::All;
                    break;
                }
                Line::Whole(end) => (end, Some(end)),
                Line::Part(length) => (length, None),
            };
            if length > MAX_REQUEST_LINE {
                self.refuse(StatusCode::URI_TOO_LONG, None);
                break;
            }
            if let Some(end) = end {
                if length > UNCHANGED_REQUEST_LINE {
                    // Only whole lines take a place, so that lines which do not end keep no client
                    // out.
                    self.place = self.places.clone().try_acquire_owned().ok();
                    if self.place.is_some() {
                        self.shorten(end);
                    } else {
                        self.refuse(StatusCode::SERVICE_UNAVAILABLE, Some(TOO_MANY));
                    }
                }
                break;
            }
            // More bytes may show that the line is wrong.
            if self.has_left() || ready!(self.poll_fill(context))? == 0 || self.wrong.is_some() {
                break;
            }
        }
        (self.place, self.looked, self.is_fresh) = (None, 0, false);
        Poll::Ready(Ok(()))
    }

    /// The state of the first line.
    fn line(&mut self) -> Line {
        let end = self.ahead[self.looked..].iter().position(|&b| b == b'\n').map(|at| self.looked + at);
        self.looked = self.ahead.len();
        let line = &self.ahead[..end.unwrap_or(self.ahead.len())];
        self.is_head = line.starts_with(b"HEAD ");
        if !begins_a_request(line) {
            return Line::Odd;
        }
        self.is_beacon = line[..line.len().min(100)].windows(6).any(|part| part == b"/eth/v");
        end.map_or(Line::Part(line.len()), Line::Whole)
    }

    /// Takes the query out of a request line that ends at `end`.
    fn shorten(&mut self, end: usize) {
        let Ok(line) = std::str::from_utf8(&self.ahead[..end]) else { return };
        let mut words = line.trim_end_matches('\r').split(' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return;
        };
        let Some((path, query)) = target.split_once('?') else {
            // A path without a query is never so long.
            return self.refuse(StatusCode::URI_TOO_LONG, None);
        };
        let Some(place) = self.place.take() else { return };
        if path.len() > UNCHANGED_REQUEST_LINE {
            return self.refuse(StatusCode::URI_TOO_LONG, None);
        }
        let line = format!("{method} {path}?{STAND_IN} {version}\r\n");
        let long = LongQuery::new(query, place);
        let mut shorter = BytesMut::from(line.as_bytes());
        shorter.extend_from_slice(&self.ahead[end + 1..]);
        (self.ahead, self.long) = (shorter, Some(Arc::new(long)));
    }

    /// Has hyper refuse the request, which is not read any further.
    fn refuse(&mut self, status: StatusCode, why: Option<&'static str>) {
        self.wrong = Some((status, why));
        self.ahead = NONSENSE.into();
        self.part = Part::All;
    }

    /// Notes whether bytes were written.
    fn wrote(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.has_written |= matches!(outcome, Poll::Ready(Ok(1..)));
        outcome
    }

    /// Writes the held bytes, which were no refusal.
    fn poll_release(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let outcome = Pin::new(&mut self.stall).poll_write(context, &self.held);
            let count = ready!(self.wrote(outcome))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl Read for Bridge {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if inner.poll_wanted(context)?.is_pending() {
            return inner.poll_late(context);
        }
        inner.is_wanted = false;
        if !inner.is_busy && !inner.ahead.is_empty() {
            inner.head_begins();
        }
        let most = inner.ahead.len().min(into.remaining());
        let (count, part) = inner.part.of(&inner.ahead[..most]);
        inner.part = part;
        into.put_slice(&inner.ahead[..count]);
        inner.ahead.advance(count);
        if inner.ahead.is_empty() {
            // An idle connection holds no buffer.
            inner.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Bridge {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_release(context))?;
        if !inner.is_busy
            && let Some(at) = refusal(bytes)
        {
            if at == 0 {
                inner.held = Bytes::copy_from_slice(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            let outcome = Pin::new(&mut inner.stall).poll_write(context, &bytes[..at]);
            return inner.wrote(outcome);
        }
        let outcome = Pin::new(&mut inner.stall).poll_write(context, bytes);
        inner.wrote(outcome)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let is_busy = lock(&self.0).is_busy;
        let last = slices.iter().rposition(|slice| !slice.is_empty());
        let first = slices.iter().position(|slice| !slice.is_empty());
        match (first, last) {
            _ if is_busy => {}
            (Some(first), Some(last)) if first == last => return self.poll_write(context, &slices[first]),
            // The last slice may be a refusal, and is looked at in the next write.
            (Some(_), Some(last)) => {
                let mut inner = lock(&self.0);
                ready!(inner.poll_release(context))?;
                let outcome = Pin::new(&mut inner.stall).poll_write_vectored(context, &slices[..last]);
                return inner.wrote(outcome);
            }
            _ => {}
        }
        let mut inner = lock(&self.0);
        ready!(inner.poll_release(context))?;
        let outcome = Pin::new(&mut inner.stall).poll_write_vectored(context, slices);
        inner.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        lock(&self.0).stall.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stall).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).stall).poll_shutdown(context)
    }
}
