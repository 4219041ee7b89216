//! Failback to a preferred node whose head is always a little behind that of the node which serves.
//! No I/O, no clock of its own.
//!
//! A node below the highest block that clients were shown may not serve while another has reached
//! it, so one that is steadily later than the node that serves would never be chosen again. The
//! rule, in one place:
//!
//! 1. A usable node is *late* if it comes before the serving node in the order of tiers and of the
//!    configuration, and is below that block by the lag limit at most. Unless the late node pushes
//!    its heads, the pool probes the node a third of a block time apart, and a sixth while calls
//!    wait, but 50 to 500 ms apart in any case. So the pool sees at once when the node reaches the
//!    block. Then calls are home.
//! 2. Calls wait only for a late node of a better tier than the serving node's, once the node has
//!    been late for [`GRACE`], and the highest block stays the same meanwhile: for two block times,
//!    but never longer than [`MAX_WAIT`]. The wait begins only if the node's next block is due in
//!    that time, by its last block and the chain's pace. If the node reaches the block, calls are
//!    home; if not, they go on where they were. Example with 12 s blocks: the node is a block
//!    behind, and its next is due in 1.5 s: calls wait, for 2 s at most.
//! 3. The next wait begins [`PAUSE_BETWEEN_WAITS`] after the last one at the earliest. Each further
//!    wait in vain doubles that time, up to 480 s. But just after calls have come home, an answer
//!    that was on its way elsewhere may show a higher block still; calls then wait once more, at
//!    the better node.
//!
//! A node that is later than two block times stays late: the chain would have to go backwards for
//! such a node.

use std::time::Duration;

use crate::domain::node_id::NodeId;
use tokio::time::Instant;

/// How long a node is only watched.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// The longest that calls wait for a node.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(2);
/// From the end of a wait to the beginning of the next, at least, after the first wait.
const PAUSE_BETWEEN_WAITS: Duration = Duration::from_secs(30);
/// Twice the longest such time: after a wait in vain, half of the doubled pause is kept.
const MAX_PAUSE_BETWEEN_WAITS: Duration = Duration::from_secs(960);
/// How long after their return calls may wait once more.
const SETTLING: Duration = Duration::from_secs(2);

/// For how long calls wait for a node that is a little behind, at most.
pub(super) fn longest_wait(block_time: Duration) -> Duration {
    (2 * block_time).min(MAX_WAIT)
}

/// A better node that is usable, and not quite where clients have seen the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LateNode {
    pub(super) node: NodeId,
    /// By how many blocks.
    pub(super) below: u64,
    /// When its head last changed.
    pub(super) moved: Instant,
}

/// Calls wait for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeWait {
    pub(super) node: NodeId,
    pub(super) since: Instant,
    pub(super) longest: Duration,
}

/// When the late node should have the block that it lacks. A block that is long overdue is given
/// up, and the next one is due in its time.
fn due(late: LateNode, block_time: Duration, longest: Duration, now: Instant) -> Instant {
    let blocks = |count: u64| block_time.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX).min(1 << 16));
    let due = late.moved + blocks(late.below);
    let overdue = now.saturating_duration_since(due + longest).as_nanos();
    due + blocks(u64::try_from(overdue.div_ceil(block_time.as_nanos().max(1))).unwrap_or(u64::MAX))
}

/// The state of a return to a better node.
#[derive(Debug)]
pub(super) struct LatePrimary {
    /// The late node, and when it became late.
    late: Option<(NodeId, Instant)>,
    awaited: Option<NodeWait>,
    /// No wait begins before.
    not_before: Option<Instant>,
    pause: Duration,
    /// Calls have just come home, and may wait once more until then.
    settling: Option<Instant>,
    /// When to look again, though nothing happens.
    wake_at: Option<Instant>,
}

impl Default for LatePrimary {
    fn default() -> Self {
        Self { late: None, awaited: None, not_before: None, pause: PAUSE_BETWEEN_WAITS, settling: None, wake_at: None }
    }
}

impl LatePrimary {
    /// The node that calls wait for now, if any. `best` is the node that would serve by rank alone,
    /// `late` a better one.
    pub(super) fn step(
        &mut self,
        best: Option<NodeId>,
        late: Option<LateNode>,
        block_time: Option<Duration>,
        now: Instant,
    ) -> Option<NodeWait> {
        self.wake_at = None;
        if let Some(awaited) = self.awaited {
            let until = awaited.since + awaited.longest;
            if late.is_some_and(|late| late.node == awaited.node) && now < until {
                self.wake_at = Some(until);
                return self.awaited;
            }
            self.awaited = None;
            let in_vain = best != Some(awaited.node);
            self.pause = if in_vain { (2 * self.pause).min(MAX_PAUSE_BETWEEN_WAITS) } else { PAUSE_BETWEEN_WAITS };
            self.not_before = Some(now + if in_vain { self.pause / 2 } else { PAUSE_BETWEEN_WAITS });
        }
        let Some(late) = late else {
            if self.late.take().is_some_and(|(node, _)| best == Some(node)) {
                self.settling = Some(now + SETTLING);
            }
            return None;
        };
        let since = self.late.filter(|(node, _)| *node == late.node).map_or(now, |(_, since)| since);
        self.late = Some((late.node, since));
        // When its next block is due is not known before the chain's pace is.
        let longest = longest_wait(block_time?);
        let settles = self.settling.take().is_some_and(|until| now < until);
        if !settles {
            let due = due(late, block_time?, longest, now);
            let begin = (since + GRACE).max(due.checked_sub(longest * 4 / 5).unwrap_or(due));
            let begin = self.not_before.map_or(begin, |not_before| begin.max(not_before));
            if now < begin {
                self.wake_at = Some(begin);
                return None;
            }
        }
        self.awaited = Some(NodeWait { node: late.node, since: now, longest });
        self.wake_at = Some(now + longest);
        self.awaited
    }

    /// When to look again, though nothing happens.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }
}
