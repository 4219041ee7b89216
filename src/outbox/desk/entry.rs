//! A transaction as the desk holds it: its record, and what goes on around it.

use std::{collections::BTreeSet, sync::Arc};

use alloy_primitives::B256;
use bytes::Bytes;

use super::{
    effect::To,
    input::{NodeWords, Waiter},
};
use crate::outbox::record::{MAX_REFUSALS, Millis, Record, Refusal, State, TenantName, TxId, reason};

/// A transaction of a tenant's, on the desk's network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) hash: B256,
    pub(super) tenant: TenantName,
}

impl Key {
    /// Before the keys of all transactions: none has this hash.
    pub(super) fn first() -> Self {
        Self { hash: B256::ZERO, tenant: TenantName::default() }
    }
}

impl From<&TxId> for Key {
    fn from(id: &TxId) -> Self {
        Self { hash: id.hash, tenant: id.tenant.clone() }
    }
}

/// A record on the desk.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Record,
    /// The bytes, until the end of the turn that brought them.
    pub(super) raw: Option<Bytes>,
    /// Clients that wait for a node's word, and until when.
    pub(super) waiters: Vec<(Waiter, Millis)>,
    /// The newest transition after which its life was over and the store knew.
    pub(super) settled: Option<u64>,
    pub(super) flight: Flight,
}

/// How the nodes stand to a transaction, as far as is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Flight {
    /// It was accepted since the desk was made, and no client has its hash from this life yet:
    /// nothing is promised.
    pub(super) is_new: bool,
    /// The nodes that it is to be sent to.
    pub(super) want: Option<To>,
    /// The transaction stands among those of this lane that became ready to be sent.
    pub(super) queued: Option<Lane>,
    /// The sending that is under way.
    pub(super) under_way: Option<Box<UnderWay>>,
    /// Some node has it, and was not found to have forgotten it since.
    pub(super) is_taken: bool,
    /// Each node that gave a word in the newest sending to all refused it, and each gave one.
    pub(super) is_refused: bool,
    /// The words of the first node that refused it for good, or for want of funds, in the newest
    /// sending.
    pub(super) words: Option<NodeWords>,
    /// A node said that the sender has used the nonce.
    pub(super) is_nonce_used: bool,
    /// Enough nodes said so in the newest sending to all.
    pub(super) is_use_agreed: bool,
    pub(super) look: Look,
    /// The height at which the nodes are asked for it next.
    pub(super) round: u64,
    /// The nodes that lack the transaction, or may: each gave no word, refused for now, or was
    /// found not to know the transaction.
    pub(super) owing: BTreeSet<Arc<str>>,
    /// When the nodes that lack the transaction are sent the transaction again.
    pub(super) retry: Option<Millis>,
    /// Sendings in a row after which nodes lacked the transaction.
    pub(super) in_vain: u32,
    /// When the newest sending ended.
    pub(super) ended: Millis,
    /// Its deadline has passed, and the nodes are asked whether a block has it.
    pub(super) overdue: Option<Overdue>,
    /// The desk saw its block become canonical, and saw every change of the chain since.
    pub(super) is_watched: bool,
}

/// The way of a transaction whose deadline has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overdue {
    /// The nodes are asked again.
    pub(super) next: Millis,
    /// The transaction ends without the nodes' word.
    pub(super) end: Millis,
}

/// A sending that is under way.
#[derive(Clone, Debug)]
pub(super) struct UnderWay {
    /// The lane in which it has a place.
    pub(super) lane: Lane,
    pub(super) to: To,
    pub(super) number: u64,
    pub(super) begun: Millis,
    pub(super) taken: bool,
    /// Nodes that refused it for good.
    pub(super) refused: u32,
    /// The first of these, and of those that refused it for want of funds.
    pub(super) node: Option<Arc<str>>,
    /// Nodes that gave another word.
    pub(super) others: u32,
    /// Of these, the nodes that refused it for want of funds.
    pub(super) unfunded: u32,
    /// Of these, the nodes that said that the nonce is used.
    pub(super) used: u32,
    /// Nodes that gave none.
    pub(super) lost: u32,
    /// The nodes that gave none, and those that refused for now.
    pub(super) owing: BTreeSet<Arc<str>>,
    /// The nodes that gave a word: a refusal, or `None` of one that has the transaction.
    pub(super) words: Vec<(Arc<str>, Option<NodeWords>)>,
}

impl UnderWay {
    pub(super) fn new(lane: Lane, to: To, number: u64, begun: Millis) -> Self {
        Self {
            lane,
            to,
            number,
            begun,
            taken: false,
            refused: 0,
            node: None,
            others: 0,
            unfunded: 0,
            used: 0,
            lost: 0,
            owing: BTreeSet::new(),
            words: Vec::new(),
        }
    }

    /// Whether a node gave a word.
    pub(super) fn is_heard(&self) -> bool {
        self.taken || self.refused > 0 || self.others > 0
    }

    /// Whether this sending goes to the node, and the node has not said that it has the
    /// transaction.
    fn is_lacking(&self, node: &str) -> bool {
        self.to.has(node) && !self.words.iter().any(|(by, refusal)| **by == *node && refusal.is_none())
    }
}

