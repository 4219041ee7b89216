//! Raw transactions to several nodes at once.
//!
//! Each send runs in a task of the network's own, so a send goes on when the client has its answer
//! or has left. A send ends with the deadline of its call, or when its node goes out, and so many
//! may be under way ([`MOST_SENDS`]). All sends of one transaction share one copy of its bytes,
//! which counts against the memory that clients may make the proxy hold.

use std::{
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Release},
        },
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use super::{
    Calls, Terms,
    attempt::{Attempt, Sent},
    leaving::Leaving,
    raw_remembered::Sends,
    send_outcome::SendOutcome,
};
use crate::{
    config::{SendTo, Verify},
    domain::{hex, method::Method, node_id::NodeId, rpc::Request},
    memory::{Account, Claim, Full},
    metrics::{Metrics, SendReason},
    net::{http::Gate, node_connections::Caller},
    pool::{
        Pool,
        node::Node,
        resting::{Kind, RestState},
    },
};

/// Sends of raw transactions under way at once, at most. Beyond, a transaction goes to one node,
/// and to the others once that node has the transaction.
const MOST_SENDS: usize = 4096;

/// Sends of the outbox under way to one node, at most: a node that hangs is then left out.
const MOST_AT_NODE: usize = 1024;

/// The method by which nodes are sent raw transactions.
pub(super) const METHOD: &str = "eth_sendRawTransaction";

/// A raw transaction in the form that nodes are sent: one copy for all sends.
#[derive(Debug)]
pub struct Submission {
    body: Bytes,
    /// Where the call's id stands in `body`.
    id: Range<usize>,
    /// Header lines to send along.
    headers: Box<[u8]>,
    /// The client, for its share of the connections to nodes.
    caller: Option<Arc<Caller>>,
    account: Arc<Account>,
    _claim: Claim,
}

impl Submission {
    /// A call of the proxy's own that sends `raw`, a signed transaction. `headers` are lines to
    /// send along, each with its line end, such as `x-request-id` and `traceparent`.
    pub fn new(raw: &[u8], headers: &[u8]) -> Arc<Self> {
        const HEAD: &str = r#"{"jsonrpc":"2.0","id":"#;
        let body = format!(r#"{HEAD}0,"method":"{METHOD}","params":["{}"]}}"#, hex::encode(raw));
        let account = Account::unlimited();
        let claim = account.standing();
        let id = HEAD.len()..HEAD.len() + 1;
        Arc::new(Self { body: body.into(), id, headers: headers.into(), caller: None, account, _claim: claim })
    }

    /// The client's own call. `None` for a call without an id, to which nodes give no answer.
    ///
    /// # Errors
    /// When the clients' memory has no room for the copy.
    pub(super) fn of_call(request: &Request<'_>, terms: &Terms<'_>) -> Result<Option<Arc<Self>>, Full> {
        let Some(id) = request.id.and_then(|id| super::attempt::place(request.raw, id)) else { return Ok(None) };
        // The client may be gone before the copy is.
        let account = terms.memory.beside();
        let mut claim = account.standing();
        claim.resize(request.raw.len() + terms.headers.len())?;
        Ok(Some(Arc::new(Self {
            body: Bytes::copy_from_slice(request.raw),
            id,
            headers: terms.headers.into(),
            caller: terms.caller.cloned(),
            account,
            _claim: claim,
        })))
    }

    /// Sends the transaction to `node` once, until `limit`.
    pub(super) async fn send(&self, node: &Node, limit: Instant, gate: &mut impl Gate) -> Sent {
        let attempt = Attempt {
            node,
            method: Method::of(METHOD).id,
            cost: node.cost(METHOD),
            body: &self.body,
            headers: &self.headers,
            is_repeatable: true,
            id: Some(&self.body[self.id.clone()]),
            verify: Verify::All,
            leaving: Leaving::default(),
            memory: Some(&self.account),
            caller: self.caller.as_ref(),
            in_line: false,
            trace: None,
            second_attempt_from: limit,
            limit,
        };
        attempt.behind(gate).await
    }
}

/// The words of the nodes that were sent a transaction, in the order in which words come. Sends go
/// on when this is dropped.
pub struct NodeOutcomes {
    pool: Arc<Pool>,
    heard: mpsc::Receiver<(NodeId, Sent)>,
}

impl NodeOutcomes {
    /// The next node's word; `None` when all have spoken. Cancel-safe.
    pub async fn next(&mut self) -> Option<(NodeId, SendOutcome)> {
        let (node, mut sent) = self.heard.recv().await?;
        let word = SendOutcome::of(&mut sent);
        note_late(&self.pool, node, sent);
        Some((node, word))
    }

