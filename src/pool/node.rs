//! One node as the pool holds it: how to reach it, and what its traffic tells.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed},
        },
    },
    time::Duration,
};

use futures_util::{FutureExt, future::Shared};
use tokio::{sync::Notify, time::Instant};

use super::{bounds::Bounds, evidence::Evidence, resting::Resting};
use crate::{
    config::{Node as Settings, Tier, Url},
    domain::{conceal::Secrets, method::Method, verdict::Layer},
    metrics::{Metrics, NodeLabels, NodeMetrics},
    net::{
        BoxFuture, Dial, Endpoint,
        http::{Target, Upstream},
        link::{self, Link},
        places::{Occupancy, Places},
        tls::Tls,
    },
};

/// How long a link waits. A silent one is pinged soon, for between blocks there is little to hear.
const WRITE: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(5);
const PONG: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// No moment.
const NONE: u64 = u64::MAX;

/// What runs a link, for whoever holds it: it goes on while one of its clones is awaited.
pub type LinkRun = Shared<BoxFuture<'static, ()>>;

/// How a node may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// Connections open at once, at most, over all workers; 0 for as many as the node takes.
    pub max_connections: usize,
    /// How long a call waits for a connection when all that the node takes are in use, before it goes to another node; `None` where
    /// there is none.
    pub patience: Option<Duration>,
}

/// By as many connections as it takes, each within this time.
impl From<Duration> for Reach {
    fn from(connect: Duration) -> Self {
        Self { connect, max_connections: 0, patience: None }
    }
}

/// A node of a pool. What is in an `Arc` is of the node itself, and shared with the same node of a pool that takes this one's place;
/// everything else is the pool's.
pub struct Node {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Whose turn it is.
    pub tier: Tier,
    /// Its HTTP side; `None` for a node that has only a WebSocket.
    pub upstream: Option<Arc<Upstream>>,
    /// Its WebSocket side, if it has one.
    pub link: Option<Arc<Link>>,
    /// Where its attempts are counted.
    pub metrics: Arc<NodeMetrics>,
    /// What its answers to calls tell.
    pub traffic: Arc<Traffic>,
    /// What it refuses for quota, and for how long it is left alone.
    pub resting: Arc<Resting>,
    /// What it has pruned.
    pub bounds: Arc<Bounds>,
    /// The failures of its calls that other nodes answered.
    pub(super) evidence: Arc<Evidence>,
    /// Set when there is a sign that the chain behind its address may be another now.
    pub(super) recheck: AtomicBool,
    /// The URL without its secrets.
    pub url: String,
    /// The name that it shares with the node of the other layer that it works with.
    pub pair: Option<Arc<str>>,
    /// Rung when the node goes out.
    pub(super) out: Notify,
    /// Whether it is out: set before the bell is rung.
    pub(super) is_out: AtomicBool,
    /// Rung to have it probed now.
    pub(super) poke: Notify,
    /// What runs the link.
    runs: Option<LinkRun>,
    places: Arc<Places>,
    /// The link's, where it has another host or port.
    link_places: Option<Arc<Places>>,
    secrets: Arc<Secrets>,
    settings: Settings,
    reach: Reach,
}

