//! The differences of all settings but those of networks.

use super::{
    Setting, compare as add,
    values::{self, call_rules, duration, items, optional, plain, size, word},
};
use crate::config::{Admin, Beacon, Calls, Chain, Compression, Config, Cors, Filters, Health, Log, Tracing, Ws};

/// Compares the fields of a section.
macro_rules! section {
    ($changes:ident, $name:literal, $old:expr, $new:expr, $type:ident { $($field:ident: $told:expr),* $(,)? }) => {{
        // Without `..`: a new setting does not compile until its author has the value told here.
        let ($type { $($field),* }, new) = ($old, $new);
        $( add($changes, format!("{}{}", $name, stringify!($field)), $field, &new.$field, $told); )*
    }};
}

/// Adds the settings with another value to `changes`.
pub(super) fn compare(changes: &mut Vec<Setting>, old: &Config, new: &Config) {
    let Config {
        listen,
        hosts: names,
        workers,
        max_connections,
        shared_addresses,
        max_client_memory,
        reload_on_change,
        admin,
        shutdown_grace,
        health,
        calls,
        chain,
        filters,
        cors,
        compression,
        ws,
        beacon,
        networks: _,
        log,
        tracing,
        outbox,
        cluster,
    } = old;
    add(changes, "listen".into(), listen, &new.listen, values::listen);
    add(changes, "hosts".into(), names, &new.hosts, values::hosts);
    add(changes, "workers".into(), workers, &new.workers, optional(plain));
    add(changes, "max_client_memory".into(), max_client_memory, &new.max_client_memory, optional(size));
    add(changes, "max_connections".into(), max_connections, &new.max_connections, plain);
    add(changes, "shared_addresses".into(), shared_addresses, &new.shared_addresses, plain);
    add(changes, "shutdown_grace".into(), shutdown_grace, &new.shutdown_grace, duration);
    add(changes, "reload_on_change".into(), reload_on_change, &new.reload_on_change, plain);
    section!(changes, "admin.", admin, &new.admin, Admin { listen: plain, hosts: values::hosts });
    section!(
        changes,
        "health.",
        health,
        &new.health,
        Health {
            interval: duration,
            timeout: duration,
            fall: plain,
            rise: plain,
            max_lag_blocks: plain,
            max_lag_slots: plain,
            dns_interval: duration,
            find_oldest_blocks: plain,
            ready: word,
        }
    );
    section!(
        changes,
        "calls.",
        calls,
        &new.calls,
        Calls {
            timeout: duration,
            attempt_timeout: duration,
            attempts: plain,
            hold: duration,
            max_held: plain,
            max_held_bytes: size,
            max_node_connections: plain,
            max_body: size,
            max_batch: plain,
            policy: word,
            allow_picking: plain,
            name_nodes: plain,
            verify: word,
            send_to: word,
            blocked: items,
            allowed: items,
            rules: call_rules,
            forward_headers: items,
        }
    );
    section!(
        changes,
        "chain.",
        chain,
        &new.chain,
        Chain { window: plain, max_backfill: plain, timeout: optional(duration), trust_bloom: word }
    );
    section!(
        changes,
        "filters.",
        filters,
        &new.filters,
        Filters {
            max: plain,
            max_per_client: plain,
            max_bytes_per_client: size,
            timeout: duration,
            max_backlog_blocks: plain,
            max_backlog: size,
        }
    );
    section!(changes, "cors.", cors, &new.cors, Cors { origins: values::origins });
    section!(
        changes,
        "compression.",
        compression,
        &new.compression,
        Compression { codings: items, level: plain, min_size: size }
    );
    section!(
        changes,
        "ws.",
        ws,
        &new.ws,
        Ws {
            max_message: size,
            max_connections: plain,
            max_calls: plain,
            max_subscriptions: plain,
            max_outbound: size,
            ping_interval: duration,
            allow_origins: values::origins,
        }
    );
    section!(changes, "beacon.", beacon, &new.beacon, Beacon { methods: items, blocked: items, publish_to: word });
    section!(
        changes,
        "log.",
        log,
        &new.log,
        Log { format: word, filter: |filter| filter.as_str().to_owned(), access: plain, trusted_proxies: plain }
    );
    section!(
        changes,
        "tracing.",
        tracing,
        &new.tracing,
        Tracing { endpoint: optional(plain), headers: values::headers, sample: plain }
    );
    super::outbox::compare(changes, outbox.as_ref(), new.outbox.as_ref());
    super::cluster::compare(changes, cluster.as_ref(), new.cluster.as_ref());
}
