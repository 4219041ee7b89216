//! By which names a door may be asked for.

use std::net::{Ipv6Addr, SocketAddr};

use super::{problem::Invalid, reader::Reader};
use crate::domain::address::Address;

/// Names of this proxy, beside its addresses and `localhost`. A web page whose own name was made to
/// point here asks by that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Hosts {
    /// No others.
    #[default]
    None,
    /// Every name: `["*"]`.
    Any,
    /// These, in lower case.
    Names(Vec<Box<str>>),
}

/// Which `Host` a door serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRule {
    hosts: Hosts,
    /// The addresses on which the door listens: most clients ask for the first.
    own: Box<[Box<str>]>,
    /// Whether names without a dot pass too: those of machines and containers, which no page on the
    /// web can have.
    short: bool,
}

impl Hosts {
    /// The rule of the clients' door. Where the door listens on more than loopback and Unix
    /// sockets, the proxy knows its names only from the operator.
    pub fn for_clients(&self, listen: &[Address]) -> HostRule {
        let is_local = listen.iter().all(Address::is_local);
        let hosts = if is_local || *self != Self::None { self.clone() } else { Self::Any };
        let own = listen.iter().filter_map(Address::ip).map(|address| address.to_string().into());
        HostRule { hosts, own: own.collect(), short: true }
    }

    /// The rule of the operator's door.
    pub fn for_operator(&self, listen: SocketAddr) -> HostRule {
        HostRule { hosts: self.clone(), own: [listen.to_string().into()].into(), short: !listen.ip().is_loopback() }
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let names = r.list("hosts", |text| if text == "*" { Ok(None) } else { name(text).map(Some) });
        let names = names.unwrap_or_default();
        let any = names.contains(&None);
        r.check(!any || names.len() == 1, "hosts", &[], "must hold either \"*\" alone or single names");
        let names: Vec<_> = names.into_iter().flatten().collect();
        match (any, names.is_empty()) {
            (true, _) => Self::Any,
            (false, true) => Self::None,
            (false, false) => Self::Names(names),
        }
    }
}

/// Whether `text`, which follows an opening bracket, is an IPv6 address, and a port if there is
/// one.
fn is_address_and_port(text: &str) -> bool {
    let Some((ip, port)) = text.split_once(']') else { return false };
    let port = port.strip_prefix(':').or_else(|| port.is_empty().then_some(""));
    ip.parse::<Ipv6Addr>().is_ok() && port.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether `host` is `localhost` or a name below it. All of these mean this machine (RFC 6761), so
/// that no page on the web can have one.
fn is_localhost(host: &str) -> bool {
    let (parents, top) = host.rsplit_once('.').unwrap_or(("", host));
    top.eq_ignore_ascii_case("localhost") && !parents.ends_with('.')
}

fn name(text: &str) -> Result<Box<str>, Invalid> {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if text.is_empty() || !text.bytes().all(is_good) {
        return Err(Invalid("must be a name without a port, such as \"rpc.example\", or \"*\""));
    }
    Ok(text.trim_end_matches('.').to_ascii_lowercase().into())
}

impl HostRule {
    /// Whether a request with this `Host` is served.
    pub fn allows(&self, host: &[u8]) -> bool {
        if self.hosts == Hosts::Any || self.own.iter().any(|own| host == own.as_bytes()) {
            return true;
        }
        if let Some(address) = host.strip_prefix(b"[") {
            return std::str::from_utf8(address).is_ok_and(is_address_and_port);
        }
        // Each byte is looked at once, because every request comes by here.
        let (mut end, mut dots, mut is_number) = (host.len(), 0_usize, true);
        for (at, byte) in host.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {}
                b'.' => dots += 1,
                b':' => {
                    end = at;
                    break;
                }
                _ => is_number = false,
            }
        }
        let (host, port) = (&host[..end], host.get(end + 1..).unwrap_or_default());
        if !port.iter().all(u8::is_ascii_digit) {
            return false;
        }
        // An IPv4 address: to a browser, no name of a page ends in a number.
        if is_number && dots == 3 {
            return true;
        }
        let is_good = |b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(b);
        let Some(host) = std::str::from_utf8(host).ok().filter(|host| host.as_bytes().iter().all(is_good)) else {
            return false;
        };
        if self.short && !host.contains('.') {
            return true;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        if is_localhost(host) {
            return true;
        }
        let Hosts::Names(names) = &self.hosts else { return false };
        names.iter().any(|name| name.eq_ignore_ascii_case(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8545);
    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 8545);

    #[test]
    fn addresses_localhost_and_listed_names_pass() {
        let names = Hosts::Names(vec!["rpc.example".into()]);
        let (none, listed) = (Hosts::None.for_clients(&[LOOPBACK.into()]), names.for_clients(&[LOOPBACK.into()]));
        for host in
            ["127.0.0.1", "127.0.0.1:8545", "10.1.2.3:80", "[::1]:8545", "[::1]", "localhost", "LocalHost:1", ""]
                .into_iter()
                .chain(["localhost.", "localhost.:8545", "rpc.localhost", "a.b.LOCALHOST.:80"])
        {
            assert!(none.allows(host.as_bytes()) && listed.allows(host.as_bytes()), "{host}");
        }
        for host in ["rpc.example", "RPC.example:8545", "rpc.example.", "rpc.example.:80"] {
            assert!(!none.allows(host.as_bytes()) && listed.allows(host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8545",
            "127.0.0.1.evil.example",
            "x.rpc.example",
            "[evil.example]",
            "[::1",
            "localhost.evil.example",
            "1.2.3",
            "evil.",
            "evillocalhost.example",
            "evil.notlocalhost",
            "localhost..",
            "a:b:c",
            "localhost:1@evil.example",
            "localhost/",
            "a b",
            "[::1]x",
            "[::1]:x",
            "x@localhost",
        ] {
            assert!(!none.allows(host.as_bytes()) && !listed.allows(host.as_bytes()), "{host}");
            assert!(Hosts::Any.for_clients(&[LOOPBACK.into()]).allows(host.as_bytes()), "{host}");
        }
        assert!(!none.allows(b"\xff.example"));
    }

    #[test]
    fn a_public_door_has_names_that_only_its_operator_knows() {
        assert!(Hosts::None.for_clients(&[ANY.into()]).allows(b"rpc.example"));
        let socket = Address::Unix { path: std::path::Path::new("/run/steadfast.ipc").into(), mode: Address::MODE };
        for (listen, allows) in [
            (&[socket.clone()][..], false),
            (&[LOOPBACK.into(), socket.clone()], false),
            (&[LOOPBACK.into(), ANY.into()], true),
            (&[socket, ANY.into()], true),
        ] {
            let rule = Hosts::None.for_clients(listen);
            assert_eq!((rule.allows(b"rpc.example"), rule.allows(b"localhost")), (allows, true), "{listen:?}");
        }
        assert!(!Hosts::Names(vec!["a.example".into()]).for_clients(&[ANY.into()]).allows(b"rpc.example"));
        assert!(!Hosts::None.for_operator(ANY).allows(b"evil.example"));
        assert!(Hosts::None.for_operator(ANY).allows(b"steadfast:9090"));
        assert!(!Hosts::None.for_operator(LOOPBACK).allows(b"steadfast:9090"));
    }
}
