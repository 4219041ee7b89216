//! What a scenario lives in: a pretend network, a proxy in front of it, and what its clients have seen.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use steadfast::{
    app::{App, World as Around},
    config::Config,
    devnet::{Chain, Devnet, Node, Options},
    domain::layer::Layer,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    effects::Signed,
    events::Listener,
    filters::Polled,
    network::{self, At, Network, Port, Voice, Wish, chosen, here, stretch},
    process::Process,
    sockets::Socket,
    traffic::{Batches, Traffic},
};

/// Long enough for anything that is to come soon.
pub fn soon() -> Duration {
    stretch(Duration::from_secs(15))
}

/// Between two looks at what is to come.
const LOOK: Duration = Duration::from_millis(20);

/// A node as the operator configures it.
#[derive(Clone)]
pub struct Named {
    pub name: String,
    pub layer: Layer,
    pub tier: &'static str,
    /// Its HTTP URL, `{addr}` standing for host and port; empty if it has none.
    pub url: String,
    /// Lines to add to its table, with `{ws}` for host and port of its WebSocket.
    pub more: String,
}

/// What a client got.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub retry_after: bool,
    pub body: String,
    pub took: Duration,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

/// One scenario's world.
#[derive(cucumber::World)]
#[world(init = Self::new)]
pub struct Proxy {
    pub nodes: Vec<Named>,
    pub settings: BTreeMap<String, String>,
    pub block_time: Option<Duration>,
    /// Bytes of a consensus node's state.
    pub state_bytes: u64,
    pub net: Option<Arc<dyn Network>>,
    pub app: Option<App>,
    pub process: Option<Process>,
    /// The configuration file, as it is read at the next reload.
    pub file: Arc<Mutex<String>>,
    pub client: reqwest::Client,
    /// The last call's reply.
    pub last: Option<Reply>,
    /// The answers to calls for old blocks.
    pub answers: Vec<Value>,
    /// The last refusal of a reload, or what it changed.
    pub reloaded: Option<Result<String, String>>,
    /// Calls that were sent and have not been looked at since, in their order.
    pub waiting: Vec<JoinHandle<Reply>>,
    pub traffic: Option<Traffic>,
    /// Clients that send batches.
    pub batches: Option<Batches>,
    /// A client of the beacon API's events.
    pub listener: Option<Listener>,
    /// Clients with a WebSocket, by their names.
    pub sockets: BTreeMap<String, Socket>,
    /// A client that polls filters.
    pub polled: Option<Polled>,
    /// The id of the subscription that was ended last.
    pub dropped: Option<String>,
    /// The highest block that a client was shown.
    pub highest: u64,
    /// When the last change was made to a node.
    pub since: Instant,
    /// A client's transaction, when it was sent last.
    pub signed: Option<Signed>,
    /// The node that gave the last answer, as the counters tell it.
    pub teller: Option<String>,
    /// Addresses where the proxy was.
    pub known: Option<(SocketAddr, SocketAddr)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pretend = self.net.iter().filter_map(|net| net.pretend().ok());
        let faults: Vec<_> = pretend.flat_map(Devnet::nodes).map(|node| node.active_faults()).collect();
        write!(f, "{}\nfaults: {faults:?}\nlast reply: {:?}", self.file.lock().unwrap(), self.last)
    }
}

