//! The client that the commands use to reach the admin side of a running proxy.

use std::{error::Error, fmt, time::Duration};

use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::config;

/// Which proxy.
#[derive(Args, Clone)]
pub(super) struct Admin {
    /// The proxy's admin side: its admin.listen. [default: what STEADFAST_ADMIN says, or
    /// http://127.0.0.1:9545]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// The variable that names the admin side where the command cannot be changed, as in a container's
/// health check.
const VARIABLE: &str = "STEADFAST_ADMIN";
const USUAL: &str = "http://127.0.0.1:9545";

/// The URL of a proxy's admin side. A gateway in front may ask for a password, so `Display` is
/// redacted: scheme, host and port are shown, and of the rest nothing that may be a key.
#[derive(Clone)]
pub(super) struct AdminUrl(String);

/// The answer of the admin side.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: String,
}

impl Answer {
    /// The answer as JSON; null where the body is no JSON.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Admin {
    /// Whether the command names the proxy.
    pub(super) fn is_named(&self) -> bool {
        self.admin.is_some()
    }

    /// Where the proxy is asked.
    pub(super) fn url(&self) -> AdminUrl {
        let url = self.admin.clone().or_else(|| std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()));
        let url = url.unwrap_or_else(|| USUAL.to_owned());
        AdminUrl::of(&url)
    }

    /// Sends a GET for `path`.
    pub(super) async fn get(&self, path: &str, time_limit: Duration) -> Result<Answer, String> {
        self.ask(Method::GET, path, time_limit).await
    }

    /// Sends a POST to `path`, which has the proxy act.
    pub(super) async fn post(&self, path: &str, time_limit: Duration) -> Result<Answer, String> {
        self.ask(Method::POST, path, time_limit).await
    }

    async fn ask(&self, method: Method, path: &str, time_limit: Duration) -> Result<Answer, String> {
        let admin = self.url();
        let unreachable = |error: reqwest::Error| {
            let error = error.without_url();
            let causes = std::iter::successors(Some(&error as &dyn Error), |&error| error.source());
            let error = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            format!(
                "{admin} does not answer as a proxy's admin side: {error}\n\
                 is the proxy running, and is this its admin.listen? --admin names another"
            )
        };
        let client = crate::net::post::plain().timeout(time_limit).build().map_err(unreachable)?;
        let response = client.request(method, admin.with(path)).send().await.map_err(unreachable)?;
        let status = response.status();
        Ok(Answer { status, body: response.text().await.map_err(unreachable)? })
    }
}

impl AdminUrl {
    /// The URL that an operator wrote, who may leave its scheme out.
    pub(super) fn of(url: &str) -> Self {
        let url = url.trim_end_matches('/');
        Self(if url.contains("://") { url.to_owned() } else { format!("http://{url}") })
    }

    /// The whole URL of `path` on the admin side, with its secrets.
    pub(super) fn with(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Ok(url) = self.0.parse::<config::Url>() {
            return url.fmt(f);
        }
        // No URL of the usual form: the host alone is shown.
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let rest = rest.rsplit('@').next().unwrap_or_default();
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        write!(f, "{scheme}://{host}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_of_an_admin_url_is_shown() {
        for (url, shown) in [
            ("127.0.0.1:9545", "http://127.0.0.1:9545"),
            ("http://127.0.0.1:9545/", "http://127.0.0.1:9545"),
            ("https://u:s3cret@ops.example/eth/s3cret?k=s3cret", "https://***@ops.example/eth/***?***"),
            ("u:s3cret@ops.example:1", "http://***@ops.example:1"),
            ("http://u:s3cret/s3cret@ops.example/x", "http://ops.example"),
            ("http://u:s3cret@[::1/#s3cret", "http://[::1"),
            ("http://ops.example:s3cret@/", "http://"),
        ] {
            assert_eq!(AdminUrl::of(url).to_string(), shown);
        }
        assert_eq!(AdminUrl::of("http://u:s3cret@a/").with("/status"), "http://u:s3cret@a/status");
    }
}
