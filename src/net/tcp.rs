//! The real network: TCP sockets of the operating system.

use std::{io, net::SocketAddr, sync::LazyLock};

use tokio::net::{TcpListener, TcpStream};

use super::{
    Accept, BoxFuture, BoxIo, Dial, Endpoint, Incoming, Listen,
    names::{Names, System},
    race::race,
};

/// The process has one resolver, and so one memory of names.
static NAMES: LazyLock<Names> = LazyLock::new(|| Names::new(System));

/// Dials and listens on the operating system's TCP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let addresses = NAMES.lookup(&to.host).await?;
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, to.port)).collect();
            let (address, stream) = race(addresses, TcpStream::connect).await?;
            NAMES.connected(&to.host, address.ip());
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxIo)
        })
    }
}

impl Listen for Tcp {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(addr).await?;
            let addr = listener.local_addr()?;
            Ok(Box::new(Socket { listener, addr }) as Box<dyn Accept>)
        })
    }
}

struct Socket {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Accept for Socket {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Incoming, SocketAddr)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            let stream = stream.into_std()?;
            let incoming = Incoming::new(move || TcpStream::from_std(stream).map(|s| Box::new(s) as BoxIo));
            Ok((incoming, peer))
        })
    }
}
