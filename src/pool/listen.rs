//! Listens to the heads that nodes push over their links.
//!
//! A task for each link keeps a subscription to `newHeads`, which the link asks for again on every
//! connection. A node that does not offer one is well all the same: its heads are known from
//! probes.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{
    Pool,
    health::{Fault, Trouble},
    probe::Probe,
    state::Input,
};
use crate::{
    domain::{block::BlockRef, node_id::NodeId},
    net::link::{Feed, Link, News, Status, SubscribeError},
};

/// Why a link is cut that brings nothing.
pub(super) const MUTE: &str = "it announced no blocks";
/// How long to wait when a subscription could not be asked for.
const SUBSCRIBE_PAUSE: Duration = Duration::from_millis(100);

/// A header that a node pushed or a probe found. The header saves a fetch, but does not say which
/// block is the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The node's index in the pool.
    pub node: NodeId,
    /// The block's place.
    pub block: BlockRef,
    /// The header as the node wrote it.
    pub json: Bytes,
    /// Whether `json` is a whole block, as from a probe, and not just a header, as from a push.
    pub is_whole: bool,
}

impl Pool {
    /// Whether [`Pool::headers`] brings the blocks that probes find too.
    pub fn want_headers(&self, wanted: bool) {
        self.headers_wanted.store(wanted, Relaxed);
    }

    /// Publishes a block that a probe found, before the snapshot that has the block as the node's
    /// head.
    pub(super) fn found(&self, node: NodeId, probe: &Probe) {
        if let Some(json) = probe.json.clone().filter(|_| self.headers_wanted.load(Relaxed)) {
            // There may be no listener.
            let _ = self.headers.send(Pushed { node, block: probe.block.clone(), json, is_whole: true });
        }
    }
}

/// Listens to one node's link for ever.
pub(super) struct Listener {
    pub(super) pool: Arc<Pool>,
    pub(super) index: NodeId,
    pub(super) link: Arc<Link>,
}

impl Listener {
    pub(super) async fn run(self) {
        let (mut status, mut changes) = (self.link.changes(), self.pool.subscribe());
        let mut before = Status::default();
        let mut feed: Option<Feed> = None;
        let mut refused_on = None;
        let node = &self.pool.nodes[self.index];
        loop {
            let now = status.borrow_and_update().clone();
            self.link_changed(&before, &now).await;
            let epoch = now.epoch;
            before = now;
            let is_idle = self.pool.is_idle(self.index);
            if is_idle && feed.take().is_some() {
                self.tell(Input::Feed(self.index, false)).await;
            }
            if !is_idle && feed.is_none() && before.up && refused_on != Some(epoch) {
                match node.subscribe(&self.link, "eth_subscribe", Bytes::from_static(br#"["newHeads"]"#)).await {
                    Ok(granted) => {
                        self.tell(Input::Feed(self.index, true)).await;
                        feed = Some(granted);
                    }
                    Err(SubscribeError::Refused(error)) => {
                        self.refused(&error);
                        refused_on = Some(epoch);
                    }
                    Err(SubscribeError::Link(_)) => {
                        sleep(SUBSCRIBE_PAUSE).await;
                        continue;
                    }
                }
            }
            // All arms are cancel-safe.
            tokio::select! {
                biased;
                changed = status.changed() => if changed.is_err() { return },
                // The pool itself holds the sender.
                changed = changes.changed(), if node.is_lazy() => if changed.is_err() { return },
                news = next(&mut feed) => match news {
                    Some(news) => self.take(news).await,
                    None => return,
                },
            }
        }
    }

    /// Draws the conclusions from a change of the link: a node whose link dropped is probed at
    /// once, and is out if the link is its only connection.
    async fn link_changed(&self, before: &Status, now: &Status) {
        let node = &self.pool.nodes[self.index];
        let (network, name) = (&*self.pool.network, &*node.name);
        if !self.pool.is_in_charge() {
            // The pool in charge logs the change.
        } else if !now.up && now.why_down.is_some() && (before.up || before.why_down.is_none()) {
            let why = node.why_link_is_down();
            if self.pool.lines.pass() {
                warn!(network, node = name, why, "no {} to the node", node.link_name());
            }
        } else if now.up && before.why_down.is_some() && self.pool.lines.pass() {
            info!(network, node = name, "the {} to the node is open", node.link_name());
        }
        let was_lost = before.up && (!now.up || now.epoch != before.epoch);
        if !was_lost {
            return;
        }
        let by_us = now.why_down.as_deref() == Some(MUTE);
        if node.upstream.is_none() && !now.up && !by_us {
            let text = node.why_link_is_down();
            self.tell(Input::Out(self.index, Trouble { fault: Fault::Dropped, text })).await;
        }
        // Another node may answer at this address now.
        node.recheck.store(true, Relaxed);
        self.pool.probe_now(self.index);
    }

    async fn take(&self, news: News) {
        self.pool.nodes[self.index].pay_for(&news);
        match news {
            News::Event(json) => match BlockRef::read(&json) {
                Ok(block) => self.pool.pushed(self.index, block, json).await,
                Err(why) if self.pool.lines.pass() => {
                    let (node, why) = (&self.pool.nodes[self.index], why.as_str());
                    warn!(network = &*self.pool.network, node = &*node.name, why, "a node pushed what is no header");
                }
                Err(_) => {}
            },
            News::Back => self.tell(Input::Feed(self.index, true)).await,
            News::Lost => self.tell(Input::Feed(self.index, false)).await,
            News::Refused(error) => {
                self.refused(&error);
                self.tell(Input::Feed(self.index, false)).await;
            }
        }
    }

    fn refused(&self, error: &[u8]) {
        let node = &self.pool.nodes[self.index];
        let why = node.redact_text(&String::from_utf8_lossy(error));
        debug!(network = &*self.pool.network, node = &*node.name, why, "pushes no heads; they are known from probes");
    }

    async fn tell(&self, input: Input) {
        // The state task lives as long as the pool's other tasks do.
        let _ = self.pool.inbox.send(input).await;
    }
}

/// The feed's next news, if there is a feed.
async fn next(feed: &mut Option<Feed>) -> Option<News> {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}
