//! The binary itself, as an operator runs it.

use cucumber::{gherkin::Step, given, then, when};
use tokio::{net::TcpStream, time::Instant};

use crate::{
    binary::Binary,
    world::{Proxy, eventually, soon},
};

/// A running `steadfast`.
pub struct Process {
    binary: Binary,
    told: Option<Instant>,
}

impl Process {
    fn run(text: &str) -> Self {
        Self { binary: Binary::run(text), told: None }
    }

    /// Changes its file to hold `text`.
    pub fn rewrite(&self, text: &str) {
        self.binary.rewrite(text);
    }

    pub fn log(&self) -> String {
        self.binary.log()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.binary.id()
    }
}

#[given("the proxy runs as a process of its own")]
async fn runs(proxy: &mut Proxy) {
    let text = proxy.write_file().await;
    proxy.process = Some(Process::run(&text));
    let process = proxy.process.as_ref().unwrap();
    let known = eventually("the process says where it listens", soon(), async || {
        let known = process.binary.address("clients").zip(process.binary.address("admin"));
        known.ok_or_else(|| process.log())
    })
    .await;
    proxy.known = Some(known);
}

#[when("the operator starts the proxy with this file:")]
async fn starts_with(proxy: &mut Proxy, step: &Step) {
    let node = {
        proxy.network().await;
        proxy.pretend().el(0).http_url()
    };
    let text = step.docstring.as_ref().expect("a file").replace("<node>", &node);
    proxy.process = Some(Process::run(&text));
}

#[then(expr = "it ends at once with exit code {int}")]
async fn ends(proxy: &mut Proxy, code: i32) {
    let process = proxy.process.as_mut().expect("a process");
    let status =
        eventually("the process ends", soon(), async || process.binary.ended().ok_or_else(|| process.log())).await;
    assert_eq!(status.code(), Some(code), "{}", process.log());
}

#[then("it has said all of this:")]
async fn has_said(proxy: &mut Proxy, step: &Step) {
    let process = proxy.process.as_ref().expect("a process");
    let rows = &step.table.as_ref().expect("a table").rows[1..];
    eventually("it has said all", soon(), async || {
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
    for node in proxy.pretend().nodes() {
        assert_eq!(node.connections_total(), 0, "{}", node.name());
    }
}

#[when("the operator sends SIGTERM")]
async fn sigterm(proxy: &mut Proxy) {
    let process = proxy.process.as_mut().expect("a process");
    process.binary.signal("TERM");
    process.told = Some(Instant::now());
}

#[then("it says that it is not ready")]
async fn not_ready(proxy: &mut Proxy) {
    let proxy = &*proxy;
    eventually("it is not ready", soon(), async || match proxy.get("/readyz").await {
        (503, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[then("new connections are refused")]
async fn refused(proxy: &mut Proxy) {
    let addr = proxy.addr();
    eventually("new connections are refused", soon(), async || match TcpStream::connect(addr).await {
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
