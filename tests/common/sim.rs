//! A network that is only memory: what listens and what dials meet in it, and time is whatever the
//! runtime says.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use futures_util::FutureExt;
use serde_json::Value;
use steadfast::{
    app::{App, OpenStore, Source, World},
    cluster::{
        self,
        moment::{Clock, Moment},
        open_nats, open_nats_outbox,
        store::memory::{self, Memory},
    },
    domain::{address::Address, client::Peer},
    net::{
        Accept, Arrived, BoxFuture, BoxIo, Dial, Endpoint, Incoming, Io, Listen,
        names::{Done, Names, Resolve},
    },
    outbox::store::{Store, pretend_disk::PretendDisk},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex},
    sync::mpsc,
    time::{Duration, Instant, sleep},
};

use super::{
    client::{Client, Response},
    proxy, until,
    ws::Ws,
};

/// Bytes on their way in each direction of a connection.
const PIPE: usize = 64 * 1024;

/// The network. Clones are the same one.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<State>>, pub PretendDisk);

#[derive(Default)]
struct State {
    listening: BTreeMap<Door, mpsc::Sender<(DuplexStream, Peer)>>,
    last_port: u16,
    dialled: u64,
    /// Our own system's error for every dial.
    exhausted: Option<i32>,
    /// The hosts that are not this machine: the port here of a server there.
    hosts: BTreeMap<String, u16>,
    /// The addresses of names.
    names: BTreeMap<String, Vec<IpAddr>>,
    /// How long each of the next dials takes.
    delays: VecDeque<Duration>,
    /// Whether connections that are accepted from now on get stuck.
    is_stuck: bool,
}

/// Where something listens: a port, or the file of a Unix socket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    Port(u16),
    File(Arc<Path>),
}

impl Net {
    /// The same network, for a machine with this disk.
    pub fn with_disk(&self, disk: PretendDisk) -> Self {
        Self(self.0.clone(), disk)
    }

    /// A world on this network, whose wall clock read `dawn` in Unix seconds at `start`.
    pub fn world(&self, dawn: u64, start: Instant) -> World {
        World {
            dial: Arc::new(self.clone()),
            listen: Arc::new(self.clone()),
            names: Arc::new(Names::new(self.clone())),
            wall: Arc::new(move || dawn + start.elapsed().as_secs()),
            open_store: self.open_store(),
            connect: Arc::new(|_| Err(io::ErrorKind::Unsupported.into())),
            open_cluster: Arc::new(move |settings| open_nats(settings, dawn)),
            open_outbox_bucket: Arc::new(move |settings| open_nats_outbox(settings, dawn)),
            connect_hook: Arc::new(|_| Err(io::ErrorKind::Unsupported.into())),
            run_cluster: Arc::new(|task| task),
            uptime: uptime(start),
            threads: None,
            descriptors: None,
            faults: None,
            file: None,
            supervisor: Arc::default(),
            set_log: None,
        }
    }

    /// Opens the outbox on this network's disk, without a thread: the simulated clock stands while
    /// the disk writes.
    pub fn open_store(&self) -> OpenStore {
        let disk = self.1.clone();
        Arc::new(move |_| Store::inline(Box::new(disk.clone())))
    }

    /// Connects to what listens on `port`.
    pub async fn connect(&self, port: u16) -> io::Result<DuplexStream> {
        self.connect_over(PIPE, IpAddr::V4(Ipv4Addr::LOCALHOST), port).await
    }

    /// The same from this address.
    pub async fn connect_from(&self, own: IpAddr, port: u16) -> io::Result<DuplexStream> {
        self.connect_over(PIPE, own, port).await
    }

    /// The same with a connection on which so many bytes may be on their way in each direction.
    pub async fn connect_over(&self, pipe: usize, own: IpAddr, port: u16) -> io::Result<DuplexStream> {
        self.connect_to(pipe, own.into(), &Door::Port(port)).await
    }

    /// Connects as this user to what listens at the Unix socket `path`.
    pub async fn connect_as(&self, user: u32, path: &str) -> io::Result<DuplexStream> {
        self.connect_to(PIPE, Peer::User(user), &Door::File(Path::new(path).into())).await
    }

    async fn connect_to(&self, pipe: usize, own: Peer, door: &Door) -> io::Result<DuplexStream> {
        let backlog = {
            let mut state = self.0.lock().unwrap();
            state.dialled += 1;
            state.listening.get(door).cloned()
        };
        let (near, far) = duplex(pipe);
        let backlog = backlog.ok_or(io::ErrorKind::ConnectionRefused)?;
        backlog.send((far, own)).await.map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(near)
    }

    /// From now on no dial comes about for want of something here, with this error number of the
    /// system; `None`: all is there.
    pub fn exhaust(&self, errno: Option<i32>) {
        self.0.lock().unwrap().exhausted = errno;
    }

