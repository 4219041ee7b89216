//! The real network: sockets of the operating system.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, LazyLock},
};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{
    Accept, Arrived, BoxFuture, BoxIo, Dial, Endpoint, Held, Incoming, Listen,
    names::{self, Names},
    race::race,
    unix,
};
use crate::domain::{address::Address, client::Peer};

/// The process has one resolver, and so one memory of names.
static NAMES: LazyLock<Arc<Names>> = LazyLock::new(|| Arc::new(Names::new(names::System)));

/// How much is read of a connection that is refused.
const UNREAD: usize = 4096;

/// So many bytes the system takes for a peer before any of them has left. Half of that has to leave
/// before it takes more, and that is when the pace of the peer is seen. Without this bound the
/// system takes some MiB, and a peer that reads slowly seems to stand still for minutes.
const UNSENT: u32 = 32 * 1024;

/// The names that the system's resolver looks up.
pub fn names() -> Arc<Names> {
    NAMES.clone()
}

/// Dials and listens by the operating system's TCP and Unix sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Dial for System {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let (host, port) = match to {
                Endpoint::Tcp { host, port } => (host, *port),
                Endpoint::Unix(path) => return unix::dial(path).await,
            };
            let addresses = NAMES.lookup(host).await?;
            let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
            let (address, stream) = race(addresses, TcpStream::connect).await?;
            NAMES.connected(host, address.ip());
            stream.set_nodelay(true)?;
            bound_unsent(&stream);
            Ok(Box::new(stream) as BoxIo)
        })
    }
}

/// Keeps to [`UNSENT`], where the system can: some sandboxes know no such option.
fn bound_unsent(stream: &TcpStream) {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT);
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, UNSENT);
}

impl Listen for System {
    fn bind(&self, address: Address) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        Box::pin(async move {
            match address {
                Address::Ip(address) => tcp(TcpListener::bind(address).await?),
                Address::Unix { path, mode } => unix::bind(&path, mode).await,
            }
        })
    }

    fn hold(&self, address: &Address) -> Option<Held> {
        let address = address.ip()?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.ok()?;
        // Connections that the dropped socket accepted may linger at the port.
        socket.set_reuseaddr(true).and_then(|()| socket.bind(address)).ok()?;
        Some(Box::new(socket))
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        // To an address of its own the system talks from that address. This sends nothing.
        let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let from = UdpSocket::bind((any, 0)).and_then(|socket| {
            socket.connect((ip, 9))?;
            socket.local_addr()
        });
        from.is_ok_and(|from| from.ip() == ip)
    }
}

/// Accepts at `listener`.
pub(super) fn tcp(listener: TcpListener) -> io::Result<Box<dyn Accept>> {
    let address = listener.local_addr()?;
    Ok(Box::new(Socket { listener, address }))
}

struct Socket {
    listener: TcpListener,
    address: SocketAddr,
}

impl Accept for Socket {
    fn local_addr(&self) -> Address {
        self.address.into()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Incoming, Peer)>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            stream.set_nodelay(true)?;
            bound_unsent(&stream);
            Ok((Incoming::new(stream.into_std()?), peer.ip().into()))
        })
    }
}

impl Arrived for std::net::TcpStream {
    fn open(self: Box<Self>) -> io::Result<BoxIo> {
        Ok(Box::new(TcpStream::from_std(*self)?))
    }

    fn refuse(self: Box<Self>, words: &[u8]) {
        refuse(*self, words);
    }
}

/// Writes as much of `words` as the stream, which does not block, takes at once.
pub(super) fn refuse(mut stream: impl Read + Write, words: &[u8]) {
    // If a socket is closed with unread bytes, the system resets the connection, and some clients
    // then lose `words`.
    let _ = stream.read(&mut [0; UNREAD]);
    // A client that is gone already misses nothing.
    let _ = stream.write(words);
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
        time::Duration,
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpSocket,
        time::{sleep, timeout},
    };

    use super::*;

    /// A socket of a peer, with as little room for bytes that are not read as the system allows.
    fn peer() -> TcpSocket {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket
    }

    /// Writes without end, and reads slowly at the other side: each part that is read has to let
    /// more be written.
    async fn is_paced_by_its_reader(mut writer: BoxIo, mut reader: TcpStream) {
        const PART: usize = 128 * 1024;
        let written = Arc::new(AtomicUsize::new(0));
        let counted = written.clone();
        let writes = tokio::spawn(async move {
            let bytes = vec![0; 1 << 20];
            loop {
                counted.fetch_add(writer.write(&bytes).await.unwrap(), Relaxed);
            }
        });
        let mut part = vec![0; PART];
        for round in 0..32 {
            let before = written.load(Relaxed);
            assert!(before < round * PART + 2 * PART, "{before} in round {round}");
            reader.read_exact(&mut part).await.unwrap();
            let moved = timeout(Duration::from_secs(20), async {
                while written.load(Relaxed) == before {
                    sleep(Duration::from_millis(1)).await;
                }
            });
            moved.await.unwrap_or_else(|_| panic!("nothing moves in round {round}, after {before} bytes"));
        }
        writes.abort();
    }

    #[tokio::test]
    async fn a_peer_that_reads_slowly_is_seen_to_read() {
        let mut door = System.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let client = peer().connect(door.local_addr().ip().unwrap()).await.unwrap();
        is_paced_by_its_reader(door.accept().await.unwrap().0.open().unwrap(), client).await;

        let node = peer();
        node.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let node = node.listen(1).unwrap();
        let to = Endpoint::Tcp { host: "127.0.0.1".into(), port: node.local_addr().unwrap().port() };
        let io = System.dial(&to).await.unwrap();
        is_paced_by_its_reader(io, node.accept().await.unwrap().0).await;
    }

    #[tokio::test]
    async fn refused_client_reads_the_refusal_and_an_end() {
        let mut door = System.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        // Whether nothing has come, a request, or as much as is read.
        for before in [0, 100, UNREAD] {
            let mut client = TcpStream::connect(door.local_addr().ip().unwrap()).await.unwrap();
            client.write_all(&vec![b'x'; before]).await.unwrap();
            let (incoming, peer) = door.accept().await.unwrap();
            assert_eq!(peer, Peer::Ip(client.local_addr().unwrap().ip()));
            incoming.refuse(b"the door is full");
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"the door is full", "{before}");
        }
    }
}
