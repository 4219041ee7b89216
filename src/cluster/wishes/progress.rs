//! How far the replicas are with the operator's wishes.

use std::collections::BTreeMap;

use super::{Standing, Wishes};
use crate::{
    cluster::{Peer, Snapshot},
    domain::fleet::{Applied, Key, MemberState, ReplicaName, StoreRevision, WishError, WishKey},
};

/// Wishes that have ended and that a replica still reports: so many are told.
const MAX_ENDED: usize = 64;

/// A replica's way with one wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// The replica.
    pub replica: ReplicaName,
    /// The revision that the replica has taken up; none where it has taken up none.
    pub applied: Option<StoreRevision>,
    /// Whether the replica has applied what is wished now.
    pub is_met: bool,
    /// Why the replica could not.
    pub last_error: Option<WishError>,
}

/// A wish, and how far each active replica is with it.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The subject.
    pub key: WishKey,
    /// The wish; none where it has ended, and a replica still reports it.
    pub standing: Option<Standing>,
    /// No replica keeps to the wish, since there are too many.
    pub is_ignored: bool,
    /// The active replicas, in the order of their names.
    pub replicas: Vec<Reached>,
}

/// All wishes, in the order of their subjects, with the progress of the replicas that the view has
/// as active. Revisions are compared for equality: those of a bucket before mean nothing.
pub fn progress(wishes: &Wishes, snapshot: &Snapshot) -> Vec<Progress> {
    let members: Vec<_> = members(snapshot).collect();
    let obeyed = wishes.obeyed();
    let mut all: BTreeMap<WishKey, Progress> = BTreeMap::new();
    for (key, standing) in wishes.iter() {
        let is_ignored = !obeyed.contains_key(key);
        let standing = Some(standing.clone());
        all.insert(key.clone(), Progress { key: key.clone(), standing, is_ignored, replicas: Vec::new() });
    }
    let reported = members.iter().filter_map(|(_, peer)| *peer).flat_map(|peer| &peer.heartbeat.wishes);
    let ended = reported.filter_map(|applied| match applied.key.parse() {
        Ok(Key::Wish(key)) if wishes.get(&key).is_none() => Some(key),
        _ => None,
    });
    for key in ended.take(MAX_ENDED) {
        let ended = Progress { key: key.clone(), standing: None, is_ignored: false, replicas: Vec::new() };
        all.entry(key).or_insert(ended);
    }
    for progress in all.values_mut().filter(|progress| !progress.is_ignored) {
        let text = Key::Wish(progress.key.clone()).to_string();
        let wished = progress.standing.as_ref().map(|standing| standing.revision);
        progress.replicas = members.iter().map(|(name, peer)| reached(name, *peer, &text, wished)).collect();
    }
    all.into_values().collect()
}

/// The active replicas of the view, each with its heartbeat of this life, if there is one yet.
fn members(snapshot: &Snapshot) -> impl Iterator<Item = (&ReplicaName, Option<&Peer>)> {
    let members = snapshot.view.iter().flat_map(|(_, view)| &view.members);
    members.filter(|(_, member)| member.state == MemberState::Active).map(|(name, member)| {
        let is_it = |peer: &&Peer| peer.name == *name && peer.heartbeat.epoch == Some(member.epoch);
        (name, snapshot.peers.iter().find(is_it))
    })
}

fn reached(name: &ReplicaName, peer: Option<&Peer>, key: &str, wished: Option<StoreRevision>) -> Reached {
    let reported = peer.and_then(|peer| peer.heartbeat.wishes.iter().find(|applied| applied.key == key));
    let applied = reported.map(|Applied { revision, .. }| *revision);
    // An error with another wish says nothing of this one.
    let last_error = reported.filter(|_| applied == wished).and_then(|applied| applied.last_error.clone());
    Reached { replica: name.clone(), applied, is_met: applied == wished && last_error.is_none(), last_error }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cluster::{moment::Moment, wishes::Table},
        config::Config,
        domain::fleet::{Epoch, Heartbeat, Member, View, ViewNumber, Wish, WishErrorWord, WishWord},
    };

    /// A replica with this life that reports these revisions of the wish for the log.
    fn peer(name: &str, epoch: u64, applied: Option<u64>, last_error: Option<WishError>) -> Peer {
        let mut heartbeat = Heartbeat::registration(1);
        heartbeat.epoch = Some(Epoch(epoch));
        let key = "wish.log".to_owned();
        let applied = applied.map(|revision| Applied { key, revision: StoreRevision(revision), last_error });
        heartbeat.wishes = applied.into_iter().collect();
        Peer { name: name.parse().unwrap(), heartbeat: Arc::new(heartbeat), seen: Moment(0) }
    }

    /// C17: the applied revision is compared with the wished one for each active replica, for
    /// equality. The heartbeat of another life says nothing. A wish that has ended is met when no
    /// replica reports it.
    #[test]
    fn a_wish_is_met_by_the_replica_that_has_its_revision() {
        let settings = "[cluster]\nname = \"eu\"\nreplica = \"r1\"\nnats = \"nats://a\"\n";
        let text = format!("{settings}[[el.primary]]\nhttp = \"http://a\"\n");
        let settings = Config::parse(&text, &|_| None).unwrap().cluster.unwrap();
        let mut snapshot = Snapshot::new(&settings, Moment(0));
        let error = WishError::new(WishErrorWord::NotApplied, "fixed");
        let peers = [
            peer("applied", 1, Some(9), None),
            peer("behind", 1, Some(8), Some(error.clone())),
            peer("dead", 1, Some(9), None),
            peer("erring", 1, Some(9), Some(error.clone())),
            peer("from-another-bucket", 1, Some(10), None),
            peer("silent", 1, None, None),
        ];
        let mut view = View::default();
        for peer in &peers {
            let epoch = Epoch(if peer.name.as_str() == "dead" { 2 } else { 1 });
            let member = Member { epoch, state: MemberState::Active, other: Default::default() };
            view.members.insert(peer.name.clone(), member);
        }
        snapshot.peers = peers.into();
        snapshot.view = Some((ViewNumber(1), Arc::new(view)));
        let mut table = Table::new();
        let wish = Wish::new(WishWord::Debug, "r1".parse().unwrap());
        table.entry(WishKey::Log, StoreRevision(9), 0, Ok(wish));
        table.synced();
        let told = |wishes: &Wishes| {
            let all = progress(wishes, &snapshot);
            assert_eq!(all.len(), 1);
            let words = |of: &Reached| format!("{} {} {}", of.replica, of.is_met, of.last_error.is_some());
            all[0].replicas.iter().map(words).collect::<Vec<_>>()
        };
        let known = ["applied true false", "behind false false", "dead false false", "erring false true"];
        assert_eq!(
            told(table.known()),
            [&known[..], &["from-another-bucket false false", "silent false false"]].concat()
        );
        table.deleted(&WishKey::Log, StoreRevision(12));
        let ended = ["applied false false", "behind false false", "dead true false", "erring false false"];
        assert_eq!(
            told(table.known()),
            [&ended[..], &["from-another-bucket false false", "silent true false"]].concat()
        );
    }
}
