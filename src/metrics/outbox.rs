//! The outbox: its transactions, their transitions, and the deliveries to endpoints.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use prometric::prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{Metrics, register};

/// Tenants that have series of their own; those of all further ones are of the tenant `other`.
const MOST_TENANTS: usize = 50;

/// Seconds from acceptance to the first node's word: from a node next door to one that is awaited
/// for an hour.
const DISPATCH: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 30.0, 300.0, 3600.0];

/// An outcome of a delivery to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The endpoint has taken the delivery.
    Delivered,
    /// An attempt has failed.
    Failed,
    /// The delivery is in quarantine.
    GivenUp,
}

impl DeliveryOutcome {
    const ALL: [Self; 3] = [Self::Delivered, Self::Failed, Self::GivenUp];

    fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
        }
    }
}

/// Counters of the outbox.
pub(super) struct Outbox {
    transitions: IntCounterVec,
    dispatch: HistogramVec,
    webhooks: IntCounterVec,
    shard_moves: IntCounterVec,
    /// Tenants with series of their own.
    tenants: Mutex<BTreeSet<String>>,
}

impl Outbox {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("the names are constants");
            register(registry, counter)
        };
        let dispatch = HistogramOpts::new(
            "steadfast_outbox_dispatch_seconds",
            "From the acceptance of a transaction by the outbox to the first node that has it.",
        );
        let dispatch = HistogramVec::new(dispatch.buckets(DISPATCH.to_vec()), &["network"]);
        Self {
            transitions: counter(
                "steadfast_outbox_transitions_total",
                "Transitions of transactions of the outbox, by the state that they led to; the states are those of \
                 OUTBOX.md. The first 50 tenants have series of their own; `other` is all further ones.",
                &["network", "tenant", "state"],
            ),
            dispatch: register(registry, dispatch.expect("the names are constants")),
            webhooks: counter(
                "steadfast_webhook_deliveries_total",
                "Deliveries to endpoints: `delivered`; `failed`, which counts each attempt that failed; `given_up` \
                 (in quarantine).",
                &["endpoint", "outcome"],
            ),
            shard_moves: counter(
                "steadfast_outbox_shard_moves_total",
                "Shards of the outbox that this replica took over from another one: `failed` (the owner was silent for \
                 too long), `leaving` (it ended in order), `balancing` (replicas came or went).",
                &["reason"],
            ),
            tenants: Mutex::default(),
        }
    }
}

impl Metrics {
    /// A transaction of this tenant came into the `state`, one of `states`.
    pub fn outbox_transition(&self, network: &str, tenant: &str, state: &str, states: &[&str]) {
        let (tenant, is_new) = self.outbox_tenant(tenant);
        if is_new {
            // So that `increase` sees the first of each.
            for state in states {
                self.outbox.transitions.with_label_values(&[network, tenant, state]).inc_by(0);
            }
        }
        self.outbox.transitions.with_label_values(&[network, tenant, state]).inc();
    }

    /// The label of a tenant, and whether the label is new.
    fn outbox_tenant<'a>(&self, tenant: &'a str) -> (&'a str, bool) {
        let mut known = lock(&self.outbox.tenants);
        if known.contains(tenant) {
            (tenant, false)
        } else if known.len() < MOST_TENANTS {
            known.insert(tenant.to_owned());
            (tenant, true)
        } else {
            ("other", false)
        }
    }

    /// Shards move from now on: the series begin, so that `increase` sees the first of each.
    pub fn begin_shards(&self, reasons: &[&str]) {
        reasons.iter().for_each(|reason| self.outbox.shard_moves.with_label_values(&[reason]).inc_by(0));
    }

    /// This replica took a shard over.
    pub fn shard_moved(&self, reason: &str) {
        self.outbox.shard_moves.with_label_values(&[reason]).inc();
    }

    /// A node has a transaction, these seconds after its acceptance.
    pub fn outbox_dispatched(&self, network: &str, seconds: f64) {
        self.outbox.dispatch.with_label_values(&[network]).observe(seconds);
    }

    /// An endpoint is in the settings: its series begin, so that `increase` sees the first of each.
    pub fn webhook_known(&self, endpoint: &str) {
        for outcome in DeliveryOutcome::ALL {
            self.webhook(endpoint, outcome, 0);
        }
    }

    /// Counts so many deliveries to an endpoint.
    pub fn webhook(&self, endpoint: &str, outcome: DeliveryOutcome, count: u64) {
        self.outbox.webhooks.with_label_values(&[endpoint, outcome.as_str()]).inc_by(count);
    }
}

/// Each change is whole, so a panic elsewhere cannot have spoilt the value.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gauges that are written anew at every scrape.
pub struct OutboxFacts {
    /// Transactions whose life is not over.
    pub pending: IntGaugeVec,
    /// Length of their raw bytes.
    pub pending_bytes: IntGaugeVec,
    /// Records that are kept though their life is over.
    pub kept: IntGaugeVec,
    /// Transactions on their way to nodes.
    pub in_flight: IntGaugeVec,
    /// Age of the oldest transaction whose life is not over.
    pub oldest_seconds: IntGaugeVec,
    /// Whether transactions are taken.
    pub writable: IntGaugeVec,
    /// How late the schedule is.
    pub late_seconds: IntGaugeVec,
    /// Deliveries in quarantine.
    pub quarantined: IntGaugeVec,
    /// Deliveries that wait for an endpoint or are under way.
    pub webhook_waiting: IntGaugeVec,
    /// Whether the endpoint fails.
    pub webhook_failing: IntGaugeVec,
    /// Shards that this replica sees through.
    pub shards: IntGaugeVec,
    /// Rows that wait for the bucket.
    pub rows_waiting: IntGaugeVec,
}

