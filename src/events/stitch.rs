//! Makes one stream of events for clients out of the streams of many nodes. Pure: events and
//! answers of nodes go in, events for clients and questions to nodes come out.
//!
//! Rule: clients get each event once, in the order of one chain, as from a node that never fails.
//! Reason: validators act upon heads, and a head that is missing, repeated or out of order costs
//! them duties. Example: node A reports the head of slot 100 and is lost, and the stream of node B
//! opens with its head at slot 103. Clients get the `block` and `head` events of 101, 102 and 103,
//! made up from headers that B gives. If B's 101 follows 99, a `chain_reorg` from 100 to 103 comes
//! first.
//!
//! In detail:
//! - A `head` is sent when it extends the last head sent, or leaves its branch; then a
//!   `chain_reorg` is sent first. The blocks between are found by parent roots, and their `block`
//!   and `head` events are made up from headers, oldest first.
//! - A head that was sent already, or that lies behind the last one on the same chain, is no news:
//!   the node repeats itself, or lags.
//! - A `block` is sent once. A `head` is sent once for each time that its block joins the chain.
//! - A node's own `chain_reorg` is sent in place of a made-up one if both name the same old head;
//!   never alone, so that clients get one.
//! - `finalized_checkpoint` is sent once per epoch. Missed checkpoints are found at the states of
//!   the blocks that were missed.
//! - Events of all other topics pass through, but for repeats of recent ones. An event that refers
//!   to a block waits for the block's head, for a second at most ([`held`]).
//! - The dependent roots of a made-up head come from events of its chain, or else from an answer.
//!   If no node knows the roots, the head is sent together with the next head that a node reports;
//!   if that one does not name the roots either, the last known roots are taken.
//! - Events about the chain are small. A larger one than [`MAX_EVENT`] is made up, as if the node
//!   had not sent the event.
//! - An event about the chain that cannot be read is left out. So is a checkpoint that cannot be
//!   final yet.
//! - A head that a node reported is sent in time ([`late`]), also without its header.
//!
//! A gap that is too long, or that no node can fill in time, is skipped: the next head is sent, and
//! clients see a slot that does not follow.

mod answers;
mod chain;
mod crowd;
mod held;
mod late;
mod terms;
mod work;

use std::{collections::BTreeSet, time::Duration};

use alloy_primitives::B256;
use bytes::Bytes;

pub use self::terms::{ChainAnswer, Effect, Input, Question};
use self::{
    chain::{Chain, PathFromTip, Unknown},
    crowd::Crowd,
    held::Held,
    late::Late,
    work::{Head, Queue, Work},
};
use super::{
    beacon::{self, ChainEvent, Duties},
    seen::Seen,
    sse::Event,
    topics,
};

/// Slots behind the head whose blocks are remembered.
pub const WINDOW: u64 = 256;
/// The longest gap that is filled, in slots.
pub const MAX_GAP: u64 = 128;
/// How often a gap may fail to be filled before the gap is skipped, unless its time is over before.
const ATTEMPTS: u32 = 8;
/// The longest event about the chain, in bytes; real ones have a few hundred.
const MAX_EVENT: usize = 64 << 10;

/// The progress of a piece of work.
enum Progress {
    Done,
    /// A part was sent, and more is to come.
    Again,
    Needs(Question),
}

/// The last value of one kind, and whether clients have got the value or came after it.
#[derive(Clone, Copy, Debug)]
struct Last<T> {
    what: T,
    told: bool,
}

/// The stitcher of one network.
#[derive(Debug)]
pub struct Stitcher {
    chain: Chain,
    tip: Option<Last<B256>>,
    finalized: Option<Last<u64>>,
    /// Whether to ask for finality after the next head: an epoch has begun since the last answer,
    /// or the last question had no answer.
    asks_finality: bool,
    /// A node's own word on a reorganisation, for the next head: the head before, and the event.
    reorg: Option<(B256, Bytes)>,
    seen: Seen,
    held: Held,
    /// The dependent roots of the last head sent, as far as clients know them.
    duties: Option<Duties>,
    /// Epochs whose dependent roots the present stream's node does not know.
    unanswered: BTreeSet<u64>,
    work: Queue,
    waiting: Option<Question>,
    failures: u32,
    late: Late,
    /// The highest slot that an honest node can report.
    latest: u64,
    crowd: Crowd,
    effects: Vec<Effect>,
}

impl Stitcher {
    /// A stitcher that has sent nothing yet, for a chain with slots of this length.
    pub fn new(slots_per_epoch: u64, slot: Duration) -> Self {
        Self {
            chain: Chain::new(slots_per_epoch),
            tip: None,
            finalized: None,
            asks_finality: false,
            reorg: None,
            seen: Seen::default(),
            held: Held::default(),
            duties: None,
            unanswered: BTreeSet::new(),
            work: Queue::default(),
            waiting: None,
            failures: 0,
            late: Late::new(slot),
            latest: u64::MAX,
            crowd: Crowd::default(),
            effects: Vec::new(),
        }
    }

