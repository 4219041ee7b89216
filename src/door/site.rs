//! The networks and rules behind the doors, which a reload replaces as a whole.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use crate::{
    beacon::Requests,
    call::{Calls, outbox_calls::Passed},
    config::{Addresses, Beacon, Compression, HostRule, Origins, Ready, Ws},
    door::access_log::Access,
    events::Events,
    exchange::{
        pick::{NODE_HEADER, Pick, TIER_HEADER},
        trace::MAX_TRACE,
    },
    outbox::Outbox,
    pool::Pool,
    view::Views,
};

/// Headers that are always sent along, to find calls again in the nodes' logs.
const TRACES: [&str; 3] = ["x-request-id", "traceparent", "tracestate"];
/// Bytes of the value of a header that the operator has sent along, at most: credentials may be
/// signed texts.
const MAX_FORWARDED: usize = 4096;

/// A network as clients see networks.
pub struct Served {
    /// The network's name, which is also its path; the default network is at `/`.
    pub name: Arc<str>,
    /// Whether this is the default network.
    pub is_default: bool,
    /// The calls to its execution nodes; `None` if the network has none.
    pub calls: Option<Arc<Calls>>,
    /// The requests to its consensus nodes; `None` if the network has none.
    pub beacon: Option<Arc<Requests>>,
    /// The events of its consensus nodes; `None` if the network has none.
    pub events: Option<Arc<Events>>,
    /// The subscriptions to its execution nodes; `None` if the network has none.
    pub views: Option<Arc<Views>>,
}

impl Served {
    /// The pools of its nodes, execution before consensus.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.calls.iter().map(|calls| calls.pool()).chain(self.beacon.iter().map(|requests| requests.pool()))
    }
}

/// The networks and rules behind the doors.
pub struct Site {
    /// The networks.
    pub networks: Vec<Served>,
    /// The names by which clients may ask.
    pub hosts: HostRule,
    /// The names by which operators may ask.
    pub admin_hosts: HostRule,
    /// The outbox, if there is one.
    pub outbox: Option<Outbox>,
    /// When the proxy as a whole is ready.
    pub ready: Ready,
    /// The web pages that may call and read answers.
    pub origins: Origins,
    /// The rules for requests to the beacon API.
    pub rules: Beacon,
    /// Client headers that are sent along, in lower case, beside those that always are.
    pub forward: Vec<HeaderName>,
    /// Whether callers may pick nodes.
    pub allow_picking: bool,
    /// The header that names the tenant of a call; `None`: no header is looked at.
    pub tenant_header: Option<HeaderName>,
    /// Bytes of a request's body at most.
    pub max_body: usize,
    /// Client connections open at once, at most; WebSockets have a limit of their own.
    pub max_connections: usize,
    /// The addresses from which many clients come.
    pub shared_addresses: Addresses,
    /// How answers are compressed.
    pub compression: Compression,
    /// The rules of the access log.
    pub access: Arc<Access>,
    /// Limits of WebSockets.
    pub ws: Ws,
    /// How long a shutdown waits for calls in flight.
    pub shutdown_grace: Duration,
}

impl Site {
    /// The calls of the network at `path`, if there is one.
    pub fn calls(&self, path: &str) -> Option<&Arc<Calls>> {
        let path = path.split('?').next().unwrap_or(path);
        let path = path.strip_prefix('/')?;
        self.execution(path.strip_suffix('/').unwrap_or(path)).and_then(|network| network.calls.as_ref())
    }

