//! A pool's work between probes: judges again at the moment that the state names, and probes nodes
//! out of turn whose next block is awaited.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    select,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{Pool, identity, state::Input};
use crate::domain::{layer::Layer, node_id::NodeId};

/// Probes per block time of a node that is passed over for being behind.
const LOOKS: u32 = 8;
/// The shortest and the longest pause between two such probes.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));

/// Runs as long as the pool.
pub(super) async fn tend(pool: Arc<Pool>) {
    let mut changes = pool.subscribe();
    let mut poked = Instant::now();
    let (mut named, mut asking) = (None, JoinSet::new());
    loop {
        let (chase, wake, chain) = {
            let snapshot = pool.snapshot();
            let chain = snapshot.chain.as_ref().and_then(|chain| chain.id);
            let chase = snapshot.chase.filter(|_| !pool.is_retired());
            (chase, snapshot.wake_at, snapshot.active.and(chain))
        };
        if let Some(id) = chain.filter(|_| pool.layer == Layer::El && chain != named) {
            named = chain;
            asking.abort_all();
            asking.spawn(identity::learn(pool.clone(), id));
        }
        let poke = chase.map(|chase| poked + chase.every.min(pool.interval(chase.node)));
        let soon = Instant::now();
        // All arms are cancel-safe; an empty set is nothing to wait for.
        select! {
            biased;
            // The pool itself holds the sender.
            changed = changes.changed() => if changed.is_err() { return },
            Some(_) = asking.join_next(), if !asking.is_empty() => {}
            () = sleep_until(wake.unwrap_or(soon)), if wake.is_some() => {
                if pool.inbox.send(Input::Woken).await.is_err() || changes.changed().await.is_err() {
                    return;
                }
            }
            () = sleep_until(poke.unwrap_or(soon)), if poke.is_some() => {
                poked = Instant::now();
                if let Some(chase) = chase {
                    pool.probe_now(chase.node);
                }
            }
        }
    }
}

impl Pool {
    /// When calls are spread over nodes and one goes to `chosen`: asks nodes again that are as good
    /// but were below the highest block that clients were shown, so that none is passed over
    /// because of old knowledge.
    pub fn catch_up(&self, chosen: NodeId) {
        let (served, snapshot) = self.served_and_snapshot();
        let is_passed_over = |node: NodeId| {
            let preference = snapshot.nodes[node].preference(self.nodes[node].traffic.max_height(), served);
            preference.is_some_and(|preference| {
                let is_as_good = preference.badness == 0 && preference.tier == self.nodes[chosen].tier;
                is_as_good && (1..=snapshot.near).contains(&preference.below_served)
            })
        };
        let mut passed_over =
            NodeId::all(self.nodes.len()).filter(|node| *node != chosen && is_passed_over(*node)).peekable();
        if passed_over.peek().is_none() {
            return;
        }
        let now = Instant::now();
        let every = (snapshot.block_time.unwrap_or(LOOK.1) / LOOKS).clamp(LOOK.0, LOOK.1);
        let mut asked = self.caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        for node in passed_over {
            if asked[node].is_none_or(|at| now >= at + every) {
                asked[node] = Some(now);
                self.probe_now(node);
            }
        }
    }
}
