//! How a link comes about, and how it goes on trying.

use std::{io, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use steadfast::net::{
    link::{Error, SubscribeError},
    tls::Tls,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};

use super::peer::{Dials, Linked, Node, Peer, SOON, TIMEOUTS, linked, target};

#[tokio::test(start_paused = true)]
async fn the_handshake_carries_the_path_the_headers_and_the_user() {
    for (user, more, authorization) in
        [("user:pass@", None, "Basic dXNlcjpwYXNz"), ("", Some(("authorization", "Bearer token")), "Bearer token")]
    {
        let (mut node, dial) = Node::new();
        let mut target = target(&format!("ws://{user}node:8546/v2/key?a=b"));
        target.headers.push(("X-Key".to_owned(), b"k".to_vec()));
        target.headers.extend(more.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())));
        let _linked = Linked::start(dial, target);
        let peer = node.accept().await;
        assert_eq!(peer.target, "/v2/key?a=b");
        let header = |name: &str| {
            let values: Vec<_> = peer.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
            values.join("|")
        };
        assert_eq!(header("host"), "node:8546");
        assert_eq!(header("authorization"), authorization);
        assert_eq!(header("x-key"), "k");
        assert_eq!(header("user-agent"), format!("steadfast/{}", env!("CARGO_PKG_VERSION")));
        assert_eq!(header("origin"), "", "a proxy is no web page");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_node_is_tried_again_with_growing_pauses() {
    let (mut node, dial) = Node::new();
    node.set(Dials::Refused);
    let linked = Linked::start(dial, target("ws://node/very-secret"));
    let mut attempts = Vec::new();
    let started = Instant::now();
    while attempts.len() < 10 {
        if node.dialled() > attempts.len() {
            attempts.push(started.elapsed());
        }
        assert!(started.elapsed() < SOON, "{attempts:?}");
        sleep(Duration::from_millis(1)).await;
    }
    for (n, pair) in attempts.windows(2).enumerate() {
        let most = Duration::from_millis(100 << n).min(Duration::from_secs(2));
        let pause = pair[1] - pair[0];
        assert!(
            pause + Duration::from_millis(3) >= most / 2 && pause <= most + Duration::from_millis(3),
            "{attempts:?}"
        );
    }
    assert!(linked.why().starts_with("cannot connect: ") && !linked.why().contains("secret"), "{}", linked.why());
    // No caller waits for a call that cannot be sent.
    assert_eq!(linked.link.call(b"{}", None).await, Err(Error::NotSent));
    let refused = linked.link.subscribe("eth_subscribe", "[]".into()).await;
    assert_eq!(refused.unwrap_err(), SubscribeError::Link(Error::NotSent));

    node.set(Dials::Accepted);
    let _peer = node.accept().await;
    linked.until(true).await;
    assert_eq!(linked.link.changes().borrow().epoch, 1);
    assert_eq!(linked.metric("link_reconnects_total{"), "0", "the first connection is no new one");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_come_about_in_time_is_given_up() {
    let (mut node, dial) = Node::new();
    node.set(Dials::Hang);
    let linked = Linked::start(dial, target("ws://node"));
    let started = Instant::now();
    let mut changes = linked.link.changes();
    // The dial hangs; then the handshake does.
    changes.changed().await.unwrap();
    assert_eq!(started.elapsed().as_secs(), TIMEOUTS.connect.as_secs());
    assert!(linked.why().contains("no connection within"), "{}", linked.why());
    node.set(Dials::Accepted);
    let mut mute = node.raw().await;
    let mut first = [0; 1024];
    assert!(mute.read(&mut first).await.unwrap() > 0);
    let started = Instant::now();
    let rest = timeout(SOON, mute.read_to_end(&mut Vec::new())).await;
    assert!(rest.is_ok() && started.elapsed() <= TIMEOUTS.connect + Duration::from_millis(10));
    let _peer = node.accept().await;
    linked.until(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_handshake_is_reported_with_its_status() {
    let (mut node, dial) = Node::new();
    let linked = Linked::start(dial, target("ws://node/very-secret"));
    let mut changes = linked.link.changes();
    for (answer, why) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 11\r\n\r\nvery-secret", "403 Forbidden"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200 OK"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "no WebSocket handshake"),
        ("SSH-2.0-OpenSSH\r\n", "no WebSocket handshake"),
    ] {
        let mut io = node.raw().await;
        let mut request = [0; 1024];
        assert!(io.read(&mut request).await.unwrap() > 0);
        io.write_all(answer.as_bytes()).await.unwrap();
        changes.changed().await.unwrap();
        assert!(linked.why().contains(why) && !linked.why().contains("secret"), "{}", linked.why());
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_known_to_be_back_is_dialled_without_a_pause() {
    let (mut node, dial) = Node::new();
    node.set(Dials::Refused);
    let linked = Linked::start(dial, target("ws://node"));
    sleep(Duration::from_secs(20)).await;
    node.set(Dials::Accepted);
    let started = Instant::now();
    let dialled = node.dialled();
    linked.link.hurry();
    let _peer = node.accept().await;
    linked.until(true).await;
    assert!(started.elapsed() < Duration::from_millis(50) && node.dialled() == dialled + 1, "{:?}", started.elapsed());
    // While the link is up there is nothing to hurry: the pause after its loss is kept.
    linked.link.hurry();
    linked.link.cut("for this test");
    linked.until(false).await;
    let started = Instant::now();
    node.accept().await;
    assert!(started.elapsed() >= Duration::from_millis(50), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_drops_every_connection_at_once_is_not_hammered() {
    let (linked, mut node, peer) = linked().await;
    drop(peer);
    let started = Instant::now();
    for _ in 0..10 {
        drop(node.accept().await);
    }
    assert!(started.elapsed() > Duration::from_secs(6), "{:?}", started.elapsed());
    // A connection that holds ends that.
    let peer = node.accept().await;
    sleep(Duration::from_secs(3)).await;
    drop(peer);
    linked.until(false).await;
    let started = Instant::now();
    node.accept().await;
    assert!(started.elapsed() <= Duration::from_millis(110), "{:?}", started.elapsed());
}

/// A certificate authority, and a server that it vouches for as `host`.
fn authority(host: &str) -> (CertifiedIssuer<'static, KeyPair>, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    (issuer, TlsAcceptor::from(Arc::new(config)))
}

async fn tls(node: &mut Node, acceptor: &TlsAcceptor) -> io::Result<TlsStream<DuplexStream>> {
    timeout(SOON, acceptor.accept(node.raw().await)).await.expect("a handshake")
}

// Not with the test's clock: certificates are good for a time.
#[tokio::test]
async fn wss_to_a_node_of_a_named_authority_survives_its_loss() {
    let (issuer, acceptor) = authority("node.example");
    let (mut node, dial) = Node::new();
    let mut target = target("wss://node.example/key");
    target.tls = Some(Tls::new("node.example", &[issuer.der().clone()]).unwrap());
    let linked = Linked::start(dial, target);
    for epoch in 1..3 {
        let mut peer = Peer::accept(tls(&mut node, &acceptor).await.unwrap()).await;
        assert_eq!(peer.headers["host"], "node.example");
        linked.until(true).await;
        assert_eq!(linked.link.changes().borrow().epoch, epoch);
        let long = "z".repeat(1_000_000);
        let raw = format!(r#"{{"id":1,"method":"a","params":["{long}"]}}"#);
        let (answer, ()) = tokio::join!(linked.link.call(raw.as_bytes(), Some(6..7)), async {
            let request = peer.request().await;
            assert!(request["params"][0] == *long);
            peer.answer(request["id"].as_u64().unwrap(), &format!("\"{long}\"")).await;
        });
        assert!(answer.unwrap().with_id(b"1") == format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{long}"}}"#));
        drop(peer);
        linked.until(false).await;
    }
}

#[tokio::test]
async fn wss_is_not_spoken_to_a_node_that_nobody_vouches_for() {
    let ((_, acceptor), (other, _)) = (authority("node.example"), authority("node.example"));
    let (mut node, dial) = Node::new();
    let mut target = target("wss://node.example/very-secret");
    target.tls = Some(Tls::new("node.example", &[other.der().clone()]).unwrap());
    let linked = Linked::start(dial, target);
    let mut changes = linked.link.changes();
    assert!(tls(&mut node, &acceptor).await.is_err());
    changes.changed().await.unwrap();
    assert!(!linked.link.is_up());
    assert!(linked.why().contains("certificate") && !linked.why().contains("secret"), "{}", linked.why());
}
