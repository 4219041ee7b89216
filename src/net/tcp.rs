//! The real network: TCP sockets of the operating system.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    sync::LazyLock,
};

use tokio::net::{TcpListener, TcpStream};

use super::{
    Accept, Arrived, BoxFuture, BoxIo, Dial, Endpoint, Incoming, Listen,
    names::{Names, System},
    race::race,
};

/// The process has one resolver, and so one memory of names.
static NAMES: LazyLock<Names> = LazyLock::new(|| Names::new(System));

/// How much is read of a connection that is refused.
const UNREAD: usize = 4096;

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
            Ok((Incoming::new(stream.into_std()?), peer))
        })
    }
}

impl Arrived for std::net::TcpStream {
    fn open(self: Box<Self>) -> io::Result<BoxIo> {
        Ok(Box::new(TcpStream::from_std(*self)?))
    }

    /// The socket does not block.
    fn refuse(mut self: Box<Self>, words: &[u8]) {
        // If a socket is closed with unread bytes, the system resets the connection, and some
        // clients then lose `words`.
        let _ = self.read(&mut [0; UNREAD]);
        // A client that is gone already misses nothing.
        let _ = self.write(words);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn who_is_refused_reads_the_words_and_an_end() {
        let mut door = Tcp.bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        // Whether nothing has come, a request, or as much as is read.
        for before in [0, 100, UNREAD] {
            let mut client = TcpStream::connect(door.local_addr()).await.unwrap();
            client.write_all(&vec![b'x'; before]).await.unwrap();
            let (incoming, peer) = door.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap());
            incoming.refuse(b"the door is full");
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"the door is full", "{before}");
        }
    }
}
