//! A node of a pool: how to reach the node, and the handles of all state about the node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Acquire},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::Shared};
use tokio::{sync::Notify, time::Instant};

use super::{
    block_range::BlockRange,
    bounds::Bounds,
    credits::{Account, Credits},
    evidence::Evidence,
    lazy::Needed,
    missing_methods::{MethodRules, MissingMethods},
    paid::afford,
    resting::Resting,
    shared_finding::SharedFinding,
    traffic::Traffic,
};
use crate::{
    config::{DEFAULT_WEIGHT, Node as Settings, Probing, Tier, Url},
    domain::{layer::Layer, redact::Secrets},
    metrics::{Metrics, NodeLabels, NodeMetrics, Payer},
    net::{
        BoxFuture, Dial, Endpoint,
        http::{Target, Upstream},
        link::{self, Feed, Link, News, Route, SubscribeError},
        node_connections::{NodeConnections, Occupancy, Rank},
        tls::Tls,
    },
};

/// How long a link waits. A silent one is pinged soon, for between blocks there is little to hear.
const WRITE: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(5);
const PONG: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// The task of a link. The link runs while a clone of this is awaited.
pub type LinkRun = Shared<BoxFuture<'static, ()>>;

/// How a node may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// Connections open at once, at most, over all workers; 0 for as many as the node takes.
    pub max_connections: usize,
    /// How long a call waits for a connection when all connections that the node takes are in use,
    /// before the call goes to another node; `None`: there is no other node.
    pub wait_limit: Option<Duration>,
}

/// Without a limit on connections, each opened within this time.
impl From<Duration> for Reach {
    fn from(connect: Duration) -> Self {
        Self { connect, max_connections: 0, wait_limit: None }
    }
}

/// A node of a pool. Fields in an `Arc` belong to the node itself, and are shared with the same
/// node of a pool that takes this pool's place; all other fields belong to the pool.
pub struct Node {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// Primary or backup.
    pub tier: Tier,
    /// The node's part of the calls where they are divided by weight.
    pub weight: u32,
    /// The HTTP side; `None` for a node that has only a link.
    pub upstream: Option<Arc<Upstream>>,
    /// The WebSocket or the IPC socket, if there is one.
    pub link: Option<Arc<Link>>,
    /// Counts its attempts.
    pub metrics: Arc<NodeMetrics>,
    /// Counters that calls and probes keep.
    pub traffic: Arc<Traffic>,
    /// The methods that the node refuses for quota, and how long calls of each pass the node over.
    pub resting: Arc<Resting>,
    /// The credits that may be spent at the node; `None` for any number.
    pub credits: Option<Credits>,
    /// The facts that nodes of one account share.
    account: Arc<Account>,
    /// The slots that the node has pruned.
    pub bounds: Arc<Bounds>,
    /// The methods for which the settings let calls go to the node.
    pub method_rules: MethodRules,
    /// The methods that the node lacks, by its own word.
    pub missing_methods: Arc<MissingMethods>,
    /// The oldest blocks of which the node has data.
    pub block_range: Arc<BlockRange>,
    /// The failures of its calls that other nodes answered.
    pub(super) evidence: Arc<Evidence>,
    /// Findings that pools of this node share.
    pub(super) word: Arc<SharedFinding>,
    /// Set when another chain may be behind the address now.
    pub(super) recheck: AtomicBool,
    /// The URL without its secrets, or the IPC socket.
    pub url: String,
    /// The pair's name, which the node shares with a node of the other layer.
    pub pair: Option<Arc<str>>,
    /// Notified when the node goes out.
    pub(super) out: Notify,
    /// Whether `Verdict::answers` of the node has become false, and not true again since: set
    /// before `out` is notified.
    pub(super) is_out: AtomicBool,
    /// Notified to have the node probed now.
    pub(super) probe_now: Notify,
    /// When a call last needed the node, if it is probed lazily.
    pub(super) needed: Needed,
    /// The link's task.
    runs: Option<LinkRun>,
    connections: Arc<NodeConnections>,
    /// The connections of the link, if it has another host or port.
    link_connections: Option<Arc<NodeConnections>>,
    pub(super) secrets: Arc<Secrets>,
    settings: Settings,
    reach: Reach,
}

