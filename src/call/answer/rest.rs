//! The rest of an answer that is too long to be read whole: checks the rest as it passes, and
//! replaces the proxy's id by the client's if the id stands behind the result.

use bytes::Bytes;

use super::TAIL;
use crate::{
    domain::{
        call_id::CallId,
        json::{Seek, Walk},
    },
    net::http::Response,
};

/// The rest of an answer.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) response: Response,
    end: End,
    /// Checks the JSON of the whole answer, if the settings want that.
    walk: Option<Box<Walk>>,
}

/// The answer is not whole, or is that of another call.
#[derive(Debug)]
pub(super) struct Torn;

/// The check at the end of an answer.
#[derive(Debug)]
enum End {
    /// The id was seen before the result, so the last byte must close an object. Holds the last
    /// byte so far.
    Brace(u8),
    /// The id is still to come, perhaps not as the last member.
    Id(Box<Behind>),
    /// No check: the call has no id.
    Free,
}

/// Searches the passing answer for the id.
#[derive(Debug)]
struct Behind {
    own: CallId,
    /// The client's id.
    client: Bytes,
    seek: Seek,
    /// Whether the client's id was passed on.
    is_told: bool,
    /// Bytes that are held back: an id that is not complete, or the closing brace before the end.
    held: Bytes,
}

impl Behind {
    /// Takes the next piece, and returns the bytes that may go to the client.
    fn pass(&mut self, piece: Bytes) -> Result<Option<Bytes>, Torn> {
        // The offset of the held bytes in the answer.
        let from = self.seek.passed() - self.held.len();
        if !self.seek.pass(&piece) {
            return Err(Torn);
        }
        let all = if self.held.is_empty() { piece } else { [&self.held[..], &piece].concat().into() };
        let until = self.seek.begun().or(self.seek.closed()).map_or(all.len(), |at| at.saturating_sub(from));
        self.held = all.slice(until..);
        // Bounds the held bytes: a number and white space at the end may be of any length.
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

    /// Ends the answer, and returns the held bytes. If the node wrote no id, the client's goes
    /// before the closing brace.
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
    /// The rest of an answer whose id was seen, or to a call without an id.
    pub(super) fn seen(response: Response, is_call: bool, walk: Option<Box<Walk>>) -> Self {
        Self { response, end: if is_call { End::Brace(0) } else { End::Free }, walk }
    }

    /// The rest of an answer in which `own` is still to come.
    pub(super) fn expecting(response: Response, own: CallId, walk: Option<Box<Walk>>) -> Self {
        let client = Bytes::copy_from_slice(own.as_bytes());
        let behind = Behind { own, client, seek: Seek::default(), is_told: false, held: Bytes::new() };
        Self { response, end: End::Id(Box::new(behind)), walk }
    }

    /// Sets the client's id, if the proxy's is still to come.
    pub(super) fn set_id(&mut self, id: &[u8]) {
        if let End::Id(behind) = &mut self.end {
            behind.client = Bytes::copy_from_slice(id);
        }
    }

    /// Whether the answer is as long for the client as the node sent it.
    pub(super) fn keeps_length(&self) -> bool {
        !matches!(self.end, End::Id { .. })
    }

    /// Takes the next piece of the answer, pieces in memory included, and returns the bytes that
    /// may go to the client. `is_last`: no other piece follows.
    ///
    /// # Errors
    /// When the answer proves broken or another call's: held bytes must not go to the client.
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

    /// Ends the answer, and returns the held bytes.
    ///
    /// # Errors
    /// When the answer is not whole or has the id of another call.
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
