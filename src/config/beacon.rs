//! `[beacon]`: the paths of the beacon API's port that are not for clients, and how signed messages
//! are published.

use std::fmt;

use http::Method;

use super::{problem::Invalid, reader::Reader};

/// The HTTP methods that are served: reads, and those by which clients publish.
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "OPTIONS"];
/// The keymanager's paths, which some nodes that hold keys have on the port of the beacon API.
const BLOCKED: [&str; 7] = [
    "/eth/*/keystores",
    "/eth/*/remotekeys",
    "/eth/*/validator/0x*",
    "/eth/*/validator/*/feerecipient",
    "/eth/*/validator/*/gas_limit",
    "/eth/*/validator/*/graffiti",
    "/eth/*/validator/*/voluntary_exit",
];

/// The number of nodes that get a signed message of a validator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublishTo {
    /// To one node, and to the next when that one fails or is late.
    #[default]
    First,
    /// All usable ones at once.
    All,
}

/// `[beacon]`: which requests to the beacon API are passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// HTTP methods that are.
    pub methods: Vec<Method>,
    /// Paths that are not.
    pub blocked: Vec<PathPattern>,
    /// The number of nodes that get a signed message of a validator.
    pub publish_to: PublishTo,
}

impl Default for Beacon {
    fn default() -> Self {
        Self {
            methods: METHODS.map(|text| text.parse().expect("the table holds methods")).to_vec(),
            blocked: BLOCKED.map(|text| pattern(text).expect("the table holds patterns")).to_vec(),
            publish_to: PublishTo::default(),
        }
    }
}

impl Beacon {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        Self {
            methods: r.list("methods", method).unwrap_or(default.methods),
            blocked: r.list("blocked", pattern).unwrap_or(default.blocked),
            publish_to: r.choice(
                "publish_to",
                &[("first", PublishTo::First), ("all", PublishTo::All)],
                default.publish_to,
            ),
        }
    }

    /// Whether the path that leads over these steps, in lower case, is not for clients.
    pub fn blocks<'s>(&self, steps: impl Iterator<Item = &'s str> + Clone) -> bool {
        self.blocked.iter().any(|pattern| pattern.begins(steps.clone()))
    }
}

/// The beginning of a path: its steps, each whole, or its beginning and a star.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern(Box<str>);

impl PathPattern {
    fn begins<'s>(&self, mut steps: impl Iterator<Item = &'s str>) -> bool {
        self.0.split('/').all(|wanted| {
            let Some(step) = steps.next() else { return false };
            wanted.strip_suffix('*').map_or(step == wanted, |start| step.starts_with(start))
        })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0)
    }
}

fn method(text: &str) -> Result<Method, Invalid> {
    let wrong = Invalid("must be an HTTP method in capitals, such as \"DELETE\", and not TRACE or CONNECT");
    let method = Method::from_bytes(text.as_bytes()).map_err(|_| wrong)?;
    let is_good = text.bytes().all(|b| b.is_ascii_uppercase()) && method != Method::TRACE && method != Method::CONNECT;
    if is_good { Ok(method) } else { Err(wrong) }
}

fn pattern(text: &str) -> Result<PathPattern, Invalid> {
    let wrong =
        Invalid("must begin with /eth/; a `*` at the end of a step stands for the rest of it: \"/eth/*/keystores\"");
    let steps = text.strip_prefix('/').ok_or(wrong)?;
    let is_step = |step: &str| {
        let start = step.strip_suffix('*').unwrap_or(step);
        !step.is_empty() && start.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
    };
    if !steps.split('/').all(is_step) || !steps.starts_with("eth/") {
        return Err(wrong);
    }
    Ok(PathPattern(steps.to_ascii_lowercase().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keymanager_paths_are_blocked_and_beacon_paths_are_not() {
        let blocks = |path: &str| Beacon::default().blocks(path.split('/').filter(|step| !step.is_empty()));
        for path in [
            "/eth/v1/keystores",
            "/eth/v2/keystores/",
            "/eth/v1/remotekeys",
            "/eth/v1/validator/0x93/feerecipient",
            "/eth/v1/validator/0x93/anything",
            "/eth/v1/validator/93/gas_limit",
            "/eth/v1/validator/93/graffiti",
            "/eth/v1/validator/93/voluntary_exit",
        ] {
            assert!(blocks(path), "{path}");
        }
        for path in [
            "/eth/v1/validator/duties/attester/1",
            "/eth/v3/validator/blocks/1",
            "/eth/v1/validator/liveness/1",
            "/eth/v1/validator/register_validator",
            "/eth/v1/beacon/pool/voluntary_exits",
            "/eth/v1/keystore",
            "/eth/v1",
        ] {
            assert!(!blocks(path), "{path}");
        }
    }

    #[test]
    fn a_pattern_is_a_path_of_steps_and_a_method_is_one_in_capitals() {
        for text in ["", "eth/v1", "/", "/v1/keystores", "/eth/", "/eth//x", "/eth/a*b", "/eth/v1/%2e", "/eth/v1?x"] {
            assert!(pattern(text).is_err(), "{text}");
        }
        for text in ["", "get", "TRACE", "CONNECT", "GET POST", "G3T"] {
            assert!(method(text).is_err(), "{text}");
        }
    }
}
