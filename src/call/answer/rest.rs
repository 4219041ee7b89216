//! The rest of an answer that is too long to be taken whole: what is still to be looked at as it
//! passes, and the client's id in the place of ours if it stands behind the result.

use bytes::Bytes;

use super::TAIL;
use crate::{
    domain::{
        call_id::CallId,
        json::{Seek, Walk},
    },
    net::http::Response,
};

/// What is to come of an answer.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) response: Response,
    end: End,
    /// Looks at all of the answer, if all of it is to be looked at.
    walk: Option<Box<Walk>>,
}

/// The answer is not whole, or not that of the call.
#[derive(Debug)]
pub(super) struct Torn;

/// What must be right about the end.
#[derive(Debug)]
enum End {
    /// The id was seen before the result: the last byte closes an object. Until then it is this
    /// one.
    Brace(u8),
    /// The id is still to come, wherever: behind a result there may be more than that.
    Id(Box<Behind>),
    /// Nothing: nobody waits for the answer.
    Free,
}

/// An answer whose id is looked for as it passes.
#[derive(Debug)]
struct Behind {
    own: CallId,
    /// The client's id.
    client: Bytes,
    seek: Seek,
    /// Whether the client's id has gone to the client.
    is_told: bool,
    /// What may not go to the client yet: an id that is not all there, or the end of the answer
    /// before all has come.
    held: Bytes,
}

impl Behind {
    /// Takes the next piece, and tells what can go to the client.
    fn pass(&mut self, piece: Bytes) -> Result<Option<Bytes>, Torn> {
        // How many bytes had come before what is held.
        let from = self.seek.passed() - self.held.len();
        if !self.seek.pass(&piece) {
            return Err(Torn);
        }
        let all = if self.held.is_empty() { piece } else { [&self.held[..], &piece].concat().into() };
        let until = self.seek.begun().or(self.seek.closed()).map_or(all.len(), |at| at.saturating_sub(from));
        self.held = all.slice(until..);
        // Neither a number nor white space at the end may grow for ever.
        if self.held.len() > TAIL {
            return Err(Torn);
        }
        let go = match self.seek.id().filter(|_| !self.is_told) {
            Some(id) => {
                let id = id.start - from..id.end - from;
                if !self.own.is_answered_by(&all[id.clone()]) {
                    return Err(Torn);
                }
                self.is_told = true;
                [&all[..id.start], &self.client, &all[id.end..until]].concat().into()
            }
            None => all.slice(..until),
        };
        Ok(Some(go).filter(|go| !go.is_empty()))
    }

    /// All has come: what is left for the client. If the node wrote no id, the client's goes before
    /// the closing brace.
    fn finish(&self) -> Result<Bytes, Torn> {
        let is_whole = self.seek.is_whole() && self.seek.closed().is_some();
        match (is_whole, self.is_told) {
            (false, _) => Err(Torn),
            (true, true) => Ok(self.held.clone()),
            (true, false) => Ok([b",\"id\":", &self.client[..], &self.held].concat().into()),
        }
    }
}

impl Rest {
    /// The rest of an answer whose id has been seen, or to a call that has none.
    pub(super) fn seen(response: Response, is_call: bool, walk: Option<Box<Walk>>) -> Self {
        Self { response, end: if is_call { End::Brace(0) } else { End::Free }, walk }
    }

    /// The rest of an answer in which `own` is still to come.
    pub(super) fn expecting(response: Response, own: CallId, walk: Option<Box<Walk>>) -> Self {
        let client = Bytes::copy_from_slice(own.as_bytes());
        let behind = Behind { own, client, seek: Seek::default(), is_told: false, held: Bytes::new() };
        Self { response, end: End::Id(Box::new(behind)), walk }
    }

    /// The id of the client, if ours is still to come.
    pub(super) fn set_id(&mut self, id: &[u8]) {
        if let End::Id(behind) = &mut self.end {
            behind.client = Bytes::copy_from_slice(id);
        }
    }

    /// Whether the answer passes at its length.
    pub(super) fn keeps_length(&self) -> bool {
        !matches!(self.end, End::Id { .. })
    }

    /// Takes the next piece of the answer, those in memory included, and tells what can go to the
    /// client. `is_last` when it is known that no other follows.
    ///
    /// # Errors
    /// When the answer can be none any more: what is still held must not go to the client.
    pub(super) fn pass(&mut self, piece: Bytes, is_last: bool) -> Result<Option<Bytes>, Torn> {
        if self.walk.as_mut().is_some_and(|walk| !walk.pass(&piece)) {
            return Err(Torn);
        }
        match &mut self.end {
            End::Free => Ok(Some(piece)),
            End::Brace(last) => {
                *last = piece.trim_ascii_end().last().copied().unwrap_or(*last);
                if is_last {
                    self.is_whole()?;
                }
                Ok(Some(piece))
            }
            End::Id(behind) => behind.pass(piece),
        }
    }

    /// All has come. Tells what is left for the client.
    ///
    /// # Errors
    /// When it is no answer to the call.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, Torn> {
        self.is_whole()?;
        let End::Id(behind) = &self.end else { return Ok(None) };
        let left = behind.finish()?;
        self.end = End::Free;
        Ok(Some(left).filter(|left| !left.is_empty()))
    }

    fn is_whole(&self) -> Result<(), Torn> {
        let closes = !matches!(self.end, End::Brace(last) if last != b'}');
        if closes && self.walk.as_ref().is_none_or(|walk| walk.is_whole()) { Ok(()) } else { Err(Torn) }
    }
}
