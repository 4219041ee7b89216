//! The state in which hyper leaves a stream.

use std::mem;

use bytes::Bytes;
use http::StatusCode;

use super::{Watch, lock};
use crate::{door::http::last_words, metrics::Ended, net::BoxIo};

/// The way in which a client ended its side while a request was answered.
pub(in super::super) enum End {
    /// The client closed its side.
    Half,
    /// The connection is lost, or the client closed its side under an answer without an end.
    Lost,
}

/// A refusal of hyper's own, and the form for the client.
pub(in super::super) struct Refusal {
    pub(in super::super) status: StatusCode,
    /// The reason in words, if the status does not say enough.
    pub(in super::super) why: Option<&'static str>,
    pub(in super::super) is_beacon: bool,
    pub(in super::super) is_head: bool,
}

/// The state of the stream after hyper.
pub(in super::super) struct Rest {
    pub(in super::super) io: BoxIo,
    /// Bytes that were read and not given to hyper.
    pub(in super::super) read: Bytes,
    /// Bytes that are still to be written.
    pub(in super::super) unwritten: Bytes,
    /// The refusal to write in place of hyper's own, if there was one.
    pub(in super::super) refusal: Option<Refusal>,
    /// Whether the client's further bytes are read for a while, because it might otherwise miss the
    /// refusal.
    pub(in super::super) lingers: bool,
    /// The reason why the proxy ended the connection, if the client was too slow.
    pub(in super::super) too_slow: Option<Ended>,
}

impl Watch {
    /// The state after hyper is done. `is_wrong`: hyper could not read a request.
    pub(in super::super) fn finish(self, is_wrong: bool) -> Rest {
        let mut inner = lock(&self.inner);
        let too_slow = match () {
            () if inner.stall.is_lost() => Some(Ended::SlowReader),
            () if inner.is_late => Some(Ended::SlowRequest),
            () => None,
        };
        let (io, unread) = inner.stall.take();
        let mut rest = Rest {
            io,
            read: [inner.ahead.split().freeze(), unread].concat().into(),
            unwritten: mem::take(&mut inner.held),
            refusal: None,
            lingers: inner.lingers,
            too_slow,
        };
        if is_wrong {
            let told = last_words::status(&rest.unwritten);
            let (status, why) = inner.wrong.unwrap_or((told, None));
            let refusal = Refusal { status, why, is_beacon: inner.is_beacon, is_head: inner.is_head };
            (rest.unwritten, rest.refusal, rest.lingers) = (Bytes::new(), Some(refusal), true);
        }
        rest.lingers &= !inner.has_left();
        rest
    }
}