/// The order of sendings. Those of a lane go in the order of their sender's nonces, and have places
/// of their own: a node that hangs holds up no transaction that other nodes would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Transactions that no node has, as far as is known. They go first.
    First,
    /// Those that some node has, or whose nonce is used.
    Again,
}

impl Lane {
    pub(super) const ALL: [Self; 2] = [Self::First, Self::Again];
}

/// Whether the nodes are asked for a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Look {
    #[default]
    No,
    Wanted,
    /// The nodes are to be asked before others are asked for.
    WantedSoon,
    UnderWay,
    /// The nodes are asked now, and their answer may be older than a change of the chain.
    Outdated,
}

impl Entry {
    /// The entry of a record that the store has.
    pub(super) fn stored(mut record: Record) -> Self {
        record.history.shrink_to_fit();
        record.refusals.shrink_to_fit();
        Self { record, raw: None, waiters: Vec::new(), settled: None, flight: Flight::default() }
    }

    /// Whether it can leave the desk: its life is over, the store knows, and no sending is under
    /// way, since those are counted.
    pub(super) fn is_settled(&self) -> bool {
        let is_known = self.settled == Some(self.record.seq) && self.record.state.is_over();
        is_known && self.flight.under_way.is_none()
    }

    /// Whether the nodes' answer can change anything: a block may have one that was given up.
    pub(super) fn may_be_asked(&self) -> bool {
        !self.record.state.is_over() || self.record.state.is_given_up()
    }

    pub(super) fn key(&self) -> Key {
        Key::from(&self.record.id)
    }

    /// Whether it can be sent, as far as it alone is concerned.
    pub(super) fn is_ready(&self) -> bool {
        let Flight { want, under_way, overdue, .. } = &self.flight;
        self.record.state.is_pending() && want.is_some() && under_way.is_none() && overdue.is_none()
    }

    /// The lane of the sending that is under way or ahead.
    pub(super) fn lane(&self) -> Lane {
        if self.is_through() { Lane::Again } else { Lane::First }
    }

    /// Whether a sending is ahead or has no good word yet.
    pub(super) fn is_on_its_way(&self) -> bool {
        let is_unheard = self.flight.under_way.as_ref().is_some_and(|under_way| !under_way.taken);
        self.record.state.is_pending() && (self.flight.want.is_some() || is_unheard)
    }

    /// Whether later nonces need not wait for others of its nonce: a node took it, or a block has
    /// used the nonce.
    pub(super) fn is_through(&self) -> bool {
        match self.record.state {
            State::Refused { .. } | State::Expired | State::Cancelled => false,
            _ => !self.record.state.is_pending() || self.flight.is_taken || self.flight.is_nonce_used,
        }
    }

    /// Wants it sent to these nodes, besides those that it is to be sent to already.
    pub(super) fn want(&mut self, to: To) {
        self.flight.want = Some(match (self.flight.want.take(), to) {
            (None, to) => to,
            (Some(To::Nodes(mut nodes)), To::Nodes(more)) => {
                nodes.extend(more);
                To::Nodes(nodes)
            }
            _ => To::All,
        });
    }

    /// Wants a sending to the nodes that lack the transaction: to all while none has it.
    pub(super) fn want_owed(&mut self) {
        let nodes = &self.flight.owing;
        let to = if self.flight.is_taken && !nodes.is_empty() { To::Nodes(nodes.clone()) } else { To::All };
        self.want(to);
    }

    /// Whether one of these nodes, which lack the transaction, was believed to have it.
    pub(super) fn was_forgotten_by(&self, nodes: &[Arc<str>]) -> bool {
        let Flight { is_taken, owing, under_way, .. } = &self.flight;
        let refused = |node: &str| self.record.refusals.iter().any(|refusal| refusal.node == node);
        let is_lacking = |node: &str| under_way.as_ref().is_some_and(|under_way| under_way.is_lacking(node));
        *is_taken && nodes.iter().any(|node| !owing.contains(node) && !refused(node) && !is_lacking(node))
    }

    /// Notes the words of a sending. A node that gave none keeps its earlier refusal. Whether that
    /// changed the record.
    pub(super) fn note_words(&mut self, words: Vec<(Arc<str>, Option<NodeWords>)>) -> bool {
        let is_named = |refusal: &Refusal| words.iter().any(|(node, _)| **node == *refusal.node);
        let earlier = self.record.refusals.iter().filter(|refusal| !is_named(refusal)).cloned();
        let refusal = |(node, words): &(Arc<str>, Option<NodeWords>)| {
            let NodeWords { code, message } = words.as_ref()?;
            Some(Refusal { node: node.to_string(), code: *code, message: reason(message) })
        };
        let mut refusals: Vec<Refusal> = words.iter().filter_map(refusal).chain(earlier).take(MAX_REFUSALS).collect();
        refusals.shrink_to_fit();
        refusals.sort_by(|one, other| one.node.cmp(&other.node));
        let is_changed = refusals != self.record.refusals;
        self.record.refusals = refusals;
        is_changed
    }

    /// The hash that tells whether its block is still canonical.
    pub(super) fn asked(&self) -> B256 {
        match &self.record.state {
            State::Replaced { by, .. } => *by,
            _ => self.record.id.hash,
        }
    }
}
