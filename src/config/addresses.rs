//! Lists of addresses, and of blocks of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{problem::Invalid, reader::Reader};
use crate::domain::client::Peer;

/// Addresses and blocks of addresses, for example those of load balancers, and whether the clients
/// of Unix sockets are among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<Entry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// `*`
    All,
    /// `unix:`
    Unix,
    Block(Block),
}

/// The addresses that have the first `bits` of this one, which are counted as those of an IPv6
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    first: u128,
    bits: u32,
}

impl Addresses {
    /// Whether this client is in the list.
    pub fn contains(&self, client: Peer) -> bool {
        self.0.iter().any(|entry| match (entry, client) {
            (Entry::All, _) | (Entry::Unix, Peer::User(_)) => true,
            (Entry::Block(block), Peer::Ip(address)) => bits_of(address) & mask(block.bits) == block.first,
            (Entry::Unix, Peer::Ip(_)) | (Entry::Block(_), Peer::User(_)) => false,
        })
    }

    pub(super) fn read(r: &mut Reader<'_>, key: &'static str) -> Self {
        Self(r.list(key, entry).unwrap_or_default())
    }
}

/// `[unix:, 10.0.0.0/8, ::1/128]`.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", blocks.join(", "))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Unix => f.write_str("unix:"),
            Self::Block(block) => block.fmt(f),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from_bits(self.first);
        match address.to_ipv4_mapped() {
            Some(address) if self.bits >= FIRST_OF_IPV4 => write!(f, "{address}/{}", self.bits - FIRST_OF_IPV4),
            _ => write!(f, "{address}/{}", self.bits),
        }
    }
}

/// Bits that all IPv4 addresses have in common.
const FIRST_OF_IPV4: u32 = Ipv6Addr::BITS - Ipv4Addr::BITS;

/// An address as one of IPv6.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn mask(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

/// `10.1.2.3`, `10.0.0.0/8`, `2001:db8::/32`, `unix:` or `*`.
fn entry(text: &str) -> Result<Entry, Invalid> {
    match text {
        "*" => Ok(Entry::All),
        "unix:" => Ok(Entry::Unix),
        _ => block(text).map(Entry::Block),
    }
}

fn block(text: &str) -> Result<Block, Invalid> {
    const WRONG: Invalid = Invalid(
        "must be an IP address, a block of them such as \"10.0.0.0/8\", \"unix:\" for the clients of Unix sockets, or \
         \"*\" for all",
    );
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| WRONG)?;
    let all = if address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
    let bits = match bits {
        None => all,
        Some(bits) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
            bits.parse().map_err(|_| WRONG)?
        }
        Some(_) => return Err(WRONG),
    };
    if bits > all {
        return Err(WRONG);
    }
    let block = Block { first: bits_of(address), bits: Ipv6Addr::BITS - all + bits };
    if block.first & !mask(block.bits) != 0 {
        return Err(Invalid("has bits set behind its length: write the first address of the block"));
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(blocks: &[&str], address: &str) -> bool {
        let entries = blocks.iter().map(|text| entry(text).unwrap()).collect();
        let client = address.parse().map_or(Peer::User(1000), Peer::Ip);
        Addresses(entries).contains(client)
    }

    #[test]
    fn addresses_and_blocks_hold_what_they_name() {
        for (blocks, address, is_in) in [
            (&["10.1.2.3"][..], "10.1.2.3", true),
            (&["10.1.2.3"], "10.1.2.4", false),
            (&["10.1.2.3"], "::ffff:10.1.2.3", true),
            (&["10.0.0.0/8"], "10.255.0.1", true),
            (&["10.0.0.0/8", "192.168.0.0/16"], "192.168.9.9", true),
            (&["10.0.0.0/8"], "11.0.0.0", false),
            (&["2001:db8::/32"], "2001:db8:ffff::1", true),
            (&["2001:db8::/32"], "2001:db9::1", false),
            (&["0.0.0.0/0"], "8.8.8.8", true),
            (&["0.0.0.0/0"], "2001:db8::1", false),
            (&["*"], "8.8.8.8", true),
            (&["*"], "::1", true),
            (&["*"], "unix", true),
            (&["unix:"], "unix", true),
            (&["unix:"], "127.0.0.1", false),
            (&["0.0.0.0/0", "::/0"], "unix", false),
            (&[], "127.0.0.1", false),
            (&[], "unix", false),
        ] {
            assert_eq!(contains(blocks, address), is_in, "{blocks:?} {address}");
        }
    }

    #[test]
    fn text_that_is_no_address_block_is_refused() {
        for wrong in
            ["", "lb.example", "10.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.1/8", "::/129", "**"]
        {
            assert!(entry(wrong).is_err(), "{wrong}");
        }
    }
}