    /// The network whose WebSockets are at `path`, if there is one: at the path of its calls, and
    /// at `ws` below.
    pub fn websockets(&self, path: &str) -> Option<&Served> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let path = if path == "ws" { "" } else { path.strip_suffix("/ws").unwrap_or(path) };
        self.execution(path).filter(|network| network.calls.is_some())
    }

    /// Whether `path` is the path of a network's execution side, also for a network of consensus
    /// nodes alone.
    pub fn is_home(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        self.execution(path.strip_suffix('/').unwrap_or(path)).is_some()
    }

    /// The network of this name.
    pub fn network(&self, name: &str) -> Option<&Served> {
        self.networks.iter().find(|network| *network.name == *name)
    }

    /// The network whose execution side is at `path`, without slashes around the path.
    fn execution(&self, path: &str) -> Option<&Served> {
        match path {
            "" | "el" => self.networks.iter().find(|network| network.is_default),
            _ => {
                let name = path.strip_suffix("/el").unwrap_or(path);
                self.networks.iter().find(|network| !network.is_default && *network.name == *name)
            }
        }
    }

    /// For a path of the beacon API: the network of the path, if there is one of that name, and the
    /// path from `/eth/` on.
    pub fn beacon<'p>(&self, path: &'p str) -> Option<(Option<&Served>, &'p str)> {
        if let Some(path) = beacon_path(path) {
            return Some((self.networks.iter().find(|network| network.is_default), path));
        }
        let path = after_slashes(path);
        let name = path.strip_prefix('/')?.split('/').next()?;
        let path = beacon_path(&path[1 + name.len()..])?;
        Some((self.networks.iter().find(|network| !network.is_default && *network.name == *name), path))
    }

    /// For a path that picks a node, `/node/<name>` below a network's own path: the path without
    /// that part, and the name.
    pub fn picked<'p>(&self, path: &'p str) -> Option<(String, &'p str)> {
        let (before, below) = match path.strip_prefix('/')?.split_once('/')? {
            ("node", below) if self.network("node").is_none() => ("", below),
            (network, below) => {
                let found = self.network(network).filter(|network| !network.is_default)?;
                (&*found.name, below.strip_prefix("node/")?)
            }
        };
        let (name, rest) = below.split_once('/').unwrap_or((below, ""));
        let before = if before.is_empty() { String::new() } else { format!("/{before}") };
        let is_bare = rest.is_empty() && !before.is_empty();
        (self.allow_picking && !name.is_empty())
            .then(|| (if is_bare { before } else { format!("{before}/{rest}") }, name))
    }

    /// Whether a client's header of this name is sent along.
    pub fn forwards(&self, name: &str) -> bool {
        self.longest_forwarded(name).is_some()
    }

    /// Adds a client's header to the `lines` that go along with its calls, if the header is one of
    /// those. Each call of a batch has the lines, so each name goes along once, and a value that is
    /// too long does not.
    pub fn forward(&self, name: &str, value: &[u8], lines: &mut Vec<u8>) {
        let is_there = |lines: &[u8]| {
            let mut names = lines.split(|&b| b == b'\n').filter_map(|line| line.split(|&b| b == b':').next());
            names.any(|other| other.eq_ignore_ascii_case(name.as_bytes()))
        };
        if self.longest_forwarded(name).is_some_and(|longest| value.len() <= longest) && !is_there(lines) {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                lines.extend_from_slice(part);
            }
        }
    }

    /// Whether a header of this name picks nodes.
    pub fn picks_by(&self, name: &HeaderName) -> bool {
        self.allow_picking && (name == NODE_HEADER || name == TIER_HEADER)
    }

    /// Notes a client's header: the line that goes along with calls, the name of the tenant, or the
    /// nodes that the caller picked.
    pub fn pass(&self, name: &str, value: &[u8], passed: &mut Passed) {
        if self.tenant_header.as_ref().is_some_and(|tenant| name.eq_ignore_ascii_case(tenant.as_str())) {
            passed.name_tenant(value);
        } else if !(self.allow_picking && Pick::note(&mut passed.pick, name, value)) {
            self.forward(name, value, &mut passed.lines);
        }
    }

    /// The most bytes of a forwarded header's value; `None` for a header that is not forwarded.
    fn longest_forwarded(&self, name: &str) -> Option<usize> {
        if TRACES.iter().any(|always| name.eq_ignore_ascii_case(always)) {
            return Some(MAX_TRACE);
        }
        self.forward.iter().any(|other| name.eq_ignore_ascii_case(other.as_str())).then_some(MAX_FORWARDED)
    }
}

/// `/eth/v1/…`, also below `/cl`, from `/eth/` on.
///
/// Slashes before `/eth` count as one: a client whose URL ends in a slash may ask for `//eth/…`.
fn beacon_path(path: &str) -> Option<&str> {
    let path = after_slashes(path);
    let path = after_slashes(path.strip_prefix("/cl").unwrap_or(path));
    let version = path.strip_prefix("/eth/v")?.split_once('/')?.0;
    (!version.is_empty() && version.bytes().all(|b| b.is_ascii_digit())).then_some(path)
}

