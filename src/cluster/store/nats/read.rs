//! Reads, all from the stream's leader: the last message of a key, and each message under a prefix.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_MARKER_REASON,
    jetstream::{
        message::StreamMessage,
        stream::{RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use tokio::time::timeout;

use super::{bucket::store_time, link::Link};
use crate::cluster::store::{Entry, Key, Listing, MAX_LISTED, Malformed, Prefix, ReadError, Revision, StoreTime};

/// The header that tells a deletion from an entry.
pub(super) const KV_OPERATION: &str = "KV-Operation";
/// The longest time of a listing, each of whose entries is a call.
const LISTING: Duration = Duration::from_secs(30);
/// Listings that are begun anew because the bucket was.
const ATTEMPTS: usize = 3;

/// The last message of a key.
pub(super) enum Last {
    Entry(Entry),
    /// A deletion by a client, or by the server when an entry has expired.
    Deletion(Revision),
}

/// A message of the stream.
pub(super) struct Stored<'a> {
    pub(super) subject: &'a str,
    pub(super) headers: Option<&'a HeaderMap>,
    pub(super) value: Bytes,
    pub(super) revision: u64,
    pub(super) created: i128,
}

/// A message of the stream, read.
pub(super) enum Parsed {
    Entry(Entry),
    Deletion(Key, Revision),
    Strange(Malformed),
    /// A deletion of a key that is not read.
    StrangeDeletion,
}

impl Stored<'_> {
    pub(super) fn parsed(self, subjects: &str) -> Parsed {
        let is_deletion = self.headers.is_some_and(|headers| {
            headers.get(NATS_MARKER_REASON).is_some()
                || headers.get(KV_OPERATION).is_some_and(|kind| kind.as_str() != "PUT")
        });
        let text = self.subject.strip_prefix(subjects).unwrap_or(self.subject);
        let revision = Revision::new(self.revision);
        let created: StoreTime = store_time(self.created);
        match (Key::parse(text), is_deletion) {
            (Ok(key), false) => Parsed::Entry(Entry { key, value: self.value, revision, created }),
            (Ok(key), true) => Parsed::Deletion(key, revision),
            (Err(_), true) => Parsed::StrangeDeletion,
            (Err(error), false) => {
                Parsed::Strange(Malformed { key: text.to_owned(), revision, why: error.to_string() })
            }
        }
    }
}

impl Link {
    pub(super) async fn read(&self, key: &Key) -> Result<Option<Entry>, ReadError> {
        Ok(match self.last(key).await? {
            Some(Last::Entry(entry)) => Some(entry),
            Some(Last::Deletion(_)) | None => None,
        })
    }

    pub(super) async fn last(&self, key: &Key) -> Result<Option<Last>, ReadError> {
        let subject = format!("{}{key}", self.subjects);
        let request = self.stream().await?.raw_message_builder().last_by_subject(subject);
        let Some(message) = self.message(request.send()).await? else { return Ok(None) };
        match self.parsed(&message) {
            Parsed::Entry(entry) if entry.key == *key => Ok(Some(Last::Entry(entry))),
            Parsed::Deletion(found, revision) if found == *key => Ok(Some(Last::Deletion(revision))),
            _ => Err(ReadError::Malformed(format!("{} for {key}", message.subject))),
        }
    }

    pub(super) async fn list(&self, prefix: &Prefix) -> Result<Listing, ReadError> {
        let late = || ReadError::Unavailable(self.because("no end of the listing in time"));
        timeout(LISTING, self.listing(prefix)).await.map_err(|_| late())?
    }

    async fn listing(&self, prefix: &Prefix) -> Result<Listing, ReadError> {
        for _ in 0..ATTEMPTS {
            let before = self.found_or_made().await?;
            let (entries, malformed) = self.scan(prefix).await?;
            if self.found_or_made().await?.incarnation == before.incarnation {
                let (incarnation, upto) = (before.incarnation, before.last);
                return Ok(Listing { incarnation, upto, entries, malformed });
            }
        }
        Err(ReadError::Unavailable("the bucket is made anew again and again".to_owned()))
    }

    /// Goes through the messages under `prefix` in the order of their revisions. A key that is
    /// written meanwhile moves to the end, so none is missed.
    async fn scan(&self, prefix: &Prefix) -> Result<(Vec<Entry>, Vec<Malformed>), ReadError> {
        let stream = self.stream().await?;
        let filter = self.filter(prefix);
        let mut entries = BTreeMap::new();
        let mut malformed = BTreeMap::new();
        let mut next = 1;
        loop {
            let request = stream.raw_message_builder().next_by_subject(&filter).sequence(next);
            let Some(message) = self.message(request.send()).await? else { break };
            next = message.sequence + 1;
            match self.parsed(&message) {
                Parsed::Entry(entry) => drop(entries.insert(entry.key.clone(), entry)),
                Parsed::Deletion(key, _) => drop(entries.remove(&key)),
                Parsed::Strange(entry) => drop(malformed.insert(entry.key.clone(), entry)),
                Parsed::StrangeDeletion => {}
            }
            if entries.len() + malformed.len() > MAX_LISTED {
                return Err(ReadError::Malformed(format!("more than {MAX_LISTED} entries")));
            }
        }
        Ok((entries.into_values().collect(), malformed.into_values().collect()))
    }

    /// The subjects of all keys under `prefix`.
    pub(super) fn filter(&self, prefix: &Prefix) -> String {
        match prefix.as_str() {
            "" => format!("{}>", self.subjects),
            prefix => format!("{}{prefix}.>", self.subjects),
        }
    }

    pub(super) async fn stream(&self) -> Result<Stream<()>, ReadError> {
        let stream = self.context.get_stream_no_info(&self.stream).await;
        stream.map_err(|error| ReadError::Unavailable(error.to_string()))
    }

    fn parsed(&self, message: &StreamMessage) -> Parsed {
        let stored = Stored {
            subject: message.subject.as_str(),
            headers: Some(&message.headers),
            value: message.payload.clone(),
            revision: message.sequence,
            created: message.time.unix_timestamp_nanos(),
        };
        stored.parsed(&self.subjects)
    }

    async fn message(
        &self,
        request: impl Future<Output = Result<StreamMessage, async_nats::jetstream::stream::RawMessageError>>,
    ) -> Result<Option<StreamMessage>, ReadError> {
        match self.within(request).await? {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(ReadError::Unavailable(self.because(&error.to_string()))),
        }
    }
}
