//! Why the proxy does not start, with advice.

use std::io;

use crate::domain::address::Address;

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {error}{}", advice(key, address, error))]
    Listen {
        /// The key of the address.
        key: &'static str,
        /// The address.
        address: Address,
        /// Why.
        error: io::Error,
    },
    /// A node cannot be set up.
    #[error("{0}")]
    Node(String),
    /// The outbox cannot be opened.
    #[error("{0}")]
    Outbox(String),
    /// This replica cannot be one of the cluster.
    #[error("{0}")]
    Cluster(String),
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Advice to the operator about an address that cannot be listened on.
fn advice(key: &str, address: &Address, error: &io::Error) -> String {
    if address.path().is_some() {
        return match error.kind() {
            io::ErrorKind::AddrInUse => {
                "\nanother Steadfast may run here (see `steadfast status`): give this one another file".to_owned()
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "\nmay this process write to the folder? Under systemd, RuntimeDirectory= makes one".to_owned()
            }
            _ => String::new(),
        };
    }
    match error.kind() {
        io::ErrorKind::AddrInUse if key == "listen" => "\nanother program has this port: a node has 8545 for its JSON-RPC \
            unless it is told otherwise, and another Steadfast may run here: `steadfast status` shows a running one. Give \
            that program another port, or this one with `listen` or --listen"
            .to_owned(),
        io::ErrorKind::AddrInUse => format!(
            "\nanother program has this port: another Steadfast may run here, and `steadfast status --admin {}` shows a \
            running one. Give this one another port with `admin.listen` or --admin-listen",
            match address.ip() {
                Some(addr) if addr.ip().is_unspecified() => format!("127.0.0.1:{}", addr.port()),
                _ => address.to_string(),
            }
        ),
        io::ErrorKind::AddrNotAvailable => format!("\nthis machine has no such address: see `{key}`"),
        io::ErrorKind::PermissionDenied => "\nports below 1024 are for privileged processes only".to_owned(),
        _ => String::new(),
    }
}
