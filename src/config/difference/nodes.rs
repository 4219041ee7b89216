//! The differences of networks and their nodes.

use std::{path::Path, sync::Arc};

use super::{
    Change, Difference, HIDDEN, NOT_SET, NodeChange, Setting, compare as add,
    values::{duration, items, optional, plain},
};
use crate::{
    config::{Network, Node, Url, node::Tier},
    domain::layer::Layer,
};

/// Adds the nodes that come, go or change, and the settings of their networks.
pub(super) fn compare(difference: &mut Difference, old: &[Network], new: &[Network]) {
    let named = |networks: &[Network], name: &Network| networks.iter().find(|other| other.name == name.name).cloned();
    for network in new {
        let was = named(old, network).unwrap_or_else(|| without_nodes(network));
        compare_network(difference, &was, network);
    }
    for network in old.iter().filter(|network| named(new, network).is_none()) {
        compare_network(difference, network, &without_nodes(network));
    }
}

/// The network of this name, before or after its time.
fn without_nodes(network: &Network) -> Network {
    Network { name: network.name.clone(), chain_id: None, el: Vec::new(), cl: Vec::new() }
}

fn compare_network(difference: &mut Difference, old: &Network, new: &Network) {
    // Without `..`: a new setting does not compile until its author has the value told here.
    let Network { name, chain_id, el, cl } = old;
    let place = if name.is_default() { String::new() } else { format!("networks.{name}.") };
    add(&mut difference.settings, format!("{place}chain_id"), chain_id, &new.chain_id, optional(plain));
    for (layer, old, new) in [(Layer::El, el, &new.el), (Layer::Cl, cl, &new.cl)] {
        for tier in [Tier::Primary, Tier::Backup] {
            let key = format!("{place}{}.{tier} (order)", layer.as_str());
            let (was, is) = (order(old, new, tier), order(new, old, tier));
            add(&mut difference.settings, key, &was, &is, |names| names.join(", "));
        }
        let mut tell = |node: &Node, change| {
            let (network, node, tier) = (name.to_string(), node.name.to_string(), node.tier);
            difference.nodes.push(NodeChange { network, layer, node, tier, change });
        };
        for node in new {
            match old.iter().find(|was| was.name == node.name) {
                None => {
                    tell(node, Change::Added(addresses(node)));
                }
                Some(was) if was != node => tell(node, Change::Changed(compare_nodes(was, node))),
                Some(_) => {}
            }
        }
        for node in old.iter().filter(|node| new.iter().all(|other| other.name != node.name)) {
            tell(node, Change::Removed);
        }
    }
}

/// The URL as in the file.
fn shown(is_from_dns: bool, url: &Url) -> String {
    if is_from_dns { format!("dns+{url}") } else { url.to_string() }
}

/// The addresses of a node as the file has them.
fn addresses(node: &Node) -> Vec<String> {
    let urls = node.http.iter().chain(&node.ws).map(|url| shown(node.is_from_dns, url));
    urls.chain(node.ipc.iter().map(|path| format!("ipc:{}", path.display()))).collect()
}

/// The names of those `nodes` of a tier that `others` has in the same tier, in their order, which
/// decides whose turn is first.
fn order(nodes: &[Node], others: &[Node], tier: Tier) -> Vec<String> {
    let stays = |node: &&Node| others.iter().any(|other| other.name == node.name && other.tier == tier);
    nodes.iter().filter(|node| node.tier == tier).filter(stays).map(|node| node.name.to_string()).collect()
}

fn compare_nodes(old: &Node, new: &Node) -> Vec<Setting> {
    let mut changes = Vec::new();
    // Without `..`, as above.
    let Node {
        name: _,
        tier,
        http,
        ws,
        ipc,
        is_from_dns: _,
        address: _,
        headers,
        ca_file,
        pair,
        max_connections,
        weight,
        methods,
        not_methods,
        account,
        budget,
        probing,
        probe_interval,
    } = old;
    add(&mut changes, "tier".into(), tier, &new.tier, plain);
    let url = |node: &Node, url: &Option<Url>| url.clone().map(|url| (node.is_from_dns, url));
    let told = |(is_from_dns, url): &(bool, Url)| shown(*is_from_dns, url);
    add(&mut changes, "http".into(), &url(old, http), &url(new, &new.http), optional(told));
    add(&mut changes, "ws".into(), &url(old, ws), &url(new, &new.ws), optional(told));
    add(&mut changes, "ipc".into(), ipc, &new.ipc, optional(|path: &Arc<Path>| path.display().to_string()));
    let mut names: Vec<_> = headers.iter().chain(&new.headers).map(|(name, _)| name.clone()).collect();
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    for header in names {
        let of = |node: &Node| node.headers.iter().find(|(name, _)| *name == header).map(|(_, value)| value.clone());
        let told = |value: &Option<_>| if value.is_some() { HIDDEN } else { NOT_SET }.to_owned();
        add(&mut changes, format!("headers.{header}"), &of(old), &of(new), told);
    }
    let certificates =
        |file: &crate::config::CaFile| format!("{} ({} certificates)", file.path.display(), file.certificates.len());
    add(&mut changes, "ca_file".into(), ca_file, &new.ca_file, optional(certificates));
    add(&mut changes, "pair".into(), pair, &new.pair, optional(plain));
    add(&mut changes, "max_connections".into(), max_connections, &new.max_connections, optional(plain));
    add(&mut changes, "weight".into(), weight, &new.weight, plain);
    add(&mut changes, "methods".into(), methods, &new.methods, items);
    add(&mut changes, "not_methods".into(), not_methods, &new.not_methods, items);
    add(&mut changes, "account".into(), account, &new.account, optional(plain));
    add(&mut changes, "budget".into(), budget, &new.budget, optional(plain));
    add(&mut changes, "probe".into(), probing, &new.probing, plain);
    add(&mut changes, "probe_interval".into(), probe_interval, &new.probe_interval, optional(duration));
    changes
}
