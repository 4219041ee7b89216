//! `[tracing]`: spans of clients' requests, and their collector.

use http::{HeaderName, HeaderValue};

use super::{Url, header, node::http_url, problem::Invalid, reader::Reader, secret::Secret};

/// The number of requests without a trace of which one has a span, if nothing else is set.
const SAMPLE: u64 = 100;
/// The most requests of which one has a span.
const MOST_REQUESTS: u64 = 1_000_000_000;
/// The path of spans below a collector's URL.
const TRACES: &str = "/v1/traces";
/// Whether this build can export spans.
const IS_BUILT_IN: bool = cfg!(feature = "otlp");

/// The collector, and the requests that have spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracing {
    /// The base URL of the collector that takes OTLP over HTTP; `None`: no request has a span. May
    /// hold secrets.
    pub endpoint: Option<Url>,
    /// Headers for the collector. May hold secrets.
    pub headers: Vec<(HeaderName, Secret<HeaderValue>)>,
    /// The number of requests without a trace of which one has a span; 0: none has. The client
    /// decides about a request with a trace.
    pub sample: u64,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { endpoint: None, headers: Vec::new(), sample: SAMPLE }
    }
}

impl Tracing {
    pub(super) fn read(mut r: Reader<'_>) -> Self {
        let default = Self::default();
        let endpoint = r.parse("endpoint", endpoint);
        let headers = header::table(&mut r);
        r.check(
            headers.is_empty() || endpoint.is_some(),
            "headers",
            &["endpoint"],
            "are for a collector: set `endpoint` too",
        );
        Self { endpoint, headers, sample: r.integer("sample", 0..=MOST_REQUESTS).unwrap_or(default.sample) }
    }
}

fn endpoint(text: &str) -> Result<Url, Invalid> {
    let url = http_url(text)?;
    if url.target().expose().path().trim_end_matches('/').ends_with(TRACES) {
        return Err(Invalid("must be the collector's base URL, without /v1/traces at its end"));
    }
    if !IS_BUILT_IN {
        return Err(Invalid(
            "needs a Steadfast with the feature `otlp`, and this build lacks the feature: use the image, or build \
             with `cargo build --release --features otlp`",
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn read(settings: &str) -> Result<Config, String> {
        let settings = format!("[[el.primary]]\nhttp = \"http://127.0.0.1:1\"\n[tracing]\n{settings}");
        Config::parse(&settings, &|_| Some("s3cret".to_owned())).map_err(|errors| errors.to_string())
    }

    #[test]
    #[cfg(not(feature = "otlp"))]
    fn a_build_without_the_export_refuses_the_collector() {
        let why = read("endpoint = \"http://127.0.0.1:4318\"").unwrap_err();
        assert!(why.contains("tracing.endpoint") && why.contains("--features otlp"), "{why}");
        assert!(read("sample = 5").is_ok());
    }

    #[test]
    #[cfg(feature = "otlp")]
    fn a_collector_is_read_without_telling_its_secrets() {
        let settings = "endpoint = \"https://user:s3cret@otlp.example/k3y\"\nsample = 5\n\
                        headers = { x-api-key = \"${KEY}\" }";
        let tracing = read(settings).unwrap().tracing;
        assert_eq!((tracing.sample, tracing.headers.len()), (5, 1));
        assert_eq!(tracing.headers[0].1.expose(), "s3cret");
        let told = format!("{tracing:?}");
        assert!(!told.contains("s3cret") && !told.contains("k3y"), "{told}");
    }

    #[test]
    fn a_collector_is_a_base_url() {
        for (settings, wanted) in [
            ("endpoint = \"http://127.0.0.1:4318/v1/traces\"", "without /v1/traces"),
            ("endpoint = \"http://127.0.0.1:4318/v1/traces/\"", "without /v1/traces"),
            ("endpoint = \"ws://127.0.0.1:4318\"", "http:// or https://"),
            ("headers = { a = \"b\" }", "set `endpoint` too"),
            ("sample = -1", "tracing.sample"),
        ] {
            let why = read(settings).unwrap_err();
            assert!(why.contains(wanted), "{settings}: {why}");
        }
    }
}
