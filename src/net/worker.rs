//! The number of the worker that runs on this thread. State that is kept for each worker, such as
//! idle connections, is indexed by this number: a connection is best used by the runtime that
//! opened it.

use std::cell::Cell;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Gives this thread its number. Workers count from 1.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

/// This thread's number: a worker's, from 1, or 0 for any other thread.
pub fn worker() -> usize {
    WORKER.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_knows_its_number_and_any_other_thread_is_0() {
        let of_a_thread = |set: Option<usize>| {
            let run = move || {
                set.into_iter().for_each(set_worker);
                worker()
            };
            std::thread::spawn(run).join().unwrap()
        };
        assert_eq!([of_a_thread(Some(2)), of_a_thread(None)], [2, 0]);
    }
}
