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
//!
//! Rule: where a body finds no room, slow ones that are still coming give way, of the address that
//! has most first, and the largest of these. A body is slow that has not moved [`STEP`] bytes for
//! [`SLOW_AFTER`]. Reason: a client may send most of many bodies, and the rest a byte at a time for
//! half an hour. Example: thirty bodies of 2 MiB fill the room and stand still. Three seconds later
//! a block of 1.5 MiB comes: one of the thirty is refused with 408, and the block is kept.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::domain::client::{Amounts, Peer};

/// The bodies of an address may take 7 times the bytes that are left free.
const TIMES_FREE: usize = 7;
/// Bodies of requests up to this size may take the reserve, which larger ones cannot.
const SMALL: usize = 256 << 10;
/// The reserve: a sixteenth of the room.
const RESERVE_DIVISOR: usize = 16;
/// A body that has not moved [`STEP`] bytes for this long is slow: less than 32 kB in a second.
const SLOW_AFTER: Duration = Duration::from_secs(2);
/// See [`SLOW_AFTER`].
const STEP: usize = 64 << 10;

/// The room for kept bodies.
pub(super) struct Room {
    size: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    taken: Amounts<Option<Peer>>,
    /// The bodies of requests that are still coming, by number.
    coming: BTreeMap<u64, Coming>,
    last: u64,
}

/// A body that is still coming.
struct Coming {
    client: Option<Peer>,
    bytes: usize,
    /// When the body moved its last step.
    at: Instant,
    /// Notified when the body has to give way.
    ends: Arc<Notify>,
}

impl Coming {
    fn is_slow(&self) -> bool {
        self.at.elapsed() >= SLOW_AFTER
    }
}

/// The bytes of one body, given back on drop.
pub(super) struct Share {
    room: Arc<Room>,
    client: Option<Peer>,
    bytes: usize,
    is_answer: bool,
    /// The number of a request's body that is still coming.
    coming: Option<u64>,
    ends: Arc<Notify>,
}

impl Room {
    /// A room of so many bytes.
    pub(super) fn new(size: usize) -> Arc<Self> {
        Arc::new(Self { size, state: Mutex::default() })
    }

    /// The share, empty yet, of a client's next request, whose body is coming.
    pub(super) fn request(self: &Arc<Self>, client: Option<Peer>) -> Share {
        let mut share = self.answer(client);
        share.is_answer = false;
        let mut state = self.state();
        state.last += 1;
        let number = state.last;
        let coming = Coming { client: share.client, bytes: 0, at: Instant::now(), ends: share.ends.clone() };
        state.coming.insert(number, coming);
        share.coming = Some(number);
        drop(state);
        share
    }

    /// The share, empty yet, of an answer to a client.
    pub(super) fn answer(self: &Arc<Self>, client: Option<Peer>) -> Share {
        let client = client.map(Peer::block);
        Share { room: self.clone(), client, bytes: 0, is_answer: true, coming: None, ends: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before the lock is given up.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.size - self.state().taken.sum()
    }
}

impl State {
    /// Has a slow body other than `number` give way; `false` if there is none.
    fn makes_way(&mut self, number: u64) -> bool {
        let Self { taken, coming, .. } = self;
        let slow = coming.iter().filter(|(other, body)| **other != number && body.bytes > 0 && body.is_slow());
        let first = slow.max_by_key(|(_, body)| (taken.of(&body.client), body.bytes)).map(|(other, _)| *other);
        let Some(body) = first.and_then(|other| coming.remove(&other)) else { return false };
        taken.give_back(&body.client, body.bytes);
        body.ends.notify_one();
        true
    }
}

impl Share {
    /// Takes so many bytes more, if there is room and the client's share allows that. Slow bodies
    /// give way to that of a request that is not slow.
    pub(super) fn grow(&mut self, more: usize) -> bool {
        let mut state = self.room.state();
        while !self.fits(&state, more) {
            let is_quick = |number| state.coming.get(&number).is_some_and(|own: &Coming| !own.is_slow());
            match self.coming.filter(|number| is_quick(*number)) {
                Some(number) if state.makes_way(number) => {}
                _ => return false,
            }
        }
        if let Some(number) = self.coming {
            // Without an entry the body had to give way.
            let Some(own) = state.coming.get_mut(&number) else { return false };
            if own.bytes / STEP < (own.bytes + more) / STEP {
                own.at = Instant::now();
            }
            own.bytes += more;
        }
        state.taken.add(self.client, more);
        self.bytes += more;
        true
    }

    fn fits(&self, state: &State, more: usize) -> bool {
        let Some(left) = self.room.size.checked_sub(state.taken.sum() + more) else { return false };
        let is_small = !self.is_answer && self.bytes + more <= SMALL;
        if !is_small && left < self.room.size / RESERVE_DIVISOR {
            return false;
        }
        state.taken.of(&self.client) + more <= left.saturating_mul(TIMES_FREE)
    }

    /// All of the body has come, or comes no further into the room. `false` if the body had to give
    /// way.
    pub(super) fn has_come(&mut self) -> bool {
        let Some(number) = self.coming.take() else { return true };
        let is_there = self.room.state().coming.remove(&number).is_some();
        if !is_there {
            self.bytes = 0;
        }
        is_there
    }

    /// Ready when the body has to give way. Cancel-safe.
    pub(super) async fn gives_way(&self) {
        self.ends.notified().await;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.has_come();
        self.room.state().taken.give_back(&self.client, self.bytes);
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
        assert!(room.state().taken.is_empty() && room.state().coming.is_empty() && room.free() == 64 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_bodies_give_way_those_of_the_largest_client_first() {
        let room = Room::new(64 * MIB);
        let mut whole = filled(room.request(peer(3)), 8 * MIB);
        assert!(whole.has_come());
        let mut many: Vec<_> = (0..6).map(|count| filled(room.request(peer(1)), (5 + count) * MIB)).collect();
        assert_eq!(room.free(), 11 * MIB);
        let few = filled(room.request(peer(2)), MIB / 2);
        let block = || filled(room.request(peer(2)), 8 * MIB);
        assert!(block().bytes < 8 * MIB, "none of them is slow yet");
        tokio::time::advance(SLOW_AFTER / 2).await;
        assert!(many[5].grow(STEP), "that one is not slow");
        tokio::time::advance(SLOW_AFTER / 2).await;
        assert_eq!(block().bytes, 8 * MIB);
        // The largest slow one of the client with most has made room.
        tokio::time::timeout(Duration::ZERO, many[4].gives_way()).await.unwrap();
        assert!(!many[4].grow(1) && !many[4].has_come());
        for (place, share) in many.iter_mut().enumerate().filter(|(place, _)| *place != 4) {
            assert!(share.has_come(), "{place}");
        }
        drop((whole, many, few));
        assert!(room.state().taken.is_empty() && room.state().coming.is_empty() && room.free() == 64 * MIB);
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
