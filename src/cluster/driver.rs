//! The task of a replica that has reached the store: feeds the rules, and carries out the effects.
//!
//! Inputs come one at a time, each with its moment. The consequences of one are done before the
//! next comes in. Each request to the store has a deadline and exactly one answer, and carries the
//! identity of the bucket for which the request was made.

mod effects;
mod news;
pub(super) mod wishing;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::{
    StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::{error, info, warn};

use self::wishing::{Asked, MAX_WRITES};
use super::{
    Tools,
    connect::{Connected, Plan},
    epoch_file::EpochFile,
    lease::{self, Leadership},
    membership::{self, Membership},
    moment::Moment,
    snapshot::{Heights, Snapshot},
    store::{Prefix, Store, Watch},
    wishes::{Table, Wishes},
};
use crate::domain::duration::millis;
use crate::{
    config,
    domain::fleet::{Incarnation, MemberState, timing::mix},
};

/// Transitions that time alone makes, one after the other, before the task waits again.
const MOST_TICKS: usize = 16;
/// The shortest wait.
const SHORTEST_WAIT: Duration = Duration::from_millis(1);
/// The longest wait: tokio's clock stands while the machine sleeps, and the leases' does not.
const LONGEST_WAIT: Duration = Duration::from_millis(250);
/// Good answers of the store in a row after which a failed replica recovers.
const RISE: u32 = 2;

/// A request to the driver.
pub(super) enum Command {
    /// Other settings count.
    Reload(Box<Plan>),
    /// Clients were shown a higher block.
    Beat,
    /// Leave the cluster, and tell when that is done.
    Leave(oneshot::Sender<()>),
    /// Write a wish of the operator.
    Wish(Asked),
}

/// An input of one of the rules.
enum Feed {
    Lead(lease::Input),
    Member(membership::Input),
}

/// A hook that runs: its number and its end. Dropped, the hook is aborted.
type RunningHook = (u64, BoxFuture<'static, Result<(), String>>);

pub(super) struct Driver {
    plan: Plan,
    tools: Tools,
    published: Arc<ArcSwap<Snapshot>>,
    heights: watch::Sender<Heights>,
    published_wishes: watch::Sender<Wishes>,
    commands: mpsc::Receiver<Command>,
    store: Arc<dyn Store>,
    bucket: Incarnation,
    /// The operator has drained the proxy, as the rules know.
    is_drained: bool,
    watch: Watch,
    /// The watch has listed all entries.
    is_synced: bool,
    /// When the store last sent any news.
    heard: Option<Moment>,
    lead: Leadership,
    member: Membership,
    wishes: Table,
    /// Places for wishes that are being written.
    writes: Arc<Semaphore>,
    inputs: VecDeque<Feed>,
    requests: FuturesUnordered<BoxFuture<'static, Feed>>,
    /// Requests whose outcome changes nothing.
    aside: JoinSet<()>,
    hook: Option<RunningHook>,
    epoch_file: Option<EpochFile>,
    /// Hears of the end of the leave.
    leaving: Option<oneshot::Sender<()>>,
    snapshot: Snapshot,
    /// The news of heartbeats and view that are in the snapshot.
    told: Option<u64>,
    /// Why the newest request to the store failed; none where the store has answered.
    fault: Arc<Mutex<Option<String>>>,
    /// Why the bucket cannot be watched; none since the last full look at the bucket.
    watch_fault: Option<String>,
    /// When a request last failed; none after a while without.
    failed: Option<Moment>,
}

impl Driver {
    pub(super) fn new(connected: Connected, epoch_file: Option<EpochFile>) -> Self {
        let Connected { plan, tools, snapshot: published, heights, wishes, commands, store, bucket } = connected;
        let now = (tools.clock)();
        let me = plan.settings.replica.clone();
        let previous = epoch_file.as_ref().and_then(|file| file.previous(bucket));
        // The same seed and name, later, is another process.
        let process = mix(me.as_str().bytes().fold(tools.seed ^ now.0, |seed, byte| mix(seed ^ u64::from(byte))));
        let lead = Leadership::new(me.clone(), options(&plan.settings), previous, now);
        let member = Membership::new(me, process, plan.settings.timing, now);
        let snapshot = Snapshot::clone(&published.load());
        let watch = store.watch(&Prefix::ALL);
        let mut inputs = VecDeque::new();
        inputs.push_back(Feed::Member(membership::Input::Ready));
        Self {
            plan,
            tools,
            published,
            heights,
            published_wishes: wishes,
            commands,
            store,
            bucket,
            is_drained: false,
            watch,
            is_synced: false,
            heard: None,
            lead,
            member,
            wishes: Table::new(),
            writes: Arc::new(Semaphore::new(MAX_WRITES)),
            inputs,
            requests: FuturesUnordered::new(),
            aside: JoinSet::new(),
            hook: None,
            epoch_file,
            leaving: None,
            snapshot,
            told: None,
            fault: Arc::default(),
            watch_fault: None,
            failed: None,
        }
    }

    /// Runs until the replica has left, or the proxy ends.
    pub(super) async fn run(mut self) {
        loop {
            self.settle();
            self.publish();
            if self.has_left() {
                if let Some(left) = self.leaving.take() {
                    // Whoever asked may have lost patience.
                    let _ = left.send(());
                }
                return;
            }
            let wait = self.wait();
            // All arms are cancel-safe. Answers come before the watch, whose events may be many.
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(answer) = self.requests.next(), if !self.requests.is_empty() => self.inputs.push_back(answer),
                Some(ended) = OptionFuture::from(self.hook.as_mut().map(|(_, run)| run)) => self.hook_ended(ended),
                event = self.watch.next() => self.take(event),
                () = sleep(wait) => {}
            }
        }
    }

    fn now(&self) -> Moment {
        (self.tools.clock)()
    }

    /// Feeds all inputs that wait, and those that are due by now.
    fn settle(&mut self) {
        self.look_at_the_drain();
        self.feed_all();
        for _ in 0..MOST_TICKS {
            let now = self.now();
            let is_due = |at: Option<Moment>| at.is_some_and(|at| at <= now);
            let (lead, member) = (is_due(self.lead.next_due()), is_due(self.member.next_due(now)));
            if !lead && !member {
                return;
            }
            if lead {
                self.inputs.push_back(Feed::Lead(lease::Input::Tick));
            }
            if member {
                self.inputs.push_back(Feed::Member(membership::Input::Tick));
            }
            self.feed_all();
        }
    }

    fn feed_all(&mut self) {
        while let Some(feed) = self.inputs.pop_front() {
            let now = self.now();
            match feed {
                Feed::Lead(input) => {
                    let turn = self.lead.input(now, input);
                    self.led(now, turn);
                }
                Feed::Member(input) => {
                    let turn = self.member.input(now, input);
                    self.belonged(now, turn);
                }
            }
        }
    }

    /// A switch of the operator is news for the election, and for the other replicas.
    fn look_at_the_drain(&mut self) {
        let is_drained = (self.tools.is_drained)();
        if is_drained != self.is_drained {
            self.is_drained = is_drained;
            self.inputs.push_back(Feed::Lead(lease::Input::SetAside(is_drained)));
            self.inputs.push_back(Feed::Member(membership::Input::Beat));
        }
    }

    /// How long nothing is due.
    fn wait(&self) -> Duration {
        let now = self.now();
        let due = self.lead.next_due().into_iter().chain(self.member.next_due(now)).min();
        let wait = due.map_or(LONGEST_WAIT, |due| Duration::from_millis(due.since(now)));
        wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)
    }

