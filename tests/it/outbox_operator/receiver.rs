//! An endpoint that is told of events, and answers as the test says.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU16, Ordering::SeqCst},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The endpoint.
pub(super) struct Receiver {
    /// The endpoint in the settings, by the name `billing`.
    pub(super) settings: String,
    /// The status of each answer.
    pub(super) status: Arc<AtomicU16>,
    /// Of each request: the `webhook-id` and the kind of the event.
    seen: Arc<Mutex<Vec<(String, String)>>>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    /// An endpoint for these events, which answers with that status.
    pub(super) async fn start(events: &[&str], status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port());
        let settings = format!(
            "[[outbox.webhook]]\nname = \"billing\"\nurl = \"{url}\"\nevents = {events:?}\nallow_private = \"127.0.0.1\"\n\
             secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n"
        );
        let (status, seen) = (Arc::new(AtomicU16::new(status)), Arc::<Mutex<Vec<_>>>::default());
        let (of_task, known) = (status.clone(), seen.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(receive(stream, of_task.clone(), known.clone()));
            }
        });
        Self { settings, status, seen, task }
    }

    pub(super) fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().unwrap().clone()
    }
}

async fn receive(mut stream: TcpStream, status: Arc<AtomicU16>, seen: Arc<Mutex<Vec<(String, String)>>>) {
    let mut text = String::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| {
            let found = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(str::to_owned));
            found.unwrap_or_else(|| panic!("no {name} in {head}"))
        };
        if body.len() < field("content-length: ").parse().unwrap() {
            continue;
        }
        let body: Value = serde_json::from_str(body).unwrap();
        seen.lock().unwrap().push((field("webhook-id: "), body["type"].as_str().unwrap().to_owned()));
        text.clear();
        let answer = format!("HTTP/1.1 {} x\r\ncontent-length: 0\r\n\r\n", status.load(SeqCst));
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
