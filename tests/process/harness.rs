//! Runs the binary under limits, watches it, and calls it as honest clients do.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::common::{
    SOON,
    binary::{ADDRESSES, Binary},
    client::{Client, call},
    until,
};

/// A running `steadfast`.
pub struct Process {
    binary: Binary,
    clients: SocketAddr,
    admin: SocketAddr,
}

impl Process {
    /// Runs the binary with `settings` (TOML, without addresses) after these commands of a shell,
    /// such as `ulimit -v 524288`, and waits until a node serves.
    pub async fn start(settings: &str, before: &[&str]) -> Self {
        let binary = Binary::run_after(&[ADDRESSES, settings].concat(), before);
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut process = Self { binary, clients: nowhere, admin: nowhere };
        until("the process says where it listens", async || {
            assert!(process.is_alive(), "{}", process.log());
            process.binary.address("clients").is_some() && process.binary.address("admin").is_some()
        })
        .await;
        process.clients = process.binary.address("clients").unwrap();
        process.admin = process.binary.address("admin").unwrap();
        until("a node serves", async || process.admin_status("/readyz").await == Some(200)).await;
        process
    }

    /// Where clients connect.
    pub fn clients(&self) -> SocketAddr {
        self.clients
    }

    /// Where the operator connects.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.binary.id()
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        self.binary.log()
    }

    /// Sends the process a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        self.binary.signal(name);
    }

    /// Asks the process to end, as a supervisor does, and waits for that; tells whether it ended well.
    pub fn terminate(&mut self) -> bool {
        self.binary.signal("TERM");
        self.binary.wait().success()
    }

    pub fn is_alive(&mut self) -> bool {
        self.binary.ended().is_none()
    }

    /// As [`Binary::figure`].
    pub fn figure(&self, name: &str) -> u64 {
        self.binary.figure(name)
    }

    /// Nanoseconds of the processor that its threads have had.
    pub fn nanoseconds(&self) -> u64 {
        schedule(self.id(), 0).values().sum()
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// The status of what the operator's side answers to a GET; `None` if there is no answer.
    pub async fn admin_status(&self, path: &str) -> Option<u16> {
        let asked = async {
            let mut client = Client::over(TcpStream::connect(self.admin).await.ok()?);
            client.send(format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin)).await;
            client.try_response().await.ok().map(|response| response.status)
        };
        timeout(SOON, asked).await.ok().flatten()
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut client = Client::connect(self.admin).await;
        client.send(format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.admin)).await;
        let text = client.response().await.text();
        let of_that_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        text.lines().filter(of_that_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Calls as an honest client does, each on a connection of its own, and looks at the operator's
    /// side beside that, until the watch is ended.
    pub fn watch(&self) -> Watch {
        let (stop, mut stopped) = oneshot::channel();
        let (clients, admin) = (self.clients, self.admin);
        let both = [self.id(), std::process::id()];
        let task = tokio::spawn(async move {
            let (mut seen, mut stops) = (Seen::default(), false);
            // A machine that is busy with other things may let a single call end in this time.
            while !stops || seen.calls < 2 {
                seen.calls += 1;
                let (begun, before) = (Instant::now(), both.map(|id| schedule(id, 1)));
                match honest_call(clients).await {
                    Ok(()) => {
                        let took = begun.elapsed();
                        let waited = both.iter().zip(&before).map(|(id, before)| waited(&schedule(*id, 1), before));
                        seen.took.push(took.saturating_sub(waited.sum()));
                    }
                    Err(why) => seen.failed.push(why),
                }
                seen.looks += 1;
                if let Err(why) = look(admin).await {
                    seen.unseen.push(why);
                }
                sleep(Duration::from_millis(20)).await;
                stops |= stopped.try_recv().is_ok();
            }
            seen
        });
        Watch { stop, task }
    }
}

/// A figure of the kernel's scheduler for each thread of a process, in nanoseconds: 0 is the time on
/// a core, 1 the time in which the thread was ready and had none.
fn schedule(id: u32, figure: usize) -> BTreeMap<std::ffi::OsString, u64> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let of_each = tasks.map(|task| {
        let figures = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let value = figures.split(' ').nth(figure).and_then(|text| text.trim().parse().ok());
        (task.file_name(), value.unwrap_or(0))
    });
    of_each.collect()
}

/// The longest wait of any thread for a core since `before`. Other programs take the cores; an
/// attack that keeps a worker busy shows as time on a core.
fn waited(now: &BTreeMap<std::ffi::OsString, u64>, before: &BTreeMap<std::ffi::OsString, u64>) -> Duration {
    let of_each = now.iter().map(|(thread, waited)| waited.saturating_sub(*before.get(thread).unwrap_or(&0)));
    Duration::from_nanos(of_each.max().unwrap_or(0))
}

/// An honest client at work, and an operator who looks.
pub struct Watch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Seen>,
}

/// What they saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub calls: usize,
    /// How long each took that was answered, without the time in which the machine had no core for
    /// the proxy or for the client.
    pub took: Vec<Duration>,
    /// Why calls failed.
    pub failed: Vec<String>,
    pub looks: usize,
    /// Why the operator's side could not be seen.
    pub unseen: Vec<String>,
}

impl Seen {
    /// Whether honest calls took no more than twice as long as in the `quiet` before, but for the slowest hundredth. What a busy
    /// machine makes of any call is no attack's doing, so less than a second is as good as nothing.
    pub fn is_as_fast_as(&self, quiet: &Self) -> bool {
        self.p99() <= 2 * quiet.p99().max(Duration::from_secs(1))
    }

    /// How long all but the slowest hundredth took at most.
    fn p99(&self) -> Duration {
        let mut took = self.took.clone();
        took.sort_unstable();
        took[(took.len() * 99 / 100).min(took.len() - 1)]
    }
}

impl Watch {
    pub async fn end(self) -> Seen {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

/// One call on a connection of its own, which must be answered with a result.
pub async fn honest_call(addr: SocketAddr) -> Result<(), String> {
    let asked = async {
        let io = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
        let mut client = Client::over(io);
        client.send(crate::common::client::post("/", call(1, "eth_call", "[]").as_bytes())).await;
        let response = client.try_response().await.map_err(|broken| format!("{broken:?}"))?;
        if response.status == 200 && response.text().contains("\"result\"") { Ok(()) } else { Err(response.text()) }
    };
    timeout(SOON, asked).await.map_err(|_| "no answer in time".to_owned())?
}

async fn look(addr: SocketAddr) -> Result<(), String> {
    let asked = async {
        let io = TcpStream::connect(addr).await.map_err(|error| error.to_string())?;
        let mut client = Client::over(io);
        client.send(format!("GET /livez HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n")).await;
        let response = client.try_response().await.map_err(|broken| format!("{broken:?}"))?;
        if response.status == 200 { Ok(()) } else { Err(response.text()) }
    };
    timeout(SOON, asked).await.map_err(|_| "no answer in time".to_owned())?
}
