//! Clients by where they are.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// Where a client is. Clients of the same [`Peer::block`] count as one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// At this address.
    Ip(IpAddr),
    /// Behind a Unix socket, which has no addresses: the number of the user as whom the client's
    /// process runs.
    User(u32),
}

impl Peer {
    /// The first of the peers that count as one client: of IPv4 the address alone, of IPv6 its /64,
    /// since a host has all of that; of a Unix socket the user.
    pub fn block(self) -> Self {
        match self.to_canonical() {
            Self::Ip(IpAddr::V6(address)) => {
                Self::Ip(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))))
            }
            peer => peer,
        }
    }

    /// An IPv4 address that is written as one of IPv6 is that IPv4 address.
    pub fn to_canonical(self) -> Self {
        match self {
            Self::Ip(address) => Self::Ip(address.to_canonical()),
            Self::User(_) => self,
        }
    }
}

/// The amounts that clients have of one supply, and their sum.
#[derive(Debug)]
pub struct Amounts<C> {
    sum: usize,
    /// No amount is 0, so that clients which have left take no memory.
    by_client: BTreeMap<C, usize>,
}

impl<C> Default for Amounts<C> {
    fn default() -> Self {
        Self { sum: 0, by_client: BTreeMap::new() }
    }
}

impl<C: Ord> Amounts<C> {
    /// The sum over all clients.
    pub fn sum(&self) -> usize {
        self.sum
    }

    /// The amount of one client.
    pub fn of(&self, client: &C) -> usize {
        self.by_client.get(client).copied().unwrap_or(0)
    }

    /// A client has so much more.
    pub fn add(&mut self, client: C, more: usize) {
        if more > 0 {
            self.sum += more;
            *self.by_client.entry(client).or_default() += more;
        }
    }

    /// A client gives back so much, at most the client's amount.
    pub fn give_back(&mut self, client: &C, amount: usize) {
        let Some(own) = self.by_client.get_mut(client) else { return };
        let amount = amount.min(*own);
        *own -= amount;
        self.sum -= amount;
        if *own == 0 {
            self.by_client.remove(client);
        }
    }

    /// Whether no client has anything.
    pub fn is_empty(&self) -> bool {
        self.by_client.is_empty()
    }
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Ip(address)
    }
}

/// The address, or `unix:` and the number of the user.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::User(user) => write!(f, "unix:{user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Peer {
        Peer::Ip(text.parse().unwrap())
    }

    #[test]
    fn an_ipv4_address_is_a_client_and_a_64_of_ipv6() {
        for (address, block) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8::ffff:1", "2001:db8::"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
        ] {
            assert_eq!(ip(address).block(), ip(block), "{address}");
        }
    }

    #[test]
    fn a_user_is_a_client_on_a_unix_socket() {
        let (one, other) = (Peer::User(1000), Peer::User(0));
        assert_eq!((one.block(), one.to_string()), (one, "unix:1000".to_owned()));
        assert_ne!(one.block(), other.block());
    }
}
