//! The writing of the operator's wishes.
//!
//! Rule: a wish is written by compare-and-set over the entry that was read just before, whatever
//! that entry is. After a conflict, and after an answer that was lost, the entry is read again: if
//! it has the wished state by then, the wish is done. A read that is older than the watch is not
//! believed. Reason: of two operators at once both must hear the truth, and an entry that cannot be
//! read must not keep a node out for good.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::oneshot, time::timeout};
use tracing::info;

use super::{
    Driver,
    effects::{LATE, tell},
    news::number,
};
use crate::{
    cluster::{
        store::{self, Entry, ReadError, Store, WriteError},
        wishes::{MAX_WISHES, Standing},
    },
    domain::fleet::{Asker, Incarnation, Key, StoreRevision, Wish, WishKey, WishWord, encode},
    metrics::Metrics,
};

/// Wishes that are being written at the same time.
pub(super) const MAX_WRITES: usize = 8;
/// Attempts at one wish, of which each but the last met another writer or lost its answer.
const ATTEMPTS: u32 = 4;

/// A wish to write.
pub(in crate::cluster) struct Asked {
    pub(in crate::cluster) key: WishKey,
    /// The state; none: the wish ends.
    pub(in crate::cluster) state: Option<WishWord>,
    pub(in crate::cluster) answer: oneshot::Sender<Result<Outcome, NotWished>>,
}

impl Asked {
    /// Answers that nothing was written.
    pub(in crate::cluster) fn refuse(self, why: NotWished) {
        // The operator may have gone.
        let _ = self.answer.send(Err(why));
    }
}

/// The end of an order to wish something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The revision of the wish that stands now; none where no wish stands.
    pub revision: Option<StoreRevision>,
    /// The revision of the wish that was there before; none where there was no wish.
    pub before: Option<StoreRevision>,
}

/// Why a wish was not written, or may not have been.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotWished {
    /// The store cannot be asked.
    #[error("the cluster's store is not reached, and no wish is changed: {0}")]
    Away(String),
    /// The store did not take the entry.
    #[error("the cluster's store did not take the wish: {0}")]
    Refused(String),
    /// No answer came to a write.
    #[error(
        "the answer of the cluster's store was lost: the wish may be written, now or a little later; \
         `steadfast status --fleet` tells"
    )]
    Unknown,
    /// Other operators were faster, again and again.
    #[error("others change the same wish at this moment: try again")]
    Contended,
    /// There are too many wishes.
    #[error("the cluster has {MAX_WISHES} wishes or more, and no room for another: end one first")]
    Full,
    /// There are too many orders at once.
    #[error("{MAX_WRITES} wishes are being written already: try again")]
    Busy,
    /// This replica leaves the cluster.
    #[error("this replica is leaving the cluster")]
    Leaving,
}

/// A wish in words, for the log.
pub(super) fn words(key: &WishKey, standing: &Standing) -> String {
    match &standing.wish {
        Ok(wish) => format!("{key} {}", wish.state),
        Err(_) => format!("{key} (unreadable)"),
    }
}

impl Driver {
    /// Has a wish written, and answers when that is done.
    pub(super) fn wish(&mut self, asked: Asked) {
        let Asked { key, state, answer } = asked;
        let wishes = self.wishes.known();
        // Beyond the bound a wish that is written anew would be the newest, and be ignored.
        let is_full = state.is_some() && wishes.len() + usize::from(wishes.get(&key).is_none()) > MAX_WISHES;
        let by = self.plan.settings.replica.as_str().parse::<Asker>();
        let (Ok(place), Ok(by)) = (store::Key::parse(&Key::Wish(key.clone()).to_string()), by) else {
            return Asked { key, state, answer }.refuse(NotWished::Refused("the name is no part of a key".to_owned()));
        };
        let permit = self.writes.clone().try_acquire_owned();
        let permit = match permit {
            _ if is_full => return Asked { key, state, answer }.refuse(NotWished::Full),
            Err(_) => return Asked { key, state, answer }.refuse(NotWished::Busy),
            Ok(permit) => permit,
        };
        let writing = Writing {
            store: self.store.clone(),
            longest: self.longest(),
            fault: self.fault.clone(),
            metrics: self.tools.metrics.clone(),
            bucket: self.bucket,
            key: place,
            known: wishes.get(&key).map(|standing| standing.revision),
        };
        self.aside.spawn(async move {
            let word = state.as_ref().map_or("none", WishWord::as_str).to_owned();
            let outcome = writing.run(state.map(|state| Wish::new(state, by))).await;
            match &outcome {
                Ok(outcome) => info!(%key, state = word, ?outcome, "the operator's wish for all replicas is written"),
                Err(why) => info!(%key, state = word, %why, "the operator's wish for all replicas is not written"),
            }
            drop(permit);
            // The operator may have gone.
            let _ = answer.send(outcome);
        });
    }
}