    /// The slot of the last head sent.
    pub fn slot(&self) -> Option<u64> {
        self.tip.and_then(|tip| self.chain.slot(tip.what))
    }

    /// Whether a head waits to be sent, or an event waits for a head.
    pub fn holds(&self) -> bool {
        !self.held.is_empty() || self.owes_head()
    }

    /// Takes an input and returns its effects, in order.
    pub fn step(&mut self, input: Input) -> Vec<Effect> {
        match input {
            Input::Opened | Input::Switched => {
                self.clear();
                self.crowd = Crowd::default();
                self.late.opened(matches!(input, Input::Opened));
                for work in [Work::Catch, Work::Finality(None), Work::LearnDuties] {
                    self.work.hear(work);
                }
                self.waiting = None;
                self.reorg = None;
                self.unanswered.clear();
            }
            Input::Renewed => {
                // The old stream's last reports may have been lost.
                self.ask_unless_asked([Work::Look, Work::Finality(None)]);
            }
            Input::Unheard => self.ask_unless_asked([Work::Look]),
            Input::Event(event) => self.take(event),
            Input::Latest(slot) => self.latest = slot,
            Input::Time(now) => {
                self.tell_late(now);
                let late = self.held.expire(now);
                self.pass(late);
            }
            Input::Answered(question, answer) => {
                if self.waiting == Some(question) {
                    self.waiting = None;
                    self.learn(question, answer);
                } else {
                    // No work waits for the answer any more, but the answer is still true.
                    match (question, answer) {
                        (Question::Header(asked), Some(ChainAnswer::Header(root, header))) if asked == root => {
                            self.chain.insert(root, header);
                        }
                        (Question::Duties { root, .. }, Some(ChainAnswer::Duties(duties))) => {
                            self.chain.learn_duties(root, duties);
                        }
                        _ => {}
                    }
                }
            }
        }
        while self.waiting.is_none()
            && let Some(work) = self.work.pop_front()
        {
            match self.advance(&work) {
                Progress::Done => {}
                Progress::Again => self.work.put_back(work),
                Progress::Needs(question) => {
                    self.waiting = Some(question);
                    self.effects.push(Effect::Ask(question));
                    self.work.push_front(work);
                }
            }
        }
        std::mem::take(&mut self.effects)
    }

    fn ask_unless_asked(&mut self, questions: impl IntoIterator<Item = Work>) {
        for work in questions {
            if !self.work.iter().any(|waiting| waiting.is_same_question(&work)) {
                self.work.hear(work);
            }
        }
    }

    fn take(&mut self, Event { topic, data, raw }: Event) {
        let is_small = raw.len() <= MAX_EVENT;
        let said = ChainEvent::read(&topic, &data);
        if let Some(slot) = said.and_then(|said| self.chain.slot_of(said)).filter(|slot| *slot > self.latest) {
            self.effects.push(Effect::Ahead(slot));
            return;
        }
        if let Some(ChainEvent::Block { slot, root } | ChainEvent::Head { slot, root, .. }) = said
            && !self.crowd.admits(slot, root, self.slot().unwrap_or(0))
        {
            return self.broken("it reports more blocks of one slot than there can be");
        }
        let work = match said {
            Some(ChainEvent::Block { slot, root }) => Work::Block { slot, root, event: is_small.then_some(raw) },
            Some(ChainEvent::Head { slot, root, duties }) => {
                if let Some(duties) = duties {
                    self.chain.hear_duties(root, slot, duties);
                }
                // The stream reports a head by itself, and that head need not wait for the answer.
                if self.waiting == Some(Question::Head) && matches!(self.work.front(), Some(Work::Look)) {
                    self.work.pop_front();
                    self.waiting = None;
                }
                Work::Head(Head { slot, root, event: is_small.then_some(raw), since: None })
            }
            // A made-up event is sent instead.
            Some(ChainEvent::Reorg { .. }) if !is_small => return,
            Some(ChainEvent::Reorg { old }) => Work::Reorg { old, event: raw },
            Some(ChainEvent::Finalized { .. }) if !is_small => Work::Finality(None),
            Some(ChainEvent::Finalized { epoch }) => Work::Finalized { epoch, event: raw },
            None if topics::CHAIN.contains(&topic.as_str()) => {
                self.effects.push(Effect::Unreadable);
                return;
            }
            None => {
                if self.seen.is_new(&topic, &data) {
                    let free = self.held.take(topic, &data, raw, self.latest);
                    let excess = self.held.relieve();
                    self.pass(excess.into_iter().chain(free));
                }
                return;
            }
        };
        if !self.work.hear(work) {
            self.broken("too many events of the node wait for its answers");
        }
    }

