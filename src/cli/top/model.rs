//! The snapshots of the admin side's `/events`, and the rates between them.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

/// The shown part of a snapshot.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Snapshot {
    pub(super) uptime_ms: u64,
    pub(super) status: Status,
    pub(super) switches: Vec<Switch>,
    calls: Vec<Calls>,
    attempts: Vec<Attempts>,
    pub(super) clients: Clients,
}

/// The proxy as a whole.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Status {
    pub(super) version: String,
    pub(super) ready: bool,
    pub(super) draining: bool,
    networks: Vec<Network>,
}

#[derive(Clone, Debug, Deserialize)]
struct Network {
    name: String,
    el: Option<Side>,
    cl: Option<Side>,
}

/// A side of a network.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Side {
    pub(super) head: Option<u64>,
    pub(super) active: Option<String>,
    pub(super) calls_wait: bool,
    pub(super) degraded: bool,
    pub(super) serves: bool,
    pub(super) failover: bool,
    pub(super) nodes: Vec<Node>,
}

/// A node.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) tier: String,
    pub(super) reason: String,
    pub(super) usable: bool,
    pub(super) cordoned: bool,
    pub(super) head: Option<u64>,
    pub(super) lag: Option<u64>,
    pub(super) latency_ms: Option<f64>,
    pub(super) in_flight: u64,
    pub(super) last_error: Option<LastError>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct LastError {
    pub(super) message: String,
    pub(super) seconds_ago: u64,
}

/// Calls that came to go elsewhere.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Switch {
    pub(super) network: String,
    pub(super) layer: String,
    pub(super) from: Option<String>,
    pub(super) to: Option<String>,
    pub(super) reason: String,
    pub(super) at_ms: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Calls {
    network: String,
    layer: String,
    held: u64,
    outcomes: BTreeMap<String, u64>,
    methods: Vec<(String, u64, u64)>,
}

#[derive(Clone, Debug, Deserialize)]
struct Attempts {
    network: String,
    layer: String,
    node: String,
    answered: u64,
    failed: u64,
}

/// The clients.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Clients {
    pub(super) http: u64,
    pub(super) websockets: u64,
    pub(super) subscriptions: BTreeMap<String, u64>,
    pub(super) event_streams: u64,
    pub(super) memory_bytes: u64,
    pub(super) memory_limit_bytes: u64,
}

/// The place of a node: its network, its layer, its name.
pub(super) type Place = [String; 3];

impl Snapshot {
    /// Each side with its network's name and its layer.
    pub(super) fn sides(&self) -> impl Iterator<Item = (&str, &'static str, &Side)> {
        self.status.networks.iter().flat_map(|network| {
            let sides = [("el", &network.el), ("cl", &network.cl)];
            sides.into_iter().filter_map(|(layer, side)| Some((&*network.name, layer, side.as_ref()?)))
        })
    }

    /// The nodes in the order of the screen.
    pub(super) fn places(&self) -> Vec<(Place, &Node)> {
        let of = |(network, layer, side): (&str, &'static str, _)| {
            let side: &Side = side;
            let place = |node: &Node| [network.to_owned(), layer.to_owned(), node.name.clone()];
            side.nodes.iter().map(|node| (place(node), node)).collect::<Vec<_>>()
        };
        self.sides().flat_map(of).collect()
    }

    /// Calls that wait now because no node can serve.
    pub(super) fn held(&self) -> u64 {
        self.calls.iter().map(|calls| calls.held).sum()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts { at: self.uptime_ms, ..Counts::default() };
        for Calls { network, layer, outcomes, methods, .. } in &self.calls {
            let all = outcomes.values().sum();
            let unanswered = methods.iter().map(|(_, _, unanswered)| unanswered).sum();
            counts.calls.insert([network.clone(), layer.clone()], [all, unanswered]);
        }
        for Attempts { network, layer, node, answered, failed } in &self.attempts {
            counts.attempts.insert([network.clone(), layer.clone(), node.clone()], answered + failed);
        }
        counts
    }
}