impl Node {
    /// Prepares a node `of` a network and layer for `workers` workers, to be reached as `reach` says; `seed` is for the pauses between
    /// attempts to open the link.
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
        seed: u64,
    ) -> Result<Self, String> {
        let headers: Vec<(String, Vec<u8>)> = settings
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.expose().as_bytes().to_vec()))
            .collect();
        let extra = settings.ca_file.as_ref().map_or(&[][..], |ca| &ca.certificates);
        let reach = reach.into();
        let bound = (reach.max_connections > 0).then_some(reach.max_connections);
        let own_places = Places::new(bound, workers);
        own_places.set_patience(reach.patience);
        let address = |url: &Url| (url.host().clone(), url.port());
        // What listens elsewhere counts for itself.
        let shares = settings.http.as_ref().map(address) == settings.ws.as_ref().map(address);
        let link_places = (!shares && settings.ws.is_some()).then(|| Places::new(bound, workers));
        let target = |url: &Url, headers| -> Result<Target, String> {
            let of_the_link = link_places.as_ref().filter(|_| url.scheme().is_websocket());
            let places = of_the_link.unwrap_or(&own_places).clone();
            let tls = match url.scheme().is_tls() {
                true => Some(Tls::new(url.host(), extra).map_err(|error| error.to_string())?),
                false => None,
            };
            let endpoint = Endpoint { host: url.host().clone(), port: url.port() };
            Ok(Target { endpoint, tls, url: url.clone(), headers, places })
        };
        let labels = NodeLabels { network, layer: layer.as_str(), node: settings.name.as_str() };
        let (mut upstream, mut link, mut runs) = (None, None, None);
        if let Some(url) = &settings.http {
            let basic = url.basic_auth().map(|basic| ("authorization".to_owned(), basic.expose().as_bytes().to_vec()));
            let headers = headers.iter().cloned().chain(basic).collect();
            upstream = Some(Upstream::new(target(url, headers)?, dial.clone(), reach.connect));
        }
        if let Some(url) = &settings.ws {
            let patience =
                link::Timeouts { connect: reach.connect, write: WRITE, ping: PING, pong: PONG, answer: ANSWER };
            // Nodes that are lost together do not come back together.
            let name = [network, layer.as_str(), settings.name.as_str()].concat();
            let seed = name.bytes().fold(seed, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
            let target = target(url, headers.clone())?;
            let (handle, actor) = Link::new(target, dial.clone(), patience, seed, metrics.link(labels));
            let run: BoxFuture<'static, ()> = Box::pin(actor.run());
            (link, runs) = (Some(handle), Some(run.shared()));
        }
        let urls = || settings.http.iter().chain(&settings.ws);
        let secrets = Arc::new(settings.secrets().into_iter().collect());
        let url = urls().next().map(ToString::to_string).unwrap_or_default();
        Ok(Self {
            name: settings.name.as_str().into(),
            tier: settings.tier,
            upstream,
            link,
            runs,
            places: own_places,
            link_places,
            metrics: Arc::new(metrics.node(labels)),
            traffic: Arc::new(Traffic::new()),
            resting: Arc::default(),
            bounds: Arc::default(),
            evidence: Arc::default(),
            recheck: AtomicBool::new(false),
            url,
            pair: settings.pair.as_ref().map(|pair| pair.as_str().into()),
            out: Notify::new(),
            is_out: AtomicBool::new(false),
            poke: Notify::new(),
            secrets,
            settings: settings.clone(),
            reach,
        })
    }

    /// This node for a pool that takes its pool's place, with its connections and what its traffic tells; `None` if `settings` are of
    /// another node, or connections would come about otherwise.
    pub fn again(&self, settings: &Settings, reach: Reach) -> Option<Self> {
        // Tier and pair change nothing in how it is reached; how many connections there may be, and how long a call waits for one,
        // the places know.
        let with = |settings: &Settings| Settings { tier: Tier::Primary, pair: None, ..settings.clone() };
        if with(&self.settings) != with(settings) || self.reach.connect != reach.connect {
            return None;
        }
        Some(Self {
            name: self.name.clone(),
            tier: settings.tier,
            upstream: self.upstream.clone(),
            link: self.link.clone(),
            metrics: self.metrics.clone(),
            traffic: self.traffic.clone(),
            resting: self.resting.clone(),
            bounds: self.bounds.clone(),
            evidence: self.evidence.clone(),
            recheck: AtomicBool::new(false),
            url: self.url.clone(),
            pair: settings.pair.as_ref().map(|pair| pair.as_str().into()),
            out: Notify::new(),
            is_out: AtomicBool::new(false),
            poke: Notify::new(),
            runs: self.runs.clone(),
            places: self.places.clone(),
            link_places: self.link_places.clone(),
            secrets: self.secrets.clone(),
            settings: settings.clone(),
            reach,
        })
    }

    /// Its connections are this pool's from now on.
    pub(super) fn take_over(&self) {
        self.places.set_patience(self.reach.patience);
        self.set_max_connections(self.reach.max_connections);
    }

    /// So many connections may be open to it from now on; 0: as many as it takes.
    pub fn set_max_connections(&self, most: usize) {
        let bound = (most > 0).then_some(most);
        for places in std::iter::once(&self.places).chain(&self.link_places) {
            places.set_bound(bound);
        }
    }

    /// What the operator says of it.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether what is known of `earlier` is known of this node: it is at the same address, as the same client of it.
    pub(super) fn is_same_as(&self, earlier: &Self) -> bool {
        let address = |node: &Settings| (node.http.clone(), node.ws.clone(), node.headers.clone());
        address(&self.settings) == address(&earlier.settings)
    }

    /// What runs the link, to be awaited for as long as the link is wanted; `None` when there is none.
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

    /// Why the link is down, for people and without secrets.
    pub(super) fn why_link_is_down(&self) -> String {
        let why = self.link.as_ref().and_then(|link| link.changes().borrow().why_down.clone());
        why.map_or_else(|| "the link is down".to_owned(), |why| self.redact(&format!("the link is down: {why}")))
    }

    /// What is known of the connections to it.
    pub fn occupancy(&self) -> Occupancy {
        self.places.occupancy()
    }

    /// For how long it has owed answers without sending a byte. What waits for a connection is not owed yet.
    pub fn silence(&self, now: Instant) -> Duration {
        let waiting = self.places.waiting_calls();
        if waiting == 0 {
            return self.traffic.silence(now);
        }
        if self.traffic.in_flight() <= waiting {
            return Duration::ZERO;
        }
        self.traffic.silence(now).min(now.saturating_duration_since(self.places.granted()))
    }

    /// Completes when the node goes out; calls that wait on it and may be repeated then move on.
    pub fn goes_out(&self) -> tokio::sync::futures::Notified<'_> {
        self.out.notified()
    }

    /// Whether the node is out. Asked after [`Node::goes_out`] was called, it leaves no moment in which the news could be missed.
    pub fn is_out(&self) -> bool {
        self.is_out.load(Acquire)
    }

    /// Whether the configuration keeps anything of it secret.
    pub fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// `bytes` without what the configuration keeps secret; `None` if there is nothing of it in them.
    pub fn conceal(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.secrets.conceal(bytes)
    }

    /// `text` for people: short, on one line, and without what the configuration keeps secret.
    pub fn redact(&self, text: &str) -> String {
        let text = match self.secrets.conceal(text.as_bytes()) {
            Some(text) => String::from_utf8_lossy(&text).into_owned(),
            None => text.to_owned(),
        };
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
    }
}

