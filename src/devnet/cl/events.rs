//! `/eth/v1/events`: what happens, as server-sent events. Like subscriptions, a stream is the difference of what the node saw and
//! what it sees, so it misses no block.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    super::{
        fault::{Fault, Faults},
        http as answers,
        node::{Dropped, Node},
        record::SubscriptionGauge,
        view::{FINALIZED, SLOTS_PER_EPOCH, Snapshot, View},
    },
    Api, Outcome, Problem,
};

/// Between two comments that keep the stream alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Topics of the beacon API; only the first four ever happen here.
const TOPICS: [&str; 18] = [
    "head",
    "block",
    "finalized_checkpoint",
    "chain_reorg",
    "block_gossip",
    "attestation",
    "single_attestation",
    "voluntary_exit",
    "bls_to_execution_change",
    "proposer_slashing",
    "attester_slashing",
    "contribution_and_proof",
    "light_client_finality_update",
    "light_client_optimistic_update",
    "payload_attributes",
    "blob_sidecar",
    "data_column_sidecar",
    "inclusion_list",
];

struct Stream {
    node: Arc<Node>,
    topics: Vec<String>,
    seen: View,
    finalized: u64,
    faults: watch::Receiver<Arc<Faults>>,
    chain: watch::Receiver<Arc<Snapshot>>,
    comments: Interval,
    queue: VecDeque<Bytes>,
    _counted: SubscriptionGauge,
}

impl Api<'_> {
    pub(super) fn events(&self, query: &str) -> Outcome {
        let bad = |message: String| Problem(StatusCode::BAD_REQUEST, message);
        let lists = query.split('&').filter_map(|pair| pair.strip_prefix("topics="));
        let lists: Vec<String> = lists.map(|list| list.replace("%2C", ",").replace("%2c", ",")).collect();
        let topics: Vec<String> = lists.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
        if let Some(unknown) = topics.iter().find(|topic| !TOPICS.contains(&topic.as_str())) {
            return Err(bad(format!("Invalid topic: {unknown}")));
        }
        if topics.is_empty() {
            return Err(bad("Missing topics".to_owned()));
        }
        let mut comments = interval(KEEP_ALIVE);
        comments.reset();
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stream = Stream {
            topics,
            seen: self.view.clone(),
            finalized: self.view.checkpoint(FINALIZED).number,
            faults: self.node.watch_faults(),
            chain: self.node.chain.watch(),
            comments,
            queue: VecDeque::new(),
            _counted: self.node.records.subscription(),
            node: self.node.clone(),
        };
        // Whatever changed between the view and the watches must not wait for the next change.
        stream.collect();
        let mut response = answers::streamed("text/event-stream", stream::unfold(stream, Stream::next));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }
}

impl Stream {
    async fn next(mut self) -> Option<(Result<Bytes, Dropped>, Self)> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some((Ok(event), self));
            }
            // All arms are cancel-safe; an error of a watch means that the node is gone, and the connection with it.
            tokio::select! {
                biased;
                _ = self.faults.changed() => {}
                _ = self.chain.changed() => {}
                _ = self.comments.tick() => self.queue.push_back(Bytes::from_static(b":\n\n")),
            }
            if self.faults.borrow().has(&Fault::Failing) {
                return Some((Err(Dropped), self));
            }
            if !self.faults.borrow().hang() {
                self.collect();
            }
        }
    }

    /// Queues what happened since the last time; of a mute node nothing, but then it is past.
    fn collect(&mut self) {
        let faults = self.faults.borrow_and_update().clone();
        self.chain.mark_unchanged();
        let old = self.seen.head().clone();
        let change = self.seen.advance(self.node.view_under(&faults));
        let Some(new) = change.added.last() else { return };
        let optimistic = faults.has(&Fault::Optimistic);
        let mut events = Vec::new();
        if !change.removed.is_empty() {
            events.push((
                "chain_reorg",
                json!({
                    "slot": new.number.to_string(),
                    "depth": change.removed.len().to_string(),
                    "old_head_block": old.root.to_string(),
                    "new_head_block": new.root.to_string(),
                    "old_head_state": old.beacon_state_root().to_string(),
                    "new_head_state": new.beacon_state_root().to_string(),
                    "epoch": (new.number / SLOTS_PER_EPOCH).to_string(),
                    "execution_optimistic": optimistic,
                }),
            ));
        }
        for block in &change.added {
            let slot = (block.number + faults.lie()).to_string();
            let root = block.root.to_string();
            events.push(("block", json!({"slot": slot, "block": root, "execution_optimistic": optimistic})));
            events.push((
                "head",
                json!({
                    "slot": slot,
                    "block": root,
                    "state": block.beacon_state_root().to_string(),
                    "epoch_transition": block.number % SLOTS_PER_EPOCH == 0,
                    "previous_duty_dependent_root": self.seen.checkpoint(1).root.to_string(),
                    "current_duty_dependent_root": self.seen.checkpoint(0).root.to_string(),
                    "execution_optimistic": optimistic,
                }),
            ));
        }
        let finalized = self.seen.checkpoint(FINALIZED);
        if finalized.number > self.finalized {
            self.finalized = finalized.number;
            events.push((
                "finalized_checkpoint",
                json!({
                    "block": finalized.root.to_string(),
                    "state": finalized.beacon_state_root().to_string(),
                    "epoch": (finalized.number / SLOTS_PER_EPOCH).to_string(),
                    "execution_optimistic": optimistic,
                }),
            ));
        }
        if !faults.mute() {
            let wanted = events.iter().filter(|(topic, _)| self.topics.iter().any(|wanted| wanted == topic));
            self.queue.extend(wanted.map(|(topic, about)| encode(topic, about)));
        }
    }
}

fn encode(topic: &str, about: &Value) -> Bytes {
    format!("event: {topic}\ndata: {about}\n\n").into()
}
