//! Refuses requests to the beacon API that no node should see.

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::{BeaconBody, Problem};
use crate::config::Beacon;

/// The longest path with its query, in bytes. Nodes take as much: the keys of 1,024 validators are
/// 101 kB.
pub(super) const MAX_TARGET: usize = 128 * 1024;

/// The refusal of a path that is too long, or that `rules` keep from clients. `plain` is the path
/// as of [`plain`], and `length` is its length as written.
pub(super) fn refusal(
    rules: &Beacon,
    method: &Method,
    plain: &str,
    length: usize,
    query: Option<&str>,
) -> Option<Response<BeaconBody>> {
    if !rules.methods.contains(method) {
        let message = format!("{method} is not passed on here; see beacon.methods");
        let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, message).response();
        let served: Vec<&str> = rules.methods.iter().map(Method::as_str).collect();
        if let Ok(served) = HeaderValue::from_str(&served.join(", ")) {
            response.headers_mut().insert(header::ALLOW, served);
        }
        return Some(response);
    }
    if length + query.map_or(0, str::len) > MAX_TARGET {
        let message = format!("the path is longer than {MAX_TARGET} bytes");
        return Some(Problem::new(StatusCode::URI_TOO_LONG, message).response());
    }
    if is_blocked(rules, plain) {
        let message = "this path is not for clients; see beacon.blocked";
        return Some(Problem::new(StatusCode::NOT_FOUND, message).response());
    }
    None
}

/// Whether a server on the way might read a plain path as a blocked one.
fn is_blocked(rules: &Beacon, plain: &str) -> bool {
    // Some servers take several slashes for one.
    rules.blocks(steps(plain).filter(|step| !step.is_empty()))
}

/// The steps of a plain path, without the text that some servers take for a parameter of a step.
pub(super) fn steps(plain: &str) -> impl Iterator<Item = &str> + Clone {
    plain.split(['/', '\\']).map(|step| step.split(';').next().unwrap_or_default())
}

/// A plain path as a server reads it that takes several slashes for one.
pub(super) fn folded(plain: &str) -> String {
    steps(plain).filter(|step| !step.is_empty()).flat_map(|step| ["/", step]).collect()
}

/// The path in lower case with all percent-encoding undone, also where a path was encoded many
/// times. Each byte is looked at a few times at most.
pub(super) fn plain(path: &str) -> String {
    let mut plain: Vec<u8> = Vec::with_capacity(path.len());
    for byte in path.bytes() {
        plain.push(byte.to_ascii_lowercase());
        while let Some(byte) = plain.last_chunk().and_then(decoded) {
            plain.truncate(plain.len() - 3);
            plain.push(byte.to_ascii_lowercase());
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn decoded(code: &[u8; 3]) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    match *code {
        [b'%', high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_path_is_known_however_it_is_written() {
        for path in [
            "/eth/v1/keystores",
            "/eth/v1/keystores/",
            "/eth/v1//keystores",
            "/eth/V1/KeyStores",
            "/eth/v1/key%73tores",
            "/eth/v1/key%2573tores",
            "/eth/v1/%25%36%62eystores",
            "/eth/v1%2fkeystores",
            "/eth/v1/keystores;a=b",
            "/eth/v1/remotekeys/x",
            "/eth/v1/validator/0X93/feerecipient",
            "/eth/v1/validator/%30x93/graffiti",
        ] {
            assert!(is_blocked(&Beacon::default(), &plain(path)), "{path}");
        }
        for path in ["/eth/v1/node/version", "/eth/v1/keystores%zz", "/eth/v1/%", "/eth/v1/validator/liveness/1"] {
            assert!(!is_blocked(&Beacon::default(), &plain(path)), "{path}");
        }
    }

    #[test]
    fn path_encoded_a_thousand_times_is_decoded_in_one_go() {
        let deep = format!("/eth/v1/%{}6beystores", "25".repeat(20_000));
        assert!(is_blocked(&Beacon::default(), &plain(&deep)));
    }
}