    /// The next outcome of a send, for a call that judges outcomes. Cancel-safe.
    pub(super) async fn outcome(&mut self) -> Option<(NodeId, Sent)> {
        self.heard.recv().await
    }

    /// Notes the outcomes that have come and were not read; the later ones note themselves.
    pub(super) fn leave(mut self) {
        self.heard.close();
        while let Ok((node, sent)) = self.heard.try_recv() {
            note_late(&self.pool, node, sent);
        }
    }
}

/// The kind of calls that send raw transactions.
pub(super) fn kind() -> Kind {
    Kind::of_method(Method::of(METHOD).id, METHOD)
}

/// Has the pool know the outcome of a send that no call judges.
fn note_late(pool: &Pool, node: NodeId, sent: Sent) {
    match sent {
        Sent::Answered(_) | Sent::OfTheCaller(_) | Sent::OfNobody(_) | Sent::NoRoom(_) | Sent::TooLong => {
            pool.call_answered(node, kind());
        }
        Sent::Refused(_, wait) => pool.call_refused(node, kind(), wait),
        Sent::Nothing(Some(trouble)) => pool.call_failed(node, kind(), trouble, None),
        Sent::Lost(Some(_)) => pool.probe_now(node),
        Sent::Lost(None)
        | Sent::Nothing(None)
        | Sent::OfTheNode(..)
        | Sent::Lacking(..)
        | Sent::Rejected(_)
        | Sent::Unwanted => {}
    }
}

/// The sender of a transaction.
pub(super) enum Sender<'a> {
    /// A client's call, with the states of the nodes that were sent its transaction.
    Call(&'a mut Option<Arc<Sends>>),
    /// The outbox, which remembers its transactions itself.
    Outbox,
}

/// The signals between a call and its sends.
#[derive(Debug)]
pub(super) struct Signals {
    is_shut: AtomicBool,
    /// Whether a node was sent all of the call.
    was_written: AtomicBool,
    /// The sends that are not written yet, and have not ended.
    unwritten: AtomicUsize,
    /// Notified when there are none.
    written: Notify,
}

impl Signals {
    fn new(sends: usize) -> Arc<Self> {
        let (is_shut, was_written) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { is_shut, was_written, unwritten: AtomicUsize::new(sends), written: Notify::new() })
    }

    /// Sends that are not written yet are not to be written any more.
    pub(super) fn shut(&self) {
        self.is_shut.store(true, Release);
    }

    /// Whether a node was sent all of the call.
    pub(super) fn was_written(&self) -> bool {
        self.was_written.load(Acquire)
    }

    /// Completes once, when all sends are written or have ended. Cancel-safe.
    pub(super) async fn written(&self) {
        self.written.notified().await;
    }
}

/// The gate of one send: opened by its call, which may have to wait for its turn.
struct SendGate {
    /// `None` if the call waits for no turn.
    open: Option<oneshot::Receiver<()>>,
    is_written: bool,
    signals: Arc<Signals>,
}

impl SendGate {
    fn passed(&mut self) {
        if !std::mem::replace(&mut self.is_written, true) && self.signals.unwritten.fetch_sub(1, AcqRel) == 1 {
            self.signals.written.notify_one();
        }
    }
}

impl Drop for SendGate {
    fn drop(&mut self) {
        self.passed();
    }
}