impl Node {
    /// Prepares a node `of` a network and layer for `workers` workers, to be reached as `reach`
    /// says, as one of the nodes of `account`.
    ///
    /// # Errors
    /// When its TLS cannot be set up; the text names no secret.
    pub fn new(
        settings: &Settings,
        (network, layer): (&str, Layer),
        dial: &Arc<dyn Dial>,
        reach: impl Into<Reach>,
        workers: usize,
        metrics: &Arc<Metrics>,
        account: &Arc<Account>,
    ) -> Result<Self, String> {
        let headers: Vec<(String, Vec<u8>)> = settings
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.expose().as_bytes().to_vec()))
            .collect();
        let extra = settings.ca_file.as_ref().map_or(&[][..], |ca| &ca.certificates);
        let reach = reach.into();
        let bound = (reach.max_connections > 0).then_some(reach.max_connections);
        let own_connections = NodeConnections::new(bound, workers);
        own_connections.set_wait_limit(reach.wait_limit);
        // A server at another address has a bound of its own.
        let shares = settings.has_link_beside_requests();
        let has_link = settings.ws.is_some() || settings.ipc.is_some();
        let link_connections = (!shares && has_link).then(|| NodeConnections::new(bound, workers));
        let target = |url: &Url, headers| -> Result<Target, String> {
            let of_the_link = link_connections.as_ref().filter(|_| url.scheme().is_websocket());
            let connections = of_the_link.unwrap_or(&own_connections).clone();
            let tls = match url.scheme().is_tls() {
                true => Some(Tls::new(url.host(), extra).map_err(|error| error.to_string())?),
                false => None,
            };
            let address = settings.address.map(|address| address.to_string().into());
            let endpoint = Endpoint::Tcp { host: address.unwrap_or_else(|| url.host().clone()), port: url.port() };
            Ok(Target { endpoint, tls, url: url.clone(), headers, connections })
        };
        let labels = NodeLabels { network, layer: layer.as_str(), node: settings.name.as_str() };
        let (mut upstream, mut link, mut runs) = (None, None, None);
        if let Some(url) = &settings.http {
            let basic = url.basic_auth().map(|basic| ("authorization".to_owned(), basic.expose().as_bytes().to_vec()));
            let headers = headers.iter().cloned().chain(basic).collect();
            upstream = Some(Upstream::new(target(url, headers)?, dial.clone(), reach.connect));
        }
        let route = match (&settings.ws, &settings.ipc) {
            (Some(url), _) => Some(Route::WebSocket(target(url, headers.clone())?)),
            (None, Some(path)) => {
                let connections = link_connections.as_ref().unwrap_or(&own_connections).clone();
                Some(Route::Ipc { path: path.clone(), connections })
            }
            (None, None) => None,
        };
        if let Some(route) = route {
            let time_limit =
                link::Timeouts { connect: reach.connect, write: WRITE, ping: PING, pong: PONG, answer: ANSWER };
            // Nodes that are lost together do not come back together.
            let name = [network, layer.as_str(), settings.name.as_str()].concat();
            let seed = name.bytes().fold(account.seed, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
            let (handle, actor) = Link::new(route, dial.clone(), time_limit, seed, metrics.link(labels));
            let run: BoxFuture<'static, ()> = Box::pin(actor.run());
            (link, runs) = (Some(handle), Some(run.shared()));
        }
        let secrets = Arc::new(settings.secrets().into_iter().collect());
        Ok(Self {
            name: settings.name.as_str().into(),
            tier: settings.tier,
            weight: settings.weight.get(),
            upstream,
            link,
            runs,
            connections: own_connections,
            link_connections,
            metrics: Arc::new(metrics.node(labels)),
            traffic: Arc::new(Traffic::new()),
            resting: Arc::new(Resting::beside(account.rests.clone())),
            credits: credits(settings, account, metrics, labels),
            account: account.clone(),
            bounds: Arc::default(),
            method_rules: MethodRules::new(settings),
            missing_methods: Arc::default(),
            block_range: Arc::default(),
            evidence: Arc::default(),
            word: Arc::default(),
            recheck: AtomicBool::new(false),
            url: settings.shown_address(),
            pair: settings.pair.as_ref().map(|pair| pair.as_str().into()),
            out: Notify::new(),
            is_out: AtomicBool::new(false),
            probe_now: Notify::new(),
            needed: Needed::default(),
            secrets,
            settings: settings.clone(),
            reach,
        })
    }

    /// This node for the pool that replaces its own, with its connections and the counters of its
    /// traffic. `None` if `settings` are of another node, or connections would be opened in another
    /// way. `account` is as for [`Node::new`].
    pub fn again(
        &self,
        (network, layer): (&str, Layer),
        settings: &Settings,
        reach: Reach,
        metrics: &Metrics,
        account: &Arc<Account>,
    ) -> Option<Self> {
        // Tier, pair, weight, methods and budget do not affect the connections; their number, and
        // the time that a call waits for one, are stored there.
        let with = |settings: &Settings| Settings {
            tier: Tier::Primary,
            pair: None,
            weight: DEFAULT_WEIGHT,
            methods: Vec::new(),
            not_methods: Vec::new(),
            account: None,
            budget: None,
            probing: Probing::Steady,
            probe_interval: None,
            ..settings.clone()
        };
        if with(&self.settings) != with(settings) || self.reach.connect != reach.connect {
            return None;
        }
        let stays = Arc::ptr_eq(&self.account, account);
        let labels = NodeLabels { network, layer: layer.as_str(), node: settings.name.as_str() };
        Some(Self {
            name: self.name.clone(),
            tier: settings.tier,
            weight: settings.weight.get(),
            upstream: self.upstream.clone(),
            link: self.link.clone(),
            metrics: self.metrics.clone(),
            traffic: self.traffic.clone(),
            resting: if stays { self.resting.clone() } else { Arc::new(Resting::beside(account.rests.clone())) },
            credits: credits(settings, account, metrics, labels),
            account: account.clone(),
            bounds: self.bounds.clone(),
            method_rules: MethodRules::new(settings),
            missing_methods: self.missing_methods.clone(),
            block_range: self.block_range.clone(),
            evidence: self.evidence.clone(),
            word: self.word.clone(),
            recheck: AtomicBool::new(false),
            url: self.url.clone(),
            pair: settings.pair.as_ref().map(|pair| pair.as_str().into()),
            out: Notify::new(),
            is_out: AtomicBool::new(false),
            probe_now: Notify::new(),
            needed: Needed::default(),
            runs: self.runs.clone(),
            connections: self.connections.clone(),
            link_connections: self.link_connections.clone(),
            secrets: self.secrets.clone(),
            settings: settings.clone(),
            reach,
        })
    }

    /// The credits that a call of `method` costs; 0 where the node has no budget.
    pub fn cost(&self, method: &str) -> u32 {
        self.credits.as_ref().map_or(0, |credits| credits.cost(method))
    }

    /// When the node may have credits for a call of `method`; `None` if there are enough now.
    pub fn credits_wait(&self, method: &str, now: Instant) -> Option<Instant> {
        self.credits.as_ref().and_then(|credits| credits.wait(credits.cost(method), Payer::Call, now))
    }

    /// Whether calls are to pass the node over as a whole, after refusals for quota, or for want of
    /// credits until the end of the day.
    pub fn is_resting(&self, now: Instant) -> bool {
        self.resting.is_whole(now) || self.credits.as_ref().is_some_and(|credits| credits.is_day_spent(now))
    }

    /// Makes the node's connections follow this pool's settings from now on.
    pub(super) fn take_over(&self) {
        self.connections.set_wait_limit(self.reach.wait_limit);
        self.set_max_connections(self.reach.max_connections);
    }

    /// Limits the connections to the node from now on; 0: as many as the node takes.
    pub fn set_max_connections(&self, most: usize) {
        let bound = (most > 0).then_some(most);
        for connections in std::iter::once(&self.connections).chain(&self.link_connections) {
            connections.set_bound(bound);
        }
    }

    /// The operator's settings for the node.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether knowledge about `earlier` applies to this node: the two have the same addresses and
    /// headers.
    pub fn is_same_as(&self, earlier: &Self) -> bool {
        let address = |node: &Settings| {
            (node.http.clone(), node.ws.clone(), node.ipc.clone(), node.address, node.headers.clone())
        };
        address(&self.settings) == address(&earlier.settings)
    }

    /// The link's task, to be awaited for as long as the link is wanted; `None` when there is no
    /// link.
    pub fn link_run(&self) -> Option<LinkRun> {
        self.runs.clone()
    }

    /// Completes when the link is up, if there is one.
    ///
    /// # Errors
    /// When an attempt to connect has failed; the text names no secret.
    pub async fn linked(&self) -> Result<(), String> {
        let Some(link) = &self.link else { return Ok(()) };
        let mut status = link.changes();
        let is_up = status.borrow_and_update().up || (status.changed().await.is_ok() && link.is_up());
        if is_up { Ok(()) } else { Err(self.why_link_is_down()) }
    }

    /// Asks over the node's `link` for a subscription.
    ///
    /// # Errors
    /// As [`Link::subscribe`]; nothing is sent where there are not enough credits.
    pub async fn subscribe(&self, link: &Link, method: &str, params: Bytes) -> Result<Feed, SubscribeError> {
        let is_paid = match (&self.credits, afford(self, method).await) {
            (Some(credits), Ok(cost)) => credits.take(cost, Payer::Own, Instant::now()).is_ok(),
            (None, _) => true,
            (Some(_), Err(_)) => false,
        };
        if is_paid { link.subscribe(method, params).await } else { Err(SubscribeError::Link(link::Error::NotSent)) }
    }

    /// Spends the credits of news of a subscription, which cannot be refused any more: a
    /// notification, or that the link has asked again on a new connection.
    pub fn pay_for(&self, news: &News) {
        let method = match news {
            News::Event(_) => "eth_subscription",
            News::Back => "eth_subscribe",
            News::Lost | News::Refused(_) => return,
        };
        if let Some(credits) = &self.credits {
            credits.take_anyway(method, Instant::now());
        }
    }

    /// The kind of the link, for people.
    pub(super) fn link_name(&self) -> &'static str {
        if self.settings.ws.is_none() && self.settings.ipc.is_some() { "IPC connection" } else { "WebSocket" }
    }

    /// Why the link is down, for people and without secrets.
    pub(super) fn why_link_is_down(&self) -> String {
        let why = self.link.as_ref().and_then(|link| link.changes().borrow().why_down.clone());
        why.map_or_else(|| "the link is down".to_owned(), |why| self.redact_text(&format!("the link is down: {why}")))
    }

    /// The number of connections to the node, and of requests that wait for one.
    pub fn occupancy(&self) -> Occupancy {
        self.connections.occupancy()
    }

    /// For how long the node has owed answers without sending a byte. A call that waits for a
    /// connection is not owed an answer yet.
    pub fn silence(&self, now: Instant) -> Duration {
        let waiting = self.connections.waiting_calls();
        if waiting == 0 {
            return self.traffic.silence(now);
        }
        if self.traffic.in_flight() <= waiting {
            return Duration::ZERO;
        }
        self.traffic.silence(now).min(now.saturating_duration_since(self.connections.granted()))
    }

    /// For how long the node has sent no byte since a probe was sent. A probe that waits for a
    /// connection is not owed an answer yet.
    pub fn probe_silence(&self, now: Instant) -> Duration {
        let silence = self.traffic.probe_silence(now);
        if silence.is_zero() || self.keeps_probes_waiting() { Duration::ZERO } else { silence }
    }

    /// The length of the line of calls that wait for a connection, measured by their connections.
    pub fn line(&self) -> usize {
        self.connections.line()
    }

    /// Whether the node has a connection for no probe, though one is under way.
    pub(super) fn keeps_probes_waiting(&self) -> bool {
        self.upstream.is_some() && self.connections.uses(Rank::Probe) == 0
    }

    /// Whether a question of our own waits for a connection to the node, other than a probe.
    pub fn keeps_own_waiting(&self) -> bool {
        self.connections.keeps_own_waiting()
    }

    /// Completes when the node goes out; calls that wait for the node and may be repeated then move
    /// on.
    pub fn goes_out(&self) -> tokio::sync::futures::Notified<'_> {
        self.out.notified()
    }

    /// Whether requests of clients wait for a connection to the node.
    pub fn keeps_calls_waiting(&self) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| upstream.connections().waiting_calls() > 0)
    }

    /// Whether the node is out. Call [`Node::goes_out`] first: then a node that goes out between
    /// the two calls is not missed.
    pub fn is_out(&self) -> bool {
        self.is_out.load(Acquire)
    }
}

/// The credits of a node with these settings.
fn credits(settings: &Settings, account: &Arc<Account>, metrics: &Metrics, of: NodeLabels<'_>) -> Option<Credits> {
    let budget = settings.budget.clone()?;
    Some(Credits::new(budget, account.clone(), metrics.credits(of)))
}
