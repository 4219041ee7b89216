//! The store in NATS JetStream: a key-value bucket, over `async-nats`.
//!
//! The bucket can be read with `nats kv`. Writes are own requests, for the client's key-value layer
//! takes a create whose ack was lost for 'exists already', and reads from servers that may be
//! behind.
//!
//! The bucket's first revision is drawn by chance, so that a revision of an earlier bucket of the
//! same name names no entry of this one.

mod bucket;
mod feed;
mod link;
mod login;
mod read;
mod write;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_rustls::rustls::pki_types::CertificateDer;

use self::{feed::NatsFeed, link::Link, write::Write};
use super::{Entry, Incarnation, Key, Listing, Prefix, ReadError, Revision, Store, Ttl, Watch, WriteError};
use crate::domain::fleet::ClusterName;

/// The oldest server that is taken, as major and minor version.
pub const OLDEST: (u32, u32) = (2, 10);

/// How the store is reached.
#[derive(Clone)]
pub struct Options {
    /// The cluster's name. Its bucket is `steadfast-<name>`.
    pub cluster: ClusterName,
    /// The part of the cluster that has a bucket of its own, `steadfast-<name>-<part>`.
    pub part: Option<&'static str>,
    /// URLs of servers: `nats://` or `tls://`, with user and password, or a token, where a server
    /// asks for those. With three servers or more, here or in the cluster that they tell of, three
    /// of them hold the bucket.
    pub servers: Vec<String>,
    /// Whether servers are left aside that are not in `servers`, but that those tell of.
    pub only_named: bool,
    /// A file with a user's JWT and key, as `nsc` writes.
    pub credentials: Option<PathBuf>,
    /// Whether TLS is used where a server does not ask for TLS.
    pub requires_tls: bool,
    /// Authorities to trust beside those of the platform.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Time that each call has.
    pub timeout: Duration,
    /// Time between two listings of a watch.
    pub relist: Duration,
    /// The source of chance: for pauses, and for the first revision of a bucket.
    pub seed: u64,
}

impl Options {
    /// Options with which a store is reached without TLS and without credentials.
    pub const fn new(cluster: ClusterName, servers: Vec<String>, seed: u64) -> Self {
        Self {
            cluster,
            part: None,
            servers,
            only_named: false,
            credentials: None,
            requires_tls: false,
            authorities: Vec::new(),
            timeout: Duration::from_secs(2),
            relist: Duration::from_secs(5),
            seed,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may hold a password.
        f.debug_struct("Options").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// Why the store is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A setting means nothing.
    #[error("{0}")]
    Setting(String),
    /// No server was reached. A later attempt may find one.
    #[error("no NATS server was reached: {0}")]
    Unreachable(String),
    /// A server refused the credentials, or TLS failed.
    #[error("NATS refused: {0}")]
    Refused(String),
    /// A server is older than [`OLDEST`].
    #[error(
        "the NATS server {server} is version {version}, and Steadfast needs {}.{} or later",
        OLDEST.0, OLDEST.1
    )]
    TooOld {
        /// The server's name, or the address where there is no name.
        server: String,
        /// The server's version.
        version: String,
    },
    /// The bucket is not there and cannot be made, or is not Steadfast's.
    #[error("the bucket {bucket}: {why}")]
    Bucket {
        /// The bucket's name.
        bucket: String,
        /// The fault.
        why: String,
    },
}

impl OpenError {
    /// Whether a setting of this process is wrong, so that no later attempt can succeed.
    pub const fn is_setting(&self) -> bool {
        matches!(self, Self::Setting(_))
    }

    /// Whether NATS has to be changed, or the credentials, before a later attempt can succeed.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::TooOld { .. })
    }
}

/// One replica's way to the bucket. Clones share one connection.
#[derive(Clone)]
pub struct NatsStore {
    link: Arc<Link>,
}

impl NatsStore {
    /// Connects, checks the server's version, and makes the bucket if there is none.
    ///
    /// # Errors
    /// As [`OpenError`] tells. Once open, the store connects anew by itself for ever.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        Ok(Self { link: Arc::new(Link::open(options).await?) })
    }

    /// Whether a connection stands.
    pub fn is_connected(&self) -> bool {
        self.link.ready().is_ok()
    }
}

impl fmt::Debug for NatsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsStore").field("bucket", &self.link.bucket).finish_non_exhaustive()
    }
}

impl Store for NatsStore {
    fn create<'a>(
        &'a self,
        key: &'a Key,
        value: Bytes,
        ttl: Option<Ttl>,
    ) -> BoxFuture<'a, Result<Revision, WriteError>> {
        Box::pin(self.link.create(key, value, ttl))
    }

    fn compare_and_set<'a>(
        &'a self,
        key: &'a Key,
        seen: Revision,
        value: Bytes,
        ttl: Option<Ttl>,
    ) -> BoxFuture<'a, Result<Revision, WriteError>> {
        Box::pin(self.link.write(key, seen, Write::Entry { value, ttl }))
    }

    fn compare_and_delete<'a>(&'a self, key: &'a Key, seen: Revision) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move { self.link.write(key, seen, Write::Deletion).await.map(|_| ()) })
    }

    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Option<Entry>, ReadError>> {
        Box::pin(self.link.read(key))
    }

    fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, ReadError>> {
        Box::pin(self.link.list(prefix))
    }

    fn watch(&self, prefix: &Prefix) -> Watch {
        Watch::over(NatsFeed::start(self.link.clone(), prefix.clone()))
    }

    fn incarnation(&self) -> BoxFuture<'_, Result<Incarnation, ReadError>> {
        Box::pin(async move { Ok(self.link.found_or_made().await?.incarnation) })
    }

    fn can_expire(&self) -> bool {
        self.link.can_expire()
    }
}
