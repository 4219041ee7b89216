//! A request that is being answered, for the body of its answer.

use std::{
    sync::{Arc, Mutex},
    task::Context,
};

use super::{Inner, Watch, lock};

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

impl Watch {
    /// The answer under way lasts for as long as the client stays.
    pub(in crate::door::http) fn streams(&self) {
        lock(&self.inner).is_stream = true;
    }

    /// Whether the request under way is a read without effect, whose client may just leave.
    pub(in crate::door::http) fn reads(&self, is_read: bool) {
        lock(&self.inner).is_read = is_read;
    }

    /// Whether the request under way is such a read.
    pub(in crate::door::http) fn is_read(&self) -> bool {
        lock(&self.inner).is_read
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
