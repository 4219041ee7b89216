//! Refuses requests by their heads, and gives refusals their form.
//!
//! A web page can send requests here from its visitor's machine. The browser names the page's
//! origin in `Origin`. For an image, or another part of a page that the page may not read, there is
//! no `Origin`, but `Sec-Fetch-Site` says that another site asks. And if the page made its own name
//! point here, the request asks by that name in `Host`.

use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Version, header};

use crate::{config::Origins, domain::refusal::Refusal, door::site::Site};

/// The answer at `/`, for load balancers and for people who look.
pub(super) const HOME: &str = "Steadfast: Ethereum JSON-RPC by POST or WebSocket here, the beacon API below eth/\n";

/// Why a request is not served.
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
    /// A header that names an acceptable value.
    pub(super) hint: Option<(HeaderName, &'static str)>,
}

impl Refused {
    pub(super) const fn new(status: StatusCode, why: &'static str) -> Self {
        Self { status, why, hint: None }
    }
}

/// The client closed its side before the body was whole.
pub(super) const NOT_WHOLE: Refused = Refused::new(StatusCode::BAD_REQUEST, "the body did not come whole");
/// The body came too slowly.
pub(super) const NOT_IN_TIME: Refused = Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");

/// Whether the request has exactly one `Host`, with a name by which the proxy may be asked.
pub(super) fn check_host<B>(site: &Site, request: &Request<B>) -> Result<(), Refused> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if request.version() >= Version::HTTP_11 => {
            return Err(Refused::new(StatusCode::BAD_REQUEST, "the request has no Host"));
        }
        (Some(_), Some(_)) => return Err(Refused::new(StatusCode::BAD_REQUEST, "the request has two lines of Host")),
        _ => {}
    }
    let named = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    // A request to a proxy names the host before the path, too.
    let in_target = request.uri().authority().map(|authority| authority.as_str().as_bytes());
    if named.into_iter().chain(in_target).all(|host| site.hosts.allows(host)) {
        return Ok(());
    }
    let why = "not served by this name: ask by address or as localhost, or name it in `hosts`";
    Err(Refused::new(StatusCode::FORBIDDEN, why))
}

/// Whether the request comes from no web page, or from a page that may call.
pub(super) fn check_origin<B>(site: &Site, request: &Request<B>) -> Result<(), Refused> {
    let headers = request.headers();
    let is_foreign = |from: &HeaderValue| !matches!(from.as_bytes(), b"same-origin" | b"none");
    let has_origin = headers.contains_key(header::ORIGIN);
    if !has_origin && site.origins != Origins::Any && headers.get_all("sec-fetch-site").iter().any(is_foreign) {
        let why = "a part of a web page may not call here: the request has no `Origin`";
        return Err(Refused::new(StatusCode::FORBIDDEN, why));
    }
    if headers.get_all(header::ORIGIN).iter().all(|origin| site.origins.allow(origin.as_bytes())) {
        return Ok(());
    }
    let why = "a web page of this origin may not call here: name its origin in `cors.origins`";
    Err(Refused::new(StatusCode::FORBIDDEN, why))
}

/// Whether the body comes as it is, or in chunks: other codings of the transfer are not undone.
pub(super) fn check_transfer<B>(request: &Request<B>) -> Result<(), Refused> {
    let mut codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_chunks = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_none_or(is_chunks) && codings.next().is_none() {
        return Ok(());
    }
    Err(Refused::new(StatusCode::NOT_IMPLEMENTED, "the transfer is coded: send the body as it is, or in chunks"))
}

/// Whether a call's body is without compression: the proxy reads calls.
pub(super) fn check_coding<B>(request: &Request<B>) -> Result<(), Refused> {
    let codings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    let mut codings = codings.flat_map(|value| value.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii);
    if codings.all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let why = "the body is compressed: send it as it is";
    let hint = Some((header::ACCEPT_ENCODING, "identity"));
    Err(Refused { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, why, hint })
}

/// The body of a refusal: a JSON-RPC error, or an error of the beacon API.
pub(super) fn body(status: StatusCode, why: &'static str, is_beacon: bool) -> Vec<u8> {
    if is_beacon {
        return serde_json::json!({ "code": status.as_u16(), "message": why }).to_string().into_bytes();
    }
    if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        let error = serde_json::json!({ "code": -32002, "message": why, "data": { "reason": "unavailable" } });
        return serde_json::json!({ "jsonrpc": "2.0", "id": null, "error": error }).to_string().into_bytes();
    }
    Refusal::NotARequest(why).body(None)
}

/// Whether the request asks to become a WebSocket.
pub(super) fn asks_to_switch<B>(request: &Request<B>) -> bool {
    let asked = request.headers().get_all(header::UPGRADE).iter();
    request.method() == Method::GET && asked.flat_map(|value| value.as_bytes().split(|&b| b == b',')).any(is_websocket)
}

fn is_websocket(protocol: &[u8]) -> bool {
    protocol.trim_ascii().eq_ignore_ascii_case(b"websocket")
}

/// The part behind `/health`, for a path that asks for health.
pub(super) fn health_of(path: &str) -> Option<&str> {
    path.strip_prefix("/health").filter(|part| part.is_empty() || part.starts_with('/'))
}
