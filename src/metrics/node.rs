//! The instruments of single nodes. All have the labels `network`, `layer` and `node`, and are gone
//! when their node is.

use prometric::prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::{AttemptOutcome, BUCKETS, Metrics, Payer, Replay, register};

/// Seconds, from a local node's half a millisecond to the longest that is usual for a probe.
const PROBE_BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0];

/// A node as labels name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLabels<'a> {
    /// The node's network.
    pub network: &'a str,
    /// The node's side of the network.
    pub layer: &'a str,
    /// The node's name.
    pub node: &'a str,
}

impl<'a> NodeLabels<'a> {
    fn all(self) -> [&'a str; 3] {
        [self.network, self.layer, self.node]
    }

    fn and(self, value: &'a str) -> [&'a str; 4] {
        [self.network, self.layer, self.node, value]
    }
}

/// Everything that is counted by node.
pub(super) struct Nodes {
    attempts: IntCounterVec,
    attempt_duration: HistogramVec,
    probe_duration: HistogramVec,
    link_up: IntGaugeVec,
    link_reconnects: IntCounterVec,
    link_mute: IntCounterVec,
    replays: IntCounterVec,
    credits: IntCounterVec,
}

impl Nodes {
    pub(super) fn new(registry: &Registry) -> Self {
        const NODE: [&str; 3] = ["network", "layer", "node"];
        const OUTCOME: [&str; 4] = ["network", "layer", "node", "outcome"];
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("the names are constants");
            register(registry, counter)
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            register(registry, HistogramVec::new(options, &NODE).expect("the names are constants"))
        };
        let up = Opts::new("steadfast_link_up", "Whether the WebSocket to the node is open: 1 or 0.");
        Self {
            attempts: counter(
                "steadfast_attempts_total",
                "Attempts at nodes. `outcome`: `answered` (with a result, or an error that is about the call), \
                 `node_fault` (with an answer that speaks of the node: HTTP 5xx, no JSON, an internal error, a \
                 method or state that the node lacks), `refused` (for quota or load: HTTP 429, 402, 503 with \
                 `Retry-After`, or words of that kind), `unreachable` (no connection, so that no byte was sent), \
                 `dropped` (the connection was lost before the answer was there), `timeout` (no answer in time), \
                 `abandoned` (the node was found to be out, or the client left before the call was sent).",
                &OUTCOME,
            ),
            attempt_duration: histogram(
                "steadfast_attempt_duration_seconds",
                "From an attempt's start to the beginning of its answer.",
                &BUCKETS,
            ),
            probe_duration: histogram(
                "steadfast_probe_duration_seconds",
                "Duration of probes, failed ones included.",
                &PROBE_BUCKETS,
            ),
            link_up: register(registry, IntGaugeVec::new(up, &NODE).expect("the names are constants")),
            link_reconnects: counter(
                "steadfast_link_reconnects_total",
                "Times that the WebSocket to the node was opened anew after it was lost.",
                &NODE,
            ),
            link_mute: counter(
                "steadfast_link_mute_total",
                "Times that the WebSocket to the node was closed because it announced no blocks although the node had new ones.",
                &NODE,
            ),
            credits: counter(
                "steadfast_node_credits_total",
                "Credits spent at a node that has a `budget`. `by`: `calls` (of clients, and of the outbox), `own` \
                 (for probes, other questions of the proxy's own, and what the node pushes).",
                &["network", "layer", "node", "by"],
            ),
            replays: counter(
                "steadfast_replays_total",
                "Subscriptions of the proxy's own asked for again on a new WebSocket to the node: `accepted`, \
                 `refused` (the node answered with an error), `lost` (the WebSocket was lost before the answer).",
                &OUTCOME,
            ),
        }
    }

    fn forget(&self, of: NodeLabels<'_>) {
        let Self { attempts, attempt_duration, probe_duration, link_up, link_reconnects, link_mute, replays, credits } =
            self;
        let node = of.all();
        // A series that there never was is as good as one that is gone.
        for outcome in AttemptOutcome::ALL {
            let _ = attempts.remove_label_values(&of.and(outcome.as_str()));
        }
        for outcome in Replay::ALL {
            let _ = replays.remove_label_values(&of.and(outcome.as_str()));
        }
        for payer in Payer::ALL {
            let _ = credits.remove_label_values(&of.and(payer.as_str()));
        }
        let _ = attempt_duration.remove_label_values(&node);
        let _ = probe_duration.remove_label_values(&node);
        let _ = link_up.remove_label_values(&node);
        let _ = link_reconnects.remove_label_values(&node);
        let _ = link_mute.remove_label_values(&node);
    }
}

