//! The names by which the outbox finds its things again: tenants, networks, transactions, events
//! and pieces of work. Every name is stable: it is the same after a restart and on another machine.

use std::{borrow::Borrow, fmt, sync::Arc};

use alloy_primitives::{B256, hex, keccak256};
use serde::{Deserialize, Serialize};

pub use crate::domain::tenant::{LONGEST_TENANT, NotATenant, TenantName};

/// Milliseconds since the Unix epoch. A time comes with each input; no rule of the outbox reads a
/// clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// The time so many milliseconds later; the last time there is instead of an overflow.
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this time; 0 where `earlier` is the later one.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time as RFC 3339 writes times, in UTC, with milliseconds.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0 / 86_400_000, self.0 % 86_400_000);
        // The years of this count begin in March, so that a leap day is a year's last day.
        let since_march_of_0 = days + 719_468;
        let (era, day_of_era) = (since_march_of_0 / 146_097, since_march_of_0 % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let (hour, minute, second) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", millis % 1000)
    }
}

/// Makes a name that is any text: shared, ordered, written and read as that text.
macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
    };
}

text_name! {
    /// A network's name, as the configuration checked it.
    Network
}
text_name! {
    /// One event of one tenant's, told at most once by us and perhaps more often by the wire: the
    /// `webhook-id`, by which the receiver drops repeats, and the key of the dedupe mark.
    EventId
}
text_name! {
    /// A piece of work that is kept until it is done: a delivery, or a transaction's deadline.
    WorkId
}

/// The name as text; for maps and keys.
macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

as_text!(Network EventId WorkId);

impl EventId {
    /// The id of the `seq`th transition of a transaction. `accepted_at` tells a transaction that
    /// was dropped and accepted anew from its earlier life.
    pub fn of_transition(tx: &TxId, accepted_at: Millis, seq: u64) -> Self {
        let (hash, accepted_at, seq) = (tx.hash.to_string(), accepted_at.0.to_string(), seq.to_string());
        Self::of_words(&["tx", tx.tenant.as_str(), tx.network.as_str(), &hash, &accepted_at, &seq])
    }

    /// The id of a transition of a transaction that was born at that time: by the words that tell
    /// the transition from others, and the number of earlier ones with the same words.
    pub fn of_content(tx: &TxId, born: Millis, words: [&str; 3], repeat: u32) -> Self {
        let (hash, born, repeat) = (tx.hash.to_string(), born.0.to_string(), repeat.to_string());
        let [to, block, other] = words;
        Self::of_words(&["life", tx.tenant.as_str(), tx.network.as_str(), &hash, &born, to, block, other, &repeat])
    }

    /// The id of the event that these words name. The same words give the same id.
    pub fn of_words(words: &[&str]) -> Self {
        // No word holds the byte 0, so no two lists of words make one text.
        let digest = keccak256(words.join("\0"));
        format!("evt_{}", hex::encode(&digest[..16])).into()
    }
}

impl WorkId {
    /// The delivery of an event to an endpoint.
    pub fn of_delivery(event: &EventId, endpoint: &str) -> Self {
        format!("{event}@{endpoint}").into()
    }

    /// The work that belongs to a transaction as a whole: its deadline, the end of its retention.
    pub fn of_transaction(tx: &TxId) -> Self {
        format!("{}/{}", tx.network, tx.hash).into()
    }

    /// Network and hash, where this is the work of a transaction.
    pub fn transaction(&self) -> Option<(Network, B256)> {
        let (network, hash) = self.0.rsplit_once('/')?;
        Some((network.into(), hash.parse().ok()?))
    }
}

/// A transaction of a tenant's on a network. Two tenants that send the same bytes have a record
/// each, and neither sees the other's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TxId {
    /// Whose it is.
    pub tenant: TenantName,
    /// Where it goes.
    pub network: Network,
    /// The transaction's hash.
    pub hash: B256,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tx(tenant: &str) -> TxId {
        TxId { tenant: tenant.parse().unwrap(), network: "main".into(), hash: B256::repeat_byte(7) }
    }

    #[test]
    fn a_time_is_written_as_rfc_3339_has_times() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Millis(millis).to_string(), text);
        }
        assert_eq!((Millis(5).since(Millis(9)), Millis(u64::MAX).after(1)), (0, Millis(u64::MAX)));
        assert!(!Millis(u64::MAX).to_string().is_empty(), "no overflow");
    }

    #[test]
    fn an_event_has_one_id_and_no_other_event_has_it() {
        let id = |tenant, at, seq| EventId::of_transition(&tx(tenant), Millis(at), seq);
        assert_eq!(id("a", 1, 2), id("a", 1, 2));
        let all = [id("a", 1, 2), id("b", 1, 2), id("a", 2, 2), id("a", 1, 3), id("a", 12, 3)];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
            assert_eq!(one.as_str().len(), 36);
        }
        // Written down here, because receivers keep ids over an upgrade of ours.
        assert_eq!(EventId::of_words(&["node", "a"]).as_str(), "evt_08e7c5788f6b4f672d7cb416d991a4d8");
        assert_ne!(EventId::of_words(&["a", "b"]), EventId::of_words(&["ab"]));
    }

    #[test]
    fn the_work_of_a_transaction_leads_back_to_it() {
        let tx = tx("a");
        assert_eq!(WorkId::of_transaction(&tx).transaction(), Some((tx.network, tx.hash)));
        let delivery = WorkId::of_delivery(&"evt_1".into(), "billing");
        assert_eq!(delivery.as_str(), "evt_1@billing");
        assert_eq!(delivery.transaction(), None);
    }
}
