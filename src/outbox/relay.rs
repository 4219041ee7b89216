//! The relay: one task for each network, which owns the network's desk.
//!
//! The task hands the desk its inputs, commits the steps in order on one line of the store, and
//! performs effects after the commit. Sends and questions run beside the task and come back as
//! inputs. When a commit fails, the desk believes more than the disk knows: the task then makes a
//! new desk from the store, and answers those who wait, unless the disk has their transaction.
//!
//! While the disk takes no writes, the desk rests: what it would do could not be written down.

mod blocks;
mod commits;
mod effects;
mod finality;
mod foreign;
mod full_block;
mod given_up;
mod look;
mod replicas;
mod restart;
mod rows;
mod send;
mod terms;
mod voices;

#[cfg(test)]
pub(super) use self::rows::tests::record as test_record;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use alloy_primitives::Address;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::warn;

pub(super) use self::replicas::{Proposal, ReplicaOrder};
use self::{
    blocks::Following,
    commits::Commits,
    foreign::Foreign,
    given_up::GivenUp,
    rows::{leaving, network_rows, still_overdue},
    terms::terms,
};
use super::{
    desk::{Accept, Answer, Command, Desk, Input, NotDone, Sum, Terms, Waiter},
    handle::{Incoming, Shared},
    record::{Millis, Network, TenantName, TxId},
    shard::{Shard, ShardSet},
    store::{Line, Reader, StoreError},
};
use crate::{
    call::Calls,
    chain::Interest,
    domain::{node_id::NodeId, signed_transaction::SignedTransaction, verdict::Verdict},
    memory::Claim,
};

/// Orders that may wait for a relay, and as many questions.
const ORDERS: usize = 1024;
/// Inputs of sends and questions that may wait for the relay.
const INPUTS: usize = 1024;

/// A relay, for those who give it orders.
pub(super) struct RelayHandle {
    pub(super) orders: mpsc::Sender<Order>,
    /// Answered also while the disk is slow and orders wait for it.
    pub(super) questions: mpsc::Sender<Question>,
    /// The network's nodes, which a reload replaces. `None`: the network is not in the settings,
    /// and has transactions nonetheless.
    pub(super) nodes: watch::Sender<Option<Nodes>>,
    pub(super) totals: Totals,
}

impl RelayHandle {
    /// How long a client waits for a node's word before it gets the hash all the same.
    pub(super) fn hold(&self) -> Duration {
        self.calls().map_or(Duration::ZERO, |calls| terms::hold(&calls))
    }

    /// The calls to the network's nodes; `None` for a network without nodes.
    pub(super) fn calls(&self) -> Option<Arc<Calls>> {
        self.nodes.borrow().as_ref().map(|nodes| nodes.calls.clone())
    }
}

/// The nodes of a network.
#[derive(Clone)]
pub(super) struct Nodes {
    /// The calls to the nodes.
    pub(super) calls: Arc<Calls>,
    /// The interest in the chain of the nodes.
    pub(super) interest: Arc<Interest>,
}

/// Sums of a relay's desk, for metrics.
#[derive(Debug, Default)]
pub(super) struct Totals([AtomicU64; 4]);

impl Totals {
    /// Transactions whose life is not over, their bytes, records of lives that are over, and
    /// transactions on their way to nodes.
    pub(super) fn read(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|place| self.0[place].load(Relaxed))
    }

    fn set(&self, desk: &Desk) {
        let sum = desk.total();
        let values = [sum.live, sum.live_bytes, sum.over, desk.in_flight()];
        self.0.iter().zip(values).for_each(|(place, value)| place.store(value as u64, Relaxed));
    }
}

/// Something that a relay is to do.
pub(super) enum Order {
    /// Take a transaction in.
    Accept(Box<Submitted>),
    /// Carry out an operator's command.
    Command { id: TxId, command: Command, answer: oneshot::Sender<Answer> },
    /// Drop records that were kept long enough.
    Forget(Vec<(TxId, usize)>),
    /// Take up the settings of the outbox anew.
    Reload,
    /// Begin no sending and no question any more, and answer when nothing is under way, with the
    /// number of transactions whose life goes on.
    Drain(oneshot::Sender<u64>),
    /// Something that replicas have to do with each other.
    Replicas(ReplicaOrder),
}

/// Something that a relay is to tell, from memory.
pub(super) enum Question {
    /// The counts of each tenant.
    Sums(oneshot::Sender<Vec<(TenantName, Sum)>>),
    /// The first nonce from `count` on that a tenant's sender can use.
    NextNonce { tenant: TenantName, sender: Address, count: u64, answer: oneshot::Sender<u64> },
}

