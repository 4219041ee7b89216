//! A network that is only memory: what listens and what dials meet in it, and time is whatever the runtime says.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use steadfast::net::{Accept, BoxFuture, BoxIo, Dial, Endpoint, Incoming, Listen};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};

/// Bytes on their way in each direction of a connection.
const PIPE: usize = 64 * 1024;

/// The network. Clones are the same one.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    listening: BTreeMap<u16, mpsc::Sender<DuplexStream>>,
    last_port: u16,
    dialled: u64,
}

impl Net {
    /// Connects to what listens on `port`.
    pub async fn connect(&self, port: u16) -> io::Result<DuplexStream> {
        let backlog = {
            let mut state = self.0.lock().unwrap();
            state.dialled += 1;
            state.listening.get(&port).cloned()
        };
        let (near, far) = duplex(PIPE);
        let backlog = backlog.ok_or(io::ErrorKind::ConnectionRefused)?;
        backlog.send(far).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }

    /// Connections that were ever tried.
    pub fn dialled(&self) -> u64 {
        self.0.lock().unwrap().dialled
    }
}

impl Dial for Net {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move { Ok(Box::new(self.connect(to.port).await?) as BoxIo) })
    }
}

impl Listen for Net {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            let port = if addr.port() == 0 {
                state.last_port += 1;
                10_000 + state.last_port
            } else {
                addr.port()
            };
            if state.listening.contains_key(&port) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (backlog, accepted) = mpsc::channel(128);
            state.listening.insert(port, backlog);
            let addr = SocketAddr::new(addr.ip(), port);
            Ok(Box::new(Socket { addr, accepted, net: self.clone() }) as Box<dyn Accept>)
        })
    }
}

struct Socket {
    addr: SocketAddr,
    accepted: mpsc::Receiver<DuplexStream>,
    net: Net,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.net.0.lock().unwrap().listening.remove(&self.addr.port());
    }
}

impl Accept for Socket {
    fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Incoming, SocketAddr)>> {
        Box::pin(async move {
            // The network itself holds the sender.
            let stream = self.accepted.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            let peer = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
            Ok((Incoming::new(move || Ok(Box::new(stream) as BoxIo)), peer))
        })
    }
}
