//! A node.

use std::{fmt, net::IpAddr, num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};

use super::{
    budget::Budget, ca_file::CaFile, dns, header, health, listen::socket_path, method_pattern::MethodPattern,
    name::NodeName, problem::Invalid, reader::Reader, reading::join, secret::Secret, url::Url,
};
use crate::domain::layer::Layer;

/// Whose turn a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Used while the node is well.
    Primary,
    /// Used when no primary is well.
    Backup,
}

impl Tier {
    /// The tier's name in the file and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often a node is probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Probing {
    /// Once in the time that [`Health`](super::Health) says.
    #[default]
    Steady,
    /// Rarely, as long as no call needs the node.
    Lazy,
}

impl Probing {
    /// The word of the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Lazy => "lazy",
        }
    }
}

impl fmt::Display for Probing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why one connection is too few for requests and a WebSocket at the same address.
pub(super) const ONE_IS_THE_LINKS: &str =
    "must be 2 at least where `ws` has the host and port of `http`: the WebSocket takes one connection for good";

/// The weight of a node that is given none.
pub const DEFAULT_WEIGHT: NonZeroU32 = NonZeroU32::MIN;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique among the nodes of its network and layer.
    pub name: NodeName,
    /// The tier: primaries serve before backups.
    pub tier: Tier,
    /// `http` or `https`. Every consensus node has this URL, an execution node has this, `ws` or
    /// `ipc`.
    pub http: Option<Url>,
    /// `ws` or `wss`; execution nodes only.
    pub ws: Option<Url>,
    /// The Unix socket of the node's IPC, in the place of `ws`; execution nodes only.
    pub ipc: Option<Arc<Path>>,
    /// Whether every address of the URLs' host is a node, for which this one stands.
    pub is_from_dns: bool,
    /// The address to connect to in the place of the URLs' host, which goes on to name the node in
    /// requests and certificates.
    pub address: Option<IpAddr>,
    /// Headers that go with every request and handshake, no name twice.
    pub headers: Vec<(HeaderName, Secret<HeaderValue>)>,
    /// Authorities that are trusted for this node's TLS.
    pub ca_file: Option<CaFile>,
    /// The name shared with the one node of the other layer that works with this node.
    pub pair: Option<NodeName>,
    /// Connections to the node open at once, at most; 0: as many as the node takes. `None`: as
    /// [`Calls`](super::Calls) says.
    pub max_connections: Option<usize>,
    /// The node's part of the calls beside other nodes, with [`Policy::Weighted`](super::Policy).
    pub weight: NonZeroU32,
    /// The only methods that calls go to the node for; all, where none is named. Execution nodes
    /// only.
    pub methods: Vec<MethodPattern>,
    /// Methods that calls do not go to the node for. Execution nodes only.
    pub not_methods: Vec<MethodPattern>,
    /// The name shared by all nodes that a provider counts together.
    pub account: Option<NodeName>,
    /// The credits that may be spent at the node, or at all nodes of its account together.
    pub budget: Option<Budget>,
    /// How often the node is probed.
    pub probing: Probing,
    /// From the start of one probe of the node to the start of its next; `None`: as
    /// [`Health`](super::Health) says.
    pub probe_interval: Option<Duration>,
}

impl Node {
    /// Whether the WebSocket goes to the same server as requests do, and so takes one of the
    /// connections to it.
    pub(crate) fn has_link_beside_requests(&self) -> bool {
        let address = |url: &Url| (url.host().clone(), url.port());
        self.ws.is_some() && self.http.as_ref().map(address) == self.ws.as_ref().map(address)
    }

