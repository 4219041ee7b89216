//! The findings about a node that a pool shares with the pools that it has replaced.
//!
//! The rule: **a node is probed by one pool at a time.** The reason: a replaced pool watches its
//! nodes until its last call has ended, and a name whose addresses change each second replaces a
//! pool each second. An example: a call takes 25 s, and 25 pools wait for such calls; the node that
//! all of them have is probed each second, and not 26 times a second. A node that only replaced
//! pools have is probed by one of them, and the others take its word.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout},
};

use super::{health::Trouble, probe::Probe, state::Input};
use crate::domain::node_id::NodeId;

/// A finding about a node.
#[derive(Clone, Debug)]
pub(super) enum Finding {
    /// A probe ended.
    Probed(Result<Probe, Trouble>),
    /// The node is out.
    Out(Trouble),
}

impl Finding {
    /// The finding, for a pool whose node has this index.
    pub(super) fn input(self, node: NodeId) -> Input {
        match self {
            Self::Probed(outcome) => Input::Probed(node, outcome),
            Self::Out(trouble) => Input::Out(node, trouble),
        }
    }
}

/// The latest finding about a node.
struct LatestFinding {
    finding: Finding,
    at: Instant,
    /// Whether the pool that found this has been replaced by now, perhaps by one without the node.
    is_retired: Arc<AtomicBool>,
}

/// Where the pools of a node tell each other.
pub(super) struct SharedFinding {
    latest: watch::Sender<Option<LatestFinding>>,
    /// The right of a replaced pool to probe the node.
    turn: Arc<Semaphore>,
}

impl Default for SharedFinding {
    fn default() -> Self {
        Self { latest: watch::Sender::new(None), turn: Arc::new(Semaphore::new(1)) }
    }
}

impl SharedFinding {
    /// Tells the other pools. `is_retired`: whether the pool that tells has been replaced, now or
    /// later.
    pub(super) fn tell(&self, finding: Finding, is_retired: &Arc<AtomicBool>) {
        let told = LatestFinding { finding, at: Instant::now(), is_retired: is_retired.clone() };
        self.latest.send_replace(Some(told));
    }

    /// Whether the pool in use has found something within `time`.
    pub(super) fn is_current(&self, time: Duration) -> bool {
        let latest = self.latest.borrow();
        latest.as_ref().is_some_and(|told| !told.is_retired.load(Relaxed) && told.at.elapsed() < time)
    }

    /// Hears of the findings of others from now on.
    pub(super) fn listen(&self) -> Listening {
        Listening { latest: self.latest.subscribe(), turn: self.turn.clone() }
    }
}

/// A replaced pool's subscription to the findings of others.
pub(super) struct Listening {
    latest: watch::Receiver<Option<LatestFinding>>,
    turn: Arc<Semaphore>,
}

/// The news for a replaced pool.
pub(super) enum Heard {
    Finding(Finding),
    /// No other pool tells anything: this one is to probe, for as long as it has the permit.
    Nothing(OwnedSemaphorePermit),
}

impl Listening {
    /// Waits for a finding, or for the turn to probe where none comes within `time_limit`.
    /// Cancel-safe.
    pub(super) async fn next(&mut self, time_limit: Duration) -> Heard {
        loop {
            if timeout(time_limit, self.latest.changed()).await.is_ok_and(|changed| changed.is_ok()) {
                if let Some(told) = &*self.latest.borrow_and_update() {
                    return Heard::Finding(told.finding.clone());
                }
            } else if let Ok(turn) = self.turn.clone().try_acquire_owned() {
                return Heard::Nothing(turn);
            }
        }
    }

    /// Passes over all findings so far.
    pub(super) fn pass_over(&mut self) {
        self.latest.mark_unchanged();
    }
}
