//! Nodes from DNS: entries that stand for every address of their name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{Config, Node, NodeName, problem::Invalid, url::Url};

/// The mark before the scheme of a URL whose name has a node at each address.
const PREFIX: &str = "dns+";
/// The longest name of an entry with that mark: nodes have their addresses behind the name.
pub(super) const MAX_NAME: usize = 24;

/// The addresses of names.
pub type Addresses = BTreeMap<Arc<str>, Vec<IpAddr>>;

/// The URL that `parse` reads, and whether every address of its name is a node:
/// `dns+http://geth:8545`.
pub(super) fn url(text: &str, parse: impl Fn(&str) -> Result<Url, Invalid>) -> Result<(Url, bool), Invalid> {
    let Some(rest) = text.strip_prefix(PREFIX) else { return Ok((parse(text)?, false)) };
    let url = parse(rest)?;
    if url.host().parse::<IpAddr>().is_ok() {
        return Err(Invalid("needs a name to look up: an address has no others (leave out `dns+`)"));
    }
    Ok((url, true))
}

impl Node {
    /// The host that is looked up, if each of its addresses is a node.
    fn dns_name(&self) -> Option<&Arc<str>> {
        let url = self.http.as_ref().or(self.ws.as_ref()).filter(|_| self.is_from_dns);
        url.map(Url::host)
    }

    /// Whether every URL of this node passes with its port.
    fn has_ports(&self, passes: impl Fn(u16) -> bool) -> bool {
        self.http.iter().chain(&self.ws).all(|url| passes(url.port()))
    }

    /// This node at one of the addresses of its name.
    fn at(&self, address: IpAddr) -> Self {
        let name = format!("{}-{}", self.name, address.to_string().replace(':', "-"));
        Self {
            // The name was checked to leave room for any address, whose other characters are those
            // of names.
            name: name.parse().unwrap_or_else(|_| self.name.clone()),
            is_from_dns: false,
            address: Some(address),
            ..self.clone()
        }
    }

    /// Whether `name` may be one that [`Node::at`] gives.
    pub(super) fn may_give(&self, name: &NodeName) -> bool {
        let behind = name.as_str().strip_prefix(self.name.as_str()).and_then(|rest| rest.strip_prefix('-'));
        let is_address =
            |text: &str| text.parse::<IpAddr>().is_ok() || text.replace('-', ":").parse::<IpAddr>().is_ok();
        self.is_from_dns && behind.is_some_and(is_address)
    }
}

impl Config {
    /// The names of which every address is a node.
    pub fn dns_names(&self) -> BTreeSet<Arc<str>> {
        let nodes = self.networks.iter().flat_map(|network| network.el.iter().chain(&network.cl));
        nodes.filter_map(Node::dns_name).cloned().collect()
    }

    /// The addresses among these that are left out as nodes, with the names that have them: a URL
    /// would lead to one that `is_own`.
    pub fn own_addresses(
        &self,
        addresses: &Addresses,
        is_own: &dyn Fn(IpAddr, u16) -> bool,
    ) -> BTreeSet<(Arc<str>, IpAddr)> {
        let nodes = self.networks.iter().flat_map(|network| network.el.iter().chain(&network.cl));
        let own = nodes.filter_map(|node| {
            let name = node.dns_name()?;
            let found = addresses.get(name)?.iter();
            let own = found.filter(|address| !node.has_ports(|port| !is_own(**address, port)));
            Some(own.map(|address| (name.clone(), *address)))
        });
        own.flatten().collect()
    }

