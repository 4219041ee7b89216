//! The terms of a door for a call.

use std::sync::{Arc, atomic::AtomicBool};

use tokio::time::Instant;

use super::{filter_calls::AnswerRoom, outbox_calls::Tenant};
use crate::{
    config::Verify,
    exchange::{pick::Pick, trace::Trace},
    memory::Account,
    net::node_connections::Caller,
};

/// The terms of a door for a call.
#[derive(Clone, Copy)]
pub struct Terms<'a> {
    /// Header lines to send along.
    pub headers: &'a [u8],
    /// The tenant's name as a header gave it.
    pub tenant: Tenant<'a>,
    /// The nodes that the caller picked.
    pub pick: Option<&'a Pick>,
    /// When the call came: its deadline counts from then.
    pub arrived: Instant,
    /// How closely the answer is checked.
    pub verify: Verify,
    /// Turns true when the client has closed its side, if the door can see that. The client may
    /// have left, or may still wait for its answer.
    pub left: Option<&'a AtomicBool>,
    /// The account that a long answer's bytes count for.
    pub memory: &'a Arc<Account>,
    /// Room for the answer to a poll of a filter.
    pub room: AnswerRoom,
    /// The client's connection, which has a share of the connections to nodes.
    pub caller: Option<&'a Arc<Caller>>,
    /// The notes for the request's line in the access log, if the request has a line.
    pub trace: Option<&'a Trace>,
}
