//! `/eth/v1/events`: the chain's events as server-sent events. Like subscriptions, a stream is the
//! difference of two views of the node, so no block is missed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use tokio::{
    sync::{broadcast, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    super::{
        chain::Operation,
        fault::{Fault, Faults},
        http as answers,
        node::{Dropped, Node},
        record::SubscriptionGauge,
        view::{FINALIZED, Snapshot, View},
    },
    Api, Outcome, Problem, topics,
};

/// Between two comments that keep the stream alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

struct Stream {
    node: Arc<Node>,
    topics: Vec<String>,
    seen: View,
    finalized: u64,
    faults: watch::Receiver<Arc<Faults>>,
    chain: watch::Receiver<Arc<Snapshot>>,
    comments: Interval,
    queue: VecDeque<Bytes>,
    /// When a node whose blocks arrive late sees the next one.
    more: Option<Instant>,
    operations: broadcast::Receiver<Operation>,
    _counted: SubscriptionGauge,
}

impl Api<'_> {
    pub(super) fn events(&self, query: &str) -> Outcome {
        let bad = |message: String| Problem(StatusCode::BAD_REQUEST, message);
        let lists = query.split('&').filter_map(|pair| pair.strip_prefix("topics="));
        let lists: Vec<String> = lists.map(|list| list.replace("%2C", ",").replace("%2c", ",")).collect();
        let topics: Vec<String> = lists.iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
        if let Some(unknown) = topics.iter().find(|topic| !topics::TOPICS.contains(&topic.as_str())) {
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
            finalized: self.view.checkpoint(FINALIZED).slot,
            faults: self.node.watch_faults(),
            chain: self.node.chain.watch(),
            comments,
            queue: VecDeque::new(),
            more: None,
            operations: self.node.chain.operations(),
            _counted: self.node.records.subscription(),
            node: self.node.clone(),
        };
        // A change between the view and the watches must not wait for the next change.
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
            self.more = self.more.or_else(|| self.node.sees_more_at(&self.faults.borrow()));
            let more = self.more;
            // All arms are cancel-safe. A watch fails only when the node is gone; the connection
            // then goes too.
            tokio::select! {
                biased;
                _ = self.faults.changed() => self.more = None,
                _ = self.chain.changed() => {}
                () = sleep_until(more.unwrap_or_else(Instant::now)), if more.is_some() => self.more = None,
                submitted = self.operations.recv() => {
                    // A listener that is too far behind has missed some, as on a network.
                    if let Ok((topic, about)) = submitted
                        && !self.faults.borrow().mute()
                        && self.topics.iter().any(|wanted| *wanted == topic)
                    {
                        self.queue.push_back(encode(topic, &about));
                    }
                    continue;
                }
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

    /// Queues the events since the last call. The events of a mute node are dropped, not kept for
    /// later.
    fn collect(&mut self) {
        let faults = self.faults.borrow_and_update().clone();
        self.chain.mark_unchanged();
        let old = self.seen.head().clone();
        let change = self.seen.advance(self.node.view_under(&faults));
        let Some(new) = change.added.last() else { return };
        let mut events = Vec::new();
        if !change.removed.is_empty() {
            events.push(("chain_reorg", topics::reorg(&old, new, change.removed.len(), &faults)));
        }
        for block in &change.added {
            events.extend(topics::of_block(&self.seen.at(block.number), &faults));
        }
        let finalized = self.seen.checkpoint(FINALIZED).slot;
        if finalized > self.finalized {
            self.finalized = finalized;
            events.push(("finalized_checkpoint", topics::finalized(&self.seen, &faults)));
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
