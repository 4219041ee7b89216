//! The effects of the rules, done.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, timeout};
use tracing::{error, info, warn};

use super::{Driver, Feed, news::number};
use crate::{
    cluster::{
        connect::request_timeout,
        lease::{self, Effect, HookKind, State, WriteError},
        membership::{self, MemberChange},
        moment::Moment,
        store::{self, Entry, Store, Ttl},
    },
    domain::fleet::{
        Epoch, Heartbeat, Incarnation, Key, Lease, Payload, ReplicaName, StoreRevision, Term, decode, encode,
    },
};

/// How long the last heartbeat of a replica that is gone stays in the store, if that lets entries
/// expire.
const KEPT_HEARTBEAT: Duration = Duration::from_secs(24 * 60 * 60);
/// The fault of a request that is given up.
pub(super) const LATE: &str = "no answer in time";

impl Driver {
    /// Carries out the effects of the election.
    pub(super) fn led(&mut self, now: Moment, turn: lease::Turn) {
        if let Some(transition) = &turn.transition {
            self.noted(now, transition);
        }
        for effect in turn.effects {
            match effect {
                Effect::Write { sequence, expected, lease } => {
                    let write = self.write(&Key::Leader, expected, &lease, None);
                    self.ask(async move { Feed::Lead(lease::Input::Wrote { sequence, outcome: write.await }) });
                }
                Effect::Read { sequence } => {
                    let (read, bucket) = (self.read(&Key::Leader), self.bucket);
                    self.ask(async move {
                        Feed::Lead(lease::Input::Read { sequence, outcome: lease_of(read.await, bucket) })
                    });
                }
                // No effect of the proxy is the leader's alone yet, so there is none to stop.
                Effect::BeginWork { .. } => {}
                Effect::StopWork { .. } => self.inputs.push_back(Feed::Lead(lease::Input::Drained)),
                Effect::RunHook { hook, kind, term } => match self.hook(kind, term) {
                    Some(run) => {
                        info!(hook = word(kind), %term, "a hook of the cluster runs");
                        self.hook = Some((hook, run));
                    }
                    None => self.inputs.push_back(Feed::Lead(lease::Input::HookDone { hook, is_ok: true })),
                },
                Effect::AbortHook { hook } => {
                    if self.hook.as_ref().is_some_and(|(number, _)| *number == hook) {
                        warn!("a hook of the cluster is ended: its time is over, or the opposite one is due");
                        self.hook = None;
                    }
                }
                Effect::CasLost => self.tools.metrics.cluster_cas_lost(),
                Effect::Left => info!("the lease is given away"),
                Effect::Exit => {
                    (self.tools.exit)("this replica led, and its end could not be carried out: the process ends");
                }
            }
        }
    }

