//! Sockets that a supervisor holds and passes to the process, as systemd does.

use std::{
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::Stdio,
};

use tokio::{
    net::{TcpStream, UnixStream},
    task::spawn_blocking,
    time::timeout,
};

use crate::common::{
    SOON,
    binary::{ADDRESSES, Binary},
    client::{Client, call, post},
    origin::{Origin, Reply},
    proxy::nodes,
};

/// Runs the binary with `settings` and one or two sockets of these names. The shell gets them as
/// its input and output, and passes them as systemd would.
async fn run(settings: String, names: &str, first: &OwnedFd, second: Option<&OwnedFd>) -> Binary {
    let (count, more) = if second.is_some() { (2, " 4>&1") } else { (1, "") };
    let passed = [
        format!("exec 3<&0{more} 0</dev/null 1>/dev/null"),
        format!("export LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names}"),
    ];
    let give = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let (input, output) = (give(first), second.map_or_else(Stdio::null, give));
    let run = spawn_blocking(move || Binary::run_with(&settings, &[&passed[0], &passed[1]], input, output));
    timeout(SOON, run).await.unwrap().unwrap()
}

/// The process when it says that it runs, and the line.
async fn until_it_runs(mut process: Binary) -> (Binary, String) {
    let waited = spawn_blocking(move || {
        let line = process.until_it_says("steadfast is running", SOON);
        (process, line)
    });
    timeout(SOON * 2, waited).await.unwrap().unwrap()
}

async fn until_it_ends(mut process: Binary) -> (Option<i32>, String) {
    let waited = spawn_blocking(move || (process.wait().code(), process));
    let (code, process) = timeout(SOON, waited).await.expect("it ends").unwrap();
    crate::common::until("its last words are read", async || !process.log().is_empty()).await;
    (code, process.log())
}

#[tokio::test]
async fn a_restart_refuses_no_connection_where_the_socket_is_held() {
    let node = Origin::start(|seen| Reply::result(seen, "\"well\"")).await;
    let settings = || [ADDRESSES, &nodes([node.url()])].concat();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = socket.local_addr().unwrap();
    let held = OwnedFd::from(socket);
    let (process, line) = until_it_runs(run(settings(), "clients", &held, None).await).await;
    assert!(line.contains(&format!("clients={address}")), "{line}");
    let asked = call(1, "eth_call", "[]");
    assert_eq!(Client::connect(address).await.post(&asked).await.status, 200);
    process.signal("TERM");
    assert_eq!(until_it_ends(process).await.0, Some(0));
    // No process is there: the client waits, and hears its answer from the next one.
    let mut client = Client::over(TcpStream::connect(address).await.unwrap());
    client.send(post("/", asked.as_bytes())).await;
    let (_next, _) = until_it_runs(run(settings(), "clients", &held, None).await).await;
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn sockets_are_known_by_name_or_by_address() {
    let node = Origin::start(|seen| Reply::result(seen, "\"well\"")).await;
    let folder = std::env::temp_dir().join(format!("steadfast-passed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("clients.ipc");
    let (by_file, by_port) = (UnixListener::bind(&path).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let admin = by_port.local_addr().unwrap();
    let (by_file, by_port) = (OwnedFd::from(by_file), OwnedFd::from(by_port));
    // The file is known by its address, the port by its name.
    let listen = format!("listen = \"unix:{}\"\nadmin.listen = \"127.0.0.1:0\"\n", path.display());
    let settings = [listen, nodes([node.url()])].concat();
    let (process, line) = until_it_runs(run(settings, "steadfast.socket:admin", &by_file, Some(&by_port)).await).await;
    assert!(line.contains(&format!("clients=unix:{}", path.display())), "{line}");
    assert!(line.contains(&format!("admin={admin}")), "{line}");
    let mut client = Client::over(UnixStream::connect(&path).await.unwrap());
    assert_eq!(client.post(call(1, "eth_call", "[]")).await.status, 200);
    let mut operator = Client::connect(admin).await;
    operator.send("GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(operator.response().await.status, 200);
    process.signal("TERM");
    assert_eq!(until_it_ends(process).await.0, Some(0));
    assert!(path.exists(), "the file of another's socket was removed");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn a_socket_without_a_use_is_an_error_that_names_it() {
    let settings = || [ADDRESSES, &nodes(["http://127.0.0.1:1"])].concat();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let (code, log) = until_it_ends(run(settings(), "other", &OwnedFd::from(socket), None).await).await;
    assert_eq!(code, Some(1));
    assert!(log.contains(&format!("a socket at {address} was passed (named \"other\")")), "{log}");
    assert!(log.contains("name it `clients` or `admin`"), "{log}");
    let file = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let (code, log) = until_it_ends(run(settings(), "clients", &file, None).await).await;
    assert_eq!(code, Some(1));
    assert!(log.contains("LISTEN_FDS: socket 1 (\"clients\"): is neither"), "{log}");
}
