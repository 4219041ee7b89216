//! The instruments. All carry the prefix `steadfast_`, but for those of the process; every label
//! takes its values from a bounded set.
//!
//! Calls count through handles that are looked up once, since a call must not allocate for its
//! labels. Gauges of nodes are written at the moment of a scrape from the pools' snapshots, so that
//! a gauge cannot disagree with the status or outlive its node.

mod begin;
mod calls;
mod chain;
mod clients;
mod cluster;
mod facts;
mod filters;
mod guard;
mod instruments;
mod labels;
mod live;
mod node;
mod outbox;
mod process;
mod publications;
#[cfg(test)]
mod reference;
mod spans;
mod tally;
mod throttle;
mod transactions;

use std::{
    collections::BTreeSet,
    sync::{Mutex, OnceLock, PoisonError, atomic::AtomicU64},
};

use prometric::prometheus::{
    self, Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder,
    proto::{LabelPair, Metric, MetricFamily},
};

pub use self::{
    calls::CallMetrics,
    cluster::ClusterFacts,
    facts::NodeGauges,
    labels::{AttemptOutcome, CallOutcome, Ended, Payer, Replay, SpanLoss},
    node::{CreditMetrics, LinkMetrics, NodeLabels, NodeMetrics},
    outbox::{DeliveryOutcome, OutboxFacts},
    tally::{CallTally, Tally},
    throttle::{Burst, Throttle},
    transactions::SendReason,
};
use self::{guard::Guard, instruments::Instruments, labels::switch_reasons, live::Live, node::Nodes};

use crate::domain::{beacon_route::Route, method::Method};

/// Seconds, from a local node's tens of microseconds to a long trace.
const BUCKETS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Everything that is measured.
pub struct Metrics {
    registry: Registry,
    instruments: Instruments,
    live: Live,
    calls: IntCounterVec,
    call_duration: HistogramVec,
    nodes: Nodes,
    outbox: outbox::Outbox,
    cluster: cluster::Cluster,
    /// Messages of client WebSockets: in, and out.
    messages: [IntCounter; 2],
    facts: Mutex<NodeGauges>,
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
        let instruments = Instruments::builder().with_registry(&registry).build();
        instruments.build_info(env!("CARGO_PKG_VERSION")).set(1_u64);
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("the names are constants");
            register(&registry, counter)
        };
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            let options = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
            register(&registry, HistogramVec::new(options, labels).expect("the names are constants"))
        };
        let facts = NodeGauges::new();
        for gauge in facts.all() {
            register(&registry, gauge.clone());
        }
        let messages = counter(
            "steadfast_ws_messages_total",
            "Messages of client WebSockets: `in`, `out` (to clients).",
            &["direction"],
        );
        let metrics = Self {
            messages: ["in", "out"].map(|direction| messages.with_label_values(&[direction])),
            calls: counter(
                "steadfast_calls_total",
                "Calls, and requests to the beacon API by group of routes. `outcome`: `result`, `node_error` (an \
                 error that a node returned, such as a revert), `refused` (an error of the proxy's own without a \
                 word here: a blocked method, a limit, all nodes at rest for quota), `no_node` (no node could \
                 serve within `calls.hold`), `attempts_failed` (nodes may serve, and all attempts at them \
                 failed), `deadline` (no answer within `calls.timeout`), `outcome_unknown` (the call may have had \
                 its effect, and its answer was lost), `client_gone` (the client left before its answer).",
                &["network", "layer", "method", "outcome"],
            ),
            call_duration: histogram(
                "steadfast_call_duration_seconds",
                "From a call's arrival to the head of its answer.",
                &["network", "layer"],
            ),
            nodes: Nodes::new(&registry),
            outbox: outbox::Outbox::new(&registry),
            cluster: cluster::Cluster::new(&registry),
            facts: Mutex::new(facts),
            memory: OnceLock::new(),
            memory_refused: AtomicU64::new(0),
            gone: Mutex::default(),
            live: Live::builder().with_registry(&registry).build(),
            instruments,
            registry,
        };
        metrics.begin();
        metrics
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
        debug_assert!(switch_reasons().any(|known| known == reason), "{reason} does not begin at 0");
        self.instruments.switches_total(network, layer, reason).inc();
    }

    /// A reload of the configuration was applied or refused.
    pub fn reloaded(&self, applied: bool) {
        self.instruments.reloads_total(if applied { "applied" } else { "refused" }).inc();
    }

    /// A name of nodes was looked up.
    pub fn looked_up(&self, found: bool) {
        self.instruments.dns_lookups_total(if found { "found" } else { "failed" }).inc();
    }

    /// Counts a call as waiting for as long as the guard lives.
    pub fn hold(&self, network: &str, layer: &str) -> impl Drop + use<> {
        Guard::new(self.instruments.held_calls.clone(), vec![network.to_owned(), layer.to_owned()])
    }

    /// Everything in Prometheus's text format. `fill` writes the present state of the nodes; a
    /// series that it does not write is gone.
    pub fn render(&self, fill: impl FnOnce(&NodeGauges)) -> Vec<u8> {
        let facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        for gauge in facts.all() {
            gauge.reset();
        }
        fill(&facts);
        self.note_memory();
        let mut text = Vec::new();
        let families: Vec<MetricFamily> = process::families().into_iter().chain(self.present()).collect();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&families, &mut text);
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

    fn text(metrics: &Metrics, fill: impl FnOnce(&NodeGauges)) -> String {
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