impl Gate for SendGate {
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(open) = &mut self.open {
            // A call that is gone has shut the gate, or has its answer.
            let _ = ready!(Pin::new(open).poll(context));
            self.open = None;
        }
        Poll::Ready(())
    }

    fn is_shut(&self) -> bool {
        self.signals.is_shut.load(Acquire)
    }

    fn written(&mut self) {
        self.signals.was_written.store(true, Release);
        self.passed();
    }
}

/// A send of the outbox, in the count of its node while under way.
struct CountedSend(Arc<[AtomicUsize]>, usize);

impl CountedSend {
    fn new(counts: &Arc<[AtomicUsize]>, node: NodeId) -> Self {
        counts[node.0].fetch_add(1, AcqRel);
        Self(counts.clone(), node.0)
    }
}

impl Drop for CountedSend {
    fn drop(&mut self) {
        self.0[self.1].fetch_sub(1, AcqRel);
    }
}

/// The sends of one call that are under way.
pub(super) struct UnderWay {
    pub(super) words: NodeOutcomes,
    pub(super) signals: Arc<Signals>,
    /// Open the sends' gates; empty if the gates are open.
    gates: Vec<oneshot::Sender<()>>,
}

impl UnderWay {
    /// Lets the sends be written.
    pub(super) fn open(&mut self) {
        for gate in self.gates.drain(..) {
            // A send may have ended before.
            let _ = gate.send(());
        }
    }
}

impl Calls {
    /// Sends a transaction to these nodes at once, each once, and tells the word of each. A send
    /// ends at `limit`, or when its node goes out. `None` if too many sends are under way.
    pub fn send_raw(&self, nodes: &[NodeId], submission: &Arc<Submission>, limit: Instant) -> Option<NodeOutcomes> {
        let sends = self.start_sends(nodes, submission, limit, false, Sender::Outbox)?;
        Some(sends.words)
    }

    /// The nodes that a transaction of the outbox goes to now, the active node first. Nodes that
    /// rest are left alone, and so are nodes that hang, where others do not. A node whose rest is
    /// over gets the transaction as a scout; one that keeps failing them, where no other is left.
    pub fn send_targets(&self, to: SendTo) -> Vec<NodeId> {
        let now = Instant::now();
        let state = |node: &NodeId| self.pool.nodes[*node].resting.state(kind(), false, now);
        let allowed = self.allowed_nodes(to);
        let has_credits = |node: &NodeId| self.pool.nodes[*node].credits_wait(METHOD, now).is_none();
        let is_free = |node: &NodeId| matches!(state(node), RestState::Free | RestState::Due) && has_credits(node);
        let mut free: Vec<NodeId> = allowed.iter().copied().filter(is_free).collect();
        if free.is_empty() {
            free = allowed.into_iter().filter(|node| state(node) == RestState::Last && has_credits(node)).collect();
        }
        let hangs = |node: &NodeId| self.outbox_sends[node.0].load(Acquire) >= MOST_AT_NODE;
        if free.iter().all(hangs) { free } else { free.into_iter().filter(|node| !hangs(node)).collect() }
    }

    /// The nodes that a transaction may go to, also those that rest, the active node first: usable
    /// ones, or, while there is none, the active node, to which calls go all the same.
    pub fn allowed_nodes(&self, to: SendTo) -> Vec<NodeId> {
        let pool = &self.pool;
        let is_any_usable = NodeId::all(pool.nodes.len()).any(|node| pool.is_usable(node));
        let is_allowed = |node: &NodeId| is_for_raw(pool, *node) && (!is_any_usable || is_target(pool, *node, to));
        self.usable_nodes().into_iter().filter(is_allowed).collect()
    }

    /// The usable nodes, or the active node while there is none, the active node first.
    pub fn usable_nodes(&self) -> Vec<NodeId> {
        let pool = &self.pool;
        let active = pool.snapshot().active;
        let is_in = |node: &NodeId| !pool.nodes[*node].is_out();
        let usable = NodeId::all(pool.nodes.len()).filter(|node| pool.is_usable(*node));
        let mut nodes: Vec<NodeId> = usable.collect();
        if nodes.is_empty() {
            return active.into_iter().filter(is_in).collect();
        }
        nodes.retain(is_in);
        nodes.sort_by_key(|node| Some(*node) != active);
        nodes
    }

