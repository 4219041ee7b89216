//! Calls about data that the proxy keeps for its clients, which the proxy answers in the nodes'
//! stead: filters that are polled.

use std::sync::Arc;

use super::{Calls, Terms, alarm::Alarm, answer::Answer, whole::Take};
use crate::{
    domain::{
        method::Method,
        refusal::Refusal,
        rpc::{self, Body, Request},
    },
    memory::{Account, SMALL},
    net::BoxFuture,
};

/// The method for past logs.
const LOGS: &str = "eth_getLogs";

/// Answers calls about kept data. The floor above has a keeper for each network.
pub trait Keeper: Send + Sync {
    /// Answers `request`, of a client with this account. The answer is to fit into `room`.
    fn answer<'a>(
        &'a self,
        request: &'a Request<'a>,
        memory: &'a Arc<Account>,
        room: AnswerRoom,
    ) -> BoxFuture<'a, KeeperReply>;
}

/// The room for an answer, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct AnswerRoom {
    /// The longest answer that can be sent.
    pub longest: usize,
    /// The part of a message to which the answer keeps, as far as the answer can be cut: the other
    /// calls of a batch need room too.
    pub part: usize,
}

impl AnswerRoom {
    /// A room without bounds.
    pub const ENDLESS: Self = Self { longest: usize::MAX, part: usize::MAX };
}

/// A keeper's reply.
pub enum KeeperReply {
    /// The answer, without the client's id.
    Answer(Answer),
    /// An error.
    Refused(Refusal),
    /// Nodes are asked for logs, with these params.
    Logs(String),
}

impl Calls {
    /// Has `keeper` answer from now on. The first keeper stays.
    pub fn keep(&self, keeper: Arc<dyn Keeper>) {
        let _ = self.keeper.set(keeper);
    }

    pub(super) fn is_blocked(&self, request: &Request<'_>, method: Method) -> bool {
        let is_blocked = self.blocked.get(method.id.0).copied();
        is_blocked.unwrap_or_else(|| self.settings.blocks(&request.method))
    }

    pub(super) async fn ask_keeper<T: Take>(
        &self,
        request: &Request<'_>,
        method: Method,
        terms: &Terms<'_>,
        alarm: &mut Alarm,
        take: &T,
    ) -> Result<T::Taken, Refusal> {
        let keeper = self.keeper.get().filter(|_| !self.is_blocked(request, method));
        let Some(keeper) = keeper else { return Err(Refusal::Blocked(request.method.to_string())) };
        // Both arms are cancel-safe: a keeper gives out nothing before its answer is complete.
        let kept = tokio::select! {
            biased;
            kept = keeper.answer(request, terms.memory, terms.room) => kept,
            () = alarm.at(terms.arrived + self.patience(request, method).timeout) => KeeperReply::Refused(Refusal::Deadline),
        };
        match kept {
            KeeperReply::Answer(answer) => self.take_own(answer, request, terms, alarm, take).await,
            KeeperReply::Refused(refusal) => Err(refusal),
            KeeperReply::Logs(params) => {
                let id = request.id.unwrap_or(b"null");
                let head = br#"{"jsonrpc":"2.0","id":"#;
                let method = format!(r#","method":"{LOGS}","params":"#);
                let text = [head, id, method.as_bytes(), params.as_bytes(), b"}"].concat();
                drop(params);
                // A short call may ask for the logs of a long filter.
                let mut claim = terms.memory.incoming();
                if text.len() > SMALL {
                    claim.resize(text.len())?;
                }
                match rpc::peek(&text, 1) {
                    Ok(Body::Single(Ok(logs))) => self.exchange(&logs, Method::of(LOGS), terms, alarm, take).await,
                    _ => Err(Refusal::NotARequest("its id is none")),
                }
            }
        }
    }
}
