//! Counters of a node's answers, kept as calls and probes pass.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::latency::Latencies;
use crate::domain::duration::millis;
use crate::domain::method::{Method, MethodId};

/// No moment.
const NONE: u64 = u64::MAX;

/// Counters of a node's answers. A call pays for a few relaxed atomic operations.
pub struct Traffic {
    epoch: Instant,
    owed: AtomicUsize,
    /// Milliseconds since `epoch` at which the node last sent a byte, or began to owe an answer.
    quiet_since: AtomicU64,
    /// Milliseconds since `epoch` at which the node last sent a byte of an answer.
    heard: AtomicU64,
    /// Send time of the oldest probe that the node has sent no byte since, in milliseconds since
    /// `epoch`; [`NONE`] when there is none.
    probed_since: AtomicU64,
    /// Failed calls in a row, by the method's place in its table, or the group's of a request: a
    /// node may be stuck on one and answer all others.
    failures: [AtomicU32; Method::COUNT + 1],
    /// The highest block that an answer of this node showed a client.
    max_height: AtomicU64,
    latencies: Latencies,
    /// Whether the node missed messages of validators that were broadcast to all nodes, such as
    /// registrations, while it was away, and still has to be sent these.
    uninformed: AtomicBool,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            owed: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            probed_since: AtomicU64::new(NONE),
            failures: [const { AtomicU32::new(0) }; Method::COUNT + 1],
            max_height: AtomicU64::new(0),
            latencies: Latencies::new(),
            uninformed: AtomicBool::new(false),
        }
    }

    /// Notes whether the node has got all messages that were broadcast to all nodes.
    pub fn set_informed(&self, informed: bool) {
        self.uninformed.store(!informed, Relaxed);
    }

    /// Whether the node has got all messages that were broadcast to all nodes.
    pub fn is_informed(&self) -> bool {
        !self.uninformed.load(Relaxed)
    }

    /// Calls that wait on the node now.
    pub fn in_flight(&self) -> usize {
        self.owed.load(Relaxed)
    }

    /// The node owes an answer from `now` until the guard is dropped.
    pub fn track(&self, now: Instant) -> Owed<'_> {
        if self.owed.fetch_add(1, Relaxed) == 0 {
            self.quiet_since.store(self.millis(now), Relaxed);
        }
        Owed(self)
    }

    /// The node sent something.
    pub fn touch(&self, now: Instant) {
        let millis = self.millis(now);
        self.quiet_since.store(millis, Relaxed);
        self.heard.store(millis, Relaxed);
        self.probe_settled();
    }

    /// Whether the node has sent a byte of an answer since then.
    pub(super) fn has_been_heard_since(&self, then: Instant) -> bool {
        self.heard.load(Relaxed) >= self.millis(then)
    }

    /// A probe is sent to the node. A probe is no load, so its answer is not [owed](Self::track).
    pub(super) fn probe_sent(&self, now: Instant) {
        // Only the oldest unanswered probe counts.
        let _ = self.probed_since.compare_exchange(NONE, self.millis(now), Relaxed, Relaxed);
    }

    /// A question of the probe that `began` then gets its connection: the node owes an answer from
    /// now on, unless it owes one to an earlier probe.
    pub(super) fn probe_asked(&self, began: Instant, now: Instant) {
        let (began, now) = (self.millis(began), self.millis(now));
        // An error is no change.
        let _ = self.probed_since.fetch_update(Relaxed, Relaxed, |since| (since >= began).then_some(now));
    }

    /// An answer to a probe came, or will not come any more.
    pub(super) fn probe_settled(&self) {
        if self.probed_since.load(Relaxed) != NONE {
            self.probed_since.store(NONE, Relaxed);
        }
    }

    /// For how long the node has sent no byte since a probe was sent.
    pub(super) fn probe_silence(&self, now: Instant) -> Duration {
        match self.probed_since.load(Relaxed) {
            NONE => Duration::ZERO,
            since => Duration::from_millis(self.millis(now).saturating_sub(since)),
        }
    }

    /// For how long the node has owed answers without sending a byte.
    pub fn silence(&self, now: Instant) -> Duration {
        if self.in_flight() == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.millis(now).saturating_sub(self.quiet_since.load(Relaxed)))
    }

    /// Notes that a call of this method was answered well.
    pub fn answered(&self, MethodId(index): MethodId) {
        if self.failures[index].load(Relaxed) != 0 {
            self.failures[index].store(0, Relaxed);
        }
    }

    /// A call of this method failed; returns how many have in a row.
    pub fn failed(&self, MethodId(index): MethodId) -> u32 {
        self.failures[index].fetch_add(1, Relaxed).saturating_add(1)
    }

    /// Notes that the node took this long for the answer to a call of this method, or gave none
    /// within this time.
    pub fn took(&self, method: MethodId, time: Duration, now: Instant) {
        self.latencies.note(method, time, now);
    }

    /// Microseconds that the node takes for a call of this method, as an average over the last
    /// ones; 0 where none is known.
    pub fn expected_micros(&self, method: MethodId, now: Instant) -> u64 {
        self.latencies.micros(method, now)
    }

    /// The highest block that this node showed a client; 0 before any.
    pub fn max_height(&self) -> u64 {
        self.max_height.load(Relaxed)
    }

    pub(super) fn record_height(&self, height: u64) {
        self.max_height.fetch_max(height, Relaxed);
    }

    /// Lowers the height, after the node itself reported a lower one.
    pub(super) fn lower_height(&self, height: u64) {
        self.max_height.fetch_min(height, Relaxed);
    }

    fn millis(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.epoch))
    }
}

/// An answer that a node owes.
pub struct Owed<'a>(&'a Traffic);

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        self.0.owed.fetch_sub(1, Relaxed);
    }
}
