//! The news of the watch, given to all rules in the order of the store's revisions.

use tracing::{debug, error, warn};

use super::{Driver, Feed, wishing};
use crate::{
    cluster::{
        connect::incarnation,
        lease, membership,
        store::{Entry, Event, Prefix, Revision},
    },
    domain::fleet::{Heartbeat, Incarnation, Key, MemberState, ReplicaName, StoreRevision, View, Wish, decode},
};

impl Driver {
    /// Takes an event of the watch.
    pub(super) fn take(&mut self, event: Option<Event>) {
        if let Some(Event::Failed(why)) = event {
            self.watch_fault = Some(why);
            return;
        }
        self.notice_silence();
        match event {
            // Told above: a failure is no news of the store.
            Some(Event::Failed(_)) => {}
            Some(Event::Entry(entry)) => self.entry(&entry),
            Some(Event::Deleted { key, revision }) => self.deleted(key.as_str(), revision),
            Some(Event::Synced { incarnation: of }) if incarnation(of) == self.bucket => {
                self.watch_fault = None;
                self.synced();
            }
            // Between the look at the bucket and the watch, the bucket was made anew: the entries
            // that were told are read again, for the right one.
            Some(Event::Synced { incarnation: of }) => {
                self.recreated(incarnation(of));
                self.watch = self.store.watch(&Prefix::ALL);
            }
            Some(Event::Reset { incarnation: of }) => self.recreated(incarnation(of)),
            Some(Event::Malformed(malformed)) => {
                self.tools.metrics.cluster_unreadable();
                debug!(key = malformed.key, why = malformed.why, "an entry of the bucket is not Steadfast's");
            }
            None => {
                error!("the watch of the cluster's store ended, and begins anew");
                self.reset();
                self.watch = self.store.watch(&Prefix::ALL);
            }
        }
    }

    /// After a silence of the store, others are judged by the news from now on: their heartbeats
    /// may have met the same silence.
    fn notice_silence(&mut self) {
        let now = self.now();
        let silence = self.heard.map_or(0, |heard| now.since(heard));
        if self.is_synced && silence > self.plan.settings.timing.lease {
            self.member_sees(membership::Watched::Synced);
        }
        self.heard = Some(now);
    }

    fn synced(&mut self) {
        let lost: Vec<_> = self.wishes.synced().iter().map(|(key, standing)| wishing::words(key, standing)).collect();
        if !lost.is_empty() {
            let lost = lost.join(", ");
            warn!(lost, "the operator's wishes are not in the bucket any more: make them again");
        }
        // The rules take the event as the end of a first listing, and the watch repeats that event.
        if !self.is_synced {
            self.is_synced = true;
            self.lead_sees(lease::Watched::Synced);
            self.member_sees(membership::Watched::Synced);
        }
    }

    fn reset(&mut self) {
        self.is_synced = false;
        self.wishes.reset();
        self.lead_sees(lease::Watched::Reset);
        self.member_sees(membership::Watched::Reset);
    }

    fn recreated(&mut self, bucket: Incarnation) {
        if bucket == self.bucket {
            error!(%bucket, "the cluster's bucket was set back to an earlier state: this replica joins anew");
            self.snapshot.set_back = Some(self.now());
        } else {
            warn!(%bucket, "the cluster's bucket is another: this replica joins anew");
        }
        self.reset();
        self.bucket = bucket;
        self.wishes.recreated();
        self.lead_sees(lease::Watched::Recreated);
        self.member_sees(membership::Watched::Recreated);
    }

    fn entry(&mut self, entry: &Entry) {
        let (text, revision) = (entry.key.as_str(), number(entry.revision));
        let Ok(key) = text.parse::<Key>() else {
            debug!(key = text, "a key of the bucket is of another version");
            return;
        };
        match key {
            Key::Leader => {
                let watched = match decode(text, &entry.value, self.bucket) {
                    Ok(lease) => lease::Watched::Lease { revision, lease },
                    Err(malformed) => {
                        self.unreadable(&malformed);
                        lease::Watched::Malformed { revision }
                    }
                };
                self.lead_sees(watched);
            }
            Key::View => {
                let view =
                    decode::<View>(text, &entry.value, self.bucket).and_then(|view| view.checked(text, revision));
                let view = view.map_err(|malformed| self.unreadable(&malformed)).ok();
                self.member_sees(membership::Watched::View { revision, view });
            }
            Key::Replica(replica) => {
                let heartbeat = decode::<Heartbeat>(text, &entry.value, self.bucket);
                let heartbeat = heartbeat.map_err(|malformed| self.unreadable(&malformed)).ok();
                let asks = heartbeat.as_ref().is_some_and(|heartbeat| self.asks(&replica, heartbeat, revision));
                let (by, heartbeat) = (replica.clone(), heartbeat.map(Box::new));
                self.member_sees(membership::Watched::Heartbeat { replica, revision, heartbeat });
                if asks {
                    self.inputs.push_back(Feed::Lead(lease::Input::Asked { by }));
                }
            }
            Key::Wish(key) => {
                let wish = Wish::read(text, &entry.value, self.bucket).map_err(|malformed| {
                    self.unreadable(&malformed);
                    malformed.why
                });
                self.wishes.entry(key, revision, entry.created.as_nanos(), wish);
            }
        }
    }

    /// Whether a heartbeat asks for the lease, and its replica may have the lease.
    fn asks(&self, replica: &ReplicaName, heartbeat: &Heartbeat, revision: StoreRevision) -> bool {
        let state = || self.member.view()?.1.state_of(replica, heartbeat.epoch_at(revision));
        heartbeat.wants_lead && state() == Some(MemberState::Active)
    }

    fn deleted(&mut self, text: &str, revision: Revision) {
        // Where the store tells of no deletion, the number is that of the entry itself.
        let revision = StoreRevision(revision.get().saturating_add(1));
        match text.parse::<Key>() {
            Ok(Key::Leader) => self.lead_sees(lease::Watched::Gone { revision }),
            Ok(Key::Replica(replica)) => self.member_sees(membership::Watched::Gone { replica, revision }),
            Ok(Key::View) => self.member_sees(membership::Watched::ViewGone { revision }),
            Ok(Key::Wish(key)) => self.wishes.deleted(&key, revision),
            Err(_) => {}
        }
    }

    fn unreadable(&self, malformed: &crate::domain::fleet::Malformed) {
        self.tools.metrics.cluster_unreadable();
        warn!(%malformed, "an entry of the cluster cannot be read");
    }

    fn lead_sees(&mut self, watched: lease::Watched) {
        self.inputs.push_back(Feed::Lead(lease::Input::Watch(watched)));
    }

    fn member_sees(&mut self, watched: membership::Watched) {
        self.inputs.push_back(Feed::Member(membership::Input::Watch(watched)));
    }
}

/// The store's number, as the rules have it.
pub(super) fn number(revision: Revision) -> StoreRevision {
    StoreRevision(revision.get())
}
