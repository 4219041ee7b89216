//! The world: the only floor that opens sockets.
//!
//! Everything above dials through [`Dial`] and listens through [`Listen`], so that the production
//! code runs unchanged on a simulated network.

pub mod descriptors;
pub mod elsewhere;
mod excerpt;
pub mod http;
pub mod link;
mod listeners;
pub mod names;
pub mod node_connections;
pub mod passed;
pub mod post;
mod race;
pub mod system;
pub mod systemd;
pub mod tls;
mod unix;
pub mod values;
pub mod worker;

use std::{fmt, future::Future, io, net::IpAddr, path::Path, pin::Pin, sync::Arc};

use futures_util::FutureExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Empty, Interest},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

pub use self::listeners::Listeners;
use crate::domain::{address::Address, client::Peer};

/// A boxed future, for the object-safe traits of this floor.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A byte stream: a TCP, TLS or Unix connection, or a simulated one.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// Whether the peer is known to have closed its side, also while bytes before that end have not
    /// been read. `false` where a stream cannot tell: the end then comes behind those bytes.
    fn is_read_closed(&self) -> bool {
        false
    }
}

impl Io for TcpStream {
    fn is_read_closed(&self) -> bool {
        // The system's word on the socket, as far as the reactor has heard of it.
        self.ready(Interest::READABLE)
            .now_or_never()
            .is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}

impl Io for UnixStream {
    fn is_read_closed(&self) -> bool {
        self.ready(Interest::READABLE)
            .now_or_never()
            .is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
    }
}

impl Io for TlsStream<BoxIo> {
    fn is_read_closed(&self) -> bool {
        self.get_ref().0.is_read_closed()
    }
}

impl Io for DuplexStream {}

impl Io for Empty {}

/// An open connection over any transport.
pub type BoxIo = Box<dyn Io>;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// TCP.
    Tcp {
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: Arc<str>,
        /// TCP port.
        port: u16,
    },
    /// The Unix socket with this file.
    Unix(Arc<Path>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Opens plain connections. TLS is laid over them by the caller.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `to`. The caller limits the time; dropping the future gives up.
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>>;
}

/// Opens listening sockets.
pub trait Listen: Send + Sync + 'static {
    /// Binds `address`; port 0 picks a free one. The file of a Unix socket that nothing listens at
    /// any more is replaced.
    fn bind(&self, address: Address) -> BoxFuture<'_, io::Result<Box<dyn Accept>>>;

    /// Keeps the port of a socket that was dropped: connections are refused, and no other socket
    /// is given the port. `None` where none would be, or where the system refuses.
    fn hold(&self, address: &Address) -> Option<Held> {
        let _ = address;
        None
    }

    /// Whether `ip`, which is not on loopback, is an address of this machine.
    fn is_own(&self, ip: IpAddr) -> bool;
}

/// A port that is kept until this is dropped.
pub type Held = Box<dyn Send>;

/// A listening socket. Dropping it closes the socket, and takes its file away if there is one.
pub trait Accept: Send + 'static {
    /// The address that was bound, with the real port.
    fn local_addr(&self) -> Address;

    /// Waits for the next connection. Cancel-safe. An error concerns one connection or passing
    /// exhaustion: the socket goes on.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Incoming, Peer)>>;
}

/// An accepted connection as the real or the simulated network gives it.
pub trait Arrived: Send {
    /// ValidatorTies the connection to the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot register the socket.
    fn open(self: Box<Self>) -> io::Result<BoxIo>;

    /// Ends the connection, after as much of `words` as can be written at once.
    fn refuse(self: Box<Self>, words: &[u8]);
}

/// An accepted connection that no runtime's reactor knows yet, so that another thread can take the
/// connection.
pub struct Incoming(Box<dyn Arrived>);

impl Incoming {
    /// Wraps the connection, which is opened on the runtime that calls [`Incoming::open`].
    pub fn new(arrived: impl Arrived + 'static) -> Self {
        Self(Box::new(arrived))
    }

    /// Ends the connection, after as much of `words` as can be written at once, without waiting.
    pub fn refuse(self, words: &[u8]) {
        self.0.refuse(words);
    }

    /// ValidatorTies the connection to the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot register the socket.
    pub fn open(self) -> io::Result<BoxIo> {
        self.0.open()
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming")
    }
}
