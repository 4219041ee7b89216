//! Unix sockets of the operating system.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net,
        },
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, SockAddr, Socket as Socket2, Type};
use tokio::{
    net::{UnixListener, UnixStream},
    time::{Instant, sleep},
};

use super::{Accept, Arrived, BoxFuture, BoxIo, Incoming, system};
use crate::domain::{address::Address, client::Peer};

/// Connections that wait to be accepted; the system cuts the number to its own limit.
const BACKLOG: i32 = 1024;
/// How long a start waits for another process that begins to listen in the same folder.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// The time between two looks at a folder that is locked.
const LOCK_ROUND: Duration = Duration::from_millis(10);

/// Connects to the socket at `path`.
pub(super) async fn dial(path: &Path) -> io::Result<BoxIo> {
    Ok(Box::new(UnixStream::connect(path).await?))
}

/// Listens at `path`, whose file gets the permission bits `mode`. A file that a dead process left
/// is replaced.
pub(super) async fn bind(path: &Arc<Path>, mode: u32) -> io::Result<Box<dyn Accept>> {
    let _alone = lock_folder(path).await;
    remove_stale(path).await?;
    let listener = listen(path, mode)?;
    let address = Address::Unix { path: path.clone(), mode };
    let socket = Socket { listener, address, file: identity(path) };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(Box::new(socket))
}

/// Binds a socket whose file never has more permissions than `mode`: the kernel gives the file
/// those of the socket, without the bits of the umask.
fn listen(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = File::from(OwnedFd::from(Socket2::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?));
    socket.set_permissions(Permissions::from_mode(mode))?;
    let socket = Socket2::from(OwnedFd::from(socket));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    UnixListener::from_std(OwnedFd::from(socket).into())
}

/// Accepts at a socket whose file belongs to another, which also takes the file away.
pub(super) fn lent(listener: UnixListener, address: Address) -> Box<dyn Accept> {
    Box::new(Socket { listener, address, file: None })
}

/// Locks the folder of `path`, until the file is dropped.
///
/// Rule: of several processes in a folder, one at a time looks for a stale file, removes it and
/// listens. Reason: two that find the same stale file would otherwise both remove a file, the
/// second one that of the first, and both would believe that they listen. A folder that cannot be
/// locked, or that another program keeps locked, stops no start.
async fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = File::open(folder).ok()?;
    let due = Instant::now() + LOCK_TIMEOUT;
    loop {
        match folder.try_lock() {
            Ok(()) => return Some(folder),
            Err(TryLockError::WouldBlock) if Instant::now() < due => sleep(LOCK_ROUND).await,
            Err(_) => return None,
        }
    }
}

/// Removes the socket at `path` if no process listens there any more.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there that is no socket"));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // A process that listens and accepts too slowly lets the connection fail in another way.
        Ok(_) | Err(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
    }
}

/// The device and the number of the file at `path`.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

struct Socket {
    listener: UnixListener,
    address: Address,
    /// The file, if it is to go with the socket.
    file: Option<(u64, u64)>,
}

impl Accept for Socket {
    fn local_addr(&self) -> Address {
        self.address.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Incoming, Peer)>> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            let user = stream.peer_cred()?.uid();
            Ok((Incoming::new(stream.into_std()?), Peer::User(user)))
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The next process may have put its own socket there already.
        if let Some(path) = self.address.path()
            && self.file.is_some()
            && self.file == identity(path)
        {
            // If the file stays, the next process finds it stale.
            let _ = fs::remove_file(path);
        }
    }
}

impl Arrived for net::UnixStream {
    fn open(self: Box<Self>) -> io::Result<BoxIo> {
        Ok(Box::new(UnixStream::from_std(*self)?))
    }

    fn refuse(self: Box<Self>, words: &[u8]) {
        system::refuse(*self, words);
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use futures_util::FutureExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;

    /// A folder of this test's own, removed when dropped.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = env::temp_dir().join(format!("steadfast-unix-{}-{name}", process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn path(&self) -> Arc<Path> {
            self.0.join("clients.ipc").into()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_client_is_its_user_and_a_refused_one_reads_the_words() {
        let folder = Folder::new("client");
        let path = folder.path();
        let mut door = bind(&path, 0o600).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let mut client = UnixStream::connect(&path).await.unwrap();
        let own = client.peer_cred().unwrap().uid();
        let (incoming, peer) = door.accept().await.unwrap();
        assert_eq!(peer, Peer::User(own));
        let mut served = incoming.open().unwrap();
        client.write_all(b"ask").await.unwrap();
        let mut heard = [0; 3];
        served.read_exact(&mut heard).await.unwrap();
        assert_eq!((&heard, served.is_read_closed()), (b"ask", false));
        client.shutdown().await.unwrap();
        assert_eq!(served.read(&mut heard).await.unwrap(), 0);
        // The reactor hears of the end a moment later.
        timeout(Duration::from_secs(20), async {
            while !served.is_read_closed() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .expect("the end is known");

        let mut client = UnixStream::connect(&path).await.unwrap();
        door.accept().await.unwrap().0.refuse(b"the door is full");
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"the door is full");
    }

    #[tokio::test]
    async fn a_stale_file_is_replaced_and_a_live_one_is_an_error() {
        let folder = Folder::new("stale");
        let path = folder.path();
        // A socket that is closed without its file, as a process that is killed leaves it.
        drop(UnixListener::bind(&path).unwrap());
        let door = bind(&path, 0o660).await.unwrap();
        let error = bind(&path, 0o660).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        drop(door);
        assert!(!path.exists(), "the file is left");
        fs::write(&path, "notes").unwrap();
        let error = bind(&path, 0o660).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"notes");
    }

    #[tokio::test]
    async fn the_file_of_a_successor_stays() {
        let folder = Folder::new("successor");
        let path = folder.path();
        let door = bind(&path, 0o660).await.unwrap();
        fs::remove_file(&path).unwrap();
        let next = bind(&path, 0o660).await.unwrap();
        drop(door);
        UnixStream::connect(&path).await.unwrap();
        drop(next);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_start_waits_for_another_in_the_same_folder() {
        let folder = Folder::new("lock");
        let path = folder.path();
        drop(UnixListener::bind(&path).unwrap());
        // Another process has found the stale file, and is about to listen.
        let other = File::open(&folder.0).unwrap();
        other.lock().unwrap();
        let mut second = Box::pin(bind(&path, 0o660));
        assert!((&mut second).now_or_never().is_none(), "the second does not wait");
        fs::remove_file(&path).unwrap();
        let first = UnixListener::bind(&path).unwrap();
        drop(other);
        let error = timeout(Duration::from_secs(20), second).await.unwrap().err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}");
        UnixStream::connect(&path).await.unwrap();
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_stays_locked_stops_no_start() {
        let folder = Folder::new("locked");
        let path = folder.path();
        let other = File::open(&folder.0).unwrap();
        other.lock().unwrap();
        let _door = bind(&path, 0o660).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
    }
}