    /// Forgets the stream's reports that are not sent yet, because the next stream will report the
    /// same; but for the last head.
    fn clear(&mut self) {
        for head in self.work.heads() {
            self.late.keep(head);
        }
        self.asks_finality |= self.work.iter().any(|work| matches!(work, Work::Finality(Some(_))));
        self.work.clear();
    }

    fn broken(&mut self, why: &'static str) {
        self.clear();
        self.late.was_given_up = true;
        self.waiting = None;
        self.effects.push(Effect::Broken(why));
    }

    fn advance(&mut self, work: &Work) -> Progress {
        match work {
            Work::Catch | Work::Look => return Progress::Needs(Question::Head),
            Work::Block { slot, root, event } => return self.block(*slot, *root, event.as_ref()),
            Work::Head(head) => return self.head(head),
            Work::Reorg { old, event } => self.reorg = Some((*old, event.clone())),
            Work::Finalized { epoch, event } => {
                if self.finalized.is_none_or(|last| last.what < *epoch || (last.what == *epoch && !last.told)) {
                    self.finalized = Some(Last { what: *epoch, told: true });
                    self.tell("finalized_checkpoint", event.clone());
                }
            }
            Work::Finality(state) => return Progress::Needs(Question::Finalized(*state)),
            Work::MissedFinality(checkpoint) => match self.finalized {
                None => self.finalized = Some(Last { what: checkpoint.epoch, told: false }),
                Some(last) if last.what < checkpoint.epoch => {
                    let Some(header) = self.chain.header(checkpoint.root) else {
                        return Progress::Needs(Question::Header(checkpoint.root));
                    };
                    let event = beacon::finalized_event(*checkpoint, header);
                    self.finalized = Some(Last { what: checkpoint.epoch, told: true });
                    self.tell("finalized_checkpoint", event);
                }
                Some(_) => {}
            },
            Work::LearnDuties => {
                if let Some(tip) = self.tip
                    && let Err(unknown) = self.chain.duties(tip.what)
                    && self.may_ask(unknown)
                {
                    return Progress::Needs(unknown.into());
                }
            }
        }
        Progress::Done
    }

    /// A block is told after its ancestors, and once.
    fn block(&mut self, slot: u64, root: B256, event: Option<&Bytes>) -> Progress {
        let far = |tip: u64| slot > tip.saturating_add(MAX_GAP) || slot.saturating_add(WINDOW) < tip;
        if self.chain.is_told(root) {
            return Progress::Done;
        }
        let made_up = || self.chain.header(root).map(|header| beacon::block_event(root, header));
        let Some(event) = event.cloned().or_else(made_up) else { return Progress::Needs(Question::Header(root)) };
        if self.slot().is_none_or(far) {
            self.tell_block(root, slot, event);
            return Progress::Done;
        }
        match self.chain.untold(root, self.tip.map(|tip| tip.what)) {
            Err(unknown) => return Progress::Needs(unknown.into()),
            Ok(missed) => {
                for root in missed {
                    self.make_up_block(root);
                }
                self.tell_block(root, slot, event);
            }
        }
        Progress::Done
    }

    fn head(&mut self, head: &Head) -> Progress {
        let (slot, root, event) = (head.slot, head.root, head.event.as_ref());
        let Some(tip) = self.tip else {
            if self.chain.header(root).is_none() {
                return Progress::Needs(Question::Header(root));
            }
            self.begin(root, event);
            return Progress::Done;
        };
        if tip.what == root {
            if let (Some(event), false) = (event, tip.told) {
                self.begin(root, Some(event));
            }
            return Progress::Done;
        }
        let path = match self.chain.path_from_tip(tip.what, root, slot) {
            Err(unknown) => return Progress::Needs(unknown.into()),
            Ok(path) => path,
        };
        let (fork, missed) = match path {
            PathFromTip::Behind => return Progress::Done,
            PathFromTip::TooLong => {
                self.skip(head);
                return Progress::Done;
            }
            PathFromTip::Leads { fork, missed } => (fork, missed),
        };
        let next = missed[0];
        let is_last = next == root;
        // A head on the path that a node has reported together with its dependent roots.
        let reported = missed.iter().copied().find(|root| self.chain.said(*root).is_some());
        let reported = reported.or_else(|| event.is_some().then_some(root));
        let event = event.filter(|_| is_last);
        let is_made_up = event.is_none();
        // A head's own event may name its dependent roots; a made-up one needs them.
        let duties = match self.chain.duties(next).or_else(|unknown| self.chain.duties_by(&missed, unknown)) {
            Ok(duties) => duties,
            Err(unknown) if is_made_up && self.may_ask(unknown) => return Progress::Needs(unknown.into()),
            // The next head that a node reports comes with all heads missed before.
            Err(_) => match reported {
                Some(later) => self.unchanged(next, later),
                None => return Progress::Done,
            },
        };
        self.effects.extend(self.chain.presumed(next).map(Effect::Unproven));
        if fork != tip.what {
            self.tell_reorg(tip.what, root, fork);
        }
        if !self.chain.is_told(next) {
            self.make_up_block(next);
        }
        let transition = self.chain.begins_epoch(next);
        let event = event.cloned().or_else(|| {
            let header = self.chain.header(next)?;
            Some(beacon::head_event(next, header, transition, duties))
        });
        if let Some(event) = event {
            self.tell_head(next, event);
        }
        self.duties = Some(duties);
        self.arrived(next, true);
        // The node's own `finalized_checkpoint` comes with the first block of an epoch, if the node
        // reported that block. A block later the event is late, and the stitcher asks for finality.
        if (transition && is_made_up) || (self.asks_finality && !transition) {
            let state = self.chain.header(next).map(|header| header.state);
            self.work.push_front(Work::Finality(state));
            self.asks_finality = false;
        } else {
            self.asks_finality |= transition;
        }
        if is_last {
            self.reorg = None;
            self.failures = 0;
            Progress::Done
        } else {
            Progress::Again
        }
    }

