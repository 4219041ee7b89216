//! The relay as one of several: its replica owns some shards, and other replicas the rest. The desk
//! holds the transactions of owned shards alone; the others' are rows on the disk.

use std::collections::BTreeSet;

use tokio::sync::oneshot;
use tracing::warn;

use super::Relay;
use crate::{
    domain::signed_transaction::SignedTransaction,
    outbox::{
        desk::{Accept, Adopted, Answer, Command, Input, NotDone, Waiter},
        handle::Incoming,
        record::{EventKind, Record, TxId},
        replicas::Row,
        shard::{Shard, ShardSet},
        step::Step,
        store::StoreError,
        told::Told,
    },
};

/// Something that replicas have to do with each other.
pub(in crate::outbox) enum ReplicaOrder {
    /// Tell the record of a client's transaction as it is to be shared.
    Propose { submitted: Box<(Incoming, SignedTransaction)>, answer: oneshot::Sender<Result<Proposal, NotDone>> },
    /// A client's transaction is in the bucket. Where another replica sees it through, the answer
    /// is dropped.
    TakeUp { row: Box<Row>, answer: oneshot::Sender<Answer> },
    /// These rows of the bucket have changed. Dropped where the disk takes none.
    Rows { rows: Vec<Row>, done: oneshot::Sender<()> },
    /// These shards are owned from now on.
    Own { shards: ShardSet, done: oneshot::Sender<()> },
}

/// The outcome of a look at a client's transaction.
pub(in crate::outbox) enum Proposal {
    /// This record is to be shared.
    Share(Box<Record>),
    /// The transaction is kept, by this replica or by another one.
    Kept { is_own: bool },
}

/// The meaning of a row for this replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// No news.
    Known,
    /// A transaction that this replica is to see through.
    TakeUp,
    /// This replica sees the transaction through, and knows better.
    Older,
    /// News of a transaction that another replica sees through.
    News,
}

/// The meaning of a row, by what this replica has of the transaction.
fn meaning(is_own: bool, own: Option<&Record>, row: &Record) -> Meaning {
    match own {
        Some(own) if own == row => Meaning::Known,
        _ if !is_own => Meaning::News,
        None => Meaning::TakeUp,
        // A client has sent it anew, to another replica.
        Some(own) if own.state.is_over() && !row.state.is_over() && row.seq > own.seq => Meaning::TakeUp,
        Some(_) => Meaning::Older,
    }
}

impl Relay {
    pub(super) async fn replica_order(&mut self, order: ReplicaOrder) {
        match order {
            ReplicaOrder::Propose { submitted, answer } => {
                let (incoming, tx) = *submitted;
                // The client may be gone.
                _ = answer.send(self.propose(incoming, tx));
            }
            // The watch brings the row; the answer comes from it, once its owner has news.
            ReplicaOrder::TakeUp { row, answer } if !self.owned.has(row.record.shard()) => drop(answer),
            ReplicaOrder::TakeUp { row, answer } => match self.held(&row.record.id) {
                Ok(known) => {
                    let (waiter, patience) = (self.waiter(answer, None), self.terms().hold);
                    self.take_up(*row, known, waiter, patience).await;
                }
                Err(error) => {
                    warn!(network = %self.network, %error, "a transaction is in the bucket, and not on this disk");
                }
            },
            ReplicaOrder::Rows { rows, done } => match self.rows(rows).await {
                Ok(()) => _ = done.send(()),
                Err(error) => {
                    warn!(network = %self.network, %error, "rows of other replicas are not on this disk yet");
                    self.restart().await;
                }
            },
            ReplicaOrder::Own { shards, done } => {
                if self.owned != shards {
                    self.owned = shards;
                    self.restart().await;
                }
                _ = done.send(());
            }
        }
    }

    /// Why an operator's command is not for this replica; `None` where it is. A record can be
    /// dropped anywhere: each replica has its own.
    pub(super) fn is_foreign(&self, id: &TxId, command: Command) -> Option<NotDone> {
        let record = self.known(id).ok().flatten()?;
        if command == Command::Drop || self.owned.has(record.shard()) {
            return None;
        }
        let owner = self.shared.replicas.as_ref().and_then(|replicas| replicas.owner(record.shard()));
        let owner = owner.map_or("no replica sees it through at this moment: try again".to_owned(), |owner| {
            format!("replica {owner} sees it through: ask there")
        });
        Some(NotDone::Unfit(owner))
    }

