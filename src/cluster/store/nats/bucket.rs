//! The bucket: its stream is looked at, made, and brought up to date.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use async_nats::jetstream::{
    ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, DiscardPolicy, Info, StorageType},
};

use super::{OpenError, link::Link, write::Write};
use crate::cluster::store::{Incarnation, ReadError, Revision, StoreTime, WriteError};

/// The mark of a bucket that Steadfast made, and the number of its form.
const FORM: (&str, &str) = ("steadfast-form", "1");
/// Servers that hold a copy of the bucket, if there are so many.
const COPIES: usize = 3;
/// No name is escaped to this.
const NO_KEY: &str = "=first";
/// Deletions stay this long.
const DELETION_TTL: Duration = Duration::from_secs(60 * 60);
/// The same in a bucket of which entries come and go all the time, and that is listed often.
const SHORT_DELETION_TTL: Duration = Duration::from_secs(60);
/// The first revision of a bucket is drawn from here. Numbers of JSON are exact up to 2^53.
const FIRST_REVISION: std::ops::Range<u64> = 1 << 40..1 << 52;

/// The bucket at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) incarnation: Incarnation,
    pub(super) last: Revision,
    /// Entries and deletions.
    pub(super) messages: u64,
}

impl Link {
    /// Looks at the bucket, and makes one if there is none.
    pub(super) async fn found_or_made(&self) -> Result<Look, ReadError> {
        let info = match self.info().await? {
            Some(info) => info,
            None => self.made().await?,
        };
        let look = self.look(&info)?;
        if info.config.first_sequence.is_some_and(|first| look.last.get() <= first) {
            self.replace_first().await?;
        }
        Ok(look)
    }

    /// Makes the bucket if there is none, else changes the settings that a newer server or more
    /// servers allow.
    pub(super) async fn adapt(&self) -> Result<(), OpenError> {
        let fault = |error: ReadError| OpenError::Bucket { bucket: self.bucket.clone(), why: error.to_string() };
        self.found_or_made().await.map_err(fault)?;
        let Some(info) = self.info().await.map_err(fault)? else { return Ok(()) };
        let mut config = info.config.clone();
        if self.server_expires() && !config.allow_message_ttl {
            config.allow_message_ttl = true;
            config.subject_delete_marker_ttl = Some(self.deletion_ttl());
        }
        config.num_replicas = config.num_replicas.max(self.copies());
        if config == info.config {
            return Ok(());
        }
        match self.within(self.context.update_stream(&config)).await.map_err(fault)? {
            Ok(info) => self.set_expires(info.config.allow_message_ttl),
            Err(error) => {
                let bucket = &self.bucket;
                tracing::warn!(bucket, %error, "the settings of the NATS bucket stay as they are");
            }
        }
        Ok(())
    }

    /// The stream beneath the bucket; `None` if there is none.
    async fn info(&self) -> Result<Option<Info>, ReadError> {
        match self.within(self.context.get_stream(&self.stream)).await? {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(fault) if fault.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(ReadError::Unavailable(self.because(&error.to_string()))),
            },
        }
    }

    async fn made(&self) -> Result<Info, ReadError> {
        let config = self.config();
        match self.within(self.context.create_stream(config)).await? {
            Ok(stream) => {
                tracing::info!(bucket = self.bucket, "made the NATS bucket");
                Ok(stream.cached_info().clone())
            }
            Err(error) => {
                let is_there = matches!(
                    error.kind(),
                    CreateStreamErrorKind::JetStream(fault)
                        if fault.error_code() == ErrorCode::STREAM_NAME_EXIST
                );
                let found = if is_there { self.info().await? } else { None };
                found.ok_or_else(|| {
                    let text = format!("the bucket {} was not made: {error}", self.bucket);
                    ReadError::Unavailable(text)
                })
            }
        }
    }

    /// Writes twice under a key that is none, so that no message has the bucket's first revision:
    /// servers before 2.11.2 that are killed forget all when that message is there. (nats-server
    /// pull request 6753.)
    async fn replace_first(&self) -> Result<(), ReadError> {
        let mut seen = Revision::new(0);
        for _ in 0..2 {
            seen = match self.write_at(NO_KEY, seen, Write::Deletion).await {
                Ok(revision) | Err(WriteError::Conflict { found: Some(revision) }) => revision,
                Err(error) => return Err(ReadError::Unavailable(error.to_string())),
            };
        }
        Ok(())
    }

    fn look(&self, info: &Info) -> Result<Look, ReadError> {
        if info.config.metadata.get(FORM.0).map(String::as_str) != Some(FORM.1) {
            return Err(ReadError::Unavailable(format!(
                "the bucket {0} was not made by this version of Steadfast: stop all replicas, \
                 remove it (nats kv del {0}), and Steadfast makes its own",
                self.bucket
            )));
        }
        self.set_expires(info.config.allow_message_ttl);
        Ok(Look {
            incarnation: Incarnation::new(store_time(info.created.unix_timestamp_nanos())),
            last: Revision::new(info.state.last_sequence),
            messages: info.state.messages,
        })
    }

    /// How long a deletion stays in the bucket.
    pub(super) fn deletion_ttl(&self) -> Duration {
        if self.options.part.is_some() { SHORT_DELETION_TTL } else { DELETION_TTL }
    }

    fn copies(&self) -> usize {
        if self.servers() >= COPIES { COPIES } else { 1 }
    }

    fn config(&self) -> Config {
        let first = self.rng.lock().unwrap_or_else(PoisonError::into_inner).u64(FIRST_REVISION);
        let expires = self.server_expires();
        Config {
            name: self.stream.clone(),
            description: Some("the cluster of Steadfasts: docs/OPERATIONS.md".to_owned()),
            subjects: vec![format!("{}>", self.subjects)],
            max_messages_per_subject: 1,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            num_replicas: self.copies(),
            allow_rollup: true,
            deny_delete: true,
            // Direct reads come from any server, also from one that is behind.
            allow_direct: false,
            first_sequence: Some(first),
            metadata: HashMap::from([(FORM.0.to_owned(), FORM.1.to_owned())]),
            allow_message_ttl: expires,
            subject_delete_marker_ttl: expires.then_some(self.deletion_ttl()),
            ..Config::default()
        }
    }
}

pub(super) fn store_time(nanos: i128) -> StoreTime {
    StoreTime::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
}