    /// The clients' chain begins with this head.
    fn begin(&mut self, root: B256, event: Option<&Bytes>) {
        if let Some(event) = event {
            self.tell_head(root, event.clone());
        }
        self.chain.begin(root);
        self.duties = self.chain.duties(root).ok().or(self.duties);
        self.arrived(root, event.is_some());
    }

    fn skip(&mut self, head: &Head) {
        let from = self.slot().unwrap_or(0);
        self.effects.push(Effect::Skipped { from, to: head.slot });
        self.chain.note(head.root, head.slot, self.tip.map(|tip| tip.what), head.event.as_ref());
        self.failures = 0;
        self.begin(head.root, head.event.as_ref());
    }

    fn arrived(&mut self, root: B256, told: bool) {
        self.tip = Some(Last { what: root, told });
        self.chain.forget_before(root);
        if let Some(slot) = self.slot() {
            self.late.arrived(slot);
            let next = self.held.arrived(root, slot);
            self.pass(next);
        }
    }

    fn tell_reorg(&mut self, old: B256, new: B256, fork: B256) {
        let (Some(before), Some(after)) = (self.chain.header(old), self.chain.header(new)) else { return };
        let depth = before.slot.saturating_sub(self.chain.header(fork).map_or(0, |header| header.slot));
        let own = self.reorg.take().filter(|(said, _)| *said == old).map(|(_, event)| event);
        let event = own
            .unwrap_or_else(|| beacon::reorg_event((old, before), (new, after), depth, self.chain.epoch(after.slot)));
        self.effects.push(Effect::Reorged(depth));
        self.tell("chain_reorg", event);
    }

    fn make_up_block(&mut self, root: B256) {
        let Some(header) = self.chain.header(root) else { return };
        let (slot, event) = (header.slot, beacon::block_event(root, header));
        self.effects.push(Effect::Filled);
        self.tell_block(root, slot, event);
    }

    fn tell_block(&mut self, root: B256, slot: u64, event: Bytes) {
        self.chain.tell(root, slot);
        self.effects.push(Effect::Shows(slot));
        self.tell("block", event);
    }

    fn tell_head(&mut self, root: B256, event: Bytes) {
        self.effects.extend(self.chain.slot(root).map(Effect::Shows));
        self.tell("head", event);
    }

    /// The dependent roots of a head if nothing has changed since the last head, or else those that
    /// the node gave for `later`.
    fn unchanged(&self, head: B256, later: B256) -> Duties {
        let last = self.duties.or_else(|| self.chain.said(later)).unwrap_or_default();
        Duties { current: self.chain.last_before(head).unwrap_or(last.current), ..last }
    }

    /// Whether a node may know an answer that no event has given, and there is time to ask.
    fn may_ask(&self, unknown: Unknown) -> bool {
        !self.late.is_hurried && !matches!(unknown, Unknown::Duties { epoch, .. } if self.unanswered.contains(&epoch))
    }

    fn pass(&mut self, events: impl IntoIterator<Item = (String, Bytes)>) {
        self.effects.extend(events.into_iter().map(|(topic, bytes)| Effect::Tell { topic, bytes }));
    }

    fn tell(&mut self, topic: &str, bytes: Bytes) {
        self.effects.push(Effect::Tell { topic: topic.to_owned(), bytes });
    }
}

#[cfg(test)]
mod tests;
