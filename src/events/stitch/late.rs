//! Sends a head in time, with the data known by then.
//!
//! Rule: a head waits for its header for a twelfth of a slot, and for a second at least. A head
//! whose header is known, or whose slot does not follow the last one, waits for missed blocks: for
//! [`GAP`], or for a quarter of a shorter slot. When the time is over, missed blocks are made up as
//! far as they are known, and the head is sent as reported. Reason: validators vote by the head,
//! and a late vote costs more than a gap, because clients can ask for missed blocks. Example: with
//! slots of 12 s, a node reports the head of slot 6 at second 2 and gives no header. At second 3
//! the head is sent all the same. Had the last head been that of slot 4, the head of 6 would be
//! sent at second 5.
//!
//! The time goes on through a change of streams: the next stream may have been opened only after
//! its node reported the same head.

use std::time::Duration;

use alloy_primitives::B256;
use tokio::time::Instant;

use super::{
    super::beacon::{self, Header},
    Effect, Progress, Question, Stitcher,
    work::{Head, Work},
};

/// The least time that a head waits for its header, and the longest that a head waits for missed
/// blocks; of short slots a quarter.
const LEAST: Duration = Duration::from_secs(1);
const GAP: Duration = Duration::from_secs(3);

/// The heads that have to be sent in time.
#[derive(Debug)]
pub(super) struct Late {
    header: Duration,
    gap: Duration,
    /// The last head of the streams before, if not sent.
    untold: Option<Head>,
    /// The stream was left because its reports had no proof; `false` where the stream ended by
    /// itself.
    pub(super) was_given_up: bool,
    /// A head is late: nothing more is asked for the head.
    pub(super) is_hurried: bool,
}

impl Late {
    /// For slots of this length.
    pub(super) fn new(slot: Duration) -> Self {
        let header = LEAST.max(slot / 12);
        Self { header, gap: header.max(GAP.min(slot / 4)), untold: None, was_given_up: false, is_hurried: false }
    }

    /// Another node's stream is open. Where there was no stream before, since that one ended by
    /// itself, the head's time begins anew: there was no node to ask.
    pub(super) fn opened(&mut self, was_none: bool) {
        if let Some(untold) = self.untold.as_mut().filter(|_| was_none && !self.was_given_up) {
            untold.since = None;
        }
        self.was_given_up = false;
    }

    /// Keeps a head of a stream that has ended, or is not believed any more.
    pub(super) fn keep(&mut self, head: &Head) {
        // A chain that moves on does not make the next head wait for longer.
        let earlier = self.untold.as_ref().and_then(|untold| untold.since);
        let since = [earlier, head.since].into_iter().flatten().min();
        if self.untold.as_ref().is_none_or(|untold| untold.slot <= head.slot || untold.root == head.root) {
            let event = self.untold.take().filter(|untold| untold.root == head.root).and_then(|untold| untold.event);
            self.untold = Some(Head { since, event: head.event.clone().or(event), ..*head });
        } else if let Some(untold) = &mut self.untold {
            untold.since = since;
        }
    }

    /// The node of the present stream says that this is its head.
    pub(super) fn caught(&mut self, root: B256, slot: u64) -> Head {
        // Another head that a stream before told, this one's node does not know, or will tell
        // itself.
        let untold = self.untold.take();
        let since = untold.as_ref().and_then(|untold| untold.since);
        let event = untold.filter(|untold| untold.root == root).and_then(|untold| untold.event);
        Head { slot, root, event, since }
    }

    /// A head at this slot has been sent.
    pub(super) fn arrived(&mut self, slot: u64) {
        self.untold.take_if(|untold| untold.slot <= slot);
    }
}

impl Stitcher {
    /// Whether a head waits to be sent.
    pub(super) fn owes_head(&self) -> bool {
        self.late.untold.is_some() || self.work.iter().any(|work| matches!(work, Work::Head(_)))
    }

