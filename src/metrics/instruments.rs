//! The counters and gauges that are looked up by their labels each time. The `help` of each is its
//! row in `docs/METRICS.md`.

use prometric::{Counter, Gauge};
use prometric_derive::metrics;

#[metrics(scope = "steadfast")]
pub(super) struct Instruments {
    #[metric(
        labels = ["network", "layer", "reason"],
        help = "Times that the active node changed. `reason`: why calls left the node before, in the words of \
                `side.last_switch.reason` in STATUS.md."
    )]
    pub(super) switches_total: Counter,
    #[metric(help = "Event streams of the beacon API open now.")]
    pub(super) sse_streams: Gauge,
    #[metric(
        labels = ["kind"],
        help = "Events and notifications told to clients, each counted for every client. `kind`: the topic of an \
                event (`head`, `block`, …), or the kind of a subscription (`newHeads`, `logs`, `other`)."
    )]
    pub(super) notifications_total: Counter,
    #[metric(labels = ["network"], help = "Blocks that no node had announced: made up from headers, or fetched.")]
    pub(super) backfilled_blocks_total: Counter,
    #[metric(labels = ["network"], help = "Reorganisations reported to clients.")]
    pub(super) reorgs_total: Counter,
    #[metric(labels = ["network"], help = "Gaps in the blocks reported to clients that could not be filled.")]
    pub(super) gaps_skipped_total: Counter,
    #[metric(
        labels = ["network", "reason"],
        help = "Events that nodes could not bear out: a head that was told though no node gave its \
                header in time (`no_header`), or one of a slot ahead of the clock (`ahead`) or one that \
                could not be read (`unreadable`), which were not told."
    )]
    pub(super) doubtful_events_total: Counter,
    #[metric(
        labels = ["network"],
        help = "Blocks whose logs no node gave in time, so that clients whom they may have concerned were closed."
    )]
    pub(super) logs_given_up_total: Counter,
    #[metric(labels = ["network"], help = "Logs that nodes wrote in a way that is not the API's.")]
    pub(super) odd_logs_total: Counter,
    #[metric(labels = ["network"], help = "Blocks with logs that their headers' bloom filters do not have.")]
    pub(super) bloom_contradictions_total: Counter,
    #[metric(
        labels = ["network", "kind"],
        help = "Filters that clients poll, open now: `blocks` (`eth_newBlockFilter`), `logs` (`eth_newFilter`), \
                `transactions` (`eth_newPendingTransactionFilter`)."
    )]
    pub(super) filters: Gauge,
    #[metric(labels = ["network"], help = "Bytes that the filters that clients poll take themselves.")]
    pub(super) filter_bytes: Gauge,
    #[metric(labels = ["network"], help = "Bytes that are kept for filters that were not polled since.")]
    pub(super) filter_backlog_bytes: Gauge,
    #[metric(
        labels = ["network", "reason"],
        help = "Filters that were dropped: `timeout` (not polled for too long), `backlog` (too far \
                behind), `gap` (blocks or logs cannot be had), `too_long` (one block brought more \
                than can be sent in one answer), `ended` (the process ends)."
    )]
    pub(super) filters_dropped_total: Counter,
    #[metric(
        labels = ["network", "reason"],
        help = "Filters that were not made, by the setting whose limit was reached: `filters.max`, \
                `filters.max_per_client`, `filters.max_bytes_per_client`, `max_client_memory`."
    )]
    pub(super) filters_refused_total: Counter,
    #[metric(help = "WebSockets and event streams that were closed because the client took too little of the bytes \
                for it. Slow readers of HTTP answers are not among them: see `slow_reader` of \
                `steadfast_client_connections_ended_total`.")]
    pub(super) slow_clients_closed_total: Counter,
    #[metric(labels = ["network", "layer"], help = "Calls that wait now because no node can serve.")]
    pub(super) held_calls: Gauge,
    #[metric(
        labels = ["network", "reason"],
        help = "Times that a signed message was given to one more node: the node before `lost` it, \
                `refused` it, was `unreachable`, `late` or `out`, hung over such messages before \
                (`doubtful`), or knows not the block that it refers to, lacks its state or is behind \
                its slot (`unknown_block`)."
    )]
    pub(super) publications_again_total: Counter,
    #[metric(
        labels = ["network"],
        help = "Messages for all nodes (fee recipients, registrations, subscriptions) that a node was told \
                again, because the node had been away or had begun anew."
    )]
    pub(super) told_again_total: Counter,
    #[metric(
        labels = ["network"],
        help = "Bytes of messages for all nodes, of the last two epochs, kept for nodes that return."
    )]
    pub(super) kept_bytes: Gauge,
    #[metric(
        labels = ["network", "reason", "word"],
        help = "Raw transactions that nodes were sent. `word` of the node: `took`, `already_known` (the node has \
                the transaction, which is success), `refused` (the node judged the transaction), `busy` (out of \
                quota, full, at fault or not reached), `lost` (no answer). `reason`: `call` (a client's call went \
                to several nodes at once), `again` (the node took over or came back), `outbox` (a transaction of \
                the outbox)."
    )]
    pub(super) raw_transaction_sends_total: Counter,
    #[metric(
        labels = ["network"],
        help = "Raw transactions of the last minutes that are kept for nodes that take over or come back."
    )]
    pub(super) remembered_transactions: Gauge,
    #[metric(labels = ["network"], help = "Bytes that these raw transactions take.")]
    pub(super) remembered_transaction_bytes: Gauge,
    #[metric(help = "Client HTTP connections open now.")]
    pub(super) http_connections: Gauge,
    #[metric(help = "Client HTTP connections ever opened.")]
    pub(super) http_connections_total: Counter,
    #[metric(
        help = "Client HTTP connections answered with 503 and closed before their request was looked at, because \
                `max_connections` was reached and none was idle."
    )]
    pub(super) http_connections_refused_total: Counter,
    #[metric(help = "Bytes that clients make the proxy hold now, as far as they are counted.")]
    pub(super) client_memory_bytes: Gauge,
    #[metric(help = "Bytes that clients may make the proxy hold at most, by `max_client_memory`.")]
    pub(super) client_memory_limit_bytes: Gauge,
    #[metric(help = "Times that a client was refused because `max_client_memory` was reached.")]
    pub(super) client_memory_refused_total: Counter,
    #[metric(
        labels = ["reason"],
        help = "Client connections that the proxy ended by itself: `silent` (no request in the first 20 s), `idle` \
                (no further request for two minutes), `crowded` (idle longest when there were as many as may be), \
                `share` (busy when there were as many as may be, but its client's address had clearly most of \
                them), `slow_request` (a request did not come in time), `slow_reader` (the client took too little \
                of an answer), `memory` (held most when `max_client_memory` was reached)."
    )]
    pub(super) client_connections_ended_total: Counter,
    #[metric(help = "Spans of clients' requests that the collector took.")]
    pub(super) spans_exported_total: Counter,
    #[metric(
        labels = ["reason"],
        help = "Spans of clients' requests that were lost: more than the queue holds (`queue_full`), the \
                collector did not take them in time (`not_taken`) or refused them (`rejected`), or the \
                proxy ended first (`shutdown`)."
    )]
    pub(super) spans_lost_total: Counter,
    #[metric(
        labels = ["outcome"],
        help = "Reloads of the settings: `applied`, `refused` (a mistake was found, or a key needs a restart, and \
                the settings of before stay)."
    )]
    pub(super) reloads_total: Counter,
    #[metric(
        labels = ["outcome"],
        help = "Lookups of names of `dns+` nodes: `found`, `failed` (no answer, or no address in it: the last \
                addresses are kept)."
    )]
    pub(super) dns_lookups_total: Counter,
    #[metric(labels = ["version"], help = "The version that runs; always 1.")]
    pub(super) build_info: Gauge,
}
