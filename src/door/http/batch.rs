//! A batch: its calls run side by side, each on its own path, and their answers go out in order as they come.

use std::{
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::time::Instant;

use crate::{
    call::{Calls, Outcome, Terms, alarm::Alarm, answer::Answer},
    config::Verify,
    domain::{
        refusal::Refusal,
        rpc::{self, Body, NotARequest, Request},
    },
    net::exchange::Broken,
};

/// How many calls of a batch run at the same time.
const WIDTH: usize = 16;

/// One entry's answer; none for a notification.
enum Entry {
    Answer(Answer),
    Ready(Vec<u8>),
    Nothing,
}

/// The answers of a batch, with their brackets and commas.
pub(super) struct Batch {
    entries: Pin<Box<dyn Stream<Item = Entry> + Send>>,
    current: Option<Answer>,
    /// What comes before the next answer: the opening bracket, then commas.
    before: &'static str,
    over: bool,
}

impl Batch {
    /// Prepares the `entries` of `body`; they start when the batch is first polled.
    pub(super) fn new(
        calls: &Arc<Calls>,
        body: &Bytes,
        entries: &[Result<Request<'_>, NotARequest<'_>>],
        headers: &[u8],
        arrived: Instant,
        left: &Arc<AtomicBool>,
    ) -> Self {
        let headers = Bytes::copy_from_slice(headers);
        let futures: Vec<_> = entries
            .iter()
            .map(|entry| {
                let ready = entry.as_ref().map(|request| body.slice_ref(request.raw));
                let ready = ready.map_err(|wrong| Refusal::NotARequest(wrong.why).body(wrong.id));
                let (calls, headers, left) = (calls.clone(), headers.clone(), left.clone());
                async move {
                    match ready {
                        Ok(raw) => run(&calls, &raw, &headers, arrived, &left).await,
                        Err(refusal) => Entry::Ready(refusal),
                    }
                }
            })
            .collect();
        let entries = stream::iter(futures).buffered(WIDTH);
        Self { entries: Box::pin(entries), current: None, before: "[", over: false }
    }

    /// Whether the next piece is a node's to send, not that of a call still under way.
    pub(super) fn awaits_node(&self) -> bool {
        self.current.is_some()
    }

    /// Runs a batch that nobody waits for to its end.
    pub(super) async fn run_out(mut self) {
        while self.entries.next().await.is_some() {}
    }
}

async fn run(calls: &Calls, raw: &[u8], headers: &[u8], arrived: Instant, left: &AtomicBool) -> Entry {
    let Ok(Body::Single(Ok(request))) = rpc::peek(raw, 1) else { return Entry::Nothing };
    // What is wrong with one answer would spoil those of all others.
    let terms = Terms { headers, arrived, avoid: &[], verify: Verify::All, left: Some(left) };
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
                match ready!(answer.poll_piece(context)) {
                    Some(piece) => return Poll::Ready(Some(piece)),
                    None => self.current = None,
                }
            }
            if self.over {
                return Poll::Ready(None);
            }
            let before = self.before;
            match ready!(self.entries.as_mut().poll_next(context)) {
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
