//! What a desk is told.

use std::{collections::BTreeSet, sync::Arc};

use alloy_primitives::{Address, B256};
use bytes::Bytes;

use crate::{
    domain::signed_transaction::SignedTransaction,
    outbox::record::{BlockId, EventId, Record, TenantName, TxId},
};

/// A client, or an operator, that waits for an answer. Whoever hands the input in chooses the
/// number; each waiter gets one answer.
pub type Waiter = u64;

/// Something that happened. A time comes with each.
#[derive(Clone, Debug)]
pub enum Input {
    /// A client sends a transaction.
    Accept(Box<Accept>),
    /// A node's word about a transaction that was sent to it.
    Heard {
        /// The transaction.
        id: TxId,
        /// The sending's number.
        send: u64,
        /// The node.
        node: Arc<str>,
        /// What it said.
        word: Word,
    },
    /// A sending is over: each node that was asked has given its word, [`Word::Lost`] if no other.
    SendDone {
        /// The transaction.
        id: TxId,
        /// The sending's number.
        send: u64,
        /// Whether each node that `outbox.send_to` allows gave a word.
        is_whole: bool,
    },
    /// The nodes were asked for a transaction, as [`Effect::Look`](super::Effect::Look) wished.
    Looked {
        /// The transaction.
        id: TxId,
        /// The question's number.
        look: u64,
        /// What they know of it.
        found: Found,
        /// How many nonces the sender has used at a final block, where that was asked for and told.
        final_nonces: Option<u64>,
    },
    /// The canonical chain changed, or more of it became final.
    Blocks(Box<Blocks>),
    /// A node can be used again. Its pool may have forgotten all.
    NodeReturned {
        /// The node.
        node: Arc<str>,
    },
    /// Time went on, at least to [`Desk::next_due`](super::Desk::next_due).
    Due,
    /// The nodes are to be asked for these transactions that were given up: a block may have come
    /// untold that has one.
    Recall(Vec<Record>),
    /// The proxy goes down: no sending and no question begins from now on.
    Drain,
    /// An operator's command.
    Command {
        /// Who waits for the answer.
        waiter: Waiter,
        /// The transaction.
        id: TxId,
        /// What the store has of it; looked at where the desk does not hold it.
        known: Option<Box<Record>>,
        /// What is to be done.
        command: Command,
    },
    /// These records were kept long enough, or their room is needed: they go. Only of transactions
    /// whose life is over, with the length of the raw bytes.
    Forget(Vec<(TxId, usize)>),
    /// A transaction that replicas share, and that this one is to see through from now on.
    TakeUp(Box<Adopted>),
}

/// A transaction that was accepted by this replica or by another one.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The waiter for a node's word, and the most milliseconds of the wait.
    pub waiter: (Waiter, u64),
    /// The record.
    pub record: Record,
    /// The bytes.
    pub raw: Bytes,
    /// The events that endpoints were told of.
    pub told: BTreeSet<EventId>,
    /// The store's record of this transaction; read where the desk does not hold it.
    pub known: Option<Box<Record>>,
}

/// A transaction that a client sends.
#[derive(Clone, Debug)]
pub struct Accept {
    /// Who waits for the answer.
    pub waiter: Waiter,
    /// Whose transaction.
    pub tenant: TenantName,
    /// The bytes.
    pub raw: Bytes,
    /// What the bytes say.
    pub tx: SignedTransaction,
    /// `x-request-id` of the request.
    pub request_id: Option<String>,
    /// `traceparent` of the request.
    pub traceparent: Option<String>,
    /// What the store has of this transaction of this tenant; looked at where the desk does not
    /// hold it.
    pub known: Option<Box<Record>>,
    /// The store has other bytes of this transaction, or lacks them. The hash of a blob transaction
    /// does not cover the proofs of its blobs, so the same hash can come with better proofs.
    pub is_other_form: bool,
}

/// An operator's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send it now.
    Resend,
    /// Send it no more. Nodes that know it may still have it mined.
    Cancel,
    /// Drop the record of a life that is over.
    Drop,
}

/// An error in a node's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWords {
    /// The error code.
    pub code: i64,
    /// The message.
    pub message: String,
}

/// What a node says of a transaction that it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The node has it: it took it, or had it already.
    Taken,
    /// No node can ever take it, for its very bytes.
    RefusedForGood(NodeWords),
    /// The node does not take it now: its sender lacks the funds.
    Unfunded(NodeWords),
    /// The node does not take it now.
    RefusedNow(NodeWords),
    /// The sender has used the nonce already: for this transaction or for another.
    NonceUsed(NodeWords),
    /// No word came. The node may have it.
    Lost,
}

/// What the nodes know of a transaction. A block's word comes before a pool's. A
/// single node's word counts only where no other node is usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A block has it.
    InBlock {
        /// The first node that said so.
        node: Arc<str>,
        /// The block.
        block: BlockId,
    },
    /// It waits for a block.
    Waiting {
        /// The first node that said so.
        node: Arc<str>,
        /// The nodes that are to have the transaction, and do not know it.
        missing: Vec<Arc<str>>,
    },
    /// Enough nodes do not know the transaction.
    Unknown,
    /// A node says that a block has the transaction, and too few others confirm or deny that.
    Disputed,
    /// These nodes do not know the transaction, none has it, and too few others answered.
    Missing {
        /// Those of them that are to have it.
        at: Vec<Arc<str>>,
    },
    /// Too few nodes answered.
    Unsure,
}

/// How the canonical chain changed: first `removed` went, then `added` came.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// Blocks that are no longer canonical, newest first.
    pub removed: Vec<BlockId>,
    /// Blocks that are now canonical, oldest first.
    pub added: Vec<NewBlock>,
    /// Blocks before `added` were not told, or blocks went untold.
    pub skipped: bool,
    /// Of some blocks of `added` the transactions are not known.
    pub is_unread: bool,
    /// Transactions that single nodes show in such a block. They may be wrong.
    pub claimed: Vec<B256>,
    /// The newest final block, where it is known.
    pub finalized: Option<Final>,
    /// What the store has of transactions of `added` that the desk does not hold.
    pub recalled: Vec<Record>,
}

/// The newest final block, as far as the nodes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Final {
    /// This block, by the words of enough nodes. The block counts once the followed chain has it.
    Told(BlockId),
    /// No node tells a final block, and the block of this height is as deep as none that ever went.
    /// This counts until nodes tell a final block.
    Deep(u64),
}

/// A block that is now canonical.
#[derive(Clone, Debug)]
pub struct NewBlock {
    /// The block.
    pub id: BlockId,
    /// Its transactions. May be left empty while [`Desk::is_idle`](super::Desk::is_idle), or where
    /// [`Blocks::is_unread`].
    pub transactions: Vec<InBlock>,
}

/// A transaction of a block, whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InBlock {
    /// Its hash.
    pub hash: B256,
    /// Who signed it.
    pub sender: Address,
    /// The sender's counter.
    pub nonce: u64,
}
