//! The memory and the receipts of the answer to one message, until the whole answer is in the
//! mailbox. The calls of a batch have them in common.

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize};

use tokio::sync::{Notify, SemaphorePermit};

use super::Client;
use crate::{
    call::answer::receipt::Receipt,
    domain::{method::Method, rpc::Request},
    door::access_log::Line,
    exchange::trace::Trace,
    memory::{Account, Claim, Full},
    metrics::CallOutcome,
};

/// A message's part of the memory for long answers, from its first long answer until its whole
/// answer is in the mailbox.
pub(super) struct ReplyBudget<'c> {
    room: Mutex<Option<SemaphorePermit<'c>>>,
    /// The bytes to which the answer to a poll of a filter keeps, as far as the answer can be cut.
    pub(super) part: usize,
    /// The place of the poll whose answer waits for no other answer.
    pub(super) first: Option<usize>,
    /// The memory of the calls and their answers, until the whole answer is in the mailbox.
    claim: Mutex<Claim>,
    /// The receipts to notify when the answer has been written, by the call's place.
    receipts: Mutex<Vec<(usize, Receipt)>>,
    /// How many calls of a batch have their place in its answer, and a bell for each further one.
    pub(super) placed: AtomicUsize,
    pub(super) next: Notify,
    /// The notes for the message's line in the access log, if the message has a line.
    pub(super) trace: Option<Arc<Trace>>,
}

impl<'c> ReplyBudget<'c> {
    pub(super) fn new(memory: &Arc<Account>, line: Option<&Line>) -> Self {
        let claim = Mutex::new(memory.outgoing());
        Self {
            room: Mutex::default(),
            part: usize::MAX,
            first: None,
            claim,
            receipts: Mutex::default(),
            placed: AtomicUsize::new(0),
            next: Notify::new(),
            trace: line.map(|line| line.trace.clone()),
        }
    }

    /// Notes a request that is no call to a node.
    pub(super) fn note(&self, request: &Request<'_>, outcome: CallOutcome) {
        if let Some(trace) = &self.trace {
            trace.ended(Method::of(&request.method).label, outcome);
        }
    }

    /// The receipts to notify when the whole answer has been written.
    pub(super) fn take_receipts(&self) -> Vec<Receipt> {
        self.receipts().drain(..).map(|(_, receipt)| receipt).collect()
    }

    pub(super) fn receipts(&self) -> std::sync::MutexGuard<'_, Vec<(usize, Receipt)>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes `more` bytes of the memory.
    pub(super) fn hold(&self, more: usize) -> Result<(), Full> {
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = claim.bytes() + more;
        claim.resize(bytes)
    }

    /// Gives `bytes` bytes of the memory back.
    pub(super) fn give_back(&self, bytes: usize) {
        let mut claim = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        let left = claim.bytes().saturating_sub(bytes);
        claim.set(left);
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    pub(super) fn room(&self) -> std::sync::MutexGuard<'_, Option<SemaphorePermit<'c>>> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call's part of the budget, by the call's place in a batch.
#[derive(Clone, Copy)]
pub(super) struct ReplyPart<'s, 'c> {
    pub(super) client: &'c Client,
    pub(super) budget: &'s ReplyBudget<'c>,
    pub(super) place: usize,
    pub(super) is_batch: bool,
}
