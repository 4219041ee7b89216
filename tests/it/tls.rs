//! Nodes reached by https: trusted by the authority that the operator named, and by nothing less.

use std::{path::PathBuf, sync::Arc};

use crate::common::{
    client::call,
    origin::{BoxStream, Origin, Reply},
    proxy::Proxy,
    until,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// An authority of the test's own, and its certificate as a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: PathBuf,
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = std::env::temp_dir().join(format!("steadfast-test-{}-{name}.pem", std::process::id()));
    std::fs::write(&file, issuer.pem()).unwrap();
    Authority { issuer, file }
}

/// A node with a certificate for `host`, which `authority` signed.
async fn node(authority: &Authority, host: &str) -> Origin {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority.issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let wrap = move |io: BoxStream| {
        let acceptor = acceptor.clone();
        let wrapped: std::pin::Pin<Box<dyn Future<Output = Option<BoxStream>> + Send>> = Box::pin(async move {
            // A proxy that does not trust us ends the handshake.
            let stream = acceptor.accept(io).await.ok()?;
            Some(Box::new(stream) as BoxStream)
        });
        wrapped
    };
    Origin::wrapped(|seen| Reply::result(seen, &seen.params()), Some(Box::new(wrap))).await
}

const KEY: &str = "very-secret-key";
const TOKEN: &str = "very-secret-token";

fn settings(origin: &Origin, host: &str, ca: Option<&Authority>) -> String {
    let ca = ca.map_or_else(String::new, |ca| format!("ca_file = {:?}\n", ca.file));
    let port = origin.port();
    format!(
        "[[el.primary]]\nname = \"el-1\"\nhttp = \"https://{host}:{port}/v2/{KEY}\"\nheaders = {{ Authorization = \
         \"Bearer {TOKEN}\" }}\n{ca}"
    )
}

#[tokio::test]
async fn a_node_whose_authority_is_named_is_called_over_tls() {
    let authority = authority("good");
    for host in ["localhost", "127.0.0.1"] {
        let origin = node(&authority, host).await;
        let proxy = Proxy::start(&settings(&origin, host, Some(&authority))).await;
        let mut client = proxy.client().await;
        let long = format!("[\"{}\"]", "t".repeat(1_000_000));
        for params in ["[1]", &long, "[2]"] {
            let text = client.post(call(1, "eth_call", params)).await.text();
            assert!(text == format!(r#"{{"jsonrpc":"2.0","id":1,"result":{params}}}"#), "{} bytes", text.len());
        }
        let seen = origin.seen();
        assert!(seen[0].head.starts_with(&format!("POST /v2/{KEY} HTTP/1.1\r\n")));
        assert_eq!(seen[0].header("host"), [format!("{host}:{}", origin.port())]);
        assert_eq!(seen[0].header("authorization"), [format!("Bearer {TOKEN}")]);
        assert!(seen.iter().all(|one| one.connection == seen[0].connection), "TLS connections are kept, too");
    }
}

/// Starts a proxy that must not trust its node; returns what `/status` says of that.
async fn distrusted(origin: &Origin, settings: &str) -> String {
    let proxy = Proxy::launch(settings).await;
    until("the failure shows", async || proxy.node("el-1").await["last_error"].is_object()).await;
    let node = proxy.node("el-1").await;
    assert_eq!(node["usable"], false);
    assert_eq!(origin.bytes(), b"", "something was sent to a node that is not who it should be");
    for place in ["GET /status", "GET /metrics"] {
        let text = proxy.admin(place).await.text();
        assert!(!text.contains(KEY) && !text.contains(TOKEN), "{place} shows a secret: {text}");
    }
    let refused = proxy.post(call(1, "eth_call", "[]")).await;
    assert_eq!(refused.json()["error"]["data"]["reason"], "no_node");
    assert!(!refused.text().contains(KEY));
    node["last_error"]["message"].as_str().unwrap().to_owned()
}

const NO_WAIT: &str = "calls.hold = \"100ms\"\n";

#[tokio::test]
async fn a_node_of_an_unknown_authority_is_refused_with_a_reason() {
    let authority = authority("unnamed");
    let origin = node(&authority, "localhost").await;
    let error = distrusted(&origin, &format!("{NO_WAIT}{}", settings(&origin, "localhost", None))).await;
    assert!(error.contains("certificate") && error.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn another_authority_than_the_nodes_own_does_not_do() {
    let (own, other) = (authority("own"), authority("other"));
    let origin = node(&own, "localhost").await;
    let error = distrusted(&origin, &format!("{NO_WAIT}{}", settings(&origin, "localhost", Some(&other)))).await;
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_told_with_both_names() {
    let authority = authority("name");
    let origin = node(&authority, "other.example").await;
    let error = distrusted(&origin, &format!("{NO_WAIT}{}", settings(&origin, "localhost", Some(&authority)))).await;
    assert!(error.contains("localhost") && error.contains("other.example"), "{error}");
}

#[tokio::test]
async fn a_plain_node_behind_https_fails_in_words() {
    let origin = Origin::echo().await;
    let authority = authority("plain");
    let settings = format!("{NO_WAIT}{}", settings(&origin, "localhost", Some(&authority)));
    let proxy = Proxy::launch(&settings).await;
    until("the failure shows", async || proxy.node("el-1").await["last_error"].is_object()).await;
    assert_eq!(proxy.node("el-1").await["usable"], false);
    assert!(!String::from_utf8_lossy(&origin.bytes()).contains(TOKEN));
}
