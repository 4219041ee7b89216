//! The cluster: this replica's part, and the view. Absent where the proxy is alone.

use prometric::prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{Metrics, register};

/// Seconds of a heartbeat: from a server next door to one that does not answer in time.
const HEARTBEAT: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0];

/// Counters of the cluster.
pub(super) struct Cluster {
    transitions: IntCounterVec,
    fences: IntCounterVec,
    cas_lost: IntCounterVec,
    view_changes: IntCounterVec,
    store_failures: IntCounterVec,
    unreadable: IntCounterVec,
    heights_doubted: IntCounterVec,
    heartbeat: HistogramVec,
}

impl Cluster {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(name, help), labels).expect("the names are constants");
            register(registry, counter)
        };
        let heartbeat = HistogramOpts::new(
            "steadfast_cluster_heartbeat_seconds",
            "From the sending of a heartbeat to the store's answer, or to the end of the wait for it.",
        );
        let heartbeat = HistogramVec::new(heartbeat.buckets(HEARTBEAT.to_vec()), &[]);
        Self {
            transitions: counter(
                "steadfast_cluster_transitions_total",
                "Changes of this replica's part in the election, by the part before and after; the words are those \
                 of `cluster.role` in STATUS.md.",
                &["from", "to"],
            ),
            fences: counter(
                "steadfast_cluster_fences_total",
                "Times that this replica ceased to lead without having given the lease away. `reason`: `lease_expired` \
                 (heartbeats were not stored in time), `watch_silent` (they did not come back), `taken` (another \
                 replica leads), `replaced` (a later process has this name), `deleted`, `recreated` (the bucket is \
                 another), `new_life`, `hook_failed`, `yield_timeout`.",
                &["reason"],
            ),
            cas_lost: counter(
                "steadfast_cluster_cas_lost_total",
                "Writes to the store that another writer was faster than.",
                &[],
            ),
            view_changes: counter("steadfast_cluster_view_changes_total", "Views that this replica has seen.", &[]),
            store_failures: counter(
                "steadfast_cluster_store_failures_total",
                "Requests to the store without an answer in time, and connections that did not come about.",
                &[],
            ),
            unreadable: counter(
                "steadfast_cluster_unreadable_total",
                "Entries of the bucket that could not be read, and heartbeats that were left out because there are more \
                 than 256.",
                &[],
            ),
            heights_doubted: counter(
                "steadfast_cluster_heights_doubted_total",
                "Heights of other replicas that were not taken over, since no node of this replica is near.",
                &[],
            ),
            heartbeat: register(registry, heartbeat.expect("the names are constants")),
        }
    }
}

impl Metrics {
    /// Has the counters of the cluster at 0.
    pub fn begin_cluster(&self) {
        let Cluster {
            transitions: _,
            fences,
            cas_lost,
            view_changes,
            store_failures,
            unreadable,
            heights_doubted,
            heartbeat,
        } = &self.cluster;
        const REASONS: [&str; 9] = [
            "lease_expired",
            "watch_silent",
            "taken",
            "recreated",
            "deleted",
            "hook_failed",
            "replaced",
            "new_life",
            "yield_timeout",
        ];
        for reason in REASONS {
            fences.with_label_values(&[reason]).inc_by(0);
        }
        let none: &[&str] = &[];
        for counter in [cas_lost, view_changes, store_failures, unreadable, heights_doubted] {
            counter.with_label_values(none).inc_by(0);
        }
        heartbeat.with_label_values(none);
    }

    /// This replica's part in the election changed.
    pub fn cluster_changed(&self, from: &str, to: &str) {
        self.cluster.transitions.with_label_values(&[from, to]).inc();
    }

    /// This replica ceased to lead, for this reason.
    pub fn cluster_fenced(&self, reason: &str) {
        self.cluster.fences.with_label_values(&[reason]).inc();
    }

    /// A write was lost to another writer.
    pub fn cluster_cas_lost(&self) {
        self.cluster.cas_lost.with_label_values::<&str>(&[]).inc();
    }

