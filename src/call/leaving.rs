//! Whether a call is still sent after its client has closed its side.
//!
//! Rule: a call that had to wait a second for a node, and has an effect, is not sent if its client
//! has closed its side. Every other call is sent. Reason: a client that closes only its sending
//! side, as scripts do, looks the same as one that has left, so its calls go on. But a client that
//! gave up may have done something else instead, and a late transaction would then do harm.

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

/// A call that no node got within this time counts as having waited for a node.
const WAITED: Duration = Duration::from_secs(1);

/// A call that may lose its client.
#[derive(Clone, Copy, Default)]
pub(super) struct Leaving<'a> {
    /// The flag that turns true when the client has closed its side, and the call's arrival. `None`
    /// for calls that are sent in any case.
    watched: Option<(&'a AtomicBool, Instant)>,
}

impl<'a> Leaving<'a> {
    /// Watches the client of a call of this `method`.
    pub(super) fn new(terms: &Terms<'a>, method: Method) -> Self {
        let has_effect = matches!(method.class, Class::Unsafe | Class::RawTransaction);
        Self { watched: terms.left.filter(|_| has_effect).map(|left| (left, terms.arrived)) }
    }

    /// Whether the call must not be sent any more.
    pub(super) fn is_unwanted(&self) -> bool {
        self.watched.is_some_and(|(left, arrived)| left.load(Relaxed) && arrived.elapsed() >= WAITED)
    }
}

/// The gate of a call: its ticket decides when the call is written, and `leaving` whether.
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
