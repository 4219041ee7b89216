//! The client's requests: over connections that are kept, each request tried once.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};

use crate::net::{Dial, Endpoint};

type Sender = SendRequest<Full<Bytes>>;

/// How long a stream may take to begin.
const OPENING: Duration = Duration::from_secs(5);

pub(super) struct Http {
    dial: Arc<dyn Dial>,
    to: Endpoint,
    agent: String,
    keeps: bool,
    idle: Mutex<Vec<Sender>>,
    /// The tasks that drive the connections; dropping the client ends the tasks.
    driving: Mutex<JoinSet<()>>,
}

impl Http {
    pub(super) fn new(dial: Arc<dyn Dial>, to: Endpoint, agent: &str, keeps: bool) -> Self {
        Self { dial, to, agent: agent.to_owned(), keeps, idle: Mutex::default(), driving: Mutex::default() }
    }

    /// The JSON of the answer to a GET; none unless the status is 200.
    pub(super) async fn get(&self, path: &str, limit: Duration) -> Option<Value> {
        let (status, body) = timeout(limit, self.exchange(Method::GET, path, Bytes::new())).await.ok()?.ok()?;
        if status == StatusCode::OK { serde_json::from_slice(&body).ok() } else { None }
    }

    /// The JSON of the answer to a POST, null if the body is empty; none unless the status is a
    /// success.
    pub(super) async fn post(&self, path: &str, body: &Value, limit: Duration) -> Option<Value> {
        let body = Bytes::from(body.to_string());
        let (status, body) = timeout(limit, self.exchange(Method::POST, path, body)).await.ok()?.ok()?;
        status.is_success().then(|| serde_json::from_slice(&body).unwrap_or_default())
    }

    /// A stream of events, over a connection of its own.
    pub(super) async fn stream(&self, path: &str) -> Option<Incoming> {
        let opening = async {
            let mut sender = self.connect().await.ok()?;
            let response = sender.send_request(self.request(Method::GET, path, Bytes::new())).await.ok()?;
            (response.status() == StatusCode::OK).then(|| response.into_body())
        };
        timeout(OPENING, opening).await.ok()?
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> io::Result<(StatusCode, Bytes)> {
        loop {
            let kept = self.kept();
            let is_kept = kept.is_some();
            let mut sender = match kept {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let outcome = match sender.ready().await {
                Ok(()) => sender.try_send_request(self.request(method.clone(), path, body.clone())).await,
                Err(_) if is_kept => continue,
                Err(error) => return Err(io::Error::other(error)),
            };
            let response: Response<Incoming> = match outcome {
                Ok(response) => response,
                // The kept connection was closed before a byte of the request had left, so another
                // may be tried.
                Err(mut error) => match error.take_message() {
                    Some(_) if is_kept => continue,
                    _ => return Err(io::Error::other(error.into_error())),
                },
            };
            let status = response.status();
            let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
            if self.keeps {
                lock(&self.idle).push(sender);
            }
            return Ok((status, body));
        }
    }

    fn kept(&self) -> Option<Sender> {
        let mut idle = lock(&self.idle);
        idle.retain(|sender| !sender.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> io::Result<Sender> {
        let io = self.dial.dial(&self.to).await?;
        let (sender, connection) = handshake(TokioIo::new(io)).await.map_err(io::Error::other)?;
        let mut driving = lock(&self.driving);
        while driving.try_join_next().is_some() {}
        // The request on the connection reports how the connection ended.
        driving.spawn(async move { _ = connection.await });
        Ok(sender)
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = path.parse().unwrap_or_default();
        let headers = request.headers_mut();
        let value = |text: &str| header::HeaderValue::from_str(text).unwrap_or(header::HeaderValue::from_static("-"));
        headers.insert(header::HOST, value(&self.to.to_string()));
        headers.insert(header::USER_AGENT, value(&self.agent));
        headers.insert(
            header::ACCEPT,
            value(if path.contains("/events") { "text/event-stream" } else { "application/json" }),
        );
        if method == Method::POST {
            headers.insert(header::CONTENT_TYPE, value("application/json"));
            headers.insert("eth-consensus-version", value("electra"));
        }
        *request.method_mut() = method;
        request
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
