//! The operator's wishes for all replicas, applied to the nodes and the log of this one.
//!
//! Rule: a node is out of use where this replica's own operator or a wish takes the node out. No
//! wish lets a node in. Each wish's outcome goes to the other replicas with the next heartbeat.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::SetLog;
use crate::{
    cluster::{Running, Standing, Wishes},
    domain::{
        fleet::{Applied, Key, NodeRef, StoreRevision, Wish, WishError, WishErrorWord, WishKey, WishWord},
        node_id::ByNode,
    },
    door::site::{Served, Site},
    pool::Pool,
};

/// How long the start waits for the wishes, before clients are served.
const FIRST_WISHES: Duration = Duration::from_millis(500);
/// The pause before a wish is tried again that could not be applied.
const AGAIN: Duration = Duration::from_secs(10);

/// The outcomes that heartbeats tell of.
pub(super) type Outcomes = Arc<ArcSwap<Vec<Applied>>>;

/// Applies wishes.
pub(super) struct Applier {
    running: Arc<Running>,
    site: Arc<ArcSwap<Site>>,
    wishes: watch::Receiver<Wishes>,
    set_log: Option<SetLog>,
    outcomes: Outcomes,
    /// The level that the log has by a wish.
    level: Mutex<Option<WishWord>>,
}

impl Applier {
    pub(super) fn new(
        running: Arc<Running>,
        site: Arc<ArcSwap<Site>>,
        set_log: Option<SetLog>,
        outcomes: Outcomes,
    ) -> Self {
        let wishes = running.cluster().wishes();
        Self { running, site, wishes, set_log, outcomes, level: Mutex::default() }
    }

    /// Takes up the wishes before clients are served, if the store tells them in time.
    pub(super) async fn take_up(&self) {
        let mut wishes = self.wishes.clone();
        if timeout(FIRST_WISHES, wishes.wait_for(|wishes| wishes.is_settled)).await.is_ok() {
            self.apply().await;
        }
    }

