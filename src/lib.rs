//! Steadfast stands between clients and a pool of Ethereum nodes. Clients use one address; nodes
//! behind it may die, hang, lag, lie and return.
//!
//! A call is answered by another node when its node is lost. A subscription, a polled filter and an
//! event stream last as long as the client's connection, whichever node serves. The binary is
//! `steadfast`; this crate is its code, divided so that every rule can be tested without sockets or
//! clocks.
//!
//! # Floors
//!
//! A module imports only from floors below its own, and `tests/floors` reads the sources to hold
//! them to that.
//!
//! | floor | modules | subject |
//! |---|---|---|
//! | 8 | [`door`] | framing and limits of HTTP, WebSocket, beacon API and admin side |
//! | 7 | [`view`], [`events`], [`outbox`] | subscriptions, event streams, kept transactions |
//! | 6 | [`call`], [`beacon`], [`chain`], [`spans`] | calls, requests, the chain, spans |
//! | 5 | [`exchange`] | the parts that calls and requests share: rounds, queue, choice, counts |
//! | 4 | [`route`] | the choice of the next node: a pure function of a snapshot |
//! | 3 | [`pool`] | probes, evidence and verdicts, published as snapshots |
//! | 2 | [`net`] | sockets, TLS, the HTTP client and the WebSocket link to a node |
//! | 1 | [`config`], [`metrics`], [`memory`] | settings, instruments, clients' memory |
//! | 0 | [`domain`] | values and rules without I/O: JSON-RPC, methods, blocks, verdicts |
//!
//! [`devnet`] is a pretend network for tests and for `steadfast dev`. [`app`] builds and connects
//! the parts, and [`cli`] reads the command line.
//!
//! # The way of a call
//!
//! `POST /` with `{"id":7,"method":"eth_getBlockByNumber","params":["latest",false]}`, before two
//! nodes of which the first dies at that moment:
//!
//! 1. [`door::http`] reads the request into one buffer and finds the network by the path
//!    ([`door::site::Site::calls`]).
//! 2. [`domain::rpc::peek`] finds method, id and params as slices of that buffer. No tree is built.
//! 3. [`call::Calls::run`] looks the method up ([`domain::method::Method::of`]). This one is a
//!    read, so the call may be sent to a second node after a first one may have received it.
//! 4. [`route::next`] picks the node from the pool's newest [`Snapshot`](pool::snapshot::Snapshot):
//!    usable nodes first, then those that have the highest block that clients were shown, then
//!    primaries.
//! 5. [`net::http::Upstream::post`] writes the call with an id of the proxy's own and waits for
//!    the head of the response. The client's task does all of this; there is no task for each
//!    connection to a node.
//! 6. The connection breaks. The error says that the call may have arrived
//!    ([`net::http::Error::may_have_arrived`]); for a read that does not matter, and for a
//!    transaction that is not known by its hash this is where the client is told
//!    [`OutcomeUnknown`](domain::refusal::Refusal::OutcomeUnknown).
//! 7. [`pool::Pool::probe_now`] has the first node probed at once, and steps 4 and 5 are repeated:
//!    the next snapshot or the list of nodes that were tried leads to the second node.
//! 8. [`domain::answer`] finds the `id` and whether the answer is a result. [`call::answer`] puts
//!    the client's `7` in the place of the proxy's id, and the door writes the answer. The block's
//!    height is kept as shown, so that no later call goes to a node that is behind it.
//!
//! When no node may serve, step 4 waits in a queue ([`exchange::queue`]) for `calls.hold`.
//!
//! # Where to begin
//!
//! The rule of a module stands in its parent file (`call.rs`, `view.rs`, `memory.rs`); the files
//! beneath hold the parts that the rule needs.
//!
//! - *A node's verdict*: [`pool::health`] (in or out), [`pool::head`] (lagging, stalled, suspect),
//!   [`domain::verdict`] (the words for it).
//! - *The next node*: [`route`] for calls, [`beacon`] for the beacon API.
//! - *The rule for sending twice*: [`domain::method`] and [`domain::beacon_route`] classify;
//!   [`call`] and [`beacon`] decide.
//! - *Subscriptions*: [`chain`] follows the chain, [`view`] makes notifications of its
//!   changes, [`events::stitch`] does the same for consensus nodes.
//! - *The bytes that clients make the proxy hold*: [`memory`].
//! - *Tests*: [`devnet`] is the network, with faults; time goes through `tokio::time` and
//!   connections through [`net::Dial`] and [`net::Listen`], so whole sessions run in simulated
//!   time.
//!
//! `docs/ARCHITECTURE.md` has drawings, `docs/internals/` the rules with their reasons,
//! `CONTRIBUTING.md` the words and the commands.

pub mod app;
pub mod beacon;
pub mod call;
pub mod chain;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod devnet;
pub mod domain;
pub mod door;
pub mod events;
pub mod exchange;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod outbox;
pub mod pool;
pub mod route;
pub mod spans;
pub mod view;
