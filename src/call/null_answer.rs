//! Answers of `null` and `[]` that are not believed yet: the block or transaction may be at another
//! node.
//!
//! Rule: a node that answers `null` for a block or transaction that clients know of is behind
//! another node. So is a node that lacks blocks, and answers `null` or `[]` for these while another
//! node has them: see [`crate::pool::block_range`]. Of a block or transaction that only a hash
//! names, nothing is known before: one more node is asked, of those with all blocks. Reason: nodes
//! differ in their heights, and in how much of the past is kept. Example: a full node has no
//! receipt of a transaction of last year, and an archive has one: the client gets the receipt.

use std::time::Duration;

use tokio::time::Instant;

use super::{answer::Answer, block_ranges::RECENT, run::CallRun};
use crate::{
    domain::{hex, method::Tells, node_id::NodeId, rpc::Request},
    pool::Pool,
};

/// For how long nodes are asked again for an announced block or transaction.
const ANNOUNCED_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before nodes are asked again; doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Whether a `null` is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// A `null` is believed: no client knows of the object.
    None,
    /// A `null` is believed when one more node gave one.
    Once,
    /// A `null` is believed when all nodes gave one: nodes differ in how much of the past they
    /// keep.
    Elsewhere,
    /// A `null` is believed only after `ANNOUNCED_TIMEOUT`: the object was announced and will
    /// arrive at the nodes.
    Soon,
}

impl CallRun<'_> {
    /// Where the answer shows a height. A pending block's height is not reached yet, so it does not
    /// count.
    pub(super) fn tells(&self) -> Tells {
        match self.method.tells {
            Tells::Block | Tells::Inclusion if self.request.text_param(0).as_deref() == Some("pending") => {
                Tells::Nothing
            }
            tells => tells,
        }
    }

    /// Whether the requested object may be elsewhere, if `answer` is a `null` or an empty list.
    /// `height` is the height of `node` before the call.
    pub(super) fn broken_promise(&self, answer: &Answer, node: NodeId, height: u64) -> Option<Promise> {
        if !is_nothing(answer) {
            return None;
        }
        let promise = || promised(self.method.label, self.request, &self.calls.pool);
        match answer.is_null.then(promise).filter(|promise| *promise != Promise::None) {
            None if answer.is_null && self.blocks.is_some_and(|blocks| blocks.is_by_hash()) => {
                self.null.is_none().then_some(Promise::Once)
            }
            None if self.is_elsewhere(node, height) => Some(Promise::Elsewhere),
            promise => promise,
        }
    }
}

/// Whether an answer says that there is nothing.
pub(super) fn is_nothing(answer: &Answer) -> bool {
    answer.is_null || answer.is_empty_list()
}

/// Whether clients know of the object that `request` asks for; `label` is its method.
fn promised(label: &str, request: &Request<'_>, pool: &Pool) -> Promise {
    let is_place = |index: usize| request.param(index).is_some();
    match label {
        "eth_getBlockByNumber"
        | "eth_getHeaderByNumber"
        | "eth_getBlockTransactionCountByNumber"
        | "eth_getBlockByHash"
        | "eth_getHeaderByHash"
        | "eth_getBlockTransactionCountByHash"
        | "eth_getBlockReceipts" => block(request, pool),
        // The block may well have no transaction of that index.
        "eth_getTransactionByBlockNumberAndIndex" | "eth_getTransactionByBlockHashAndIndex" if is_place(1) => {
            if block(request, pool) == Promise::None { Promise::None } else { Promise::Elsewhere }
        }
        "eth_getTransactionByHash" | "eth_getTransactionReceipt" => announced(request, pool),
        _ => Promise::None,
    }
}

fn block(request: &Request<'_>, pool: &Pool) -> Promise {
    let Some(which) = request.text_param(0) else { return Promise::None };
    match &*which {
        "latest" => Promise::Soon,
        "earliest" | "safe" | "finalized" => Promise::Elsewhere,
        text if text.len() == 66 => announced(request, pool),
        text => match (hex::quantity(text), pool.served()) {
            (Some(height), served) if height > served => Promise::None,
            (Some(height), served) if served - height < RECENT => Promise::Soon,
            (Some(_), _) => Promise::Elsewhere,
            (None, _) => Promise::None,
        },
    }
}

fn announced(request: &Request<'_>, pool: &Pool) -> Promise {
    let hash = request.text_param(0).and_then(|hash| hex::fixed::<32>(&hash));
    if hash.is_some_and(|hash| pool.is_announced(&hash)) { Promise::Soon } else { Promise::None }
}

/// A `null` that is not believed yet.
pub(super) struct Null {
    answer: Answer,
    /// Until this time nodes are asked again.
    until: Instant,
    pause: Duration,
}

impl Null {
    pub(super) fn new(answer: Answer, promise: Promise, now: Instant) -> Self {
        let until = if promise == Promise::Soon { now + ANNOUNCED_TIMEOUT } else { now };
        Self { answer, until, pause: FIRST_PAUSE }
    }

    /// The next pause, after all nodes were asked; `None` when the `null` is to be believed.
    pub(super) fn pause(&mut self, now: Instant) -> Option<Duration> {
        let left = self.until.checked_duration_since(now).filter(|left| !left.is_zero())?;
        let pause = self.pause.min(left);
        self.pause *= 2;
        Some(pause)
    }

    pub(super) fn into_answer(self) -> Answer {
        self.answer
    }
}
