//! The cluster as a replica knows the cluster, for status and metrics.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    fleet::{self, Fleet},
    lease::{Leadership, Reason},
    membership::Membership,
    moment::Moment,
};
use crate::{
    config,
    domain::fleet::{
        ClusterName, Epoch, Heartbeat, LeaseState, MemberState, ReplicaName, Role, StoreRevision, Term, View,
        ViewNumber,
    },
};

/// A replica as another knows it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The replica.
    pub name: ReplicaName,
    /// The newest heartbeat.
    pub heartbeat: Arc<Heartbeat>,
    /// When this replica saw the heartbeat.
    pub seen: Moment,
}

/// The newest lease.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The holder.
    pub replica: ReplicaName,
    /// The holder's life.
    pub epoch: Epoch,
    /// The term.
    pub term: Term,
    /// The standing of the lease.
    pub state: LeaseState,
    /// The lease's revision.
    pub revision: StoreRevision,
}

/// How long the heights of a silent replica count, in milliseconds: its clients have gone to other
/// replicas, and the chain has passed the blocks.
const KEPT_HEIGHTS: u64 = 5 * 60 * 1000;

/// For each layer of each network, by their names, the highest block that the clients of each other
/// replica were shown. All are kept: which one is believed is for the reader to say.
pub type Heights = BTreeMap<(String, String), BTreeMap<ReplicaName, u64>>;

/// The knowledge of one replica at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The cluster's name.
    pub cluster: ClusterName,
    /// This replica's name.
    pub replica: ReplicaName,
    /// This replica's standing; none before the first registration.
    pub state: Option<MemberState>,
    /// This replica's part in the election.
    pub role: Role,
    /// This replica's life.
    pub epoch: Option<Epoch>,
    /// The term and the lease's end, while this replica leads and may begin work.
    pub lease: Option<(Term, Moment)>,
    /// Until when this replica is a member beyond doubt.
    pub sure_until: Option<Moment>,
    /// The later process of this name that took the place.
    pub replaced_by: Option<Epoch>,
    /// The view.
    pub view: Option<(ViewNumber, Arc<View>)>,
    /// The newest lease, whoever holds the lease.
    pub leader: Option<Leader>,
    /// The replicas that were heard of, this one included, in the order of their names.
    pub peers: Arc<[Peer]>,
    /// When the store last sent any news; none before the first news.
    pub heard: Option<Moment>,
    /// Why the newest request to the store failed, or why there is no connection to the store.
    pub fault: Option<String>,
    /// When the store was last found set back to an earlier state, as a restored backup is.
    pub set_back: Option<Moment>,
    /// The nodes as all replicas see them.
    pub fleet: Arc<Fleet>,
    /// The last fence of this process: when, and why.
    pub last_fence: Option<(Moment, String)>,
    /// When this process started.
    pub started: Moment,
}

impl Snapshot {
    /// The knowledge before the store was reached.
    pub(super) fn new(settings: &config::Cluster, now: Moment) -> Self {
        Self {
            cluster: settings.name.clone(),
            replica: settings.replica.clone(),
            state: None,
            role: Role::Watching,
            epoch: None,
            lease: None,
            sure_until: None,
            replaced_by: None,
            view: None,
            leader: None,
            peers: Arc::default(),
            heard: None,
            fault: None,
            set_back: None,
            fleet: Arc::default(),
            last_fence: None,
            started: now,
        }
    }

    /// Takes up the knowledge of the rules, but for heartbeats and view.
    pub(super) fn update(&mut self, now: Moment, lead: &Leadership, member: &Membership) {
        self.state = member.state().cloned();
        self.epoch = member.epoch();
        self.sure_until = member.sure_until();
        self.replaced_by = member.replaced_by();
        self.role = lead.role();
        self.lease = lead.may_begin(now).zip(lead.lease_end());
        self.leader = lead.leader().map(|(revision, lease)| Leader {
            replica: lease.holder.clone(),
            epoch: lease.stamp.epoch,
            term: lease.term_at(revision),
            state: lease.state.clone(),
            revision,
        });
    }

    /// Takes up heartbeats and view, where these are others. Costs with the number of replicas.
    pub(super) fn update_fleet(&mut self, now: Moment, member: &Membership) {
        let view = member.view().filter(|(number, _)| self.view.as_ref().is_none_or(|(known, _)| known != number));
        match (view, member.view()) {
            (Some((number, view)), _) => self.view = Some((number, Arc::new(view.clone()))),
            (None, Some(_)) => {}
            (None, None) => self.view = None,
        }
        let peer = |(name, heartbeat, seen): (&ReplicaName, &Arc<Heartbeat>, Moment)| Peer {
            name: name.clone(),
            heartbeat: heartbeat.clone(),
            seen,
        };
        self.peers = member.heartbeats().map(peer).collect();
        let verdicts = fleet::verdicts(self);
        if *self.fleet.verdicts() != verdicts {
            Arc::make_mut(&mut self.fleet).update(now, verdicts);
        }
    }

    /// Notes a fence.
    pub(super) fn fenced(&mut self, now: Moment, reason: &Reason) {
        self.last_fence = Some((now, reason.to_string()));
    }

    /// The heights that clients of other replicas were shown. The heights of a replica that is gone
    /// count for a while: its clients are not gone.
    pub(super) fn heights_of_others(&self, now: Moment) -> Heights {
        let mut heights = Heights::new();
        let others = self.peers.iter().filter(|peer| peer.name != self.replica);
        for peer in others.filter(|peer| now.since(peer.seen) <= KEPT_HEIGHTS) {
            for head in &peer.heartbeat.heads {
                let place = (head.network.as_str().to_owned(), head.layer.as_str().to_owned());
                let height = heights.entry(place).or_default().entry(peer.name.clone()).or_default();
                *height = head.served.max(*height);
            }
        }
        heights
    }

    /// Milliseconds since the last news of the store: the age of this knowledge.
    pub fn age(&self, now: Moment) -> u64 {
        now.since(self.heard.unwrap_or(self.started))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        domain::fleet::{LayerWord, ServedHead},
    };

    /// The heights of all replicas are kept, and those of a silent replica for a while only.
    #[test]
    fn heights_of_a_replica_that_is_gone_are_let_go() {
        let settings = "[cluster]\nname = \"eu\"\nreplica = \"r1\"\nnats = \"nats://a\"\n";
        let text = format!("{settings}[[el.primary]]\nhttp = \"http://a\"\n");
        let settings = Config::parse(&text, &|_| None).unwrap().cluster.unwrap();
        let mut snapshot = Snapshot::new(&settings, Moment(0));
        let mut peers = Vec::new();
        for (name, served, seen) in [("r1", 9, 0), ("r2", 1000, 0), ("r3", 7, 1000)] {
            let mut heartbeat = Heartbeat::registration(1);
            let (network, layer) = ("main".parse().unwrap(), LayerWord::El);
            heartbeat.heads = vec![ServedHead { network, layer, served }];
            peers.push(Peer { name: name.parse().unwrap(), heartbeat: Arc::new(heartbeat), seen: Moment(seen) });
        }
        snapshot.peers = peers.into();
        let heights = |now| -> Vec<u64> {
            let heights = snapshot.heights_of_others(Moment(now));
            heights.get(&("main".to_owned(), "el".to_owned())).into_iter().flat_map(BTreeMap::values).copied().collect()
        };
        assert_eq!(heights(KEPT_HEIGHTS), [1000, 7]);
        assert_eq!(heights(KEPT_HEIGHTS + 1), [7]);
        assert!(heights(KEPT_HEIGHTS + 1001).is_empty());
    }
}
