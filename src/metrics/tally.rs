//! The counts for the dashboard, read from the instruments.

use std::collections::BTreeMap;

use prometric::prometheus::proto::{Metric, MetricFamily};

use super::{AttemptOutcome, CallOutcome, Metrics};

/// Counts since the process began, and gauges of this moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// The calls by network and layer.
    pub calls: BTreeMap<[String; 2], CallTally>,
    /// Attempts by network, layer and node: those that the node answered, and the others.
    pub attempts: BTreeMap<[String; 3], [u64; 2]>,
    /// Client HTTP connections open now.
    pub connections: u64,
    /// Client WebSockets open now.
    pub websockets: u64,
    /// Their subscriptions, by kind.
    pub subscriptions: BTreeMap<String, u64>,
    /// Event streams of the beacon API open now.
    pub event_streams: u64,
    /// WebSockets and event streams that were closed because the client was too slow to read.
    pub slow_clients: u64,
    /// Reorganisations told to clients.
    pub reorganisations: u64,
    /// Bytes that clients make the proxy hold, and how many there may be.
    pub memory: [usize; 2],
}

/// The calls of one side of a network.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallTally {
    /// Calls that wait now because no node can serve.
    pub held: u64,
    /// By the word for how a call ended.
    pub outcomes: BTreeMap<String, u64>,
    /// By method: all, and those that no node answered.
    pub methods: BTreeMap<String, [u64; 2]>,
    /// Durations in seconds up to which calls are counted together.
    pub bounds: Vec<f64>,
    /// The calls that took no longer than each bound, and longer than the bound before; at the end
    /// the calls that took longer than all bounds.
    pub times: Vec<u64>,
}

/// The outcomes of calls that no node answered, though the client still wanted the answer.
const UNANSWERED: [CallOutcome; 4] =
    [CallOutcome::NoNode, CallOutcome::Failed, CallOutcome::Deadline, CallOutcome::OutcomeUnknown];

impl Metrics {
    /// The counts at this moment, of the networks that are served. Reads all instruments, as a
    /// scrape does.
    pub fn tally(&self) -> Tally {
        let families = self.present();
        let sum = |name: &str| series(&families, name).map(value).sum();
        let [held, limit, _] = self.memory.get().map_or([0; 3], |measure| measure());
        let mut tally = Tally {
            connections: sum("steadfast_http_connections"),
            websockets: sum("steadfast_ws_connections"),
            event_streams: sum("steadfast_sse_streams"),
            slow_clients: sum("steadfast_slow_clients_closed_total"),
            reorganisations: sum("steadfast_reorgs_total"),
            memory: [held, limit],
            ..Tally::default()
        };
        for metric in series(&families, "steadfast_subscriptions") {
            tally.subscriptions.insert(label(metric, "kind"), value(metric));
        }
        for metric in series(&families, "steadfast_held_calls") {
            tally.side(metric).held = value(metric);
        }
        for metric in series(&families, "steadfast_calls_total") {
            let (count, outcome) = (value(metric), label(metric, "outcome"));
            if count == 0 {
                continue;
            }
            let side = tally.side(metric);
            let [all, unanswered] = side.methods.entry(label(metric, "method")).or_default();
            *all += count;
            if UNANSWERED.iter().any(|word| word.as_str() == outcome) {
                *unanswered += count;
            }
            *side.outcomes.entry(outcome).or_default() += count;
        }
        for metric in series(&families, "steadfast_call_duration_seconds") {
            let side = tally.side(metric);
            let mut before = 0;
            for bucket in metric.get_histogram().get_bucket() {
                side.bounds.push(bucket.upper_bound());
                side.times.push(bucket.cumulative_count() - before);
                before = bucket.cumulative_count();
            }
            side.times.push(metric.get_histogram().get_sample_count().saturating_sub(before));
        }
        for metric in series(&families, "steadfast_attempts_total") {
            let node = ["network", "layer", "node"].map(|name| label(metric, name));
            let is_answered = label(metric, "outcome") == AttemptOutcome::Answered.as_str();
            tally.attempts.entry(node).or_default()[usize::from(!is_answered)] += value(metric);
        }
        tally
    }
}

impl Tally {
    fn side(&mut self, metric: &Metric) -> &mut CallTally {
        self.calls.entry(["network", "layer"].map(|name| label(metric, name))).or_default()
    }
}

/// All series of one name.
fn series<'a>(families: &'a [MetricFamily], name: &str) -> impl Iterator<Item = &'a Metric> {
    families.iter().filter(move |family| family.name() == name).flat_map(|family| family.get_metric())
}

/// The value of a counter or a gauge: a series has one of the two.
fn value(metric: &Metric) -> u64 {
    (metric.get_counter().value() + metric.get_gauge().value()) as u64
}

fn label(metric: &Metric, name: &str) -> String {
    let label = metric.get_label().iter().find(|label| label.name() == name);
    label.map_or_else(String::new, |label| label.value().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::method::Method, metrics::NodeLabels};

    #[test]
    fn a_tally_has_each_side_apart() {
        let metrics = Metrics::new();
        let (el, cl) = (metrics.calls("default", "el"), metrics.calls("default", "cl"));
        let method = Method::of("eth_call");
        el.ended(&method, CallOutcome::Result, 0.002);
        el.ended(&method, CallOutcome::NoNode, 100.0);
        cl.ended(&method, CallOutcome::Gone, 0.002);
        let _held = metrics.hold("default", "el");
        let node = metrics.node(NodeLabels { network: "default", layer: "el", node: "geth-1" });
        node.ended(AttemptOutcome::Answered, 0.1);
        node.ended(AttemptOutcome::Dropped, 0.1);
        let (_websocket, _subscription) = (metrics.websocket(), metrics.subscription("logs"));
        let tally = metrics.tally();
        let side = |layer: &str| &tally.calls[&["default".to_owned(), layer.to_owned()]];
        assert_eq!(side("el").held, 1);
        assert_eq!(side("el").methods["eth_call"], [2, 1]);
        assert_eq!(side("cl").methods["eth_call"], [1, 0]);
        assert_eq!(side("el").outcomes["result"], 1);
        assert_eq!(side("el").outcomes["no_node"], 1);
        assert_eq!(side("el").times.len(), side("el").bounds.len() + 1);
        assert_eq!((side("el").times[4], side("el").times.last()), (1, Some(&1)));
        assert_eq!(tally.attempts.values().collect::<Vec<_>>(), [&[1, 1]]);
        assert_eq!((tally.websockets, tally.subscriptions["logs"]), (1, 1));
    }
}