impl Proxy {
    fn new() -> Self {
        // Where the defaults of `health` matter, a scenario says so.
        let doors = [("listen", r#""127.0.0.1:0""#), ("admin.listen", r#""127.0.0.1:0""#)];
        let settings = doors.iter().chain(chosen().health());
        Self {
            nodes: Vec::new(),
            settings: settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            block_time: None,
            state_bytes: Options::default().state_bytes,
            net: None,
            app: None,
            process: None,
            file: Arc::default(),
            client: steadfast::net::post::plain().timeout(Duration::from_secs(20)).build().unwrap(),
            last: None,
            answers: Vec::new(),
            reloaded: None,
            waiting: Vec::new(),
            traffic: None,
            batches: None,
            listener: None,
            sockets: BTreeMap::new(),
            polled: None,
            dropped: None,
            highest: 0,
            since: Instant::now(),
            signed: None,
            teller: None,
            known: None,
        }
    }

    /// The network, with a node for each node of the configuration. A pretend network has one of each layer to spare.
    pub async fn network(&mut self) -> Arc<dyn Network> {
        if self.net.is_none() {
            let (execution, consensus) = (self.of(Layer::El).count(), self.of(Layer::Cl).count());
            let options = Options {
                execution: execution + 1,
                consensus: consensus + 1,
                block_time: self.block_time,
                state_bytes: self.state_bytes,
                // Enough slots for checkpoints to lie apart.
                initial_blocks: if self.layer() == Layer::Cl { 30 } else { Options::default().initial_blocks },
                ..Options::default()
            };
            self.net = Some(here(network::start(Wish { options, execution, consensus }).await));
        }
        self.net().clone()
    }

    /// The network that runs.
    pub fn net(&self) -> &Arc<dyn Network> {
        self.net.as_ref().expect("the network runs")
    }

    /// The same, for steps that look into pretend nodes, or have them err.
    pub fn pretend(&self) -> &Devnet {
        here(self.net().pretend())
    }

    /// The pretend network's chain.
    pub fn chain(&self) -> &Arc<Chain> {
        self.pretend().chain()
    }

    fn of(&self, layer: Layer) -> impl Iterator<Item = &Named> {
        self.nodes.iter().filter(move |node| node.layer == layer)
    }

    /// The side that the scenario is about: consensus if all of its nodes are.
    pub fn layer(&self) -> Layer {
        if self.of(Layer::El).next().is_none() && !self.nodes.is_empty() { Layer::Cl } else { Layer::El }
    }

    /// The operator's names of the nodes of that side.
    pub fn names(&self) -> Vec<String> {
        self.of(self.layer()).map(|node| node.name.clone()).collect()
    }

    /// Writes the configuration file from the settings and the nodes.
    pub async fn write_file(&mut self) -> String {
        self.network().await;
        let mut text: String = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        for node in &self.nodes {
            let Named { name, layer, tier, url, more } = node;
            let http = if url.is_empty() { String::new() } else { format!("http = \"{url}\"\n") };
            let table = format!("[[{}.{tier}]]\nname = \"{name}\"\n{http}{more}\n", layer.as_str());
            text += &self.placed(&table, self.at(name));
        }
        self.file.lock().unwrap().clone_from(&text);
        if let Some(process) = &self.process {
            process.rewrite(&text);
        }
        text
    }

    /// The text with the addresses of a node.
    pub fn placed(&self, text: &str, at: At) -> String {
        let mut text = text.to_owned();
        for (mark, port) in [("{addr}", Port::Http), ("{ws}", Port::Ws)] {
            if text.contains(mark) {
                text = text.replace(mark, &here(self.net().addr(at, port)).to_string());
            }
        }
        text
    }

    /// Starts the proxy in this process.
    pub async fn start(&mut self) {
        let text = self.write_file().await;
        let config = Config::parse(&text, &|_| None).unwrap_or_else(|errors| panic!("{errors}\n{text}"));
        let file = self.file.clone();
        let source = move || Config::parse(&file.lock().unwrap(), &|_| None).map_err(|errors| errors.to_string());
        let app = App::start(config, Around::real(1), Some(Arc::new(source))).await.unwrap();
        self.known = Some((app.addr(), app.admin_addr()));
        self.app = Some(app);
    }

    pub async fn end(&mut self) {
        for waiting in self.waiting.drain(..) {
            waiting.abort();
        }
        self.traffic = None;
        self.batches = None;
        self.listener = None;
        self.sockets.clear();
        self.app = None;
        self.process = None;
        if let Some(net) = &self.net {
            here(net.close().await);
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.known.expect("the proxy runs").0
    }

    pub fn admin(&self) -> SocketAddr {
        self.known.expect("the proxy runs").1
    }

    /// The node of the network behind the operator's name.
    pub fn at(&self, name: &str) -> At {
        let layer = self.nodes.iter().find(|node| node.name == name).map(|node| node.layer);
        let layer = layer.unwrap_or_else(|| panic!("no node {name} was given"));
        let place = self.of(layer).position(|node| node.name == name).expect("it is of its layer");
        At { layer, place }
    }

    /// The pretend node behind the operator's name.
    pub fn node(&self, name: &str) -> &Arc<Node> {
        let At { layer, place } = self.at(name);
        match layer {
            Layer::El => self.pretend().el(place),
            Layer::Cl => self.pretend().cl(place),
        }
    }

    /// The node that is to spare on that side.
    pub fn spare(&self, layer: Layer) -> At {
        At { layer, place: self.of(layer).count() }
    }

    /// Sends a body to the proxy and waits for the reply.
    pub fn post(&self, body: impl Into<reqwest::Body>) -> impl Future<Output = Reply> + Send + 'static {
        reply(self.client.post(format!("http://{}", self.addr())).body(body))
    }

    /// A request to the beacon API.
    pub fn beacon(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.addr()))
    }

    /// The request whose answer says who gave it, if any does, and its name in the nodes' records.
    pub fn who_are_you(&self) -> (RequestBuilder, &'static str) {
        match self.layer() {
            Layer::El => {
                let method = self.voice().method();
                let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": []});
                (self.client.post(format!("http://{}", self.addr())).body(call.to_string()), method)
            }
            Layer::Cl => (self.beacon(Method::GET, "/eth/v1/node/version"), "GET /eth/v1/node/version"),
        }
    }