    /// The next dials take as long as this, one after the other, and those behind them no time.
    pub fn delay(&self, delays: impl IntoIterator<Item = Duration>) {
        self.0.lock().unwrap().delays = delays.into_iter().collect();
    }

    /// The connections that are accepted from now on take what is written to them, and are never
    /// done with sending it on: as TLS to a client that takes nothing.
    pub fn stick(&self) {
        self.0.lock().unwrap().is_stuck = true;
    }

    /// From now on a dial to `host`, of any port, reaches what listens on `port`.
    pub fn put(&self, host: &str, port: u16) {
        self.0.lock().unwrap().hosts.insert(host.to_owned(), port);
    }

    /// From now on `name` has these addresses; none: it is not found.
    pub fn name(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().names.insert(name.to_owned(), addresses);
    }

    /// The port that the next listener gets which leaves that to the network.
    pub fn next_port(&self) -> u16 {
        10_001 + self.0.lock().unwrap().last_port
    }

    /// Connections that were ever tried.
    pub fn dialled(&self) -> u64 {
        self.0.lock().unwrap().dialled
    }
}

/// A clock of leases that goes with the runtime's time.
fn uptime(start: Instant) -> Clock {
    Arc::new(move || Moment(u64::try_from(start.elapsed().as_millis()).unwrap()))
}

impl Dial for Net {
    fn dial<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, io::Result<BoxIo>> {
        Box::pin(async move {
            let (exhausted, delay) = {
                let mut state = self.0.lock().unwrap();
                (state.exhausted, state.delays.pop_front())
            };
            if let Some(delay) = delay {
                sleep(delay).await;
            }
            if let Some(errno) = exhausted {
                return Err(io::Error::from_raw_os_error(errno));
            }
            let door = match to {
                Endpoint::Tcp { host, port } => {
                    Door::Port(self.0.lock().unwrap().hosts.get(&**host).copied().unwrap_or(*port))
                }
                Endpoint::Unix(path) => Door::File(path.clone()),
            };
            Ok(Box::new(self.connect_to(PIPE, IpAddr::V4(Ipv4Addr::LOCALHOST).into(), &door).await?) as BoxIo)
        })
    }
}

impl Resolve for Net {
    fn resolve(&self, host: &str, done: Done) {
        let found = self.0.lock().unwrap().names.get(host).cloned().unwrap_or_default();
        done(if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) });
    }
}

impl Listen for Net {
    fn bind(&self, address: Address) -> BoxFuture<'_, io::Result<Box<dyn Accept>>> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            let (door, address) = match address {
                Address::Unix { path, mode } => (Door::File(path.clone()), Address::Unix { path, mode }),
                Address::Ip(addr) => {
                    let port = if addr.port() == 0 {
                        state.last_port += 1;
                        10_000 + state.last_port
                    } else {
                        addr.port()
                    };
                    (Door::Port(port), SocketAddr::new(addr.ip(), port).into())
                }
            };
            if state.listening.contains_key(&door) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let (backlog, accepted) = mpsc::channel(128);
            state.listening.insert(door.clone(), backlog);
            Ok(Box::new(Socket { door, address, accepted, net: self.clone() }) as Box<dyn Accept>)
        })
    }

    fn is_own(&self, _: IpAddr) -> bool {
        false
    }
}

struct Socket {
    door: Door,
    address: Address,
    accepted: mpsc::Receiver<(DuplexStream, Peer)>,
    net: Net,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.net.0.lock().unwrap().listening.remove(&self.door);
    }
}

impl Accept for Socket {
    fn local_addr(&self) -> Address {
        self.address.clone()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Incoming, Peer)>> {
        Box::pin(async move {
            // The network itself holds the sender.
            let (stream, peer) = self.accepted.recv().await.ok_or(io::ErrorKind::NotConnected)?;
            let is_stuck = self.net.0.lock().unwrap().is_stuck;
            Ok((Incoming::new(Arriving { stream, is_stuck }), peer))
        })
    }
}

struct Arriving {
    stream: DuplexStream,
    is_stuck: bool,
}

impl Arrived for Arriving {
    fn open(self: Box<Self>) -> io::Result<BoxIo> {
        if self.is_stuck {
            return Ok(Box::new(Stuck(self.stream)));
        }
        Ok(Box::new(self.stream))
    }

    fn refuse(mut self: Box<Self>, words: &[u8]) {
        let _ = self.stream.write_all(words).now_or_never();
    }
}

/// A stream that is never done with sending what it took.
struct Stuck(DuplexStream);

impl Io for Stuck {}

impl AsyncRead for Stuck {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Stuck {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// A proxy on a network of memory, with everything on the test's own runtime.
pub struct Proxy {
    pub app: App,
    net: Net,
    pub settings: Arc<Mutex<String>>,
}

impl Proxy {
    /// Starts with `settings` (TOML, without addresses), and waits for nothing.
    pub async fn launch(net: &Net, settings: &str) -> Self {
        Self::within(net, settings, None).await
    }

