//! WebSocket clients for `bench/ws.sh`, as many as wanted in one thread. Whatever goes wrong is said and ends them all.
//!
//! `bench_ws_clients heads PORT CLIENTS` connects so many to `127.0.0.1:PORT`, has each subscribe to `newHeads`, and says `ready`.
//! From then on, whenever all clients have got a head, it says `head NUMBER FIRST MEDIAN LAST`: how many microseconds after the
//! node began to tell it (see `origin.rs`) the first, the middle and the last client had it. Each client must get the heads one by one, in
//! order. It ends with its standard input. With `vanish` for `heads` its connections are then reset rather than closed.
//!
//! `bench_ws_clients calls PORT CONNECTIONS IN_FLIGHT SECONDS` sends calls, so many at a time on each connection, and says
//! `calls COUNT RATE P50 P99`, times in microseconds.

mod frame;
mod words;

use std::{cell::RefCell, collections::BTreeMap, io, process::exit, rc::Rc, time::Duration};

use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream, sync::Semaphore, task::LocalSet, time::Instant};
use words::now;

/// Connections that are made at the same time.
const AT_ONCE: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<usize>().unwrap_or_else(|_| fail(&format!("{text} is no number")));
    let done = match args[..] {
        [kind @ ("heads" | "vanish"), port, clients] => {
            LocalSet::new().run_until(heads(number(port), number(clients), kind == "vanish")).await
        }
        ["calls", port, connections, in_flight, seconds] => {
            let time = Duration::from_secs(number(seconds) as u64);
            LocalSet::new().run_until(calls(number(port), number(connections), number(in_flight), time)).await
        }
        _ => fail("heads PORT CLIENTS, or calls PORT CONNECTIONS IN_FLIGHT SECONDS"),
    };
    if let Err(error) = done {
        fail(&error.to_string());
    }
}

fn fail(why: &str) -> ! {
    eprintln!("bench_ws_clients: {why}");
    exit(1)
}

/// One client's connection.
struct Socket {
    stream: TcpStream,
    /// What came and was not yet a whole frame. Empty most of the time, so an idle client holds no buffer.
    rest: Vec<u8>,
    out: Vec<u8>,
}

