//! Settings that the command line gives instead of a file, or on top of one.

use super::{
    dns,
    name::NetworkName,
    network::{Network, all_different},
    node::{DEFAULT_WEIGHT, Node, Probing, Tier, http_url},
    problem::Invalid,
    reading::Reading,
    url::Url,
};
use crate::domain::layer::Layer;

/// Flags of `steadfast run`, as typed. No `Debug`: the URLs may hold keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--el`: each value the `http(s)` URL, the `ws(s)` URL, or both with a comma between, of one
    /// primary execution node.
    pub el: Vec<String>,
    /// `--el-backup`: likewise, backups.
    pub el_backup: Vec<String>,
    /// `--cl`: each value the URL of one primary consensus node.
    pub cl: Vec<String>,
    /// `--cl-backup`: likewise, backups.
    pub cl_backup: Vec<String>,
    /// `--listen`: IP address and port for clients, or a Unix socket.
    pub listen: Option<String>,
    /// `--admin-listen`: IP address and port for the operator.
    pub admin_listen: Option<String>,
}

impl Flags {
    /// Records that nodes come from one place only.
    pub(super) fn check_beside_a_file(&self, reading: &Reading<'_>) {
        let Self { el, el_backup, cl, cl_backup, listen: _, admin_listen: _ } = self;
        for (flag, values) in [("--el", el), ("--el-backup", el_backup), ("--cl", cl), ("--cl-backup", cl_backup)] {
            if !values.is_empty() {
                reading.fail(flag, "cannot be given together with a file: write the node into the file");
            }
        }
    }

    /// The network that the flags describe, if the flags name a node.
    pub(super) fn network(&self, reading: &Reading<'_>) -> Option<Network> {
        let Self { el, el_backup, cl, cl_backup, listen: _, admin_listen: _ } = self;
        let nodes = |layer, flags: [(&str, Tier, &[String]); 2]| {
            let mut nodes = Vec::new();
            for (flag, tier, values) in flags {
                for (position, value) in values.iter().enumerate() {
                    let path = format!("{flag}[{position}]");
                    match urls(layer, value) {
                        Ok((http, ws, is_from_dns)) => {
                            let name = Node::default_name(layer, tier, position);
                            let (ipc, address, ca_file, pair, max_connections) = (None, None, None, None, None);
                            let headers = Vec::new();
                            let node = Node {
                                name,
                                tier,
                                http,
                                ws,
                                ipc,
                                is_from_dns,
                                address,
                                headers,
                                ca_file,
                                pair,
                                max_connections,
                                weight: DEFAULT_WEIGHT,
                                methods: Vec::new(),
                                not_methods: Vec::new(),
                                account: None,
                                budget: None,
                                probing: Probing::default(),
                                probe_interval: None,
                            };
                            nodes.push((path, node));
                        }
                        Err(wrong) => reading.fail(&path, wrong.to_string()),
                    }
                }
            }
            all_different(reading, nodes)
        };
        let network = Network {
            name: NetworkName::default_network(),
            chain_id: None,
            el: nodes(Layer::El, [("--el", Tier::Primary, el), ("--el-backup", Tier::Backup, el_backup)]),
            cl: nodes(Layer::Cl, [("--cl", Tier::Primary, cl), ("--cl-backup", Tier::Backup, cl_backup)]),
        };
        let values = [el, el_backup, cl, cl_backup];
        values.iter().any(|values| !values.is_empty()).then_some(network)
    }
}

/// The URLs of one node, and whether every address of their host is a node.
fn urls(layer: Layer, value: &str) -> Result<(Option<Url>, Option<Url>, bool), Invalid> {
    let (mut http, mut ws): (Option<Url>, Option<Url>) = (None, None);
    let mut from_dns = Vec::new();
    for text in value.split(',') {
        let parse = |text: &str| if layer == Layer::Cl { http_url(text) } else { text.parse() };
        let (url, is_from_dns) = dns::url(text.trim(), parse)?;
        from_dns.push(is_from_dns);
        let place = if url.scheme().is_websocket() { &mut ws } else { &mut http };
        if place.replace(url).is_some() {
            return Err(Invalid(
                "has two URLs of one kind: a value is one node, so repeat the flag for each further node",
            ));
        }
    }
    let is_from_dns = from_dns.contains(&true);
    let same_host = http.as_ref().zip(ws.as_ref()).is_none_or(|(http, ws)| http.host() == ws.host());
    if is_from_dns && (from_dns.contains(&false) || !same_host) {
        return Err(Invalid("must have `dns+` and one host in both URLs, since a node is at one address"));
    }
    Ok((http, ws, is_from_dns))
}
