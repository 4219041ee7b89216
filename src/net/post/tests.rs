//! Requests over loopback sockets, to servers that misbehave.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use super::*;
use crate::net::{names::Done, system};

/// A server that answers each request with `words`, and remembers the requests.
struct TestServer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    /// Bytes written of bodies without end.
    endless: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    async fn start(words: &'static str) -> Self {
        Self::start_with(words, None).await
    }

    async fn start_with(words: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let endless: Arc<AtomicUsize> = Arc::default();
        let (seen, written) = (requests.clone(), endless.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, written, tls) = (seen.clone(), written.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, words, &seen, &written).await;
                            }
                        }
                        None => serve(stream, words, &seen, &written).await,
                    }
                });
            }
        });
        Self { address, requests, endless, task }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn post(&self, host: &str) -> HttpPost {
        let url = format!("http://{host}:{}/hook?k=v", self.address.port());
        HttpPost::new(server(&url.parse().unwrap(), true), names(&["127.0.0.1"])).unwrap()
    }
}

/// Reads requests with a `Content-Length`, and answers them.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    words: &str,
    seen: &Mutex<Vec<String>>,
    written: &AtomicUsize,
) {
    let mut text = Vec::new();
    loop {
        let is_whole = |text: &[u8]| {
            let text = String::from_utf8_lossy(text).into_owned();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?.parse::<usize>().ok()?;
            (body.len() >= length).then_some(text.clone())
        };
        match stream.read_buf(&mut text).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(request) = is_whole(&text) {
            seen.lock().unwrap().push(request);
            text.clear();
            if stream.write_all(words.as_bytes()).await.is_err() {
                return;
            }
            // A server that promises a body and gives none, or too much.
            if words.contains("endless") {
                while stream.write_all(&[b'x'; 4096]).await.is_ok() {
                    written.fetch_add(4096, SeqCst);
                }
            }
        }
    }
}

fn server(url: &Url, allow_private: bool) -> Server<'_> {
    Server { url, allow_private, ca_file: None }
}

struct Fixed(&'static [&'static str]);

impl crate::net::names::Resolve for Fixed {
    fn resolve(&self, _: &str, done: Done) {
        done(Ok(self.0.iter().map(|text| text.parse().unwrap()).collect()));
    }
}

fn names(addresses: &'static [&'static str]) -> Arc<Names> {
    Arc::new(Names::new(Fixed(addresses)))
}

async fn send(post: &HttpPost) -> Result<Answer, PostError> {
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", HeaderValue::from_static("evt_1"));
    timeout(Duration::from_secs(20), post.post(headers, Bytes::from_static(b"{\"a\":1}"))).await.expect("no answer")
}

