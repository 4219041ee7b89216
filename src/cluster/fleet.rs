//! The nodes as all replicas see them: verdicts of the newest heartbeats, and their changes. No I/O
//! and no clock.
//!
//! A verdict counts while the view has that life of its replica as a member. So the verdicts of a
//! replica that fails or leaves go with the view, and a heartbeat that a dead process left in the
//! store never counts. The counts are made from scratch each time, and so equal a recount.

use std::collections::{BTreeMap, VecDeque};

use super::{moment::Moment, snapshot::Snapshot};
use crate::domain::fleet::{MemberState, NodeRef, NodeVerdict, ReplicaName, VerdictWord};

/// The newest changes that are kept.
const KEPT_CHANGES: usize = 256;

/// The verdict of one replica on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The verdict.
    pub verdict: VerdictWord,
    /// The node's last error as the replica knows it, redacted.
    pub last_error: Option<String>,
    /// The replica's own operator has cordoned the node.
    pub cordoned: bool,
}

/// For each node, the verdicts of the replicas that count.
pub type Verdicts = BTreeMap<NodeRef, BTreeMap<ReplicaName, Seen>>;

/// A change of one replica's verdict on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// When this replica heard of the change.
    pub at: Moment,
    /// The node.
    pub node: NodeRef,
    /// The replica.
    pub replica: ReplicaName,
    /// The verdict before; none of a replica, or a node, that is new.
    pub from: Option<VerdictWord>,
    /// The verdict from now on; none where the replica has the node no longer, or counts no longer.
    pub to: Option<VerdictWord>,
    /// The node's last error as the replica knows it, redacted.
    pub last_error: Option<String>,
}

/// The verdicts that count, and the newest changes of them, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    verdicts: Verdicts,
    changes: VecDeque<Change>,
}

impl Fleet {
    /// The verdicts that count.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// The newest changes, oldest first: 256 at most.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// Takes up other verdicts.
    pub(super) fn update(&mut self, now: Moment, verdicts: Verdicts) {
        for change in changes(now, &self.verdicts, &verdicts) {
            if self.changes.len() == KEPT_CHANGES {
                self.changes.pop_front();
            }
            self.changes.push_back(change);
        }
        self.verdicts = verdicts;
    }
}

/// The verdicts of the replicas that are members of the view.
pub(super) fn verdicts(snapshot: &Snapshot) -> Verdicts {
    let mut verdicts = Verdicts::new();
    let Some((_, view)) = &snapshot.view else { return verdicts };
    for peer in &*snapshot.peers {
        let state = peer.heartbeat.epoch.and_then(|epoch| view.state_of(&peer.name, epoch));
        if !matches!(state, Some(MemberState::Active | MemberState::Draining)) {
            continue;
        }
        for of_node in &peer.heartbeat.verdicts {
            let NodeVerdict { node, verdict, last_error, cordoned } = of_node;
            let seen = Seen { verdict: verdict.clone(), last_error: last_error.clone(), cordoned: *cordoned };
            verdicts.entry(node.clone()).or_default().insert(peer.name.clone(), seen);
        }
    }
    verdicts
}

/// How many replicas hold which verdict on a node.
pub fn counts(seen: &BTreeMap<ReplicaName, Seen>) -> BTreeMap<&VerdictWord, usize> {
    let mut counts = BTreeMap::new();
    seen.values().for_each(|seen| *counts.entry(&seen.verdict).or_default() += 1);
    counts
}

