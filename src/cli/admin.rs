//! The client that the commands use to reach the admin side of a running proxy.

use std::{error::Error, time::Duration};

use clap::Args;
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// Which proxy.
#[derive(Args, Clone)]
pub(super) struct Admin {
    /// The proxy's admin side: its admin.listen [default: what STEADFAST_ADMIN says, or
    /// http://127.0.0.1:9545].
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// The variable that names the admin side where the command cannot be changed, as in a container's
/// health check.
const VARIABLE: &str = "STEADFAST_ADMIN";
const USUAL: &str = "http://127.0.0.1:9545";

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
    pub(super) fn url(&self) -> String {
        let url = self.admin.clone().or_else(|| std::env::var(VARIABLE).ok().filter(|url| !url.is_empty()));
        let url = url.unwrap_or_else(|| USUAL.to_owned());
        let url = url.trim_end_matches('/');
        if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
    }

    /// Sends a GET for `path`.
    pub(super) async fn get(&self, path: &str, patience: Duration) -> Result<Answer, String> {
        self.ask(Method::GET, path, patience).await
    }

    /// Sends a POST to `path`, which has the proxy act.
    pub(super) async fn post(&self, path: &str, patience: Duration) -> Result<Answer, String> {
        self.ask(Method::POST, path, patience).await
    }

    async fn ask(&self, method: Method, path: &str, patience: Duration) -> Result<Answer, String> {
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
        let client = crate::net::post::plain().timeout(patience).build().map_err(unreachable)?;
        let response = client.request(method, format!("{admin}{path}")).send().await.map_err(unreachable)?;
        let status = response.status();
        Ok(Answer { status, body: response.text().await.map_err(unreachable)? })
    }
}
