//! The room for bodies that are kept, and the share of each client in the room: of requests that
//! may have to be sent again, and of answers that are held until they are whole.
//!
//! Rule: the bodies of one address may take [`TIMES_FREE`] times as much as they leave free. The
//! last sixteenth of the room is for bodies of requests up to [`SMALL`]. An answer takes of the
//! room only until the client gets its beginning: from then on the answer counts as the client's
//! memory. Reason: a client that sends large bodies slowly, or reads large answers slowly, must not
//! keep out the signed messages of others, nor requests for all nodes. Example: the room has
//! 64 MiB. An address sends bodies without end: 56 MiB are kept, the next ones pass as they come,
//! and 8 MiB are left for other addresses, 4 MiB of these for small bodies only.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::client::{Amounts, Peer};

/// The bodies of an address may take 7 times the bytes that are left free.
const TIMES_FREE: usize = 7;
/// Bodies of requests up to this size may take the reserve, which larger ones cannot.
const SMALL: usize = 256 << 10;
/// The reserve: a sixteenth of the room.
const RESERVE_DIVISOR: usize = 16;

/// The room for kept bodies.
pub(super) struct Room {
    size: usize,
    taken: Mutex<Amounts<Option<Peer>>>,
}

/// The bytes of one body, given back on drop.
pub(super) struct Share {
    room: Arc<Room>,
    client: Option<Peer>,
    bytes: usize,
    is_answer: bool,
}

impl Room {
    /// A room of so many bytes.
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, taken: Mutex::default() })
    }

    /// The share, empty yet, of a client's next request.
    pub(super) fn request(self: &Arc<Self>, client: Option<Peer>) -> Share {
        Share { room: self.clone(), client: client.map(Peer::block), bytes: 0, is_answer: false }
    }

    /// The share, empty yet, of an answer to a client.
    pub(super) fn answer(self: &Arc<Self>, client: Option<Peer>) -> Share {
        let mut share = self.request(client);
        share.is_answer = true;
        share
    }

    fn taken(&self) -> MutexGuard<'_, Amounts<Option<Peer>>> {
        // Every change is complete before the lock is given up.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.size - self.taken().sum()
    }
}

impl Share {
    /// Takes so many bytes more, if there is room and the client's share allows that.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let mut taken = self.room.taken();
        let Some(left) = self.room.size.checked_sub(taken.sum() + more) else { return false };
        let is_small = !self.is_answer && self.bytes + more <= SMALL;
        if !is_small && left < self.room.size / RESERVE_DIVISOR {
            return false;
        }
        let fits = taken.of(&self.client) + more <= left.saturating_mul(TIMES_FREE);
        if fits {
            taken.add(self.client, more);
            self.bytes += more;
        }
        fits
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.taken().give_back(&self.client, self.bytes);
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({})", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn peer(last: u8) -> Option<Peer> {
        Some(Peer::Ip([10, 0, 0, last].into()))
    }

    /// A body that comes in pieces, up to `bytes`; the share that there was room for.
    fn filled(mut share: Share, bytes: usize) -> Share {
        while share.bytes < bytes && share.grow(16 << 10) {}
        share
    }

    #[test]
    fn no_address_takes_the_room_of_the_others() {
        let room = Room::new(64 * MIB);
        let take = |last, bytes| filled(room.request(peer(last)), bytes);
        let alone = take(1, 48 * MIB);
        assert_eq!(alone.bytes, 48 * MIB, "one large block is kept whole");
        let more: Vec<_> = (0..10).map(|_| take(1, 16 * MIB)).collect();
        assert_eq!(more.iter().map(|share| share.bytes).sum::<usize>(), 8 * MIB);
        let other = take(2, 16 * MIB);
        assert_eq!(other.bytes, 4 * MIB, "the rest is for small bodies");
        assert_eq!((take(1, 4096).bytes, take(3, SMALL).bytes), (0, SMALL));
        drop((alone, more, other));
        assert!(room.taken().is_empty() && room.free() == 64 * MIB);
    }

    #[test]
    fn answers_share_with_their_address_and_leave_the_reserve() {
        let room = Room::new(64 * MIB);
        let answers: Vec<_> = (0..10).map(|_| filled(room.answer(peer(1)), 8 * MIB)).collect();
        assert_eq!(answers.iter().map(|share| share.bytes).sum::<usize>(), 56 * MIB);
        assert_eq!(filled(room.request(peer(1)), 4096).bytes, 0, "the address has its share");
        let other = filled(room.answer(peer(2)), 8 * MIB);
        assert_eq!((other.bytes, filled(room.answer(peer(3)), 4096).bytes), (4 * MIB, 0));
        assert_eq!(filled(room.request(peer(3)), SMALL).bytes, SMALL, "small bodies of requests have room");
    }
}
