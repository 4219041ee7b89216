//! Whether a request may become a WebSocket, and the answer to the request.

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{config::Origins, domain::refusal::Refusal, door::NotAdmitted};

/// Looks at a request that asks for a WebSocket. Web pages of these `origins` may have one, and so
/// may clients that are no web pages.
///
/// # Errors
/// With the answer to give instead.
pub(super) fn answer<B>(
    request: &Request<B>,
    origins: &Origins,
) -> Result<Vec<(HeaderName, HeaderValue)>, NotAdmitted> {
    let headers = request.headers();
    let refuse = |status, why, hint| Err(NotAdmitted { status, why: Refusal::NotARequest(why), hint });
    if request.version() != Version::HTTP_11 || !has_token(headers, header::CONNECTION, b"upgrade") {
        return refuse(StatusCode::BAD_REQUEST, "a WebSocket needs HTTP/1.1 and connection: upgrade", None);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let hint = Some((header::SEC_WEBSOCKET_VERSION, "13"));
        return refuse(StatusCode::UPGRADE_REQUIRED, "WebSockets are of version 13 here", hint);
    }
    if headers.get_all(header::ORIGIN).iter().any(|origin| !origins.allow(origin.as_bytes())) {
        return refuse(
            StatusCode::FORBIDDEN,
            "a web page of this origin may not connect here; see ws.allow_origins",
            None,
        );
    }
    // Sixteen bytes in Base64.
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).filter(|key| key.len() == 24);
    let accept = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key)).ok());
    let Some(accept) = accept else {
        return refuse(StatusCode::BAD_REQUEST, "sec-websocket-key is missing or wrong", None);
    };
    Ok(vec![
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ])
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &[u8]) -> bool {
    let values = headers.get_all(name).iter();
    values
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token))
}
