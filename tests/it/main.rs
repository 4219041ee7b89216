//! Everything that is tested over sockets or on a network of memory, a module for each subject.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and its modules have no outside"
)]

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod beacon_edges;
mod beacon_nodes;
mod beacon_routes;
mod block_ranges;
mod budgets;
mod call_order;
mod call_rules;
mod chain_follower;
mod chain_names;
mod cluster;
mod compressed_answers;
mod compressed_clients;
mod configuration;
mod configuration_secrets;
mod consensus_nodes;
mod dashboard;
mod devnet;
mod dns_nodes;
mod event_clients;
mod event_streams;
mod evidence;
mod failback;
mod failover;
mod filters;
mod full_nodes;
mod heights;
mod http_clients;
mod ipc_nodes;
mod lazy_nodes;
mod linked_nodes;
mod missing_methods;
mod node_connections;
mod node_link;
mod operator;
mod outbox;
mod outbox_operator;
mod outbox_replicas;
mod own_questions;
mod picking;
mod policies;
mod raw_transactions;
mod redaction;
mod resting_nodes;
mod scripted_streams;
mod spec_examples;
mod subscriptions;
mod tls;
mod unix_sockets;
mod waiting;
mod webhooks;
mod websocket_failover;
mod websockets;
mod wrong_ids;
