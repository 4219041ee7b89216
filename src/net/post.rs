//! Requests to servers of others: endpoints that are told of events.
//!
//! A server of others is not believed: its name may lead into the operator's own network, and its
//! answer may be endless or point elsewhere. So each address is looked at before it is dialled,
//! redirects are not followed, proxies of the environment are not used, and of the answer only the
//! status and `Retry-After` are taken.

mod guard;
#[cfg(test)]
mod tests;

use std::{error::Error, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header::RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Response, redirect, retry};
use tokio::time::timeout;

use self::guard::{Forbidden, Guard};
use super::{BoxFuture, names::Names, tls};
use crate::config::{CaFile, Url};

/// Idle connections that are kept to one server.
const MAX_IDLE: usize = 8;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// How much of an answer's body is read, so that the connection can be used again.
const MAX_DRAINED: usize = 16 << 10;
/// How long that may take.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// How much of an error's text is kept.
const MAX_ERROR: usize = 300;

/// A client for the command line's and tests' own requests, without a proxy of the environment.
pub fn plain() -> ClientBuilder {
    tls::provide();
    Client::builder().no_proxy()
}

/// Sends POST requests to one server.
pub trait Post: Send + Sync + 'static {
    /// Sends `body` with `headers`. The caller limits the time; dropping the future gives up.
    fn post(&self, headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>>;
}

/// The part of an answer that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The value of `Retry-After`.
    pub retry_after: Option<HeaderValue>,
}

/// Why there was no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// The server's host has no address that may be dialled.
    #[error("{}", guard::Forbidden)]
    Forbidden,
    /// The request failed, in the words of the network or the TLS library. The URL is not in them.
    #[error("{0}")]
    Failed(String),
}

/// The server that requests go to.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Where.
    pub url: &'a Url,
    /// Whether its host may have a private address.
    pub allow_private: bool,
    /// Authorities that are trusted beside the platform's.
    pub ca_file: Option<&'a CaFile>,
}

/// The production [`Post`]: HTTP/1.1 over TCP and TLS.
pub struct HttpPost {
    client: Client,
    url: reqwest::Url,
    auth: Option<HeaderValue>,
}

impl HttpPost {
    /// Prepares requests to `server`, whose name `names` looks up.
    ///
    /// # Errors
    /// When a certificate of the CA file means nothing, or the URL has a host that must not be
    /// dialled.
    pub fn new(server: Server<'_>, names: Arc<Names>) -> io::Result<Self> {
        let Server { url, allow_private, ca_file } = server;
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let (scheme, authority) = (url.scheme().as_str(), url.authority());
        let parsed: reqwest::Url = format!("{scheme}://{authority}{}", url.target().expose())
            .parse()
            .map_err(|_| invalid("the URL cannot be used for requests".to_owned()))?;
        // A literal is dialled without a lookup; this library reads more texts as one than ours.
        guard::check_literal(parsed.host_str().unwrap_or_default(), url.host(), allow_private)
            .map_err(|error| invalid(error.to_string()))?;
        let certificates = ca_file.map(|file| &*file.certificates).unwrap_or_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .dns_resolver(Arc::new(Guard::new(names, allow_private)))
            .tls_backend_preconfigured(tls::client_config(certificates)?)
            .pool_max_idle_per_host(MAX_IDLE)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!("steadfast/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| invalid(words(&error.without_url())))?;
        Ok(Self { client, url: parsed, auth: url.basic_auth().map(|auth| auth.expose().clone()) })
    }
}

impl Post for HttpPost {
    fn post(&self, mut headers: HeaderMap, body: Bytes) -> BoxFuture<'_, Result<Answer, PostError>> {
        if let Some(auth) = &self.auth {
            headers.insert(http::header::AUTHORIZATION, auth.clone());
        }
        Box::pin(async move {
            let request = self.client.post(self.url.clone()).headers(headers).body(body);
            let response = request.send().await.map_err(told)?;
            let retry_after = response.headers().get(RETRY_AFTER).cloned();
            let answer = Answer { status: response.status(), retry_after };
            // The answer is known already: how its body ends changes nothing.
            let _ = timeout(DRAIN_TIMEOUT, drain(response)).await;
            Ok(answer)
        })
    }
}

/// Reads a short body to its end. A longer one is dropped with its connection.
async fn drain(mut response: Response) {
    let mut left = MAX_DRAINED;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}

fn told(error: reqwest::Error) -> PostError {
    let error = error.without_url();
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if error.is::<Forbidden>() {
            return PostError::Forbidden;
        }
        cause = error.source();
    }
    PostError::Failed(words(&error))
}

/// The error and its causes on a line. A text that repeats its cause is told once.
fn words(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_ERROR).collect()
}