    /// A hook, which begins only while the lease lasts if it is for a leader.
    fn hook(&self, kind: HookKind, term: Term) -> Option<BoxFuture<'static, Result<(), String>>> {
        let (clock, end) = (self.tools.clock.clone(), self.lead.lease_end());
        let is_leaders = kind == HookKind::Lead;
        self.plan.hooks.run(kind, term, move || !is_leaders || end.is_some_and(|end| clock() < end))
    }

    fn noted(&mut self, now: Moment, transition: &lease::Transition) {
        let lease::Transition { from, to, reason } = transition;
        self.tools.metrics.cluster_changed(from.role().as_str(), to.role().as_str());
        match to {
            State::Fenced => {
                self.snapshot.fenced(now, reason);
                self.tools.metrics.cluster_fenced(reason.as_str());
                warn!(%reason, "this replica leads no longer");
            }
            State::Failed => warn!(%reason, "this replica takes no part in the election"),
            State::Leading => {
                let term = self.lead.term(now).unwrap_or_default();
                info!(%term, %reason, "this replica leads");
            }
            _ => info!(from = %from.role(), to = %to.role(), %reason, "the part in the election changes"),
        }
    }

    /// Carries out the effects of membership.
    pub(super) fn belonged(&mut self, now: Moment, turn: membership::Turn) {
        if let Some(membership::Transition { from, to }) = &turn.transition {
            let from = from.as_ref().map_or("none", |from| from.as_str());
            info!(from, %to, "this replica's standing in the cluster changes");
        }
        for effect in turn.effects {
            match effect {
                membership::Effect::Write { sequence, expected, mut heartbeat } => {
                    self.complete(now, &mut heartbeat);
                    let key = Key::Replica(self.plan.settings.replica.clone());
                    let write = self.write(&key, expected, &*heartbeat, Some(Ttl::at_least(KEPT_HEARTBEAT)));
                    let (metrics, sent) = (self.tools.metrics.clone(), Instant::now());
                    self.ask(async move {
                        let outcome = write.await;
                        metrics.cluster_heartbeat(sent.elapsed().as_secs_f64());
                        Feed::Member(membership::Input::Wrote { sequence, outcome })
                    });
                }
                membership::Effect::Read { sequence } => {
                    let key = Key::Replica(self.plan.settings.replica.clone());
                    let (read, bucket) = (self.read(&key), self.bucket);
                    self.ask(async move {
                        let outcome = read.await.map(|entry| entry.map(|entry| heartbeat_of(&entry, bucket)));
                        Feed::Member(membership::Input::Read { sequence, outcome })
                    });
                }
                membership::Effect::WriteView { sequence, expected, view } => {
                    let write = self.write(&Key::View, expected, &view, None);
                    self.ask(
                        async move { Feed::Member(membership::Input::WroteView { sequence, outcome: write.await }) },
                    );
                }
                membership::Effect::Registered(epoch) => self.registered(epoch),
                membership::Effect::Eligible(is_eligible) => {
                    self.inputs.push_back(Feed::Lead(lease::Input::Eligible(is_eligible)));
                }
                membership::Effect::Replaced { by } => {
                    error!(%by, "another process of this replica's name has registered: this one takes part no more");
                    self.inputs.push_back(Feed::Lead(lease::Input::Replaced { by }));
                }
                membership::Effect::View { number, changes } => {
                    self.tools.metrics.cluster_view_changed();
                    for MemberChange { replica, epoch, from, to } in changes {
                        let word = |state: &Option<_>| state.as_ref().map_or("none".to_owned(), ToString::to_string);
                        let (from, to) = (word(&from), word(&to));
                        info!(view = %number, %replica, %epoch, from, to, "the cluster's view changes");
                    }
                }
                membership::Effect::Violation { number } => {
                    error!(view = %number, "the store gave two views one number: it is broken");
                }
                membership::Effect::Link { is_ok } => {
                    if !is_ok {
                        self.tools.metrics.cluster_store_failed();
                    }
                    self.inputs.push_back(Feed::Lead(lease::Input::Link { is_ok }));
                }
                membership::Effect::Forget { replica, revision } => self.forget(&replica, revision),
                membership::Effect::Unheard => self.tools.metrics.cluster_unreadable(),
                membership::Effect::CasLost => self.tools.metrics.cluster_cas_lost(),
            }
        }
    }

    /// Deletes the heartbeat of a replica that is gone. Other replicas may be faster, or the store
    /// away: then the heartbeat stays, or expires.
    fn forget(&mut self, replica: &ReplicaName, revision: StoreRevision) {
        info!(%replica, "a replica that is gone for long is forgotten");
        let (store, key) = (self.store.clone(), place(&Key::Replica(replica.clone())));
        let longest = self.longest();
        self.aside.spawn(async move {
            let _ = timeout(longest, store.compare_and_delete(&key, store::Revision::new(revision.0))).await;
        });
    }

    /// Adds to a heartbeat the parts that only the rest of the proxy knows.
    fn complete(&self, now: Moment, heartbeat: &mut Heartbeat) {
        let local = (self.tools.local)();
        heartbeat.role = self.lead.role();
        heartbeat.term = self.lead.term(now);
        heartbeat.wants_lead = self.lead.wants_lead(now);
        heartbeat.drained = self.is_drained;
        (heartbeat.heads, heartbeat.serving, heartbeat.verdicts) = (local.heads, local.serving, local.verdicts);
        (heartbeat.wishes, heartbeat.shards) = (local.wishes, local.shards);
        env!("CARGO_PKG_VERSION").clone_into(&mut heartbeat.build);
    }

    /// This process has a new life.
    fn registered(&mut self, epoch: Epoch) {
        info!(%epoch, "this replica has joined the cluster");
        self.inputs.push_back(Feed::Lead(lease::Input::Registered(epoch)));
        let Some(file) = self.epoch_file.clone() else { return };
        let bucket = self.bucket;
        // The disk may be slow. A process that dies before the end has no life in the file, and the
        // next one waits as any other replica.
        tokio::task::spawn_blocking(move || {
            if let Err(why) = file.write(bucket, epoch) {
                warn!(%why, "the file in cluster.dir is not written");
            }
        });
    }

    /// Has a request's answer fed to the rules.
    fn ask(&mut self, answer: impl Future<Output = Feed> + Send + 'static) {
        self.requests.push(Box::pin(answer));
    }

    fn write(
        &self,
        key: &Key,
        expected: Option<StoreRevision>,
        payload: &impl Payload,
        ttl: Option<Ttl>,
    ) -> impl Future<Output = Result<StoreRevision, WriteError>> + Send + 'static {
        let (store, longest, fault) = (self.store.clone(), self.longest(), self.fault.clone());
        let (key, value) = (place(key), Bytes::from(encode(payload, self.bucket)));
        async move {
            let write = async {
                match expected {
                    Some(seen) => store.compare_and_set(&key, store::Revision::new(seen.0), value, ttl).await,
                    None => store.create(&key, value, ttl).await,
                }
            };
            let outcome =
                timeout(longest, write).await.unwrap_or_else(|_| Err(store::WriteError::Ambiguous(LATE.to_owned())));
            tell(&fault, outcome.as_ref().err().filter(|error| !matches!(error, store::WriteError::Conflict { .. })));
            outcome.map(number).map_err(|error| match error {
                store::WriteError::Conflict { .. } => WriteError::Conflict,
                store::WriteError::Ambiguous(_) => WriteError::Ambiguous,
                store::WriteError::Unavailable(_) | store::WriteError::Malformed(_) => WriteError::Unavailable,
            })
        }
    }

    fn read(&self, key: &Key) -> BoxFuture<'static, Result<Option<Entry>, ()>> {
        let (store, key, longest): (Arc<dyn Store>, _, _) = (self.store.clone(), place(key), self.longest());
        let fault = self.fault.clone();
        Box::pin(async move {
            let late = |_| Err(store::ReadError::Unavailable(LATE.to_owned()));
            let outcome = timeout(longest, store.read(&key)).await.unwrap_or_else(late);
            tell(&fault, outcome.as_ref().err());
            outcome.map_err(drop)
        })
    }

    /// The longest wait for an answer: the store has a deadline of its own, which tells more.
    pub(super) fn longest(&self) -> Duration {
        request_timeout(&self.plan.settings) * 2
    }
}

