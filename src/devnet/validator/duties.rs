//! The duties of the client's validators. Duties are fetched for an epoch at a time, and again when
//! a `head` event names another dependent root: the duties then follow from another block.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy_primitives::B256;
use serde_json::{Value, json};

use super::{
    super::{hex, view::SLOTS_PER_EPOCH},
    Shared,
    stream::Head,
};

/// The duties of some epochs.
#[derive(Default)]
pub(super) struct Duties(Mutex<BTreeMap<u64, Epoch>>);

/// The duties of one epoch.
#[derive(Clone, Default)]
struct Epoch {
    /// The dependent root of the attester duties, and the attesters of each slot.
    attesters: Option<(B256, BTreeMap<u64, Vec<u64>>)>,
    /// The dependent root of the proposer duties, and the proposer of each slot.
    proposers: Option<(B256, BTreeMap<u64, u64>)>,
    in_sync_committee: Option<Vec<u64>>,
}

impl Duties {
    pub(super) fn attesters(&self, slot: u64) -> Vec<u64> {
        let epoch = self.epoch(slot);
        epoch.attesters.and_then(|(_, mut attesters)| attesters.remove(&slot)).unwrap_or_default()
    }

    pub(super) fn proposer(&self, slot: u64) -> Option<u64> {
        self.epoch(slot).proposers.and_then(|(_, mut proposers)| proposers.remove(&slot))
    }

    pub(super) fn in_sync_committee(&self, slot: u64) -> Vec<u64> {
        self.epoch(slot).in_sync_committee.unwrap_or_default()
    }

    fn epoch(&self, slot: u64) -> Epoch {
        self.lock().get(&(slot / SLOTS_PER_EPOCH)).cloned().unwrap_or_default()
    }

    /// Forgets duties whose dependent root differs from the head's; returns whether there were any.
    fn outdate(&self, head: Head) -> bool {
        let (mut epochs, here) = (self.lock(), head.slot / SLOTS_PER_EPOCH);
        let mut any = false;
        for (epoch, said) in [(here, head.previous), (here + 1, head.current)] {
            let Some(duties) = epochs.get_mut(&epoch) else { continue };
            any |= duties.attesters.take_if(|(root, _)| said.is_some_and(|said| said != *root)).is_some();
        }
        if let Some(duties) = epochs.get_mut(&here) {
            any |= duties.proposers.take_if(|(root, _)| head.current.is_some_and(|said| said != *root)).is_some();
        }
        any
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Epoch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches duties again when a head has outdated them.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut heads = shared.heads.clone();
    while heads.changed().await.is_ok() {
        let Some(head) = heads.borrow_and_update().last() else { continue };
        if shared.duties.outdate(head) {
            shared.ledger.refreshed();
            shared.learn(head.slot).await;
        }
    }
}

impl Shared {
    /// Fetches the duties that are not known yet: those of the epoch of `slot` and, from the second
    /// slot of an epoch on, those of the next epoch. The proposers of the next epoch are fetched in
    /// the last slot only, because an earlier block does not settle them. Subscribes to the slots
    /// whose attestations the client will aggregate. Returns whether all duties of the epoch of
    /// `slot` are known.
    pub(super) async fn learn(&self, slot: u64) -> bool {
        let epoch = slot / SLOTS_PER_EPOCH;
        self.duties.lock().retain(|known, _| known + 2 >= epoch);
        let place = slot % SLOTS_PER_EPOCH;
        if place == 0 {
            return self.learn_epoch(epoch, true).await;
        }
        tokio::join!(self.learn_epoch(epoch, true), self.learn_epoch(epoch + 1, place == SLOTS_PER_EPOCH - 1)).0
    }

    async fn learn_epoch(&self, epoch: u64, with_proposers: bool) -> bool {
        let known = self.duties.lock().entry(epoch).or_default().clone();
        let (attesters, proposers, members) = tokio::join!(
            async { if known.attesters.is_none() { self.ask_attesters(epoch).await } else { known.attesters } },
            async {
                if with_proposers && known.proposers.is_none() {
                    self.ask_proposers(epoch).await
                } else {
                    known.proposers
                }
            },
            async {
                if known.in_sync_committee.is_none() { self.ask_members(epoch).await } else { known.in_sync_committee }
            },
        );
        let all = attesters.is_some() && proposers.is_some() && members.is_some();
        self.duties.lock().insert(epoch, Epoch { attesters, proposers, in_sync_committee: members });
        all
    }

    async fn ask_attesters(&self, epoch: u64) -> Option<(B256, BTreeMap<u64, Vec<u64>>)> {
        let path = format!("/eth/v1/validator/duties/attester/{epoch}");
        let answer = self.http.post(&path, &self.indices(), self.times.slot).await?;
        let mut attesters = BTreeMap::<u64, Vec<u64>>::new();
        for duty in answer["data"].as_array()? {
            attesters.entry(number(&duty["slot"])?).or_default().push(number(&duty["validator_index"])?);
        }
        let wishes: Value = attesters
            .iter()
            .flat_map(|(slot, validators)| {
                validators.iter().map(move |index| {
                    json!({
                        "validator_index": index.to_string(), "committee_index": "0", "committees_at_slot": "1",
                        "slot": slot.to_string(), "is_aggregator": true,
                    })
                })
            })
            .collect();
        self.http.post("/eth/v1/validator/beacon_committee_subscriptions", &wishes, self.times.slot).await;
        Some((dependent_root(&answer)?, attesters))
    }

    async fn ask_proposers(&self, epoch: u64) -> Option<(B256, BTreeMap<u64, u64>)> {
        let answer = self.http.get(&format!("/eth/v1/validator/duties/proposer/{epoch}"), self.times.slot).await?;
        let duties = answer["data"].as_array()?.iter();
        let proposers = duties.map(|duty| Some((number(&duty["slot"])?, number(&duty["validator_index"])?)));
        Some((dependent_root(&answer)?, proposers.collect::<Option<_>>()?))
    }

    async fn ask_members(&self, epoch: u64) -> Option<Vec<u64>> {
        let path = format!("/eth/v1/validator/duties/sync/{epoch}");
        let answer = self.http.post(&path, &self.indices(), self.times.slot).await?;
        let members: Vec<u64> =
            answer["data"].as_array()?.iter().map(|duty| number(&duty["validator_index"])).collect::<Option<_>>()?;
        let wishes: Value = members
            .iter()
            .map(|index| {
                json!({
                    "validator_index": index.to_string(), "sync_committee_indices": [(index % 32).to_string()],
                    "until_epoch": (epoch + 1).to_string(),
                })
            })
            .collect();
        self.http.post("/eth/v1/validator/sync_committee_subscriptions", &wishes, self.times.slot).await;
        Some(members)
    }

    fn indices(&self) -> Value {
        self.client.validators.iter().map(|index| json!(index.to_string())).collect()
    }
}

fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

fn dependent_root(answer: &Value) -> Option<B256> {
    hex::fixed(answer["dependent_root"].as_str()?)
}