/// The path with one slash in the place of all at its beginning.
fn after_slashes(path: &str) -> &str {
    let more = path.bytes().take_while(|&b| b == b'/').count();
    &path[more.saturating_sub(1)..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Hosts, Log};

    fn site(networks: Vec<Served>, forward: Vec<HeaderName>) -> Site {
        Site {
            networks,
            allow_picking: false,
            outbox: None,
            ready: Ready::Any,
            hosts: Hosts::None.for_clients(&[([127, 0, 0, 1], 8545).into()]),
            admin_hosts: Hosts::None.for_operator(([127, 0, 0, 1], 9545).into()),
            origins: Origins::None,
            rules: Beacon::default(),
            forward,
            tenant_header: None,
            max_body: 0,
            max_connections: 1,
            shared_addresses: Addresses::default(),
            compression: Compression::default(),
            access: Arc::new(Access::new(&Log::default(), None)),
            ws: Ws::default(),
            shutdown_grace: Duration::ZERO,
        }
    }

    #[test]
    fn trace_headers_go_along_and_others_only_if_configured() {
        let forward = vec![HeaderName::from_static("authorization")];
        let site = site(vec![], forward);
        for (name, goes) in [
            ("X-Request-Id", true),
            ("traceparent", true),
            ("tracestate", true),
            ("Authorization", true),
            ("cookie", false),
            ("x-api-key", false),
        ] {
            assert_eq!(site.forwards(name), goes, "{name}");
        }
    }

    #[test]
    fn forwarded_headers_are_bounded_and_sent_once() {
        let site = site(vec![], vec![HeaderName::from_static("authorization")]);
        let mut lines = Vec::new();
        let (id, too_long, token) = ([b'a'; MAX_TRACE], [b'a'; MAX_TRACE + 1], [b't'; MAX_FORWARDED + 1]);
        site.forward("X-Request-Id", &id, &mut lines);
        site.forward("x-request-id", b"another", &mut lines);
        site.forward("traceparent", &too_long, &mut lines);
        site.forward("authorization", &token, &mut lines);
        site.forward("authorization", &token[1..], &mut lines);
        site.forward("cookie", b"a=b", &mut lines);
        let expected = [b"X-Request-Id: ", &id[..], b"\r\nauthorization: ", &token[1..], b"\r\n"].concat();
        assert_eq!(lines, expected);
    }

    fn served(name: &str, is_default: bool) -> Served {
        Served { name: name.into(), is_default, calls: None, beacon: None, events: None, views: None }
    }

    #[test]
    fn a_path_may_pick_a_node_below_its_network() {
        let mut site = site(vec![served("default", true), served("holesky", false)], vec![]);
        assert_eq!(site.picked("/node/geth-1"), None, "not allowed");
        site.allow_picking = true;
        for (path, bare, node) in [
            ("/node/geth-1", "/", "geth-1"),
            ("/node/geth-1/", "/", "geth-1"),
            ("/node/geth-1/ws", "/ws", "geth-1"),
            ("/node/a/eth/v1/node/version", "/eth/v1/node/version", "a"),
            ("/holesky/node/geth-2", "/holesky", "geth-2"),
            ("/holesky/node/lh/eth/v1/x", "/holesky/eth/v1/x", "lh"),
        ] {
            assert_eq!(site.picked(path), Some((bare.to_owned(), node)), "{path}");
        }
        for path in
            ["/", "/node", "/node/", "/eth/v1/node/version", "/sepolia/node/a", "/default/node/a", "/holesky/el"]
        {
            assert_eq!(site.picked(path), None, "{path}");
        }
        site.networks.push(served("node", false));
        assert_eq!(site.picked("/node/el"), None, "a network of this name");
        assert_eq!(site.picked("/node/node/a"), Some(("/node".to_owned(), "a")));
    }

    #[test]
    fn paths_of_the_beacon_api_are_told_from_others() {
        let site = site(vec![served("default", true), served("holesky", false)], vec![]);
        let found = |path| site.beacon(path).map(|(network, path)| (network.map(|network| &*network.name), path));
        for (path, network, below) in [
            ("/eth/v1/node/version", Some("default"), "/eth/v1/node/version"),
            ("/cl/eth/v4/x", Some("default"), "/eth/v4/x"),
            ("/holesky/eth/v1/x", Some("holesky"), "/eth/v1/x"),
            ("/holesky/cl/eth/v12/", Some("holesky"), "/eth/v12/"),
            ("//eth/v1/node/version", Some("default"), "/eth/v1/node/version"),
            ("/cl//eth/v4/x", Some("default"), "/eth/v4/x"),
            ("//holesky///eth/v1//x", Some("holesky"), "/eth/v1//x"),
            ("/unknown/eth/v1/x", None, "/eth/v1/x"),
            ("/default/eth/v1/x", None, "/eth/v1/x"),
        ] {
            assert_eq!(found(path), Some((network, below)), "{path}");
        }
        for path in [
            "/",
            "/eth",
            "/eth/v1",
            "/eth/v/x",
            "/eth/vx/x",
            "/cl",
            "/cl/metrics",
            "/holesky",
            "/a/b/eth/v1/x",
            "//",
            "",
        ] {
            assert_eq!(found(path), None, "{path}");
        }
    }
}
