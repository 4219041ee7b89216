//! Floor 0, words: the values of the field. No I/O, no tokio.

pub mod address;
pub mod address_space;
pub mod answer;
pub mod asked_blocks;
pub mod backoff;
pub mod beacon_form;
pub mod beacon_route;
pub mod block;
pub mod bloom;
pub mod call_id;
pub mod chain;
pub mod client;
pub mod duration;
pub mod event_kind;
pub mod fleet;
pub mod hex;
pub mod json;
pub mod layer;
pub mod method;

pub mod node_id;
pub mod pace;
pub mod publication;
pub mod quota;
pub mod redact;
pub mod refusal;
pub mod rpc;
pub mod signed_transaction;
pub mod subject;
pub mod target;
pub mod tenant;
pub mod trace_context;
pub mod transaction;
pub mod verdict;