    /// The settings with a node for each address of these names, in the order of `addresses`, but
    /// for those that with the port of a URL are the proxy's own. An entry whose name has no other
    /// known address stays, as one node that connects to whatever the name has then.
    pub fn with_addresses(&self, addresses: &Addresses, is_own: &dyn Fn(IpAddr, u16) -> bool) -> Self {
        let expand = |node: &Node| {
            let found = node.dns_name().and_then(|name| addresses.get(name)).into_iter().flatten();
            let others = found.filter(|address| node.has_ports(|port| !is_own(**address, port)));
            let nodes: Vec<Node> = others.map(|address| node.at(*address)).collect();
            if nodes.is_empty() { vec![node.clone()] } else { nodes }
        };
        let mut config = self.clone();
        for network in &mut config.networks {
            for side in [&mut network.el, &mut network.cl] {
                *side = side.iter().flat_map(expand).collect();
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_name_is_a_node_in_the_place_of_its_entry() {
        let text = "
            [[el.primary]]
            name = \"geth\"
            http = \"dns+https://geth-headless:8545/path\"
            ws = \"dns+wss://geth-headless:8546\"
            [[el.primary]]
            http = \"http://other:8545\"
            [[cl.backup]]
            http = \"dns+http://cl\"
        ";
        let config = Config::parse(text, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let names: Vec<Arc<str>> = config.dns_names().into_iter().collect();
        assert_eq!(names, ["cl".into(), "geth-headless".into()]);
        let addresses = ["10.0.0.9", "2001:db8::1"].map(|text| text.parse().unwrap());
        let expanded = config.with_addresses(&[("geth-headless".into(), addresses.to_vec())].into(), &|_, _| false);
        let network = &expanded.networks[0];
        let nodes: Vec<_> =
            network.el.iter().chain(&network.cl).map(|node| (node.name.as_str(), node.address)).collect();
        assert_eq!(
            nodes,
            [
                ("geth-10.0.0.9", Some(addresses[0])),
                ("geth-2001-db8--1", Some(addresses[1])),
                ("el-2", None),
                ("cl-backup-1", None)
            ]
        );
        assert_eq!(network.el[0].http, config.networks[0].el[0].http);
        assert!(!network.el[0].is_from_dns && network.cl[0].is_from_dns);
        assert_eq!(expanded.with_addresses(&Addresses::new(), &|_, _| false), expanded);
        let longest = "[[el.primary]]\nname = \"abcdefghijklmnopqrstuvwx\"\nhttp = \"dns+http://a\"\n";
        let longest = Config::parse(longest, &|_| None).unwrap();
        let address = "2001:db80:1111:2222:3333:4444:5555:6666".parse().unwrap();
        let node = &longest.with_addresses(&[("a".into(), vec![address])].into(), &|_, _| false).networks[0].el[0];
        assert_eq!(node.name.as_str(), "abcdefghijklmnopqrstuvwx-2001-db80-1111-2222-3333-4444-5555-6666");
    }

    #[test]
    fn an_address_that_is_the_proxys_own_is_no_node() {
        let text = "
            [[el.primary]]
            name = \"a\"
            http = \"dns+http://name:8545\"
            [[el.primary]]
            name = \"b\"
            http = \"dns+http://name:8546\"
            ws = \"dns+ws://name:8545\"
            [[el.primary]]
            name = \"c\"
            http = \"dns+http://name:8547\"
            [[cl.primary]]
            name = \"d\"
            http = \"dns+http://own:8545\"
        ";
        let config = Config::parse(text, &|_| None).unwrap_or_else(|errors| panic!("{errors}"));
        let [own, other] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let is_own = |ip: IpAddr, port: u16| ip == own && port == 8545;
        let addresses = [("name".into(), vec![own, other]), ("own".into(), vec![own])].into();
        let expanded = config.with_addresses(&addresses, &is_own);
        let nodes = expanded.networks[0].el.iter().chain(&expanded.networks[0].cl);
        let names: Vec<&str> = nodes.map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["a-10.0.0.2", "b-10.0.0.2", "c-10.0.0.1", "c-10.0.0.2", "d"]);
        let left_out = config.own_addresses(&addresses, &is_own);
        assert_eq!(left_out, [("name".into(), own), ("own".into(), own)].into());
    }
}
