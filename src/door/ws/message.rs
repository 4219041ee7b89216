//! A client's message, from its arrival to its answer in the mailbox: a call, or a batch of calls.

mod batch;
mod reply_budget;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use self::reply_budget::{ReplyBudget, ReplyPart};
use super::{
    frame::Closing,
    subscriptions::{Scribe, Subscriptions, scribe},
};
use crate::{
    call::{
        Calls, Terms,
        alarm::Alarm,
        answer::receipt::Receipt,
        client_message::ClientMessage,
        filter_calls::AnswerRoom,
        outbox_calls::Passed,
        whole::{AnswerBuffer, Whole},
    },
    config::Verify,
    domain::{client::Peer, refusal::Refusal, rpc::Request},
    door::access_log::{Access, Line, Wanted},
    memory::Full,
    metrics::CallOutcome,
    net::node_connections::Caller,
    view::{Mailbox, Outbound, Prepared, SubscriptionId, Views},
};

/// Long answers take their room in units of so many bytes.
const UNIT: usize = 1024;
/// The setting that bounds an answer.
const MAX_OUTBOUND: &str = "max_outbound";

/// The part that all messages of a client share.
pub(super) struct Client {
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) subscriptions: Subscriptions,
    /// Notified when the mailbox has been emptied in part.
    pub(super) drained: Notify,
    visitor: Visitor,
    /// The most bytes of one answer, and of all answers that wait.
    max_outbound: usize,
    /// Room for long answers on their way into the mailbox, in units of [`UNIT`].
    room: Semaphore,
    /// The client's share of the connections to nodes.
    caller: Arc<Caller>,
    /// Counts the batches with several polls of filters: each time another poll is the first.
    turn: AtomicUsize,
    /// The timer of a call that has ended, for the next call: calls one after the other share one
    /// timer.
    spare: Mutex<Option<Alarm>>,
}

/// The client, as its handshake told.
pub(super) struct Visitor {
    /// Lines to send along with calls.
    pub(super) headers: Passed,
    /// Where the client is.
    pub(super) peer: Peer,
}

/// The network that serves a client's messages.
pub(super) struct Network {
    pub(super) calls: Arc<Calls>,
    pub(super) views: Option<Arc<Views>>,
    /// Subscriptions that a client may have at once.
    pub(super) max_subscriptions: usize,
    /// The rules of the access log.
    pub(super) access: Arc<Access>,
}

/// The outcome of a request.
enum Reply {
    /// A notification has no answer.
    Nothing,
    /// An answer, and the bytes of memory that were taken for a node's answer.
    Text(Bytes, usize),
    /// The answer with a subscription's id, and the subscription, which begins as soon as the
    /// answer is in the mailbox.
    Subscribed(Bytes, Prepared),
}

impl Reply {
    /// An answer of the proxy's own.
    fn text(text: Vec<u8>) -> Self {
        Self::Text(text.into(), 0)
    }
}

impl Client {
    pub(super) fn new(mailbox: Arc<Mailbox>, visitor: Visitor, caller: Arc<Caller>, max_outbound: usize) -> Self {
        Self {
            mailbox,
            subscriptions: Subscriptions::default(),
            drained: Notify::new(),
            visitor,
            max_outbound,
            room: Semaphore::new(units(max_outbound) as usize),
            caller,
            turn: AtomicUsize::new(0),
            spare: Mutex::default(),
        }
    }

    /// Serves a message to its end.
    ///
    /// # Errors
    /// When the message makes the connection close.
    pub(super) async fn serve(&self, network: &Network, message: &Message, arrived: Instant) -> Result<(), Closing> {
        let text = &message.text;
        let wanted = network.access.wanted_of(&self.visitor.headers.lines);
        let mut line = wanted.map(|wanted| self.line(wanted, &network.access));
        let (refusal, id) = match ClientMessage::read(text, network.calls.settings().max_batch.get()) {
            ClientMessage::Refused(Refusal::NotJson(_), _)
                if !message.is_binary && std::str::from_utf8(text).is_err() =>
            {
                return Err(Closing::new(Closing::NOT_UTF8, "a text message is not UTF-8"));
            }
            ClientMessage::Refused(refusal, id) => (refusal, id),
            ClientMessage::Single(request) => {
                let mut alarm = self.spare().take().unwrap_or_default();
                let budget = ReplyBudget::new(self.mailbox.memory(), line.as_deref());
                let part = ReplyPart { client: self, budget: &budget, place: 0, is_batch: false };
                let reply = self.reply(network, &request, arrived, &mut alarm, part).await;
                *self.spare() = Some(alarm);
                match reply {
                    Reply::Nothing => {}
                    Reply::Text(text, _) => self.send(text, budget.take_receipts(), None, &mut line).await,
                    Reply::Subscribed(text, prepared) => self.send(text, Vec::new(), Some(prepared), &mut line).await,
                }
                return Ok(());
            }
            // The box spares single calls the size of a batch.
            ClientMessage::Batch(entries) => return Box::pin(self.batch(network, &entries, arrived, line)).await,
        };
        self.send(refusal.body(id).into(), Vec::new(), None, &mut line).await;
        Ok(())
    }

