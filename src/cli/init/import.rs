//! The findings in another proxy's file, and the file of settings made of the findings.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt::{self, Write as _},
};

use crate::domain::layer::Layer;

/// The fate of a line or key of the other file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The setting here, or the node.
    Became(String),
    /// Nothing has to be set, for a reason.
    NotNeeded(String),
    /// Left out, for a reason.
    Left(String),
}

/// A line or key of the other file, without its value, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) fate: Fate,
}

/// `12: proxy_cache: is not there`, or `12: server → el.primary a`.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, key, fate } = self;
        match fate {
            Fate::Became(setting) => write!(f, "{line}: {key} → {setting}"),
            Fate::NotNeeded(why) | Fate::Left(why) => write!(f, "{line}: {key}: {why}"),
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) layer: Layer,
    pub(super) is_backup: bool,
    pub(super) name: String,
    pub(super) http: Option<String>,
    pub(super) ws: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) max_connections: Option<u64>,
}

impl Node {
    /// A node with this URL, which is for calls or for a WebSocket.
    pub(super) fn new(layer: Layer, is_backup: bool, name: &str, url: String) -> Self {
        let plain = url.strip_prefix("dns+").unwrap_or(&url);
        let is_ws = plain.starts_with("ws://") || plain.starts_with("wss://");
        let (http, ws) = if is_ws { (None, Some(url)) } else { (Some(url), None) };
        Self { layer, is_backup, name: clean(name), http, ws, headers: Vec::new(), max_connections: None }
    }

    fn tier(&self) -> &'static str {
        if self.is_backup { "backup" } else { "primary" }
    }
}

/// The nodes of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Network {
    chain_id: Option<u64>,
    nodes: Vec<Node>,
    /// The URLs and the names of the nodes.
    urls: BTreeSet<(Layer, String)>,
    names: BTreeSet<(Layer, String)>,
    /// By name: the last number that made a name different.
    numbers: BTreeMap<(Layer, String), usize>,
    /// By host: the execution nodes without a WebSocket.
    without_ws: BTreeMap<String, VecDeque<usize>>,
}

/// The findings in another proxy's file.
#[derive(Clone, Debug, Default)]
pub(super) struct Import {
    pub(super) notes: Vec<Note>,
    /// Values as the file writes them, by key, each with the line that it comes from.
    settings: BTreeMap<&'static str, (usize, String)>,
    /// By name; the nameless one has its nodes at the top level.
    networks: BTreeMap<String, Network>,
}

impl Import {
    /// Notes the fate of `key`.
    pub(super) fn note(&mut self, line: usize, key: impl Into<String>, fate: Fate) {
        self.notes.push(Note { line, key: key.into(), fate });
    }

    /// Notes that `key` is left out.
    pub(super) fn leave(&mut self, line: usize, key: impl Into<String>, why: impl Into<String>) {
        self.note(line, key, Fate::Left(why.into()));
    }

    /// Sets `setting` to `value`, which is written as in the file. The first value stays.
    pub(super) fn set(&mut self, line: usize, key: impl Into<String>, setting: &'static str, value: String) {
        match self.settings.get(setting) {
            Some((first, other)) if *other != value => {
                let why = format!("{setting} has another value from line {first} already, and there is one for all");
                self.leave(line, key, why);
            }
            _ => {
                self.settings.insert(setting, (line, value));
                self.note(line, key, Fate::Became(setting.to_owned()));
            }
        }
    }

    /// Sets a duration of so many milliseconds.
    pub(super) fn set_millis(&mut self, line: usize, key: &str, setting: &'static str, millis: u64) {
        let text =
            if millis.is_multiple_of(1000) { format!("\"{}s\"", millis / 1000) } else { format!("\"{millis}ms\"") };
        self.set(line, key, setting, text);
    }

    pub(super) fn has(&self, setting: &str) -> bool {
        self.settings.contains_key(setting)
    }

    /// The chain that the nodes of `network` are on.
    pub(super) fn chain(&mut self, network: &str, chain_id: u64) {
        self.networks.entry(network.to_owned()).or_default().chain_id = Some(chain_id);
    }

    /// Adds a node to `network`.
    pub(super) fn add(&mut self, line: usize, key: impl Into<String>, network: &str, mut node: Node) {
        let Network { nodes, urls, names, numbers, without_ws, .. } =
            self.networks.entry(network.to_owned()).or_default();
        let layer = node.layer;
        let own: Vec<(Layer, String)> =
            [&node.http, &node.ws].into_iter().flatten().map(|url| (layer, url.clone())).collect();
        if own.iter().any(|url| urls.contains(url)) {
            return self.leave(line, key, "a node with this URL is there already");
        }
        urls.extend(own);
        if names.contains(&(layer, node.name.clone())) {
            let number = numbers.entry((layer, node.name.clone())).or_insert(1);
            loop {
                *number += 1;
                let name = format!("{}-{number}", node.name);
                if !names.contains(&(layer, name.clone())) {
                    node.name = name;
                    break;
                }
            }
        }
        names.insert((layer, node.name.clone()));
        if let (Layer::El, Some(http), None) = (layer, &node.http, &node.ws) {
            without_ws.entry(host_and_kind(http)).or_default().push_back(nodes.len());
        }
        let place = place(network);
        let fate = Fate::Became(format!("[[{place}{}.{}]] {}", node.layer.as_str(), node.tier(), node.name));
        nodes.push(node);
        self.note(line, key, fate);
    }

