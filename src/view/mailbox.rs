//! The messages that wait to be sent to one client: answers and notifications in one order, bounded
//! in bytes.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    call::answer::receipt::Receipt,
    memory::{Account, Claim, SHARED, SMALL},
};

/// Messages whose memory an emptied queue keeps.
const KEPT_MESSAGES: usize = 4;
/// The text behind the result of a notification.
const TAIL: &[u8] = b"}}";

/// The messages that wait for one client. Putting in a message wakes the task that takes them.
pub struct Mailbox {
    queue: Mutex<Queue>,
    /// Bytes that may wait, at most.
    limit: usize,
    /// The account of the client.
    memory: Arc<Account>,
}

/// The next thing to send.
#[derive(Debug, PartialEq, Eq)]
pub enum Outbound {
    /// An answer, or a whole batch of them, and the receipt that reports whether the answer has
    /// left. The two stay together, so that an answer that is dropped drops its receipt.
    Answer(Bytes, Option<Box<Receipt>>),
    /// A notification.
    Notification(Notification),
    /// Nothing follows: the connection is to be closed.
    Close(Closing),
}

/// Why a client's connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// More bytes than the limit would wait: the client is too slow. The waiting messages are
    /// dropped.
    Slow,
    /// Logs are missing, and the client must not believe to have them all.
    Gap,
    /// There will be no more notifications, because the task behind them has ended.
    Gone,
    /// The client takes little, and all clients together fill the memory limit. The waiting
    /// messages are dropped.
    Full,
}

/// A notification: `head`, the result, and two braces. The first two are shared with other
/// messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The text up to the result: one for each subscription.
    head: Arc<str>,
    /// The result: one for all subscribers with the same request.
    result: Arc<str>,
}

struct Queue {
    messages: VecDeque<Outbound>,
    /// The sum of the messages' weights.
    bytes: usize,
    /// The weights of the answers among them. Notifications share their text with other clients.
    answers: usize,
    /// Bytes of messages that were taken from here and are not wholly written.
    unwritten: usize,
    /// The client's claim on memory: for the answers, and for all messages when the client has
    /// taken none for a while.
    claim: Option<Box<Claim>>,
    /// The weights of notifications that wait elsewhere, for subscriptions that have not begun.
    held: usize,
    /// Comes after the messages, and lets no further ones in.
    closing: Option<Closing>,
    waker: Option<Waker>,
    /// Whether the receiver can take no message now, and is woken only on close.
    is_stuck: bool,
    /// Since when the client has left messages waiting, without a break.
    since: Option<Instant>,
}

impl Mailbox {
    /// A mailbox in which `limit` bytes may wait; a message counts with its text and its place in
    /// the queue.
    pub fn new(limit: usize) -> Arc<Self> {
        Self::of(&Account::unlimited(), limit)
    }

    /// The mailbox of the client with this account.
    pub fn of(memory: &Arc<Account>, limit: usize) -> Arc<Self> {
        let queue = Queue {
            messages: VecDeque::new(),
            bytes: 0,
            answers: 0,
            unwritten: 0,
            claim: None,
            held: 0,
            closing: None,
            waker: None,
            is_stuck: false,
            since: None,
        };
        Arc::new(Self { queue: Mutex::new(queue), limit, memory: memory.clone() })
    }

    /// The account of the client.
    pub fn memory(&self) -> &Arc<Account> {
        &self.memory
    }

    /// Sets the bytes of messages that were taken from here and are not wholly written.
    pub fn note_unwritten(&self, bytes: usize) {
        let mut queue = self.lock();
        if queue.unwritten != bytes {
            queue.unwritten = bytes;
            queue.count(&self.memory);
            if queue.closing.is_some() {
                // The client may be closed for these bytes, which nothing else would show.
                queue.wake();
            }
        }
    }

    /// Puts in an answer.
    pub fn push_answer(&self, answer: Bytes) {
        self.push_answer_with(answer, Vec::new());
    }

    /// Puts in an answer. `receipts` report whether the answer is written.
    pub fn push_answer_with(&self, answer: Bytes, receipts: Vec<Receipt>) {
        let mut queue = self.lock();
        queue.push(Outbound::Answer(answer, Receipt::of_all(receipts)), self);
        queue.wake();
    }

    /// Puts in one notification for each of `results`, in their order. `false` when the client is
    /// being closed, and so gets none.
    pub(super) fn push_notifications(&self, head: &Arc<str>, results: &[Arc<str>]) -> bool {
        let mut queue = self.lock();
        for result in results {
            queue.push(Outbound::Notification(Notification { head: head.clone(), result: result.clone() }), self);
        }
        queue.wake();
        queue.closing.is_none()
    }

    /// Counts notifications that wait until their subscription begins. At most a quarter of the
    /// limit may wait so; the WebSocket session stops answers at three quarters. `false` when the
    /// client is being closed, perhaps because of these notifications.
    pub(super) fn hold(&self, head: &Arc<str>, results: &[Arc<str>]) -> bool {
        let mut queue = self.lock();
        for result in results {
            let weight = Outbound::Notification(Notification { head: head.clone(), result: result.clone() }).weight();
            if queue.closing.is_none() && queue.held > 0 && queue.held + weight > self.limit / 4 {
                queue.overflow();
                queue.wake();
            }
            queue.held += weight;
        }
        queue.closing.is_none()
    }

