//! The process under a supervisor such as systemd, by a real socket.

use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Arc, mpsc::sync_channel},
    time::Duration,
};

use tokio::{io::AsyncWriteExt, sync::Notify, task::spawn_blocking, time::Instant};

use crate::common::{
    SOON,
    binary::{ADDRESSES, Binary},
    client::{call, post},
    origin::{Origin, Reply, ok},
    proxy::nodes,
};

/// The watchdog's interval for the process.
const WATCHDOG: Duration = Duration::from_millis(300);

/// The next thing that the process says, other than that it is alive.
fn news(socket: &UnixDatagram) -> String {
    let begun = Instant::now();
    loop {
        let mut said = [0; 512];
        let length = socket.recv(&mut said).expect("the process says something");
        let said = String::from_utf8_lossy(&said[..length]).into_owned();
        assert!(begun.elapsed() < SOON, "it says that it is alive, and no more");
        if said != "WATCHDOG=1" {
            return said;
        }
    }
}

/// Runs the binary with a supervisor at `name`, which has `socket`, from its start to its end.
fn supervised(settings: &str, name: &str, socket: &UnixDatagram) {
    socket.set_read_timeout(Some(SOON)).unwrap();
    let (name, micros) = (format!("export NOTIFY_SOCKET='{name}'"), WATCHDOG.as_micros());
    let mut process = Binary::run_after(settings, &[&name, &format!("export WATCHDOG_USEC={micros}")]);
    assert_eq!(news(socket), "READY=1");
    let mut said = [0; 512];
    for _ in 0..5 {
        let begun = Instant::now();
        let length = socket.recv(&mut said).expect("the process says that it is alive");
        assert_eq!(&said[..length], b"WATCHDOG=1");
        assert!(begun.elapsed() < SOON);
    }
    process.signal("HUP");
    assert_eq!([news(socket), news(socket)], ["RELOADING=1", "READY=1"]);
    // A reload that is refused ends too.
    process.rewrite("nonsense = 1\n");
    process.signal("HUP");
    assert_eq!([news(socket), news(socket)], ["RELOADING=1", "READY=1"]);
    process.signal("TERM");
    assert_eq!(news(socket), "STOPPING=1");
    assert!(process.wait().success());
    socket.set_nonblocking(true).unwrap();
    loop {
        match socket.recv(&mut said) {
            Ok(length) => assert_eq!(&said[..length], b"WATCHDOG=1"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_supervisor_hears_of_start_life_reload_and_end() {
    let origin = Origin::echo().await;
    let settings = [ADDRESSES, &nodes([origin.url()])].concat();
    spawn_blocking(move || {
        let path = std::env::temp_dir().join(format!("steadfast-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).unwrap();
        supervised(&settings, path.to_str().unwrap(), &socket);
        std::fs::remove_file(&path).unwrap();
        // A name that is in no file system.
        let name = format!("steadfast-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        supervised(&settings, &format!("@{name}"), &socket);
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_graceful_end_is_no_worker_that_hangs() {
    let (arrives, has_arrived) = sync_channel(1);
    let may_answer = Arc::new(Notify::new());
    let answers = may_answer.clone();
    let origin = Origin::start(move |seen| {
        let (id, answers) = (seen.id(), answers.clone());
        arrives.try_send(()).unwrap();
        Reply::act(async move |mut io| {
            answers.notified().await;
            io.write_all(&ok(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":true}}"#))).await.unwrap();
            Some(io)
        })
    })
    .await;
    let settings = ["workers = 2\n", ADDRESSES, &nodes([origin.url()])].concat();
    spawn_blocking(move || {
        let name = format!("steadfast-graceful-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let name = format!("export NOTIFY_SOCKET=@{name} WATCHDOG_USEC={}", WATCHDOG.as_micros());
        let mut process = Binary::run_after(&settings, &[&name]);
        assert_eq!(news(&socket), "READY=1");
        process.until_it_says("steadfast is running", SOON);
        let mut client = TcpStream::connect(process.address("clients").unwrap()).unwrap();
        client.write_all(&post("/", call(1, "eth_call", "[]").as_bytes())).unwrap();
        has_arrived.recv_timeout(SOON).expect("the call is at the node");
        // One worker has a call to finish, and the other ends.
        process.signal("TERM");
        assert_eq!(news(&socket), "STOPPING=1");
        let mut said = [0; 512];
        for _ in 0..10 {
            let length = socket.recv(&mut said).expect("the process says that it is alive");
            assert_eq!(&said[..length], b"WATCHDOG=1");
        }
        may_answer.notify_one();
        assert!(process.wait().success());
        assert!(!process.log().contains("a worker hangs"), "{}", process.log());
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_watchdog_for_another_process_is_not_fed() {
    let origin = Origin::echo().await;
    let settings = [ADDRESSES, &nodes([origin.url()])].concat();
    spawn_blocking(move || {
        let name = format!("steadfast-watchdog-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        let name = format!("export NOTIFY_SOCKET=@{name} WATCHDOG_USEC=1000 WATCHDOG_PID=1");
        let mut process = Binary::run_after(&settings, &[&name]);
        let mut said = [0; 512];
        let length = socket.recv(&mut said).unwrap();
        assert_eq!(&said[..length], b"READY=1");
        process.signal("TERM");
        let length = socket.recv(&mut said).unwrap();
        assert_eq!(&said[..length], b"STOPPING=1");
        assert!(process.wait().success());
    })
    .await
    .unwrap();
}