    /// Sends the heads that have waited for long enough.
    pub(super) fn tell_late(&mut self, now: Instant) {
        let mut before = self.slot();
        let Self { work, late, chain, .. } = self;
        let mut last = None;
        let untold = late.untold.iter_mut();
        for head in untold.chain(work.heads()) {
            let since = *head.since.get_or_insert(now);
            // Where slots lie between, blocks may have been missed, which only headers show.
            let is_next = before.replace(head.slot).is_none_or(|before| head.slot <= before.saturating_add(1));
            let is_known = chain.header(head.root).is_some();
            let time_limit = if is_known || !is_next { late.gap } else { late.header };
            if now.saturating_duration_since(since) >= time_limit {
                last = Some(head.root);
            }
        }
        self.make_way(now);
        let Some(last) = last else { return };
        self.late.is_hurried = true;
        if let Some(head) = self.late.untold.take() {
            self.force(&head);
        }
        for work in self.work.take_up_to(last) {
            self.waiting = None;
            match work {
                Work::Head(head) => self.force(&head),
                work => self.leave_out(work),
            }
        }
        self.late.is_hurried = false;
    }

    /// A head that has waited for half of its time no longer waits for work of less weight.
    fn make_way(&mut self, now: Instant) {
        let half = self.late.header / 2;
        let waits = |head: &Head| head.since.is_some_and(|since| now.saturating_duration_since(since) >= half);
        if !self.work.heads().next().is_some_and(|head| waits(head)) {
            return;
        }
        while let Some(work) = self.work.pop_front() {
            if matches!(work, Work::Head(_) | Work::Block { .. }) {
                return self.work.push_front(work);
            }
            self.waiting = None;
            self.leave_out(work);
        }
    }

    /// Leaves out work that needs an answer.
    fn leave_out(&mut self, work: Work) {
        match work {
            Work::Block { slot, root, event: Some(event) } if !self.chain.is_told(root) => {
                self.tell_block(root, slot, event);
            }
            Work::Finality(_) | Work::MissedFinality(_) => self.asks_finality = true,
            Work::Reorg { .. } | Work::Finalized { .. } => _ = self.advance(&work),
            Work::Block { .. } | Work::Catch | Work::Look | Work::LearnDuties | Work::Head(_) => {}
        }
    }

    /// Sends a head with the data at hand.
    fn force(&mut self, head: &Head) {
        loop {
            match self.head(head) {
                Progress::Done => return,
                Progress::Again => {}
                Progress::Needs(Question::Header(root)) if self.chain.presume(root) => {}
                Progress::Needs(_) => return self.tell_unproven(head),
            }
        }
    }

    /// Sends a head although the path from the head before is not known.
    fn tell_unproven(&mut self, head: &Head) {
        let &Head { slot, root, ref event, .. } = head;
        let header = self.chain.header(root).copied();
        let made_up = || {
            let header = header.as_ref()?;
            Some(beacon::head_event(root, header, self.chain.begins_epoch(root), self.unchanged(root, root)))
        };
        let Some(event) = event.clone().or_else(made_up) else { return };
        match (header, self.slot()) {
            // Blocks before the head were missed, and no node gives them.
            (Some(_), Some(from)) => self.effects.push(Effect::Skipped { from, to: slot }),
            _ => self.effects.push(Effect::Unproven(slot)),
        }
        self.chain.note(root, slot, self.tip.map(|tip| tip.what), Some(&event));
        if self.tip.is_some() && !self.chain.is_told(root) {
            let unknown = Header { slot, parent: B256::default(), state: B256::default(), optimistic: false };
            self.effects.push(Effect::Filled);
            self.tell_block(root, slot, beacon::block_event(root, &header.unwrap_or(unknown)));
        }
        self.failures = 0;
        self.reorg = None;
        self.asks_finality |= self.chain.begins_epoch(root);
        self.begin(root, Some(&event));
    }
}