/// Notes the outcome of a request.
pub(super) fn tell(fault: &Mutex<Option<String>>, error: Option<&impl ToString>) {
    *fault.lock().unwrap_or_else(PoisonError::into_inner) = error.map(ToString::to_string);
}

/// A key in the store.
fn place(key: &Key) -> store::Key {
    store::Key::parse(&key.to_string()).expect("both escape names in the same way")
}

fn lease_of(
    read: Result<Option<Entry>, ()>,
    bucket: Incarnation,
) -> Result<Option<(StoreRevision, Lease)>, lease::ReadError> {
    let Some(entry) = read.map_err(|()| lease::ReadError::Unavailable)? else { return Ok(None) };
    let revision = number(entry.revision);
    match decode(entry.key.as_str(), &entry.value, bucket) {
        Ok(lease) => Ok(Some((revision, lease))),
        Err(malformed) => Err(lease::ReadError::Malformed(revision, malformed)),
    }
}

fn heartbeat_of(entry: &Entry, bucket: Incarnation) -> (StoreRevision, Option<Heartbeat>) {
    (number(entry.revision), decode(entry.key.as_str(), &entry.value, bucket).ok())
}

fn word(kind: HookKind) -> &'static str {
    match kind {
        HookKind::Lead => "on_lead",
        HookKind::Fence => "on_fence",
    }
}
