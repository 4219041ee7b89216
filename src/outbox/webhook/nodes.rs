//! The events of pools: nodes that go down or come up, and switches of the node in use.
//!
//! A pool tells that something changed; what changed is found by comparison with what was known
//! before. A node that went down and came back between two looks is so told of by neither event.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};
use tracing::warn;

use super::{Event, Webhooks, body, body::PoolData};
use crate::{
    domain::verdict::{Down, Verdict},
    outbox::{
        record::{EventId, EventKind, Millis, TenantName},
        step::Step,
    },
    pool::{Pool, snapshot::Switch},
};

/// What was last told of the pools, over reloads. Clones are the same memory.
#[derive(Clone, Debug, Default)]
pub struct PoolMemory(Arc<Mutex<BTreeMap<PoolName, Known>>>);

/// Network and side.
type PoolName = (Arc<str>, &'static str);

/// What is known of one pool.
#[derive(Debug, Default)]
struct Known {
    /// Nodes, and whether they were usable.
    nodes: BTreeMap<Arc<str>, bool>,
    /// The time of the last switch that was seen.
    switch: Option<Instant>,
    /// Events so far: a part of their ids.
    events: u64,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
enum News {
    Node { node: Arc<str>, verdict: Verdict },
    Switched { from: Option<Arc<str>>, to: Option<Arc<str>>, reason: &'static str, at: Instant },
}

impl Known {
    /// The changes since the last look, switches last.
    fn news<'n>(
        &mut self,
        nodes: impl Iterator<Item = (&'n Arc<str>, Verdict)>,
        switches: impl Iterator<Item = &'n Switch>,
    ) -> Vec<News> {
        let mut news = Vec::new();
        let mut known = BTreeMap::new();
        for (node, verdict) in nodes {
            let before = self.nodes.get(node).copied();
            if verdict == Verdict::Down(Down::Unknown) {
                known.extend(before.map(|before| (node.clone(), before)));
                continue;
            }
            let is_usable = verdict.is_usable();
            known.insert(node.clone(), is_usable);
            // The first word on a node is no change, unless the word is that it is down.
            if before.unwrap_or(true) != is_usable {
                news.push(News::Node { node: node.clone(), verdict });
            }
        }
        self.nodes = known;
        for Switch { from, to, reason, at } in switches {
            if self.switch.is_none_or(|last| *at > last) {
                self.switch = Some(*at);
                news.push(News::Switched { from: from.clone(), to: to.clone(), reason, at: *at });
            }
        }
        news
    }
}

/// Tells endpoints of the changes of `pool`, until the pool is gone, or the pool is no longer in
/// charge: the other end of `end` is dropped. Only one task may do so for a pool.
pub async fn watch(pool: Arc<Pool>, memory: PoolMemory, webhooks: Webhooks, mut end: oneshot::Receiver<()>) {
    let mut changed = pool.subscribe();
    loop {
        let (now, wall) = (Instant::now(), webhooks.now());
        let of_pool = (pool.network.clone(), pool.layer.as_str());
        let events = {
            let snapshot = pool.snapshot();
            let verdicts = snapshot.nodes.iter().map(|facts| facts.verdict);
            let names = pool.nodes.iter().map(|node| &node.name);
            let mut memory = memory.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = memory.entry(of_pool.clone()).or_default();
            let news = known.news(names.zip(verdicts), snapshot.switches.iter());
            let events: Vec<_> = news
                .into_iter()
                .map(|one| {
                    known.events += 1;
                    event(&of_pool, &one, known.events, now, wall)
                })
                .collect();
            events
        };
        for (event, body) in events {
            webhooks.tell(&event, body).await;
        }
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            _ = &mut end => return,
            changed = changed.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// The event of a change, and its body.
fn event((network, layer): &PoolName, news: &News, number: u64, now: Instant, wall: Millis) -> (Event, String) {
    let (kind, at, data) = match news {
        News::Node { node, verdict } => {
            let kind = if verdict.is_usable() { EventKind::NodeUp } else { EventKind::NodeDown };
            (kind, wall, PoolData::Node { network, layer, node, verdict: verdict.as_str() })
        }
        News::Switched { from, to, reason, at } => {
            let ago = super::attempt::millis(now.saturating_duration_since(*at));
            let (from, to) = (from.as_deref(), to.as_deref());
            (
                EventKind::Switch,
                Millis(wall.0.saturating_sub(ago)),
                PoolData::Switch { network, layer, from, to, reason },
            )
        }
    };
    let (time, number) = (wall.0.to_string(), number.to_string());
    let event = Event {
        id: EventId::of_words(&["pool", network, layer, kind.as_str(), &time, &number]),
        kind,
        tenant: TenantName::default(),
        at,
        request_id: None,
        traceparent: None,
        of: None,
    };
    (event, body::pool(kind, at, &data))
}

impl Webhooks {
    /// Writes the deliveries of an event of the pool, and has them sent. While the disk takes
    /// nothing, the event is not told of: the log has it. Of several replicas the leader alone
    /// tells.
    pub async fn tell(&self, event: &Event, body: String) {
        if !(self.shared.tools.duty.tells_of_nodes)() {
            return;
        }
        let deliveries = self.table().deliveries(event, || body);
        if deliveries.is_empty() {
            return;
        }
        let mut step = Step::new();
        deliveries.iter().for_each(|delivery| _ = step.deliver(delivery.clone()));
        match self.shared.tools.deliveries.commit(step).await {
            Ok(()) => self.added(&deliveries),
            Err(error) => warn!(%error, kind = event.kind.as_str(), "endpoints are not told of an event of the pool"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn look(known: &mut Known, nodes: &[(&str, Verdict)], switches: &[Switch]) -> Vec<String> {
        let nodes: Vec<(Arc<str>, Verdict)> =
            nodes.iter().map(|(name, verdict)| (Arc::from(*name), *verdict)).collect();
        let news = known.news(nodes.iter().map(|(name, verdict)| (name, *verdict)), switches.iter());
        let told = |one: News| match one {
            News::Node { node, verdict } => format!("{node} {}", verdict.as_str()),
            News::Switched { from, to, .. } => {
                format!("{} -> {}", from.as_deref().unwrap_or("none"), to.as_deref().unwrap_or("none"))
            }
        };
        news.into_iter().map(told).collect()
    }

    #[test]
    fn a_node_is_told_of_when_it_goes_and_when_it_returns() {
        let mut known = Known::default();
        let (up, down) = (Verdict::Up, Verdict::Down(Down::Silent));
        let unknown = Verdict::Down(Down::Unknown);
        assert!(look(&mut known, &[("a", unknown), ("b", unknown)], &[]).is_empty());
        assert_eq!(look(&mut known, &[("a", up), ("b", down)], &[]), ["b down"], "a beginning is no change");
        assert!(look(&mut known, &[("a", up), ("b", down)], &[]).is_empty(), "told twice");
        assert_eq!(look(&mut known, &[("a", Verdict::Lagging(9)), ("b", up)], &[]), ["a lagging", "b up"]);
        assert!(look(&mut known, &[("a", Verdict::Syncing), ("b", up)], &[]).is_empty(), "it is down still");
        // A reload: the pool that takes over knows nothing at first, and a node is new.
        assert!(look(&mut known, &[("a", unknown), ("b", unknown), ("c", up)], &[]).is_empty());
        assert_eq!(look(&mut known, &[("a", up), ("b", up), ("c", up)], &[]), ["a up"]);
    }

    #[test]
    fn each_switch_is_told_of_once() {
        let mut known = Known::default();
        let start = Instant::now();
        let switch = |from: Option<&str>, to: Option<&str>, second| Switch {
            from: from.map(Arc::from),
            to: to.map(Arc::from),
            reason: "down",
            at: start + Duration::from_secs(second),
        };
        let all = [switch(None, Some("a"), 1), switch(Some("a"), Some("b"), 2), switch(Some("b"), None, 3)];
        assert_eq!(look(&mut known, &[], &all[..2]), ["none -> a", "a -> b"]);
        assert_eq!(look(&mut known, &[], &all), ["b -> none"]);
        assert!(look(&mut known, &[], &all).is_empty());
    }

    #[test]
    fn an_event_has_its_own_id_and_the_time_of_the_switch() {
        let (pool, now) = ((Arc::from("main"), "el"), Instant::now() + Duration::from_secs(10));
        let at = now - Duration::from_secs(4);
        let news = News::Switched { from: None, to: Some("b".into()), reason: "down", at };
        let (first, body) = event(&pool, &news, 1, now, Millis(60_000));
        assert_eq!((first.kind, first.at), (EventKind::Switch, Millis(56_000)));
        assert!(body.contains(r#""to":"b""#) && body.contains("1970-01-01T00:00:56.000Z"), "{body}");
        let (second, _) = event(&pool, &news, 2, now, Millis(60_000));
        assert_ne!(first.id, second.id);
    }
}
