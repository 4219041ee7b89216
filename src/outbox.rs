//! Floor 7, the outbox: a transaction that was accepted outlives nodes, mempools and the proxy.
//!
//! What a client was given a hash for is on the disk, is sent until a block has it, and is followed
//! until that block is final. Each transition is told once to the proxy's own rows and at least
//! once to the endpoints of others.
//!
//! The rules are values without I/O: [`life`] for one transaction, [`desk`] for a network's. The
//! [`store`] is the one file, and [`webhook`] tells endpoints.

mod accept_shared;
mod alone;
mod calls;
mod clock;
pub mod delivery;
pub mod desk;
mod event_ids;
pub mod handle;
pub mod id;
pub mod life;
mod measured;
pub mod operator;
pub mod ownership;
pub mod record;
mod relay;
pub mod replicas;
mod running;
mod send_room;
pub mod shard;
pub mod status;
pub mod step;
pub mod store;
pub mod told;
pub mod webhook;
#[cfg(test)]
mod weighing;

pub use self::{
    handle::{Incoming, NotAccepted, Outbox},
    running::{Broken, Running, Tools},
};