    /// Checks an entry that stands for every address of a name. `is_split`: only one of its URLs
    /// says so.
    fn check_dns(&self, r: &Reader<'_>, is_split: bool) {
        let same_host = self.http.as_ref().zip(self.ws.as_ref()).is_none_or(|(http, ws)| http.host() == ws.host());
        r.check(
            !is_split && (same_host || !self.is_from_dns),
            "ws",
            &["http"],
            "must have the `dns+` and the host of `http`, since a node is at one address",
        );
        r.check(
            !(self.is_from_dns && self.ipc.is_some()),
            "ipc",
            &["http", "ws"],
            "cannot stand beside `dns+`: a socket belongs to one node",
        );
        r.check(
            !(self.is_from_dns && self.pair.is_some()),
            "pair",
            &["http", "ws"],
            "cannot stand beside `dns+`: a pair has one node of each layer",
        );
        r.check(
            !self.is_from_dns || self.name.as_str().len() <= dns::MAX_NAME,
            "name",
            &["http", "ws"],
            "must be 24 characters at most where `dns+` is used: each node has its address behind the name",
        );
    }

    /// Whether the node can be reached at all.
    fn has_address(&self) -> bool {
        self.http.is_some() || self.ws.is_some() || self.ipc.is_some()
    }

    /// The address for people, without secrets.
    pub fn shown_address(&self) -> String {
        let url = self.http.as_ref().or(self.ws.as_ref()).map(ToString::to_string);
        let ipc = || self.ipc.as_ref().map(|path| format!("ipc:{}", path.display()));
        let shown = url.or_else(ipc).unwrap_or_default();
        self.address.map_or_else(|| shown.clone(), |address| format!("{shown} at {address}"))
    }

    /// The name of a node that was given none: `el-1`, `el-backup-1`, `cl-1`, by its position in
    /// its tier.
    pub(super) fn default_name(layer: Layer, tier: Tier, position: usize) -> NodeName {
        let name = match tier {
            Tier::Primary => format!("{}-{}", layer.as_str(), position + 1),
            Tier::Backup => format!("{}-backup-{}", layer.as_str(), position + 1),
        };
        name.parse().expect("layer, tier and number make a name")
    }

    /// The texts that must not be shown: the parts that the URLs' `Display` leaves out, and the
    /// credentials among the headers, whole and in words.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let urls = || self.http.iter().chain(&self.ws);
        let headers = self.headers.iter().map(|(_, value)| value.expose()).filter(|value| value.is_sensitive());
        let values = headers.chain(urls().filter_map(|url| Some(url.basic_auth()?.expose())));
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        urls().flat_map(Url::secrets).chain(values.flat_map(|value| words(&value))).collect()
    }

    pub(super) fn read(mut r: Reader<'_>, layer: Layer, tier: Tier, position: usize) -> Self {
        let folder = r.reading().folder();
        let http = r.parse("http", |text| dns::url(text, http_url));
        let ws = match layer {
            Layer::El => r.parse("ws", |text| dns::url(text, ws_url)),
            Layer::Cl => None,
        };
        let from_dns: Vec<bool> = [&http, &ws].into_iter().flatten().map(|(_, is_from_dns)| *is_from_dns).collect();
        let is_from_dns = from_dns.contains(&true);
        let is_split = is_from_dns && from_dns.contains(&false);
        let node = Self {
            name: r.parse("name", str::parse).unwrap_or_else(|| Self::default_name(layer, tier, position)),
            tier,
            http: http.map(|(url, _)| url),
            ws: ws.map(|(url, _)| url),
            is_from_dns,
            address: None,
            ipc: match layer {
                Layer::El => r.parse("ipc", |path| socket_path(path, folder).map(Into::into)),
                Layer::Cl => None,
            },
            headers: header::table(&mut r),
            ca_file: r.parse("ca_file", |path| CaFile::read(folder, path)),
            pair: r.parse("pair", str::parse),
            max_connections: r.integer("max_connections", 0..=1_000_000).and_then(|n| usize::try_from(n).ok()),
            weight: r.positive("weight", DEFAULT_WEIGHT),
            methods: patterns(&mut r, layer, "methods"),
            not_methods: patterns(&mut r, layer, "not_methods"),
            account: r.parse("account", str::parse),
            budget: Budget::read_if_set(&mut r, layer),
            probing: r.choice("probe", &[("steady", Probing::Steady), ("lazy", Probing::Lazy)], Probing::default()),
            probe_interval: health::interval_if_set(&mut r, "probe_interval"),
        };
        node.check_dns(&r, is_split);
        let clean = |key: &str| r.reading().is_clean(&join(r.path(), key));
        match layer {
            Layer::El if !node.has_address() && ["http", "ws", "ipc"].into_iter().all(clean) => {
                r.reading().fail(r.path(), "needs `http`, `ws` or both, or `ipc`");
            }
            Layer::Cl if node.http.is_none() && clean("http") => r.reading().fail(r.path(), "needs `http`"),
            _ => {}
        }
        r.check(
            !(node.max_connections == Some(1) && node.has_link_beside_requests()),
            "max_connections",
            &["ws"],
            ONE_IS_THE_LINKS,
        );
        r.check(
            node.probing == Probing::Steady || tier == Tier::Backup,
            "probe",
            &[],
            "must not be \"lazy\" for a primary, which calls go to all the time: make the node a backup",
        );
        let urls = || node.http.iter().chain(&node.ws);
        r.check(
            urls().all(|url| url.basic_auth().is_none()) || node.headers.iter().all(|(name, _)| name != AUTHORIZATION),
            "headers",
            &[],
            "sets Authorization, and so does the user in the node's URL: only one of them can be sent",
        );
        r.check(
            node.ipc.is_none() || node.ws.is_none(),
            "ipc",
            &["ws"],
            "cannot stand beside `ws`: heads and subscriptions come by one of them",
        );
        r.check(
            node.headers.is_empty() || urls().next().is_some(),
            "headers",
            &["http", "ws"],
            "has no use: IPC carries no headers",
        );
        r.check(
            node.ca_file.is_none() || urls().any(|url| url.scheme().is_tls()),
            "ca_file",
            &["http", "ws"],
            "has no use: neither of the node's URLs is https or wss",
        );
        node
    }
}

