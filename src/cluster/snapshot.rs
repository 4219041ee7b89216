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

/// For each layer of each network, by their names, the highest block that another replica's clients
/// were shown.
pub type Heights = BTreeMap<(String, String), u64>;

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
    /// count too: its clients are not gone.
    pub(super) fn heights_of_others(&self) -> Heights {
        let mut heights = Heights::new();
        for peer in self.peers.iter().filter(|peer| peer.name != self.replica) {
            for head in &peer.heartbeat.heads {
                let place = (head.network.as_str().to_owned(), head.layer.as_str().to_owned());
                let height = heights.entry(place).or_default();
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
