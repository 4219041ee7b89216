//! The share of each client in the room for bodies that are kept to be sent again.
//!
//! Rule: the bodies of one address may take [`TIMES_FREE`] times as much as they leave free.
//! The last sixteenth of the room is for bodies up to [`SMALL`]. Reason: a client that sends large
//! bodies slowly must not keep out the signed messages of others, nor requests for all nodes.
//! Example: the room has 64 MiB. An address sends bodies without end: 56 MiB are kept, the next
//! ones pass as they come, and 8 MiB are left for other addresses, 4 MiB of these for small bodies
//! only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::client::Peer;

/// The bodies of an address may take 7 times the bytes that are left free.
const TIMES_FREE: usize = 7;
/// Bodies up to this size may take the reserve, which larger ones cannot.
const SMALL: usize = 256 << 10;
/// The reserve: a sixteenth of the room.
const RESERVE_DIVISOR: usize = 16;

/// The bytes of kept bodies, by client.
pub(super) struct Uploads {
    room: usize,
    by_client: Mutex<BTreeMap<Option<Peer>, usize>>,
}

/// The bytes of one body, given back on drop.
pub(super) struct Portion {
    uploads: Arc<Uploads>,
    client: Option<Peer>,
    bytes: usize,
}

impl Uploads {
    /// For a room of so many bytes.
    pub(super) fn new(room: usize) -> Arc<Self> {
        Arc::new(Self { room, by_client: Mutex::default() })
    }

    /// The portion, empty yet, of a client's next body.
    pub(super) fn portion(self: &Arc<Self>, client: Option<Peer>) -> Portion {
        Portion { uploads: self.clone(), client: client.map(Peer::block), bytes: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Option<Peer>, usize>> {
        // Every change is complete before the lock is given up.
        self.by_client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Portion {
    /// Takes so many bytes more, of the `free` ones, if the client's share allows that.
    pub(super) fn grow(&mut self, more: usize, free: usize) -> bool {
        let Some(left) = free.checked_sub(more) else { return false };
        let is_small = self.bytes + more <= SMALL;
        if !is_small && left < self.uploads.room / RESERVE_DIVISOR {
            return false;
        }
        let mut by_client = self.uploads.lock();
        let share = by_client.get(&self.client).copied().unwrap_or(0) + more;
        let fits = share <= left.saturating_mul(TIMES_FREE);
        if fits {
            by_client.insert(self.client, share);
            self.bytes += more;
        }
        fits
    }
}

impl Drop for Portion {
    fn drop(&mut self) {
        let mut by_client = self.uploads.lock();
        let Some(share) = by_client.get_mut(&self.client) else { return };
        *share -= self.bytes;
        if *share == 0 {
            by_client.remove(&self.client);
        }
    }
}

impl std::fmt::Debug for Portion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Portion({})", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// A room, and its free bytes.
    struct Room(Arc<Uploads>, usize);

    impl Room {
        /// A body that comes in pieces, up to `bytes`; the portion that there was room for.
        fn take(&mut self, last: u8, bytes: usize) -> Portion {
            let mut portion = self.0.portion(Some(Peer::Ip([10, 0, 0, last].into())));
            while portion.bytes < bytes && portion.grow(16 << 10, self.1) {
                self.1 -= 16 << 10;
            }
            portion
        }
    }

    #[test]
    fn no_address_takes_the_room_of_the_others() {
        let mut room = Room(Uploads::new(64 * MIB), 64 * MIB);
        let alone = room.take(1, 48 * MIB);
        assert_eq!(alone.bytes, 48 * MIB, "one large block is kept whole");
        let more: Vec<_> = (0..10).map(|_| room.take(1, 16 * MIB)).collect();
        assert_eq!(more.iter().map(|portion| portion.bytes).sum::<usize>(), 8 * MIB);
        let other = room.take(2, 16 * MIB);
        assert_eq!(other.bytes, 4 * MIB, "the rest is for small bodies");
        assert_eq!((room.take(1, 4096).bytes, room.take(3, SMALL).bytes), (0, SMALL));
        drop((alone, more, other));
        assert!(room.0.lock().is_empty());
    }
}
