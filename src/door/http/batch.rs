//! A batch: its calls run side by side, each on its own path, and each answer goes out as soon as
//! all answers before have gone.

mod row;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Instant;

use self::row::Row;
pub(super) use self::row::Running;
use super::Asker;
use crate::{
    call::{
        Calls, Outcome, Terms,
        alarm::Alarm,
        answer::{Answer, receipt::Receipt},
        client_message::{Entry as Called, WIDTH},
        filter_calls::AnswerRoom,
        outbox_calls::Passed,
    },
    config::Verify,
    domain::{
        refusal::Refusal,
        rpc::{self, Body},
    },
    memory::{CALL, Claim, Full},
    net::http::Broken,
};

/// The answer of an entry; `Nothing` for a notification.
enum Entry {
    Answer(Answer),
    Ready(Vec<u8>),
    Nothing,
}

/// An entry that has not begun.
enum Waiting {
    Call(Bytes),
    /// The entry is no call: why, and its id.
    Wrong(&'static str, Option<Bytes>),
}

/// The answers of a batch, with their brackets and commas.
pub(super) struct Batch {
    running: Running,
    /// The first answer, if [`Batch::begin`] has waited for one.
    first: Option<Entry>,
    current: Option<Answer>,
    /// The text before the next answer: the opening bracket, then commas.
    before: &'static str,
    /// Receipts of the answers given so far, to be notified when the whole batch has been written.
    receipts: Vec<Receipt>,
    over: bool,
    /// The memory that the entries take, without their answers.
    _claim: Claim,
}

impl Batch {
    /// Notes the `entries` of `body`; the calls start when the batch is polled, each in its turn.
    ///
    /// # Errors
    /// When `memory` has no room for so many entries.
    pub(super) fn new(
        calls: &Arc<Calls>,
        body: &Bytes,
        entries: &[Called<'_>],
        headers: &Passed,
        arrived: Instant,
        asker: Asker<'_>,
    ) -> Result<Self, Full> {
        let mut claim = asker.memory.outgoing();
        claim.resize(entries.len() * size_of::<Waiting>() + entries.len().min(WIDTH) * CALL)?;
        let waiting = entries.iter().map(|entry| match entry {
            Ok(request) => Waiting::Call(body.slice_ref(request.raw)),
            Err(wrong) => Waiting::Wrong(wrong.why, wrong.id.map(|id| body.slice_ref(id))),
        });
        let waiting: Vec<Waiting> = waiting.collect();
        let (calls, headers) = (calls.clone(), Arc::new(headers.clone()));
        let (left, memory, caller) = (asker.left.clone(), asker.memory.clone(), asker.caller.clone());
        let trace = asker.trace.cloned();
        // A call's future is large, and is made only when its turn has come.
        let entries = waiting.into_iter().map(move |entry| {
            let (calls, headers, left, memory) = (calls.clone(), headers.clone(), left.clone(), memory.clone());
            let (caller, trace) = (caller.clone(), trace.clone());
            async move {
                let asker = Asker { left: &left, memory: &memory, caller: &caller, trace: trace.as_ref() };
                match entry {
                    Waiting::Call(raw) => run(&calls, &raw, &headers, arrived, asker).await,
                    Waiting::Wrong(why, id) => Entry::Ready(Refusal::NotARequest(why).body(id.as_deref())),
                }
            }
        });
        Ok(Self {
            running: Row::over(entries),
            first: None,
            current: None,
            before: "[",
            receipts: Vec::new(),
            over: false,
            _claim: claim,
        })
    }

    /// Waits for the first answer: until then, the whole batch can be refused.
    pub(super) async fn begin(&mut self) {
        self.first = loop {
            match poll_fn(|context| self.running.poll_next(context)).await {
                Some(Entry::Nothing) => {}
                first => break first,
            }
        };
    }

    /// The calls, for code that drives them while the client takes earlier answers.
    pub(super) fn running(&self) -> &Running {
        &self.running
    }

    /// Whether the next piece comes from a node's answer, and not from a call that is still under
    /// way.
    pub(super) fn awaits_node(&self) -> bool {
        self.current.is_some()
    }

    /// Whether all pieces were taken.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether all pieces were taken, and receipts wait for that.
    pub(super) fn has_receipts(&self) -> bool {
        self.over && !self.receipts.is_empty()
    }

    /// The receipts to notify when the last piece taken has been written; none before the end of
    /// the batch.
    pub(super) fn take_receipts(&mut self) -> Vec<Receipt> {
        if self.over { std::mem::take(&mut self.receipts) } else { Vec::new() }
    }

    /// Runs a batch of notifications, which has no answer, to its end.
    pub(super) async fn run_out(self) {
        while poll_fn(|context| self.running.poll_next(context)).await.is_some() {}
    }
}

async fn run(calls: &Calls, raw: &[u8], headers: &Passed, arrived: Instant, asker: Asker<'_>) -> Entry {
    let Ok(Body::Single(Ok(request))) = rpc::peek(raw, 1) else { return Entry::Nothing };
    // A malformed answer would spoil the whole batch, so each is judged by every byte.
    let Asker { left, memory, caller, trace } = asker;
    let (left, caller, trace) = (Some(&**left), Some(caller), trace.map(|trace| &**trace));
    let (verify, room) = (Verify::All, AnswerRoom::ENDLESS);
    let (headers, tenant, pick) = (&headers.lines[..], headers.tenant(), headers.pick.as_deref());
    let terms = Terms { headers, tenant, pick, arrived, verify, left, memory, room, caller, trace };
    let outcome = calls.run(&request, terms, &mut Alarm::default()).await;
    match (outcome, request.id) {
        (_, None) => Entry::Nothing,
        (Outcome::Answered(answer), Some(_)) => Entry::Answer(answer),
        (Outcome::Refused(refusal), id) => Entry::Ready(refusal.body(id)),
    }
}

impl Stream for Batch {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(answer) = &mut self.current {
                let Poll::Ready(piece) = answer.poll_piece(context) else {
                    self.running.go_on(context);
                    return Poll::Pending;
                };
                match piece {
                    Some(piece) => return Poll::Ready(Some(piece)),
                    None => {
                        let receipt = answer.take_receipt();
                        self.receipts.extend(receipt);
                        self.current = None;
                    }
                }
            }
            if self.over {
                return Poll::Ready(None);
            }
            let before = self.before;
            let next = match self.first.take() {
                Some(first) => Some(first),
                None => ready!(self.running.poll_next(context)),
            };
            match next {
                None => {
                    self.over = true;
                    return Poll::Ready(Some(Ok(Bytes::from_static(if before == "[" { b"[]" } else { b"]" }))));
                }
                Some(Entry::Nothing) => {}
                Some(Entry::Ready(body)) => {
                    self.before = ",";
                    return Poll::Ready(Some(Ok([before.as_bytes(), &body].concat().into())));
                }
                Some(Entry::Answer(answer)) => {
                    self.before = ",";
                    self.current = Some(answer);
                    return Poll::Ready(Some(Ok(Bytes::from_static(before.as_bytes()))));
                }
            }
        }
    }
}
