//! A client's transaction at one of several replicas: into the bucket first, then to the replica
//! that sees it through.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use alloy_primitives::B256;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout_at},
};

use super::{
    desk::{Answer, Done, NodeWords, NotDone},
    handle::{Incoming, Outbox},
    record::{Network, Record, State, StateName, Transition, TxId},
    relay::{Order, Proposal, RelayHandle, ReplicaOrder, Submitted},
    replicas::{Replicas, Row},
    shard::Shard,
    told::Watch,
};
use crate::{config::Ack, domain::signed_transaction::SignedTransaction, memory::Claim};

/// From one look at the record of another replica to the next: nodes that refuse a transaction for
/// now make no transition.
const LOOK: Duration = Duration::from_millis(20);

impl Outbox {
    /// Takes a transaction in, or hears that it is kept already. `None` where the network has gone.
    pub(super) async fn accept_shared(
        &self,
        replicas: &Arc<Replicas>,
        (network, relay): (&Network, &RelayHandle),
        incoming: Incoming,
        tx: SignedTransaction,
        claim: Claim,
    ) -> Option<Answer> {
        if let Some(why) = replicas.why_closed() {
            return Some(Err(why));
        }
        let (hash, shard, raw) = (tx.hash, Shard::of(&tx.sender), incoming.raw.clone());
        let submitted = Box::new((incoming.clone(), tx.clone()));
        let proposed = relay.ask(|answer| Order::Replicas(ReplicaOrder::Propose { submitted, answer })).await?;
        match proposed {
            Err(why) => Some(Err(why)),
            Ok(Proposal::Kept { is_own: true }) => {
                let answer =
                    relay.ask(|answer| Order::Accept(Box::new(Submitted { incoming, tx, answer, claim }))).await;
                Some(kept(answer.unwrap_or(Err(NotDone::Unwritable)), hash))
            }
            Ok(Proposal::Kept { is_own: false }) => {
                let id = TxId { tenant: incoming.tenant.clone(), network: network.clone(), hash };
                let watch = self.shared.hub.watch(&id);
                Some(self.word_of_others(replicas, relay, (&id, shard), watch, None).await)
            }
            Ok(Proposal::Share(record)) => {
                let id = record.id.clone();
                // The watch begins before the owner can have news.
                let watch = self.shared.hub.watch(&id);
                let row = match replicas.share(Row { record: *record, told: BTreeSet::new(), raw }).await {
                    Ok(row) => Box::new(row),
                    Err(why) => return Some(Err(why)),
                };
                let (answer, answered) = oneshot::channel();
                // From here on the bucket has the transaction, whatever happens to this replica.
                let order = ReplicaOrder::TakeUp { row: row.clone(), answer };
                _ = relay.orders.send(Order::Replicas(order)).await;
                match answered.await {
                    Ok(answer) => Some(kept(answer, hash)),
                    Err(_) => Some(self.word_of_others(replicas, relay, (&id, shard), watch, Some(*row)).await),
                }
            }
        }
    }

    /// Waits for the word that the owner of a transaction has of nodes; the hash where none comes
    /// in time.
    async fn word_of_others(
        &self,
        replicas: &Replicas,
        relay: &RelayHandle,
        (id, shard): (&TxId, Shard),
        mut watch: Watch,
        row: Option<Row>,
    ) -> Answer {
        let hash = Ok(Done::Hash(id.hash));
        let needs_no_node = self.shared.settings.load().ack == Ack::Disk;
        let until = Instant::now() + relay.hold();
        // A record that is older than the row is of a life that is over.
        let first = row.as_ref().map_or(0, |row| row.record.seq);
        let news = || self.record(id).ok().flatten().filter(|record| record.seq >= first);
        loop {
            // The client may ask this replica for the status next.
            if let Some(record) = news() {
                if needs_no_node {
                    return hash;
                }
                if let Some(answer) = decided(&record) {
                    return answer;
                }
            }
            // Both arms are cancel-safe.
            let next = async {
                tokio::select! {
                    next = watch.next() => next,
                    () = sleep(LOOK) => None,
                }
            };
            match timeout_at(until, next).await {
                Ok(Some(transition)) => {
                    if let Some(answer) = word_of(&transition, id.hash) {
                        return answer;
                    }
                }
                Ok(None) => {}
                Err(_) if news().is_some() => return hash,
                // The row has not come: it is slow, or has gone with the whole bucket. This disk
                // takes it now, so that a bucket that is lost in a moment takes nothing along.
                Err(_) => {
                    if let Some(row) = row {
                        let rows = vec![row];
                        relay.ask(|done| Order::Replicas(ReplicaOrder::Rows { rows, done })).await;
                    }
                    return if replicas.has(id, shard).await { hash } else { Err(NotDone::BucketUnsure) };
                }
            }
        }
    }
}