#[tokio::test]
async fn a_request_has_its_headers_and_its_body() {
    let server = TestServer::start("HTTP/1.1 202 Accepted\r\nretry-after: 7\r\ncontent-length: 2\r\n\r\nok").await;
    let post = server.post("hooks.example");
    let answer = send(&post).await.unwrap();
    assert_eq!((answer.status, answer.retry_after), (StatusCode::ACCEPTED, Some(HeaderValue::from_static("7"))));
    send(&post).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    let request = &requests[0];
    assert!(request.starts_with("POST /hook?k=v HTTP/1.1\r\n"), "{request}");
    for line in ["webhook-id: evt_1\r\n", "host: hooks.example:", "user-agent: steadfast/", "\r\n\r\n{\"a\":1}"] {
        assert!(request.contains(line), "{line} is not in {request}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let target = TestServer::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let location = format!("HTTP/1.1 307 T\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n", target.address);
    let server = TestServer::start(location.leak()).await;
    assert_eq!(send(&server.post("hooks.example")).await.unwrap().status, 307);
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn a_body_without_end_or_that_never_comes_changes_nothing() {
    for words in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this",
        "HTTP/1.1 200 endless\r\ntransfer-encoding: identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nthis is no chunk",
    ] {
        let server = TestServer::start(words).await;
        assert_eq!(send(&server.post("hooks.example")).await.unwrap().status, 200, "{words}");
        // Sockets hold more than is read.
        let written = server.endless.load(SeqCst);
        assert!(written < 16 << 20, "{written} bytes were taken of a body that is not looked at");
    }
}

#[tokio::test]
async fn user_and_password_of_the_url_are_sent_and_never_told() {
    let server = TestServer::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let url = format!("http://user:s3cret@hooks.example:{}/", server.address.port()).parse().unwrap();
    let post = HttpPost::new(self::server(&url, true), names(&["127.0.0.1"])).unwrap();
    send(&post).await.unwrap();
    assert!(server.requests()[0].contains("authorization: Basic dXNlcjpzM2NyZXQ="), "{:?}", server.requests());
}

#[tokio::test]
async fn an_error_says_why_without_the_url() {
    let closed = TestServer::start("").await;
    let port = closed.address.port();
    drop(closed);
    sleep(Duration::from_millis(50)).await;
    let url = format!("http://hooks.example:{port}/k3y?token=t0ken").parse().unwrap();
    let post = HttpPost::new(server(&url, true), names(&["127.0.0.1"])).unwrap();
    let error = send(&post).await.unwrap_err().to_string();
    assert!(error.to_lowercase().contains("refused"), "{error}");
    assert!(!error.contains("k3y") && !error.contains("t0ken"), "{error}");
}

#[tokio::test]
async fn a_private_address_is_not_dialled_by_name_or_literally() {
    let server = TestServer::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let port = server.address.port();
    let url: Url = format!("http://hooks.example:{port}/").parse().unwrap();
    for addresses in [&["127.0.0.1"] as &'static [&'static str], &["::ffff:127.0.0.1"], &["10.0.0.1"]] {
        let post = HttpPost::new(self::server(&url, false), names(addresses)).unwrap();
        assert_eq!(send(&post).await, Err(PostError::Forbidden), "{addresses:?}");
    }
    let post = HttpPost::new(self::server(&url, true), names(&["169.254.169.254"])).unwrap();
    assert_eq!(send(&post).await, Err(PostError::Forbidden), "metadata by a name that is allowed");
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "0x7f000001"] {
        let url: Url = format!("http://{host}:{port}/").parse().unwrap();
        let error = HttpPost::new(self::server(&url, false), names(&[])).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{host}");
    }
    let url: Url = format!("http://0x7f000001:{port}/").parse().unwrap();
    assert!(HttpPost::new(self::server(&url, true), names(&[])).is_err(), "it is written as a name");
    assert!(server.requests().is_empty());
    let post = server.post("127.0.0.1");
    assert_eq!(send(&post).await.unwrap().status, 200, "allowed by its name");
}

#[tokio::test]
async fn tls_trusts_the_ca_file_and_nobody_else() {
    let ca = CertifiedIssuer::self_signed(
        {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params
        },
        KeyPair::generate().unwrap(),
    )
    .unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["hooks.example".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    let words = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let server = TestServer::start_with(words, Some(TlsAcceptor::from(Arc::new(config)))).await;
    let trusted = CaFile { path: "ca.pem".into(), certificates: vec![ca.der().clone()] };
    let post = |host: &str, ca_file| {
        let url = format!("https://{host}:{}/", server.address.port()).parse().unwrap();
        HttpPost::new(Server { url: &url, allow_private: true, ca_file }, names(&["127.0.0.1"])).unwrap()
    };
    assert_eq!(send(&post("hooks.example", Some(&trusted))).await.unwrap().status, 200);
    let error = send(&post("hooks.example", None)).await.unwrap_err().to_string();
    assert!(error.contains("UnknownIssuer"), "{error}");
    let error = send(&post("other.example", Some(&trusted))).await.unwrap_err().to_string();
    assert!(error.contains("not valid for name"), "{error}");
}

#[tokio::test]
async fn the_systems_names_are_looked_up_by_the_tree() {
    let server = TestServer::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let url: Url = format!("http://localhost:{}/", server.address.port()).parse().unwrap();
    let post = HttpPost::new(self::server(&url, true), system::names()).unwrap();
    assert_eq!(send(&post).await.unwrap().status, 200);
    let post = HttpPost::new(self::server(&url, false), system::names()).unwrap();
    assert_eq!(send(&post).await, Err(PostError::Forbidden));
}
