//! Sockets that the process was started with, by the protocol of `sd_listen_fds(3)`: systemd's
//! socket activation. A supervisor that holds the sockets lets clients wait while the process is
//! started anew.

use std::{
    env, io,
    net::{IpAddr, TcpListener},
    os::unix::net::UnixListener,
    sync::{Arc, Mutex, PoisonError},
};

use listenfd::ListenFd;
use socket2::SockRef;

use super::{Accept, BoxFuture, Held, Listen, system, unix};
use crate::{config::Config, domain::address::Address};

/// Listens at the sockets that were passed, and by other means at all other addresses.
pub struct Passed {
    sockets: Mutex<Vec<Socket>>,
    /// The name and the address of each socket that was passed.
    all: Vec<(String, Address)>,
    others: Arc<dyn Listen>,
}

struct Socket {
    address: Address,
    listener: Listener,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Passed {
    /// The name of the sockets for clients.
    const CLIENTS: &str = "clients";
    /// The name of the socket for operators.
    const ADMIN: &str = "admin";

    /// Takes the sockets that the environment tells of, once for the process. `others` binds the
    /// other addresses.
    ///
    /// # Errors
    /// When a descriptor is no socket that can be accepted at.
    pub fn of_process(others: Arc<dyn Listen>) -> Result<Self, String> {
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        let (mut sockets, mut all) = (Vec::new(), Vec::new());
        for index in 0..descriptors.len() {
            let name = names.next().unwrap_or_default().to_owned();
            let socket = Socket::take(&mut descriptors, index)
                .map_err(|error| format!("LISTEN_FDS: socket {} ({name:?}): {error}", index + 1))?;
            all.push((name, socket.address.clone()));
            sockets.push(socket);
        }
        Ok(Self { sockets: Mutex::new(sockets), all, others })
    }

    /// Puts the addresses of sockets with the names `clients` and `admin` in the place of those in
    /// the settings.
    ///
    /// # Errors
    /// When a socket belongs to no listener, or cannot be the operator's.
    pub fn settle(&self, config: &mut Config) -> Result<(), String> {
        let named = |name: &str| -> Vec<&Address> {
            self.all.iter().filter(|(other, _)| other == name).map(|(_, address)| address).collect()
        };
        let clients = named(Self::CLIENTS);
        if !clients.is_empty() {
            config.listen = clients.into_iter().cloned().collect();
        }
        match named(Self::ADMIN)[..] {
            [] => {}
            [Address::Ip(address)] => config.admin.listen = *address,
            _ => return Err("LISTEN_FDNAMES: `admin` must be one socket, and TCP".to_owned()),
        }
        let wanted = |address: &Address| {
            address.ip() == Some(config.admin.listen) || config.listen.iter().any(|own| own.is_at(address))
        };
        match self.all.iter().find(|(_, address)| !wanted(address)) {
            None => Ok(()),
            Some((name, address)) => Err(format!(
                "LISTEN_FDS: a socket at {address} was passed (named {name:?}), and nothing listens there: name it \
                 `clients` or `admin` (FileDescriptorName=), or write its address into `listen` or `admin.listen`"
            )),
        }
    }

    /// Takes the socket at this address, if one was passed.
    fn take(&self, address: &Address) -> Option<Socket> {
        // Every change is complete before the lock is given up.
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let place = sockets.iter().position(|socket| socket.address.is_at(address))?;
        Some(sockets.swap_remove(place))
    }
}

impl Socket {
    fn take(descriptors: &mut ListenFd, index: usize) -> io::Result<Self> {
        let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
        let gone = || invalid("was taken already");
        let (address, listener) = match descriptors.take_tcp_listener(index) {
            Ok(listener) => {
                let listener = listener.ok_or_else(gone)?;
                (listener.local_addr()?.into(), Listener::Tcp(listener))
            }
            Err(_) => {
                let neither = |_| invalid("is neither a TCP nor a Unix stream socket");
                let listener = descriptors.take_unix_listener(index).map_err(neither)?.ok_or_else(gone)?;
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or_else(|| invalid("is a Unix socket without a file"))?;
                (Address::Unix { path: path.into(), mode: Address::MODE }, Listener::Unix(listener))
            }
        };
        let is_listener = match &listener {
            Listener::Tcp(listener) => SockRef::from(listener).is_listener()?,
            Listener::Unix(listener) => SockRef::from(listener).is_listener()?,
        };
        if !is_listener {
            return Err(invalid("does not listen: is Accept=yes set?"));
        }
        Ok(Self { address, listener })
    }

    fn accept(self) -> io::Result<Box<dyn Accept>> {
        match self.listener {
            Listener::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                system::tcp(tokio::net::TcpListener::from_std(listener)?)
            }
            Listener::Unix(listener) => {
                listener.set_nonblocking(true)?;
                Ok(unix::lent(tokio::net::UnixListener::from_std(listener)?, self.address))
            }
        }
    }
}

impl Listen for Passed {
    fn bind(&self, address: Address) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        match self.take(&address) {
            Some(socket) => Box::pin(async move { socket.accept() }),
            None => self.others.bind(address),
        }
    }

    fn hold(&self, address: &Address) -> Option<Held> {
        self.others.hold(address)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        self.others.is_own(ip)
    }
}