/// The means to write one wish.
struct Writing {
    store: Arc<dyn Store>,
    /// The longest time of a request.
    longest: Duration,
    fault: Arc<Mutex<Option<String>>>,
    metrics: Arc<Metrics>,
    bucket: Incarnation,
    key: store::Key,
    /// The revision that the watch has told.
    known: Option<StoreRevision>,
}

impl Writing {
    async fn run(&self, wish: Option<Wish>) -> Result<Outcome, NotWished> {
        // A write whose answer was lost may come to the store at any later moment.
        let (mut is_unsure, mut first, mut known) = (false, None, self.known);
        let fails = |is_unsure: bool, why: NotWished| Err(if is_unsure { NotWished::Unknown } else { why });
        for _ in 0..ATTEMPTS {
            let found = match self.read().await {
                Ok(found) => found,
                Err(why) => return fails(is_unsure, NotWished::Away(why.to_string())),
            };
            let read = found.as_ref().map(|entry| number(entry.revision));
            // A server that was replaced may answer for a while with what was there before.
            let standing = read.max(known);
            let before = *first.get_or_insert(standing);
            if read == standing && self.is_done(found.as_ref(), wish.as_ref()) {
                return Ok(Outcome { revision: standing, before });
            }
            match self.write(standing, wish.as_ref()).await {
                Ok(revision) => return Ok(Outcome { revision, before: standing }),
                Err(WriteError::Conflict { .. }) => {
                    // The watch may be the older one of the two.
                    known = None;
                    self.metrics.cluster_cas_lost();
                }
                // The write itself may have made the watch the older one.
                Err(WriteError::Ambiguous(_)) => (is_unsure, known) = (true, None),
                Err(WriteError::Unavailable(why)) => return fails(is_unsure, NotWished::Away(why)),
                Err(WriteError::Malformed(why)) => return fails(is_unsure, NotWished::Refused(why)),
            }
        }
        fails(is_unsure, NotWished::Contended)
    }

    /// Whether the entry has the wished state already.
    fn is_done(&self, found: Option<&Entry>, wish: Option<&Wish>) -> bool {
        match (found, wish) {
            (None, None) => true,
            (Some(entry), Some(wish)) => {
                Wish::read(self.key.as_str(), &entry.value, self.bucket).is_ok_and(|known| known.state == wish.state)
            }
            _ => false,
        }
    }

    async fn read(&self) -> Result<Option<Entry>, ReadError> {
        let late = |_| Err(ReadError::Unavailable(LATE.to_owned()));
        let read = timeout(self.longest, self.store.read(&self.key)).await.unwrap_or_else(late);
        tell(&self.fault, read.as_ref().err());
        read
    }

