//! `[health]`: how nodes are probed, and when nodes go out and come back.

use std::{num::NonZeroU32, time::Duration};

use super::reader::Reader;

/// When the proxy as a whole reports that it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// When one side of one network has a node that may serve.
    #[default]
    Any,
    /// When every side of every network has one.
    All,
}

/// How nodes are probed, and when the proxy reports that it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// From the start of one probe of a node to the start of its next.
    pub interval: Duration,
    /// Deadline of one probe.
    pub timeout: Duration,
    /// Consecutive failures that take a node out.
    pub fall: NonZeroU32,
    /// Consecutive good probes that bring a node back.
    pub rise: NonZeroU32,
    /// Blocks that an execution node may be behind the pool's head.
    pub max_lag_blocks: u64,
    /// Slots that a consensus node may be behind the pool's head.
    pub max_lag_slots: u64,
    /// From one lookup of the names whose addresses are nodes to the next.
    pub dns_interval: Duration,
    /// Whether the oldest blocks are searched of which a node has data, once the node lacked some.
    pub find_oldest_blocks: bool,
    /// When the proxy is ready.
    pub ready: Ready,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            fall: const { NonZeroU32::new(3).expect("not zero") },
            rise: const { NonZeroU32::new(2).expect("not zero") },
            max_lag_blocks: 5,
            max_lag_slots: 3,
            dns_interval: Duration::from_secs(10),
            find_oldest_blocks: true,
            ready: Ready::default(),
        }
    }
}

impl Health {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        let health = Self {
            interval: interval_if_set(&mut r, "interval").unwrap_or(default.interval),
            timeout: r.duration("timeout", default.timeout),
            fall: r.positive("fall", default.fall),
            rise: r.positive("rise", default.rise),
            max_lag_blocks: r.number("max_lag_blocks", default.max_lag_blocks),
            max_lag_slots: r.number("max_lag_slots", default.max_lag_slots),
            dns_interval: r.duration("dns_interval", default.dns_interval),
            find_oldest_blocks: r.boolean("find_oldest_blocks", default.find_oldest_blocks),
            ready: r.choice("ready", &[("any", Ready::Any), ("all", Ready::All)], default.ready),
        };
        r.check(
            health.timeout <= Duration::from_secs(60),
            "timeout",
            &[],
            "must not be longer than 1m: so long would a hanging node pass for a good one",
        );
        let hour = Duration::from_secs(60 * 60);
        r.check(
            (Duration::from_secs(1)..=hour).contains(&health.dns_interval),
            "dns_interval",
            &[],
            "must be from 1s to 1h",
        );
        health
    }
}

/// A time between two probes; `None` where the key is absent or its value wrong.
pub(super) fn interval_if_set(r: &mut Reader<'_>, key: &'static str) -> Option<Duration> {
    let interval = r.duration_if_set(key)?;
    r.check(
        interval >= Duration::from_millis(10),
        key,
        &[],
        "must not be shorter than 10ms: the probes would be the nodes' main load",
    );
    r.check(
        interval <= Duration::from_secs(60 * 60),
        key,
        &[],
        "must not be longer than 1h: until the next probe a node's recovery is not seen",
    );
    Some(interval)
}
