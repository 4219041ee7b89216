//! `[ws]`: limits of clients' WebSocket connections.

use std::{num::NonZeroUsize, time::Duration};

use super::{origin::Origins, reader::Reader};

const MIB: usize = 1 << 20;

/// Limits of clients' WebSocket connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ws {
    /// Bytes of one message from a client, at most.
    pub max_message: usize,
    /// Connections at once, at most.
    pub max_connections: NonZeroUsize,
    /// Calls of one connection under way at once, at most, those of a batch each counted; further
    /// ones wait, or are refused when many do.
    pub max_calls: NonZeroUsize,
    /// Subscriptions of one connection, at most.
    pub max_subscriptions: NonZeroUsize,
    /// Bytes that wait to be sent on one connection, at most; past this number the client is
    /// closed.
    pub max_outbound: usize,
    /// How long a connection may be silent before a ping is sent.
    pub ping_interval: Duration,
    /// Web pages that may connect. A client that sends no `Origin` is no web page and is not asked.
    pub allow_origins: Origins,
}

impl Default for Ws {
    fn default() -> Self {
        Self {
            max_message: 32 * MIB,
            max_connections: const { NonZeroUsize::new(20_000).expect("not zero") },
            max_calls: const { NonZeroUsize::new(64).expect("not zero") },
            max_subscriptions: const { NonZeroUsize::new(1_000).expect("not zero") },
            max_outbound: 16 * MIB,
            ping_interval: Duration::from_secs(20),
            allow_origins: Origins::None,
        }
    }
}

impl Ws {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            max_message: r.size("max_message", default.max_message),
            max_connections: r.count("max_connections", default.max_connections),
            max_calls: r.count("max_calls", default.max_calls),
            max_subscriptions: r.count("max_subscriptions", default.max_subscriptions),
            max_outbound: r.size("max_outbound", default.max_outbound),
            ping_interval: r.duration("ping_interval", default.ping_interval),
            allow_origins: Origins::read(&mut r, "allow_origins"),
        }
    }
}
