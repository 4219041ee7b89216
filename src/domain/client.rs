//! Clients by where they are.

use std::{
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
