//! The parts of the address space that a request to somebody else's server must not reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The part of the address space that an address belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The Internet.
    Public,
    /// This machine, and networks of one owner: an operator may have a server there.
    Private,
    /// Addresses that no server of an operator has: link-local ones, among which are the metadata
    /// services of clouds, multicast, and blocks that are reserved.
    Reserved,
}

/// A cloud's platform service at an address that looks public: Azure's.
const PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The metadata service at a unique local address: Amazon's.
const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254);

impl Space {
    /// The part that `address` belongs to. An IPv6 address that stands for one of IPv4 belongs to
    /// that one's part.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }
}

fn of_v4(address: Ipv4Addr) -> Space {
    match address.octets() {
        _ if address == PLATFORM => Space::Reserved,
        [10 | 127, ..] | [192, 168, ..] | [172, 16..=31, ..] => Space::Private,
        // Shared by a provider's customers; a cloud's metadata service is among them.
        [100, 100, 100, 200] => Space::Reserved,
        [100, 64..=127, ..] => Space::Private,
        // This host, link-local, protocols, documentation, benchmarks, relays, multicast, future.
        [0, ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18 | 19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _]
        | [224..=255, ..] => Space::Reserved,
        _ => Space::Public,
    }
}

fn of_v6(address: Ipv6Addr) -> Space {
    if address == METADATA {
        return Space::Reserved;
    }
    let part = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        of_v4(Ipv4Addr::new(a, b, c, d))
    };
    match part {
        [0, 0, 0, 0, 0, 0, 0, 1] => Space::Private,
        // Mapped, translated and compatible forms of an IPv4 address, and NAT64's.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // 6to4.
        | [0x2002, high, low, ..] => v4(high, low),
        // Of the global space, the blocks of protocols (Teredo among them) and documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Space::Reserved,
        [0x2000..=0x3fff, ..] => Space::Public,
        [0xfc00..=0xfdff, ..] => Space::Private,
        _ => Space::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(space: Space, addresses: &[&str]) {
        for text in addresses {
            assert_eq!(Space::of(text.parse().unwrap()), space, "{text}");
        }
    }

    #[test]
    fn every_address_has_its_part_of_the_space() {
        all(
            Space::Public,
            &["1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.0.1.1", "198.17.0.1"],
        );
        all(Space::Public, &["2606:4700::1111", "2a00:1450::1", "2400::1"]);
        all(
            Space::Private,
            &["127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "172.31.9.9", "192.168.1.1", "100.64.0.1"],
        );
        all(Space::Private, &["::1", "fc00::1", "fd12:3456::1"]);
        all(
            Space::Reserved,
            &["0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1"],
        );
        all(Space::Reserved, &["100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1"]);
        all(
            Space::Reserved,
            &["::", "fe80::1", "fec0::1", "ff02::1", "fd00:ec2::254", "2001:db8::1", "2001::1", "100::1"],
        );
    }

    #[test]
    fn an_address_of_ipv4_in_ipv6_has_its_own_part() {
        for (address, space) in
            [("127.0.0.1", Space::Private), ("169.254.169.254", Space::Reserved), ("1.1.1.1", Space::Public)]
        {
            let [a, b, c, d] = address.parse::<Ipv4Addr>().unwrap().octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            all(space, &[&format!("::ffff:{address}"), &format!("::ffff:0:{high:x}:{low:x}")]);
            all(space, &[&format!("64:ff9b::{high:x}:{low:x}"), &format!("2002:{high:x}:{low:x}::1")]);
            all(space, &[&format!("::{high:x}:{low:x}")]);
        }
    }
}