/// Counts since the proxy began.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// Milliseconds since the proxy began.
    at: u64,
    /// By network and layer: all calls, and those that no node answered.
    calls: BTreeMap<[String; 2], [u64; 2]>,
    attempts: BTreeMap<Place, u64>,
}

/// The time over which rates are taken, in milliseconds.
const SPAN: u64 = 5_000;

/// Rates between the snapshots of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Rates {
    counts: VecDeque<Counts>,
}

impl Rates {
    /// Takes the counts of a snapshot. A proxy that was started anew counts anew.
    pub(super) fn add(&mut self, snapshot: &Snapshot) {
        let counts = snapshot.counts();
        if self.counts.back().is_some_and(|last| counts.at < last.at) {
            self.counts.clear();
        }
        // The oldest is as old as the span, or a little older.
        while self.counts.len() > 1 && self.counts[1].at + SPAN <= counts.at {
            self.counts.pop_front();
        }
        self.counts.push_back(counts);
    }

    /// Calls per second of a side, and those that no node answered; `None` while there is one
    /// snapshot only.
    pub(super) fn calls(&self, network: &str, layer: &str) -> Option<[f64; 2]> {
        let key = [network.to_owned(), layer.to_owned()];
        let of = |counts: &Counts, at: usize| counts.calls.get(&key).map_or(0, |both| both[at]);
        Some([self.rate(|counts| of(counts, 0))?, self.rate(|counts| of(counts, 1))?])
    }

    /// Calls per second of all sides, and those that no node answered.
    pub(super) fn all_calls(&self) -> Option<[f64; 2]> {
        let of = |counts: &Counts, at: usize| counts.calls.values().map(|both| both[at]).sum();
        Some([self.rate(|counts| of(counts, 0))?, self.rate(|counts| of(counts, 1))?])
    }

    /// Attempts per second at a node.
    pub(super) fn attempts(&self, place: &Place) -> Option<f64> {
        self.rate(|counts| counts.attempts.get(place).copied().unwrap_or(0))
    }

    fn rate(&self, of: impl Fn(&Counts) -> u64) -> Option<f64> {
        let (first, last) = (self.counts.front()?, self.counts.back()?);
        let millis = last.at.checked_sub(first.at).filter(|millis| *millis > 0)?;
        Some(of(last).saturating_sub(of(first)) as f64 * 1000.0 / millis as f64)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn snapshot(at: u64, calls: u64) -> Snapshot {
        let clients = json!({ "http": 0, "websockets": 0, "subscriptions": {}, "event_streams": 0, "memory_bytes": 0, "memory_limit_bytes": 0 });
        let told = json!({
            "uptime_ms": at, "switches": [], "clients": clients,
            "status": { "version": "1", "ready": true, "draining": false, "networks": [] },
            "calls": [{ "network": "a", "layer": "el", "held": 0, "outcomes": { "result": calls, "failed": calls },
                        "methods": [["eth_call", 2 * calls, calls]] }],
            "attempts": [{ "network": "a", "layer": "el", "node": "n", "answered": calls, "failed": 0 }],
        });
        serde_json::from_value(told).unwrap()
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let mut rates = Rates::default();
        rates.add(&snapshot(1000, 10));
        assert_eq!(rates.all_calls(), None);
        // A busy second, and nothing from then on.
        rates.add(&snapshot(2000, 30));
        assert_eq!(rates.calls("a", "el"), Some([40.0, 20.0]));
        assert_eq!(rates.attempts(&["a", "el", "n"].map(str::to_owned)), Some(20.0));
        assert_eq!(rates.calls("a", "cl"), Some([0.0, 0.0]));
        for at in 3..=7 {
            rates.add(&snapshot(at * 1000, 30));
        }
        assert_eq!(rates.all_calls(), Some([0.0, 0.0]));
        // Started anew.
        rates.add(&snapshot(500, 1));
        assert_eq!(rates.all_calls(), None);
    }
}
