//! A proxy before a pretend network, all of it in memory and under a clock that only moves when
//! nothing else can.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use serde_json::{Value, json};
use steadfast::{
    app::App,
    devnet::{Devnet, Node, Options},
};
use tokio::{
    runtime::{self, RngSeed},
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::{
    client::{Client, call},
    proxy,
    sim::Net,
    witness::{Plan, Report, witness},
};

/// Unix time at the start.
const START_UNIX: u64 = 1_800_000_000;
/// Blocks at the start.
const INITIAL_BLOCKS: u64 = 50;
/// Blocks that every node has, however far it lags.
const OLD_BLOCKS: u64 = 20;
/// The topic of the pretend contracts' approvals.
const APPROVAL: &str = "0x8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925";

/// How the proxy may reach a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By HTTP and WebSocket.
    Both,
    Http,
    Ws,
    Ipc,
    HttpAndIpc,
}

/// Ways to reach nodes of which each is as likely as the other.
pub const EACH: [Reach; 4] = [Reach::Both, Reach::Http, Reach::Ws, Reach::Ipc];
/// The same, with as many that can be reached in both ways as in one of them.
pub const MOSTLY_BOTH: [Reach; 4] = [Reach::Both, Reach::Both, Reach::Http, Reach::Ws];

/// Two or three nodes, each reached in one of these ways, chosen at random.
pub fn some_nodes(rng: &mut Rng, ways: &[Reach]) -> Vec<Reach> {
    let nodes = rng.usize(2..=3);
    (0..nodes).map(|_| ways[rng.usize(..ways.len())]).collect()
}

/// A proxy, its nodes and its clients in one simulated network.
pub struct Simulation {
    pub net: Net,
    pub devnet: Arc<Devnet>,
    pub app: App,
    pub start: Instant,
    pub witnesses: JoinSet<(usize, Report)>,
    seed: u64,
}

/// Runs `simulation` on a runtime of its own, with a paused clock, no I/O, and random numbers from
/// `seed`: tokio draws them to be fair among tasks that wait for one thing.
pub fn run_simulated<T>(seed: u64, simulation: impl Future<Output = T>) -> T {
    let seed = RngSeed::from_bytes(&seed.to_le_bytes());
    let mut runtime = runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).rng_seed(seed).build().unwrap().block_on(simulation)
}

impl Simulation {
    /// The first node is the primary, the others are backups. `more` is appended to the settings.
    pub async fn start(seed: u64, reaches: &[Reach], more: &str) -> Self {
        Self::with(seed, reaches, |index| if index == 0 { "primary" } else { "backup" }, more).await
    }

    /// `tier` says which node is what.
    pub async fn with(seed: u64, reaches: &[Reach], tier: impl Fn(usize) -> &'static str, more: &str) -> Self {
        let start = Instant::now();
        let net = Net::default();
        let options = Options {
            execution: reaches.len(),
            initial_blocks: INITIAL_BLOCKS,
            seed,
            now_unix: Some(START_UNIX),
            small_ids: seed % 2 == 1,
            ipc: Some("/run".into()),
            ..Options::default()
        };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let world = net.world(START_UNIX, start);
        let mut settings = String::new();
        for (index, (node, reach)) in devnet.nodes().zip(reaches).enumerate() {
            let tier = tier(index);
            settings += &format!("[[el.{tier}]]\nname = \"{}\"\n", node.name());
            if matches!(reach, Reach::Both | Reach::Http | Reach::HttpAndIpc) {
                settings += &format!("http = \"{}\"\n", node.http_url());
            }
            if matches!(reach, Reach::Both | Reach::Ws) {
                settings += &format!("ws = \"{}\"\n", node.ws_url());
            }
            if matches!(reach, Reach::Ipc | Reach::HttpAndIpc) {
                settings += &format!("ipc = \"/run/{}.ipc\"\n", node.name());
            }
        }
        let app = App::start(proxy::config(&[&settings, more].concat()), world, None).await.unwrap();
        sleep(Duration::from_secs(2)).await;
        Self { net, devnet: Arc::new(devnet), app, start, witnesses: JoinSet::new(), seed }
    }

