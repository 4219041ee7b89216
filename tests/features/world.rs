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
    devnet::{Devnet, Node, Options},
    domain::layer::Layer,
    net::tcp::Tcp,
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{events::Listener, filters::Polled, process::Process, sockets::Socket, traffic::Traffic};

/// Long enough for anything that is to come soon.
pub const SOON: Duration = Duration::from_secs(15);
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
    /// Lines to add to its table, with `{addr}` likewise.
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
    pub net: Option<Devnet>,
    pub app: Option<App>,
    pub process: Option<Process>,
    /// The configuration file, as it is read at the next reload.
    pub file: Arc<Mutex<String>>,
    pub client: reqwest::Client,
    /// The last call's reply.
    pub last: Option<Reply>,
    /// The last refusal of a reload, or what it changed.
    pub reloaded: Option<Result<String, String>>,
    /// Calls that were sent and have not been looked at since, in their order.
    pub waiting: Vec<JoinHandle<Reply>>,
    pub traffic: Option<Traffic>,
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
    /// Addresses where the proxy was.
    pub known: Option<(SocketAddr, SocketAddr)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<_> = self.net.iter().flat_map(Devnet::nodes).map(|node| node.active_faults()).collect();
        write!(f, "{}\nfaults: {faults:?}\nlast reply: {:?}", self.file.lock().unwrap(), self.last)
    }
}

impl Proxy {
    fn new() -> Self {
        // Probes fast enough for a test. Where the defaults matter, a scenario says so.
        let settings = [
            ("listen", r#""127.0.0.1:0""#),
            ("admin.listen", r#""127.0.0.1:0""#),
            ("health.interval", r#""100ms""#),
            ("health.timeout", r#""300ms""#),
        ];
        Self {
            nodes: Vec::new(),
            settings: settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            block_time: None,
            state_bytes: Options::default().state_bytes,
            net: None,
            app: None,
            process: None,
            file: Arc::default(),
            client: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap(),
            last: None,
            reloaded: None,
            waiting: Vec::new(),
            traffic: None,
            listener: None,
            sockets: BTreeMap::new(),
            polled: None,
            dropped: None,
            highest: 0,
            since: Instant::now(),
            known: None,
        }
    }

    /// The pretend network, with a pretend node for each node of the configuration and one of each layer to spare.
    pub async fn devnet(&mut self) -> &Devnet {
        if self.net.is_none() {
            let options = Options {
                execution: self.of(Layer::El).count() + 1,
                consensus: self.of(Layer::Cl).count() + 1,
                block_time: self.block_time,
                state_bytes: self.state_bytes,
                // Enough slots for checkpoints to lie apart.
                initial_blocks: if self.layer() == Layer::Cl { 30 } else { Options::default().initial_blocks },
                ..Options::default()
            };
            self.net = Some(Devnet::start(options, Arc::new(Tcp)).await.unwrap());
        }
        self.net.as_ref().unwrap()
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
        self.devnet().await;
        let mut text: String = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        for node in &self.nodes {
            let Named { name, layer, tier, url, more } = node;
            let http = if url.is_empty() { String::new() } else { format!("http = \"{url}\"\n") };
            let table = format!("[[{}.{tier}]]\nname = \"{name}\"\n{http}{more}\n", layer.as_str());
            text += &table.replace("{addr}", &self.node(name).addr().to_string());
        }
        self.file.lock().unwrap().clone_from(&text);
        if let Some(process) = &self.process {
            process.rewrite(&text);
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
        self.listener = None;
        self.sockets.clear();
        self.app = None;
        self.process = None;
    }

    pub fn addr(&self) -> SocketAddr {
        self.known.expect("the proxy runs").0
    }

    pub fn admin(&self) -> SocketAddr {
        self.known.expect("the proxy runs").1
    }

    /// The pretend node behind the operator's name.
    pub fn node(&self, name: &str) -> &Arc<Node> {
        let layer = self.nodes.iter().find(|node| node.name == name).map(|node| node.layer);
        let layer = layer.unwrap_or_else(|| panic!("no node {name} was given"));
        self.pretend(layer, self.of(layer).position(|node| node.name == name).expect("it is of its layer"))
    }

    /// The pretend node that is to spare on that side.
    pub fn spare(&self, layer: Layer) -> &Arc<Node> {
        self.pretend(layer, self.of(layer).count())
    }

    fn pretend(&self, layer: Layer, place: usize) -> &Arc<Node> {
        let net = self.net.as_ref().expect("the network runs");
        match layer {
            Layer::El => net.el(place),
            Layer::Cl => net.cl(place),
        }
    }

    /// Sends a body to the proxy and waits for the reply.
    pub fn post(&self, body: impl Into<reqwest::Body>) -> impl Future<Output = Reply> + Send + 'static {
        reply(self.client.post(format!("http://{}", self.addr())).body(body))
    }

    /// A request to the beacon API.
    pub fn beacon(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.addr()))
    }

    /// The request whose answer says who gave it, and its name in the nodes' records.
    pub fn who_are_you(&self) -> (RequestBuilder, &'static str) {
        match self.layer() {
            Layer::El => {
                let call = json!({"jsonrpc": "2.0", "id": 1, "method": "web3_clientVersion", "params": []});
                (self.client.post(format!("http://{}", self.addr())).body(call.to_string()), "web3_clientVersion")
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
    pub async fn who(&self) -> String {
        let reply = reply(self.who_are_you().0).await;
        self.who_answered(&reply).unwrap_or_else(|why| panic!("{why}"))
    }

    pub fn who_answered(&self, reply: &Reply) -> Result<String, String> {
        who(&self.names(), reply)
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

/// The node that gave `reply`, by the operator's `names`.
pub fn who(names: &[String], reply: &Reply) -> Result<String, String> {
    let json: Value = serde_json::from_str(&reply.body).map_err(|error| format!("{error}: {reply:?}"))?;
    let version = json["result"].as_str().or_else(|| json["data"]["version"].as_str());
    let version = version.ok_or_else(|| format!("no version: {reply:?}"))?;
    let number: usize = version.rsplit('-').next().unwrap().parse().map_err(|_| format!("no node: {reply:?}"))?;
    // A node that came by a reload has no name here.
    Ok(names.get(number - 1).cloned().unwrap_or_else(|| format!("el-{number}")))
}

/// Looks until there is something to see.
pub async fn eventually<T>(what: &str, patience: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(why) if Instant::now() > deadline => panic!("{what}: not within {patience:?}: {why}"),
            Err(_) => sleep(LOOK).await,
        }
    }
}
