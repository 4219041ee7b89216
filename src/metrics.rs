//! The instruments. All carry the prefix `steadfast_`; every label takes its values from a bounded
//! set.
//!
//! Calls count through handles that are looked up once, since a call must not allocate for its
//! labels. Gauges of nodes are written at the moment of a scrape from the pools' snapshots, so that
//! a gauge cannot disagree with the status or outlive its node.

mod calls;
mod chain;
mod clients;
mod facts;
mod filters;
mod guard;
mod labels;
mod live;
mod node;
mod publications;
mod tally;
mod throttle;

use std::{
    collections::BTreeSet,
    sync::{Mutex, OnceLock, PoisonError, atomic::AtomicU64},
};

use prometric::{
    Counter, Gauge,
    prometheus::{
        self, Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
        proto::{LabelPair, Metric, MetricFamily},
    },
};
use prometric_derive::metrics;

pub use self::{
    calls::CallMetrics,
    facts::Facts,
    labels::{AttemptOutcome, CallOutcome, Ended, Replay},
    node::{LinkMetrics, NodeLabels, NodeMetrics},
    tally::{CallTally, Tally},
    throttle::Throttle,
};
use self::{guard::Guard, live::Live, node::Nodes};

use crate::domain::{beacon_route::Route, method::Method};

/// Seconds, from a local node's tens of microseconds to a long trace.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

#[metrics(scope = "steadfast")]
struct Plain {
    /// Times that the active node changed, by the reason for leaving the one before.
    #[metric(labels = ["network", "layer", "reason"])]
    switches_total: Counter,
    /// Event streams of the beacon API open now.
    #[metric]
    sse_streams: Gauge,
    /// Events and notifications sent, counted for every client, by topic or kind of subscription.
    #[metric(labels = ["kind"])]
    notifications_total: Counter,
    /// Blocks that no stream had told: made up from their headers, or fetched from a node.
    #[metric(labels = ["network"])]
    backfilled_blocks_total: Counter,
    /// Reorganisations told to clients.
    #[metric(labels = ["network"])]
    reorgs_total: Counter,
    /// Gaps in what a network's clients are told that could not be filled.
    #[metric(labels = ["network"])]
    gaps_skipped_total: Counter,
    /// Events that nodes could not bear out, by reason: no_header or ahead.
    ///
    /// no_header: a head, told though no node gave its header in time; ahead: of a slot that lies
    /// ahead of the clock, not told.
    #[metric(labels = ["network", "reason"])]
    doubtful_events_total: Counter,
    /// Blocks whose logs no node gave in time, so that clients whom they may have concerned were
    /// closed.
    #[metric(labels = ["network"])]
    logs_given_up_total: Counter,
    /// Logs that nodes wrote in a way that is not the API's.
    #[metric(labels = ["network"])]
    odd_logs_total: Counter,
    /// Blocks with logs that their headers' bloom filters do not have.
    #[metric(labels = ["network"])]
    bloom_contradictions_total: Counter,
    /// Filters that clients poll, open now, by what they are about: blocks, logs or transactions.
    #[metric(labels = ["network", "kind"])]
    filters: Gauge,
    /// Bytes that the filters that clients poll take themselves.
    #[metric(labels = ["network"])]
    filter_bytes: Gauge,
    /// Bytes that are kept for filters that were not polled since.
    #[metric(labels = ["network"])]
    filter_backlog_bytes: Gauge,
    /// Filters that were dropped, by reason: timeout, backlog, gap or too_long.
    ///
    /// timeout: not polled for too long; backlog: too far behind; gap: blocks or logs cannot be
    /// had; too_long: one block brought more than can be sent in one answer.
    #[metric(labels = ["network", "reason"])]
    filters_dropped_total: Counter,
    /// Filters that were not made, by the limit that was reached.
    #[metric(labels = ["network", "reason"])]
    filters_refused_total: Counter,
    /// Clients cut off because they did not take what was sent to them.
    #[metric]
    slow_clients_closed_total: Counter,
    /// Calls that wait now because no node can serve.
    #[metric(labels = ["network", "layer"])]
    held_calls: Gauge,
    /// Times that a signed message was given to one more node, by the reason at the node before.
    ///
    /// lost, refused, unreachable, late; out: the node went out; doubtful: the node hung over such
    /// messages before; unknown_block: the node does not know the block that the message refers to.
    #[metric(labels = ["network", "reason"])]
    publications_again_total: Counter,
    /// Messages for all nodes that a node was sent again, as it had been away or had begun anew.
    #[metric(labels = ["network"])]
    told_again_total: Counter,
    /// Bytes of messages for all nodes, of the last two epochs, kept for nodes that return.
    #[metric(labels = ["network"])]
    kept_bytes: Gauge,
    /// Client HTTP connections open now.
    #[metric]
    http_connections: Gauge,
    /// Client HTTP connections ever opened.
    #[metric]
    http_connections_total: Counter,
    /// Client HTTP connections closed at once, because max_connections was reached.
    #[metric]
    http_connections_refused_total: Counter,
    /// Bytes that clients make the proxy hold now, as far as they are counted.
    #[metric]
    client_memory_bytes: Gauge,
    /// Bytes that clients may make the proxy hold: max_client_memory.
    #[metric]
    client_memory_limit_bytes: Gauge,
    /// Times that a client was refused because max_client_memory was reached.
    #[metric]
    client_memory_refused_total: Counter,
    /// Client connections that the proxy ended by itself, by reason.
    ///
    /// silent: no request in the first 20 s; idle; crowded: longest idle when there were as many as
    /// may be; share: busy then, of the address that had most; slow_request: a request that came
    /// too slowly; slow_reader: an answer that was taken too slowly; memory: held most when
    /// max_client_memory was reached.
    #[metric(labels = ["reason"])]
    client_connections_ended_total: Counter,
    /// Reloads of the configuration, by outcome.
    #[metric(labels = ["outcome"])]
    reloads_total: Counter,
    /// The version that runs; always 1.
    #[metric(labels = ["version"])]
    build_info: Gauge,
}

