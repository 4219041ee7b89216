//! What goes back to a client, before it is framed.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;

use super::batch::Batch;
use crate::{
    call::answer::Answer,
    domain::refusal::Refusal,
    door::{self, Piped},
    net::exchange::Broken,
};

/// A response: its status and its body, which is JSON.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Content,
}

/// A response's body.
pub(super) enum Content {
    /// In memory.
    Ready(Bytes),
    /// A node's answer.
    Answer(Answer),
    /// Many of them, in brackets.
    Batch(Batch),
    /// What another door made.
    Piped(Piped),
}

impl Reply {
    pub(super) fn answered(answer: Answer) -> Self {
        Self { status: answer.status, body: Content::Answer(answer) }
    }

    pub(super) fn refused(refusal: &Refusal, id: Option<&[u8]>) -> Self {
        Self { status: door::status(refusal), body: Content::Ready(refusal.body(id).into()) }
    }

    pub(super) fn batch(batch: Batch) -> Self {
        Self { status: 200, body: Content::Batch(batch) }
    }

    /// What notifications get.
    pub(super) fn empty() -> Self {
        Self { status: 200, body: Content::Ready(Bytes::new()) }
    }

    /// Whether the client should come back a little later.
    pub(super) fn is_passing_trouble(&self) -> bool {
        self.status == 503
    }
}

impl Content {
    /// Bytes in all, where that is known.
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::Ready(bytes) => Some(bytes.len() as u64),
            Self::Answer(answer) => answer.length(),
            Self::Batch(_) => None,
            Self::Piped(piped) => piped.length(),
        }
    }

    /// All of it, piece by piece, if it is in memory.
    pub(super) fn in_memory(&self) -> Option<impl Iterator<Item = &Bytes>> {
        let (first, more) = match self {
            Self::Ready(bytes) => (bytes, None),
            Self::Answer(answer) => answer.in_memory().map(|(first, more)| (first, Some(more)))?,
            Self::Batch(_) | Self::Piped(_) => return None,
        };
        Some(std::iter::once(first).chain(more.into_iter().flatten()))
    }

    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        match self {
            Self::Ready(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Ready(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Self::Answer(answer) => answer.poll_piece(context),
            Self::Batch(batch) => Pin::new(batch).poll_next(context),
            Self::Piped(piped) => piped.poll_piece(context),
        }
    }
}
