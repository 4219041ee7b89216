//! A consensus node that says what it is told to say.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A request's path, and its `authorization`.
type Asked = (String, Option<String>);

#[derive(Default)]
struct State {
    answers: BTreeMap<String, (u16, String)>,
    asked: Vec<Asked>,
}

/// The node; it goes with this.
pub struct Beacon {
    url: String,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl Beacon {
    /// A node that is well, at slot 100.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let mut tasks = JoinSet::new();
        let shared = state.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (io, _) = listener.accept().await.unwrap();
                connections.spawn(serve(io, shared.clone()));
            }
        });
        let node = Self { url, state, _tasks: tasks };
        node.set("/eth/v1/beacon/genesis", 200, &genesis(&"ab".repeat(32)));
        node.set(
            "/eth/v1/config/spec",
            200,
            r#"{"data":{"SECONDS_PER_SLOT":"12","SLOTS_PER_EPOCH":"32","DEPOSIT_CHAIN_ID":"1"}}"#,
        );
        node.set("/eth/v1/beacon/headers/head", 200, &header(100, false));
        node.set("/eth/v1/node/syncing", 200, &syncing(0));
        node.set("/eth/v1/node/health", 200, "");
        node
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The answer at `path`, wherever the node's own path begins.
    pub fn set(&self, path: &str, status: u16, body: &str) {
        self.state.lock().unwrap().answers.insert(path.to_owned(), (status, body.to_owned()));
    }

    /// The requests that it got.
    pub fn requests(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }
}

pub fn genesis(root: &str) -> String {
    format!(r#"{{"data":{{"genesis_time":"1606824023","genesis_validators_root":"0x{root}"}}}}"#)
}

pub fn header(slot: u64, optimistic: bool) -> String {
    let root = format!("0x{slot:064x}");
    format!(
        r#"{{"execution_optimistic":{optimistic},"data":{{"root":"{root}","canonical":true,"header":{{"message":{{"slot":"{slot}","parent_root":"{root}"}}}}}}}}"#
    )
}

pub fn syncing(distance: u64) -> String {
    format!(
        r#"{{"data":{{"head_slot":"100","sync_distance":"{distance}","is_syncing":false,"is_optimistic":false,"el_offline":false}}}}"#
    )
}

async fn serve(io: TcpStream, state: Arc<Mutex<State>>) {
    let mut io = BufReader::new(io);
    loop {
        let (mut path, mut authorization) = (String::new(), None);
        loop {
            let mut line = String::new();
            if io.read_line(&mut line).await.is_ok_and(|count| count > 0) {
                let line = line.trim_end();
                match line.split_once(": ") {
                    _ if line.is_empty() => break,
                    Some(("authorization", value)) => authorization = Some(value.to_owned()),
                    Some(_) => {}
                    None => path = line.split(' ').nth(1).unwrap_or_default().to_owned(),
                }
            } else {
                return;
            }
        }
        let response = {
            let mut state = state.lock().unwrap();
            let answer = state.answers.iter().find(|(known, _)| path.ends_with(known.as_str()));
            let (status, body) = answer.map_or((404, String::new()), |(_, answer)| answer.clone());
            state.asked.push((path, authorization));
            format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        };
        if io.write_all(response.as_bytes()).await.is_err() {
            return;
        }
    }
}