impl Metrics {
    /// The handles for the probes of one node, and for the attempts at it.
    pub fn node(&self, of: NodeLabels<'_>) -> NodeMetrics {
        let Nodes { attempts, attempt_duration, probe_duration, .. } = &self.nodes;
        NodeMetrics {
            total: AttemptOutcome::ALL.map(|outcome| attempts.with_label_values(&of.and(outcome.as_str()))),
            duration: attempt_duration.with_label_values(&of.all()),
            probes: probe_duration.with_label_values(&of.all()),
        }
    }

    /// The handles for the credits of one node.
    pub fn credits(&self, of: NodeLabels<'_>) -> CreditMetrics {
        CreditMetrics(Payer::ALL.map(|payer| self.nodes.credits.with_label_values(&of.and(payer.as_str()))))
    }

    /// The handles for the WebSocket to one node, which is down until [`LinkMetrics::up`] says
    /// otherwise.
    pub fn link(&self, of: NodeLabels<'_>) -> LinkMetrics {
        let Nodes { link_up, link_reconnects, link_mute, replays, .. } = &self.nodes;
        LinkMetrics {
            up: link_up.with_label_values(&of.all()),
            reconnects: link_reconnects.with_label_values(&of.all()),
            mute: link_mute.with_label_values(&of.all()),
            replays: Replay::ALL.map(|outcome| replays.with_label_values(&of.and(outcome.as_str()))),
        }
    }

    /// The node is gone: so are its series, even where handles for them are left.
    pub fn forget_node(&self, of: NodeLabels<'_>) {
        self.nodes.forget(of);
    }
}

/// The counters of one node, without a look-up of labels.
#[derive(Clone)]
pub struct NodeMetrics {
    total: [IntCounter; AttemptOutcome::ALL.len()],
    duration: Histogram,
    probes: Histogram,
}

impl NodeMetrics {
    /// An attempt ended so, after that many seconds.
    pub fn ended(&self, outcome: AttemptOutcome, seconds: f64) {
        self.total[outcome as usize].inc();
        self.duration.observe(seconds);
    }

    /// A probe took that many seconds.
    pub fn probed(&self, seconds: f64) {
        self.probes.observe(seconds);
    }
}

/// The counters of the credits spent at one node.
#[derive(Clone)]
pub struct CreditMetrics([IntCounter; Payer::ALL.len()]);

impl CreditMetrics {
    /// This number of credits was spent.
    pub fn spent(&self, payer: Payer, credits: u32) {
        self.0[payer as usize].inc_by(credits.into());
    }
}

/// The counters of the WebSocket to one node.
#[derive(Clone)]
pub struct LinkMetrics {
    up: IntGauge,
    reconnects: IntCounter,
    mute: IntCounter,
    replays: [IntCounter; Replay::ALL.len()],
}

impl LinkMetrics {
    /// Counts the link as up for as long as the guard lives.
    pub fn up(&self) -> impl Drop + Send + use<> {
        self.up.inc();
        Up(self.up.clone())
    }

    /// Opened anew.
    pub fn relinked(&self) {
        self.reconnects.inc();
    }

    /// Found mute.
    pub fn mute(&self) {
        self.mute.inc();
    }

    /// A subscription of our own was asked for again.
    pub fn replayed(&self, outcome: Replay) {
        self.replays[outcome as usize].inc();
    }
}

/// A link that is up.
struct Up(IntGauge);

impl Drop for Up {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_node_that_is_gone_are_gone_for_good() {
        let metrics = Metrics::new();
        let of = |node| NodeLabels { network: "default", layer: "el", node };
        let (gone, stays) = (metrics.node(of("gone")), metrics.node(of("stays")));
        let link = metrics.link(of("gone"));
        let up = link.up();
        for node in [&gone, &stays] {
            node.ended(AttemptOutcome::Timeout, 1.0);
            node.probed(1.0);
        }
        link.replayed(Replay::Lost);
        let series = |name: &str| {
            let text = String::from_utf8(metrics.render(|_| {})).unwrap();
            text.lines()
                .filter(|line| line.contains(&format!("layer=\"el\",network=\"default\",node=\"{name}\"")))
                .count()
        };
        assert!(series("gone") > series("stays"));
        metrics.forget_node(of("gone"));
        assert_eq!(series("gone"), 0);
        // Calls under way there end.
        gone.ended(AttemptOutcome::Answered, 1.0);
        link.relinked();
        drop(up);
        assert_eq!(series("gone"), 0);
        assert!(series("stays") > 0);
    }
}
