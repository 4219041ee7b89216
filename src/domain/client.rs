//! Clients by their addresses.

use std::net::{IpAddr, Ipv6Addr};

/// The addresses that count as one client's, by the first of them: of IPv4 the address alone, of
/// IPv6 its /64, since a host has all of that.
pub fn block_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_a_client_and_a_64_of_ipv6() {
        for (address, block) in [
            ("10.0.0.1", "10.0.0.1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("2001:db8::ffff:1", "2001:db8::"),
            ("2001:db8:0:1::1", "2001:db8:0:1::"),
        ] {
            assert_eq!(block_of(address.parse().unwrap()), block.parse::<IpAddr>().unwrap(), "{address}");
        }
    }
}