    /// Answers each call of a message with the same refusal, at once.
    pub(super) fn refuse(&self, message: &Message, max_batch: usize, refusal: &Refusal) {
        let answer = ClientMessage::read(&message.text, max_batch).refuse(refusal);
        if !answer.is_empty() {
            self.mailbox.push_answer(answer.into());
        }
    }

    async fn reply<'c>(
        &'c self,
        network: &Network,
        request: &Request<'_>,
        arrived: Instant,
        alarm: &mut Alarm,
        part: ReplyPart<'_, 'c>,
    ) -> Reply {
        let outcome = match scribe(&request.method) {
            None => self.call(&network.calls, request, arrived, alarm, part).await,
            Some(_) if network.calls.settings().blocks(&request.method) => {
                Err(Refusal::Blocked(request.method.to_string()))
            }
            Some(Scribe::Off) => {
                part.budget.note(request, CallOutcome::Result);
                Ok((self.unsubscribe(request), 0))
            }
            Some(Scribe::On) => {
                let reply = self.subscribe(network, request).await;
                let is_there = matches!(reply, Reply::Subscribed(..));
                part.budget.note(request, if is_there { CallOutcome::Result } else { CallOutcome::Refused });
                return reply;
            }
        };
        match (outcome, request.id) {
            (_, None) => Reply::Nothing,
            (Ok((text, held)), Some(_)) => Reply::Text(text, held),
            (Err(refusal), id) => Reply::text(refusal.body(id)),
        }
    }

    /// Prepares a subscription. From now on the subscription counts for the client's limit, so that
    /// no more are prepared than allowed.
    async fn subscribe(&self, network: &Network, request: &Request<'_>) -> Reply {
        // Without an id in the request, the client could not know the subscription.
        let Some(id) = request.id else { return Reply::Nothing };
        let Some(views) = &network.views else { return Reply::text(Refusal::NeedsWebSocket.body(Some(id))) };
        let Some(_place) = self.subscriptions.reserve(network.max_subscriptions) else {
            let refusal = Refusal::Limit { name: "max_subscriptions", limit: network.max_subscriptions };
            return Reply::text(refusal.body(Some(id)));
        };
        match views.prepare(&request.method, request.params, &self.mailbox, self.visitor.headers.tenant()).await {
            Ok(prepared) => {
                if let Err(refusal) = self.subscriptions.expect(prepared.id, prepared.bytes(), self.mailbox.memory()) {
                    return Reply::text(refusal.body(Some(id)));
                }
                Reply::Subscribed(result(id, &format!("\"{}\"", prepared.id)), prepared)
            }
            Err(refused) => Reply::text(refused.body(id)),
        }
    }

    /// Ends a subscription: `false` if the client has no subscription of that id.
    fn unsubscribe(&self, request: &Request<'_>) -> Bytes {
        let named = request.text_param(0).and_then(|id| SubscriptionId::read(&id));
        let ended = named.is_some_and(|id| self.subscriptions.end(id));
        result(request.id.unwrap_or(b"null"), if ended { "true" } else { "false" })
    }

    /// Runs a call and takes the whole answer; also returns the bytes of memory that the answer
    /// took.
    async fn call<'c>(
        &'c self,
        calls: &Calls,
        request: &Request<'_>,
        arrived: Instant,
        alarm: &mut Alarm,
        part: ReplyPart<'_, 'c>,
    ) -> Result<(Bytes, usize), Refusal> {
        let terms = Terms {
            headers: &self.visitor.headers.lines,
            tenant: self.visitor.headers.tenant(),
            pick: self.visitor.headers.pick.as_deref(),
            arrived,
            // A client would have to close its connection on a malformed message.
            verify: Verify::All,
            // A WebSocket with one side closed is over.
            left: None,
            memory: self.mailbox.memory(),
            // In a batch, brackets stand around the answer.
            room: AnswerRoom { longest: self.max_outbound.saturating_sub(2), part: part.budget.part },
            caller: Some(&self.caller),
            trace: part.budget.trace.as_deref(),
        };
        let Whole { text, held, receipt, .. } = calls.run_whole(request, terms, alarm, &part).await?;
        part.budget.receipts().extend(receipt.map(|receipt| (part.place, receipt)));
        Ok((text, held))
    }

    fn too_long(&self) -> Refusal {
        Refusal::Limit { name: MAX_OUTBOUND, limit: self.max_outbound }
    }

    /// Leaves an answer in the mailbox when there is room. Many answers that end at once must not
    /// make a client look slow, and so answers leave a quarter of the room to notifications.
    /// `receipts` are notified whether the answer is written. The subscriptions of `begins` begin
    /// before anything else happens.
    async fn send(
        &self,
        text: Bytes,
        receipts: Vec<Receipt>,
        begins: impl IntoIterator<Item = Prepared>,
        line: &mut Option<Box<Line>>,
    ) {
        line.iter_mut().for_each(|line| line.bytes += text.len() as u64);
        loop {
            let waiting = self.mailbox.waiting_bytes();
            if waiting == 0 || waiting + text.len() + size_of::<Outbound>() <= self.max_outbound / 4 * 3 {
                break;
            }
            self.drained.notified().await;
        }
        self.mailbox.push_answer_with(text, receipts);
        for prepared in begins {
            self.subscriptions.begin(prepared);
        }
    }

    /// A message's line in the access log.
    fn line(&self, wanted: Wanted, access: &Access) -> Box<Line> {
        access.line_of(wanted, "ws", self.visitor.peer, &mut self.visitor.headers.lines.clone())
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Option<Alarm>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that does not come in one piece stays with its node until the client has taken the
/// answers before. The answers of a batch share one room, in their order.
impl AnswerBuffer for ReplyPart<'_, '_> {
    async fn enter(&self, length: Option<u64>) {
        let ReplyPart { client, budget, place, is_batch } = *self;
        if budget.first == Some(place) {
            // The answer to a poll is in memory already.
            return;
        }
        while budget.placed.load(Relaxed) < place {
            budget.next.notified().await;
        }
        if budget.room().is_some() {
            return;
        }
        let wanted = length.filter(|_| !is_batch).map_or(client.max_outbound, |length| length as usize);
        // The room is never closed.
        let permit = client.room.acquire_many(units(wanted)).await.ok();
        *budget.room() = permit;
    }

    fn leave(&self, bytes: usize) {
        self.budget.give_back(bytes);
        // A batch keeps its room, which holds the answers before this one.
        if !self.is_batch {
            self.budget.room().take();
        }
    }

    fn hold(&self, more: usize) -> Result<(), Full> {
        self.budget.hold(more)
    }

    fn limit(&self) -> (&'static str, usize) {
        (MAX_OUTBOUND, self.client.max_outbound)
    }
}

/// A message with requests.
pub(super) struct Message {
    pub(super) text: Bytes,
    pub(super) is_binary: bool,
}

impl Message {
    /// How many calls the message has; a message that is answered as a whole counts as one.
    pub(super) fn calls(&self, max_batch: usize) -> usize {
        let is_batch = self.text.trim_ascii_start().first() == Some(&b'[');
        if is_batch { ClientMessage::read(&self.text, max_batch).calls() } else { 1 }
    }
}

/// The units for so many bytes.
fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn result(id: &[u8], result: &str) -> Bytes {
    [br#"{"jsonrpc":"2.0","id":"#, id, br#","result":"#, result.as_bytes(), b"}"].concat().into()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::memory::Account;

    const MOST: usize = 100 * UNIT;

    fn part<'s, 'c>(client: &'c Client, budget: &'s ReplyBudget<'c>) -> ReplyPart<'s, 'c> {
        ReplyPart { client, budget, place: 0, is_batch: false }
    }

    #[test]
    fn an_answer_after_a_lost_one_has_room_for_its_own_length() {
        let memory = Account::unlimited();
        let visitor = Visitor { headers: Passed::default(), peer: Peer::Ip([127, 0, 0, 1].into()) };
        let client = Client::new(Mailbox::of(&memory, MOST), visitor, Arc::default(), MOST);
        let [first, second, third] = [(); 3].map(|()| ReplyBudget::new(&memory, None));
        let enters = |budget, units: usize| part(&client, budget).enter(Some((units * UNIT) as u64)).now_or_never();
        assert!(enters(&first, 20).is_some() && enters(&second, 20).is_some());
        part(&client, &first).hold(1000).unwrap();
        // The answer is lost, and the one of another node is longer.
        part(&client, &first).leave(1000);
        assert_eq!(first.held(), 0);
        assert!(enters(&first, 80).is_some());
        assert!(enters(&third, 1).is_none(), "both have all of the room");
        // While the answer waits for more room, others may have the room that it had.
        part(&client, &first).leave(0);
        assert!(enters(&third, 80).is_some() && enters(&first, 1).is_none());
        part(&client, &second).leave(0);
        part(&client, &third).leave(0);
        assert!(enters(&first, 100).is_some());
    }
}
