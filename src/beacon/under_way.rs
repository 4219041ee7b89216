//! The share of each client in the messages that are under way.
//!
//! Rule: the messages of one address may be [`TIMES_FREE`] times as many as they leave places free;
//! an address has one in any case, if there is a place; and where none is under way, a message has
//! places at all nodes, however few there are. Reason: a message goes on when its client
//! has left, so one client could fill all places with messages over which a node is slow, and keep
//! out the signed messages of others. Example: there are 200 places. An address sends 260 messages
//! over which the nodes hang, and leaves: 175 are taken, and 25 places are left for others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::client::{Amounts, Peer};

/// The messages of an address may be 7 times as many as the places that are left free.
const TIMES_FREE: usize = 7;

/// Places for so many messages, or sendings of messages.
pub(super) struct UnderWay {
    limit: usize,
    taken: Mutex<Amounts<Option<Peer>>>,
}

/// A place, given back on drop.
pub(super) struct Place {
    of: Arc<UnderWay>,
    client: Option<Peer>,
}

impl UnderWay {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, taken: Mutex::default() })
    }

    /// So many places for a client, if its share allows that.
    pub(super) fn admit(self: &Arc<Self>, client: Option<Peer>, count: usize) -> Option<Vec<Place>> {
        let client = client.map(Peer::block);
        let mut taken = self.taken();
        let own = taken.of(&client);
        let fits = match self.limit.checked_sub(taken.sum() + count) {
            Some(left) => own == 0 || own + count <= left.saturating_mul(TIMES_FREE),
            // A message for more nodes than there are places would never have room.
            None => taken.is_empty(),
        };
        if !fits {
            return None;
        }
        taken.add(client, count);
        drop(taken);
        Some((0..count).map(|_| Place { of: self.clone(), client }).collect())
    }

    /// A place for a client, also where none is left.
    pub(super) fn place(self: &Arc<Self>, client: Option<Peer>) -> Place {
        let client = client.map(Peer::block);
        self.taken().add(client, 1);
        Place { of: self.clone(), client }
    }

    fn taken(&self) -> MutexGuard<'_, Amounts<Option<Peer>>> {
        // Every change is complete before the lock is given up.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.taken().give_back(&self.client, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_takes_all_places() {
        let peer = |last: u8| Some(Peer::Ip([10, 0, 0, last].into()));
        let all = UnderWay::new(200);
        let first: Vec<_> = (0..260).map_while(|_| all.admit(peer(1), 1)).collect();
        assert_eq!(first.len(), 175);
        let second: Vec<_> = (0..260).map_while(|_| all.admit(peer(2), 2)).collect();
        assert_eq!(second.len(), 10);
        assert!(all.admit(peer(3), 6).is_none() && all.admit(peer(3), 5).is_some() && all.admit(peer(1), 1).is_none());
        let forced = all.place(peer(1));
        drop((first, second, forced));
        assert!(all.taken().is_empty() && all.taken().sum() == 0);
        // A message for more nodes than there are places.
        let few = UnderWay::new(2);
        let places = few.admit(peer(1), 3);
        assert!(places.is_some() && few.admit(peer(2), 1).is_none());
        drop(places);
        let one = UnderWay::new(1);
        let place = one.admit(peer(1), 1);
        assert!(place.is_some() && one.admit(peer(1), 1).is_none() && one.admit(peer(2), 1).is_none());
    }
}
