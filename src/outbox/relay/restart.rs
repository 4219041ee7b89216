//! A desk that is made anew: after a commit that failed, a task that broke off, or the return of a
//! network's nodes.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use super::{Order, Relay, ReplicaOrder, commits::After, network_rows, not_done};
use crate::outbox::{
    desk::{Desk, Effect, Input, NotDone, Stored},
    handle::not_writable,
    record::Delivery,
    step::Step,
    store::{Health, Store, StoreError},
};

/// From one look at a disk that takes nothing to the next.
const DISK_PAUSE: Duration = Duration::from_secs(1);

impl Relay {
    /// A commit failed: the desk is made anew.
    pub(super) async fn fail(&mut self, error: StoreError, after: After) {
        warn!(network = %self.network, %error, "a write of the outbox failed: the network's transactions are read from the disk again");
        let undone = self.commits.give_up(error, after).await;
        self.reopen(undone).await;
    }

    /// A task that sends or asks broke off, which is a bug: the desk would wait for its word for
    /// ever.
    pub(super) async fn broke_off(&mut self, ended: &tokio::task::JoinError) {
        error!(network = %self.network, %ended, "a task of the outbox broke off: a bug");
        self.restart().await;
    }

    /// Waits for the steps on their way, and makes the desk anew.
    pub(super) async fn restart(&mut self) {
        let (done, undone) = self.commits.settle().await;
        done.into_iter().for_each(|after| self.perform_all(after));
        self.reopen(undone).await;
    }

    /// Makes a new desk from the store, as soon as the store takes writes. `undone` followed steps
    /// that failed, each with its error; some of these steps may turn out to be on the disk. A
    /// client hears that its transaction is not taken only where that is sure.
    async fn reopen(&mut self, undone: Vec<(StoreError, After)>) {
        for (error, after) in &undone {
            after.waiters().into_iter().for_each(|waiter| self.answer(waiter, Err(not_done(error))));
        }
        let first = undone.first().map_or(NotDone::Unwritable, |(error, _)| not_done(error));
        let why = match first {
            NotDone::OutcomeUnknown => NotDone::Unwritable,
            other => other,
        };
        let is_unsure = undone.iter().any(|(error, _)| matches!(error, StoreError::Unsure(_)));
        let undone: Vec<After> = undone.into_iter().map(|(_, after)| after).collect();
        let resting = self.resting_desk();
        let mut waiting = Some(std::mem::replace(&mut self.desk, resting).into_waiters());
        loop {
            let is_writable = is_writable(&self.shared.store).await;
            // The line begins before the rows are read.
            let (line, network, owned) = (self.shared.store.line(), self.network.clone(), self.owned);
            match self.shared.store.read_long(move |reader| network_rows(reader, &network, owned)).await {
                Ok((stored, given_up, foreign)) => {
                    // A reload may have changed the terms meanwhile.
                    let mut desk = self.desk_of(stored);
                    // A row that cannot be read while the disk fails may be on the disk.
                    let lacking = if is_unsure && !is_writable { &NotDone::OutcomeUnknown } else { &why };
                    for (waiter, id, until) in waiting.take().unwrap_or_default() {
                        let is_open = self.waiters.get(&waiter).is_some_and(|waiting| !waiting.answer.is_closed());
                        if is_open && !desk.adopt(waiter, &id, until) {
                            self.answer(waiter, Err(lacking.clone()));
                        }
                    }
                    (self.desk, self.line, self.given_up, self.foreign) = (desk, line, given_up, foreign);
                    self.handle.totals.set(&self.desk);
                    // A line that broke meanwhile began before rows that went.
                    if is_writable && !self.line.is_broken() {
                        break;
                    }
                    // The disk may lack rows that can be read while it takes nothing:
                    // no client gets a hash for one of these.
                    let resting = self.resting_desk();
                    let mut still = std::mem::replace(&mut self.desk, resting).into_waiters();
                    let now = (self.shared.clock)();
                    for (waiter, ..) in still.extract_if(.., |(.., until)| *until <= now) {
                        self.answer(waiter, Err(NotDone::OutcomeUnknown));
                    }
                    waiting = Some(still);
                }
                Err(error) => warn!(network = %self.network, %error, "the outbox cannot be read"),
            }
            self.refuse_for(DISK_PAUSE).await;
        }
        self.following.missed();
        undone.into_iter().for_each(|after| self.perform_written(after));
        if self.is_draining {
            self.input_in_box(Input::Drain).await;
        }
        self.input_in_box(Input::Due).await;
    }