    fn propose(&mut self, incoming: Incoming, tx: SignedTransaction) -> Result<Proposal, NotDone> {
        let is_own = self.owned.has(Shard::of(&tx.sender));
        let id = TxId { tenant: incoming.tenant.clone(), network: self.network.clone(), hash: tx.hash };
        let known = self.known(&id)?;
        let used_by = self.foreign.used_by(&incoming.tenant, tx.sender, tx.nonce);
        if known.is_none()
            && let Some(by) = used_by.filter(|by| *by != tx.hash)
        {
            return Err(NotDone::NonceUsed { by });
        }
        let Incoming { tenant, raw, request_id, traceparent } = incoming;
        let accept = Accept { waiter: 0, tenant, raw, tx, request_id, traceparent, known, is_other_form: false };
        let proposed = self.desk.propose((self.shared.clock)(), &accept)?;
        Ok(proposed.map_or(Proposal::Kept { is_own }, |record| Proposal::Share(Box::new(record))))
    }

    /// Takes rows in that other replicas have written.
    async fn rows(&mut self, rows: Vec<Row>) -> Result<(), StoreError> {
        // Of several rows of a transaction the newest counts.
        let mut seen = BTreeSet::new();
        let mut newest: Vec<Row> = rows.into_iter().rev().filter(|row| seen.insert(row.record.id.clone())).collect();
        newest.reverse();
        let (mut step, mut news, mut own, mut older) = (Step::new(), Vec::new(), Vec::new(), Vec::new());
        for row in newest {
            let known = self.held(&row.record.id)?;
            let is_own = self.owned.has(row.record.shard());
            if !is_own {
                self.mark_told(&mut step, &row)?;
            }
            match meaning(is_own, known.as_ref(), &row.record) {
                Meaning::Known => {}
                Meaning::TakeUp => own.push((row, known)),
                // An owner that gives the shard away leaves the row to the next one.
                Meaning::Older if self.shared.ownership.active().has(row.record.shard()) => older.push(row.record.id),
                Meaning::Older => {}
                Meaning::News => {
                    step.replicate(row.record.clone(), row.raw);
                    news.push((known, row.record));
                }
            }
        }
        self.take_news(step, news).await?;
        for (row, known) in own {
            // No client waits here, and the one elsewhere has its hash by the end of this time.
            self.next_waiter += 1;
            let (waiter, patience) = (self.next_waiter, self.terms().hold / 2);
            self.take_up(row, known, waiter, patience).await;
        }
        if let Some(replicas) = &self.shared.replicas {
            replicas.publish(older);
        }
        Ok(())
    }

    /// Marks the events of another replica's transaction that were delivered, so that this proxy
    /// knows the others when alone.
    fn mark_told(&self, step: &mut Step, row: &Row) -> Result<(), StoreError> {
        let (reader, table, tenant) = (self.shared.store.read()?, self.shared.webhooks.table(), &row.record.id.tenant);
        for transition in &row.record.history {
            let event = row.record.event(transition.seq);
            let is_wanted =
                EventKind::of(transition.to).is_some_and(|kind| table.wanting(kind, tenant).next().is_some());
            if is_wanted && row.told.contains(&event) && !reader.was_told(tenant, &event)? {
                step.told(tenant.clone(), event);
            }
        }
        Ok(())
    }

    async fn take_up(&mut self, row: Row, known: Option<Record>, waiter: Waiter, patience: u64) {
        let Row { record, told, raw } = row;
        let (waiter, known) = ((waiter, patience), known.map(Box::new));
        self.input(Input::TakeUp(Box::new(Adopted { waiter, record, raw, told, known }))).await;
        self.make_room().await;
    }

    /// Commits news of other replicas, and has them told here.
    async fn take_news(&mut self, step: Step, news: Vec<(Option<Record>, Record)>) -> Result<(), StoreError> {
        if step.is_empty() {
            return Ok(());
        }
        self.line.commit(step).await?;
        for (old, new) in news {
            self.desk.recount(old.as_ref(), &new);
            self.foreign.change(old.as_ref(), &new);
            self.given_up.ended(&new);
            let seen = old.map_or(0, |old| old.seq);
            for transition in new.history.iter().filter(|transition| transition.seq > seen) {
                let (id, transition, accepted_at) = (new.id.clone(), transition.clone(), Some(new.accepted_at));
                self.shared.hub.tell_watchers(&Told { id, transition, accepted_at });
            }
        }
        self.handle.totals.set(&self.desk);
        Ok(())
    }

    /// This replica's record of a transaction.
    fn held(&self, id: &TxId) -> Result<Option<Record>, StoreError> {
        match self.desk.record(id) {
            Some(record) => Ok(Some(record.clone())),
            None => self.shared.store.read()?.record(id),
        }
    }
}
