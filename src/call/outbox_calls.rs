//! Calls about signed transactions where the network has an outbox: transactions are kept before
//! they are sent, and their states are told. Without an outbox these calls take the usual way.

use std::{borrow::Cow, sync::Arc};

use alloy_primitives::{Address, B256};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{Calls, Terms, alarm::Alarm, answer::Answer, whole::Take};
use crate::{
    domain::{
        hex,
        method::{Class, Method},
        refusal::Refusal,
        rpc::Request,
    },
    exchange::pick::Pick,
    memory::Account,
    net::BoxFuture,
};

/// The method by which clients ask for a transaction.
const BY_HASH: &str = "eth_getTransactionByHash";
/// The method by which clients ask for a sender's next nonce.
const COUNT: &str = "eth_getTransactionCount";

/// Keeps signed transactions. The floor above has one for each network with an outbox.
pub trait TransactionKeeper: Send + Sync {
    /// Takes a transaction in, and answers with its hash, without the client's id.
    fn send<'a>(&'a self, request: &'a Request<'a>, asker: Asker<'a>) -> BoxFuture<'a, Result<Answer, Refusal>>;

    /// The state of a transaction of the client's tenant, or `null`, without the client's id.
    fn status(&self, request: &Request<'_>, tenant: Tenant<'_>) -> Result<Answer, Refusal>;

    /// A transaction as nodes show a waiting one; `None` where no such transaction of the client's
    /// tenant waits.
    fn pending(&self, request: &Request<'_>, tenant: Tenant<'_>) -> Option<Answer>;

    /// The first nonce from `count` on for which no transaction of this sender and the client's
    /// tenant is kept and waits.
    fn next_nonce<'a>(&'a self, sender: Address, count: u64, tenant: Tenant<'a>) -> BoxFuture<'a, Option<u64>>;

    /// The transitions of a transaction of the client's tenant, as JSON: those that were, and each
    /// later one.
    fn watch(&self, hash: B256, tenant: Tenant<'_>) -> Result<mpsc::Receiver<Arc<str>>, Refusal>;
}

/// The value of the header that names the tenant; `None` where there is none, or where no header is
/// looked at.
pub type Tenant<'a> = Option<&'a [u8]>;

/// The sender of a transaction.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    /// The tenant's name as it came.
    pub tenant: Tenant<'a>,
    /// The header lines that go along, which have the names of request and trace.
    pub headers: &'a [u8],
    /// The account of the client.
    pub memory: &'a Arc<Account>,
}

/// Header lines to send along, and what other headers of a request said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The lines, each with its line end.
    pub lines: Vec<u8>,
    /// The value of the tenant's header. Empty, and so no name, where the header came twice.
    pub tenant: Option<Bytes>,
    /// The nodes that the caller picked.
    pub pick: Option<Box<Pick>>,
}

impl Passed {
    /// Forgets all, and keeps the memory of the lines.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.tenant = None;
        self.pick = None;
    }

    /// Notes the tenant's header.
    pub fn name_tenant(&mut self, value: &[u8]) {
        let is_first = self.tenant.is_none();
        self.tenant = Some(if is_first { Bytes::copy_from_slice(value) } else { Bytes::new() });
    }

    /// The tenant's name as it came.
    pub fn tenant(&self) -> Tenant<'_> {
        self.tenant.as_deref()
    }
}

/// The outbox has not said in time whether it keeps the transaction.
fn late() -> Refusal {
    Refusal::NotKept {
        code: -32002,
        message: "the outbox did not answer in time: the transaction may be kept, and sent later; ask for its status"
            .to_owned(),
        reason: "outcome_unknown",
    }
}

impl Calls {
    /// Has `outbox` keep transactions from now on. The first one stays.
    pub fn keep_transactions(&self, outbox: Arc<dyn TransactionKeeper>) {
        let _ = self.outbox.set(outbox);
    }

    /// Whether the network's transactions are kept.
    pub fn keeps_transactions(&self) -> bool {
        self.outbox.get().is_some()
    }

    /// Answers a call that the outbox answers.
    pub(super) async fn ask_outbox<T: Take>(
        &self,
        request: &Request<'_>,
        method: Method,
        terms: &Terms<'_>,
        alarm: &mut Alarm,
        take: &T,
    ) -> Result<T::Taken, Refusal> {
        let outbox = self.outbox.get().filter(|_| !self.is_blocked(request, method));
        let Some(outbox) = outbox else { return Err(Refusal::Blocked(request.method.to_string())) };
        let answer = match method.class {
            Class::RawTransaction if self.pool.no_node_is_for(method.id, &request.method) => {
                return Err(Refusal::NotOffered(request.method.to_string()));
            }
            Class::RawTransaction => {
                let asker = Asker { tenant: terms.tenant, headers: terms.headers, memory: terms.memory };
                // Both arms are cancel-safe: a transaction whose client is gone is kept, or is not.
                tokio::select! {
                    biased;
                    sent = outbox.send(request, asker) => sent?,
                    () = alarm.at(terms.arrived + self.patience(request, method).timeout) => return Err(late()),
                }
            }
            _ => outbox.status(request, terms.tenant)?,
        };
        self.take_own(answer, request, terms, alarm, take).await
    }

    /// The transaction that a client asks for by its hash, where it is kept and waits.
    pub(super) fn kept_transaction(&self, request: &Request<'_>, method: Method, terms: &Terms<'_>) -> Option<Answer> {
        let outbox = self.outbox.get().filter(|_| method.label == BY_HASH)?;
        outbox.pending(request, terms.tenant)
    }

    /// The answer in the place of a node's: to a `null` for a transaction that is kept and waits,
    /// and to a count of a sender's pending transactions that lacks some. A wallet that sends twice
    /// in a row would otherwise take the same nonce twice.
    pub(super) async fn kept_answer(
        &self,
        answer: &mut Answer,
        request: &Request<'_>,
        method: Method,
        terms: &Terms<'_>,
    ) -> Option<Answer> {
        let outbox = self.outbox.get()?;
        if answer.is_null {
            return self.kept_transaction(request, method, terms);
        }
        if method.label != COUNT || request.text_param(1)? != "pending" {
            return None;
        }
        let sender = request.text_param(0)?.parse().ok()?;
        answer.in_memory()?;
        let count = count_of(answer.beginning())?;
        let next = outbox.next_nonce(sender, count, terms.tenant).await.filter(|next| *next > count)?;
        Some(Answer::made(&format!("\"{next:#x}\"")))
    }
}

/// The result of an answer that is a quantity.
fn count_of(text: &[u8]) -> Option<u64> {
    #[derive(Deserialize)]
    struct Count<'a> {
        #[serde(borrow)]
        result: Cow<'a, str>,
    }
    let count: Count<'_> = serde_json::from_slice(text).ok()?;
    hex::quantity(&*count.result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_read_from_a_result_alone() {
        assert_eq!(count_of(br#"{"jsonrpc":"2.0","id":1,"result":"0x1f"}"#), Some(31));
        for other in [r#"{"id":1,"error":{"code":-32000,"message":"x"}}"#, r#"{"result":null}"#, r#"{"result":"x"}"#] {
            assert_eq!(count_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_second_header_of_the_tenant_makes_none_of_them_count() {
        let mut passed = Passed::default();
        assert_eq!(passed.tenant(), None);
        passed.name_tenant(b"acme");
        assert_eq!(passed.tenant(), Some(&b"acme"[..]));
        passed.name_tenant(b"acme");
        assert_eq!(passed.tenant(), Some(&b""[..]));
        passed.clear();
        assert_eq!(passed, Passed::default());
    }
}
