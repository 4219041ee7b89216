//! The calls of a batch in a row: they run side by side, and give their answers in order.
//!
//! They go on while their client takes what came before. A call that stood still meanwhile would
//! keep its connection to a node, and its node would look slow for the client's sake.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::{StreamExt, stream::FuturesOrdered};

use super::{Entry, WIDTH};

/// The calls of one batch, which two may drive by turns: who gives their answers on, and who writes
/// what was given.
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
    /// Answers that nobody has asked for yet.
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

    /// Begins further calls. Answers that wait count too, so that what a slow client makes us hold
    /// is bounded.
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

    /// Has the calls under way go on. Their answers stay for who asks for them.
    pub(in crate::door::http) fn go_on(&self, context: &mut Context<'_>) {
        self.lock().go_on(context);
    }

    /// Both who drive it are in one task, so the lock is never waited for; after a panic in one
    /// call the rest are whole.
    fn lock(&self) -> MutexGuard<'_, dyn Calls + Send + 'static> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
