//! A node.

use std::fmt;

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::{HeaderName, HeaderValue, header::AUTHORIZATION};

use super::{
    ca_file::CaFile, header, name::NodeName, problem::Invalid, reader::Reader, reading::join, secret::Secret, url::Url,
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

/// Why one connection is too few for requests and a WebSocket at the same address.
pub(super) const ONE_IS_THE_LINKS: &str =
    "must be 2 at least where `ws` has the host and port of `http`: the WebSocket takes one connection for good";

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique among the nodes of its network and layer.
    pub name: NodeName,
    /// The tier: primaries serve before backups.
    pub tier: Tier,
    /// `http` or `https`. Every consensus node has this URL, an execution node has this or `ws`.
    pub http: Option<Url>,
    /// `ws` or `wss`; execution nodes only.
    pub ws: Option<Url>,
    /// Headers that go with every request and handshake, no name twice.
    pub headers: Vec<(HeaderName, Secret<HeaderValue>)>,
    /// Authorities that are trusted for this node's TLS.
    pub ca_file: Option<CaFile>,
    /// The name shared with the one node of the other layer that works with this node.
    pub pair: Option<NodeName>,
    /// Connections to the node open at once, at most; 0: as many as the node takes. `None`: as
    /// [`Calls`](super::Calls) says.
    pub max_connections: Option<usize>,
}

impl Node {
    /// Whether the WebSocket goes to the same server as requests do, and so takes one of the
    /// connections to it.
    pub(crate) fn has_link_beside_requests(&self) -> bool {
        let address = |url: &Url| (url.host().clone(), url.port());
        self.ws.is_some() && self.http.as_ref().map(address) == self.ws.as_ref().map(address)
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
        let node = Self {
            name: r.parse("name", str::parse).unwrap_or_else(|| Self::default_name(layer, tier, position)),
            tier,
            http: r.parse("http", http_url),
            ws: match layer {
                Layer::El => r.parse("ws", ws_url),
                Layer::Cl => None,
            },
            headers: headers(&mut r),
            ca_file: r.parse("ca_file", |path| CaFile::read(folder, path)),
            pair: r.parse("pair", str::parse),
            max_connections: r.integer("max_connections", 0..=1_000_000).and_then(|n| usize::try_from(n).ok()),
        };
        let clean = |key: &str| r.reading().is_clean(&join(r.path(), key));
        match layer {
            Layer::El if node.http.is_none() && node.ws.is_none() && clean("http") && clean("ws") => {
                r.reading().fail(r.path(), "needs `http`, `ws` or both");
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
        let urls = || node.http.iter().chain(&node.ws);
        r.check(
            urls().all(|url| url.basic_auth().is_none()) || node.headers.iter().all(|(name, _)| name != AUTHORIZATION),
            "headers",
            &[],
            "sets Authorization, and so does the user in the node's URL: only one of them can be sent",
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
fn ws_url(text: &str) -> Result<Url, Invalid> {
    let url: Url = text.parse()?;
    if url.scheme().is_websocket() { Ok(url) } else { Err(Invalid("must begin with ws:// or wss://")) }
}

fn headers(r: &mut Reader<'_>) -> Vec<(HeaderName, Secret<HeaderValue>)> {
    let mut headers: Vec<(HeaderName, Secret<HeaderValue>)> = Vec::new();
    for (name, path, value, filled_in) in r.strings("headers") {
        let reading = r.reading();
        let value = header::value(&name, &value, filled_in).map_err(|wrong| reading.fail(&path, wrong.to_string()));
        let name = header::name(&name).map_err(|wrong| reading.fail(&path, wrong.to_string()));
        let (Ok(name), Ok(value)) = (name, value) else { continue };
        if headers.iter().any(|(other, _)| *other == name) {
            reading.fail(&path, "is there already: header names are the same in upper and lower case");
        } else {
            headers.push((name, value));
        }
    }
    headers
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
