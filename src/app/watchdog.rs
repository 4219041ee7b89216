//! Tells the supervisor that the process is alive, for as long as every worker does its work.

use std::time::Duration;

use tokio::{
    sync::{oneshot, watch},
    time::{sleep, timeout},
};
use tracing::warn;

use crate::{net::systemd::Supervisor, view::WorkerJobs};

/// The supervisor hears so many times in each of its intervals.
const BEATS: u32 = 3;

/// Tells `supervisor` that the process is alive, as often as the supervisor wants, while all
/// workers answer. Ends at once where the supervisor does not want to know.
///
/// Once `closing` is true, workers end one by one, when their last calls are answered, and do no
/// more jobs. A graceful end has a time of its own, so the supervisor gets signs of life all the
/// same.
pub(super) async fn beat(supervisor: &Supervisor, worker_jobs: &WorkerJobs, mut closing: watch::Receiver<bool>) {
    let Some(interval) = supervisor.watchdog() else { return };
    let pause = interval / BEATS;
    loop {
        // Both arms are cancel-safe: an answer that is not waited for is dropped.
        let is_alive = tokio::select! {
            biased;
            _ = closing.wait_for(|closing| *closing) => true,
            is_alive = all_answer(worker_jobs, pause) => is_alive,
        };
        if is_alive {
            supervisor.tell(Supervisor::WATCHDOG);
        } else {
            warn!("a worker hangs: the supervisor gets no sign of life");
        }
        sleep(pause).await;
    }
}

/// Whether every worker does a job within `time_limit`.
async fn all_answer(worker_jobs: &WorkerJobs, time_limit: Duration) -> bool {
    let asked = async {
        let mut answers = Vec::new();
        for worker in 0..worker_jobs.count() {
            let (answer, answered) = oneshot::channel();
            worker_jobs.send(worker, Box::new(move || _ = answer.send(()))).await;
            answers.push(answered);
        }
        for answered in answers {
            // A worker that has ended drops its jobs.
            if answered.await.is_err() {
                return false;
            }
        }
        true
    };
    timeout(time_limit, asked).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_worker_that_hangs_or_is_gone_is_no_life() {
        const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
        let (worker_jobs, mut ends) = WorkerJobs::new(2);
        let (mut hangs, mut works) = (ends.pop().unwrap(), ends.pop().unwrap());
        let worker = tokio::spawn(async move {
            while let Some(job) = works.recv().await {
                job();
            }
        });
        assert!(!all_answer(&worker_jobs, ANSWER_TIMEOUT).await);
        hangs.close();
        while let Some(job) = hangs.recv().await {
            drop(job);
        }
        assert!(!all_answer(&worker_jobs, ANSWER_TIMEOUT).await);
        worker.abort();
        let (worker_jobs, ends) = WorkerJobs::new(2);
        for mut end in ends {
            tokio::spawn(async move {
                while let Some(job) = end.recv().await {
                    job();
                }
            });
        }
        assert!(all_answer(&worker_jobs, ANSWER_TIMEOUT).await);
    }
}
