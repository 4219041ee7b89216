//! Turns at compressing: the answers of a worker compress one slice at a time.
//!
//! Rule: after each slice of any answer, all tasks of the worker that are ready run once before the
//! next slice. Reason: a call passes the worker's queue several times, and would else wait for a
//! slice of every answer each time. Example: 8 answers with slices of 1 ms, and a call that comes
//! to the worker six times. The call waits for 6 ms, not for 48.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use tokio::{spawn, task::yield_now};

thread_local! {
    /// The line of this worker.
    static LINE: Arc<Mutex<Line>> = Arc::default();
}

/// The answers of a worker that wait for their next slice.
#[derive(Default)]
struct Line {
    waiting: VecDeque<Arc<Place>>,
    /// Whether a task calls those who wait.
    is_called: bool,
}

#[derive(Default)]
struct Place {
    is_due: AtomicBool,
    waker: AtomicWaker,
}

/// The turns of one answer. An answer begins with a turn, since most have a single slice.
pub(in super::super) struct Turns {
    line: Arc<Mutex<Line>>,
    state: State,
}

enum State {
    HasTurn,
    Waits(Arc<Place>),
    Idle,
}

impl Turns {
    pub(in super::super) fn new() -> Self {
        Self { line: LINE.with(Arc::clone), state: State::HasTurn }
    }

    /// Ready when the next slice may be compressed, once for each slice.
    pub(in super::super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &self.state {
            State::HasTurn => {
                self.state = State::Idle;
                Poll::Ready(())
            }
            State::Waits(place) => {
                place.waker.register(context.waker());
                if !place.is_due.load(Relaxed) {
                    return Poll::Pending;
                }
                self.state = State::Idle;
                Poll::Ready(())
            }
            State::Idle => {
                let place = Arc::<Place>::default();
                place.waker.register(context.waker());
                self.state = State::Waits(place.clone());
                let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
                line.waiting.push_back(place);
                if !mem::replace(&mut line.is_called, true) {
                    spawn(call(self.line.clone()));
                }
                Poll::Pending
            }
        }
    }
}

/// Calls those who wait, in their order, until the line is empty.
async fn call(line: Arc<Mutex<Line>>) {
    loop {
        yield_now().await;
        let place = {
            let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(place) = line.waiting.pop_front() else {
                line.is_called = false;
                return;
            };
            place
        };
        place.is_due.store(true, Relaxed);
        place.waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, future::poll_fn, rc::Rc};

    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    #[tokio::test]
    async fn other_tasks_run_between_two_slices() {
        const ANSWERS: usize = 8;
        const SLICES: usize = 20;
        let order = Rc::new(RefCell::new(Vec::new()));
        let seen = order.clone();
        LocalSet::new()
            .run_until(async move {
                let answers: Vec<_> = (1..=ANSWERS)
                    .map(|answer| {
                        let order = seen.clone();
                        spawn_local(async move {
                            let mut turns = Turns::new();
                            for _ in 0..SLICES {
                                poll_fn(|context| turns.poll(context)).await;
                                order.borrow_mut().push(answer);
                            }
                        })
                    })
                    .collect();
                while !answers.iter().all(|answer| answer.is_finished()) {
                    seen.borrow_mut().push(0);
                    yield_now().await;
                }
            })
            .await;
        let order = order.take();
        assert_eq!(order.iter().filter(|turn| **turn > 0).count(), ANSWERS * SLICES);
        // All begin at once; from then on each slice stands alone.
        let later = &order[order.iter().rposition(|turn| *turn == 0).map_or(0, |_| ANSWERS + 1)..];
        assert!(later.windows(2).all(|pair| pair[0] == 0 || pair[1] == 0), "{later:?}");
        // In turn: between two slices of an answer come those of all others.
        let slices: Vec<_> = later.iter().filter(|turn| **turn > 0).copied().collect();
        assert!(slices.chunks_exact(ANSWERS).all(|round| round == &slices[..ANSWERS]), "{slices:?}");
    }
}