    /// Stops counting notifications of [`Mailbox::hold`]. To send these, put them in.
    pub(super) fn release(&self, head: &Arc<str>, results: &[Arc<str>]) {
        let weight = |result: &Arc<str>| {
            Outbound::Notification(Notification { head: head.clone(), result: result.clone() }).weight()
        };
        let weight: usize = results.iter().map(weight).sum();
        let mut queue = self.lock();
        queue.held = queue.held.saturating_sub(weight);
    }

    /// Closes the client behind the messages that wait.
    pub(super) fn close(&self, why: Closing) {
        let mut queue = self.lock();
        queue.closing.get_or_insert(why);
        queue.wake();
    }

    /// Takes the next message. After [`Outbound::Close`] every further call returns the same close.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Outbound> {
        let mut queue = self.lock();
        if let Some(message) = queue.messages.pop_front() {
            queue.bytes -= message.weight();
            if matches!(message, Outbound::Answer(..)) {
                queue.answers -= message.weight();
            }
            queue.is_stuck = false;
            if queue.messages.is_empty() {
                queue.since = None;
            }
            queue.count(&self.memory);
            if queue.messages.is_empty() && queue.messages.capacity() > KEPT_MESSAGES {
                queue.messages = VecDeque::new();
            }
            return Poll::Ready(message);
        }
        if let Some(why) = queue.closing {
            return Poll::Ready(Outbound::Close(why));
        }
        queue.since = None;
        queue.wait(context, false);
        Poll::Pending
    }

    /// Waits for the close, once no message is left before it. For a receiver that can take no
    /// message now: new messages do not wake it.
    pub fn poll_end(&self, context: &mut Context<'_>) -> Poll<Closing> {
        let mut queue = self.lock();
        queue.is_stuck = true;
        queue.since.get_or_insert_with(Instant::now);
        queue.count(&self.memory);
        if let Some(why) = queue.closing.filter(|_| queue.messages.is_empty()) {
            return Poll::Ready(why);
        }
        queue.wait(context, true);
        Poll::Pending
    }

    /// The weight of the messages that wait, as the limit counts it.
    pub fn waiting_bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole at every moment, so a panic elsewhere cannot have spoilt it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, message: Outbound, mailbox: &Mailbox) {
        if self.closing.is_some() {
            return;
        }
        let weight = message.weight();
        // A single long message is no sign of a slow client, so an empty queue takes any message.
        if self.bytes > 0 && self.bytes + weight > mailbox.limit {
            self.overflow();
        } else {
            self.bytes += weight;
            if matches!(message, Outbound::Answer(..)) {
                self.answers += weight;
            }
            self.messages.push_back(message);
            self.count(&mailbox.memory);
        }
    }

    fn overflow(&mut self) {
        self.closing.get_or_insert(Closing::Slow);
        self.clear();
    }

    fn clear(&mut self) {
        self.messages = VecDeque::new();
        (self.bytes, self.answers) = (0, 0);
        match &mut self.claim {
            // The bytes are in memory until the connection ends.
            Some(claim) if self.unwritten > SMALL => claim.set(self.unwritten),
            claim => *claim = None,
        }
    }

    /// Sets the claim to the bytes that count now. While the client takes messages, only answers
    /// count, whose memory was granted before they came here. When the client takes none, and has
    /// left some for a while, notifications count too, and the client is closed if the memory limit
    /// has no room for them. Before that, notifications are shared with other clients, and a client
    /// that reads has them all in a moment.
    fn count(&mut self, memory: &Arc<Account>) {
        let is_left = self.is_stuck && self.since.is_some_and(|since| since.elapsed() > SHARED);
        let counted = self.unwritten + if is_left { self.bytes } else { self.answers };
        if counted <= SMALL {
            self.claim = None;
            return;
        }
        let claim = self.claim.get_or_insert_with(|| Box::new(memory.outgoing()));
        if !is_left {
            claim.set(counted);
        } else if claim.resize(counted).is_err() {
            self.closing.get_or_insert(Closing::Full);
            self.clear();
        }
    }

    fn wait(&mut self, context: &mut Context<'_>, is_stuck: bool) {
        self.is_stuck = is_stuck;
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
    }

    fn wake(&mut self) {
        if self.is_stuck && self.closing.is_none() {
            return;
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Outbound {
    fn weight(&self) -> usize {
        mem::size_of::<Self>()
            + match self {
                Self::Answer(answer, _) => answer.len(),
                Self::Notification(notification) => notification.len(),
                Self::Close(_) => 0,
            }
    }
}

impl Notification {
    /// Bytes of the whole text.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.head.len() + self.result.len() + TAIL.len()
    }

    /// The text in pieces, which are UTF-8 together.
    pub fn parts(&self) -> [&[u8]; 3] {
        [self.head.as_bytes(), self.result.as_bytes(), TAIL]
    }

    /// Appends the text to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.len());
        self.parts().iter().for_each(|part| out.extend_from_slice(part));
    }
}

#[cfg(test)]
mod tests;
