//! Series that stand at 0 before anything happened. A counter that appears with its first rise
//! hides that rise from `rate` and `increase`, and an alert misses the first fault.

use super::{
    Ended, Metrics, SendReason, SpanLoss,
    labels::{
        DOUBT_REASONS, FILTER_ENDS, FILTER_KINDS, FILTER_LIMITS, LOOKUPS, PUBLISH_REASONS, RELOADS, SEND_WORDS,
        SUBSCRIPTIONS, switch_reasons,
    },
};
use crate::domain::layer::Layer;

impl Metrics {
    /// Begins the series that are of no network.
    pub(super) fn begin(&self) {
        let all = &self.instruments;
        all.http_connections_total().inc_by(0_u64);
        all.http_connections_refused_total().inc_by(0_u64);
        all.slow_clients_closed_total().inc_by(0_u64);
        Ended::ALL.iter().for_each(|why| all.client_connections_ended_total(why.as_str()).inc_by(0_u64));
        LOOKUPS.iter().for_each(|outcome| all.dns_lookups_total(*outcome).inc_by(0_u64));
        RELOADS.iter().for_each(|outcome| all.reloads_total(*outcome).inc_by(0_u64));
        all.spans_exported_total().inc_by(0_u64);
        SpanLoss::ALL.iter().for_each(|why| all.spans_lost_total(why.as_str()).inc_by(0_u64));
        all.http_connections().add(0_u64);
        all.sse_streams().add(0_u64);
        self.begin_websockets();
        SUBSCRIPTIONS.iter().for_each(|kind| self.begin_subscriptions(kind));
    }

    /// Begins the series of one side of a network. Series that are there stay as they are.
    pub fn begin_side(&self, network: &str, layer: Layer) {
        let all = &self.instruments;
        switch_reasons().for_each(|why| all.switches_total(network, layer.as_str(), why).inc_by(0_u64));
        all.held_calls(network, layer.as_str()).add(0_u64);
        all.backfilled_blocks_total(network).inc_by(0_u64);
        all.reorgs_total(network).inc_by(0_u64);
        all.gaps_skipped_total(network).inc_by(0_u64);
        match layer {
            Layer::El => {
                all.logs_given_up_total(network).inc_by(0_u64);
                all.odd_logs_total(network).inc_by(0_u64);
                all.bloom_contradictions_total(network).inc_by(0_u64);
                FILTER_KINDS.iter().for_each(|kind| all.filters(network, *kind).add(0_u64));
                all.filter_bytes(network).add(0_u64);
                all.filter_backlog_bytes(network).add(0_u64);
                FILTER_ENDS.iter().for_each(|why| all.filters_dropped_total(network, *why).inc_by(0_u64));
                FILTER_LIMITS.iter().for_each(|why| all.filters_refused_total(network, *why).inc_by(0_u64));
                for (reason, word) in SendReason::ALL.iter().flat_map(|why| SEND_WORDS.map(|word| (why.as_str(), word)))
                {
                    all.raw_transaction_sends_total(network, reason, word).inc_by(0_u64);
                }
                all.remembered_transactions(network).add(0_u64);
                all.remembered_transaction_bytes(network).add(0_u64);
            }
            Layer::Cl => {
                DOUBT_REASONS.iter().for_each(|why| all.doubtful_events_total(network, *why).inc_by(0_u64));
                PUBLISH_REASONS.iter().for_each(|why| all.publications_again_total(network, *why).inc_by(0_u64));
                all.told_again_total(network).inc_by(0_u64);
                all.kept_bytes(network).add(0_u64);
            }
        }
    }

    /// Begins the series of the notifications of this kind.
    pub fn begin_notifications(&self, kind: &str) {
        self.notified(kind, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::method::Method, metrics::CallOutcome};

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(|_| {})).unwrap()
    }

    #[test]
    fn counters_of_known_labels_are_there_at_zero() {
        let metrics = Metrics::new();
        metrics.begin_side("default", Layer::El);
        metrics.begin_side("default", Layer::Cl);
        let text = text(&metrics);
        for line in [
            "steadfast_slow_clients_closed_total 0",
            "steadfast_http_connections_refused_total 0",
            "steadfast_ws_connections_refused_total 0",
            r#"steadfast_reloads_total{outcome="refused"} 0"#,
            "steadfast_spans_exported_total 0",
            r#"steadfast_spans_lost_total{reason="queue_full"} 0"#,
            r#"steadfast_client_connections_ended_total{reason="slow_reader"} 0"#,
            r#"steadfast_switches_total{layer="el",network="default",reason="down"} 0"#,
            r#"steadfast_gaps_skipped_total{network="default"} 0"#,
            r#"steadfast_logs_given_up_total{network="default"} 0"#,
            r#"steadfast_filters_dropped_total{network="default",reason="gap"} 0"#,
            r#"steadfast_publications_again_total{network="default",reason="lost"} 0"#,
            r#"steadfast_subscriptions{kind="logs"} 0"#,
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
    }

    #[test]
    fn counts_stay_when_a_side_begins_again() {
        let metrics = Metrics::new();
        let _held = metrics.hold("default", "el");
        metrics.switched("default", "el", "start");
        metrics.begin_side("default", Layer::El);
        let text = text(&metrics);
        assert!(text.contains("steadfast_held_calls{layer=\"el\",network=\"default\"} 1\n"), "{text}");
        assert!(text.contains("reason=\"start\"} 1\n"), "{text}");
    }

    #[test]
    fn a_method_has_all_its_outcomes_from_its_first_call() {
        let metrics = Metrics::new();
        metrics.calls("default", "el").ended(&Method::of("eth_call"), CallOutcome::Result, 0.1);
        let text = text(&metrics);
        for (outcome, count) in [("result", 1), ("no_node", 0), ("deadline", 0)] {
            let line = format!(r#"{{layer="el",method="eth_call",network="default",outcome="{outcome}"}} {count}"#);
            assert!(text.contains(&line), "{line}\n{text}");
        }
    }
}
