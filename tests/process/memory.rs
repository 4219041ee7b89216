//! Little memory: half a gigabyte of address space, or of a control group, under what clients could
//! fill it with.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    common::{
        SOON,
        client::{call, post},
        origin::{Origin, Reply},
        proxy::nodes,
        until,
    },
    harness::Process,
};

/// 512 MiB of address space, in the shell's unit.
const LITTLE: &str = "ulimit -v 524288";
const LIMIT: u64 = 512 << 20;

/// What clients do. Each gets the process and keeps its connections open for as long as it is asked
/// to.
type Attack = fn(SocketAddr) -> JoinSet<Option<TcpStream>>;

/// A node that never answers `eth_getLogs`, has a long answer to `eth_getProof`, and returns the
/// params of everything else.
async fn node() -> Origin {
    let long = format!("\"{}\"", "a".repeat(200_000));
    Origin::start(move |seen| match seen.method().as_str() {
        "eth_getLogs" => Reply::act(async |_io| std::future::pending().await),
        "eth_getProof" => Reply::result(seen, &long),
        _ => Reply::result(seen, &seen.params()),
    })
    .await
}

/// A connection whose answers are not taken.
async fn connect(addr: SocketAddr) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    socket.connect(addr).await.ok()
}

async fn send(addr: SocketAddr, bytes: Vec<u8>) -> Option<TcpStream> {
    let mut io = connect(addr).await?;
    // It may be refused in the middle, and then stays open for the answer.
    let _ = timeout(SOON, io.write_all(&bytes)).await;
    Some(io)
}

/// A WebSocket, and these bytes over it.
async fn send_over_websocket(addr: SocketAddr, bytes: Vec<u8>) -> Option<TcpStream> {
    let mut io = connect(addr).await?;
    let upgrade = "GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    io.write_all(upgrade.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await.ok()?);
    }
    let _ = timeout(SOON, io.write_all(&bytes)).await;
    Some(io)
}

/// A text frame of this length with the beginning of its payload, whose mask changes nothing.
fn frame(length: usize, payload: &[u8]) -> Vec<u8> {
    [&[0x81, 0xff][..], &(length as u64).to_be_bytes(), &[0; 4], payload].concat()
}

fn batch(method: &str, count: usize) -> Vec<u8> {
    format!("[{}]", vec![call(1, method, "[]"); count].join(",")).into_bytes()
}

fn unfinished_bodies(addr: SocketAddr) -> JoinSet<Option<TcpStream>> {
    let body = |fields: &str| {
        let head = format!("POST / HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: 10485760\r\n\r\n");
        [head.into_bytes(), vec![b' '; 10_485_759]].concat()
    };
    // The second shape is not the lane's.
    let (plain, other) = (body(""), body("connection: keep-alive, x-a\r\n"));
    (0..60).map(|n| send(addr, if n % 2 == 0 { plain.clone() } else { other.clone() })).collect()
}

