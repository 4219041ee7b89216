//! One chain and its nodes.

use std::collections::BTreeMap;

use super::{
    name::NetworkName,
    node::{Layer, Node, Tier},
    reader::Reader,
    reading::{Reading, join},
    url::Url,
};

/// One chain and its nodes: primaries first, then backups, each in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name, and the path it is served under.
    pub name: NetworkName,
    /// The chain that its nodes must be on. `None`: not checked against a number.
    pub chain_id: Option<u64>,
    /// Execution nodes.
    pub el: Vec<Node>,
    /// Consensus nodes.
    pub cl: Vec<Node>,
}

impl Network {
    /// The networks of the file: the default one from `root` itself if it has nodes, then the others by name.
    pub(super) fn read_all(root: &mut Reader<'_>) -> Vec<Self> {
        let mut networks = Vec::new();
        let default = Self::read(root, NetworkName::default_network());
        if default.has_nodes() {
            networks.push(default);
        } else {
            root.check(
                default.chain_id.is_none(),
                "chain_id",
                &["el", "cl"],
                "belongs to the nodes at the top level, and there are none",
            );
        }
        for (name, mut r) in root.sections("networks") {
            match name.parse::<NetworkName>() {
                Ok(name) => {
                    let network = Self::read(&mut r, name);
                    r.reading().check(network.has_nodes(), r.path(), &[], "has no nodes");
                    networks.push(network);
                }
                Err(wrong) => {
                    r.reading().fail(r.path(), wrong.to_string());
                    // Its nodes are looked at all the same.
                    Self::read(&mut r, NetworkName::default_network());
                }
            }
        }
        networks
    }

    fn read(r: &mut Reader<'_>, name: NetworkName) -> Self {
        Self {
            name,
            chain_id: r.integer("chain_id", 1..=u64::MAX),
            el: read_layer(r, Layer::El),
            cl: read_layer(r, Layer::Cl),
        }
    }

    fn has_nodes(&self) -> bool {
        !(self.el.is_empty() && self.cl.is_empty())
    }
}

fn read_layer(r: &mut Reader<'_>, layer: Layer) -> Vec<Node> {
    let mut section = r.section(layer.key());
    let mut nodes = Vec::new();
    for (key, tier) in [("primary", Tier::Primary), ("backup", Tier::Backup)] {
        for (position, r) in section.tables(key).into_iter().enumerate() {
            nodes.push((r.path().to_owned(), Node::read(r, layer, tier, position)));
        }
    }
    all_different(r.reading(), nodes)
}

/// The nodes of one layer without their paths; two with one name or one URL are a problem.
pub(super) fn all_different(reading: &Reading<'_>, nodes: Vec<(String, Node)>) -> Vec<Node> {
    let mut names = BTreeMap::new();
    let mut urls: Vec<(&Url, &str)> = Vec::new();
    for (path, node) in &nodes {
        let key = |key| if path.starts_with("--") { path.clone() } else { join(path, key) };
        if let Some(first) = names.insert(&node.name, path) {
            reading.fail(&key("name"), format!("is the name of `{first}` already"));
        }
        for (name, url) in [("http", &node.http), ("ws", &node.ws)] {
            let Some(url) = url else { continue };
            match urls.iter().find(|(other, _)| *other == url) {
                Some((_, first)) => reading.fail(&key(name), format!("is a URL of `{first}` already")),
                None => urls.push((url, path)),
            }
        }
    }
    nodes.into_iter().map(|(_, node)| node).collect()
}
