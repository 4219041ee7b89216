//! The dashboard's files, which are part of the binary: the page, and what the page loads.
//!
//! The page shows what [`super::live`] tells. Its policy lets it load nothing from anywhere else.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;

/// A file.
struct File {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

const PAGE: File = File { path: "/", kind: "text/html; charset=utf-8", text: include_str!("dashboard/index.html") };

const FILES: [File; 6] = [
    File {
        path: "/dashboard/dashboard.css",
        kind: "text/css; charset=utf-8",
        text: include_str!("dashboard/dashboard.css"),
    },
    script("/dashboard/main.js", include_str!("dashboard/main.js")),
    script("/dashboard/model.js", include_str!("dashboard/model.js")),
    script("/dashboard/cluster.js", include_str!("dashboard/cluster.js")),
    script("/dashboard/draw.js", include_str!("dashboard/draw.js")),
    script("/dashboard/words.js", include_str!("dashboard/words.js")),
];

const fn script(path: &'static str, text: &'static str) -> File {
    File { path, kind: "text/javascript; charset=utf-8", text }
}

/// The page and its files come with these. Another version of the proxy has other files, so that a
/// browser asks each time whether its copy is still right.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-cache"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::VARY, "accept"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The path at which many products have their dashboard. The page is at the root.
const USUAL: &str = "/dashboard";

/// The file that a GET request is for, if there is one. Only browsers get the page.
pub(super) fn answer<B>(request: &Request<B>) -> Option<Response<Full<Bytes>>> {
    let path = request.uri().path();
    if path == USUAL {
        return Some(to_the_page());
    }
    let file = if path == PAGE.path {
        Some(&PAGE).filter(|_| wants_page(request))
    } else {
        FILES.iter().find(|file| file.path == path)
    }?;
    let tag = format!("\"{:016x}\"", hash(file.text));
    let known = request.headers().get_all(header::IF_NONE_MATCH).iter();
    let is_known = known.filter_map(|value| value.to_str().ok()).any(|tags| tags.contains(&tag));
    let mut response = Response::new(Full::default());
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Full::new(Bytes::from_static(file.text.as_bytes()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(file.kind));
    }
    response.headers_mut().extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response.headers_mut().extend(HeaderValue::try_from(tag).ok().map(|tag| (header::ETAG, tag)));
    Some(response)
}

/// Leads to the page from [`USUAL`]. The target is relative, since a gateway may have this side
/// below a path of its own.
fn to_the_page() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("./"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Whether the request comes from a browser that is to show the answer.
fn wants_page<B>(request: &Request<B>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.into_iter().any(|kinds| kinds.to_ascii_lowercase().contains("text/html"))
}

/// FNV-1a: the tag has to tell versions of a file apart, and nothing more.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_loads_only_its_own_files() {
        let all = || FILES.iter().chain([&PAGE]);
        for file in all() {
            let mut parts = file.text.split(['"', '\'']).skip(1);
            assert!(!parts.any(|part| part.starts_with("//")), "{}", file.path);
            // The name of SVG's elements is an address, and no browser goes there.
            let text = file.text.replace("http://www.w3.org/2000/svg", "");
            let addresses = text.matches("://").count();
            assert_eq!(addresses, 0, "{}", file.path);
        }
        for inline in ["<script>", "<style", "style=", "onclick", "onload"] {
            assert!(!PAGE.text.contains(inline), "the policy forbids {inline}");
        }
        for name in ["main.js", "dashboard.css"] {
            assert!(PAGE.text.contains(&format!("\"dashboard/{name}\"")), "{name}");
        }
        for script in all().filter(|file| file.path.ends_with(".js")) {
            for import in script.text.split("from './").skip(1).filter_map(|after| after.split('\'').next()) {
                assert!(FILES.iter().any(|file| file.path == format!("/dashboard/{import}")), "{import}");
            }
        }
    }
    /// Names and errors come from nodes, other replicas and the store.
    #[test]
    fn no_script_makes_markup_of_text() {
        let ways =
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "Fragment", "setHTML"];
        for script in FILES.iter().filter(|file| file.path.ends_with(".js")) {
            for way in ways.iter().chain(&["eval(", "Function("]) {
                assert!(!script.text.contains(way), "{} has {way}", script.path);
            }
        }
    }
}
