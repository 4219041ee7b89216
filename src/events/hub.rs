//! The task behind one network's events: keeps a stream open to the node that serves the calls,
//! gives the events of that stream to the stitcher, and carries out the stitcher's effects.
//!
//! Rule: a new stream runs before the old one is left. While the old stream is good, the new one
//! must report a head first; and events that pass through are still taken from the old stream for
//! [`OVERLAP`] after the change. Reason: a stream can be open and silent for ever, and a stream
//! does not repeat events that its node had before the stream was opened. Example: the calls move
//! from node A to node B at second 0. The stream of B is open at second 1 and reports its first
//! head at second 9. Until then clients get the heads of A, from then on those of B; attestations
//! that A reports pass until second 10.

mod opening;
mod questions;
mod silence;
mod stream;
mod trials;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tracing::{info, warn};

use self::{
    stream::Stream,
    trials::{Refusal, Trials},
};
use super::{
    audience::Audience,
    beacon::ChainEvent,
    node::News,
    question::Asked,
    sse::Event,
    stitch::{Effect, Input, Question, Stitcher},
    topics::{self, Names},
};
use crate::{
    domain::node_id::NodeId,
    metrics::Metrics,
    pool::{
        Pool,
        health::{Fault, Trouble},
    },
    route::avoided::Avoided,
};

/// How long the stream goes on after the last client has left, and how long the stream carries
/// topics that no client wants any more.
const LINGER: Duration = Duration::from_secs(10);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(50);
/// How much longer the old node's events pass after a change of streams: healthy nodes are no
/// further apart.
const OVERLAP: Duration = Duration::from_secs(1);
/// Events that may wait between a stream and the hub.
const BACKLOG: usize = 256;
/// A silent stream counts as lost after that many slots.
const SILENT_SLOTS: u32 = 2;
/// The first pause after a stream is lost or breaks; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The present stream, as clients see it that wait for their topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The topics that the present stream carries; empty while there is none.
    pub(super) open: Names,
    /// The name of the stream's node.
    pub(super) node: Option<Arc<str>>,
    /// Topics that the present node does not know, with status and body of its answer.
    pub(super) refused: BTreeMap<String, Refusal>,
}

pub(super) struct Hub {
    pool: Arc<Pool>,
    audience: Arc<Audience>,
    metrics: Arc<Metrics>,
    state: watch::Sender<State>,
    stitcher: Option<Stitcher>,
    current: Option<Stream>,
    /// A stream that is to take the place of the current one.
    next: Option<Stream>,
    /// The stream before the current one, and until when its events pass.
    leaving: Option<(Stream, Instant)>,
    streams: JoinSet<()>,
    opened: u64,
    news: mpsc::Sender<(u64, News)>,
    /// Answers to the stitcher's questions, with the number in `asked_in` at the question.
    questions: JoinSet<(u64, Question, Asked)>,
    /// Grows each time that the answers to earlier questions lose their use.
    asked_in: u64,
    /// Waits for late answers of nodes to questions that other nodes have answered.
    waited: JoinSet<()>,
    trials: Trials,
    avoided: Avoided,
    /// Since when there is no client.
    empty: Option<Instant>,
    /// Since when the stream carries topics that no client wants.
    excess: Option<Instant>,
    /// When a stream was last opened only for other topics.
    renewed: Option<Instant>,
    /// The node whose stream was lost and is opened again, and since when; until a head is told.
    reopened: Option<(NodeId, Instant)>,
    /// Since when a header is awaited from that node.
    owes_since: Option<Instant>,
}

/// The part that a stream plays for the hub.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Current,
    Next,
    Leaving,
}