impl OutboxFacts {
    pub(super) fn new(gauge: impl Fn(&str, &str, &[&str]) -> IntGaugeVec) -> Self {
        Self {
            pending: gauge(
                "outbox_pending",
                "Transactions of the outbox whose life is not over. The 50 tenants with most have series of their \
                 own; `other` is all further ones.",
                &["network", "tenant"],
            ),
            pending_bytes: gauge(
                "outbox_pending_bytes",
                "Raw bytes of the transactions of the outbox whose life is not over.",
                &["network", "tenant"],
            ),
            kept: gauge(
                "outbox_kept",
                "Records that the outbox keeps though the life of the transaction is over.",
                &["network", "tenant"],
            ),
            in_flight: gauge("outbox_in_flight", "Transactions on their way to nodes now.", &["network"]),
            oldest_seconds: gauge(
                "outbox_oldest_seconds",
                "Age of the oldest transaction whose life is not over; 0 where there is none.",
                &["network"],
            ),
            writable: gauge(
                "outbox_writable",
                "Whether the disk of the outbox takes transactions: 1 or 0. The bounds of the settings are not counted.",
                &[],
            ),
            late_seconds: gauge(
                "outbox_late_seconds",
                "How late the work is that is due first: `deadline` of a transaction, `delivery` to an endpoint.",
                &["work"],
            ),
            quarantined: gauge("outbox_quarantined", "Deliveries that were given up and wait for an operator.", &[]),
            webhook_waiting: gauge(
                "webhook_waiting",
                "Deliveries that wait for the endpoint, or are on their way.",
                &["endpoint"],
            ),
            webhook_failing: gauge(
                "webhook_failing",
                "Whether the endpoint fails, and is left alone between single attempts: 1 or 0.",
                &["endpoint"],
            ),
            shards: gauge(
                "outbox_shards",
                "Shards of the outbox, of 64, that this replica sees through. A proxy that is alone has all.",
                &[],
            ),
            rows_waiting: gauge(
                "outbox_rows_waiting",
                "Transactions whose row in the replicas' bucket is behind the record on this disk.",
                &[],
            ),
        }
    }

    pub(super) fn all(&self) -> [&IntGaugeVec; 12] {
        let Self {
            pending,
            pending_bytes,
            kept,
            in_flight,
            oldest_seconds,
            writable,
            late_seconds,
            quarantined,
            webhook_waiting,
            webhook_failing,
            shards,
            rows_waiting,
        } = self;
        [
            pending,
            pending_bytes,
            kept,
            in_flight,
            oldest_seconds,
            writable,
            late_seconds,
            quarantined,
            webhook_waiting,
            webhook_failing,
            shards,
            rows_waiting,
        ]
    }

    /// Writes the gauges of a network's tenants: pending transactions, their bytes, kept records.
    pub fn tenants(&self, network: &str, mut tenants: Vec<(String, [u64; 3])>) {
        tenants.sort_by_key(|(_, [pending, ..])| std::cmp::Reverse(*pending));
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (place, (tenant, counts)) in tenants.iter().enumerate() {
            let tenant = if place < MOST_TENANTS { tenant } else { "other" };
            for (gauge, count) in [&self.pending, &self.pending_bytes, &self.kept].into_iter().zip(counts) {
                gauge.with_label_values(&[network, tenant]).add(number(*count));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::NodeGauges;

    fn text(metrics: &Metrics, fill: impl FnOnce(&NodeGauges)) -> String {
        String::from_utf8(metrics.render(fill)).unwrap()
    }

    #[test]
    fn a_tenants_states_begin_at_zero_and_tenants_are_bounded() {
        let metrics = Metrics::new();
        metrics.outbox_transition("default", "bank", "sent", &["sent", "mined"]);
        for place in 0..100 {
            metrics.outbox_transition("default", &format!("t{place}"), "sent", &["sent"]);
        }
        let text = text(&metrics, |_| {});
        let line = |tenant: &str, state: &str, count: u8| {
            format!(
                "steadfast_outbox_transitions_total{{network=\"default\",state=\"{state}\",tenant=\"{tenant}\"}} {count}\n"
            )
        };
        for line in
            [line("bank", "sent", 1), line("bank", "mined", 0), line("t48", "sent", 1), line("other", "sent", 51)]
        {
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!text.contains("\"t49\""), "{text}");
    }

    #[test]
    fn gauges_of_further_tenants_are_summed() {
        let tenants = (0..60).map(|place| (format!("t{place}"), [100 - place, 7, 0])).collect();
        let text = text(&Metrics::new(), |facts| facts.outbox.tenants("default", tenants));
        assert!(text.contains("steadfast_outbox_pending{network=\"default\",tenant=\"t49\"} 51\n"), "{text}");
        // 41 to 50 pending, of ten tenants.
        assert!(text.contains("steadfast_outbox_pending{network=\"default\",tenant=\"other\"} 455\n"), "{text}");
        assert!(text.contains("steadfast_outbox_pending_bytes{network=\"default\",tenant=\"other\"} 70\n"), "{text}");
    }
}