    /// There is a new view.
    pub fn cluster_view_changed(&self) {
        self.cluster.view_changes.with_label_values::<&str>(&[]).inc();
    }

    /// A request to the store failed.
    pub fn cluster_store_failed(&self) {
        self.cluster.store_failures.with_label_values::<&str>(&[]).inc();
    }

    /// An entry of the bucket could not be read.
    pub fn cluster_unreadable(&self) {
        self.cluster.unreadable.with_label_values::<&str>(&[]).inc();
    }

    /// A height of another replica is not believed.
    pub fn cluster_height_doubted(&self) {
        self.cluster.heights_doubted.with_label_values::<&str>(&[]).inc();
    }

    /// A heartbeat ended, these seconds after it was sent.
    pub fn cluster_heartbeat(&self, seconds: f64) {
        self.cluster.heartbeat.with_label_values::<&str>(&[]).observe(seconds);
    }
}

/// The gauges that are written anew at every scrape.
pub struct ClusterFacts {
    /// 1 for this replica's part in the election, 0 for every other.
    pub role: IntGaugeVec,
    /// Whether this replica leads and may begin work.
    pub leading: IntGaugeVec,
    /// This replica's life.
    pub epoch: IntGaugeVec,
    /// The newest term that this replica knows.
    pub term: IntGaugeVec,
    /// The newest view's number.
    pub view: IntGaugeVec,
    /// The age of this replica's knowledge.
    pub copy_age: IntGaugeVec,
    /// The replicas of the view.
    pub replicas: IntGaugeVec,
    /// Replicas by their verdict on a node.
    pub verdicts: IntGaugeVec,
    /// The operator's wishes.
    pub wishes: IntGaugeVec,
    /// The wishes that a replica has not applied.
    pub wishes_unapplied: IntGaugeVec,
}

impl ClusterFacts {
    pub(super) fn new(gauge: impl Fn(&str, &str, &[&str]) -> IntGaugeVec) -> Self {
        Self {
            role: gauge(
                "cluster_role",
                "1 for this replica's part in the election, 0 for every other; the words are those of `cluster.role` \
                 in STATUS.md.",
                &["role"],
            ),
            leading: gauge("cluster_leading", "Whether this replica leads: 1 or 0, as `GET /leader` says.", &[]),
            epoch: gauge("cluster_epoch", "The number of this replica's life; higher for each start.", &[]),
            term: gauge("cluster_term", "The newest term that this replica knows; higher for each leader.", &[]),
            view: gauge("cluster_view", "The number of the newest view that this replica knows.", &[]),
            copy_age: gauge(
                "cluster_copy_age_seconds",
                "Time since the store last told this replica anything: the age of all that is known of the cluster.",
                &[],
            ),
            replicas: gauge(
                "cluster_replicas",
                "Replicas in the view, by standing: `active`, `draining`, `left`, `failed`.",
                &["state"],
            ),
            verdicts: gauge(
                "cluster_node_verdicts",
                "Replicas that hold this verdict on the node; the words are those of `node.verdict` in STATUS.md.",
                &["network", "node", "layer", "verdict"],
            ),
            wishes: gauge(
                "cluster_wishes",
                "The operator's wishes for all replicas: `obeyed`; `unreadable`, which change nothing; `ignored`, since \
                 there are more than 64.",
                &["state"],
            ),
            wishes_unapplied: gauge(
                "cluster_wishes_unapplied",
                "Wishes that this active replica has not applied, or that have ended and that it still applies, as \
                 the scraped replica knows.",
                &["replica"],
            ),
        }
    }

    pub(super) fn all(&self) -> [&IntGaugeVec; 10] {
        let Self { role, leading, epoch, term, view, copy_age, replicas, verdicts, wishes, wishes_unapplied } = self;
        [role, leading, epoch, term, view, copy_age, replicas, verdicts, wishes, wishes_unapplied]
    }
}
