//! Groups of servers in the files of general proxies, which do not know Ethereum.

use super::import::{Import, Node, clean, host};
use crate::domain::layer::Layer;

/// Servers that take turns, such as an `upstream` or a `backend`.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) servers: Vec<Server>,
    /// Headers that the proxy sets, for every server.
    pub(super) headers: Vec<(String, String)>,
    /// The path before which the proxy listens, where it has one.
    pub(super) location: Option<String>,
    /// The path at the servers.
    pub(super) path: String,
    /// Whether the group is for WebSockets and nothing else.
    pub(super) is_ws: bool,
    pub(super) is_tls: bool,
}

/// A server of a group.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) line: usize,
    pub(super) name: Option<String>,
    /// Host, and port if there is one.
    pub(super) address: String,
    /// Whether each address of the host is a node.
    pub(super) is_resolved: bool,
    pub(super) is_backup: bool,
    pub(super) is_tls: bool,
    pub(super) max_connections: Option<u64>,
}

/// Servers of all groups, at most: a group may be written once, and be used many times.
pub(super) const MAX_SERVERS: usize = 100_000;
/// Stands for the `$` of a variable of the environment, which is one here too.
pub(super) const VARIABLE: char = '\u{e000}';

/// Ports on which consensus clients have the beacon API by default, and execution clients
/// WebSockets.
const BEACON_PORTS: [&str; 5] = ["5052", "3500", "5051", "9596", "4000"];
const WS_PORT: &str = "8546";
const BEACON_WORDS: [&str; 9] =
    ["beacon", "consensus", "lighthouse", "prysm", "teku", "nimbus", "lodestar", "grandine", "cl"];
/// Paths at which this proxy has its own doors.
const OWN_PATHS: [&str; 8] = ["", "el", "cl", "ws", "rpc", "eth", "health", "el/ws"];

impl Group {
    fn words(&self) -> impl Iterator<Item = String> + '_ {
        let text = format!("{}/{}", self.name, self.location.as_deref().unwrap_or_default()).to_ascii_lowercase();
        let words: Vec<String> = text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_owned).collect();
        words.into_iter()
    }

    fn ports(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().filter_map(|server| server.address.rsplit_once(':').map(|(_, port)| port))
    }

    /// The side, by names, paths and ports.
    fn layer(&self) -> Layer {
        let by_path = self.location.as_deref().is_some_and(|path| path.trim_matches('/').starts_with("eth"));
        let by_words = self.words().any(|word| BEACON_WORDS.contains(&&*word));
        let by_ports = self.ports().count() > 0 && self.ports().all(|port| BEACON_PORTS.contains(&port));
        if by_path || by_words || by_ports { Layer::Cl } else { Layer::El }
    }

    fn is_for_sockets(&self) -> bool {
        let by_ports = self.ports().count() > 0 && self.ports().all(|port| port == WS_PORT);
        self.is_ws || by_ports || self.words().any(|word| matches!(&*word, "ws" | "wss" | "websocket" | "websockets"))
    }

    /// The chain's path, such as `base` of `/base/` or `/base/ws`; `None` for the paths that this
    /// proxy has itself.
    fn network(&self) -> Option<String> {
        let path = self.location.as_deref()?.trim_matches('/');
        if OWN_PATHS.contains(&path) || path.starts_with("eth/") {
            return None;
        }
        let first = path.split('/').next().filter(|first| !OWN_PATHS.contains(first))?;
        Some(clean(&first.to_ascii_lowercase()))
    }

    fn url(&self, server: &Server, is_ws: bool) -> String {
        let scheme = match (is_ws, self.is_tls || server.is_tls) {
            (false, false) => "http",
            (false, true) => "https",
            (true, false) => "ws",
            (true, true) => "wss",
        };
        let dns = if server.is_resolved { "dns+" } else { "" };
        escaped(&format!("{dns}{scheme}://{}{}", server.address, self.path))
    }
}

impl Server {
    /// Whether the server has a name, which may have several addresses.
    pub(super) fn has_name(&self) -> bool {
        host(&self.address).trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_err()
    }
}

/// The text as a file here has it, where a dollar begins a variable.
fn escaped(text: &str) -> String {
    text.replace("${", "$${").replace(VARIABLE, "$")
}

/// Makes nodes of the servers. Groups for calls come first, since those for WebSockets belong to
/// their nodes; `word` is the word for a server's line.
pub(super) fn add_all(groups: &[Group], word: &str, import: &mut Import) {
    let mut first_of_calls: Option<String> = None;
    let network_of = |group: &Group, first: &mut Option<String>| {
        group.network().unwrap_or_else(|| {
            // Groups without a path of their own: the first one is for the default chain.
            let is_first = first.get_or_insert_with(|| group.name.clone()) == &group.name;
            let is_apart = group.location.is_none() && !is_first && group.layer() == Layer::El;
            if is_apart { clean(&group.name.to_ascii_lowercase()).replace('.', "-") } else { String::new() }
        })
    };
    for group in groups.iter().filter(|group| group.layer() == Layer::Cl || !group.is_for_sockets()) {
        let layer = group.layer();
        let network = if layer == Layer::El {
            network_of(group, &mut first_of_calls)
        } else {
            group.network().unwrap_or_default()
        };
        for server in &group.servers {
            add(group, server, layer, false, &network, word, import);
        }
    }
    for group in groups.iter().filter(|group| group.layer() == Layer::El && group.is_for_sockets()) {
        let network = group.network().unwrap_or_default();
        for server in &group.servers {
            let url = group.url(server, true);
            match import.add_ws(&network, &url) {
                Some(node) => {
                    let fate = super::import::Fate::Became(format!("ws of {node}"));
                    import.note(server.line, format!("{word} of {}", group.name), fate);
                }
                None => add(group, server, Layer::El, true, &network, word, import),
            }
        }
    }
}

fn add(group: &Group, server: &Server, layer: Layer, is_ws: bool, network: &str, word: &str, import: &mut Import) {
    let name = server.name.clone().unwrap_or_else(|| host(&server.address).to_owned());
    let mut node = Node::new(layer, server.is_backup, &name, group.url(server, is_ws));
    node.headers = group.headers.iter().map(|(name, value)| (name.clone(), escaped(value))).collect();
    node.max_connections = server.max_connections;
    import.add(server.line, format!("{word} of {}", group.name), network, node);
}