/// The answer of a transaction that the bucket has: what goes wrong here loses it no more.
fn kept(answer: Answer, hash: B256) -> Answer {
    match answer {
        Err(NotDone::Unwritable | NotDone::DiskFull | NotDone::OutcomeUnknown) => Ok(Done::Hash(hash)),
        answer => answer,
    }
}

/// The answer that a record gives; `None` while the nodes' words are awaited.
fn decided(record: &Record) -> Option<Answer> {
    let is_refused_for_now = !record.refusals.is_empty();
    match &record.state {
        State::Accepted | State::Reorged { .. } if !is_refused_for_now => None,
        _ => match record.history.last() {
            Some(last) if last.to != StateName::Accepted => word_of(last, record.id.hash),
            _ => Some(Ok(Done::Hash(record.id.hash))),
        },
    }
}

/// The answer that a transition gives.
fn word_of(transition: &Transition, hash: B256) -> Option<Answer> {
    Some(match transition.to {
        StateName::Accepted | StateName::Reorged => return None,
        StateName::Sent | StateName::Seen | StateName::Mined | StateName::Confirmed | StateName::Final => {
            Ok(Done::Hash(hash))
        }
        StateName::Refused => {
            let first = transition.refusals.first();
            let (code, message) = first.map_or((-32000, transition.reason.clone().unwrap_or_default()), |refusal| {
                (refusal.code, refusal.message.clone())
            });
            Err(NotDone::OfNodes(NodeWords { code, message }))
        }
        StateName::Replaced => {
            let by = transition.reason.as_deref().and_then(|by| by.parse().ok());
            Err(by.map_or(NotDone::Expired, |by| NotDone::NonceUsed { by }))
        }
        StateName::Expired => Err(NotDone::Expired),
        StateName::Cancelled => Err(NotDone::Cancelled),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::{
        record::{BlockId, Millis, Refusal},
        relay::test_record,
    };

    fn record(state: State, refusals: Vec<Refusal>) -> Record {
        let mut record = test_record(1, state.clone());
        record.refusals.clone_from(&refusals);
        record.history.truncate(1);
        if !matches!(state, State::Accepted) {
            let by = B256::repeat_byte(9).to_string();
            let reason = matches!(state, State::Replaced { .. }).then_some(by);
            let (to, at, node) = (state.name(), Millis(2), None);
            record.note(Transition { seq: 2, at, to, block: state.block(), node, reason, refusals, repeat: 0 });
        }
        record
    }

    /// The answer at a replica that does not send is that of the one that does.
    #[test]
    fn the_owners_word_decides_the_answer() {
        let refusal = Refusal { node: "a".to_owned(), code: -32003, message: "no funds".to_owned() };
        let block = BlockId { number: 1, hash: B256::ZERO };
        let hash = record(State::Accepted, Vec::new()).id.hash;
        let taken = Some(Ok(Done::Hash(hash)));
        let words = NodeWords { code: -32003, message: "no funds".to_owned() };
        let replaced = State::Replaced { by: B256::repeat_byte(9), block, is_final: false };
        for (state, refusals, answer) in [
            (State::Accepted, vec![], None),
            (State::Accepted, vec![refusal.clone()], taken.clone()),
            (State::Sent, vec![], taken.clone()),
            (State::Mined { block }, vec![], taken),
            (State::Refused { reason: "no".to_owned() }, vec![refusal], Some(Err(NotDone::OfNodes(words)))),
            (replaced, vec![], Some(Err(NotDone::NonceUsed { by: B256::repeat_byte(9) }))),
            (State::Cancelled, vec![], Some(Err(NotDone::Cancelled))),
        ] {
            assert_eq!(decided(&record(state.clone(), refusals)), answer, "{state:?}");
        }
    }

    /// U22: the bucket has the transaction, so a disk that fails here is no refusal.
    #[test]
    fn a_failure_here_loses_no_transaction() {
        let hash = B256::repeat_byte(1);
        for why in [NotDone::Unwritable, NotDone::DiskFull, NotDone::OutcomeUnknown] {
            assert_eq!(kept(Err(why), hash), Ok(Done::Hash(hash)));
        }
        assert_eq!(kept(Err(NotDone::Expired), hash), Err(NotDone::Expired));
    }
}