/// A list of methods, which only execution nodes have.
fn patterns(r: &mut Reader<'_>, layer: Layer, key: &'static str) -> Vec<MethodPattern> {
    match layer {
        Layer::El => r.list(key, str::parse).unwrap_or_default(),
        Layer::Cl => Vec::new(),
    }
}

/// Reads Base64 with or without its padding, as servers do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A credential in every part that may be told alone: its words, a cookie's values, a user and a
/// password that Basic authentication writes as one.
fn words(credential: &str) -> Vec<String> {
    let mut words = vec![credential.to_owned()];
    for word in credential.split([' ', '\t', ';', ',']) {
        words.push(word.to_owned());
        words.extend(word.split_once('=').map(|(_, value)| value.to_owned()));
        let user = BASE64.decode(word).ok().and_then(|user| String::from_utf8(user).ok());
        if let Some(user) = user.filter(|user| user.contains(':') && !user.contains(char::is_control)) {
            words.extend(user.split_once(':').map(|(_, password)| password.to_owned()));
            words.push(user);
        }
    }
    words
}

/// An `http` or `https` URL.
pub(super) fn http_url(text: &str) -> Result<Url, Invalid> {
    let url: Url = text.parse()?;
    if url.scheme().is_websocket() { Err(Invalid("must begin with http:// or https://")) } else { Ok(url) }
}

/// A `ws` or `wss` URL.
pub(super) fn ws_url(text: &str) -> Result<Url, Invalid> {
    let url: Url = text.parse()?;
    if url.scheme().is_websocket() { Ok(url) } else { Err(Invalid("must begin with ws:// or wss://")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_password_in_base64_is_found_with_and_without_padding() {
        for word in ["dXNlcjpzM2NyZXQ=", "dXNlcjpzM2NyZXQ"] {
            assert!(super::words(&format!("Basic {word}")).contains(&"s3cret".to_owned()), "{word}");
        }
    }
}
