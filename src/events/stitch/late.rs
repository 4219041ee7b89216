//! A head that a node told is told in time, with what is known of it by then: validators vote by
//! it, and what is left out of it they ask for themselves.
//!
//! It waits for its header, which says whether it joins the head before, for a twelfth of a slot
//! and a second at least; where the header shows that blocks before it were missed, or the slots
//! leave room for that, it waits a little longer for those. When nothing more comes, what is missed
//! is made up as far as it is known, and the head is told as the node told it. It waits through a
//! change of streams, too: the next stream may have been opened only after its node told the same
//! head.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::beacon::{self, Header},
    Effect, Progress, Question, Stitcher,
    work::{Head, Work},
};
use crate::domain::hash::Hash;

/// The least time that a head waits for its header, and the longest that it waits for blocks that
/// were missed before it; of short slots a quarter.
const LEAST: Duration = Duration::from_secs(1);
const GAP: Duration = Duration::from_secs(3);

/// What is to be told in time.
#[derive(Debug)]
pub(super) struct Late {
    header: Duration,
    gap: Duration,
    /// The last head of the streams before, if it was not told.
    untold: Option<Head>,
    /// The stream was given up for what it could not bear out, and has not ended by itself.
    pub(super) was_given_up: bool,
    /// A head is late: nothing more is asked for its sake.
    pub(super) is_hurried: bool,
}

impl Late {
    /// For slots of this length.
    pub(super) fn new(slot: Duration) -> Self {
        let header = LEAST.max(slot / 12);
        Self { header, gap: header.max(GAP.min(slot / 4)), untold: None, was_given_up: false, is_hurried: false }
    }

    /// Another stream is there. While there was none, nobody could be asked.
    pub(super) fn opened(&mut self) {
        if let Some(untold) = self.untold.as_mut().filter(|_| !self.was_given_up) {
            untold.since = None;
        }
        self.was_given_up = false;
    }

    /// A stream was to tell this head and has ended, or is not believed any more.
    pub(super) fn keep(&mut self, head: &Head) {
        // A chain that moves on does not make the next head wait for longer.
        let since = self.untold.as_ref().and_then(|untold| untold.since).or(head.since);
        if self.untold.as_ref().is_none_or(|untold| untold.slot <= head.slot || untold.root == head.root) {
            let event = self.untold.take().filter(|untold| untold.root == head.root).and_then(|untold| untold.event);
            self.untold = Some(Head { since, event: head.event.clone().or(event), ..*head });
        }
    }

    /// The node of the present stream says that this is its head.
    pub(super) fn caught(&mut self, root: Hash, slot: u64) -> Head {
        // Another head that a stream before told, this one's node does not know, or will tell
        // itself.
        let untold = self.untold.take();
        let since = untold.as_ref().and_then(|untold| untold.since);
        let event = untold.filter(|untold| untold.root == root).and_then(|untold| untold.event);
        Head { slot, root, event, since }
    }

    /// A head at this slot is told.
    pub(super) fn arrived(&mut self, slot: u64) {
        self.untold.take_if(|untold| untold.slot <= slot);
    }
}

impl Stitcher {
    /// Whether a head waits to be told.
    pub(super) fn owes_head(&self) -> bool {
        self.late.untold.is_some() || self.work.iter().any(|work| matches!(work, Work::Head(_)))
    }

    /// Tells the heads that have waited for long enough.
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
            let patience = if is_known || !is_next { late.gap } else { late.header };
            if now.saturating_duration_since(since) >= patience {
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

    /// A head that has waited for half of its time waits no longer for what is of less weight.
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

    /// What it would take an answer to tell is not told now.
    fn leave_out(&mut self, work: Work) {
        match work {
            Work::Block { slot, root, event: Some(event) } if !self.chain.is_told(root) => {
                self.tell_block(root, slot, event);
            }
            Work::Finality(_) | Work::MissedFinality(_) => self.asks_finality = true,
            Work::Reorg { .. } | Work::Finalized { .. } => _ = self.advance(&work),
            Work::Block { .. } | Work::Catch | Work::LearnDuties | Work::Head(_) => {}
        }
    }

    /// Tells a head with what is known.
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

    /// Tells a head of which it is not known how it joins the one before.
    fn tell_unproven(&mut self, head: &Head) {
        let &Head { slot, root, ref event, .. } = head;
        let header = self.chain.header(root).copied();
        let made_up = || {
            let header = header.as_ref()?;
            Some(beacon::head_event(root, header, self.chain.begins_epoch(root), self.unchanged(root, root)))
        };
        let Some(event) = event.clone().or_else(made_up) else { return };
        match (header, self.slot()) {
            // Blocks before it were missed, and cannot be had.
            (Some(_), Some(from)) => self.effects.push(Effect::Skipped { from, to: slot }),
            _ => self.effects.push(Effect::Unproven(slot)),
        }
        self.chain.note(root, slot, self.tip.map(|tip| tip.what), Some(&event));
        if self.tip.is_some() && !self.chain.is_told(root) {
            let unknown = Header { slot, parent: Hash::default(), state: Hash::default(), optimistic: false };
            self.effects.push(Effect::Filled);
            self.tell_block(root, slot, beacon::block_event(root, &header.unwrap_or(unknown)));
        }
        self.failures = 0;
        self.reorg = None;
        self.asks_finality |= self.chain.begins_epoch(root);
        self.begin(root, Some(&event));
    }
}
