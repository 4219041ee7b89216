//! The `head` events that the client receives.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use alloy_primitives::B256;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{sync::watch, time::sleep};

use super::{super::hex, Shared};

/// Heads that are remembered.
const KEPT_HEADS: usize = 64;
/// Before a stream that ended is asked for again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// An event is not longer than this.
const MAX_EVENT: usize = 64 << 10;

/// A `head` event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) slot: u64,
    pub(super) root: B256,
    /// The block that the attester duties of the head's epoch depend on.
    pub(super) previous: Option<B256>,
    /// The block that the attester duties of the next epoch and the proposers of the head's epoch
    /// depend on.
    pub(super) current: Option<B256>,
}

/// The latest heads, newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Heads {
    told: VecDeque<Head>,
    /// Streams that ended.
    pub(super) losses: u64,
}

impl Heads {
    pub(super) fn last(&self) -> Option<Head> {
        self.told.back().copied()
    }

    /// Whether the stream named `root` as a head and has since named another of at most `slot`.
    pub(super) fn has_passed(&self, root: B256, slot: u64) -> bool {
        let mut told = self.told.iter().rev().filter(|head| head.slot <= slot);
        told.next().is_some_and(|last| last.root != root) && told.any(|head| head.root == root)
    }
}

/// Listens for ever, to one stream after the other.
pub(super) async fn listen(shared: Arc<Shared>, heads: watch::Sender<Heads>) {
    loop {
        follow(&shared, &heads).await;
        heads.send_modify(|heads| heads.losses += 1);
        sleep(RECONNECT_PAUSE).await;
    }
}

async fn follow(shared: &Shared, heads: &watch::Sender<Heads>) -> Option<()> {
    let mut body = shared.http.stream("/eth/v1/events?topics=head").await?;
    let mut text = Vec::new();
    loop {
        let piece = body.frame().await?.ok()?;
        text.extend_from_slice(piece.data_ref()?);
        while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = text.drain(..end + 2).collect();
            let data = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data:"));
            if let Some(head) = data.and_then(|data| serde_json::from_slice(data).ok()).and_then(|data| read(&data)) {
                heads.send_modify(|heads| {
                    heads.told.push_back(head);
                    if heads.told.len() > KEPT_HEADS {
                        heads.told.pop_front();
                    }
                });
            }
        }
        if text.len() > MAX_EVENT {
            return None;
        }
    }
}

fn read(data: &Value) -> Option<Head> {
    let root = |key: &str| data[key].as_str().and_then(hex::fixed);
    Some(Head {
        slot: data["slot"].as_str()?.parse().ok()?,
        root: root("block")?,
        previous: root("previous_duty_dependent_root"),
        current: root("current_duty_dependent_root"),
    })
}
