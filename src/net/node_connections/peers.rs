//! The addresses of clients, as far as connections of theirs are open.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::share::{Address, Caller};
use crate::domain::client::Peer;

/// All addresses from which clients' connections are open.
#[derive(Clone, Debug, Default)]
pub struct Peers(Arc<Mutex<BTreeMap<Peer, Weak<Address>>>>);

/// An address's entry, which goes with the address.
#[derive(Debug)]
pub(super) struct Entry {
    peers: Peers,
    block: Peer,
}

impl Peers {
    /// A connection of this client, which shares with all others of the same client.
    pub fn caller(&self, peer: Peer) -> Arc<Caller> {
        let block = peer.block();
        let mut open = self.lock();
        let known = open.get(&block).and_then(Weak::upgrade);
        let address = known.unwrap_or_else(|| {
            let address = Address::new(Some(Entry { peers: self.clone(), block }));
            open.insert(block, Arc::downgrade(&address));
            address
        });
        Arc::new(Caller::of(address))
    }

    /// Every change is whole, so a panic elsewhere cannot have spoilt the map.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Peer, Weak<Address>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.peers.lock();
        // Another connection may have come meanwhile.
        if open.get(&self.block).is_some_and(|address| address.strong_count() == 0) {
            open.remove(&self.block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_one_address_share_and_the_last_takes_it_along() {
        let peers = Peers::default();
        let caller = |address: &str| peers.caller(Peer::Ip(address.parse().unwrap()));
        let mut open = Vec::new();
        for same in [["10.0.0.1", "::ffff:10.0.0.1"], ["2001:db8::1", "2001:db8::ffff:1"]] {
            let [one, other] = same.map(caller);
            assert_eq!(one.address(), other.address());
            assert_ne!(one.number(), other.number());
            open.extend([one, other]);
        }
        for another in ["10.0.0.2", "2001:db8:0:1::1"] {
            let another = caller(another);
            assert!(open.iter().all(|caller| caller.address() != another.address()));
        }
        assert_eq!(peers.lock().len(), 2);
        let left = open.split_off(3);
        drop(open);
        assert_eq!(peers.lock().len(), 1);
        assert_eq!(caller("2001:db8::2").address(), left[0].address());
        drop(left);
        assert!(peers.lock().is_empty());
    }
}
