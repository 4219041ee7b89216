//! A batch of calls: answered in the order of the calls, with one message.
//!
//! Rule: the message is at most `max_outbound` bytes long. Room for a refusal is kept for each call
//! that is not answered yet, and an answer that does not fit beside the kept room is replaced by
//! that refusal. Reason: each call of a batch must have an answer, and long answers must not take
//! the room of those behind them. Example with room for 1000 bytes: the first of three calls has an
//! answer of 900 bytes, two refusals would take 250, so the first call is refused for its length.
//!
//! Of several polls of filters in one batch, one has its room before all other calls, and in the
//! next batch another one. Reason: a poll brings at least one block, which is never cut, so some
//! polls may find no room; none may find none for ever.

use std::sync::atomic::Ordering::Relaxed;

use bytes::{BufMut, BytesMut};
use futures_util::{StreamExt, stream::FuturesOrdered};
use tokio::time::Instant;

use super::{
    Client, Network, Reply,
    reply_budget::{ReplyBudget, ReplyPart},
};
use crate::{
    call::{
        alarm::Alarm,
        client_message::{Entry, WIDTH},
    },
    domain::refusal::Refusal,
    door::{
        access_log::Line,
        ws::frame::{Closing, NO_ROOM},
    },
    memory::{CALL, Full, SMALL},
    view::Prepared,
};

impl Client {
    /// Answers a batch. Its subscriptions begin after the message with the answers.
    pub(super) async fn batch(
        &self,
        network: &Network,
        entries: &[Entry<'_>],
        arrived: Instant,
        mut line: Option<Box<Line>>,
    ) -> Result<(), Closing> {
        let full = |_| Closing::new(Closing::TRY_AGAIN, NO_ROOM);
        let mut budget = ReplyBudget::new(self.mailbox.memory(), line.as_deref());
        budget.hold(size_of_val(entries) + entries.len().min(WIDTH) * CALL).map_err(full)?;
        let kept: usize = entries.iter().map(|entry| self.least(entry)).sum();
        if kept >= self.max_outbound {
            self.send(self.too_long().body(None).into(), Vec::new(), None, &mut line).await;
            return Ok(());
        }
        let polls: Vec<usize> = (0..entries.len()).filter(|place| is_poll(&entries[*place])).collect();
        // A part of the room is left to the calls that are no polls.
        budget.part = (self.max_outbound - kept) / (polls.len() + 1);
        budget.first = (polls.len() > 1).then(|| polls[self.turn.fetch_add(1, Relaxed) % polls.len()]);
        let budget = budget;
        let first = budget.first;
        // The calls in the order in which they begin, at most `WIDTH` at once.
        let mut left = first.into_iter().chain((0..entries.len()).filter(|place| Some(*place) != first));
        let mut begin = |running: &mut FuturesOrdered<_>| {
            running.extend(left.by_ref().take(WIDTH - running.len()).map(|place| {
                let part = ReplyPart { client: self, budget: &budget, place, is_batch: true };
                self.entry(network, &entries[place], arrived, part)
            }));
        };
        let mut running = FuturesOrdered::new();
        let mut answers = Answers { client: self, budget: &budget, kept, text: BytesMut::new(), begins: Vec::new() };
        let mut early = None;
        if let Some(place) = first {
            begin(&mut running);
            let Some(reply) = running.next().await else { return Ok(()) };
            let reply = answers.fitting(place, &entries[place], reply);
            answers.kept += reply.room();
            early = Some(reply);
        }
        for (place, entry) in entries.iter().enumerate() {
            begin(&mut running);
            let reply = match early.take_if(|_| first == Some(place)) {
                Some(reply) => {
                    answers.kept -= reply.room();
                    reply
                }
                None => {
                    let Some(reply) = running.next().await else { break };
                    answers.fitting(place, entry, reply)
                }
            };
            answers.put(reply).map_err(full)?;
            budget.placed.fetch_add(1, Relaxed);
            budget.next.notify_waiters();
        }
        let Answers { mut text, begins, .. } = answers;
        if !text.is_empty() {
            text.put_u8(b']');
            self.send(text.freeze(), budget.take_receipts(), begins, &mut line).await;
        }
        Ok(())
    }

    async fn entry<'c>(
        &'c self,
        network: &Network,
        entry: &Entry<'_>,
        arrived: Instant,
        part: ReplyPart<'_, 'c>,
    ) -> Reply {
        match entry {
            Ok(request) => self.reply(network, request, arrived, &mut Alarm::default(), part).await,
            Err(wrong) => Reply::text(Refusal::NotARequest(wrong.why).body(wrong.id)),
        }
    }

    /// The least room that an entry takes in the answer: the room of a refusal for its length.
    fn least(&self, entry: &Entry<'_>) -> usize {
        if is_answered(entry) { self.too_long().body(id_of(entry)).len() + 1 } else { 0 }
    }
}

/// The message with the answers, while it grows.
struct Answers<'s, 'c> {
    client: &'c Client,
    budget: &'s ReplyBudget<'c>,
    /// Bytes that are kept for the entries that have no place in `text` yet.
    kept: usize,
    /// The answers so far, without the closing bracket.
    text: BytesMut,
    begins: Vec<Prepared>,
}

impl Answers<'_, '_> {
    /// The entry's reply, if that fits beside the room that is kept for the other entries; else a
    /// refusal. The room that was kept for the entry is given up.
    fn fitting(&mut self, place: usize, entry: &Entry<'_>, reply: Reply) -> Reply {
        self.kept -= self.client.least(entry);
        match reply {
            Reply::Text(text, held) if self.text.len() + text.len() + 2 + self.kept > self.client.max_outbound => {
                self.budget.receipts().retain(|(of, _)| *of != place);
                self.budget.give_back(held);
                Reply::text(self.client.too_long().body(id_of(entry)))
            }
            reply => reply,
        }
    }

    /// Adds the next entry's reply.
    fn put(&mut self, reply: Reply) -> Result<(), Full> {
        let reply = match reply {
            Reply::Nothing => return Ok(()),
            Reply::Text(text, _) => text,
            Reply::Subscribed(text, prepared) => {
                self.begins.push(prepared);
                text
            }
        };
        // The memory of longer replies is counted while they come.
        if reply.len() <= SMALL {
            self.budget.hold(reply.len())?;
        }
        self.text.put_u8(if self.text.is_empty() { b'[' } else { b',' });
        self.text.put_slice(&reply);
        Ok(())
    }
}

impl Reply {
    /// The room that the reply takes in a batch's answer, with the bracket or comma before it.
    fn room(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Text(text, _) | Self::Subscribed(text, _) => text.len() + 1,
        }
    }
}

/// Whether the entry is a poll of a filter that is answered.
fn is_poll(entry: &Entry<'_>) -> bool {
    entry.as_ref().is_ok_and(|request| request.method == "eth_getFilterChanges" && request.id.is_some())
}

/// Whether the entry is answered. An entry that is no call is answered too.
fn is_answered(entry: &Entry<'_>) -> bool {
    entry.as_ref().map_or(true, |request| request.id.is_some())
}

fn id_of<'e>(entry: &'e Entry<'e>) -> Option<&'e [u8]> {
    match entry {
        Ok(request) => request.id,
        Err(wrong) => wrong.id,
    }
}