    pub fn node(&self, index: usize) -> &Arc<Node> {
        self.devnet.el(index)
    }

    pub async fn at(&self, millis: u64) {
        sleep_until(self.start + Duration::from_millis(millis)).await;
    }

    /// A plan for a witness that calls until `calls_until` and listens until `end`, both in
    /// milliseconds from the start.
    pub fn plan(&self, number: usize, calls_until: u64, end: u64) -> Plan {
        let chain = self.devnet.chain().clone();
        let contract = format!("{:#x}", chain.contracts()[number % chain.contracts().len()]);
        Plan {
            number,
            name: format!("seed {} client {number}", self.seed),
            seed: self.seed << 8 | number as u64,
            pace: 50..51,
            calls_until: self.start + Duration::from_millis(calls_until),
            end: self.start + Duration::from_millis(end),
            time_limit: Duration::from_secs(10),
            // A client that wants everything has every block asked for, so under some seeds there
            // is none among a few clients.
            filter: match (number as u64 + self.seed) % 5 {
                0 => json!({}),
                1 | 2 => json!({ "address": contract }),
                3 => json!({ "topics": [[APPROVAL]] }),
                _ => json!({ "address": [contract], "topics": [] }),
            },
            fetches: false,
            may_be_closed: false,
            old_blocks: OLD_BLOCKS,
            tip: Arc::new(move || chain.head().number),
        }
    }

    /// Lets a witness in now.
    pub async fn admit(&mut self, plan: Plan) {
        let io = self.net.connect(self.app.addr().port()).await.unwrap();
        self.witnesses.spawn(async move { (plan.number, witness(io, plan).await) });
    }

    /// Mines a block each `spacing` until `until` (milliseconds from the start).
    pub fn mine(&self, spacing: Duration, until: u64) -> JoinSet<()> {
        let (chain, until) = (self.devnet.chain().clone(), self.start + Duration::from_millis(until));
        let mut task = JoinSet::new();
        task.spawn(async move {
            while Instant::now() < until {
                sleep(spacing).await;
                chain.mine(1);
            }
        });
        task
    }

    /// Waits for all witnesses, and holds what they heard against the network's chain. Call it when
    /// no fault is left.
    pub async fn settle(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        while let Some(done) = self.witnesses.join_next().await {
            match done {
                Ok(report) => reports.push(report),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        reports.sort_by_key(|(number, _)| *number);
        let heads = self.heads();
        for (number, report) in &reports {
            let Plan { name, filter, .. } = self.plan(*number, 0, 0);
            report.settle(&name, &heads, &self.logs(filter).await);
        }
        reports.into_iter().map(|(_, report)| report).collect()
    }

    /// The canonical chain's numbers and hashes, oldest first.
    pub fn heads(&self) -> Vec<(u64, String)> {
        let snapshot = self.devnet.chain().snapshot();
        let tip = snapshot.head().number;
        (1..=tip).filter_map(|number| snapshot.block(number)).map(|b| (b.number, b.hash.to_string())).collect()
    }

    /// The canonical chain's logs as the node itself tells them.
    pub async fn logs(&self, mut filter: Value) -> Vec<(u64, String, u64)> {
        filter["fromBlock"] = json!("0x1");
        let port = self.node(0).addr().port();
        let mut client = Client::over(self.net.connect(port).await.unwrap());
        let answer = client.post(call(1, "eth_getLogs", &json!([filter]).to_string())).await.json();
        let number = |value: &Value| u64::from_str_radix(&value.as_str().unwrap()[2..], 16).unwrap();
        let logs = answer["result"].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
        logs.map(|log| {
            (number(&log["blockNumber"]), log["blockHash"].as_str().unwrap().to_owned(), number(&log["logIndex"]))
        })
        .collect()
    }
}
