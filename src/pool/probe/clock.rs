//! The time that a node has for a probe.
//!
//! Rule: a probe has failed when none of its questions was answered for `health.timeout`, and that
//! time begins anew when a question gets a connection. When none of the questions had a connection
//! in that time, the node was full, which says nothing about it. Reason: a probe asks two to five
//! questions, and a node that is at its bound has one connection for these, so that each question
//! waits for the one before. Example: a node takes four connections and answers each question in
//! 0.6 s; clients' calls use the others. The five questions take 3 s there, and the node is well.

use std::{
    pin::pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use crate::{
    net::http::Gate,
    pool::{
        health::{Fault, Trouble},
        node::Node,
    },
};

/// The clock of one probe.
pub struct ProbeClock<'a> {
    pub(super) node: &'a Node,
    limit: Duration,
    began: Instant,
    /// Whether the watcher of silence counts the time of these questions.
    is_watched: bool,
    run: Mutex<Run>,
}

struct Run {
    /// When a question last got a connection or an answer.
    since: Instant,
    /// The questions that have a connection and no answer.
    asked: usize,
}

/// Tells the clock when its question gets a connection, and, by being dropped, when the question is
/// over.
pub(super) struct ProbeQuestion<'a> {
    clock: &'a ProbeClock<'a>,
    is_asked: bool,
}

impl<'a> ProbeClock<'a> {
    /// A clock that runs from now on.
    pub fn new(node: &'a Node, limit: Duration) -> Self {
        let began = Instant::now();
        let run = Run { since: began, asked: 0 };
        Self { node, limit, began, is_watched: false, run: Mutex::new(run) }
    }

    /// The same for a regular probe, whose silence is watched.
    pub(super) fn watched(self) -> Self {
        self.node.traffic.probe_sent(self.began);
        Self { is_watched: true, ..self }
    }

    pub(super) fn question(&'a self) -> ProbeQuestion<'a> {
        ProbeQuestion { clock: self, is_asked: false }
    }

    /// The outcome of a probe whose questions go by this clock.
    ///
    /// # Errors
    /// When the node has had its time, or had no connection for the probe.
    pub(in crate::pool) async fn limits<T>(&self, probe: impl Future<Output = T>) -> Result<T, Trouble> {
        let mut probe = pin!(probe);
        loop {
            let until = self.lock().since + self.limit;
            // Both arms are cancel-safe: the probe is taken up again.
            tokio::select! {
                biased;
                outcome = probe.as_mut() => return Ok(outcome),
                () = sleep_until(until) => {}
            }
            let run = self.lock();
            if run.since + self.limit <= Instant::now() {
                return Err(self.overdue(&run));
            }
        }
    }

    fn overdue(&self, run: &Run) -> Trouble {
        if run.asked == 0 && self.node.keeps_probes_waiting() {
            return Trouble::full();
        }
        Trouble { fault: Fault::Silent, text: format!("no answer to a probe within {:?}", self.limit) }
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the state.
    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProbeQuestion<'_> {
    fn ends(&mut self) {
        if std::mem::take(&mut self.is_asked) {
            let mut run = self.clock.lock();
            (run.since, run.asked) = (Instant::now(), run.asked - 1);
        }
    }
}

impl Gate for ProbeQuestion<'_> {
    fn closes(&mut self) {
        self.ends();
    }

    fn poll_open(&mut self, _: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.is_asked, true) {
            let now = Instant::now();
            let mut run = self.clock.lock();
            if self.clock.is_watched && run.asked == 0 {
                self.clock.node.traffic.probe_asked(self.clock.began, now);
            }
            (run.since, run.asked) = (now, run.asked + 1);
        }
        Poll::Ready(())
    }

    fn written(&mut self) {}
}

impl Drop for ProbeQuestion<'_> {
    fn drop(&mut self) {
        self.ends();
    }
}
