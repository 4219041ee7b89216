//! The endpoints as the brain sees them: who is told of an event.

use super::{Webhooks, body};
use crate::{
    config::Webhook,
    outbox::{
        delivery::Origin,
        desk::Endpoints,
        record::{Delivery, EventId, EventKind, Millis, Record, TenantName, Transition, WorkId},
    },
};

/// An event that endpoints may be told of.
#[derive(Clone, Debug)]
pub struct Event {
    /// The id, which receivers drop repeats by.
    pub id: EventId,
    /// The kind.
    pub kind: EventKind,
    /// Whose.
    pub tenant: TenantName,
    /// When it happened.
    pub at: Millis,
    /// `x-request-id` of the request that brought the transaction.
    pub request_id: Option<String>,
    /// `traceparent` of that request.
    pub traceparent: Option<String>,
    /// The transaction.
    pub of: Option<Origin>,
}

/// The endpoints of the settings, and which events each wants. Never changed, only replaced.
#[derive(Clone, Debug, Default)]
pub struct Table(Vec<Webhook>);

impl Table {
    /// The table of these endpoints.
    pub fn new(webhooks: &[Webhook]) -> Self {
        Self(webhooks.to_vec())
    }

    /// The names of all endpoints, in the order of the settings.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|webhook| &*webhook.name)
    }

    /// Whether there is such an endpoint.
    pub fn has(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// The names of the endpoints that are to be told of such an event of this tenant.
    pub fn wanting<'t>(&'t self, kind: EventKind, tenant: &TenantName) -> impl Iterator<Item = &'t str> {
        self.0.iter().filter(move |webhook| webhook.wants(kind, tenant)).map(|webhook| &*webhook.name)
    }

    /// A delivery of the event to each endpoint that wants it. `body` is made only if there is one.
    pub fn deliveries(&self, event: &Event, body: impl FnOnce() -> String) -> Vec<Delivery> {
        let mut names = self.wanting(event.kind, &event.tenant).peekable();
        if names.peek().is_none() {
            return Vec::new();
        }
        let body = body();
        let delivery = |endpoint: &str| Delivery {
            id: WorkId::of_delivery(&event.id, endpoint),
            event: event.id.clone(),
            kind: event.kind,
            tenant: event.tenant.clone(),
            endpoint: endpoint.to_owned(),
            body: body.clone(),
            attempt: 0,
            first_at: event.at,
            due: event.at,
            request_id: event.request_id.clone(),
            traceparent: event.traceparent.clone(),
            of: event.of.clone(),
        };
        names.map(delivery).collect()
    }
}

impl Endpoints for Table {
    fn deliveries(&self, record: &Record, transition: &Transition) -> Vec<Delivery> {
        let Some(kind) = EventKind::of(transition.to) else { return Vec::new() };
        let event = Event {
            id: record.event(transition.seq),
            kind,
            tenant: record.id.tenant.clone(),
            at: transition.at,
            request_id: record.request_id.clone(),
            traceparent: record.traceparent.clone(),
            of: Some(Origin::of(record)),
        };
        Self::deliveries(self, &event, || body::transaction(kind, record, transition))
    }
}

/// The endpoints as they are at each moment.
impl Endpoints for Webhooks {
    fn deliveries(&self, record: &Record, transition: &Transition) -> Vec<Delivery> {
        Endpoints::deliveries(&*self.table(), record, transition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::webhook::testing::webhook;

    #[test]
    fn each_endpoint_that_wants_an_event_has_a_delivery_of_it() {
        let table = Table::new(&[
            webhook("all", "https://a.example", ""),
            webhook("theirs", "https://b.example", "tenants = [\"b\"]"),
            webhook("nodes", "https://c.example", "events = [\"node.down\"]"),
        ]);
        let event = |kind, tenant: &str| Event {
            id: "evt_1".into(),
            kind,
            tenant: tenant.parse().unwrap(),
            at: Millis(7),
            request_id: Some("r".to_owned()),
            traceparent: None,
            of: None,
        };
        let made = table.deliveries(&event(EventKind::TxFinal, "b"), || "{}".to_owned());
        let ids: Vec<_> = made.iter().map(|delivery| delivery.id.as_str()).collect();
        assert_eq!(ids, ["evt_1@all", "evt_1@theirs"]);
        assert!(made.iter().all(|delivery| delivery.due == Millis(7) && delivery.attempt == 0));
        assert!(made.iter().all(|delivery| delivery.request_id.as_deref() == Some("r")));
        let names = |kind, tenant| table.deliveries(&event(kind, tenant), String::new).len();
        assert_eq!((names(EventKind::TxFinal, "a"), names(EventKind::NodeDown, "a")), (1, 1));
        let nobody = table.deliveries(&event(EventKind::TxExpired, "a"), || panic!("a body for no endpoint"));
        assert!(nobody.is_empty());
    }
}