/// A transaction that could be read.
pub(super) struct Submitted {
    pub(super) incoming: Incoming,
    pub(super) tx: SignedTransaction,
    pub(super) answer: oneshot::Sender<Answer>,
    pub(super) claim: Claim,
}

/// A client or an operator who waits for an answer.
struct Waiting {
    answer: oneshot::Sender<Answer>,
    /// The memory of a transaction that may be on its way to the disk.
    _claim: Option<Claim>,
}

/// The task of a network.
pub(super) struct Relay {
    shared: Arc<Shared>,
    network: Network,
    handle: Arc<RelayHandle>,
    orders: mpsc::Receiver<Order>,
    questions: mpsc::Receiver<Question>,
    desk: Desk,
    line: Line,
    commits: Commits,
    waiters: HashMap<Waiter, Waiting>,
    next_waiter: Waiter,
    inputs: (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    /// Sends and questions under way.
    tasks: JoinSet<()>,
    following: Following,
    /// The nodes, and whether each has been down since it was usable last.
    nodes: BTreeMap<Arc<str>, bool>,
    given_up: GivenUp,
    /// The shards whose transactions the desk holds.
    owned: ShardSet,
    /// The nonces of transactions that other replicas see through.
    foreign: Foreign,
    /// The proxy goes down: nothing begins.
    is_draining: bool,
    /// Who waits for the end of all that was begun.
    draining: Option<oneshot::Sender<u64>>,
}

impl Relay {
    /// The relay of a network with these nodes. Without nodes, the relay sends nothing: it answers
    /// operators, ends lives by their deadline, and drops records.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn new(
        shared: &Arc<Shared>,
        network: &Network,
        nodes: Option<Nodes>,
    ) -> Result<(Arc<RelayHandle>, Self), StoreError> {
        let (orders, inbox) = mpsc::channel(ORDERS);
        let (questions, asked) = mpsc::channel(ORDERS);
        let terms = terms(shared, network, nodes.as_ref().map(|nodes| &*nodes.calls));
        let interest = nodes.as_ref().map(|nodes| nodes.interest.clone());
        let (nodes, totals) = (watch::Sender::new(nodes), Totals::default());
        let handle = Arc::new(RelayHandle { orders, questions, nodes, totals });
        // The line begins before the rows are read.
        let line = shared.store.line();
        let owned = shared.ownership.active();
        let (stored, given_up, foreign) = network_rows(&shared.store.read()?, network, owned)?;
        let desk = Desk::new(terms, Arc::new(shared.webhooks.clone()), stored, (shared.clock)());
        handle.totals.set(&desk);
        let relay = Self {
            shared: shared.clone(),
            network: network.clone(),
            handle: handle.clone(),
            orders: inbox,
            questions: asked,
            desk,
            line,
            commits: Commits::new(shared.replicas.is_some()),
            waiters: HashMap::new(),
            next_waiter: 0,
            inputs: mpsc::channel(INPUTS),
            tasks: JoinSet::new(),
            following: Following::new(interest),
            nodes: BTreeMap::new(),
            given_up,
            owned,
            foreign,
            is_draining: false,
            draining: None,
        };
        Ok((handle, relay))
    }