impl Socket {
    async fn open(port: usize) -> io::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port as u16)).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = memchr::memmem::find(&read, b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
        if !head.starts_with("http/1.1 101 ") || !head.contains(&"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_ascii_lowercase()) {
            return Err(io::Error::other(format!("no WebSocket, but {head}")));
        }
        Ok(Self { stream, rest: read.split_off(end), out: Vec::new() })
    }

    fn say(&mut self, text: &str) {
        frame::write(frame::TEXT, text.as_bytes(), true, &mut self.out);
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        Ok(())
    }

    /// Gives each message that came to `take`, then writes what there is to write, then waits for more, as long as `take` says so.
    async fn listen(&mut self, mut take: impl FnMut(&mut Vec<u8>, &[u8]) -> io::Result<bool>) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.rest);
        loop {
            let mut at = 0;
            let mut more = true;
            while more && let Some(frame) = frame::read(&mut buffer[at..])? {
                let payload = &buffer[at..][frame.payload.clone()];
                match frame.opcode {
                    frame::TEXT => more = take(&mut self.out, payload)?,
                    frame::PING => frame::write(frame::PONG, payload, true, &mut self.out),
                    frame::PONG => {}
                    frame::CLOSE => {
                        return Err(io::Error::other(format!("a client was closed: {}", payload.escape_ascii())));
                    }
                    kind => return Err(io::Error::other(format!("a frame of kind {kind}"))),
                }
                at += frame.payload.end;
            }
            if !self.out.is_empty() {
                self.flush().await?;
            }
            if !more {
                self.rest = buffer.split_off(at);
                return Ok(());
            }
            if at == buffer.len() {
                buffer = Vec::new();
            } else {
                buffer.drain(..at);
            }
            self.stream.readable().await?;
            self.read(&mut buffer)?;
        }
    }

    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut piece = [0; 16384];
        match self.stream.try_read(&mut piece) {
            Ok(0) => return Err(io::Error::other("the proxy closed a connection")),
            Ok(got) => buffer.extend_from_slice(&piece[..got]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

// ---- Heads

/// The receipts of each head that not all have got yet, in microseconds since the node began to tell it.
type Receipts = RefCell<BTreeMap<u64, Vec<u64>>>;

async fn heads(port: usize, clients: usize, vanish: bool) -> io::Result<()> {
    let turns = Rc::new(Semaphore::new(AT_ONCE));
    let ready = Rc::new(Semaphore::new(0));
    let receipts = Rc::new(Receipts::default());
    for _ in 0..clients {
        let (turns, ready, receipts) = (turns.clone(), ready.clone(), receipts.clone());
        tokio::task::spawn_local(async move {
            let turn = turns.acquire().await;
            let (mut socket, subscription) = match subscribe(port, vanish).await {
                Ok(subscribed) => subscribed,
                Err(error) => fail(&format!("a client cannot subscribe: {error}")),
            };
            drop(turn);
            ready.add_permits(1);
            let mut last = None;
            let end = socket.listen(|_, text| {
                let (number, late) = head(text, &subscription)?;
                if last.is_some_and(|last| number != last + 1) {
                    return Err(io::Error::other(format!("head {number} came after {last:?}")));
                }
                last = Some(number);
                receive(&mut receipts.borrow_mut(), number, late, clients);
                Ok(true)
            });
            let why = end.await.err().map_or_else(String::new, |error| error.to_string());
            fail(&format!("a client came to an end: {why}"))
        });
    }
    let _all = ready.acquire_many(clients as u32).await;
    println!("ready");
    let mut orders = words::orders();
    while orders.recv().await.is_some() {}
    Ok(())
}

/// A connection whose subscription has begun, and that subscription as the answer names it.
async fn subscribe(port: usize, vanish: bool) -> io::Result<(Socket, Vec<u8>)> {
    let mut socket = Socket::open(port).await?;
    if vanish {
        socket.stream.set_zero_linger()?;
    }
    socket.say(r#"{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}"#);
    socket.flush().await?;
    let mut subscription = None;
    let answer = socket.listen(|_, text| {
        subscription = words::raw(text, br#""result":"#).map(<[u8]>::to_vec);
        Ok(false)
    });
    tokio::time::timeout(Duration::from_secs(10), answer).await??;
    Ok((socket, subscription.ok_or_else(|| io::Error::other("an error for an answer"))?))
}

/// The number of the head in a notification, and its age in microseconds.
fn head(text: &[u8], subscription: &[u8]) -> io::Result<(u64, u64)> {
    let told = words::hex(text, br#""extraData":"#);
    let number = words::hex(text, br#""number":"#);
    match (words::raw(text, br#""subscription":"#), number, told) {
        (Some(id), Some(number), Some(told)) if id == subscription && told > 0 => {
            Ok((number, now().saturating_sub(told) / 1000))
        }
        _ => Err(io::Error::other(format!("no head, but {}", String::from_utf8_lossy(text)))),
    }
}

fn receive(receipts: &mut BTreeMap<u64, Vec<u64>>, number: u64, late: u64, clients: usize) {
    let all = receipts.entry(number).or_insert_with(|| Vec::with_capacity(clients));
    all.push(late);
    if all.len() == clients {
        all.sort_unstable();
        println!("head {number} {} {} {}", all[0], all[clients / 2], all[clients - 1]);
        receipts.remove(&number);
    }
}

// ---- Calls

async fn calls(port: usize, connections: usize, in_flight: usize, time: Duration) -> io::Result<()> {
    let end = Instant::now() + time;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        tasks.spawn_local(caller(port, in_flight, end));
    }
    let mut all = Vec::new();
    while let Some(done) = tasks.join_next().await {
        all.append(&mut done.map_err(io::Error::other)??);
    }
    let rate = all.len() as f64 / begun.elapsed().as_secs_f64();
    all.sort_unstable();
    let (p50, p99) = (all[all.len() / 2], all[all.len() * 99 / 100]);
    println!("calls {} {rate:.0} {:.1} {:.1}", all.len(), p50 as f64 / 1000.0, p99 as f64 / 1000.0);
    Ok(())
}

/// Keeps so many calls in flight until `end`; gives how many nanoseconds each took.
async fn caller(port: usize, in_flight: usize, end: Instant) -> io::Result<Vec<u32>> {
    let mut socket = Socket::open(port).await?;
    let mut begun = vec![0; in_flight];
    let mut times = Vec::with_capacity(1 << 16);
    for (id, begun) in begun.iter_mut().enumerate() {
        *begun = now();
        call(id, &mut socket.out);
    }
    let mut open = in_flight;
    socket.flush().await?;
    let all = socket.listen(|out, text| {
        let id = words::raw(text, br#""id":"#).and_then(|id| std::str::from_utf8(id).ok()?.parse::<usize>().ok());
        let Some(id) = id
            .filter(|id| *id < in_flight && begun[*id] > 0 && memchr::memmem::find(text, br#""result":"0x"#).is_some())
        else {
            return Err(io::Error::other(format!("no answer, but {}", String::from_utf8_lossy(text))));
        };
        let time = now();
        times.push((time - begun[id]).min(u64::from(u32::MAX)) as u32);
        if Instant::now() < end {
            begun[id] = time;
            call(id, out);
        } else {
            begun[id] = 0;
            open -= 1;
        }
        Ok(open > 0)
    });
    all.await?;
    Ok(times)
}

/// An id is in flight once at a time, so it names its call.
fn call(id: usize, out: &mut Vec<u8>) {
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_blockNumber","params":[]}}"#);
    frame::write(frame::TEXT, text.as_bytes(), true, out);
}
