//! How the calls of one side of a network ended.

use std::sync::OnceLock;

use prometric::prometheus::{Histogram, IntCounter, IntCounterVec};

use super::CallOutcome;
use crate::domain::{
    beacon_route::Route,
    method::{Method, MethodId},
};

/// The calls of one side of a network, counted without looking labels up.
pub struct CallMetrics {
    pub(super) network: String,
    pub(super) layer: String,
    pub(super) total: IntCounterVec,
    pub(super) duration: Histogram,
    /// By the place of the method, or of the route's group, in its table and the outcome; made at
    /// first use, so that only methods that were called show.
    pub(super) cells: Box<[[OnceLock<IntCounter>; CallOutcome::ALL.len()]]>,
}

impl CallMetrics {
    /// A call ended so, after that many seconds.
    pub fn ended(&self, method: &Method, outcome: CallOutcome, seconds: f64) {
        self.count(method.label, method.id, outcome, seconds);
    }

    /// A request to the beacon API ended so, after that many seconds. The method is the group of
    /// its route.
    pub fn rest_ended(&self, route: &Route, outcome: CallOutcome, seconds: f64) {
        self.count(route.group, route.id, outcome, seconds);
    }

    fn count(&self, label: &str, MethodId(index): MethodId, outcome: CallOutcome, seconds: f64) {
        let cell = |of: CallOutcome| self.total.with_label_values(&[&self.network, &self.layer, label, of.as_str()]);
        let make = || {
            // The method's first failure is then a rise from 0, and no series that has just begun.
            CallOutcome::ALL.into_iter().for_each(|other| drop(cell(other)));
            cell(outcome)
        };
        self.cells[index][outcome as usize].get_or_init(make).inc();
        self.duration.observe(seconds);
    }
}
