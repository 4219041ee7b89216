//! Lists of addresses, and of blocks of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{problem::Invalid, reader::Reader};

/// Addresses and blocks of addresses, for example those of load balancers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(Vec<Block>);

/// The addresses that have the first `bits` of this one, which are counted as those of an IPv6
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    first: u128,
    bits: u32,
}

impl Addresses {
    /// Whether this address is in the list.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = bits_of(address);
        self.0.iter().any(|block| address & mask(block.bits) == block.first)
    }

    pub(super) fn read(r: &mut Reader<'_>, key: &'static str) -> Self {
        Self(r.list(key, block).unwrap_or_default())
    }
}

/// `[10.0.0.0/8, ::1/128]`.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blocks: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        write!(f, "[{}]", blocks.join(", "))
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from_bits(self.first);
        match address.to_ipv4_mapped() {
            Some(address) if self.bits >= FIRST_OF_IPV4 => write!(f, "{address}/{}", self.bits - FIRST_OF_IPV4),
            _ if self.bits == 0 => f.write_str("*"),
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

/// `10.1.2.3`, `10.0.0.0/8`, `2001:db8::/32`, or `*`.
fn block(text: &str) -> Result<Block, Invalid> {
    const WRONG: Invalid =
        Invalid("must be an IP address, a block of them such as \"10.0.0.0/8\", or \"*\" for every address");
    if text == "*" {
        return Ok(Block { first: 0, bits: 0 });
    }
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
        let blocks = blocks.iter().map(|text| block(text).unwrap()).collect();
        Addresses(blocks).contains(address.parse().unwrap())
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
            (&[], "127.0.0.1", false),
        ] {
            assert_eq!(contains(blocks, address), is_in, "{blocks:?} {address}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for wrong in
            ["", "lb.example", "10.0.0", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.1/8", "::/129", "**"]
        {
            assert!(block(wrong).is_err(), "{wrong}");
        }
    }
}