fn promised_bodies(addr: SocketAddr) -> JoinSet<Option<TcpStream>> {
    let head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10485760\r\n\r\n{";
    (0..400).map(|_| send(addr, head.to_vec())).collect()
}

fn unfinished_messages(addr: SocketAddr) -> JoinSet<Option<TcpStream>> {
    (0..20).map(|_| send_over_websocket(addr, frame(32 << 20, &vec![b' '; (32 << 20) - 1]))).collect()
}

fn promised_messages(addr: SocketAddr) -> JoinSet<Option<TcpStream>> {
    (0..400).map(|_| send_over_websocket(addr, frame(32 << 20, b" "))).collect()
}

fn unfinished_heads(addr: SocketAddr) -> JoinSet<Option<TcpStream>> {
    let head = format!("GET /eth/v1/node/version HTTP/1.1\r\nhost: localhost\r\nx-a: {}", "a".repeat(180_000));
    (0..400).map(|_| send(addr, head.clone().into_bytes())).collect()
}

fn batches_that_wait(addr: SocketAddr) -> JoinSet<Option<TcpStream>> {
    (0..100).map(|_| send(addr, post("/", &batch("eth_getLogs", 1000)))).collect()
}

fn batches_over_websockets(addr: SocketAddr) -> JoinSet<Option<TcpStream>> {
    let message = batch("eth_getLogs", 1000);
    let messages = frame(message.len(), &message).repeat(250);
    (0..5).map(|_| send_over_websocket(addr, messages.clone())).collect()
}

fn answers_that_nobody_takes(addr: SocketAddr) -> JoinSet<Option<TcpStream>> {
    (0..100).map(|_| send(addr, post("/", &batch("eth_getProof", 500)))).collect()
}

/// Lets clients attack the process, which `before` limits, and sees that nobody else notices.
async fn survives(attack: Attack, before: &[&str]) {
    let node = node().await;
    // The node must not go out for what the attack asks of it. Calls of clients that have closed
    // their side go on until they end.
    let more = "[health]\ntimeout = \"60s\"\nfall = 1000\n[calls]\ntimeout = \"6s\"\n";
    let settings = format!("{}\n{more}", nodes([node.url()]));
    let mut process = Process::start(&settings, before).await;
    let quiet = process.watch();
    sleep(Duration::from_millis(500)).await;
    let quiet = quiet.end().await;
    let watch = process.watch();
    // Each of its writes may take so long, where the process does not read on.
    let sent: Vec<_> =
        timeout(3 * SOON, attack(process.clients()).join_all()).await.expect("the attack takes too long");
    sleep(Duration::from_secs(1)).await;
    let held = process.metric("steadfast_client_memory_bytes").await;
    let limit = process.metric("steadfast_client_memory_limit_bytes").await;
    let peak = process.figure("VmHWM");
    drop(sent);
    let seen = watch.end().await;
    assert!(process.is_alive(), "{}", process.log());
    assert!(seen.failed.is_empty() && seen.unseen.is_empty() && seen.calls > 1, "{seen:?}");
    assert!(seen.is_as_fast_as(&quiet), "{seen:?}, and before {quiet:?}");
    assert!(limit > 0.0 && limit <= LIMIT as f64 / 4.0, "{limit}");
    assert!(held <= limit && peak < LIMIT / 4 * 3, "{held} of {limit} held, {peak} at most in use");
    until("all is given back", async || process.metric("steadfast_client_memory_bytes").await == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_do_not_end_leave_room_for_others() {
    survives(unfinished_bodies, &[LITTLE]).await;
    survives(promised_bodies, &[LITTLE]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_do_not_end_leave_room_for_others() {
    survives(unfinished_messages, &[LITTLE]).await;
    survives(promised_messages, &[LITTLE]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_do_not_end_leave_room_for_others() {
    survives(unfinished_heads, &[LITTLE]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_wait_leave_room_for_others() {
    survives(batches_that_wait, &[LITTLE]).await;
    survives(batches_over_websockets, &[LITTLE]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_takes_leave_room_for_others() {
    survives(answers_that_nobody_takes, &[LITTLE]).await;
}

/// A control group of 512 MiB; gone with this.
struct Group(PathBuf);

impl Group {
    /// `None` where the test may not make one.
    fn new() -> Option<Self> {
        let name = format!("steadfast-test-{}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        kinds.into_iter().find_map(|(tree, file)| {
            let group = Self(PathBuf::from(tree).join(&name));
            std::fs::create_dir(&group.0).ok()?;
            std::fs::write(group.0.join(file), LIMIT.to_string()).ok()?;
            Some(group)
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_group_bounds_what_clients_may_take() {
    // Where none can be made, the tests above show the same with `ulimit`.
    let Some(group) = Group::new() else { return };
    let enter = format!("echo $$ > {}/cgroup.procs", group.0.display());
    survives(unfinished_bodies, &[&enter]).await;
    survives(unfinished_messages, &[&enter]).await;
}