    /// Gives `url` to the execution node on the same host that has no WebSocket yet; `None` if
    /// there is none.
    pub(super) fn add_ws(&mut self, network: &str, url: &str) -> Option<String> {
        let Network { nodes, urls, without_ws, .. } = self.networks.get_mut(network)?;
        let node = &mut nodes[without_ws.get_mut(&host_and_kind(url))?.pop_front()?];
        urls.insert((Layer::El, url.to_owned()));
        node.ws = Some(url.to_owned());
        Some(node.name.clone())
    }

    pub(super) fn has_nodes(&self) -> bool {
        self.networks.values().any(|network| !network.nodes.is_empty())
    }

    /// Moves a single network to the top level: its name would be part of its path.
    pub(super) fn lift_single(&mut self) {
        self.networks.retain(|_, network| !network.nodes.is_empty());
        if self.networks.len() == 1
            && let Some((name, network)) = self.networks.pop_first()
        {
            self.networks.insert(String::new(), network);
            for note in &mut self.notes {
                if let Fate::Became(setting) = &mut note.fate {
                    *setting = setting.replacen(&place(&name), "", usize::from(!name.is_empty()));
                }
            }
        }
    }

    /// The file. `head` is a comment at its top.
    pub(super) fn file(&self, head: &str) -> String {
        let mut text = format!("{head}\n");
        let mut section = "";
        // Keys outside of sections come first.
        let by_section = |key: &&'static str| key.split_once('.').unwrap_or(("", key));
        let mut keys: Vec<_> = self.settings.keys().map(by_section).collect();
        keys.sort_unstable();
        for (of, key) in keys {
            if of != section {
                section = of;
                let _ = write!(text, "\n[{section}]\n");
            } else if section.is_empty() && !text.ends_with("\"\n") {
                text.push('\n');
            }
            let full = if of.is_empty() { key.to_owned() } else { format!("{of}.{key}") };
            let value = self.settings.get(&*full).map_or("", |(_, value)| value);
            let _ = writeln!(text, "{key} = {value}");
        }
        for (name, network) in &self.networks {
            let place = place(name);
            match (network.chain_id, name.is_empty()) {
                (Some(id), false) => drop(write!(text, "\n[networks.{name}]\nchain_id = {id}\n")),
                // At the top level no section may stand before the key.
                (Some(id), true) => {
                    text = text.replacen(&format!("{head}\n"), &format!("{head}\n\nchain_id = {id}\n"), 1)
                }
                (None, _) => {}
            }
            for node in &network.nodes {
                write_node(&mut text, &place, node);
            }
        }
        text
    }
}

fn write_node(text: &mut String, place: &str, node: &Node) {
    let Node { layer, name, http, ws, headers, max_connections, .. } = node;
    let _ = write!(text, "\n[[{place}{}.{}]]\nname = \"{name}\"\n", layer.as_str(), node.tier());
    for (key, url) in [("http", http), ("ws", ws)] {
        if let Some(url) = url {
            let _ = writeln!(text, "{key} = {}", quoted(url));
        }
    }
    if let Some(most) = max_connections {
        let _ = writeln!(text, "max_connections = {most}");
    }
    if !headers.is_empty() {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value))).collect();
        let _ = writeln!(text, "headers = {{ {} }}", headers.join(", "));
    }
}

/// A string in the form of TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The beginning of the tables of `network`.
fn place(network: &str) -> String {
    if network.is_empty() { String::new() } else { format!("networks.{network}.") }
}

/// A name of the letters that names here have.
pub(super) fn clean(name: &str) -> String {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    let name: String = name.chars().map(|c| if is_good(c) { c } else { '-' }).collect();
    let name = name.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() { "node".to_owned() } else { name.chars().take(60).collect() }
}

/// The host of a URL, and whether each address of the host is a node.
fn host_and_kind(url: &str) -> String {
    format!("{}{}", if url.starts_with("dns+") { "dns+" } else { "" }, host(url))
}

/// The host of a URL, without its port.
pub(super) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_in_any_form_of_a_url() {
        for (url, expected) in [
            ("http://a:8545/x", "a"),
            ("https://u:p@b.example/v2/k", "b.example"),
            ("ws://[::1]:8546", "[::1]"),
            ("10.0.0.1:1", "10.0.0.1"),
            ("c", "c"),
        ] {
            assert_eq!(host(url), expected, "{url}");
        }
    }

    #[test]
    fn names_are_cleaned_and_made_different() {
        assert_eq!(clean("my node #1!"), "my-node--1");
        assert_eq!(clean("***"), "node");
        let mut import = Import::default();
        for url in ["http://a", "http://b", "http://a"] {
            import.add(1, "server", "", Node::new(Layer::El, false, "a", url.to_owned()));
        }
        let text = import.file("# x");
        assert!(text.contains("name = \"a\"") && text.contains("name = \"a-2\"") && !text.contains("a-3"), "{text}");
        assert!(import.notes[2].to_string().contains("there already"), "{}", import.notes[2]);
    }

    #[test]
    fn very_many_nodes_are_added_in_one_pass() {
        let mut import = Import::default();
        for at in 0..50_000 {
            import.add(1, "server", "", Node::new(Layer::El, false, "a", format!("http://a:{at}")));
        }
        for at in 0..50_000 {
            assert!(import.add_ws("", &format!("ws://a:{at}")).is_some());
        }
        assert!(import.notes[49_999].to_string().ends_with(" a-50000"), "{}", import.notes[49_999]);
        assert_eq!(import.add_ws("", "ws://a:1"), None);
        import.add(1, "server", "", Node::new(Layer::El, false, "a", "ws://a:7".to_owned()));
        assert!(import.notes[50_000].to_string().contains("there already"), "{}", import.notes[50_000]);
    }
}