/// What is seen of a node's answers as calls pass, in numbers that cost a call next to nothing.
pub struct Traffic {
    epoch: Instant,
    owed: AtomicUsize,
    /// Milliseconds since `epoch` at which the node last sent a byte, or began to owe an answer.
    quiet_since: AtomicU64,
    /// Milliseconds since `epoch` at which the first of the probes was sent since which the node has sent no byte; [`NONE`] when there is none.
    unheard_since: AtomicU64,
    /// Failed calls in a row, by the method's place in its table, or the group's of a request: a node may be stuck on one and answer all others.
    failures: [AtomicU32; Method::COUNT + 1],
    /// The highest block that an answer of this node showed a client.
    told: AtomicU64,
    /// Whether it still has to be told what all nodes were told while it was not there.
    uninformed: AtomicBool,
}

impl Traffic {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            owed: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            unheard_since: AtomicU64::new(NONE),
            failures: [const { AtomicU32::new(0) }; Method::COUNT + 1],
            told: AtomicU64::new(0),
            uninformed: AtomicBool::new(false),
        }
    }

    /// The node has been told what all nodes were told, or still has to be.
    pub fn inform(&self, informed: bool) {
        self.uninformed.store(!informed, Relaxed);
    }

    /// Whether the node has been told what all nodes were told.
    pub fn is_informed(&self) -> bool {
        !self.uninformed.load(Relaxed)
    }

    /// Calls that wait on the node now.
    pub fn in_flight(&self) -> usize {
        self.owed.load(Relaxed)
    }

    /// The node owes an answer from `now` until the guard is dropped.
    pub fn owes(&self, now: Instant) -> Owed<'_> {
        if self.owed.fetch_add(1, Relaxed) == 0 {
            self.quiet_since.store(self.millis(now), Relaxed);
        }
        Owed(self)
    }

    /// The node sent something.
    pub fn touch(&self, now: Instant) {
        self.quiet_since.store(self.millis(now), Relaxed);
        self.hears();
    }

    /// A probe is sent to the node, which is no load on it and so no answer that it [owes](Self::owes).
    pub(super) fn asks(&self, now: Instant) {
        // The first one counts, until something comes.
        let _ = self.unheard_since.compare_exchange(NONE, self.millis(now), Relaxed, Relaxed);
    }

    /// Something came that we asked for on our own account, or nothing will.
    pub(super) fn hears(&self) {
        if self.unheard_since.load(Relaxed) != NONE {
            self.unheard_since.store(NONE, Relaxed);
        }
    }

    /// For how long the node has sent no byte though it was probed.
    pub(super) fn unheard(&self, now: Instant) -> Duration {
        match self.unheard_since.load(Relaxed) {
            NONE => Duration::ZERO,
            since => Duration::from_millis(self.millis(now).saturating_sub(since)),
        }
    }

    /// For how long the node has owed answers without sending a byte.
    pub fn silence(&self, now: Instant) -> Duration {
        if self.in_flight() == 0 {
            return Duration::ZERO;
        }
        Duration::from_millis(self.millis(now).saturating_sub(self.quiet_since.load(Relaxed)))
    }

    /// A call of the method at `place` was answered as it should be.
    pub fn answered(&self, place: usize) {
        if self.failures[place].load(Relaxed) != 0 {
            self.failures[place].store(0, Relaxed);
        }
    }

    /// A call of the method at `place` failed; returns how many have in a row.
    pub fn failed(&self, place: usize) -> u32 {
        self.failures[place].fetch_add(1, Relaxed).saturating_add(1)
    }

    /// The highest block that this node showed a client; 0 before any.
    pub fn told(&self) -> u64 {
        self.told.load(Relaxed)
    }

    pub(super) fn tell(&self, height: u64) {
        self.told.fetch_max(height, Relaxed);
    }

    /// The node itself says that it is lower now.
    pub(super) fn lower(&self, height: u64) {
        self.told.fetch_min(height, Relaxed);
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

/// An answer that a node owes.
pub struct Owed<'a>(&'a Traffic);

impl Drop for Owed<'_> {
    fn drop(&mut self) {
        self.0.owed.fetch_sub(1, Relaxed);
    }
}
