//! One attempt at one delivery, from the store's row to what became of it, written down.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    Clock, Duty, commit,
    deliveries::Deliveries,
    judgement::{Failure, Judgement, judge, pause},
    queue::Key,
    signature,
};
use crate::{
    config::Webhook,
    domain::redact::Secrets,
    metrics::Metrics,
    net::post::{Answer, Post, PostError},
    outbox::{
        ownership::May,
        record::{Delivery, Millis, Quarantined, reason},
        step::Step,
        store::StoreError,
    },
};

/// What all attempts at one endpoint share.
pub(super) struct Sender {
    pub(super) webhook: Webhook,
    pub(super) secrets: Secrets,
    pub(super) post: Arc<dyn Post>,
    pub(super) deliveries: Arc<dyn Deliveries>,
    pub(super) clock: Clock,
    pub(super) wall: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) duty: Duty,
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The endpoint has the event, and that is written down.
    Delivered,
    /// It is to be tried again at that time.
    Again { at: Millis, failure: Failure },
    /// It is in quarantine.
    GivenUp { why: String, failure: Option<Failure> },
    /// There was nothing to send: somebody else has taken the delivery away.
    Nothing,
    /// The replica cannot be sure at this moment that the delivery is its own. The row is as it
    /// was.
    Unsure,
    /// The store cannot be read or written. The row is as it was.
    Lost(StoreError),
}

impl Sender {
    /// Makes an attempt. `seed` decides the lengths of pauses.
    pub(super) async fn attempt(&self, key: &Key, seed: u64) -> Outcome {
        let delivery = match self.deliveries.delivery(&key.tenant, &key.work) {
            Ok(Some(delivery)) => delivery,
            Ok(None) => return Outcome::Nothing,
            Err(error) => return Outcome::Lost(error),
        };
        let _permit = match self.duty.ownership.may(delivery.shard()) {
            May::Begin(permit) => permit,
            May::Later => return Outcome::Unsure,
            May::Never(_) if delivery.transaction().is_some_and(|of| !(self.duty.is_shared)(of)) => {
                return Outcome::Unsure;
            }
            May::Never(_permit) => {
                let step = Step::new().disown(&delivery).take();
                let written = commit::until_written(&*self.deliveries, step, seed).await;
                return written.map_or_else(Outcome::Lost, |()| Outcome::Nothing);
            }
        };
        let sent = self.post.post(self.headers(&delivery), Bytes::from(delivery.body.clone()));
        let (answer, of) = (timeout(self.webhook.timeout, sent).await.ok(), delivery.transaction());
        let now = (self.clock)();
        let outcome = match judge(self.redacted(answer), (self.wall)()) {
            Judgement::Delivered => self.delivered(&delivery, seed).await,
            Judgement::Gone => {
                let delivery = Delivery { attempt: delivery.attempt.saturating_add(1), ..delivery };
                self.give_up(delivery, now, "status 410: it wants no more", None, seed).await
            }
            Judgement::Failed(failure) => self.failed(delivery, now, failure, seed).await,
        };
        if let (Ok(Outcome::Delivered | Outcome::GivenUp { .. }), Some(of)) = (&outcome, of) {
            (self.duty.done)(of);
        }
        outcome.unwrap_or_else(Outcome::Lost)
    }

    async fn delivered(&self, delivery: &Delivery, seed: u64) -> Result<Outcome, StoreError> {
        let step = Step::new().delivered(delivery.tenant.clone(), delivery.id.clone()).take();
        commit::until_written(&*self.deliveries, step, seed).await?;
        let Delivery { event, tenant, request_id, traceparent, .. } = delivery;
        let endpoint = &*self.webhook.name;
        debug!(endpoint, %event, %tenant, request_id, traceparent, "an endpoint was told of an event");
        Ok(Outcome::Delivered)
    }

    async fn failed(
        &self,
        mut delivery: Delivery,
        now: Millis,
        failure: Failure,
        seed: u64,
    ) -> Result<Outcome, StoreError> {
        delivery.attempt = delivery.attempt.saturating_add(1);
        if delivery.attempt >= self.webhook.max_attempts.get() {
            let why = format!("{} attempts, the last: {}", delivery.attempt, failure.why);
            return self.give_up(delivery, now, &why, Some(failure), seed).await;
        }
        let pause = pause(delivery.attempt, failure.retry_after, &mut fastrand::Rng::with_seed(seed));
        delivery.due = now.after(millis(pause));
        let at = delivery.due;
        commit::until_written(&*self.deliveries, Step::new().deliver(delivery).take(), seed).await?;
        Ok(Outcome::Again { at, failure })
    }

    async fn give_up(
        &self,
        delivery: Delivery,
        at: Millis,
        why: &str,
        failure: Option<Failure>,
        seed: u64,
    ) -> Result<Outcome, StoreError> {
        give_up(&*self.deliveries, delivery, at, why, seed).await?;
        Ok(Outcome::GivenUp { why: why.to_owned(), failure })
    }

    fn headers(&self, delivery: &Delivery) -> HeaderMap {
        let mut headers = signature::headers(&delivery.event, (self.wall)(), &delivery.body, &self.webhook.secrets);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in [("x-request-id", &delivery.request_id), ("traceparent", &delivery.traceparent)] {
            // A client's text that is no header is left out.
            if let Some(Ok(value)) = value.as_deref().map(HeaderValue::from_str) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        headers
    }

    /// The outcome without secrets in its words: servers like to repeat what they were sent.
    fn redacted(&self, answer: Option<Result<Answer, PostError>>) -> Option<Result<Answer, PostError>> {
        match answer {
            Some(Err(PostError::Failed(text))) => {
                let clean = self.secrets.redact(text.as_bytes());
                let text = clean.map_or(text, |clean| String::from_utf8_lossy(&clean).into_owned());
                Some(Err(PostError::Failed(text)))
            }
            other => other,
        }
    }
}

/// Puts a delivery into quarantine, with the reason, and says so.
///
/// # Errors
/// When the store is closed or cannot be read.
pub(super) async fn give_up(
    deliveries: &dyn Deliveries,
    delivery: Delivery,
    at: Millis,
    why: &str,
    seed: u64,
) -> Result<(), StoreError> {
    let given_up = Quarantined { delivery: delivery.clone(), at, reason: reason(why) };
    commit::until_written(deliveries, Step::new().quarantine(given_up).take(), seed).await?;
    let Delivery { endpoint, event, kind, tenant, request_id, traceparent, .. } = delivery;
    let kind = kind.as_str();
    warn!(endpoint, %event, kind, %tenant, request_id, traceparent, why, "a delivery is in quarantine");
    Ok(())
}

/// A duration in whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
