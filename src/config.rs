//! Settings of an operator, checked as a whole before anything starts.
//!
//! The file is TOML; `docs/CONFIG.md` describes every key. A [`Config`] that exists is right: its
//! fields have types that rule out forbidden values, or were checked against each other. All
//! mistakes are reported at once, by [`Errors`], with the place of each and never with a value,
//! since any value may be a secret.
//!
//! Each section lives in a file of its own, with its defaults and its rules. Nothing here dials,
//! listens or resolves a name.

mod addresses;
mod beacon;
mod budget;
mod ca_file;
mod call_rules;
mod calls;
mod chain;
mod cluster;
mod compression;
mod difference;
mod dns;
mod file;
mod filters;
mod flags;
mod form;
mod header;
mod health;
mod hosts;
mod interpolate;
mod listen;
mod log;
mod method_pattern;
mod name;
mod network;
mod node;
mod origin;
mod outbox;
mod problem;
mod reader;
mod reading;
mod root;
mod schema;
mod secret;
mod suggest;
#[cfg(test)]
mod tests;
mod tracing;
mod units;
mod url;
mod ws;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::Path,
    time::Duration,
};

use self::root::read;
use crate::domain::address::Address;

pub use self::{
    addresses::Addresses,
    beacon::{Beacon, PathPattern, PublishTo},
    budget::{Budget, Rate},
    ca_file::CaFile,
    call_rules::{CallRule, Patience},
    calls::{Calls, Policy, SendTo, Verify},
    chain::{Chain, TrustBloom},
    cluster::{Cluster, Hook, NatsUrl},
    compression::{Coding, Compression},
    difference::{Change, Difference, NodeChange, Setting},
    dns::Addresses as DnsAddresses,
    filters::Filters,
    flags::Flags,
    header::names_a_credential,
    health::{Health, Ready},
    hosts::{HostRule, Hosts},
    log::{Log, LogFilter, LogFormat},
    method_pattern::{MethodPattern, MethodRule},
    name::{NetworkName, NodeName},
    network::Network,
    node::{DEFAULT_WEIGHT, Node, Probing, Tier},
    origin::{Cors, Origin, Origins},
    outbox::{Ack, Outbox, SigningKey, TenantRules, Webhook},
    problem::{Errors, Invalid, Problem},
    schema::schema,
    secret::Secret,
    tracing::Tracing,
    units::duration,
    url::{Scheme, Url},
    ws::Ws,
};

/// All settings of one running proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect, at least at one address. Port 0: a free one.
    pub listen: Vec<Address>,
    /// The names by which clients may ask for the proxy.
    pub hosts: Hosts,
    /// Threads that serve; `None`: as many as the machine has cores.
    pub workers: Option<NonZeroUsize>,
    /// Client connections open at once, at most.
    pub max_connections: NonZeroUsize,
    /// From where many clients come.
    pub shared_addresses: Addresses,
    /// Bytes that clients together make the proxy hold, at most; `None`: a quarter of the memory
    /// that there is.
    pub max_client_memory: Option<usize>,
    /// Whether the settings are read anew when their file has changed.
    pub reload_on_change: bool,
    /// The operator's side.
    pub admin: Admin,
    /// How long a shutdown waits for calls in flight.
    pub shutdown_grace: Duration,
    /// How nodes are probed.
    pub health: Health,
    /// Deadlines, retries and limits of calls.
    pub calls: Calls,
    /// How much of the chain is kept in mind for subscribers.
    pub chain: Chain,
    /// Limits of the filters that clients poll.
    pub filters: Filters,
    /// Which web pages may read answers.
    pub cors: Cors,
    /// How answers over HTTP are compressed.
    pub compression: Compression,
    /// Limits of clients' WebSocket connections.
    pub ws: Ws,
    /// Which requests to the beacon API are passed on.
    pub beacon: Beacon,
    /// The networks: the default one first if there is one, then the others by name. At least one,
    /// each with at least one node.
    pub networks: Vec<Network>,
    /// The levels that are logged, and the form.
    pub log: Log,
    /// The collector of spans, and the requests that have spans.
    pub tracing: Tracing,
    /// How accepted transactions are kept and followed; `None`: they are not.
    pub outbox: Option<Outbox>,
    /// The replicas with which this proxy agrees; `None`: the proxy is alone.
    pub cluster: Option<Cluster>,
}

