//! The connection to NATS: its options, its state, and a deadline for each use.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr,
    connection::State,
    jetstream::{self, Context},
};
use fastrand::Rng;
use tokio::{sync::watch, time::timeout};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::{OLDEST, OpenError, Options, login::Login};
use crate::cluster::store::ReadError;

/// The version from which on entries have a time to live.
const EXPIRES: (u32, u32) = (2, 11);
/// The first and the longest pause before a server is dialled again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// The time between two pings. A connection that leaves two unanswered is given up.
const PING: Duration = Duration::from_secs(2);
/// Messages of one subscription that wait in the client.
const WAITING_MESSAGES: usize = 8192;

/// A connection that is made anew when lost.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) options: Options,
    pub(super) bucket: String,
    /// The stream beneath the bucket.
    pub(super) stream: String,
    /// The subject of a key, up to the key.
    pub(super) subjects: String,
    /// Rises with each connection that stands.
    pub(super) connections: watch::Receiver<u64>,
    pub(super) rng: Mutex<Rng>,
    expires: AtomicBool,
    said: Said,
}

/// The last fault that a server or the connection told of.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Option<String>>>);

impl Said {
    fn set(&self, fault: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Link {
    pub(super) async fn open(options: Options) -> Result<Self, OpenError> {
        let servers = addresses(&options.servers)?;
        let said = Said::default();
        let (connected, connections) = watch::channel(0);
        let connect = configured(&options, said.clone(), connected).await?;
        let login = Login::of(&servers)?;
        let connect = match login {
            Some(login) => login.apply(connect),
            None => connect,
        };
        let connect = connect.connect(servers);
        // Each server has its own time, and name servers take theirs.
        let longest = options.timeout.saturating_mul(options.servers.len() as u32 + 1);
        let client = timeout(longest, connect)
            .await
            .map_err(|_| OpenError::Unreachable("no answer in time".to_owned()))?
            .map_err(|error| match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Tls => {
                    OpenError::Refused(error.to_string())
                }
                ConnectErrorKind::ServerParse => OpenError::Setting(error.to_string()),
                _ => OpenError::Unreachable(error.to_string()),
            })?;
        let mut context = jetstream::new(client.clone());
        context.set_timeout(options.timeout);
        let part = options.part.map(|part| format!("-{part}")).unwrap_or_default();
        let bucket = options.cluster.bucket() + &part;
        let link = Self {
            context,
            stream: format!("KV_{bucket}"),
            subjects: format!("$KV.{bucket}."),
            connections,
            rng: Mutex::new(Rng::with_seed(options.seed)),
            expires: AtomicBool::new(false),
            said,
            client,
            options,
            bucket,
        };
        if let Some((server, version)) = link.too_old() {
            return Err(OpenError::TooOld { server, version });
        }
        link.adapt().await?;
        Ok(link)
    }

    /// Whether a call may be sent. Without a connection a call would wait in the client and be sent
    /// much later, so none is begun.
    ///
    /// # Errors
    /// The reason.
    pub(super) fn ready(&self) -> Result<(), String> {
        if self.client.connection_state() != State::Connected {
            return Err(self.because("no connection to NATS"));
        }
        match self.too_old() {
            Some((server, version)) => Err(OpenError::TooOld { server, version }.to_string()),
            None => Ok(()),
        }
    }

    /// `text`, with the last fault that was told.
    pub(super) fn because(&self, text: &str) -> String {
        self.said.get().map_or_else(|| text.to_owned(), |said| format!("{text}; last said: {said}"))
    }

    /// Runs one use of the connection, which has the time of a call and some more: the client's own
    /// deadline tells more, but does not cover the wait for the client's queue.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, ReadError> {
        self.ready().map_err(ReadError::Unavailable)?;
        let longest = self.options.timeout.saturating_add(self.options.timeout / 4);
        timeout(longest, work).await.map_err(|_| ReadError::Unavailable(self.because("no answer in time")))
    }

    pub(super) fn can_expire(&self) -> bool {
        self.expires.load(Ordering::Relaxed)
    }

    pub(super) fn set_expires(&self, expires: bool) {
        self.expires.store(expires, Ordering::Relaxed);
    }

    /// Whether the server that is connected lets entries expire.
    pub(super) fn server_expires(&self) -> bool {
        version(&self.client.server_info().version).is_some_and(|version| version >= EXPIRES)
    }

    /// Servers of the cluster, as far as is known.
    pub(super) fn servers(&self) -> usize {
        self.client.server_info().connect_urls.len().max(self.options.servers.len())
    }

    /// The connected server's name and version, if that is too old.
    fn too_old(&self) -> Option<(String, String)> {
        let info = self.client.server_info();
        if version(&info.version).is_some_and(|version| version >= OLDEST) {
            return None;
        }
        let address = format!("{}:{}", info.host, info.port);
        let server = if info.server_name.is_empty() { address } else { info.server_name };
        Some((server, info.version))
    }
}

/// The major and minor number of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Some((major, minor)),
        _ => None,
    }
}

fn addresses(servers: &[String]) -> Result<Vec<ServerAddr>, OpenError> {
    if servers.is_empty() {
        return Err(OpenError::Setting("no NATS server is named".to_owned()));
    }
    // The URL is not shown, for a URL may hold a password.
    let address = |(place, server): (usize, &String)| {
        server.parse().map_err(|_| OpenError::Setting(format!("the URL of NATS server {} means nothing", place + 1)))
    };
    servers.iter().enumerate().map(address).collect()
}

async fn configured(options: &Options, said: Said, connected: watch::Sender<u64>) -> Result<ConnectOptions, OpenError> {
    let connected = Arc::new(connected);
    let mut connect = ConnectOptions::new()
        .name("steadfast")
        .connection_timeout(options.timeout)
        .request_timeout(Some(options.timeout))
        .ping_interval(PING)
        .subscription_capacity(WAITING_MESSAGES)
        .reconnect_delay_callback(|attempts| {
            let factor = 1_u32.checked_shl(attempts.min(8) as u32).unwrap_or(u32::MAX);
            PAUSES.0.saturating_mul(factor).min(PAUSES.1)
        })
        .tls_client_config(tls(options)?)
        .event_callback(move |event| {
            match event {
                Event::Connected => {
                    said.set(None);
                    connected.send_modify(|count| *count += 1);
                }
                Event::ServerError(error) => said.set(Some(error.to_string())),
                Event::ClientError(error) => said.set(Some(error.to_string())),
                _ => {}
            }
            std::future::ready(())
        });
    if options.only_named {
        connect = connect.ignore_discovered_servers();
    }
    if options.requires_tls {
        connect = connect.require_tls(true);
    }
    if let Some(path) = &options.credentials {
        let fault = |error| OpenError::Setting(format!("{}: {error}", path.display()));
        connect = connect.credentials_file(path).await.map_err(fault)?;
    }
    Ok(connect)
}

fn tls(options: &Options) -> Result<ClientConfig, OpenError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in &options.authorities {
        let fault = |error| OpenError::Setting(format!("a certificate of ca_file: {error}"));
        roots.add(certificate.clone()).map_err(fault)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| OpenError::Setting(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
