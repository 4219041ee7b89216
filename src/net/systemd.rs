//! The process's news for systemd, by the protocol of `sd_notify(3)`: a datagram to the socket that
//! the environment names.

use std::{
    env, io,
    os::unix::net::{SocketAddr, UnixDatagram},
    process,
    time::Duration,
};

use tracing::debug;

/// The supervisor of this process. By default there is none, and nothing is told.
#[derive(Debug, Default)]
pub struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The process serves.
    pub const READY: &str = "READY=1";
    /// The process reads its settings anew; it is ready again when it says so.
    pub const RELOADING: &str = "RELOADING=1";
    /// The process ends.
    pub const STOPPING: &str = "STOPPING=1";
    /// The process is alive.
    pub const WATCHDOG: &str = "WATCHDOG=1";

    /// The supervisor that the environment of the process names.
    ///
    /// # Errors
    /// When there is such a name, and no socket for it.
    pub fn of_process() -> io::Result<Self> {
        let Some(name) = env::var_os("NOTIFY_SOCKET") else { return Ok(Self::default()) };
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        // The variables may have been meant for the process that started this one.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0).map(Duration::from_micros);
        let address = match name.as_encoded_bytes().strip_prefix(b"@") {
            Some(name) => without_file(name)?,
            None => SocketAddr::from_pathname(&name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A supervisor that does not read must not hold the process up.
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Some((socket, address)), watchdog })
    }

    /// How often at least the supervisor wants to hear that the process is alive; `None`: never.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Tells the supervisor one of the states above.
    pub fn tell(&self, state: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(state.as_bytes(), address) {
            debug!(%error, state, "the supervisor was not told");
        }
    }
}

/// The address of this name in no file system, which Linux alone has.
#[cfg(target_os = "linux")]
fn without_file(name: &[u8]) -> io::Result<SocketAddr> {
    <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn without_file(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}
