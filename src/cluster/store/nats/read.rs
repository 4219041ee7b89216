//! Reads: the last message of a key, from the stream's leader, and each message under a prefix.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{
    HeaderMap,
    header::NATS_MARKER_REASON,
    jetstream::{
        Message,
        consumer::{
            DeliverPolicy,
            push::{Ordered, OrderedConfig},
        },
        message::{Info, StreamMessage},
        stream::{RawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{bucket::store_time, link::Link};
use crate::cluster::store::{Entry, Key, Listing, MAX_LISTED, Malformed, Prefix, ReadError, Revision, StoreTime};

/// The header that tells a deletion from an entry.
pub(super) const KV_OPERATION: &str = "KV-Operation";
/// The longest time of a listing.
const LISTING: Duration = Duration::from_secs(30);
/// A bucket of up to this number of messages is read by a call for each, and a longer one by a
/// consumer.
const FEW: u64 = 64;
/// A consumer that has nothing left to send for this long has sent all: the last messages of the
/// bucket were removed since.
const SILENCE: Duration = Duration::from_secs(1);
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

/// A consumer of the bucket's messages, in their order.
pub(super) struct Consumer {
    name: String,
    pub(super) messages: Ordered,
    /// The messages that were there when the consumer began, and that it sends.
    left: u64,
}

/// The messages that a listing has found so far.
#[derive(Default)]
struct Found {
    entries: BTreeMap<Key, Entry>,
    malformed: BTreeMap<String, Malformed>,
    /// The revision of the last one; 0 before the first.
    last: u64,
}

impl Found {
    fn take(&mut self, stored: Stored<'_>, subjects: &str) -> Result<(), ReadError> {
        self.last = self.last.max(stored.revision);
        match stored.parsed(subjects) {
            Parsed::Entry(entry) => drop(self.entries.insert(entry.key.clone(), entry)),
            Parsed::Deletion(key, _) => drop(self.entries.remove(&key)),
            Parsed::Strange(entry) => drop(self.malformed.insert(entry.key.clone(), entry)),
            Parsed::StrangeDeletion => {}
        }
        if self.entries.len() + self.malformed.len() > MAX_LISTED {
            return Err(ReadError::Malformed(format!("more than {MAX_LISTED} entries")));
        }
        Ok(())
    }
}

fn stored_by_leader(message: &StreamMessage) -> Stored<'_> {
    Stored {
        subject: message.subject.as_str(),
        headers: Some(&message.headers),
        value: message.payload.clone(),
        revision: message.sequence,
        created: message.time.unix_timestamp_nanos(),
    }
}

/// A consumer's message as the stream has it.
pub(super) fn stored(message: &Message) -> Result<Stored<'_>, ReadError> {
    let place = place(message)?;
    Ok(Stored {
        subject: message.subject.as_str(),
        headers: message.headers.as_ref(),
        value: message.payload.clone(),
        revision: place.stream_sequence,
        created: place.published.unix_timestamp_nanos(),
    })
}

/// The message's place in the stream, and in the consumer.
fn place(message: &Message) -> Result<Info<'_>, ReadError> {
    message.info().map_err(|error| ReadError::Malformed(format!("a message of the stream: {error}")))
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
            let mut found = Found::default();
            if before.messages > FEW {
                self.scan(prefix, before.last, &mut found).await?;
            } else {
                self.ask_for_all(prefix, &mut found).await?;
            }
            if self.found_or_made().await?.incarnation == before.incarnation {
                let (incarnation, upto) = (before.incarnation, before.last.max(Revision::new(found.last)));
                let (entries, malformed) =
                    (found.entries.into_values().collect(), found.malformed.into_values().collect());
                return Ok(Listing { incarnation, upto, entries, malformed });
            }
        }
        Err(ReadError::Unavailable("the bucket is made anew again and again".to_owned()))
    }

    /// Goes through the messages under `prefix` in the order of their revisions, to the end: a key
    /// that is written meanwhile moves to the end, so none is missed. The consumer may be at a
    /// server that is behind the leader, so the end is not before `upto`, the last revision of the
    /// leader when the listing began.
    async fn scan(&self, prefix: &Prefix, upto: Revision, found: &mut Found) -> Result<(), ReadError> {
        let Consumer { name, mut messages, mut left } = self.consume(prefix, DeliverPolicy::All).await?;
        while left > 0 || found.last < upto.get() {
            match timeout(SILENCE, messages.next()).await {
                Ok(Some(Ok(message))) => {
                    left = place(&message)?.pending;
                    found.take(stored(&message)?, &self.subjects)?;
                }
                Ok(Some(Err(error))) => return Err(ReadError::Unavailable(self.because(&error.to_string()))),
                Ok(None) => return Err(ReadError::Unavailable("the consumer ended".to_owned())),
                Err(_) if left > 0 => {
                    return Err(ReadError::Unavailable(self.because("a consumer fell silent")));
                }
                Err(_) => {
                    self.ask_for_all(prefix, found).await?;
                    break;
                }
            }
        }
        drop(messages);
        // Otherwise the server ends the consumer half a minute later.
        _ = self.within(self.stream().await?.delete_consumer(&name)).await;
        Ok(())
    }

    /// Asks the leader for each message behind those that were found, one after the other.
    async fn ask_for_all(&self, prefix: &Prefix, found: &mut Found) -> Result<(), ReadError> {
        let (stream, filter) = (self.stream().await?, self.filter(prefix));
        loop {
            let request = stream.raw_message_builder().next_by_subject(&filter).sequence(found.last + 1);
            let Some(message) = self.message(request.send()).await? else { return Ok(()) };
            found.take(stored_by_leader(&message), &self.subjects)?;
        }
    }

    /// Begins to consume the messages under `prefix`.
    pub(super) async fn consume(&self, prefix: &Prefix, from: DeliverPolicy) -> Result<Consumer, ReadError> {
        let config = OrderedConfig {
            deliver_subject: self.client.new_inbox(),
            description: Some("a watch of Steadfast".to_owned()),
            filter_subject: self.filter(prefix),
            deliver_policy: from,
            ..OrderedConfig::default()
        };
        let fault = |text: String| ReadError::Unavailable(self.because(&text));
        let stream = self.stream().await?;
        let consumer = self.within(stream.create_consumer(config)).await?;
        let consumer = consumer.map_err(|error| fault(error.to_string()))?;
        let (name, left) = (consumer.cached_info().name.clone(), consumer.cached_info().num_pending);
        let messages = self.within(consumer.messages()).await?.map_err(|error| fault(error.to_string()))?;
        Ok(Consumer { name, messages, left })
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
        stored_by_leader(message).parsed(&self.subjects)
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