    /// Writes over the entry of this revision, or where there is none.
    async fn write(
        &self,
        seen: Option<StoreRevision>,
        wish: Option<&Wish>,
    ) -> Result<Option<StoreRevision>, WriteError> {
        let seen = seen.map(|seen| store::Revision::new(seen.0));
        let write = async {
            let value = wish.map(|wish| Bytes::from(encode(wish, self.bucket)));
            match (seen, value) {
                (Some(seen), Some(value)) => self.store.compare_and_set(&self.key, seen, value, None).await.map(Some),
                (None, Some(value)) => self.store.create(&self.key, value, None).await.map(Some),
                (Some(seen), None) => self.store.compare_and_delete(&self.key, seen).await.map(|()| None),
                (None, None) => Ok(None),
            }
        };
        let late = |_| Err(WriteError::Ambiguous(LATE.to_owned()));
        let outcome = timeout(self.longest, write).await.unwrap_or_else(late);
        tell(&self.fault, outcome.as_ref().err().filter(|error| !matches!(error, WriteError::Conflict { .. })));
        outcome.map(|revision| revision.map(number))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use tokio::time::Instant;

    use super::*;
    use crate::cluster::store::{
        Incarnation as Bucket, Listing, Prefix, Revision, Ttl, Watch,
        memory::{Memory, MemoryStore, Settings},
    };

    /// A store of which reads are answered by a server that was replaced: as the bucket was.
    #[derive(Debug)]
    struct Stale {
        store: MemoryStore,
        old: Option<Entry>,
    }

    impl Store for Stale {
        fn create<'a>(
            &'a self,
            key: &'a store::Key,
            value: Bytes,
            ttl: Option<Ttl>,
        ) -> BoxFuture<'a, Result<Revision, WriteError>> {
            self.store.create(key, value, ttl)
        }

        fn compare_and_set<'a>(
            &'a self,
            key: &'a store::Key,
            seen: Revision,
            value: Bytes,
            ttl: Option<Ttl>,
        ) -> BoxFuture<'a, Result<Revision, WriteError>> {
            self.store.compare_and_set(key, seen, value, ttl)
        }

        fn compare_and_delete<'a>(
            &'a self,
            key: &'a store::Key,
            seen: Revision,
        ) -> BoxFuture<'a, Result<(), WriteError>> {
            self.store.compare_and_delete(key, seen)
        }

        fn read<'a>(&'a self, _: &'a store::Key) -> BoxFuture<'a, Result<Option<Entry>, ReadError>> {
            Box::pin(async { Ok(self.old.clone()) })
        }

        fn list<'a>(&'a self, prefix: &'a Prefix) -> BoxFuture<'a, Result<Listing, ReadError>> {
            self.store.list(prefix)
        }

        fn watch(&self, prefix: &Prefix) -> Watch {
            self.store.watch(prefix)
        }

        fn incarnation(&self) -> BoxFuture<'_, Result<Bucket, ReadError>> {
            self.store.incarnation()
        }

        fn can_expire(&self) -> bool {
            self.store.can_expire()
        }
    }

    /// C16: an old answer of the store pretends no wish, and ends none.
    #[tokio::test(start_paused = true)]
    async fn an_old_answer_of_the_store_is_not_believed() {
        let start = Instant::now();
        let store = Memory::new(Settings::default()).client("a");
        let key = store::Key::of(&["wish", "log"]).unwrap();
        let bucket = Incarnation(store.incarnation().await.unwrap().created().as_nanos());
        let wish = |word: &str| Wish::new(word.into(), "ann".parse().unwrap());
        let value = |word: &str| Bytes::from(encode(&wish(word), bucket));
        let debug = store.create(&key, value("debug"), None).await.unwrap();
        let old = store.read(&key).await.unwrap();
        let warn = store.compare_and_set(&key, debug, value("warn"), None).await.unwrap();
        let writing = |old: &Option<Entry>, known: Option<Revision>| Writing {
            store: Arc::new(Stale { store: store.clone(), old: old.clone() }),
            longest: Duration::from_secs(1),
            fault: Arc::default(),
            metrics: Arc::new(Metrics::new()),
            bucket,
            key: key.clone(),
            known: known.map(number),
        };
        // The watch knows that the wish is another by now: the wished level is written anew.
        let done = writing(&old, Some(warn)).run(Some(wish("debug"))).await.unwrap();
        assert_eq!(done.before, Some(number(warn)));
        assert_eq!(done.revision, store.read(&key).await.unwrap().map(|entry| number(entry.revision)));
        // The watch knows the wish, which the old answer does not have: the wish ends.
        let known = store.read(&key).await.unwrap().map(|entry| entry.revision);
        let done = writing(&None, known).run(None).await.unwrap();
        assert_eq!((done.revision, done.before), (None, known.map(number)));
        assert_eq!(store.read(&key).await.unwrap(), None);
        // The watch is the older one: the answer is believed once a write has met the conflict.
        let done = writing(&None, known).run(None).await.unwrap();
        assert_eq!(done.revision, None);
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