    /// [`Relay::input`], where it would contain itself.
    fn input_in_box(&mut self, input: Input) -> crate::net::BoxFuture<'_, ()> {
        Box::pin(self.input(input))
    }

    fn resting_desk(&self) -> Desk {
        self.desk_of(Stored::default())
    }

    fn desk_of(&self, stored: Stored) -> Desk {
        Desk::new(self.terms(), Arc::new(self.shared.webhooks.clone()), stored, (self.shared.clock)())
    }

    /// Refuses what comes, for a while.
    async fn refuse_for(&mut self, pause: Duration) {
        let end = Instant::now() + pause;
        loop {
            // All arms are cancel-safe.
            tokio::select! {
                // The answer is dropped: the node's own count is the client's then.
                Some(_) = self.questions.recv() => {}
                () = sleep(end.saturating_duration_since(Instant::now())) => return,
                Some(order) = self.orders.recv() => {
                    let health = self.shared.store.health().borrow().clone();
                    let why = not_writable(&health).unwrap_or(NotDone::Unwritable);
                    match order {
                        Order::Accept(submitted) => drop(submitted.answer.send(Err(why))),
                        Order::Command { answer, .. } => drop(answer.send(Err(why))),
                        Order::Drain(answer) => drop(answer.send(self.handle.totals.read()[0])),
                        Order::Replicas(ReplicaOrder::Own { shards, done }) => {
                            self.owned = shards;
                            _ = done.send(());
                        }
                        // Answers that are dropped: the bucket has it, or the order comes again.
                        Order::Replicas(_) => {}
                        // The next look finds the records again, and the next desk has the terms of
                        // its moment.
                        Order::Forget(_) | Order::Reload => {}
                    }
                }
            }
        }
    }

    /// Performs what follows a step that failed, where the step is on the disk nonetheless: the new
    /// desk tells nothing that the old desk had written.
    fn perform_written(&mut self, after: After) {
        let reader = match self.shared.store.read() {
            Ok(reader) => reader,
            Err(error) => {
                return warn!(%error, "the store cannot be read: subscribers are not told of some changes of state");
            }
        };
        let is_there = |delivery: &Delivery| {
            let found = reader.delivery(&delivery.tenant, &delivery.id);
            found.is_ok_and(|found| found.is_some())
        };
        let deliveries: Vec<_> = after.deliveries.into_iter().filter(is_there).collect();
        let is_written = |effect: &Effect| match effect {
            Effect::Tell { id, transition } => {
                let record = reader.record(id).ok().flatten();
                record.is_some_and(|record| record.history.contains(transition))
            }
            _ => false,
        };
        let effects: Vec<_> = after.effects.into_iter().filter(is_written).collect();
        drop(reader);
        self.perform_all(After { effects, deliveries, changed: after.changed, dropped: after.dropped });
    }

    /// Takes up nodes that a reload replaced, brought, or took away.
    pub(super) async fn nodes_changed(&mut self, have_come: bool) {
        let nodes = self.handle.nodes.borrow().clone();
        self.following.take_up(nodes.map(|nodes| nodes.interest));
        if have_come {
            // Questions of the time without nodes have no answers.
            self.restart().await;
        } else {
            self.desk.reload(self.terms(), Arc::new(self.shared.webhooks.clone()));
        }
        if self.handle.calls().is_none() {
            self.tell_of_no_nodes();
        }
        self.look_at_nodes().await;
    }

    /// Logs that transactions stay where they are.
    pub(super) fn tell_of_no_nodes(&self) {
        let transactions = self.desk.total().live;
        warn!(
            network = %self.network, transactions,
            "the network has no execution nodes in the settings: its transactions are kept and are not sent"
        );
    }
}

/// Whether the store takes writes, if only those of transactions that it has.
async fn is_writable(store: &Store) -> bool {
    // An empty step asks the disk.
    let asked = store.commit(Step::new()).await;
    asked.is_ok() && !matches!(&*store.health().borrow(), Health::Unwritable(_))
}
