//! The stitcher's questions, their answers, and the failures that count against nodes.

use tracing::warn;

use super::{
    super::{
        question::{self, Asked},
        stitch::{Input, Question},
    },
    Hub, SILENT_SLOTS,
};
use crate::{
    domain::{chain, node_id::NodeId},
    pool::health::{Fault, Trouble},
};

/// A stream that reports slots ahead of the clock so often is left, if there is another node.
const AHEAD: u32 = 3;
/// Late answers that are waited for at once, of nodes whose questions other nodes have answered.
const MOST_WAITED: usize = 64;

impl Hub {
    /// Drops the questions under way: the stitcher has forgotten their purpose.
    pub(super) fn drop_questions(&mut self) {
        self.questions.abort_all();
        self.asked_in += 1;
    }

    pub(super) fn answered(&mut self, asked_in: u64, question: Question, Asked { answer, wait }: Asked) {
        if let Some(wait) = wait
            && self.waited.len() < MOST_WAITED
        {
            self.waited.spawn(wait);
        }
        if asked_in == self.asked_in {
            self.step(Input::Answered(question, answer));
        }
    }

    /// The stream reported a slot that lies ahead of the clock.
    pub(super) fn ahead(&mut self, slot: u64) {
        self.metrics.doubtful_event(self.network(), "ahead");
        let Some(current) = &mut self.current else { return };
        current.ahead = current.ahead.saturating_add(1);
        let (node, count) = (current.node, current.ahead);
        if count == 1 {
            let node = current.name().to_owned();
            warn!(network = self.network(), node, slot, "node reported a slot ahead of the clock: event dropped");
        }
        let is_other = |other: &NodeId| *other != node && self.pool.is_usable(*other);
        if count >= AHEAD && NodeId::all(self.pool.nodes.len()).any(|other| is_other(&other)) {
            let text = "node reports slots ahead of the clock".to_owned();
            self.lost(false, Trouble { fault: Fault::Failing, text }, self.pool.slot() * SILENT_SLOTS);
        }
    }

    pub(super) fn ask(&mut self, question: Question) {
        let Some(current) = &self.current else { return };
        let beacon = self.pool.snapshot().chain.as_ref().and_then(|chain| chain.beacon.clone());
        let slots_per_epoch = beacon.map_or(chain::USUAL_EPOCH, |beacon| beacon.epoch());
        let (pool, node, asked_in) = (current.pool.clone(), current.node, self.asked_in);
        self.questions
            .spawn(async move { (asked_in, question, question::ask(pool, node, question, slots_per_epoch).await) });
    }
}