/// Ends the clients' streams when the hub ends, also by a panic.
struct Closing(Arc<Audience>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Runs the hub for ever.
pub(super) async fn run(
    mut pools: watch::Receiver<Arc<Pool>>,
    audience: Arc<Audience>,
    state: watch::Sender<State>,
    metrics: Arc<Metrics>,
    seed: u64,
) {
    let _closing = Closing(audience.clone());
    let (news, mut heard) = mpsc::channel(BACKLOG);
    let pool = pools.borrow_and_update().clone();
    let mut changes = pool.subscribe();
    let mut hub = Hub {
        pool,
        audience: audience.clone(),
        metrics,
        state,
        stitcher: None,
        current: None,
        next: None,
        leaving: None,
        streams: JoinSet::new(),
        opened: 0,
        news,
        questions: JoinSet::new(),
        asked_in: 0,
        waited: JoinSet::new(),
        trials: Trials::default(),
        avoided: Avoided::new(seed),
        empty: None,
        excess: None,
        renewed: None,
        reopened: None,
        owes_since: None,
    };
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_idle = hub.stitcher.is_none() && hub.audience.wanted().is_none();
        // All arms are cancel-safe. An empty set would be ready at once, so its arm is off. The arm
        // of the streams' news stands last, because events come in floods and the rest is rare.
        tokio::select! {
            biased;
            Some(done) = hub.questions.join_next(), if !hub.questions.is_empty() => {
                if let Ok((id, question, asked)) = done {
                    hub.answered(id, question, asked);
                }
            }
            () = hub.trials.next(), if hub.trials.are_running() => {}
            Some(ended) = hub.streams.join_next(), if !hub.streams.is_empty() => {
                if let Err(error) = ended && error.is_panic() {
                    std::panic::resume_unwind(error.into_panic());
                }
            }
            Some(_) = hub.waited.join_next(), if !hub.waited.is_empty() => continue,
            () = audience.changed.notified() => {}
            moved = pools.changed() => {
                if moved.is_err() {
                    return;
                }
                let earlier = std::mem::replace(&mut hub.pool, pools.borrow_and_update().clone());
                hub.pool.inherit_shown(&earlier);
                changes = hub.pool.subscribe();
                // Pauses and trials belong to the nodes of the old pool.
                hub.avoided.clear();
                hub.reopened = None;
                hub.trials = Trials::default();
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            _ = ticks.tick(), if !is_idle => {}
            Some((id, news)) = heard.recv() => if !hub.hear(id, news) {
                continue;
            },
        }
        hub.steer(Instant::now());
    }
}

impl Hub {
    fn network(&self) -> &str {
        &self.pool.network
    }

    /// Opens, replaces or ends the stream, as clients and nodes need.
    fn steer(&mut self, now: Instant) {
        if self.leaving.take_if(|(stream, until)| *until <= now || !stream.is_well()).is_some()
            && let Some(current) = self.current.as_ref().filter(|current| Arc::ptr_eq(&current.pool, &self.pool))
        {
            self.trials.lasts(current.node, &current.topics);
        }
        let latest = Input::Latest(self.pool.latest_slot().unwrap_or(u64::MAX));
        let Some(wanted) = self.audience.wanted() else {
            // The stream that is kept for clients to come goes on to tell of new slots.
            self.step(latest);
            return self.rest(now);
        };
        self.empty = None;
        if self.stitcher.is_none() {
            let beacon = self.pool.snapshot().chain.as_ref().and_then(|chain| chain.beacon.clone());
            // Nothing can be stitched until a node has reported its chain.
            let Some(beacon) = beacon else { return self.await_chain(&wanted) };
            self.stitcher = Some(Stitcher::new(beacon.epoch(), self.pool.slot()));
        }
        self.step(latest);
        self.trials.expire(now);
        self.watch_muteness(now);
        self.watch_silence(now);
        self.watch_reopening(now);
        // Without a stream there is no node to ask, and no head can be late.
        if self.current.is_some() && self.stitcher.as_ref().is_some_and(Stitcher::holds) {
            self.step(Input::Time(now));
        }
        // While all nodes are to be avoided, the present stream goes on.
        let Some(node) = self.avoided.choose_stream(&self.pool, now) else { return self.publish() };
        let mut topics = Names::clone(&wanted);
        topics.extend(topics::CHAIN.map(str::to_owned));
        // Topics on trial join the stream when the node has proven to know them; clients of other
        // topics do not wait for that.
        topics.retain(|topic| self.trials.may_ask(node, topic));
        if self.fits(node, &topics, now) {
            self.next = None;
        } else {
            self.open(node, topics, now);
        }
        self.publish();
    }

    /// Before genesis, nodes have no chain to tell of: clients wait in their streams.
    fn await_chain(&self, wanted: &Names) {
        if self.pool.snapshot().serves() {
            self.show(State { open: wanted.clone(), ..State::default() });
        }
    }

    /// Ends the stream some time after the last client has left.
    fn rest(&mut self, now: Instant) {
        let since = *self.empty.get_or_insert(now);
        if now.saturating_duration_since(since) >= LINGER && self.stitcher.is_some() {
            (self.current, self.next, self.leaving) = (None, None, None);
            (self.stitcher, self.excess) = (None, None);
            self.drop_questions();
            self.pool.streams_from(None);
        }
        self.publish();
    }

    /// Takes the news of a stream. Returns whether the hub may have to act: most news are events,
    /// which only pass.
    fn hear(&mut self, id: u64, news: News) -> bool {
        let Some(role) = self.role(id) else { return false };
        match news {
            News::Event(event, _) => return self.event(role, event),
            News::Lost(_) if role == Role::Leaving => self.leaving = None,
            News::Lost(trouble)
                if role == Role::Current && (self.goes_back(&trouble) || self.opens_again(&trouble)) => {}
            News::Lost(trouble) => self.lost(role == Role::Next, trouble, FIRST_PAUSE),
            News::Opened => {
                if let Some(next) = &mut self.next {
                    next.running = true;
                }
                self.go_over(false);
            }
            News::Refused(status, body) => self.refuse(status, body),
        }
        true
    }

    fn role(&self, id: u64) -> Option<Role> {
        let leaving = self.leaving.as_ref().map(|(stream, _)| stream);
        let roles =
            [(&self.current.as_ref(), Role::Current), (&self.next.as_ref(), Role::Next), (&leaving, Role::Leaving)];
        roles.into_iter().find(|(stream, _)| stream.is_some_and(|stream| stream.id == id)).map(|(_, role)| role)
    }

    fn event(&mut self, role: Role, event: Event) -> bool {
        let said = ChainEvent::read(&event.topic, &event.data);
        let stream = match role {
            Role::Current => self.current.as_mut(),
            Role::Next => self.next.as_mut(),
            Role::Leaving => None,
        };
        let latest = self.pool.latest_slot().unwrap_or(u64::MAX);
        let is_head = matches!(said, Some(ChainEvent::Head { slot, .. }) if slot <= latest);
        if let (Some(ChainEvent::Head { slot, .. }), Some(stream), true) = (said, stream, is_head) {
            stream.slot = slot;
            stream.behind = None;
        }
        // Events that pass through go to clients at once, from the first stream to report each.
        if role == Role::Current || said.is_none() {
            self.step(Input::Event(event));
        } else if is_head && role == Role::Next && self.may_go_over() {
            self.go_over(true);
        }
        said.is_some()
    }

    /// The node refused a set of topics. The refusal does not name the unknown topic, so each is
    /// tried alone.
    fn refuse(&mut self, status: u16, body: Bytes) {
        let Some(next) = self.next.take() else { return };
        let all = next.topics.clone();
        let mut unsure = all.clone();
        unsure.retain(|topic| !topics::CHAIN.contains(&topic.as_str()));
        if unsure.is_empty() {
            let text = "it does not know the topics of the chain".to_owned();
            return self.shun(&next, Trouble { fault: Fault::Failing, text }, FIRST_PAUSE);
        }
        if let Some(current) = self.current.as_ref().filter(|current| current.is_of(&next.pool, next.node)) {
            // The node knows the topics of its current stream; unless these were all.
            let new: Names = unsure.difference(&current.topics).cloned().collect();
            unsure = if new.is_empty() { unsure } else { new };
        }
        if Arc::ptr_eq(&next.pool, &self.pool) {
            self.trials.begin(&self.pool, next.node, (unsure, all), (status, body));
        }
    }

    /// The stream is lost. Its node is left alone for `pause`, and longer if that happens again.
    fn lost(&mut self, is_next: bool, trouble: Trouble, pause: Duration) {
        let stream = if is_next { self.next.take() } else { self.current.take() };
        let more = stream.as_ref().and_then(|stream| self.more_than_current(is_next, stream));
        match (stream, more) {
            // The node's current stream goes on, but a stream with more topics is not to be had
            // now.
            (Some(stream), Some((more, without))) => {
                if Arc::ptr_eq(&stream.pool, &self.pool) {
                    self.fails_with(stream.node, more, without, &trouble);
                }
            }
            (Some(stream), None) => self.shun(&stream, trouble, pause),
            (None, _) => {}
        }
        if !is_next {
            self.is_without_stream();
        }
    }

    /// The current stream is gone. The next one takes its place, if it runs.
    fn is_without_stream(&mut self) {
        self.drop_questions();
        self.pool.streams_from(None);
        self.go_over(false);
    }

    /// The topics that a lost stream was to add to those of a good one from the same node, if that
    /// was its purpose, and the topics of the good one.
    fn more_than_current(&self, is_next: bool, stream: &Stream) -> Option<(Names, Names)> {
        let current = self.current.as_ref().filter(|current| is_next && current.is_of(&stream.pool, stream.node))?;
        let more: Names = stream.topics.difference(&current.topics).cloned().collect();
        (current.running && !more.is_empty()).then(|| (more, current.topics.clone()))
    }

    /// Leaves the node without a stream for `pause` at least, and probes the node now: the end of a
    /// stream is no failure of calls. A node of an earlier pool has another index in this one.
    fn shun(&mut self, stream: &Stream, trouble: Trouble, pause: Duration) {
        warn!(network = self.network(), node = stream.name(), why = trouble.text, "a stream of events is lost");
        if Arc::ptr_eq(&stream.pool, &self.pool) {
            self.avoided.add_growing(stream.node, pause, Instant::now());
            self.pool.probe_now(stream.node);
        }
    }

    fn step(&mut self, input: Input) {
        let Some(stitcher) = &mut self.stitcher else { return };
        for effect in stitcher.step(input) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Tell { topic, bytes } => self.audience.tell(&topic, &bytes),
            Effect::Shows(slot) => {
                let Some(current) = &self.current else { return };
                current.pool.shown(current.node, slot);
                if Arc::ptr_eq(&current.pool, &self.pool) {
                    self.avoided.forgive(current.node);
                    self.reopened = None;
                } else {
                    // Clients' requests go to the nodes of a reload already.
                    self.pool.inherit_shown(&current.pool);
                }
            }
            Effect::Ask(question) => self.ask(question),
            Effect::Reorged(depth) => {
                info!(network = self.network(), depth, "the head moved to another branch");
                self.metrics.reorged(self.network());
            }
            Effect::Filled => self.metrics.backfilled(self.network()),
            Effect::Skipped { from, to } => {
                warn!(network = self.network(), from, to, "gap in the events skipped");
                self.metrics.gap_skipped(self.network());
            }
            Effect::Unproven(slot) => {
                warn!(
                    network = self.network(),
                    slot, "head event sent without its header: no node returned the header in time"
                );
                self.metrics.doubtful_event(self.network(), "no_header");
            }
            Effect::Ahead(slot) => self.ahead(slot),
            Effect::Unreadable => self.metrics.doubtful_event(self.network(), "unreadable"),
            Effect::Broken(why) => {
                // The next stream of the node would break as this one did.
                let is_other = |current: &Stream, other: NodeId| other != current.node && self.pool.is_usable(other);
                let has_other =
                    |current: &Stream| NodeId::all(self.pool.nodes.len()).any(|other| is_other(current, other));
                let pause = if self.current.as_ref().is_some_and(has_other) {
                    self.pool.slot() * SILENT_SLOTS
                } else {
                    FIRST_PAUSE
                };
                self.lost(false, Trouble { fault: Fault::Failing, text: why.to_owned() }, pause);
            }
        }
    }

    fn publish(&self) {
        let open = self.current.as_ref().map(|current| current.topics.clone()).unwrap_or_default();
        let ours = self.current.as_ref().filter(|current| Arc::ptr_eq(&current.pool, &self.pool));
        let node = self.current.as_ref().map(|current| current.pool.nodes[current.node].name.clone());
        let refused = ours.map(|current| self.trials.refused_by(current.node)).unwrap_or_default();
        self.show(State { open, node, refused });
    }

    fn show(&self, next: State) {
        self.state.send_if_modified(|state| {
            let changed = *state != next;
            if changed {
                *state = next;
            }
            changed
        });
    }
}