    /// Begins to send a transaction to these nodes at once, each once. A send ends at `limit`, or
    /// when its node goes out. With `waits` the gates stay shut until the call opens them. The
    /// states of a call have the word of each node. `None`, and nothing noted, if too many sends
    /// are under way.
    pub(super) fn start_sends(
        &self,
        nodes: &[NodeId],
        submission: &Arc<Submission>,
        limit: Instant,
        waits: bool,
        sender: Sender<'_>,
    ) -> Option<UnderWay> {
        let signals = Signals::new(nodes.len());
        let (words, heard) = mpsc::channel(nodes.len().max(1));
        let mut gates = Vec::new();
        let mut tasks = self.background.tasks();
        if tasks.len() + nodes.len() > MOST_SENDS {
            return None;
        }
        let (reason, sends) = match sender {
            Sender::Call(sends) => {
                let begun = self.remembered.begin(sends.take(), nodes);
                (SendReason::Call, Some(&*sends.insert(begun)))
            }
            Sender::Outbox => (SendReason::Outbox, None),
        };
        let is_of_outbox = sends.is_none();
        for &node in nodes {
            let open = waits.then(|| {
                let (gate, open) = oneshot::channel();
                gates.push(gate);
                open
            });
            let mut gate = SendGate { open, is_written: false, signals: signals.clone() };
            let (pool, submission, words) = (self.pool.clone(), submission.clone(), words.clone());
            let (sends, counts) = (sends.cloned(), self.counts.clone());
            let counted = is_of_outbox.then(|| CountedSend::new(&self.outbox_sends, node));
            let is_due =
                is_of_outbox && pool.nodes[node].resting.state(kind(), false, Instant::now()) == RestState::Due;
            let scout = if is_due { pool.owned_scout(node, kind()) } else { None };
            let is_another_out = is_due && scout.is_none();
            tasks.spawn(async move {
                let _counted = counted;
                let mut sent = match is_another_out {
                    true => Sent::Nothing(None),
                    false => submission.send(&pool.nodes[node], limit, &mut gate).await,
                };
                drop((gate, scout));
                let word = SendOutcome::of(&mut sent);
                count(&counts, &pool, reason, &word);
                sends.iter().for_each(|sends| sends.heard(node, &word));
                if let Err(mpsc::error::SendError((node, sent))) = words.send((node, sent)).await {
                    note_late(&pool, node, sent);
                }
            });
        }
        Some(UnderWay { words: NodeOutcomes { pool: self.pool.clone(), heard }, signals, gates })
    }
}

/// Counts a node's word on a send.
pub(super) fn count(counts: &Metrics, pool: &Pool, reason: SendReason, word: &SendOutcome) {
    counts.raw_transaction_sent(&pool.network, reason, word.name());
}

/// Whether a transaction goes to `node` now, by the setting.
pub(super) fn is_target(pool: &Pool, node: NodeId, to: SendTo) -> bool {
    let snapshot = pool.snapshot();
    let others = || NodeId::all(pool.nodes.len()).find(|other| pool.is_usable(*other) && is_for_raw(pool, *other));
    // In the place of an active node whose settings rule transactions out.
    let active = snapshot.active.filter(|active| is_for_raw(pool, *active)).or_else(others);
    let serves = match to {
        SendTo::All => true,
        SendTo::Tier => active.is_some_and(|active| snapshot.nodes[active].tier == snapshot.nodes[node].tier),
        SendTo::First => active == Some(node),
    };
    serves && pool.is_usable(node) && !pool.nodes[node].is_out() && is_for_raw(pool, node)
}

/// Whether the settings let transactions go to `node`.
fn is_for_raw(pool: &Pool, node: NodeId) -> bool {
    !pool.nodes[node].method_rules.rules_out(kind().id(), METHOD)
}