    /// Runs until the task is dropped.
    pub(super) async fn run(mut self) {
        let mut nodes_changed = self.handle.nodes.subscribe();
        let mut pool = self.handle.calls().map(|calls| calls.pool().subscribe());
        if pool.is_none() {
            self.tell_of_no_nodes();
        }
        self.look_at_nodes().await;
        self.input(Input::Due).await;
        loop {
            self.follow();
            let due = self.desk.next_due().map(|due| self.instant(due));
            let has_room = self.commits.has_room();
            // All arms are cancel-safe. What is paid for already comes first.
            tokio::select! {
                biased;
                Some((outcome, after)) = self.commits.next() => match outcome {
                    Ok(()) => self.perform_all(after),
                    Err(error) => self.fail(error, after).await,
                },
                Some(input) = self.inputs.1.recv() => self.input(input).await,
                Some(ended) = self.tasks.join_next() => if let Err(error) = ended {
                    self.broke_off(&error).await;
                },
                blocks = self.following.next(&self.handle), if has_room => self.blocks(blocks).await,
                Some(changed) = conditional(pool.as_mut().map(watch::Receiver::changed)) => match changed {
                    Ok(()) => self.look_at_nodes().await,
                    // The calls are replaced, and their pool with them.
                    Err(_) => pool = self.handle.calls().map(|calls| calls.pool().subscribe()),
                },
                changed = nodes_changed.changed() => {
                    // The handle is held here, so its sender is too.
                    _ = changed;
                    let calls = self.handle.calls();
                    let have_come = pool.is_none() && calls.is_some();
                    pool = calls.map(|calls| calls.pool().subscribe());
                    self.nodes_changed(have_come).await;
                }
                order = self.orders.recv(), if has_room => match order {
                    Some(order) => self.order(order).await,
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && has_room => {
                    self.input(Input::Due).await;
                }
                // Behind all else: clients may ask as often as they like.
                Some(question) = self.questions.recv() => self.tell_of(question),
            }
            self.drained();
        }
    }

    /// The settings of the desk, as they are now.
    fn terms(&self) -> Terms {
        terms(&self.shared, &self.network, self.handle.calls().as_deref())
    }

    fn instant(&self, at: Millis) -> Instant {
        Instant::now() + Duration::from_millis(at.since((self.shared.clock)()))
    }

    async fn order(&mut self, order: Order) {
        if self.line.is_broken() {
            // Another step failed, and rows that can be read now may go with the disk's return.
            self.restart().await;
        }
        match order {
            // The network has left the settings.
            Order::Accept(_) if self.handle.calls().is_none() => {}
            Order::Accept(submitted) => {
                let Submitted { incoming, tx, answer, claim } = *submitted;
                let Incoming { tenant, raw, request_id, traceparent } = incoming;
                let id = TxId { tenant: tenant.clone(), network: self.network.clone(), hash: tx.hash };
                let (known, is_other_form) = match self.known_with_form(&id, &raw) {
                    Ok(known) => known,
                    Err(why) => return drop(answer.send(Err(why))),
                };
                let waiter = self.waiter(answer, Some(claim));
                let accept = Accept { waiter, tenant, raw, tx, request_id, traceparent, known, is_other_form };
                self.input(Input::Accept(Box::new(accept))).await;
                self.make_room().await;
            }
            Order::Command { command: Command::Resend, answer, .. } if self.handle.calls().is_none() => {
                // Whoever asked may be gone.
                _ = answer.send(Err(NotDone::Unfit("its network has no execution nodes in the settings".to_owned())));
            }
            Order::Replicas(order) => self.replica_order(order).await,
            Order::Command { id, command, answer } => {
                if let Some(why) = self.is_foreign(&id, command) {
                    // Whoever asked may be gone.
                    return drop(answer.send(Err(why)));
                }
                let known = match self.known(&id) {
                    Ok(known) => known,
                    Err(why) => return drop(answer.send(Err(why))),
                };
                let waiter = self.waiter(answer, None);
                self.input(Input::Command { waiter, id, known, command }).await;
            }
            Order::Forget(records) => self.forget_overdue(records).await,
            Order::Reload => self.desk.reload(self.terms(), Arc::new(self.shared.webhooks.clone())),
            Order::Drain(answer) => {
                (self.is_draining, self.draining) = (true, Some(answer));
                self.input(Input::Drain).await;
            }
        }
    }

    fn tell_of(&self, question: Question) {
        match question {
            Question::Sums(answer) if !answer.is_closed() => {
                _ = answer.send(self.desk.sums().map(|(tenant, sum)| (tenant.clone(), *sum)).collect());
            }
            Question::NextNonce { tenant, sender, count, answer } if !answer.is_closed() => {
                let is_own = self.owned.has(Shard::of(&sender));
                let next = if is_own {
                    self.desk.next_nonce(&tenant, sender, count)
                } else {
                    self.foreign.next_nonce(&tenant, sender, count)
                };
                _ = answer.send(next);
            }
            // The asker has gone.
            Question::Sums(_) | Question::NextNonce { .. } => {}
        }
    }

    /// The store's record of a transaction that the desk does not hold.
    fn known(&self, id: &TxId) -> Result<Option<Box<super::record::Record>>, NotDone> {
        if self.desk.record(id).is_some() {
            return Ok(None);
        }
        let read = self.shared.store.read().and_then(|reader| reader.record(id));
        read.map(|found| found.map(Box::new)).map_err(|error| not_done(&error))
    }

    /// [`Relay::known`], and whether the store has other bytes than `raw` of the transaction.
    fn known_with_form(&self, id: &TxId, raw: &[u8]) -> Result<(Option<Box<super::record::Record>>, bool), NotDone> {
        let known = self.known(id)?;
        if known.is_none() && self.desk.record(id).is_none() {
            return Ok((None, false));
        }
        let is_other = || {
            let reader = self.shared.store.read()?;
            match reader.raw(id)? {
                Some(kept) => Ok(kept != raw),
                // A record whose step is on its way has no row yet.
                None => Ok(reader.record(id)?.is_some()),
            }
        };
        Ok((known, is_other().map_err(|error| not_done(&error))?))
    }

    fn waiter(&mut self, answer: oneshot::Sender<Answer>, claim: Option<Claim>) -> Waiter {
        self.next_waiter += 1;
        self.waiters.insert(self.next_waiter, Waiting { answer, _claim: claim });
        self.next_waiter
    }

    /// Gives the desk an input, commits what follows, and has it performed behind the commit.
    async fn input(&mut self, input: Input) {
        let turn = self.desk.input((self.shared.clock)(), input);
        turn.at_once.into_iter().for_each(|effect| self.perform(effect));
        self.handle.totals.set(&self.desk);
        if let Some(after) = self.commits.add(&self.line, turn.step, turn.effects).await {
            self.perform_all(after);
        }
    }

    /// Drops those of the records that were kept long enough. A record of which the desk knows more
    /// than the store stays: the next look finds the record again.
    async fn forget_overdue(&mut self, mut records: Vec<(TxId, usize)>) {
        records.retain(|(id, _)| self.desk.record(id).is_none());
        let now = (self.shared.clock)();
        match self.shared.store.read_long(move |reader| still_overdue(reader, now, records)).await {
            Ok(records) if !records.is_empty() => self.input(Input::Forget(records)).await,
            Ok(_) => {}
            Err(error) => warn!(network = %self.network, %error, "old records of the outbox stay for now"),
        }
    }

    /// Has records go before their time, where the bounds want that: as few as that takes.
    async fn make_room(&mut self) {
        let Some(excess) = self.desk.excess() else { return };
        let (network, of) = (self.network.clone(), excess.of.clone());
        let rows = move |reader: &Reader| leaving(reader, &network, excess);
        match self.shared.store.read_long(rows).await {
            Ok(records) if !records.is_empty() => self.input(Input::Forget(records)).await,
            Ok(_) => {}
            Err(error) => {
                let tenant = of.as_ref().map(TenantName::as_str);
                warn!(network = %self.network, tenant, %error, "records beyond the bounds cannot be read");
            }
        }
    }

    /// Sees which nodes have returned since the last look: from an outage, which may have emptied
    /// their pools, and not from a lag.
    async fn look_at_nodes(&mut self) {
        let before = std::mem::take(&mut self.nodes);
        let Some(calls) = self.handle.calls() else { return };
        let pool = calls.pool();
        let mut returned = Vec::new();
        for (node, id) in pool.nodes.iter().zip(NodeId::all(pool.nodes.len())) {
            // A node that is new is as one that was down.
            let mut was_down = before.get(&node.name).copied().unwrap_or(true);
            was_down |= matches!(pool.snapshot().nodes[id].verdict, Verdict::Down(_));
            if was_down && pool.is_usable(id) && !node.is_out() {
                returned.push(node.name.clone());
                was_down = false;
            }
            self.nodes.insert(node.name.clone(), was_down);
        }
        for node in returned {
            self.input(Input::NodeReturned { node }).await;
        }
    }

    /// Answers the order to drain, if all that was begun has ended.
    fn drained(&mut self) {
        if self.draining.is_some() && self.commits.is_empty() && self.tasks.is_empty() && self.inputs.1.is_empty() {
            let left = self.desk.total().live as u64;
            self.draining.take().into_iter().for_each(|answer| _ = answer.send(left));
        }
    }
}

/// The outcome of a future that may not be there. Cancel-safe where the future is.
async fn conditional<T>(future: Option<impl Future<Output = T>>) -> Option<T> {
    match future {
        Some(future) => Some(future.await),
        None => None,
    }
}

/// Why nothing is taken, after this failure of the store.
fn not_done(error: &StoreError) -> NotDone {
    match error {
        StoreError::Full(_) => NotDone::DiskFull,
        StoreError::Unsure(_) => NotDone::OutcomeUnknown,
        _ => NotDone::Unwritable,
    }
}
