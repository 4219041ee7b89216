//! The body of a client's request: kept in memory if the request may have to be sent again, passed
//! on piece by piece otherwise.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use super::{
    idle::Idle,
    room::{Room, Share},
};
use crate::{
    domain::{client::Peer, pace::CLIENT_RATE},
    memory::{Claim, grown, make_room},
    net::http::Body,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

/// The pieces of a body, in the order in which the client sends them.
pub type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A request's body.
pub struct Upload {
    /// The beginning of the body, or the whole body.
    kept: Bytes,
    /// The pieces behind the beginning.
    rest: Option<Pieces>,
    length: Option<u64>,
    /// Whether pieces have been passed on, and so are gone.
    begun: bool,
    failed: Option<io::Error>,
    idle: Idle,
    /// The body's part of the room for bodies, for as long as a copy of the body exists.
    memory: Option<Arc<KeptMemory>>,
    /// The client's memory, to count the kept bytes.
    claim: Option<Claim>,
}

/// The room and the memory that a kept body takes.
#[derive(Debug)]
struct KeptMemory {
    #[expect(dead_code, reason = "it is only held, and given back with this")]
    share: Share,
    claim: Option<Claim>,
}

/// A body in memory, with its share of the room.
#[derive(Debug)]
pub(super) struct Whole {
    bytes: Bytes,
    memory: Option<Arc<KeptMemory>>,
}

impl Whole {
    /// An upload of the body.
    pub(super) fn upload(&self) -> Upload {
        Upload { memory: self.memory.clone(), ..Upload::whole(self.bytes.clone()) }
    }

    /// An upload of these bytes, which are a part of the body.
    pub(super) fn upload_part(&self, bytes: Bytes) -> Upload {
        Upload { memory: self.memory.clone(), ..Upload::whole(bytes) }
    }

    /// Bytes in memory.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of the body.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The address of the client, where that is known.
    pub(super) fn client(&self) -> Option<Peer> {
        self.memory.as_ref()?.claim.as_ref()?.account().client()
    }

    /// An empty claim on the memory that all clients share, for data that outlives the client's
    /// connection.
    pub(super) fn claim_beside(&self) -> Option<Claim> {
        self.memory.as_ref()?.claim.as_ref().map(Claim::beside)
    }
}

/// Whether a body is in memory now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Whole,
    /// The body is longer than a kept body may be.
    TooLong,
    /// Other bodies take up the room.
    NoRoom,
}

impl Upload {
    /// A body in memory.
    pub fn whole(kept: Bytes) -> Self {
        let length = Some(kept.len() as u64);
        let idle = Idle::new(CLIENT_RATE);
        Self { kept, rest: None, length, begun: false, failed: None, idle, memory: None, claim: None }
    }

    /// A body that comes piece by piece, `length` bytes in all where that is known.
    pub fn streamed(rest: Pieces, length: Option<u64>) -> Self {
        Self {
            kept: Bytes::new(),
            rest: Some(rest),
            length,
            begun: false,
            failed: None,
            idle: Idle::new(CLIENT_RATE),
            memory: None,
            claim: None,
        }
    }

    /// Has the kept bytes count for `claim`.
    pub fn counted(self, claim: Claim) -> Self {
        Self { claim: Some(claim), ..self }
    }

    /// Takes the body into memory if the body is not longer than `limit`, and fits into the
    /// client's share of the `room`.
    pub(super) async fn keep(&mut self, limit: usize, room: &Arc<Room>) -> io::Result<Kept> {
        if self.rest.is_none() {
            return Ok(Kept::Whole);
        }
        if self.length.is_some_and(|length| length > limit as u64) {
            return Ok(Kept::TooLong);
        }
        let total = self.length.map_or(limit, |length| length as usize);
        let mut bytes = BytesMut::new();
        let mut share = room.request(self.claim.as_ref().and_then(|claim| claim.account().client()));
        // Room is taken as bytes come: an announced length alone costs other clients nothing.
        let kept = loop {
            // Both arms are cancel-safe.
            let piece = tokio::select! {
                biased;
                () = share.gives_way() => return Err(self.is_too_slow()),
                piece = poll_fn(|context| self.poll_rest(context)) => piece,
            };
            let Some(piece) = piece.transpose()? else {
                self.length = Some(bytes.len() as u64);
                break Kept::Whole;
            };
            let more = grown(bytes.capacity(), bytes.len() + piece.len(), total);
            if self.claim.as_mut().is_some_and(|claim| claim.resize(more).is_err()) {
                let rest = self.rest.take().unwrap_or_else(|| Box::pin(stream::empty()));
                self.rest = Some(Box::pin(stream::iter([Ok(piece)]).chain(rest)));
                break Kept::NoRoom;
            }
            make_room(&mut bytes, more);
            bytes.extend_from_slice(&piece);
            if bytes.len() > limit {
                break Kept::TooLong;
            }
            if !share.grow(piece.len()) {
                break Kept::NoRoom;
            }
        };
        if !share.has_come() {
            return Err(self.is_too_slow());
        }
        self.kept = bytes.freeze();
        self.memory = Some(Arc::new(KeptMemory { share, claim: self.claim.take() }));
        Ok(kept)
    }

