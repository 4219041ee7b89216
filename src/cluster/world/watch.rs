//! The watch: every replica is told the store's writes in their order.

use std::collections::VecDeque;

use super::World;
use crate::{
    cluster::{lease, membership},
    domain::fleet::{self, Key, View},
};

impl World {
    /// Tells a replica the news of the watch.
    pub(super) fn watch(&mut self, at: usize) {
        let now = self.now;
        if self.replicas[at].cut_until > now {
            self.replicas[at].was_cut = true;
            return;
        }
        if self.replicas[at].lags_until > now {
            return;
        }
        if self.chance(5) {
            self.replicas[at].lags_until = now + self.rng.u64(50..4500);
        }
        let was_cut = std::mem::take(&mut self.replicas[at].was_cut);
        let incarnation = self.store.incarnation;
        let entries: VecDeque<_> = match self.replicas[at].followed {
            Some((followed, place)) if followed == incarnation && !was_cut => self.store.log[place..].to_vec().into(),
            before => {
                if let Some((followed, _)) = before {
                    self.reset(at, followed != incarnation);
                }
                self.store.list().into()
            }
        };
        let is_list = was_cut || self.replicas[at].followed.is_none_or(|(followed, _)| followed != incarnation);
        self.replicas[at].followed = Some((incarnation, self.store.log.len()));
        for entry in entries {
            self.tell(at, entry);
        }
        if is_list {
            self.lead(at, lease::Input::Watch(lease::Watched::Synced));
            self.member(at, membership::Input::Watch(membership::Watched::Synced));
        }
    }

    fn reset(&mut self, at: usize, is_recreated: bool) {
        self.lead(at, lease::Input::Watch(lease::Watched::Reset));
        self.member(at, membership::Input::Watch(membership::Watched::Reset));
        if is_recreated {
            self.lead(at, lease::Input::Watch(lease::Watched::Recreated));
            self.member(at, membership::Input::Watch(membership::Watched::Recreated));
        }
    }

    fn tell(&mut self, at: usize, entry: super::store::Entry) {
        let super::store::Entry { revision, key, value } = entry;
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key.clone()));
        let bucket = self.replicas[at].bucket();
        match key {
            Key::Leader => {
                let watched = match fleet::decode(&text, &value, bucket) {
                    Ok(lease) => lease::Watched::Lease { revision, lease },
                    Err(_) => lease::Watched::Malformed { revision },
                };
                self.lead(at, lease::Input::Watch(watched));
            }
            Key::View => {
                let view: Option<View> = fleet::decode(&text, &value, bucket).ok();
                self.member(at, membership::Input::Watch(membership::Watched::View { revision, view }));
            }
            Key::Replica(replica) => {
                let heartbeat = fleet::decode(&text, &value, bucket).ok().map(Box::new);
                let watched = membership::Watched::Heartbeat { replica, revision, heartbeat };
                self.member(at, membership::Input::Watch(watched));
            }
            // No rule of this world writes a wish.
            Key::Wish(key) => panic!("a wish for {key}"),
        }
    }
}
