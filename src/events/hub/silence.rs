//! Streams that stay open and report nothing.
//!
//! Rule: a head that probes see, and the stream does not report, is asked for soon; a stream that
//! reports none for some slots is lost. Reason: the connection of a mute stream looks well, and
//! validators need each head in its slot. Example: a node's stream falls mute in slot 100. A second
//! after a probe has seen the head of 101, the node is asked for its head, and clients have that
//! head. In slot 103 another node's stream takes over.

use tokio::time::Instant;

use super::{
    super::stitch::{Input, Stitcher},
    Hub, SILENT_SLOTS,
    stream::Unheard,
};
use crate::{
    domain::chain,
    pool::health::{Fault, Trouble},
};

/// The part of a slot after which the node's head is asked for, if its stream has not reported that
/// head.
const MUTE: u32 = 12;

impl Hub {
    /// Asks the stream's node for its head where probes have seen a head that the stream does not
    /// tell: a stream may be mute though its node goes on.
    pub(super) fn watch_muteness(&mut self, now: Instant) {
        let told = self.stitcher.as_ref().and_then(Stitcher::slot);
        let Some(current) = self.current.as_mut().filter(|current| current.running) else { return };
        let head = current.pool.snapshot().nodes[current.node].head.as_ref().map(|head| head.number);
        // A head that the stream has reported waits for its header, and not for a question.
        let is_missing = |head: &u64| current.slot < *head && told.is_some_and(|told| told < *head);
        let Some(head) = head.filter(is_missing) else {
            current.unheard = None;
            return;
        };
        let unheard = match &mut current.unheard {
            Some(unheard) if unheard.slot == head => unheard,
            other => other.insert(Unheard { slot: head, since: now, is_asked: false }),
        };
        let is_due = now.saturating_duration_since(unheard.since) >= current.pool.slot() / MUTE;
        // Once for each head: a stream that is mute for two slots is left.
        if is_due && !unheard.is_asked {
            unheard.is_asked = true;
            self.step(Input::Unheard);
        }
    }

    /// A stream that reports no head while the pool moves is lost, even with an open connection.
    pub(super) fn watch_silence(&mut self, now: Instant) {
        let snapshot = self.pool.snapshot();
        let slot = chain::Chain::slot(snapshot.chain.as_ref());
        let Some(head) = snapshot.head else { return };
        drop(snapshot);
        let time_limit = slot * SILENT_SLOTS;
        for is_next in [false, true] {
            let stream = if is_next { &mut self.next } else { &mut self.current };
            let Some(stream) = stream.as_mut().filter(|stream| stream.running && stream.slot < head) else { continue };
            if now.saturating_duration_since(*stream.behind.get_or_insert(now)) >= time_limit {
                let text = format!("its event stream has sent no head for {time_limit:?} while the chain moved");
                // An open stream does not prove that its node reports heads again: the node gets
                // some slots before the next try.
                self.lost(is_next, Trouble { fault: Fault::Silent, text }, time_limit);
            }
        }
    }
}
