//! The calls of a batch in a row: the calls run side by side, and give their answers in order.
//!
//! Rule: the calls go on while the client takes earlier answers. Reason: a call that stood still
//! would keep its connection to a node, and the node would look slow because of the client.
//! Example: of 16 calls that run, the first has its answer, and the client takes ten seconds to
//! read the answer. The other 15 end meanwhile, and their answers wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::{StreamExt, stream::FuturesOrdered};

use super::{Entry, WIDTH};

/// The calls of a batch, which two places of one task drive by turns: the one that gives out
/// answers, and the one that writes them.
#[derive(Clone)]
pub(in crate::door::http) struct Running(Arc<Mutex<dyn Calls + Send>>);

/// Calls of any future.
trait Calls {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Entry>>;
    fn go_on(&mut self, context: &mut Context<'_>);
}

pub(super) struct Row<I, F: Future> {
    waiting: I,
    running: FuturesOrdered<F>,
    /// Answers that have not been asked for yet.
    done: VecDeque<Entry>,
}

impl<I, F> Row<I, F>
where
    I: Iterator<Item = F> + Send + 'static,
    F: Future<Output = Entry> + Send + 'static,
{
    /// Runs the calls of `waiting` in their order, a few at the same time.
    pub(super) fn over(waiting: I) -> Running {
        Running(Arc::new(Mutex::new(Self { waiting, running: FuturesOrdered::new(), done: VecDeque::new() })))
    }

    /// Begins further calls. Waiting answers count too, which bounds the memory that a slow client
    /// makes the proxy hold.
    fn begin(&mut self) {
        while self.running.len() + self.done.len() < WIDTH
            && let Some(call) = self.waiting.next()
        {
            self.running.push_back(call);
        }
    }
}

impl<I, F> Calls for Row<I, F>
where
    I: Iterator<Item = F> + Send + 'static,
    F: Future<Output = Entry> + Send + 'static,
{
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Entry>> {
        self.begin();
        match self.done.pop_front() {
            Some(entry) => Poll::Ready(Some(entry)),
            None => self.running.poll_next_unpin(context),
        }
    }

    fn go_on(&mut self, context: &mut Context<'_>) {
        self.begin();
        while let Poll::Ready(Some(entry)) = self.running.poll_next_unpin(context) {
            self.done.push_back(entry);
        }
    }
}

impl Running {
    /// The next answer in order; `None` behind the last.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Entry>> {
        self.lock().poll_next(context)
    }

    /// Drives the calls under way. Their answers wait for [`Running::poll_next`].
    pub(in crate::door::http) fn go_on(&self, context: &mut Context<'_>) {
        self.lock().go_on(context);
    }

    /// Both places that drive the calls are in one task, so the lock is always free. After a panic
    /// in one call the others are whole.
    fn lock(&self) -> MutexGuard<'_, dyn Calls + Send + 'static> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
