//! One sending of a transaction: to all nodes that it is to go to, each once.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tracing::{error, trace, warn};

use crate::{
    call::{
        Calls,
        raw_sends::{NodeOutcomes, Submission},
        send_outcome::SendOutcome,
    },
    domain::{answer::NodeError, node_id::NodeId},
    outbox::{
        desk::{Input, To, Word},
        handle::Shared,
        record::TxId,
        shard::Shard,
    },
};

/// The pause before a sending is tried again that finds too many under way.
const CROWDED: Duration = Duration::from_millis(50);

/// A sending.
pub(super) struct Sending {
    pub(super) shared: Arc<Shared>,
    pub(super) calls: Arc<Calls>,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) id: TxId,
    pub(super) number: u64,
    pub(super) to: To,
    pub(super) raw: Option<Bytes>,
    pub(super) request_id: Option<String>,
    pub(super) traceparent: Option<String>,
    /// The chain that the signature names.
    pub(super) signed_for: Option<u64>,
    /// The shard, which this replica must own at the moment of the sending.
    pub(super) shard: Option<Shard>,
}

impl Sending {
    /// Sends, and brings the desk each node's word.
    pub(super) async fn run(mut self) {
        // A reload may have given the network's name to another chain.
        let chain = self.calls.pool().chain_id();
        let Some(_permit) = self.shared.ownership.begin(self.shard).await else {
            // Another replica sends it, or this one again after a pause.
            let Self { id, number, inputs, .. } = self;
            _ = inputs.send(Input::SendDone { id, send: number, is_whole: false }).await;
            return;
        };
        let is_whole = match (self.signed_for.zip(chain), self.raw()) {
            (Some((signed_for, chain)), _) if signed_for != chain => {
                error!(hash = %self.id.hash, signed_for, chain, "a transaction is for another chain, and is not sent");
                false
            }
            (_, Some(raw)) => self.send(&raw).await,
            (_, None) => false,
        };
        let Self { id, number, inputs, .. } = self;
        // The relay ends the tasks when it ends.
        _ = inputs.send(Input::SendDone { id, send: number, is_whole }).await;
    }

    /// The bytes, from the store where they did not come with the order.
    fn raw(&mut self) -> Option<Bytes> {
        if let Some(raw) = self.raw.take() {
            return Some(raw);
        }
        let read = self.shared.store.read().and_then(|reader| reader.raw(&self.id));
        match read {
            Ok(Some(raw)) => Some(raw.into()),
            Ok(None) => {
                error!(hash = %self.id.hash, "the outbox has a record without its transaction");
                None
            }
            Err(error) => {
                warn!(hash = %self.id.hash, %error, "a transaction cannot be read, and is not sent now");
                None
            }
        }
    }

    /// Sends to each node once. Whether each node that `outbox.send_to` allows gave a word.
    async fn send(&self, raw: &[u8]) -> bool {
        let pool = self.calls.pool();
        let send_to = self.shared.settings.load().send_to;
        let mut nodes = self.calls.send_targets(send_to);
        let name = |node: NodeId| &pool.nodes[node].name;
        let is_meant = |node: &NodeId| self.to.has(name(*node));
        nodes.retain(is_meant);
        // Nor are nodes that hang sent more than there is room for.
        let room = &self.shared.send_room;
        let held: Vec<usize> = nodes.iter().map(|node| room.held_by(&self.id.network, name(*node))).collect();
        let least = if self.to == To::All { held.iter().copied().min().unwrap_or(0) } else { 0 };
        let mut held = held.into_iter();
        nodes.retain(|_| held.next().is_none_or(|held| !room.leaves_out(held, least)));
        let mut waits: Vec<_> =
            nodes.iter().map(|node| (*node, room.at_node(&self.id.network, name(*node), raw.len()))).collect();
        let mut meant = self.calls.allowed_nodes(send_to);
        let limit = Instant::now() + self.calls.settings().attempt_timeout;
        let submission = Submission::new(raw, &self.headers());
        let is_whole = !nodes.is_empty() && meant.iter().all(|node| nodes.contains(node));
        // Nodes that rest or were left out are sent nothing now.
        meant.retain(|node| is_meant(node) && !nodes.contains(node));
        let mut unheard = nodes.clone();
        if let Some(mut words) = self.begin(&nodes, &submission, limit).await {
            while let Some((node, word)) = words.next().await {
                unheard.retain(|other| *other != node);
                waits.retain(|(other, _)| *other != node);
                self.heard(node, word).await;
            }
        }
        let is_whole = is_whole && unheard.is_empty();
        for node in unheard.into_iter().chain(meant) {
            self.heard(node, SendOutcome::Lost).await;
        }
        is_whole
    }

    async fn begin(&self, nodes: &[NodeId], submission: &Arc<Submission>, limit: Instant) -> Option<NodeOutcomes> {
        loop {
            if nodes.is_empty() || Instant::now() >= limit {
                return None;
            }
            if let Some(words) = self.calls.send_raw(nodes, submission, limit) {
                return Some(words);
            }
            sleep(CROWDED).await;
        }
    }

    async fn heard(&self, node: NodeId, word: SendOutcome) {
        let node = self.calls.pool().nodes[node].name.clone();
        trace!(
            hash = %self.id.hash, tenant = %self.id.tenant, node = &*node, word = word.name(),
            request_id = self.request_id, traceparent = self.traceparent,
            "a node's word on a transaction"
        );
        let word = match word {
            SendOutcome::Took | SendOutcome::AlreadyKnown => Word::Taken,
            SendOutcome::Refused { code, message, .. } => {
                Word::of_error(&NodeError { code, message: message.into(), data: None })
            }
            SendOutcome::Busy { .. } | SendOutcome::Lost => Word::Lost,
        };
        _ = self.inputs.send(Input::Heard { id: self.id.clone(), send: self.number, node, word }).await;
    }

    /// The header lines of the request that brought the transaction.
    fn headers(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for (name, value) in [("x-request-id", &self.request_id), ("traceparent", &self.traceparent)] {
            if let Some(value) = value {
                lines.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
        }
        lines
    }
}
