//! What a door wants of a call.

use std::sync::{Arc, atomic::AtomicBool};

use tokio::time::Instant;

use super::kept::AnswerRoom;
use crate::{config::Verify, memory::Account, net::places::Caller};

/// What a door wants of a call.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Lines to send along.
    pub headers: &'a [u8],
    /// When the call came: its deadline counts from then.
    pub arrived: Instant,
    /// How closely the answer is looked at.
    pub verify: Verify,
    /// Turns true when the client has closed its side, where that can be told: it may have left, or
    /// wait for its answer all the same.
    pub left: Option<&'a AtomicBool>,
    /// Whose bytes a long answer is.
    pub memory: &'a Arc<Account>,
    /// Room for the answer to a poll of a filter.
    pub room: AnswerRoom,
    /// The client's connection, which has its share of those to nodes.
    pub caller: Option<&'a Arc<Caller>>,
}
