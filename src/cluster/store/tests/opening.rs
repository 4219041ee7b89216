//! The start: each fault is told by its name.

use std::path::PathBuf;

use async_nats::jetstream;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{
    nats::{OnNats, bytes, key, open, options, until},
    servers::Servers,
    world::TIMEOUT,
};
use crate::cluster::store::{
    Incarnation, Store,
    nats::{NatsStore, OpenError},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openers_in_a_race_share_one_bucket() {
    let servers = Servers::one().await;
    let url = servers.address(0).to_string();
    let opens = (0..6).map(|_| open("race", vec![url.clone()]));
    let stores = futures_util::future::join_all(opens).await;
    let mut found: Vec<Incarnation> = Vec::new();
    for store in stores {
        found.push(store.expect("a store").incarnation().await.expect("a bucket"));
    }
    found.dedup();
    assert_eq!(found.len(), 1, "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_bucket_is_refused_by_name() {
    let servers = Servers::one().await;
    let world = OnNats::new(&servers, "made").await;
    let mut config = jetstream::stream::Config {
        name: "KV_steadfast-by-hand".to_owned(),
        subjects: vec!["$KV.steadfast-by-hand.>".to_owned()],
        ..Default::default()
    };
    config.max_messages_per_subject = 1;
    world.context.create_stream(config).await.expect("a stream");
    let refused = open("by-hand", vec![servers.address(0).to_string()]).await;
    let Err(error @ OpenError::Bucket { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("nats kv del steadfast-by-hand"), "{error}");
}

#[tokio::test]
async fn server_older_than_2_10_is_refused_by_version() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = async {
        let (mut connection, _) = listener.accept().await.expect("a client");
        let info = r#"{"server_id":"x","server_name":"old-one","version":"2.9.10","host":"h","#;
        let info = format!("INFO {info}\"port\":1,\"headers\":true,\"max_payload\":1048576}}\r\n");
        connection.write_all(info.as_bytes()).await.expect("sent");
        let mut bytes = [0; 4096];
        while let Ok(1..) = connection.read(&mut bytes).await {
            connection.write_all(b"PONG\r\n").await.expect("sent");
        }
    };
    let opened = tokio::select! {
        () = server => panic!("the client hung up"),
        opened = open("old", vec![address.to_string()]) => opened,
    };
    let Err(error) = opened else { panic!("{opened:?}") };
    assert_eq!(error.to_string(), "the NATS server old-one is version 2.9.10, and Steadfast needs 2.10 or later");
    assert!(error.is_refusal() && !error.is_setting());
}

#[tokio::test]
async fn absent_server_is_unreachable_for_now() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let refused = open("none", vec![address.to_string()]).await.expect_err("no server");
    assert!(
        matches!(refused, OpenError::Unreachable(_)) && !refused.is_setting() && !refused.is_refusal(),
        "{refused:?}"
    );
}

#[tokio::test]
async fn silent_server_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let opened = timeout(TIMEOUT * 4, open("mute", vec![address.to_string()])).await;
    let refused = opened.expect("an end in time").expect_err("no greeting");
    assert!(matches!(refused, OpenError::Unreachable(_)), "{refused:?}");
}

#[tokio::test]
async fn url_without_meaning_is_a_setting() {
    for servers in [vec![], vec!["nats://user:secret@[".to_owned()]] {
        let refused = open("urls", servers).await.expect_err("no URL");
        assert!(
            matches!(refused, OpenError::Setting(_)) && refused.is_setting() && !refused.is_refusal(),
            "{refused:?}"
        );
        assert!(!refused.to_string().contains("secret"));
    }
}
#[tokio::test]
async fn credentials_that_are_not_there_are_a_setting() {
    let cluster = "creds".parse().expect("a name");
    let mut options = options(&cluster, vec!["127.0.0.1:1".to_owned()]);
    options.credentials = Some("/nowhere/nats.creds".into());
    let refused = NatsStore::open(options).await.expect_err("no file");
    assert!(matches!(&refused, OpenError::Setting(text) if text.starts_with("/nowhere/nats.creds")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_password_is_refused() {
    let arguments = ["--user", "steadfast", "--pass", "right"].map(str::to_owned);
    let servers = Servers::one_with(arguments.to_vec());
    let address = servers.address(0);
    let right = format!("nats://steadfast:right@{address}");
    until("a server", async || open("pass", vec![right.clone()]).await.is_ok()).await;
    let wrong = vec![format!("nats://steadfast:wrong@{address}")];
    let refused = open("pass", wrong).await.expect_err("a refusal");
    assert!(matches!(refused, OpenError::Refused(_)) && refused.is_refusal() && !refused.is_setting(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_needs_an_authority_that_is_trusted() {
    let (authority, arguments, _folder) = certificates();
    let servers = Servers::one_with(arguments);
    let url = format!("tls://127.0.0.1:{}", servers.address(0).port());
    let cluster = "tls".parse().expect("a name");
    let mut trusting = options(&cluster, vec![url.clone()]);
    trusting.authorities = vec![authority];
    until("a server", async || NatsStore::open(trusting.clone()).await.is_ok()).await;
    let store = NatsStore::open(trusting).await.expect("a store");
    store.create(&key(&["k"]), bytes("1"), None).await.expect("created");
    let refused = open("tls", vec![url]).await.expect_err("no trust");
    assert!(!matches!(refused, OpenError::Setting(_)), "{refused:?}");
}

/// A certificate for 127.0.0.1 by an own authority, as arguments for a server, and the folder that
/// holds the files.
fn certificates() -> (CertificateDer<'static>, Vec<String>, Folder) {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key"));
    let authority = authority.expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let name = format!("steadfast-nats-tls-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    std::fs::create_dir_all(&folder.0).expect("a folder");
    let file = |name: &str, text: String| {
        let path = folder.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let arguments = vec![
        "--tls".to_owned(),
        "--tlscert".to_owned(),
        file("cert.pem", certificate.pem()),
        "--tlskey".to_owned(),
        file("key.pem", key.serialize_pem()),
    ];
    (authority.der().clone(), arguments, folder)
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
