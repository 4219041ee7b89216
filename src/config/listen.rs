//! Where the doors listen.

use std::{net::SocketAddr, path::Path};

use super::{problem::Invalid, reader::Reader};
use crate::domain::address::Address;

/// The most addresses at which clients connect.
const MAX_ADDRESSES: usize = 16;
/// The longest path of a Unix socket, in bytes: systems have room for 104 or 108 with the zero at
/// the end.
pub(super) const MAX_PATH: usize = 103;

const WRONG: Invalid = Invalid("must be an IP address and a port, such as \"127.0.0.1:8545\" or \"[::]:8545\"");
const WRONG_FOR_CLIENTS: Invalid = Invalid(
    "must be an IP address and a port, such as \"127.0.0.1:8545\" or \"[::]:8545\", or a Unix socket, such as \
     \"unix:/run/steadfast.ipc\"",
);

/// `127.0.0.1:8545`, `[::]:8545`.
pub(super) fn ip(text: &str) -> Result<SocketAddr, Invalid> {
    text.parse().map_err(|_| WRONG)
}

/// `127.0.0.1:8545`, `unix:/run/steadfast.ipc`. Relative paths start at `folder`.
pub(super) fn address(text: &str, folder: &Path, mode: u32) -> Result<Address, Invalid> {
    match text.strip_prefix("unix:") {
        Some(path) => Ok(Address::Unix { path: socket_path(path, folder)?.into(), mode }),
        None => text.parse().map(Address::Ip).map_err(|_| WRONG_FOR_CLIENTS),
    }
}

/// The path of a Unix socket. A relative path starts at `folder`.
pub(super) fn socket_path(text: &str, folder: &Path) -> Result<std::path::PathBuf, Invalid> {
    if text.is_empty() {
        return Err(Invalid("must name a file, such as \"/run/steadfast.ipc\""));
    }
    if text.starts_with('@') {
        return Err(Invalid("must name a file: sockets without one (`@…`) are not supported"));
    }
    if text.contains('\0') {
        return Err(Invalid("has a zero in it, which no path can have"));
    }
    let path = folder.join(text);
    if path.as_os_str().len() > MAX_PATH {
        return Err(Invalid("is longer than the 103 bytes that the system has for the path of a socket"));
    }
    Ok(path)
}

/// The permission bits of the files of Unix sockets.
pub(super) fn mode(r: &mut Reader<'_>) -> u32 {
    r.parse("socket_mode", permissions).unwrap_or(Address::MODE)
}

/// Where clients connect; the default where nothing is said. The files of Unix sockets get the
/// permission bits `mode`.
pub(super) fn clients(r: &mut Reader<'_>, default: SocketAddr, mode: u32) -> Vec<Address> {
    let folder = r.reading().folder();
    let addresses = r.one_or_more("listen", |text| address(text, folder, mode));
    let Some(addresses) = addresses else { return vec![default.into()] };
    r.check(!addresses.is_empty(), "listen", &[], "must not be empty: clients could not connect");
    r.check(addresses.len() <= MAX_ADDRESSES, "listen", &[], "must not have more than 16 addresses");
    let ips: Vec<SocketAddr> = addresses.iter().filter_map(Address::ip).collect();
    let clash = ips.iter().enumerate().any(|(at, one)| ips[..at].iter().any(|other| overlap(*one, *other)));
    r.check(!clash, "listen", &[], "has the same port twice, of one address or of all addresses");
    addresses
}

/// Whether two sockets cannot be bound at once.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() != 0 && a.port() == b.port() && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// `0660`: permission bits in the form of `chmod`.
fn permissions(text: &str) -> Result<u32, Invalid> {
    const WRONG: Invalid = Invalid("must be permissions in octal, from \"0600\" to \"0777\"");
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(text, 8).map_err(|_| WRONG)?;
    // The owner of the file is the proxy's own user, whose tools connect too.
    if is_octal && (0o600..=0o777).contains(&mode) { Ok(mode) } else { Err(WRONG) }
}
