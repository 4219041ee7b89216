//! Writes `docs/METRICS.md`, and holds the page to the instruments:
//!
//! ```text
//! UPDATE=1 cargo test --lib metrics::reference
//! ```

use std::{fmt::Write as _, path::Path};

use prometric::prometheus::{
    core::Collector as _,
    proto::{MetricFamily, MetricType},
};

use super::{CallOutcome, Metrics, NodeLabels, process};
use crate::domain::{layer::Layer, method::Method};

const INTRODUCTION: &str = "# Metrics

`GET /metrics` on the admin side, for Prometheus; [deploy](../deploy/README.md) has alerts on them and a dashboard for Grafana.
This page is written by a test from the instruments in `src/metrics` (`UPDATE=1 cargo test --lib metrics::reference`).

- Labels have bounded values: methods are those of the table of known ones, or `other`. Series of a node have `network`,
  `layer` (`el` or `cl`) and `node`, and are gone when a reload removes the node.
- Series whose labels are known stand at 0 from the start, and a method has all its outcomes from its first call, so that
  `rate` and `increase` see the first rise of each.
- A histogram has `_bucket` (with the label `le`), `_sum` and `_count`.
- `process_…` are known on Linux only.

| Metric | Labels | Type | Unit | Meaning |
|---|---|---|---|---|
";

/// The metrics, each with one series at least.
fn all() -> Vec<MetricFamily> {
    let metrics = Metrics::new();
    let of = NodeLabels { network: "default", layer: "el", node: "geth-1" };
    for layer in [Layer::El, Layer::Cl] {
        metrics.begin_side(of.network, layer);
    }
    metrics.begin_notifications("head");
    metrics.calls(of.network, of.layer).ended(&Method::of("eth_call"), CallOutcome::Result, 0.0);
    metrics.reorg_depth(1);
    metrics.node(of);
    metrics.link(of);
    metrics.credits(of);
    metrics.outbox_transition(of.network, "default", "sent", &["sent"]);
    metrics.outbox_dispatched(of.network, 0.1);
    metrics.webhook_known("billing");
    metrics.begin_cluster();
    metrics.begin_shards(&["failed"]);
    metrics.cluster_changed("watching", "candidate");
    let facts = metrics.facts.lock().unwrap();
    for gauge in facts.all() {
        let labels = gauge.desc()[0].variable_labels.len();
        gauge.with_label_values(&vec![""; labels]);
    }
    metrics.note_memory();
    process::families().into_iter().chain(metrics.registry.gather()).collect()
}

/// The unit that a name tells.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or_default()
}

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for family in all() {
        let name = family.name();
        let mut labels: Vec<_> = family.get_metric()[0].get_label().iter().map(|label| label.name()).collect();
        labels.sort_by_key(|label| ["network", "layer", "node"].iter().position(|first| first == label).unwrap_or(3));
        let labels: Vec<_> = labels.into_iter().map(|label| format!("`{label}`")).collect();
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            _ => "gauge",
        };
        let (labels, unit, help) = (labels.join(", "), unit(name), family.help());
        assert!(help.ends_with('.') && !help.contains('|'), "the help of {name} is no sentence for a table: {help}");
        let _ = writeln!(page, "| `{name}` | {labels} | {kind} | {unit} | {help} |");
    }
    page
}

#[test]
fn the_page_of_metrics_is_that_of_the_instruments() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/METRICS.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &page).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = page.lines().zip(written.lines().chain(std::iter::repeat(""))).find(|(made, read)| made != read);
    assert_eq!(differs, None, "docs/METRICS.md is not what the instruments say: run this test with UPDATE=1");
    assert_eq!(page, written);
}

#[test]
fn counters_and_units_are_named_by_the_rules_of_prometheus() {
    for family in all() {
        let name = family.name();
        let is_counter = family.get_field_type() == MetricType::COUNTER;
        assert_eq!(name.ends_with("_total"), is_counter || name == "steadfast_ws_connections_total", "{name}");
        assert!(!["_ms", "_millis", "_kb"].iter().any(|end| name.ends_with(end)), "{name}");
    }
}