    fn is_too_slow(&mut self) -> io::Error {
        self.failed = Some(io::ErrorKind::TimedOut.into());
        io::ErrorKind::TimedOut.into()
    }

    /// The body, which is gone from here.
    pub(super) fn take(&mut self) -> Self {
        let left = Self { begun: true, ..Self::whole(Bytes::new()) };
        std::mem::replace(self, left)
    }

    /// Bytes of the body, where the length is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// The whole body, if all of it is in memory.
    pub(super) fn in_memory(&self) -> Option<Whole> {
        self.rest.is_none().then(|| Whole { bytes: self.kept.clone(), memory: self.memory.clone() })
    }

    /// Bytes in memory.
    pub(super) fn weight(&self) -> usize {
        self.kept.len()
    }

    /// Whether the body can be sent, for the first time or again.
    pub(super) fn is_there(&self) -> bool {
        !self.begun
    }

    /// Why the client stopped sending the body.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failed.take()
    }

    /// The body in the form for the HTTP client.
    pub(super) fn body(&mut self) -> Body<'_> {
        if self.rest.is_none() {
            return Body::Whole(&self.kept);
        }
        let length = self.length;
        let pieces: Pin<&mut Self> = Pin::new(self);
        Body::Streamed { pieces, length }
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        let next = rest.as_mut().poll_next(context);
        let late = || Some(Err(io::ErrorKind::TimedOut.into()));
        let bytes = |next: &Option<io::Result<Bytes>>| match next {
            Some(Ok(piece)) => piece.len(),
            _ => 0,
        };
        match ready!(self.idle.watch(context, next, bytes)).unwrap_or_else(late) {
            Some(Ok(piece)) => Poll::Ready(Some(Ok(piece))),
            Some(Err(error)) => {
                self.failed = Some(error.kind().into());
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.rest = None;
                Poll::Ready(None)
            }
        }
    }
}

/// The pieces to pass on: the kept beginning, then the rest.
impl Stream for Upload {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.begun = true;
        if !self.kept.is_empty() {
            self.memory = None;
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.kept))));
        }
        self.poll_rest(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Account, Budget};

    fn coming(pieces: &'static [&'static str], length: Option<u64>) -> Upload {
        let pieces = stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))));
        Upload::streamed(Box::pin(pieces), length)
    }

    async fn passed_on(upload: Upload) -> String {
        let pieces: Vec<Bytes> = upload.map(Result::unwrap).collect().await;
        String::from_utf8(pieces.concat()).unwrap()
    }

    #[tokio::test]
    async fn a_body_is_kept_up_to_the_limit_and_loses_nothing_beyond_it() {
        let mut short = coming(&["abc", "def"], None);
        assert_eq!(short.keep(6, &Room::new(7)).await.unwrap(), Kept::Whole);
        assert_eq!(short.in_memory().unwrap().bytes, "abcdef");
        for length in [None, Some(7)] {
            let mut long = coming(&["abc", "def", "g"], length);
            assert_eq!(long.keep(6, &Room::new(100)).await.unwrap(), Kept::TooLong);
            assert!(long.in_memory().is_none() && long.is_there());
            assert_eq!(long.weight(), if length.is_some() { 0 } else { 7 });
            assert_eq!(passed_on(long).await, "abcdefg");
        }
    }

    #[tokio::test]
    async fn bodies_share_the_room_and_what_does_not_fit_loses_nothing() {
        let room = Room::new(10);
        let mut first = coming(&["abc", "def"], Some(6));
        assert_eq!(first.keep(100, &room).await.unwrap(), Kept::Whole);
        assert_eq!(room.free(), 4);
        let mut second = coming(&["abc", "def", "g"], Some(7));
        assert_eq!(second.keep(100, &room).await.unwrap(), Kept::NoRoom);
        assert!(second.in_memory().is_none());
        assert_eq!(passed_on(second).await, "abcdefg");
        // Each copy of the body holds the room.
        let copy = first.in_memory().unwrap().upload();
        drop(first);
        assert_eq!(room.free(), 4);
        drop(copy);
        assert_eq!(room.free(), 10);
    }

    #[tokio::test]
    async fn a_body_takes_no_memory_beyond_the_limit() {
        const PIECE: &[u8] = &[b'x'; 16 << 10];
        let budget = Budget::new(1 << 20);
        let claim = Account::open(&budget).incoming();
        let pieces = stream::iter((0..64).map(|_| Ok(Bytes::from_static(PIECE))));
        let mut upload = Upload::streamed(Box::pin(pieces), None).counted(claim);
        assert_eq!(upload.keep(usize::MAX, &Room::new(1 << 30)).await.unwrap(), Kept::NoRoom);
        assert!(budget.held() <= 3 << 18, "{}", budget.held());
        assert_eq!(passed_on(upload).await.len(), 64 * PIECE.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_in_the_middle_has_failed() {
        let pieces = stream::iter([Ok(Bytes::from_static(b"abc"))]).chain(stream::pending());
        let mut upload = Upload::streamed(Box::pin(pieces), None);
        assert_eq!(upload.keep(100, &Room::new(100)).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(upload.failure().is_some());
    }
}
