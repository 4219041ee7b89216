//! Dials that do not end at the process itself.
//!
//! The rule: **no connection to a node is one to the proxy's own ports.** The reason: the proxy
//! would answer its own calls by asking itself again, and each call would take all connections
//! there are. The settings are checked for such a node, but a name has its addresses only later,
//! and other ones every day. An example: `listen` is 0.0.0.0:8545, a node is `http://geth:8545`,
//! and `geth` has the address of this machine beside 10.0.0.7. The node is reached at 10.0.0.7
//! alone.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{BoxFuture, BoxIo, Dial, Endpoint, Listen, names::Names};

/// The addresses at which the proxy itself listens.
pub struct OwnAddresses {
    listening: Vec<SocketAddr>,
    listen: Arc<dyn Listen>,
}

impl OwnAddresses {
    /// These are listened at, by way of `listen`.
    pub fn new(listening: impl IntoIterator<Item = SocketAddr>, listen: Arc<dyn Listen>) -> Arc<Self> {
        Arc::new(Self { listening: listening.into_iter().collect(), listen })
    }

    /// Whether a connection to this address would be one to the proxy.
    pub fn leads_here(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        let is_here = |own: IpAddr| {
            // A connection to the unspecified address is one to loopback.
            own == ip
                || (ip.is_unspecified() && own.is_loopback())
                || (own.is_unspecified() && (ip.is_unspecified() || ip.is_loopback() || self.listen.is_own(ip)))
        };
        self.listening.iter().any(|own| own.port() == port && is_here(own.ip().to_canonical()))
    }

    fn has_port(&self, port: u16) -> bool {
        self.listening.iter().any(|own| own.port() == port)
    }
}

/// Dials all but the proxy itself.
pub struct Elsewhere {
    dial: Arc<dyn Dial>,
    names: Arc<Names>,
    own: Arc<OwnAddresses>,
}

impl Elsewhere {
    /// Dials by `dial`, whose names are `names`.
    pub fn new(dial: Arc<dyn Dial>, names: Arc<Names>, own: Arc<OwnAddresses>) -> Self {
        Self { dial, names, own }
    }

    async fn dial_others(&self, to: &Endpoint, host: &Arc<str>, port: u16) -> io::Result<BoxIo> {
        let mut addresses = self.names.lookup(host).await?;
        let count = addresses.len();
        addresses.retain(|address| !self.own.leads_here(*address, port));
        if addresses.len() == count {
            return self.dial.dial(to).await;
        }
        let mut failed = io::Error::other("its address is Steadfast's own");
        for address in addresses {
            match self.dial.dial(&Endpoint::Tcp { host: address.to_string().into(), port }).await {
                Ok(io) => return Ok(io),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl Dial for Elsewhere {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        match to {
            Endpoint::Tcp { host, port } if self.own.has_port(*port) => Box::pin(self.dial_others(to, host, *port)),
            Endpoint::Tcp { .. } | Endpoint::Unix(_) => self.dial.dial(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::system::System;

    #[test]
    fn own_addresses_are_told_from_others() {
        let here = |listening: &str, to: &str| {
            let own = OwnAddresses::new([listening.parse().unwrap()], Arc::new(System));
            let to: SocketAddr = to.parse().unwrap();
            own.leads_here(to.ip(), to.port())
        };
        for (listening, to, expected) in [
            ("127.0.0.1:8545", "127.0.0.1:8545", true),
            ("127.0.0.1:8545", "127.0.0.1:8546", false),
            ("127.0.0.1:8545", "127.0.0.2:8545", false),
            ("127.0.0.1:8545", "[::ffff:127.0.0.1]:8545", true),
            ("127.0.0.1:8545", "0.0.0.0:8545", true),
            ("10.0.0.1:8545", "10.0.0.1:8545", true),
            ("10.0.0.1:8545", "127.0.0.1:8545", false),
            ("0.0.0.0:8545", "127.0.0.2:8545", true),
            ("[::]:8545", "127.0.0.1:8545", true),
            // An address for documentation is no machine's.
            ("0.0.0.0:8545", "192.0.2.1:8545", false),
            ("[::]:8545", "[2001:db8::1]:8545", false),
        ] {
            assert_eq!(here(listening, to), expected, "{listening} and {to}");
        }
    }
}
