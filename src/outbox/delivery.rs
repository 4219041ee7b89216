//! The outbox's deliveries: events on their way to endpoints, written as JSON like records.

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

use super::{
    id::{EventId, Millis, Network, TenantName, TxId, WorkId},
    record::{Record, StateName},
    shard::Shard,
};

pub use crate::domain::event_kind::EventKind;

impl EventKind {
    /// The event of the transition into a state. `None` for transitions that webhooks do not tell.
    pub fn of(to: StateName) -> Option<Self> {
        match to {
            StateName::Accepted => Some(Self::TxAccepted),
            StateName::Mined => Some(Self::TxMined),
            StateName::Confirmed => Some(Self::TxConfirmed),
            StateName::Final => Some(Self::TxFinal),
            StateName::Reorged => Some(Self::TxReorged),
            StateName::Replaced => Some(Self::TxReplaced),
            StateName::Refused => Some(Self::TxRefused),
            StateName::Expired => Some(Self::TxExpired),
            StateName::Sent | StateName::Seen | StateName::Cancelled => None,
        }
    }
}

/// An event on its way to one endpoint. It is kept until the endpoint has answered 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// This delivery: event and endpoint.
    pub id: WorkId,
    /// The event: the `webhook-id`.
    pub event: EventId,
    /// The event's kind.
    pub kind: EventKind,
    /// Whose event.
    pub tenant: TenantName,
    /// The name of the endpoint, as `[[outbox.webhook]]` has it.
    pub endpoint: String,
    /// The body: JSON, the same at each attempt.
    pub body: String,
    /// Attempts that failed so far.
    pub attempt: u32,
    /// When the event happened: the first attempt was due at once.
    pub first_at: Millis,
    /// When the next attempt is due: the time of its row in the schedule.
    pub due: Millis,
    /// `x-request-id` of the request that brought the transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// `traceparent` of that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The transaction, whose owner among replicas makes the delivery; `None`: this replica makes
    /// it, as of the events of its own nodes, and of what its operator wants told again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Origin>,
}

/// The transaction of an event. The tenant is the event's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The network.
    pub network: Network,
    /// The hash.
    pub hash: B256,
    /// The sender's shard.
    pub shard: Shard,
}

impl Origin {
    /// The transaction of a record.
    pub fn of(record: &Record) -> Self {
        let TxId { network, hash, .. } = &record.id;
        Self { network: network.clone(), hash: *hash, shard: record.shard() }
    }
}

impl Delivery {
    /// The shard whose owner makes the delivery.
    pub fn shard(&self) -> Option<Shard> {
        self.of.as_ref().map(|of| of.shard)
    }

    /// The transaction, where another replica may take it over.
    pub fn transaction(&self) -> Option<TxId> {
        let Origin { network, hash, .. } = self.of.as_ref()?;
        Some(TxId { tenant: self.tenant.clone(), network: network.clone(), hash: *hash })
    }
}

/// A delivery that was given up, kept for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// The delivery as it stood.
    pub delivery: Delivery,
    /// When it was given up.
    pub at: Millis,
    /// Why: the endpoint's last status or the last error.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_they_are_called() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for state in StateName::ALL {
            if let Some(kind) = EventKind::of(state) {
                assert_eq!(kind.as_str(), format!("tx.{}", state.as_str()));
            }
        }
    }

    #[test]
    fn a_delivery_is_read_as_it_was_written() {
        let event = EventId::from("evt_1");
        let delivery = Delivery {
            id: WorkId::of_delivery(&event, "billing"),
            event,
            kind: EventKind::TxFinal,
            tenant: TenantName::default(),
            endpoint: "billing".to_owned(),
            body: "{}".to_owned(),
            attempt: 2,
            first_at: Millis(1),
            due: Millis(9),
            request_id: None,
            traceparent: Some("00-1-2-01".to_owned()),
            of: None,
        };
        let given_up = Quarantined { delivery, at: Millis(10), reason: "status 500".to_owned() };
        let mut json = serde_json::to_value(&given_up).unwrap();
        json["delivery"]["of a later version"] = true.into();
        assert_eq!(serde_json::from_value::<Quarantined>(json).unwrap(), given_up);
    }
}
