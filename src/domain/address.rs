//! Where the proxy listens.

use std::{fmt, net::SocketAddr, path::Path, sync::Arc};

/// Where a door listens: a port of the network, or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP. Port 0: a free one.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix {
        /// The file.
        path: Arc<Path>,
        /// The permission bits of the file: processes that may write to the file may connect.
        mode: u32,
    },
}

impl Address {
    /// Owner and group may connect.
    pub const MODE: u32 = 0o660;

    /// The address of the network; `None` for a file.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }

    /// The TCP port; 0 for a file.
    pub fn port(&self) -> u16 {
        self.ip().map_or(0, |address| address.port())
    }

    /// The file; `None` for an address of the network.
    pub fn path(&self) -> Option<&Arc<Path>> {
        match self {
            Self::Ip(_) => None,
            Self::Unix { path, .. } => Some(path),
        }
    }

    /// Whether only this machine can reach the address.
    pub fn is_local(&self) -> bool {
        self.ip().is_none_or(|address| address.ip().is_loopback())
    }

    /// Whether the two are one socket, whatever the mode of a file.
    pub fn is_at(&self, other: &Self) -> bool {
        self.ip() == other.ip() && self.path() == other.path()
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl From<([u8; 4], u16)> for Address {
    fn from(address: ([u8; 4], u16)) -> Self {
        Self::Ip(address.into())
    }
}

/// In the form of the settings: `127.0.0.1:8545`, `unix:/run/steadfast.ipc`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}