/// `[admin]`: the operator's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where metrics, status and the switches for nodes are. Port 0: a free one.
    pub listen: SocketAddr,
    /// The names by which operators may ask for the proxy.
    pub hosts: Hosts,
}

const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8545);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9545);
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);

/// The commented configuration that `steadfast init` writes. A setting behind a `#` without a space
/// has its default.
pub fn example() -> &'static str {
    include_str!("config/example.toml")
}

/// Looks up a variable in the process's environment: the `env` of everyday use. A value that is not
/// UTF-8 counts as not set.
pub fn process_env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Config {
    /// Reads the file at `path`; `flags` may override its addresses. Relative paths in the file
    /// start at the file's folder.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(path: &Path, flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Errors> {
        let fail = |problems| Errors { file: Some(path.to_owned()), problems };
        let whole = |line, message| fail(vec![Problem { path: String::new(), line, message }]);
        let bytes = file::read(path).map_err(|error| whole(None, error))?;
        let text = std::str::from_utf8(&bytes).map_err(|error| {
            let before = &bytes[..error.valid_up_to()];
            whole(Some(1 + before.iter().filter(|b| **b == b'\n').count()), "is not UTF-8".into())
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        read(Some(text), folder, flags, env).map_err(fail)
    }

    /// [`Config::load`] while the proxy runs: the file must be a regular one. A pipe was read at
    /// the start, and has no more to tell.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_again(path: &Path, flags: &Flags, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Errors> {
        let fail = |message| Problem { path: String::new(), line: None, message };
        file::check(path).map_err(|why| Errors { file: Some(path.to_owned()), problems: vec![fail(why)] })?;
        Self::load(path, flags, env)
    }

    /// Reads the text of a file. Relative paths in the text start at the working directory.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Errors> {
        let config = read(Some(text), Path::new(""), &Flags::default(), env);
        config.map_err(|problems| Errors { file: None, problems })
    }

    /// Takes nodes and addresses from the flags, and defaults for everything else.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn from_flags(flags: &Flags) -> Result<Self, Errors> {
        let config = read(None, Path::new(""), flags, &|_| None);
        config.map_err(|problems| Errors { file: None, problems })
    }

    /// The settings that differ in `new` and that a reload cannot apply, by their keys.
    pub fn changes_needing_restart(&self, new: &Self) -> Vec<&'static str> {
        // Without `..`: a new setting does not compile until its author decides here.
        let Self {
            listen,
            workers,
            hosts: _,
            shared_addresses: _,
            reload_on_change: _,
            admin: Admin { listen: admin_listen, hosts: _ },
            max_connections: _,
            max_client_memory: _,
            shutdown_grace: _,
            health: _,
            calls: _,
            chain,
            filters: _,
            cors: _,
            compression: _,
            ws: _,
            beacon: _,
            networks: _,
            // The door has the access log, which a reload may switch on and off.
            log: Log { format, filter, access: _, trusted_proxies: _ },
            tracing: Tracing { endpoint, headers, sample: _ },
            outbox,
            cluster,
        } = self;
        let changes = [
            ("listen", *listen != new.listen),
            ("admin.listen", *admin_listen != new.admin.listen),
            ("workers", *workers != new.workers),
            ("chain", *chain != new.chain),
            ("log.format", *format != new.log.format),
            ("log.filter", *filter != new.log.filter),
            ("tracing.endpoint", *endpoint != new.tracing.endpoint),
            ("tracing.headers", *headers != new.tracing.headers),
        ];
        let outbox = match (outbox, &new.outbox) {
            (Some(old), Some(new)) => old.changes_needing_restart(new),
            (None, None) => Vec::new(),
            _ => vec!["outbox"],
        };
        let cluster = match (cluster, &new.cluster) {
            (Some(old), Some(new)) => old.changes_needing_restart(new),
            (None, None) => Vec::new(),
            _ => vec!["cluster"],
        };
        let changes = changes.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key);
        changes.chain(outbox).chain(cluster).collect()
    }
}
