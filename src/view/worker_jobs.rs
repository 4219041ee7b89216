//! Jobs for the threads that serve clients.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::net::worker::worker;

/// Jobs that may wait for one worker; with so many, the senders wait too.
const BACKLOG: usize = 256;

/// Something for a worker to do at once.
pub type Job = Box<dyn FnOnce() + Send>;

/// The job queues of all workers. Waking a task is cheap on its own thread only; from any other
/// thread a wake takes a system call.
#[derive(Clone)]
pub struct WorkerJobs(Arc<[mpsc::Sender<Job>]>);

impl WorkerJobs {
    /// The queues of `workers` workers, at least one, and the receiving end for each worker.
    pub fn new(workers: usize) -> (Self, Vec<mpsc::Receiver<Job>>) {
        let (ways, ends) = (0..workers.max(1)).map(|_| mpsc::channel(BACKLOG)).unzip::<_, _, Vec<_>, _>();
        (Self(ways.into()), ends)
    }

    /// How many workers there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The worker whose thread this is; the first one on any other thread.
    pub(super) fn here(&self) -> usize {
        worker().saturating_sub(1).min(self.0.len() - 1)
    }

    /// Gives `job` to a worker. A worker that has ended has no clients left, so its jobs are
    /// dropped.
    pub async fn send(&self, worker: usize, job: Job) {
        let _ = self.0[worker].send(job).await;
    }
}