/// Everything that is measured.
pub struct Metrics {
    registry: Registry,
    plain: Plain,
    live: Live,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    nodes: Nodes,
    /// Messages of client WebSockets: in, and out.
    messages: [IntCounter; 2],
    facts: Mutex<Facts>,
    /// Bytes that clients make the proxy hold, how many there may be, and how often some were
    /// refused.
    memory: OnceLock<Box<dyn Fn() -> [usize; 3] + Send + Sync>>,
    /// The refusals that the counter has.
    memory_refused: AtomicU64,
    /// Networks that are served no longer: what was counted of them is not shown.
    gone: Mutex<BTreeSet<String>>,
}

impl Metrics {
    /// Instruments with a registry of their own.
    pub fn new() -> Self {
        let registry = Registry::new();
        let plain = Plain::builder().with_registry(&registry).build();
        plain.build_info(env!("CARGO_PKG_VERSION")).set(1_u64);
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("the names are constants");
            register(&registry, counter)
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            register(&registry, HistogramVec::new(options, labels).expect("the names are constants"))
        };
        let facts = Facts::new();
        for gauge in facts.all() {
            register(&registry, gauge.clone());
        }
        let messages = counter(
            "steadfast_ws_messages_total",
            "Messages of client WebSockets, by direction: in or out",
            &["direction"],
        );
        Self {
            messages: ["in", "out"].map(|direction| messages.with_label_values(&[direction])),
            calls: counter("steadfast_calls_total", "Calls answered", &["network", "layer", "method", "outcome"]),
            call_duration: histogram(
                "steadfast_call_duration_seconds",
                "From a call's arrival to the head of its answer, in seconds",
                &["network", "layer"],
            ),
            nodes: Nodes::new(&registry),
            facts: Mutex::new(facts),
            memory: OnceLock::new(),
            memory_refused: AtomicU64::new(0),
            gone: Mutex::default(),
            live: Live::builder().with_registry(&registry).build(),
            plain,
            registry,
        }
    }

    /// The handles for the calls of one side of a network.
    pub fn calls(&self, network: &str, layer: &str) -> CallMetrics {
        CallMetrics {
            network: network.into(),
            layer: layer.into(),
            total: self.calls.clone(),
            duration: self.call_duration.with_label_values(&[network, layer]),
            cells: (0..(Method::COUNT + 1).max(Route::GROUPS.len()))
                .map(|_| [const { OnceLock::new() }; CallOutcome::ALL.len()])
                .collect(),
        }
    }

    /// The active node of a side changed.
    pub fn switched(&self, network: &str, layer: &str, reason: &str) {
        self.plain.switches_total(network, layer, reason).inc();
    }

    /// A reload of the configuration was applied or refused.
    pub fn reloaded(&self, applied: bool) {
        self.plain.reloads_total(if applied { "applied" } else { "refused" }).inc();
    }

    /// Counts a call as waiting for as long as the guard lives.
    pub fn hold(&self, network: &str, layer: &str) -> impl Drop + use<> {
        Guard::new(self.plain.held_calls.clone(), vec![network.to_owned(), layer.to_owned()])
    }

    /// Everything in Prometheus's text format. `fill` writes the present state of the nodes; a
    /// series that it does not write is gone.
    pub fn render(&self, fill: impl FnOnce(&Facts)) -> Vec<u8> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        for gauge in facts.all() {
            gauge.reset();
        }
        fill(&facts);
        self.note_memory();
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.present(), &mut text);
        text
    }

    /// From now on these networks are served. Calls to others may still end, but are shown no more.
    pub fn serve(&self, networks: &[&str]) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let families = self.registry.gather();
        let known = families.iter().flat_map(|family| family.get_metric()).filter_map(network_of);
        *gone = known.filter(|network| !networks.contains(network)).map(str::to_owned).collect();
    }

    /// The series of the networks that are served, and of all networks together.
    fn present(&self) -> Vec<MetricFamily> {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let mut families = self.registry.gather();
        if !gone.is_empty() {
            for family in &mut families {
                family.mut_metric().retain(|metric| network_of(metric).is_none_or(|network| !gone.contains(network)));
            }
            families.retain(|family| !family.get_metric().is_empty());
        }
        families
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The network that a series is of.
fn network_of(metric: &Metric) -> Option<&str> {
    metric.get_label().iter().find(|label| label.name() == "network").map(LabelPair::value)
}

fn register<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics, fill: impl FnOnce(&Facts)) -> String {
        String::from_utf8(metrics.render(fill)).unwrap()
    }

    #[test]
    fn outcomes_stand_at_their_own_place() {
        for (place, outcome) in CallOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
        for (place, outcome) in AttemptOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }

    #[test]
    fn calls_are_counted_by_method_and_outcome() {
        let metrics = Metrics::new();
        let calls = metrics.calls("default", "el");
        calls.ended(&Method::of("eth_call"), CallOutcome::Result, 0.002);
        calls.ended(&Method::of("eth_call"), CallOutcome::Result, 0.002);
        calls.ended(&Method::of("my_secret_method"), CallOutcome::NoNode, 0.002);
        let of = NodeLabels { network: "default", layer: "el", node: "geth-1" };
        metrics.node(of).ended(AttemptOutcome::Timeout, 1.0);
        let text = text(&metrics, |_| {});
        for line in [
            r#"steadfast_calls_total{layer="el",method="eth_call",network="default",outcome="result"} 2"#,
            r#"steadfast_calls_total{layer="el",method="other",network="default",outcome="no_node"} 1"#,
            r#"steadfast_attempts_total{layer="el",network="default",node="geth-1",outcome="timeout"} 1"#,
            r#"steadfast_call_duration_seconds_count{layer="el",network="default"} 3"#,
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("my_secret_method"));
    }

    #[test]
    fn gauges_follow_their_guards_and_unwritten_facts_are_gone() {
        let metrics = Metrics::new();
        let guard = metrics.hold("default", "el");
        assert!(text(&metrics, |facts| facts.pool_head.with_label_values(&["default", "el"]).set(7)).contains("} 7"));
        let held = |n: u8| format!("steadfast_held_calls{{layer=\"el\",network=\"default\"}} {n}\n");
        assert!(text(&metrics, |_| {}).contains(&held(1)));
        drop(guard);
        let text = text(&metrics, |_| {});
        assert!(text.contains(&held(0)));
        assert!(!text.contains("pool_head{"));
    }
}
