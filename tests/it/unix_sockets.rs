//! Clients on Unix sockets: calls and WebSockets, the file, and whose share of the limits they have.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use steadfast::{
    app::{App, World},
    config::{Config, Flags},
};
use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};

use crate::common::{
    client::{Client, call, with_headers},
    origin::{Origin, Reply},
    proxy::{Proxy, nodes},
    sim::{self, Net},
    until,
    ws::Ws,
};

/// A folder of a test's own, removed when dropped. Its path is short, since that of a socket must
/// be.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static FOLDERS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("steadfast-{}-{}", std::process::id(), FOLDERS.fetch_add(1, Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn node() -> Origin {
    Origin::start(|seen| Reply::result(seen, "\"well\"")).await
}

async fn client(path: &Path) -> Client<UnixStream> {
    Client::over(UnixStream::connect(path).await.unwrap())
}

#[tokio::test]
async fn calls_and_websockets_come_by_a_unix_socket() {
    let (folder, node) = (Folder::new(), node().await);
    let path = folder.path("clients.ipc");
    let listen = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]\nsocket_mode = \"0640\"\n", path.display());
    let proxy = Proxy::start(&[listen, nodes([node.url()])].concat()).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let told: Vec<String> = proxy.app.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(told, [proxy.addr().to_string(), format!("unix:{}", path.display())]);

    let mut by_file = client(&path).await;
    let asked = call(7, "eth_call", "[]");
    let answer = by_file.post(&asked).await;
    assert_eq!((answer.status, &answer.body), (200, &proxy.post(&asked).await.body));
    // The connection is kept, and web pages of other names have no business here either.
    assert_eq!(by_file.post(&asked).await.status, 200);
    let elsewhere = String::from_utf8(with_headers("/", "", asked.as_bytes())).unwrap();
    by_file.send(elsewhere.replace("Host: proxy", "Host: rpc.example")).await;
    assert_eq!(by_file.response().await.status, 403);

    let mut ws = Ws::open(UnixStream::connect(&path).await.unwrap(), "/").await;
    assert_eq!(ws.ask(&asked).await.as_bytes(), &answer.body);
    drop((by_file, ws));
    proxy.app.shutdown().await;
    assert!(!path.exists(), "the file is left behind");
}

#[tokio::test]
async fn a_dead_sockets_file_is_replaced_and_a_live_one_names_itself() {
    let (folder, node) = (Folder::new(), node().await);
    let path = folder.path("clients.ipc");
    drop(UnixListener::bind(&path).unwrap());
    let listen = format!("listen = \"unix:{}\"\n", path.display());
    let proxy = Proxy::start(&[listen, nodes([node.url()])].concat()).await;
    assert_eq!(client(&path).await.post(call(1, "eth_call", "[]")).await.status, 200);
    let at = format!("unix:{}", path.display());
    let run = ["run", "--listen", &at, "--admin-listen", "127.0.0.1:0", "--el", node.url()];
    let (code, _, why) = super::operator::process::command(&run).await;
    assert_eq!(code, 1);
    assert!(why.starts_with(&format!("listen: cannot listen on {at}: another process listens there")), "{why}");
    assert!(why.contains("(see `steadfast status`): give this one another file"), "{why}");
    assert_eq!(client(&path).await.post(call(1, "eth_call", "[]")).await.status, 200, "the first was harmed");
    drop(proxy);
}

#[tokio::test]
async fn an_address_of_a_flag_has_the_files_socket_mode() {
    let (folder, node) = (Folder::new(), node().await);
    let (file, path) = (folder.path("steadfast.toml"), folder.path("flag.ipc"));
    let settings = "socket_mode = \"0600\"\nlisten = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n";
    fs::write(&file, [settings, &nodes([node.url()])].concat()).unwrap();
    let listen = Some(format!("unix:{}", path.display()));
    let flags = Flags { listen, ..Flags::default() };
    let config = Config::load(&file, &flags, &|_| None).unwrap();
    let app = App::start(config, World::real(1), None).await.unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    app.shutdown().await;
}

/// How many of three newcomers are let in when four connections of user 1000 are busy, of at most
/// four: one of that user, and two of another.
async fn let_in(settings: &str) -> [bool; 3] {
    const PATH: &str = "/run/steadfast.ipc";
    let net = Net::default();
    let node = Origin::within(&net, |seen| match seen.method().as_str() {
        "eth_getLogs" => Reply::act(async |_io| std::future::pending().await),
        _ => Reply::result(seen, "\"well\""),
    })
    .await;
    let settings = format!("listen = \"unix:{PATH}\"\nmax_connections = 4\n{settings}{}", nodes([node.url()]));
    let proxy = sim::Proxy::launch(&net, &settings).await;
    until("the node is up", async || proxy.verdicts().await == ["up"]).await;
    let mut busy = Vec::new();
    for _ in 0..4 {
        let mut client = Client::over(net.connect_as(1000, PATH).await.unwrap());
        client.send(with_headers("/", "", call(1, "eth_getLogs", "[]").as_bytes())).await;
        busy.push(client);
    }
    sleep(Duration::from_secs(2)).await;
    let mut answers = Vec::new();
    for user in [1000, 1001, 1001] {
        // The one before is no newcomer any more.
        sleep(Duration::from_secs(2)).await;
        let mut client = Client::over(net.connect_as(user, PATH).await.unwrap());
        client.send(with_headers("/", "", call(1, "eth_call", "[]").as_bytes())).await;
        answers.push(client.response().await.status == 200);
        busy.push(client);
    }
    answers.try_into().unwrap()
}

#[tokio::test(start_paused = true)]
async fn on_a_unix_socket_a_client_is_a_user() {
    // The other user's first finds room; that one is idle then, and makes room for the second.
    assert_eq!(let_in("").await, [false, true, true]);
    // Where each connection is a client of its own, none has more than another.
    assert_eq!(let_in("shared_addresses = [\"unix:\"]\n").await, [false; 3]);
}
