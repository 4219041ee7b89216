//! The binary itself, as an operator runs it.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use cucumber::{gherkin::Step, given, then, when};
use tokio::{net::TcpStream, time::Instant};

use crate::world::{Proxy, SOON, eventually};

/// A running `steadfast`; killed when dropped.
pub struct Process {
    child: Child,
    file: PathBuf,
    /// All that it has written.
    pub log: Arc<Mutex<String>>,
    ended: Option<ExitStatus>,
    told: Option<Instant>,
}

impl Process {
    /// Runs it with a file that holds `text`.
    fn run(text: &str) -> Self {
        static FILES: AtomicUsize = AtomicUsize::new(0);
        let name = format!("feature-{}-{}.toml", std::process::id(), FILES.fetch_add(1, Relaxed));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_steadfast"))
            .args(["run", "--config"])
            .arg(&path)
            .env_remove("STEADFAST_UNSET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, into) = (BufReader::new(child.stderr.take().unwrap()).lines(), log.clone());
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = into.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, file: path, log, ended: None, told: None }
    }

    /// Changes its file to hold `text`.
    pub fn rewrite(&self, text: &str) {
        std::fs::write(&self.file, text).unwrap();
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.ended = self.ended.or(self.child.try_wait().unwrap());
        self.ended
    }

    /// An address that it says it listens on.
    fn address(&self, key: &str) -> Option<SocketAddr> {
        let log = self.log();
        let (_, rest) = log.split_once(&format!("{key}="))?;
        rest.split_whitespace().next()?.parse().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

#[given("the proxy runs as a process of its own")]
async fn runs(proxy: &mut Proxy) {
    let text = proxy.write_file().await;
    proxy.process = Some(Process::run(&text));
    let process = proxy.process.as_ref().unwrap();
    let known = eventually("the process says where it listens", SOON, async || {
        let known = process.address("clients").zip(process.address("admin"));
        known.ok_or_else(|| process.log())
    })
    .await;
    proxy.known = Some(known);
}

#[when("the operator starts the proxy with this file:")]
async fn starts_with(proxy: &mut Proxy, step: &Step) {
    let node = proxy.devnet().await.el(0).http_url();
    let text = step.docstring.as_ref().expect("a file").replace("<node>", &node);
    proxy.process = Some(Process::run(&text));
}

#[then(expr = "it ends at once with exit code {int}")]
async fn ends(proxy: &mut Proxy, code: i32) {
    let process = proxy.process.as_mut().expect("a process");
    let status = eventually("the process ends", SOON, async || process.ended().ok_or_else(|| process.log())).await;
    assert_eq!(status.code(), Some(code), "{}", process.log());
}

#[then("it has said all of this:")]
async fn has_said(proxy: &mut Proxy, step: &Step) {
    let process = proxy.process.as_ref().expect("a process");
    let rows = &step.table.as_ref().expect("a table").rows[1..];
    eventually("it has said all", SOON, async || {
        let log = process.log();
        let missing = rows.iter().find(|row| {
            let line = log.lines().find(|line| line.contains(&format!(" {}: ", row[0])));
            line.is_none_or(|line| !line.contains(&row[1]))
        });
        missing.map_or(Ok(()), |row| Err(format!("nothing of {row:?} in\n{log}")))
    })
    .await;
    let lines = process.log().lines().count();
    assert_eq!(lines, rows.len(), "more or less than that:\n{}", process.log());
}

#[then("no node has heard of it")]
async fn unheard(proxy: &mut Proxy) {
    for node in proxy.net.as_ref().unwrap().nodes() {
        assert_eq!(node.connections_total(), 0, "{}", node.name());
    }
}

#[when("the operator sends SIGTERM")]
async fn sigterm(proxy: &mut Proxy) {
    let process = proxy.process.as_mut().expect("a process");
    let pid = process.child.id().to_string();
    let status = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(status.success());
    process.told = Some(Instant::now());
}

#[then("it says that it is not ready")]
async fn not_ready(proxy: &mut Proxy) {
    let proxy = &*proxy;
    eventually("it is not ready", SOON, async || match proxy.get("/readyz").await {
        (503, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[then("new connections are refused")]
async fn refused(proxy: &mut Proxy) {
    let addr = proxy.addr();
    eventually("new connections are refused", SOON, async || match TcpStream::connect(addr).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[then(expr = "the process ends with exit code {int} within {int} ms of the signal")]
async fn ends_in_time(proxy: &mut Proxy, code: i32, millis: u128) {
    ends(proxy, code).await;
    let told = proxy.process.as_ref().and_then(|process| process.told).expect("a signal was sent");
    assert!(told.elapsed().as_millis() <= millis, "{:?}", told.elapsed());
}