    /// The request by which the proxy learns a node's head, as nodes record it.
    pub fn probe(&self) -> &'static str {
        match self.layer() {
            Layer::El => "eth_getBlockByNumber",
            Layer::Cl => "GET /eth/v1/beacon/headers/head",
        }
    }

    /// Makes a call.
    pub fn call(&self, method: &str, params: &Value) -> impl Future<Output = Reply> + Send + 'static {
        self.post(json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string())
    }

    /// The operator's name of the node that answers now. Fails unless the call is answered.
    ///
    /// Where answers do not tell, the node is the one that is active, if the counter of the calls
    /// that it answered has moved.
    pub async fn who(&self) -> String {
        let before = self.answered().await;
        let reply = reply(self.who_are_you().0).await;
        let who = who(&self.names(), self.voice(), &reply).unwrap_or_else(|why| panic!("{why}"));
        if let Some(who) = who {
            return who;
        }
        let (active, after) =
            (self.status().await["active"].as_str().unwrap_or_default().to_owned(), self.answered().await);
        match after.get(&active) > before.get(&active) {
            true => active,
            false => format!("another node than {active}, which is active"),
        }
    }

    pub fn voice(&self) -> Voice {
        self.net().voice()
    }

    /// How many calls each node has answered, by the proxy's counters, where they are needed.
    pub async fn answered(&self) -> BTreeMap<String, u64> {
        if self.voice() == Voice::Silent { self.attempts(r#"outcome="answered""#).await } else { BTreeMap::new() }
    }

    /// How many attempts were made at each node, by the proxy's counters with these labels.
    pub async fn attempts(&self, of: &str) -> BTreeMap<String, u64> {
        let (_, metrics) = self.get("/metrics").await;
        let lines = metrics.lines().filter_map(|line| {
            let (labels, count) = line.strip_prefix("steadfast_attempts_total{")?.split_once("} ")?;
            let node = labels.split("node=\"").nth(1)?.split('"').next()?;
            labels.contains(of).then(|| (node.to_owned(), count.parse::<u64>().unwrap_or_default()))
        });
        let mut attempts = BTreeMap::new();
        lines.for_each(|(node, count)| *attempts.entry(node).or_default() += count);
        attempts
    }

    /// Finds the one node whose counter has moved.
    pub async fn find_teller(&mut self, before: &BTreeMap<String, u64>) {
        let after = self.answered().await;
        let mut moved = after.into_iter().filter(|(node, count)| before.get(node).is_none_or(|before| before < count));
        let first = moved.next().map(|(node, _)| node);
        self.teller = first.filter(|_| moved.next().is_none());
    }

    pub fn who_answered(&self, reply: &Reply) -> Result<String, String> {
        let who = who(&self.names(), self.voice(), reply)?;
        who.or_else(|| self.teller.clone()).ok_or_else(|| "nothing tells which node answered".to_owned())
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        let response = self.client.get(format!("http://{}{path}", self.admin())).send().await;
        let response = response.unwrap_or_else(|error| panic!("GET {path}: {error:?}"));
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// What the status says of the scenario's side.
    pub async fn status(&self) -> Value {
        let (_, text) = self.get("/status").await;
        serde_json::from_str::<Value>(&text).unwrap()["networks"][0][self.layer().as_str()].clone()
    }

    /// What the status says of one node.
    pub async fn status_of(&self, name: &str) -> Value {
        let status = self.status().await;
        let nodes = status["nodes"].as_array().unwrap_or_else(|| panic!("no nodes: {status:#}"));
        let node = nodes.iter().find(|node| node["name"] == name);
        node.cloned().unwrap_or_else(|| panic!("no {name} in the status: {status:#}"))
    }

    /// The value of a metric without its labels, or with those that `line` names.
    pub async fn metric(&self, line: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok())
    }
}

/// Sends a request and waits for the whole reply.
pub async fn reply(request: RequestBuilder) -> Reply {
    let started = Instant::now();
    let response = request.send().await.unwrap_or_else(|error| panic!("no response: {error:?}"));
    let status = response.status().as_u16();
    let retry_after = response.headers().contains_key("retry-after");
    let body = response.text().await.unwrap_or_else(|error| panic!("no whole body: {error:?}"));
    Reply { status, retry_after, body, took: started.elapsed() }
}

/// The node that gave `reply`, by the operator's `names`, if answers tell. Fails if it is no answer.
pub fn who(names: &[String], voice: Voice, reply: &Reply) -> Result<Option<String>, String> {
    let json: Value = serde_json::from_str(&reply.body).map_err(|error| format!("{error}: {reply:?}"))?;
    let place = voice.place(&json).map_err(|why| format!("{why}: {reply:?}"))?;
    // A node that came by a reload has no name here.
    Ok(place.map(|place| names.get(place).cloned().unwrap_or_else(|| format!("el-{}", place + 1))))
}

/// Looks until there is something to see.
pub async fn eventually<T>(what: &str, time_limit: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + time_limit;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(why) if Instant::now() > deadline => panic!("{what}: not within {time_limit:?}: {why}"),
            Err(_) => sleep(LOOK).await,
        }
    }
}
