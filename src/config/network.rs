//! A chain and its nodes.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{
    budget::AccountBudgets,
    name::NetworkName,
    node::{Node, Tier},
    reader::Reader,
    reading::{Reading, join},
    url::Url,
};
use crate::domain::layer::Layer;

/// A chain and its nodes: primaries first, then backups, each in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The network's name, which is also its path.
    pub name: NetworkName,
    /// The chain that its nodes must be on. `None`: not checked against a number.
    pub chain_id: Option<u64>,
    /// Execution nodes.
    pub el: Vec<Node>,
    /// Consensus nodes.
    pub cl: Vec<Node>,
}

impl Network {
    /// The networks of the file: the default one from `root` itself if `root` has nodes, then the
    /// others by name.
    pub(super) fn read_all(root: &mut Reader<'_>) -> Vec<Self> {
        let (mut networks, mut budgets) = (Vec::new(), AccountBudgets::default());
        let default = Self::read(root, NetworkName::default_network(), &mut budgets);
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
                    let network = Self::read(&mut r, name, &mut budgets);
                    r.reading().check(network.has_nodes(), r.path(), &[], "has no nodes");
                    networks.push(network);
                }
                Err(wrong) => {
                    r.reading().fail(r.path(), wrong.to_string());
                    // Its nodes are looked at all the same.
                    Self::read(&mut r, NetworkName::default_network(), &mut budgets);
                }
            }
        }
        budgets.share(networks.iter_mut().flat_map(|network: &mut Self| network.el.iter_mut().chain(&mut network.cl)));
        networks
    }

    fn read(r: &mut Reader<'_>, name: NetworkName, budgets: &mut AccountBudgets) -> Self {
        let chain_id = r.integer("chain_id", 1..=u64::MAX);
        let (el, cl) = (read_layer(r, Layer::El), read_layer(r, Layer::Cl));
        all_paired(r.reading(), &el, &cl);
        [&el, &cl].into_iter().for_each(|nodes| budgets.note(r.reading(), nodes));
        Self { name, chain_id, el: all_different(r.reading(), el), cl: all_different(r.reading(), cl) }
    }

    fn has_nodes(&self) -> bool {
        !(self.el.is_empty() && self.cl.is_empty())
    }
}

fn read_layer(r: &mut Reader<'_>, layer: Layer) -> Vec<(String, Node)> {
    let mut section = r.section(layer.as_str());
    let mut nodes = Vec::new();
    for (key, tier) in [("primary", Tier::Primary), ("backup", Tier::Backup)] {
        for (position, r) in section.tables(key).into_iter().enumerate() {
            nodes.push((r.path().to_owned(), Node::read(r, layer, tier, position)));
        }
    }
    nodes
}

/// A pair is one execution node and one consensus node of a network.
fn all_paired(reading: &Reading<'_>, el: &[(String, Node)], cl: &[(String, Node)]) {
    // A name that could not be read may be the one that is looked for.
    let all_read = |nodes: &[(String, Node)]| nodes.iter().all(|(path, _)| reading.is_clean(&join(path, "pair")));
    let (el_read, cl_read) = (all_read(el), all_read(cl));
    for (layer, other, other_read, missing) in
        [(el, cl, cl_read, "no consensus node"), (cl, el, el_read, "no execution node")]
    {
        let mut first = BTreeMap::new();
        for (path, node) in layer {
            let Some(pair) = &node.pair else { continue };
            if let Some(first) = first.get(pair) {
                reading.fail(
                    &join(path, "pair"),
                    format!("is the pair of `{first}` already: a pair has one node of each layer"),
                );
                continue;
            }
            first.insert(pair, path);
            let has_other = other.iter().any(|(_, other)| other.pair.as_ref() == Some(pair));
            if !has_other && other_read {
                reading.fail(&join(path, "pair"), format!("{missing} of this network has the same"));
            }
        }
    }
}

/// The nodes of one layer without their paths; two with one name, URL or socket are a problem.
pub(super) fn all_different(reading: &Reading<'_>, nodes: Vec<(String, Node)>) -> Vec<Node> {
    let mut names = BTreeMap::new();
    let mut urls: Vec<(&Url, &str)> = Vec::new();
    let mut ipcs: Vec<(&Arc<Path>, &str)> = Vec::new();
    for (path, node) in &nodes {
        let key = |key| if path.starts_with("--") { path.clone() } else { join(path, key) };
        if let Some(first) = names.insert(&node.name, path) {
            reading.fail(&key("name"), format!("is the name of `{first}` already"));
        }
        if let Some((first, _)) = nodes.iter().find(|(_, other)| other.may_give(&node.name)) {
            reading.fail(&key("name"), format!("may become the name of a node of `{first}`, at an address"));
        }
        if let Some(ipc) = &node.ipc {
            match ipcs.iter().find(|(other, _)| *other == ipc) {
                Some((_, first)) => reading.fail(&key("ipc"), format!("is the socket of `{first}` already")),
                None => ipcs.push((ipc, path)),
            }
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
