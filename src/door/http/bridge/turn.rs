//! A request that is being answered, for the body of its answer.

use std::{
    sync::{Arc, Mutex},
    task::Context,
};

use super::{Inner, lock};

/// A request that is being answered, until this is dropped.
pub(in crate::door::http) struct Turn(pub(super) Arc<Mutex<Inner>>);

impl Turn {
    /// Whether the client has closed its side, or its connection is lost, as far as known now.
    /// Behind more bytes than are read ahead that cannot be known, and counts as closed.
    pub(in crate::door::http) fn has_left(&self, context: &mut Context<'_>) -> bool {
        let mut inner = lock(&self.0);
        inner.look(context);
        inner.has_left() || inner.end.is_some() || inner.may_have_left()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = lock(&self.0);
        (inner.is_busy, inner.is_fresh, inner.is_stream) = (false, true, false);
        inner.came = 0;
        inner.claim.set(0);
        let running = inner.running.take();
        drop(inner);
        drop(running);
    }
}
