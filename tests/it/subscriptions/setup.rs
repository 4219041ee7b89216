//! A pretend network with the views of it, and clients as the door has them.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use serde_json::Value;
use steadfast::{
    config::Filters,
    devnet::{Devnet, Fault, Options},
    domain::{layer::Layer, node_id::NodeId},
    memory::Budget,
    metrics::Metrics,
    net::{Dial, Listen},
    pool::{self, Pool, node::Node},
    view::{Closing, Mailbox, Outbound, Running, Settings, Subscription, SubscriptionRefusal, Views, WorkerJobs},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use crate::common::{proxy::config, sim::Net, until};

/// Unix time at the start.
const START_UNIX: u64 = 1_800_000_000;
/// Long enough for whatever is under way when nodes are well.
pub(super) const A_WHILE: Duration = Duration::from_secs(2);

/// Pretend execution nodes with a pool and the views of it. The first node is the primary, the
/// others are backups.
pub(super) struct Setup {
    pub(super) net: Net,
    pub(super) devnet: Devnet,
    pub(super) pool: Arc<Pool>,
    pub(super) views: Arc<Views>,
    pub(super) metrics: Arc<Metrics>,
    settings: String,
    /// What the pool runs by.
    pub(super) probing: Option<pool::Running>,
    pub(super) running: Option<Running>,
    _workers: JoinSet<()>,
}

/// What nodes tell comes to us so much later, from the node whose index this is; see
/// [`Setup::delaying`].
const DELAY: (usize, Duration) = (0, Duration::from_millis(500));
const DELAYED_PORT: u16 = 9999;
const DELAYED: &str = "# delayed\n";

/// Nodes have no WebSocket.
pub(super) const POLLED: &str = "# polled\n";

pub(super) fn start_pool(
    devnet: &Devnet,
    net: &Net,
    settings: &str,
    metrics: &Arc<Metrics>,
) -> (Arc<Pool>, pool::Running) {
    let mut text = settings.to_owned();
    for (index, node) in devnet.nodes().enumerate() {
        let tier = if index == 0 { "primary" } else { "backup" };
        text += &format!("[[el.{tier}]]\nname = \"{}\"\nhttp = \"{}\"\n", node.name(), node.http_url());
        if !settings.starts_with(POLLED) {
            let is_delayed = settings.starts_with(DELAYED) && index == DELAY.0;
            let delayed = format!("ws://127.0.0.1:{DELAYED_PORT}");
            text += &format!("ws = \"{}\"\n", if is_delayed { delayed } else { node.ws_url() });
        }
    }
    let config = config(&text);
    let dial: Arc<dyn Dial> = Arc::new(net.clone());
    let nodes = config.networks[0].el.iter();
    let account = steadfast::pool::credits::Account::new(Arc::new(|| 0), 7);
    let reach = steadfast::pool::node::Reach { connect: Duration::from_secs(1), max_connections: 0, wait_limit: None };
    let nodes = nodes.map(|node| Node::new(node, ("default", Layer::El), &dial, reach, 0, metrics, &account).unwrap());
    let start = Instant::now();
    let wall: pool::Wall = Arc::new(move || START_UNIX + start.elapsed().as_secs());
    Pool::start("default", Layer::El, nodes.collect(), &config.health, None, metrics.clone(), wall)
}

impl Setup {
    pub(super) async fn new(settings: &str) -> Self {
        Self::with(Options::default(), settings).await
    }

    /// The primary's WebSocket is slow to bring what it tells, and quick otherwise.
    pub(super) async fn delaying() -> Self {
        Self::new(DELAYED).await
    }

    pub(super) async fn with(options: Options, settings: &str) -> Self {
        let net = Net::default();
        let options = Options { initial_blocks: 30, now_unix: Some(START_UNIX), ..options };
        let devnet = Devnet::start(options, Arc::new(net.clone())).await.unwrap();
        let mut workers = JoinSet::new();
        if settings.starts_with(DELAYED) {
            workers.spawn(delay(net.clone(), devnet.el(DELAY.0).addr().port()));
            sleep(Duration::from_millis(1)).await;
        }
        let metrics = Arc::new(Metrics::new());
        let (pool, probing) = start_pool(&devnet, &net, settings, &metrics);
        until("the primary serves", async || pool.snapshot().active == Some(NodeId(0))).await;
        if !settings.starts_with(POLLED) {
            until("nodes are listened to", async || devnet.nodes().all(|node| node.subscriptions() == 1)).await;
        }
        let chain = config(&format!("{settings}[[el.primary]]\nname = \"x\"\nhttp = \"http://x\"\n")).chain;
        let (worker_jobs, ways) = WorkerJobs::new(1);
        for mut jobs in ways {
            workers.spawn(async move {
                while let Some(job) = jobs.recv().await {
                    job();
                }
            });
        }
        let wishes = Settings {
            chain,
            timeout: Duration::from_secs(5),
            filters: Filters::default(),
            memory: Budget::new(usize::MAX),
            seed: 1,
            secret: [1; 32],
        };
        let (views, viewing) = Views::start(pool.clone(), &wishes, worker_jobs, metrics.clone());
        let settings = settings.to_owned();
        Self {
            net,
            devnet,
            pool,
            views,
            metrics,
            settings,
            probing: Some(probing),
            running: Some(viewing),
            _workers: workers,
        }
    }

    /// The pool as a reload would build it anew.
    pub(super) async fn another_pool(&self) -> (Arc<Pool>, pool::Running) {
        let (pool, running) = start_pool(&self.devnet, &self.net, &self.settings, &self.metrics);
        until("a node serves", async || pool.snapshot().active.is_some()).await;
        (pool, running)
    }

    pub(super) fn client(&self) -> Client {
        Client { views: self.views.clone(), mailbox: Mailbox::new(16 << 20), held: BTreeMap::new() }
    }

    /// What a node itself answers now.
    pub(super) async fn ask(&self, node: usize, method: &str, params: &Value) -> Value {
        let answer =
            self.pool.ask_in_time(NodeId(node), method, &params.to_string(), 32 << 20, Duration::from_secs(5)).await;
        serde_json::from_slice(&answer.unwrap().unwrap()).unwrap()
    }

    /// How often all nodes together were called.
    pub(super) fn count(&self, method: &str) -> u64 {
        self.devnet.nodes().map(|node| node.count(method)).sum()
    }

    pub(super) fn all_nodes(&self, fault: &Fault) {
        self.devnet.nodes().for_each(|node| node.set_fault(fault.clone()));
    }

    pub(super) fn heal(&self) {
        self.devnet.nodes().for_each(|node| node.clear_faults());
    }

    pub(super) fn shows(&self, line: &str) -> bool {
        String::from_utf8(self.metrics.render(|_| {})).unwrap().lines().any(|shown| shown == line)
    }

    pub(super) async fn active(&self, node: usize) {
        until("calls go to the node", async || self.pool.snapshot().active == Some(NodeId(node))).await;
    }
}

/// A client, as the door has it.
pub(super) struct Client {
    views: Arc<Views>,
    pub(super) mailbox: Arc<Mailbox>,
    held: BTreeMap<String, Subscription>,
}

impl Client {
    pub(super) async fn try_subscribe(&mut self, method: &str, params: &str) -> Result<String, SubscriptionRefusal> {
        let prepared = self.views.prepare(method, Some(params.as_bytes()), &self.mailbox, None).await?;
        let id = prepared.id.to_string();
        self.mailbox.push_answer(id.clone().into());
        self.held.insert(id.clone(), prepared.activate());
        assert_eq!(self.next(), Some(Outbound::Answer(id.clone().into(), None)));
        Ok(id)
    }

    pub(super) async fn subscribe(&mut self, params: &str) -> String {
        self.try_subscribe("eth_subscribe", params).await.unwrap()
    }

    pub(super) fn unsubscribe(&mut self, id: &str) {
        self.held.remove(id).unwrap();
    }

    pub(super) fn next(&self) -> Option<Outbound> {
        match self.mailbox.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => Some(message),
            Poll::Pending => None,
        }
    }

    /// The notifications that have come, each with the subscription's id.
    pub(super) fn notes(&self) -> Vec<(String, Value)> {
        let mut notes = Vec::new();
        while let Some(message) = self.next() {
            let Outbound::Notification(notification) = message else { panic!("{message:?}") };
            let mut text = Vec::new();
            notification.write(&mut text);
            let mut json: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!((&json["jsonrpc"], &json["method"]), (&"2.0".into(), &"eth_subscription".into()));
            assert_eq!(json.as_object().unwrap().len(), 3);
            let id = json["params"]["subscription"].as_str().unwrap().to_owned();
            notes.push((id, json["params"]["result"].take()));
        }
        notes
    }

    /// The same, of the one subscription that the client has.
    pub(super) fn results(&self) -> Vec<Value> {
        let only = self.held.keys().next().unwrap().clone();
        let result = |(id, result)| {
            assert_eq!(id, only);
            result
        };
        self.notes().into_iter().map(result).collect()
    }

    pub(super) fn is_closed(&self, why: Closing) -> bool {
        self.next() == Some(Outbound::Close(why))
    }

    /// Waits until something has come.
    pub(super) async fn some(&self) {
        until("something came", async || self.mailbox.waiting_bytes() > 0).await;
    }
}

pub(super) async fn a_while() {
    sleep(A_WHILE).await;
}

/// Passes connections on to `port`, and what comes back from there later.
async fn delay(net: Net, port: u16) {
    let mut accept = net.bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DELAYED_PORT).into()).await.unwrap();
    let mut connections = JoinSet::new();
    loop {
        let (near, _) = accept.accept().await.unwrap();
        let (mut from_us, mut to_us) = split(near.open().unwrap());
        let (mut from_node, mut to_node) = split(net.connect(port).await.unwrap());
        connections.spawn(async move { _ = copy(&mut from_us, &mut to_node).await });
        let (pieces, mut late) = mpsc::channel(10_000);
        connections.spawn(async move {
            let mut piece = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = from_node.read(&mut piece).await {
                pieces.send((Instant::now() + DELAY.1, piece[..length].to_vec())).await.unwrap();
            }
        });
        connections.spawn(async move {
            while let Some((due, piece)) = late.recv().await {
                sleep_until(due).await;
                if to_us.write_all(&piece).await.is_err() {
                    return;
                }
            }
        });
    }
}
