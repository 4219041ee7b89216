//! Several listening sockets as one.

use std::{fmt, future::pending, io};

use futures_util::future::select_all;

use super::{Accept, Incoming};
use crate::domain::{address::Address, client::Peer};

/// The sockets of one door, which share whatever limits the door has.
pub struct Listeners {
    sockets: Vec<Box<dyn Accept>>,
}

impl Listeners {
    /// Accepts at all of these.
    pub fn new(sockets: Vec<Box<dyn Accept>>) -> Self {
        Self { sockets }
    }

    /// Where the sockets listen.
    pub fn addresses(&self) -> Vec<Address> {
        self.sockets.iter().map(|socket| socket.local_addr()).collect()
    }

    /// Waits for the next connection of any socket. Sockets at which connections wait take turns.
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`Accept::accept`].
    pub async fn accept(&mut self) -> io::Result<(Incoming, Peer)> {
        match &mut self.sockets[..] {
            [] => return pending().await,
            [only] => return only.accept().await,
            _ => {}
        }
        let (accepted, place, _) = select_all(self.sockets.iter_mut().map(|socket| socket.accept())).await;
        self.sockets.rotate_left(place + 1);
        accepted
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.addresses().iter().map(ToString::to_string)).finish()
    }
}