/// The changes between verdicts. Another error alone is none.
fn changes(at: Moment, before: &Verdicts, after: &Verdicts) -> Vec<Change> {
    let nothing = BTreeMap::new();
    let mut nodes: Vec<_> = before.keys().chain(after.keys()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    let mut changes = Vec::new();
    for node in nodes {
        let (old, new) = (before.get(node).unwrap_or(&nothing), after.get(node).unwrap_or(&nothing));
        let mut replicas: Vec<_> = old.keys().chain(new.keys()).collect();
        replicas.sort_unstable();
        replicas.dedup();
        for replica in replicas {
            let verdict = |of: &BTreeMap<ReplicaName, Seen>| of.get(replica).map(|seen| seen.verdict.clone());
            let (from, to) = (verdict(old), verdict(new));
            if from != to {
                let last_error = new.get(replica).and_then(|seen| seen.last_error.clone());
                changes.push(Change { at, node: node.clone(), replica: replica.clone(), from, to, last_error });
            }
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        cluster::snapshot::Peer,
        config::Config,
        domain::fleet::{Epoch, Heartbeat, LayerWord, Member, View, ViewNumber},
    };

    fn node(name: &str) -> NodeRef {
        NodeRef { network: "main".parse().unwrap(), layer: LayerWord::El, node: name.parse().unwrap() }
    }

    fn of(words: &[(&str, &str, &str)]) -> Verdicts {
        let mut verdicts = Verdicts::new();
        for (name, replica, word) in words {
            let seen = Seen { verdict: (*word).into(), last_error: None, cordoned: false };
            verdicts.entry(node(name)).or_default().insert(replica.parse().unwrap(), seen);
        }
        verdicts
    }

    /// C8, C9, C13: each change has both ends, a node or replica that goes is one, and the oldest
    /// go first.
    #[test]
    fn changes_have_both_ends_and_removals_are_changes() {
        let mut fleet = Fleet::default();
        fleet.update(Moment(1), of(&[("a", "r1", "up"), ("a", "r2", "up")]));
        fleet.update(Moment(2), of(&[("a", "r1", "down")]));
        fleet.update(Moment(2), of(&[("a", "r1", "down")]));
        let text = |change: &Change| {
            let word = |word: &Option<VerdictWord>| word.as_ref().map_or("none", VerdictWord::as_str).to_owned();
            format!("{} {} {}>{}", change.at.0, change.replica, word(&change.from), word(&change.to))
        };
        let changes: Vec<_> = fleet.changes().map(text).collect();
        assert_eq!(changes, ["1 r1 none>up", "1 r2 none>up", "2 r1 up>down", "2 r2 up>none"]);
        for at in 0..KEPT_CHANGES as u64 {
            fleet.update(Moment(3 + at), of(&[("a", "r1", if at % 2 == 0 { "up" } else { "down" })]));
        }
        assert_eq!((fleet.changes().count(), fleet.changes().next().unwrap().at), (KEPT_CHANGES, Moment(3)));
    }

    /// C9, C10: verdicts count of the lives that the view has as members, and of no other.
    #[test]
    fn verdicts_of_members_alone_count() {
        let settings = "[cluster]\nname = \"eu\"\nreplica = \"r1\"\nnats = \"nats://a\"\n";
        let text = format!("{settings}[[el.primary]]\nhttp = \"http://a\"\n");
        let settings = Config::parse(&text, &|_| None).unwrap().cluster.unwrap();
        let mut snapshot = Snapshot::new(&settings, Moment(0));
        let mut peers = Vec::new();
        let mut view = View::default();
        let lives = [
            ("active", 5, MemberState::Active, 5),
            ("draining", 6, MemberState::Draining, 6),
            ("failed", 7, MemberState::Failed, 7),
            ("left", 8, MemberState::Left, 8),
            ("dead", 9, MemberState::Active, 4),
            ("new", 9, MemberState::Active, 10),
        ];
        for (replica, epoch, state, heard_of) in lives {
            let name: ReplicaName = replica.parse().unwrap();
            let member = Member { epoch: Epoch(epoch), state, other: Default::default() };
            view.members.insert(name.clone(), member);
            let mut heartbeat = Heartbeat::registration(1);
            heartbeat.epoch = Some(Epoch(heard_of));
            heartbeat.verdicts =
                vec![NodeVerdict { node: node("a"), verdict: "up".into(), last_error: None, cordoned: false }];
            peers.push(Peer { name, heartbeat: Arc::new(heartbeat), seen: Moment(0) });
        }
        let stranger = Peer { name: "stranger".parse().unwrap(), ..peers[0].clone() };
        peers.push(stranger);
        snapshot.peers = peers.into();
        assert!(verdicts(&snapshot).is_empty(), "without a view there is no member");
        snapshot.view = Some((ViewNumber(1), Arc::new(view)));
        let counted: Vec<_> = verdicts(&snapshot)[&node("a")].keys().map(ToString::to_string).collect();
        assert_eq!(counted, ["active", "draining"]);
    }

    /// C19: a dead node and a broken path are told apart.
    #[test]
    fn verdicts_are_counted_by_their_words() {
        let verdicts = of(&[("a", "r1", "up"), ("a", "r2", "down"), ("a", "r3", "down"), ("b", "r1", "weighed")]);
        let text: Vec<_> =
            counts(&verdicts[&node("a")]).iter().map(|(word, count)| format!("{count} {word}")).collect();
        assert_eq!(text, ["1 up", "2 down"]);
        assert_eq!(counts(&verdicts[&node("b")]).len(), 1);
    }
}
