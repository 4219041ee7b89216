//! The copy of a watcher: turns messages and listings into events, each change told once.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{Entry, Event, Incarnation, Key, Listing, Malformed, Revision};

/// How long listings are older than what was told before, until the bucket counts as set back. A
/// server that was replaced is gone sooner.
const SET_BACK: Duration = Duration::from_secs(10);

/// The keys and revisions that a watcher knows.
///
/// Messages come in the order of their revisions, but may be lost, and may be older than the last
/// listing. A listing is the whole truth up to its revision.
#[derive(Debug, Default)]
pub(super) struct Copy {
    incarnation: Option<Incarnation>,
    /// Messages up to here are in the last listing.
    floor: Option<Revision>,
    /// The greatest revision that a message or a listing had.
    last: Option<Revision>,
    known: BTreeMap<Key, Revision>,
    /// Deletions that came as messages, and that the last listing does not know.
    gone: BTreeMap<Key, Revision>,
    malformed: BTreeMap<String, Revision>,
    /// Since when all listings were older than what was told before.
    older_since: Option<Instant>,
}

impl Copy {
    /// The bucket of the last listing.
    pub(super) const fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// The greatest revision that is known so far. A listing that begins now is old if it ends
    /// below.
    pub(super) const fn last(&self) -> Option<Revision> {
        self.last
    }

    /// Takes a message that an entry was written.
    pub(super) fn written(&mut self, entry: Entry) -> Option<Event> {
        let is_old = self.floor.is_some_and(|floor| entry.revision <= floor)
            || self.known.get(&entry.key).is_some_and(|known| entry.revision <= *known);
        if is_old {
            return None;
        }
        self.last = self.last.max(Some(entry.revision));
        self.known.insert(entry.key.clone(), entry.revision);
        Some(Event::Entry(entry))
    }

    /// Takes a message that an entry was deleted, or has expired.
    pub(super) fn deleted(&mut self, key: Key, revision: Revision) -> Option<Event> {
        if self.floor.is_none_or(|floor| floor < revision) {
            self.gone.insert(key.clone(), revision);
        }
        if self.known.get(&key).is_none_or(|known| revision <= *known) {
            return None;
        }
        self.last = self.last.max(Some(revision));
        self.known.remove(&key);
        Some(Event::Deleted { key, revision })
    }

    /// Takes a message that an entry of a foreign key was written.
    pub(super) fn strange(&mut self, malformed: Malformed) -> Option<Event> {
        let before = self.malformed.insert(malformed.key.clone(), malformed.revision);
        (before != Some(malformed.revision)).then_some(Event::Malformed(malformed))
    }

    /// Takes a listing: tells the losses and the changes that no message told.
    ///
    /// A listing that is older than a message before it comes from a server that was replaced, and
    /// is left aside: no event. If the listings stay old, the bucket was set back to an earlier
    /// state, and counts as another.
    pub(super) fn listed(&mut self, now: Instant, listing: Listing) -> Vec<Event> {
        self.listed_since(now, self.last, listing)
    }

    /// Takes a listing that was begun when `began` was the greatest revision. Messages that have
    /// come since may be ahead of the listing.
    pub(super) fn listed_since(&mut self, now: Instant, began: Option<Revision>, listing: Listing) -> Vec<Event> {
        let is_other = self.incarnation.is_some_and(|before| before != listing.incarnation);
        let is_set_back = !is_other && self.is_older(began, &listing);
        if is_set_back && now.saturating_duration_since(*self.older_since.get_or_insert(now)) < SET_BACK {
            return Vec::new();
        }
        self.older_since = None;
        let Listing { incarnation, upto, entries, malformed } = listing;
        let mut events = Vec::new();
        if is_other || is_set_back {
            *self = Self::default();
            events.push(Event::Reset { incarnation });
        }
        self.incarnation = Some(incarnation);
        self.floor = Some(upto);
        self.last = self.last.max(Some(upto));
        self.gone.retain(|_, revision| *revision > upto);
        let is_ahead = |revision: Option<&Revision>| revision.is_some_and(|revision| *revision > upto);
        let before = std::mem::take(&mut self.known);
        let listed = entries.iter().filter(|entry| !is_ahead(self.gone.get(&entry.key)));
        self.known = listed.map(|entry| (entry.key.clone(), entry.revision)).collect();
        self.known
            .extend(before.iter().filter(|(_, revision)| is_ahead(Some(revision))).map(|(key, at)| (key.clone(), *at)));
        let lost = before.iter().filter(|(key, _)| !self.known.contains_key(*key));
        events.extend(lost.map(|(key, &revision)| Event::Deleted { key: key.clone(), revision }));
        // An entry that a message has replaced or deleted since is no news.
        let is_new = |entry: &Entry| {
            self.known.get(&entry.key) == Some(&entry.revision) && before.get(&entry.key) != Some(&entry.revision)
        };
        events.extend(entries.into_iter().filter(is_new).map(Event::Entry));
        self.malformed.retain(|key, _| malformed.iter().any(|entry| entry.key == *key));
        events.extend(malformed.into_iter().filter_map(|entry| self.strange(entry)));
        events.push(Event::Synced { incarnation });
        events
    }

    /// Whether a listing of the same bucket has less than was told before it was begun. A key's
    /// revisions rise, so an entry with a lower one is from before.
    fn is_older(&self, began: Option<Revision>, listing: &Listing) -> bool {
        let upto = listing.upto;
        let is_before =
            |entry: &Entry| self.known.get(&entry.key).is_some_and(|known| entry.revision < *known && *known <= upto);
        began.is_some_and(|last| upto < last) || listing.entries.iter().any(is_before)
    }
}
