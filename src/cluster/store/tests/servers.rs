//! Real NATS servers on loopback, in a folder of their own. Dropped, they are killed.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};

/// Names the binary. Without, that of `tests/install.sh` is taken.
const BINARY: &str = "STEADFAST_NATS_SERVER";
/// The longest wait for a server or a cluster.
const START: Duration = Duration::from_secs(60);

/// Below the ports that the system gives to outgoing connections and to listeners that ask for any:
/// no other socket takes one before its server listens, or while its server is dead.
const PORTS: Range<u16> = 12_000..20_000;
/// Ports between the places where processes of neighbouring ids begin.
const STRIDE: u32 = 97;

static FOLDERS: AtomicU32 = AtomicU32::new(0);

/// One server or a cluster of three.
pub(super) struct Servers {
    folder: PathBuf,
    ports: Vec<u16>,
    routes: Vec<u16>,
    more: Vec<String>,
    children: Mutex<Vec<Option<Child>>>,
}

impl Servers {
    pub(super) async fn one() -> Self {
        let servers = Self::new(1, Vec::new());
        servers.start(0);
        servers.answer().await;
        servers
    }

    /// One server with more arguments, which is not waited for.
    pub(super) fn one_with(arguments: Vec<String>) -> Self {
        let servers = Self::new(1, arguments);
        servers.start(0);
        servers
    }

    pub(super) async fn three() -> Self {
        let servers = Self::new(3, Vec::new());
        (0..3).for_each(|place| servers.start(place));
        servers.answer().await;
        servers
    }

    fn new(count: usize, more: Vec<String>) -> Self {
        let number = FOLDERS.fetch_add(1, Ordering::SeqCst);
        let name = format!("steadfast-nats-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        let children = Mutex::new((0..count).map(|_| None).collect());
        Self { folder, ports: free_ports(count), routes: free_ports(count), more, children }
    }

    /// Starts a server, or starts one that was killed with the files that it had.
    pub(super) fn start(&self, place: usize) {
        let mut command = Command::new(binary());
        let folder = self.folder.join(format!("n{place}"));
        let log = File::create(self.folder.join(format!("n{place}.log"))).expect("a log");
        command.args(["-a", "127.0.0.1", "-p", &self.ports[place].to_string(), "-js", "-sd"]);
        command.arg(folder).args(["-n", &format!("n{place}")]).args(&self.more);
        if self.ports.len() > 1 {
            let routes: Vec<String> = self.routes.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
            command.args(["--cluster_name", "steadfast-test", "--routes", &routes.join(",")]);
            command.args(["--cluster", &routes[place]]);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.expect("a server starts");
        let before = self.children.lock().expect("a lock")[place].replace(child);
        assert!(before.is_none(), "the server runs already");
    }

    /// Kills a server at once. Its files stay.
    pub(super) fn kill(&self, place: usize) {
        if let Some(mut child) = self.children.lock().expect("a lock")[place].take() {
            child.kill().expect("a kill");
            child.wait().expect("an end");
        }
    }

    /// Keeps a copy of the files of a server that was killed, for [`Servers::put_back`].
    pub(super) fn keep(&self, place: usize) {
        copy(&self.folder.join(format!("n{place}")), &self.folder.join(format!("kept{place}")));
    }

    /// Gives a server the files that were kept.
    pub(super) fn put_back(&self, place: usize) {
        copy(&self.folder.join(format!("kept{place}")), &self.folder.join(format!("n{place}")));
    }

    /// Removes the files of a server that was killed.
    pub(super) fn forget(&self, place: usize) {
        fs::remove_dir_all(self.folder.join(format!("n{place}"))).expect("the files");
    }

    /// Stops a server without an end of its connections, or lets it go on.
    pub(super) fn freeze(&self, place: usize, is_frozen: bool) {
        let children = self.children.lock().expect("a lock");
        let id = children[place].as_ref().expect("a server that runs").id().to_string();
        let signal = if is_frozen { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &id]).status().expect("a signal");
        assert!(status.success());
        // The signal is sent, and each thread stops when it comes to that.
        let is_stopped = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('T'))
        };
        let tasks = || fs::read_dir(format!("/proc/{id}/task")).expect("the threads").flatten();
        while is_frozen && !tasks().all(is_stopped) {
            std::thread::yield_now();
        }
    }

    pub(super) fn address(&self, place: usize) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports[place]))
    }

    pub(super) fn count(&self) -> usize {
        self.ports.len()
    }

    /// Waits until JetStream answers.
    pub(super) async fn answer(&self) {
        let wait = async {
            while !self.answers().await {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(START, wait).await.unwrap_or_else(|_| panic!("no start: {}", self.logs()));
    }

    /// A stream can be made with as many copies as there are servers.
    async fn answers(&self) -> bool {
        use async_nats::jetstream::{self, stream::Config};
        let Ok(client) = async_nats::connect(self.address(0).to_string()).await else {
            return false;
        };
        let mut context = jetstream::new(client);
        context.set_timeout(Duration::from_secs(2));
        let num_replicas = self.count();
        let config = Config { name: "started".to_owned(), num_replicas, ..Config::default() };
        context.create_stream(config).await.is_ok()
    }

    fn logs(&self) -> String {
        let logs = (0..self.count()).map(|place| self.folder.join(format!("n{place}.log")));
        logs.map(|path| fs::read_to_string(path).unwrap_or_default()).collect()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        (0..self.count()).for_each(|place| self.kill(place));
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").args([from, to]).status().expect("a copy");
    assert!(status.success());
}

fn binary() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real/venv/bin/nats-server");
    let path = std::env::var_os(BINARY).map_or(installed, PathBuf::from);
    assert!(path.exists(), "no {}: run tests/install.sh, or set {BINARY}", path.display());
    path
}

fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = || std::process::id().wrapping_mul(STRIDE).wrapping_add(NEXT.fetch_add(1, Ordering::SeqCst));
    let port = || PORTS.start + (next() % u32::from(PORTS.end - PORTS.start)) as u16;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(port).filter(is_free).take(count).collect()
}