    /// Applies the wishes after each change of them, and after each reload.
    pub(super) async fn keep_applying(self: Arc<Self>, mut reloaded: watch::Receiver<u64>) {
        let mut wishes = self.wishes.clone();
        loop {
            wishes.mark_unchanged();
            reloaded.mark_unchanged();
            let has_failed = self.apply().await;
            // All arms are cancel-safe.
            let changed = tokio::select! {
                changed = wishes.changed() => changed,
                changed = reloaded.changed() => changed,
                () = sleep(AGAIN), if has_failed => Ok(()),
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// Applies all wishes, and reports the outcomes. Whether one may succeed if tried again.
    async fn apply(&self) -> bool {
        let (wishes, site) = (self.wishes.borrow().clone(), self.site.load_full());
        let obeyed = wishes.obeyed();
        let mut failed = Vec::new();
        for pool in site.networks.iter().flat_map(Served::pools) {
            failed.extend(to_pool(pool, &obeyed).await);
        }
        let log = self.to_log(obeyed.get(&WishKey::Log).copied());
        let outcomes = obeyed.iter().map(|(key, standing)| {
            let last_error = match (key, &standing.wish) {
                (_, Err(why)) => Some(not_applied(&format!("the entry cannot be read: {why}"))),
                (key, Ok(wish)) if !key.allows(&wish.state) => {
                    Some(not_applied(&format!("this version does not know {} for {key}", wish.state)))
                }
                (WishKey::Log, _) => log.clone(),
                (WishKey::Node(node), _) => fault(&site, node, &failed),
            };
            Applied { key: Key::Wish((*key).clone()).to_string(), revision: standing.revision, last_error }
        });
        let outcomes: Vec<_> = outcomes.collect();
        let has_failed = !failed.is_empty() || log.is_some();
        if *self.outcomes.load_full() != outcomes {
            tell(&self.outcomes.load(), &outcomes, &wishes);
            self.outcomes.store(Arc::new(outcomes));
            self.running.beat();
        }
        has_failed
    }

    /// Applies the wishes to pools that are about to serve.
    pub(super) async fn apply_to(&self, pools: impl Iterator<Item = &Arc<Pool>>) {
        let wishes = self.wishes.borrow().clone();
        for pool in pools {
            to_pool(pool, &wishes.obeyed()).await;
        }
    }

    /// Gives the log the wished level, or the level of the settings.
    fn to_log(&self, standing: Option<&Standing>) -> Option<WishError> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let wished = standing.and_then(|standing| standing.state.clone());
        if wished == *level {
            return None;
        }
        let Some(set_log) = &self.set_log else {
            return Some(not_applied("the log of this replica has a fixed level"));
        };
        match set_log(wished.as_ref().map(WishWord::as_str)) {
            Ok(()) => {
                *level = wished;
                None
            }
            Err(why) => Some(not_applied(&why)),
        }
    }
}

/// Applies the wishes to one pool. Returns the nodes at which that failed.
async fn to_pool(pool: &Pool, obeyed: &BTreeMap<&WishKey, &Standing>) -> Vec<NodeRef> {
    let mut failed = Vec::new();
    for (id, node) in pool.nodes.by_node() {
        let (Ok(network), Ok(name)) = (pool.network.parse(), node.name.parse()) else { continue };
        let key = WishKey::Node(NodeRef { network, layer: pool.layer.as_str().into(), node: name });
        let is_out = obeyed.get(&key).is_some_and(|standing| standing.state.is_some());
        if !pool.wish(id, is_out).await
            && let WishKey::Node(node) = key
        {
            failed.push(node);
        }
    }
    failed
}

/// Why the wish for a node has no effect here.
fn fault(site: &Site, node: &NodeRef, failed: &[NodeRef]) -> Option<WishError> {
    let NodeRef { network, layer, node: name } = node;
    let Some(served) = site.network(network.as_str()) else {
        let text = format!("this replica has no network {network}");
        return Some(WishError::new(WishErrorWord::NoNetwork, &text));
    };
    let mut pools = served.pools().filter(|pool| pool.layer.as_str() == layer.as_str());
    if !pools.any(|pool| pool.nodes.iter().any(|of| *of.name == *name.as_str())) {
        let text = format!("this replica has no node {name} in {network} {layer}");
        return Some(WishError::new(WishErrorWord::NoNode, &text));
    }
    failed.contains(node).then(|| not_applied("the node's pool did not take the wish in time"))
}

fn not_applied(text: &str) -> WishError {
    WishError::new(WishErrorWord::NotApplied, text)
}

/// Logs the outcomes that are new, and the wishes that have ended.
fn tell(before: &[Applied], now: &[Applied], wishes: &Wishes) {
    let known: BTreeMap<&str, &Applied> = before.iter().map(|applied| (&*applied.key, applied)).collect();
    let words: BTreeMap<(String, StoreRevision), &Wish> = wishes
        .iter()
        .filter_map(|(key, standing)| {
            let wish = standing.wish.as_ref().ok()?;
            Some(((Key::Wish(key.clone()).to_string(), standing.revision), wish))
        })
        .collect();
    for applied in now.iter().filter(|applied| known.get(&*applied.key) != Some(applied)) {
        let Applied { key, revision, last_error } = applied;
        let wish = words.get(&(key.clone(), *revision));
        let (state, by) = (wish.map(|wish| wish.state.as_str()), wish.map(|wish| wish.by.as_str()));
        match last_error {
            None => info!(wish = key, state, by, %revision, "the operator's wish for all replicas is applied"),
            Some(WishError { reason, text }) => {
                warn!(wish = key, state, by, %revision, %reason, why = text, "the operator's wish is not applied");
            }
        }
    }
    for applied in before.iter().filter(|applied| now.iter().all(|other| other.key != applied.key)) {
        info!(wish = applied.key, "the operator's wish for all replicas has ended");
    }
}
