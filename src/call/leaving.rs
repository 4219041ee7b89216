//! Whether a client that has closed its side still waits for its call.
//!
//! One that closes only its sending side, as scripts do, looks the same as one that has left. So a
//! call goes on behind the end of what a client sends; but what has an effect and had to wait for a
//! node is not sent any more, since whoever sent it may have given it up and done something else.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::Terms;
use crate::{
    domain::method::{Class, Method},
    exchange::queue::Ticket,
    net::http::Gate,
};

/// A call that is not on its way to a node after so long has had to wait for one.
const WAITED: Duration = Duration::from_secs(1);

/// A call that may lose its client.
#[derive(Clone, Copy, Default)]
pub(super) struct Leaving<'a> {
    /// What turns true when the client has closed its side, and when the call came. Nothing where
    /// that changes nothing.
    watched: Option<(&'a AtomicBool, Instant)>,
}

impl<'a> Leaving<'a> {
    /// Looks after a call of this `method`.
    pub(super) fn new(terms: &Terms<'a>, method: Method) -> Self {
        let has_effect = matches!(method.class, Class::Unsafe | Class::RawTransaction);
        Self { watched: terms.left.filter(|_| has_effect).map(|left| (left, terms.arrived)) }
    }

    /// Whether the call must not be sent any more.
    pub(super) fn is_unwanted(&self) -> bool {
        self.watched.is_some_and(|(left, arrived)| left.load(Relaxed) && arrived.elapsed() >= WAITED)
    }
}

/// The place of a call among those that have left the queue, and its last chance not to be sent.
pub(super) struct Wanted<'g, 't> {
    pub(super) turn: &'g mut Option<Ticket<'t>>,
    pub(super) leaving: Leaving<'g>,
}

impl Gate for Wanted<'_, '_> {
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.turn.poll_open(context)
    }

    fn is_shut(&self) -> bool {
        self.leaving.is_unwanted()
    }

    fn written(&mut self) {
        self.turn.written();
    }
}