    /// The same with so many file descriptors, if they are bounded.
    pub async fn within(net: &Net, settings: &str, descriptors: Option<usize>) -> Self {
        let (dial, listen) = (Arc::new(net.clone()), Arc::new(net.clone()));
        let names = Arc::new(Names::new(net.clone()));
        let open_store = net.open_store();
        let store = Memory::new(memory::Settings::default());
        let open_cluster = Arc::new(move |settings: &steadfast::config::Cluster| {
            let client: Arc<dyn cluster::store::Store> = Arc::new(store.client(settings.replica.as_str()));
            Box::pin(async move { Ok(client) }) as _
        });
        let (real, start) = (World::real(1), Instant::now());
        // The machine's clock goes on while the clock of the runtime stands still.
        let dawn = (real.wall)();
        let (uptime, wall) = (uptime(start), Arc::new(move || dawn + start.elapsed().as_secs()));
        let own = World { dial, listen, names, open_store, open_cluster, uptime, wall, ..real };
        let world = World { threads: None, descriptors, ..own };
        let settings = Arc::new(Mutex::new(settings.to_owned()));
        let read = settings.clone();
        let source: Source = Arc::new(move || Ok(proxy::config(&read.lock().unwrap())));
        let app = App::start(source().unwrap(), world, Some(source)).await.unwrap();
        Self { app, net: net.clone(), settings }
    }

    /// A proxy before primaries `el-1`, `el-2`, … at these URLs, all of them up, with `more`
    /// settings behind.
    pub async fn over<'a>(net: &Net, urls: impl IntoIterator<Item = &'a str>, more: &str) -> Self {
        let proxy = Self::launch(net, &[proxy::nodes(urls), more.to_owned()].concat()).await;
        until("every node is up", async || proxy.verdicts().await.iter().all(|verdict| verdict == "up")).await;
        proxy
    }

    /// Changes the settings, as an operator who writes the file.
    pub fn rewrite(&self, settings: &str) {
        settings.clone_into(&mut self.settings.lock().unwrap());
    }

    /// A proxy that runs on this network.
    pub fn of(net: &Net, app: App) -> Self {
        Self { app, net: net.clone(), settings: Arc::default() }
    }

    /// Changes the settings and has them read anew.
    pub async fn reload(&self, settings: &str) {
        self.rewrite(settings);
        self.app.reload().await.unwrap();
    }

    pub async fn client(&self) -> Client<DuplexStream> {
        Client::over(self.net.connect(self.app.addr().port()).await.unwrap())
    }

    /// A connection on which so many bytes may be on their way in each direction.
    pub async fn connect_through(&self, pipe: usize) -> DuplexStream {
        let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.net.connect_over(pipe, own, self.app.addr().port()).await.unwrap()
    }

    /// A client at 10.0.0.`host`.
    pub async fn client_at(&self, host: u8) -> Client<DuplexStream> {
        let own = IpAddr::from([10, 0, 0, host]);
        Client::over(self.net.connect_from(own, self.app.addr().port()).await.unwrap())
    }

    /// A WebSocket at `/`.
    pub async fn ws(&self) -> Ws<DuplexStream> {
        Ws::open(self.client().await.io, "/").await
    }

    /// A call on a connection of its own.
    pub async fn post(&self, body: impl AsRef<[u8]>) -> Response {
        self.client().await.post(body).await
    }

    pub async fn admin(&self, path: &str) -> Response {
        let mut client = Client::over(self.net.connect(self.app.admin_addr().port()).await.unwrap());
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
        client.response().await
    }

    /// Has the operator's side do what is at `path`.
    pub async fn operate(&self, path: &str) -> Response {
        let mut client = Client::over(self.net.connect(self.app.admin_addr().port()).await.unwrap());
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        client.send(head).await;
        client.response().await
    }

    /// A node of the first network's execution side in `/status`.
    pub async fn node(&self, name: &str) -> Value {
        let side = self.side().await;
        let nodes = side["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("no {name} in {side}")).clone()
    }

    /// The execution side of the first network in `/status`.
    pub async fn side(&self) -> Value {
        self.admin("/status").await.json()["networks"][0]["el"].take()
    }

    /// The nodes' verdicts in their order.
    pub async fn verdicts(&self) -> Vec<String> {
        let side = self.side().await;
        let nodes = side["nodes"].as_array().unwrap().iter();
        nodes.map(|node| node["verdict"].as_str().unwrap().to_owned()).collect()
    }

    /// Calls that wait on nodes now, over all nodes.
    pub async fn in_flight(&self) -> u64 {
        let side = self.side().await;
        side["nodes"].as_array().unwrap().iter().map(|node| node["in_flight"].as_u64().unwrap()).sum()
    }

    /// The sum of the metric's values with these words among its labels; 0 before its first use.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.admin("/metrics").await.text();
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(labels)
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}
