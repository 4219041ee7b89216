//! Performs what the desk wants done.

use tracing::{debug, info};

use super::{Relay, commits::After, look, send};
use crate::outbox::{
    desk::{Answer, Effect, Waiter},
    record::{StateName, Transition, TxId},
    told::Told,
};

impl Relay {
    /// Performs all that follows a step that is on the disk.
    pub(super) fn perform_all(&mut self, after: After) {
        if !after.deliveries.is_empty() {
            self.shared.webhooks.added(&after.deliveries);
        }
        if let Some(replicas) = &self.shared.replicas {
            replicas.publish(after.changed);
            replicas.drop_rows(after.dropped);
        }
        after.effects.into_iter().for_each(|effect| self.perform(effect));
    }

    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send { id, send, to, raw, request_id, traceparent } => {
                // The nodes may have left since; with their return the desk is made anew.
                let Some(calls) = self.handle.calls() else { return };
                let record = self.desk.record(&id);
                let bytes = record.map_or(0, |record| record.bytes);
                let signed_for = record.and_then(|record| record.chain_id);
                let shard = record.map(super::super::record::Record::shard);
                let mut sending = send::Sending {
                    shared: self.shared.clone(),
                    calls,
                    inputs: self.inputs.0.clone(),
                    id,
                    number: send,
                    to,
                    raw,
                    request_id,
                    traceparent,
                    signed_for,
                    shard,
                };
                let room = self.shared.send_room.clone();
                self.tasks.spawn(async move {
                    let place = match room.take_now(bytes) {
                        Some(place) => place,
                        None => {
                            // The store has the bytes, when there is room for them.
                            sending.raw = None;
                            room.take(bytes).await
                        }
                    };
                    sending.run().await;
                    drop(place);
                });
            }
            Effect::Look { id, look, hash, with_nonce } => {
                let Some(calls) = self.handle.calls() else { return };
                let record = self.desk.record(&id);
                let sender = record.map(|record| record.sender).filter(|_| with_nonce);
                let block = record.filter(|record| record.state.is_in_block()).and_then(|record| record.state.block());
                let looking = look::Looking {
                    calls,
                    inputs: self.inputs.0.clone(),
                    id,
                    look,
                    hash,
                    sender,
                    block,
                    send_to: self.shared.settings.load().send_to,
                };
                self.tasks.spawn(looking.run());
            }
            Effect::Answer { waiter, answer } => self.answer(waiter, answer),
            Effect::Tell { id, transition } => self.tell(id, transition),
            Effect::Forgotten { id } => self.desk.forgotten(&id),
            Effect::Settled { id, seq } => {
                if let Some(record) = self.desk.record(&id) {
                    self.given_up.ended(record);
                }
                self.desk.settled(&id, seq);
            }
        }
    }

    pub(super) fn answer(&mut self, waiter: Waiter, answer: Answer) {
        // The client may be gone.
        self.waiters.remove(&waiter).into_iter().for_each(|waiting| _ = waiting.answer.send(answer.clone()));
    }

    fn tell(&mut self, id: TxId, transition: Transition) {
        let record = self.desk.record(&id);
        let accepted_at = record.map(|record| record.accepted_at);
        let request_id = record.and_then(|record| record.request_id.as_deref());
        let traceparent = record.and_then(|record| record.traceparent.as_deref());
        let Transition { seq, to, block, node, reason, .. } = &transition;
        let (to, network, tenant, hash, state) = (*to, &self.network, &id.tenant, &id.hash, to.as_str());
        let block = block.map(|block| block.number);
        let node = node.as_deref();
        let reason = reason.as_deref();
        match to {
            StateName::Reorged
            | StateName::Replaced
            | StateName::Refused
            | StateName::Expired
            | StateName::Cancelled => info!(
                %network, %tenant, %hash, state, seq, block, node, reason, request_id, traceparent,
                "a transaction changed its state"
            ),
            _ => debug!(
                %network, %tenant, %hash, state, seq, block, node, reason, request_id, traceparent,
                "a transaction changed its state"
            ),
        }
        self.shared.hub.tell(Told { id, transition, accepted_at });
    }
}
