//! The rest of an answer that is too long to be taken whole: what is still to be looked at as it passes, and the client's id in the
//! place of ours if it stands behind the result.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::TAIL;
use crate::{
    domain::{
        answer::{self, Ending},
        call_id::CallId,
        json::Walk,
    },
    net::upstream::Response,
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
    /// The id was seen before the result: the last byte closes an object. Until then it is this one.
    Brace(u8),
    /// The id is still to come.
    Id { own: CallId, client: Bytes, held: VecDeque<Bytes>, length: usize },
    /// Nothing: nobody waits for the answer.
    Free,
}

impl Rest {
    /// The rest of an answer whose id has been seen, or to a call that has none.
    pub(super) fn seen(response: Response, is_call: bool, walk: Option<Box<Walk>>) -> Self {
        Self { response, end: if is_call { End::Brace(0) } else { End::Free }, walk }
    }

    /// The rest of an answer in which `own` is still to come.
    pub(super) fn expecting(response: Response, own: CallId, walk: Option<Box<Walk>>) -> Self {
        let client = Bytes::copy_from_slice(own.as_bytes());
        Self { response, end: End::Id { own, client, held: VecDeque::new(), length: 0 }, walk }
    }

    /// The id of the client, if ours is still to come.
    pub(super) fn set_id(&mut self, id: &[u8]) {
        if let End::Id { client, .. } = &mut self.end {
            *client = Bytes::copy_from_slice(id);
        }
    }

    /// Whether the answer passes at its length.
    pub(super) fn keeps_length(&self) -> bool {
        !matches!(self.end, End::Id { .. })
    }

    /// Takes the next piece of the answer, those in memory included, and tells what can go to the client. `is_last` when it is known that
    /// no other follows.
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
            End::Id { held, length, .. } => {
                *length += piece.len();
                held.push_back(piece);
                let is_spare = held.front().is_some_and(|front| *length - front.len() >= TAIL);
                let front = if is_spare { held.pop_front() } else { None };
                *length -= front.as_ref().map_or(0, Bytes::len);
                Ok(front)
            }
        }
    }

    /// All has come. Tells what is left for the client.
    ///
    /// # Errors
    /// When it is no answer to the call.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, Torn> {
        self.is_whole()?;
        let End::Id { own, client, held, .. } = &mut self.end else { return Ok(None) };
        let mut tail = BytesMut::new();
        held.drain(..).for_each(|piece| tail.extend_from_slice(&piece));
        let from = tail.len().saturating_sub(TAIL);
        let place = match answer::ending(&tail[from..]) {
            Ending::Torn => return Err(Torn),
            Ending::Whole(Some(place)) => {
                if !own.is_answered_by(&tail[from..][place.clone()]) {
                    return Err(Torn);
                }
                from + place.start..from + place.end
            }
            Ending::Whole(None) => {
                // The node wrote none: it goes before the closing brace.
                let brace = tail.trim_ascii_end().len() - 1;
                *client = [b",\"id\":", &client[..]].concat().into();
                brace..brace
            }
        };
        let all = [&tail[..place.start], client, &tail[place.end..]].concat();
        self.end = End::Free;
        Ok(Some(all.into()))
    }

    fn is_whole(&self) -> Result<(), Torn> {
        let closes = !matches!(self.end, End::Brace(last) if last != b'}');
        if closes && self.walk.as_ref().is_none_or(|walk| walk.is_whole()) { Ok(()) } else { Err(Torn) }
    }
}