    fn publish(&mut self) {
        let now = self.now();
        while self.aside.try_join_next().is_some() {}
        self.snapshot.update(now, &self.lead, &self.member);
        if self.told != Some(self.member.news()) {
            self.told = Some(self.member.news());
            self.snapshot.update_fleet(now, &self.member);
        }
        self.snapshot.heard = self.heard;
        self.note_fault(now);
        self.published.store(Arc::new(self.snapshot.clone()));
        self.heights.send_if_modified(|known| {
            let heights = self.snapshot.heights_of_others(now);
            let is_new = *known != heights;
            *known = heights;
            is_new
        });
        if let Some(wishes) = self.wishes.news() {
            let ignored = wishes.ignored();
            if ignored > 0 && self.published_wishes.borrow().ignored() == 0 {
                warn!(ignored, "there are too many wishes of operators: the newest are ignored");
            }
            self.published_wishes.send_replace(wishes);
        }
    }

    /// Shows why the store fails. The log tells the first fault, and when there was none for a
    /// while.
    fn note_fault(&mut self, now: Moment) {
        let of_requests = self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.snapshot.fault = of_requests.or_else(|| self.watch_fault.clone());
        match (&self.snapshot.fault, self.failed) {
            (Some(why), before) => {
                if before.is_none() {
                    warn!(why, "the cluster's store fails: calls go on");
                }
                self.failed = Some(now);
            }
            (None, Some(at)) if now.since(at) > self.plan.settings.timing.failover => {
                info!("the cluster's store answers again");
                self.failed = None;
            }
            (None, _) => {}
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Reload(plan) => {
                self.plan = *plan;
                self.member.reload(self.plan.settings.timing);
                self.inputs.push_back(Feed::Lead(lease::Input::Reload(options(&self.plan.settings))));
            }
            Command::Wish(asked) => self.wish(asked),
            Command::Beat => self.inputs.push_back(Feed::Member(membership::Input::Beat)),
            Command::Leave(left) => {
                self.leaving = Some(left);
                self.inputs.push_back(Feed::Lead(lease::Input::Stop));
                self.inputs.push_back(Feed::Member(membership::Input::Drain));
                // No shard is owned yet, so there is none to hand over.
                self.inputs.push_back(Feed::Member(membership::Input::Emptied));
            }
        }
    }

    /// Whether the replica was asked to leave, and has left as far as the store allows.
    fn has_left(&self) -> bool {
        let is_out = matches!(self.member.state(), None | Some(MemberState::Left | MemberState::Failed));
        let now = self.now();
        // A store that says nothing is not waited for, once the lease and its hook are over.
        let is_silent = self.heard.is_none_or(|heard| now.since(heard) > self.plan.settings.timing.lease);
        let is_cut_off = is_silent && self.lead.term(now).is_none() && self.hook.is_none();
        self.leaving.is_some() && (is_cut_off || (is_out && self.lead.is_done()))
    }

    fn hook_ended(&mut self, ended: Result<(), String>) {
        let Some((hook, _)) = self.hook.take() else { return };
        if let Err(why) = &ended {
            error!(why, "a hook of the cluster failed");
        }
        self.inputs.push_back(Feed::Lead(lease::Input::HookDone { hook, is_ok: ended.is_ok() }));
    }
}

/// The settings of the election.
fn options(settings: &config::Cluster) -> lease::Options {
    lease::Options {
        timing: settings.timing,
        preferred: settings.preferred,
        shared: true,
        hook_timeout: millis(settings.on_hook_timeout),
        yield_timeout: millis(settings.failover_timeout),
        rise: RISE,
    }
}
